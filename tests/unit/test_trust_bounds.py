"""The threat 'compromised issuing CA admin': what an issuing CA signs beyond its bounds counts at no door."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from esgf_gossip.core.digests import encode_digest
from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.model import Digest, SignedDigest
from esgf_gossip.trust import certificate_object, issue, keys, pem
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.bundle import Bundle, IssuerPolicy
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.install import import_bundles, install
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.objects import TrustObjects
from esgf_gossip.trust.requests import make_request
from esgf_gossip.trust.tls import ConnectionCreator
from esgf_gossip.trust.verifier import DigestVerifier
from helpers.bundles import admin_keys, bounded, next_bundle, put
from helpers.handshakes import handshake
from helpers.trust import (
    BAD_HOST,
    DAY_MS,
    Credentials,
    Draft,
    TestFederation,
    a_draft,
    a_federation,
    signed_draft,
)

HOST = "node.site-a.example.org"
BOUNDS = IssuerPolicy((".site-a.example.org", BAD_HOST), ("member", "esgf-test"), ("document-writer",), 90)


def _name(draft: Draft, kind: str, name: str) -> None:
    draft.names.append(x509.UniformResourceIdentifier(f"esgf://federation.example.org/{kind}/{name}"))


def _by_unlisted_ca(federation: TestFederation) -> CertificateAuthority:
    key = keys.new_key()
    certificate = issue.issuing_ca(federation.name, key, federation.root, federation.now_ms, 90, 7)
    return CertificateAuthority(certificate, key)


Spoil = Callable[[TestFederation, Draft], None]

BEYOND: dict[str, tuple[Spoil, str]] = {
    "suffix": (
        lambda _, draft: draft.names.append(x509.DNSName("index.site-b.example.org")),
        "'index.site-b.example.org' is outside issuer suffix .site-a.example.org",
    ),
    "group": (
        lambda _, draft: _name(draft, "group", "esgf-prod"),
        "group 'esgf-prod' not allowed for this issuer",
    ),
    "role": (
        lambda _, draft: _name(draft, "role", "secret-admin"),
        "role 'secret-admin' not allowed for this issuer",
    ),
    "life": (
        lambda _, draft: setattr(draft, "end", draft.start + timedelta(days=92)),
        "92 days; the policy allows 1 to 90",
    ),
    "unlisted CA": (
        lambda federation, draft: setattr(draft, "issuer", _by_unlisted_ca(federation)),
        # Whoever has the root's key can make one; nobody has a CRL of it, which is found first.
        "'CN=Issuing G7,O=federation.example.org'",
    ),
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found a federation whose second bundle bounds its issuing CA, and a node that holds both."""
    found = a_federation(tmp_path_factory.mktemp("bounds"))
    found.node("free.example.org")
    found.node("attacker-helper.example.org")
    found.node(HOST)
    (first,) = found.authority.bundles()
    second = next_bundle(first, admin_keys(found), issuers=bounded(first, BOUNDS))
    import_bundles(found.node(HOST), [second], federation=found.name)
    put(found, second)
    return found


def forged(federation: TestFederation, kind: str) -> Credentials:
    """Let the issuing CA sign what it may not."""
    draft = a_draft(federation)
    if kind:
        BEYOND[kind][0](federation, draft)
    return signed_draft(draft)


def bundle_of(federation: TestFederation) -> Bundle:
    """Return the bundle in force on HOST."""
    found = federation.material(HOST).bundle
    assert found is not None
    return found


def test_what_is_within_bounds_is_let_in(federation: TestFederation) -> None:
    """The same certificate without a fault passes every door, so that the refusals below are for theirs."""
    good = forged(federation, "")
    check_issued(bundle_of(federation), good.leaf)
    verified = a_signed_digest(federation, good, DigestVerifier(federation.material(HOST)))
    assert verified == BAD_HOST
    server, client, _ = handshake(*creators(federation, good))
    assert (client.received, server.identity is not None) == (b"admitted", True)


def a_signed_digest(federation: TestFederation, hostile: Credentials, verifier: DigestVerifier) -> str:
    """Let a verifier judge a digest of hostile credentials, and return its origin."""
    signer = hostile.material(federation).signer
    digest = Digest(
        federation=federation.name,
        origin=BAD_HOST,
        certificate_sha256=signer.certificate_sha256,
        epoch=7,
        sequence=3,
        issued_at_ms=federation.now_ms,
        expires_at_ms=federation.now_ms + DAY_MS,
        contact=(BAD_HOST, 8951),
    )
    payload = encode_digest(digest)
    signed = SignedDigest(payload, signer.sign(payload))
    return verifier.verify(signed, digest, hostile.chain, federation.now_ms).digest.origin


def creators(
    federation: TestFederation, hostile: Credentials, *, dials: bool = True
) -> tuple[ConnectionCreator, ConnectionCreator]:
    """Return (server, client): HOST, which holds the bounds, and the hostile one on the other side."""
    now_ms = federation.now_ms
    ours = ConnectionCreator(federation.material(HOST), lambda: now_ms)
    theirs = ConnectionCreator(hostile.material(federation), lambda: now_ms)
    return (ours, theirs) if dials else (theirs, ours)


@pytest.mark.parametrize("kind", BEYOND)
def test_a_digest_beyond_bounds_is_refused(federation: TestFederation, kind: str) -> None:
    """No digest signed by such a certificate counts."""
    verifier = DigestVerifier(federation.material(HOST))
    with pytest.raises(DigestRefused, match=r"E-POLICY|E-CHAIN-3") as caught:
        a_signed_digest(federation, forged(federation, kind), verifier)
    assert BEYOND[kind][1] in str(caught.value)


@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize("kind", BEYOND)
def test_a_handshake_beyond_bounds_is_refused(federation: TestFederation, kind: str, dials: bool) -> None:
    """Neither as server nor as client does a node let such a peer in."""
    server, client, _ = handshake(*creators(federation, forged(federation, kind), dials=dials))
    ours, theirs = (server, client) if dials else (client, server)
    assert BEYOND[kind][1] in str(ours.lost)
    assert ours.identity is None
    assert theirs.received == b""


@pytest.mark.parametrize("kind", BEYOND)
def test_one_function_says_so_everywhere(federation: TestFederation, kind: str) -> None:
    """The judgement itself, on the certificate alone; without a bundle nothing is out of bounds."""
    hostile = forged(federation, kind)
    check_issued(None, hostile.leaf)
    with pytest.raises(TrustError) as caught:
        check_issued(bundle_of(federation), hostile.leaf)
    assert (caught.value.code, caught.value.exit_code) == ("E-POLICY", 4)
    assert BEYOND[kind][1] in caught.value.text
    assert "trust bundle 2" in caught.value.text


def test_a_ca_of_the_same_name_is_another(federation: TestFederation) -> None:
    """A CA that whoever has the root's key made, with the name of a listed one, signs nothing that counts."""
    key = keys.new_key()
    impostor = issue.issuing_ca(federation.name, key, federation.root, federation.now_ms, 90)
    assert impostor.subject == federation.issuing.certificate.subject
    draft = a_draft(federation)
    draft.issuer = CertificateAuthority(impostor, key)
    with pytest.raises(TrustError, match="E-POLICY: trust bundle 2 holds no issuing CA"):
        check_issued(bundle_of(federation), draft.sign())


@pytest.mark.parametrize("kind", [kind for kind in BEYOND if kind != "unlisted CA"])
def test_a_link_ends_when_bounds_come(federation: TestFederation, kind: str) -> None:
    """Links that stood before the bundle came are judged by it."""
    hostile = forged(federation, kind)
    now_ms = federation.now_ms
    ours = ConnectionCreator(federation.material("free.example.org"), lambda: now_ms)
    theirs = ConnectionCreator(hostile.material(federation), lambda: now_ms)
    server, _, _ = handshake(ours, theirs)
    assert server.identity is not None
    assert ours.still_trusted(server.transport) == ""
    ours.replace(federation.material(HOST))
    assert BEYOND[kind][1] in ours.still_trusted(server.transport)


@pytest.mark.parametrize("kind", BEYOND)
def test_a_certificate_beyond_bounds_is_not_installed(
    federation: TestFederation, tmp_path: Path, kind: str
) -> None:
    """Installation refuses it, and writes nothing."""
    hostile = forged(federation, kind)
    keys.write_key(tmp_path / "node.key", hostile.key, None)
    chain = b"".join(map(pem.certificate_pem, (hostile.leaf, *hostile.issuers)))
    with pytest.raises(TrustError, match=r"E-POLICY|E-CHAIN-3") as caught:
        install(
            tmp_path,
            chain,
            federation.authority.roots(),
            federation.authority.crls(),
            host=BAD_HOST,
            federation=federation.name,
            now_ms=federation.now_ms,
            bundles=federation.authority.bundles(),
        )
    assert BEYOND[kind][1] in caught.value.text
    assert not (tmp_path / "chain.pem").exists()


@pytest.mark.parametrize("kind", BEYOND)
def test_a_reissued_certificate_beyond_bounds_is_not_passed_on(federation: TestFederation, kind: str) -> None:
    """Nor does it travel as a trust object."""
    hostile = forged(federation, kind)
    objects = TrustObjects(federation.node(HOST), federation.material(HOST))
    body = certificate_object.to_body([hostile.leaf, *hostile.issuers])
    with pytest.raises(Exception, match=r"E-POLICY|E-CHAIN-3"):
        objects.judge_object(f"certificate/{BAD_HOST}", body, None, federation.now_ms)


def test_the_administration_signs_nothing_beyond_bounds(federation: TestFederation) -> None:
    """What no node would carry is not signed in the first place, whatever policy.toml says."""
    made = make_request(
        federation.directory / "beyond",
        "x.site-b.example.org",
        federation.name,
        ["x.site-b.example.org"],
        [],
        [],
    )
    with pytest.raises(TrustError, match="E-POLICY") as caught:
        federation.authority.approve(made.pem, fingerprint=made.fingerprint, now_ms=federation.now_ms)
    assert "is outside issuer suffix" in caught.value.text
    assert not [
        one for one in federation.authority.log.records() if one.get("node") == "x.site-b.example.org"
    ]


def test_a_node_out_of_bounds_runs_on_and_says_so(federation: TestFederation) -> None:
    """A node whose own certificate a newer bundle no longer carries can load it, to find the way out; a command refuses."""
    directory = federation.node("free.example.org")
    now_ms = federation.now_ms
    import_bundles(directory, [federation.authority.bundles()[1]], federation=federation.name)
    try:
        with pytest.raises(TrustError, match="E-POLICY"):
            federation.material("free.example.org")
        late = TrustMaterial.load(
            directory, host="free.example.org", federation=federation.name, now_ms=now_ms, may_be_late=True
        )
        assert late.bundle is not None
        assert late.bundle.version == 2
        assert any("no longer counts" in one.text for one in late.findings(now_ms))
    finally:
        (directory / "bundle" / "000002.bundle").unlink()
