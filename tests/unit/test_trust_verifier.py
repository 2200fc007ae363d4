"""The verdict on digests: every rule refuses alone, and the signature proves the bytes."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from OpenSSL._util import lib

from esgf_gossip.core.digests import encode_digest
from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.forks import prove
from esgf_gossip.core.limits import CLOCK_AHEAD_MS, DIGEST_LIFETIME_MS
from esgf_gossip.core.messages import Fork
from esgf_gossip.core.model import Digest, SignedDigest, VerifiedDigest
from esgf_gossip.trust import issue, pem, signing, verifier
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.revocation import CrlSet, milliseconds
from esgf_gossip.trust.verifier import DigestVerifier
from helpers.trust import (
    BAD_HOST,
    DAY_MS,
    Credentials,
    TestFederation,
    a_draft,
    a_federation,
    bad_leaf,
    signed_draft,
)

HOST = "node.example.org"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for all tests that change nothing of it."""
    return a_federation(tmp_path_factory.mktemp("federation"))


def a_digest(federation: TestFederation, **changes: Any) -> Digest:
    """Return a good digest of HOST, with changes; ``of`` names another federation."""
    signer = federation.material(HOST).signer
    good = Digest(
        federation=changes.pop("of", federation.name),
        origin=HOST,
        certificate_sha256=signer.certificate_sha256,
        epoch=7,
        sequence=3,
        issued_at_ms=federation.now_ms,
        expires_at_ms=federation.now_ms + DAY_MS,
        contact=(HOST, 8951),
    )
    return attrs.evolve(good, **changes)


def verified(federation: TestFederation, digest: Digest, **how: Any) -> VerifiedDigest:
    """Verify a digest that HOST signed; chain, payload, signature, now can be given."""
    signer = federation.material(HOST).signer
    payload = how.get("payload", b"the payload")
    signed = SignedDigest(payload, how.get("signature", signer.sign(b"the payload")))
    judge = how.get("judge") or DigestVerifier(federation.material("judge.example.org"))
    return judge.verify(signed, digest, how.get("chain", signer.chain), how.get("now_ms", federation.now_ms))


def refusal(federation: TestFederation, digest: Digest, **how: Any) -> DigestRefused:
    """Return why a digest is refused."""
    with pytest.raises(DigestRefused) as caught:
        verified(federation, digest, **how)
    return caught.value


def test_good_digest_is_verified(federation: TestFederation) -> None:
    """A good digest gets its order from the certificate, and its name from the payload."""
    digest = a_digest(federation)
    found = verified(federation, digest)
    leaf = federation.material(HOST).leaf
    assert found.digest == digest
    assert found.order.certificate.not_before_s == int(leaf.not_valid_before_utc.timestamp())
    assert found.order.certificate.serial == leaf.serial_number.to_bytes(20, "big")
    assert (found.order.epoch, found.order.sequence) == (7, 3)
    assert found.payload_sha256 == hashlib.sha256(b"the payload").digest()
    assert found.chain == federation.material(HOST).signer.chain
    assert found.groups == {"member"}
    assert found.hosts == {HOST}


def test_every_host_in_the_certificate_is_one_its_node_speaks_for(federation: TestFederation) -> None:
    """The node's own name and all DNS names; groups and roles are no hosts."""
    draft = a_draft(federation)
    draft.names.append(x509.DNSName("data.example.org"))
    digest, how = signed_by(federation, signed_draft(draft))
    assert verified(federation, digest, **how).hosts == {BAD_HOST, "data.example.org"}


def test_malleated_signature_names_the_same_digest(federation: TestFederation) -> None:
    """(r, n-s) verifies too, and the digest keeps its name and place: a twin is no second digest."""
    signature = federation.material(HOST).signer.sign(b"the payload")
    r, s = decode_dss_signature(signature)
    twin = verified(federation, a_digest(federation), signature=encode_dss_signature(r, P256_ORDER - s))
    assert twin.head == verified(federation, a_digest(federation), signature=signature).head


def test_signatures_are_deterministic(federation: TestFederation) -> None:
    """The same payload gives the same signature, and the context is part of what is signed."""
    signer = federation.material(HOST).signer
    assert signer.sign(b"a") == signer.sign(b"a")
    assert signing.DIGEST_CONTEXT == b"esgf-gossip/digest/1\0"
    assert not signing.is_signed(signer._key.public_key(), signing.DIGEST_CONTEXT + b"a", signer.sign(b"a"))


def test_two_digests_of_one_number_prove_a_fork_whatever_the_clock(federation: TestFederation) -> None:
    """Real keys: both signatures count, a twin of one signature is no second digest, dates far ahead change nothing."""
    signer = federation.material(HOST).signer
    judge = DigestVerifier(federation.material("judge.example.org"))

    def signed(**changes: Any) -> SignedDigest:
        payload = encode_digest(a_digest(federation, **changes))
        return SignedDigest(payload, signer.sign(payload))

    one, other = signed(), signed(leaving=True)
    ahead = {"issued_at_ms": federation.now_ms + 9 * DAY_MS, "expires_at_ms": federation.now_ms + 10 * DAY_MS}
    for newer in (other, signed(**ahead)):
        line = prove(Fork(signer.chain, one, newer, "", ()), judge)
        assert (line.origin, line.certificate_sha256) == (HOST, signer.certificate_sha256)
    r, s = decode_dss_signature(one.signature)
    twin = attrs.evolve(one, signature=encode_dss_signature(r, P256_ORDER - s))
    forged = attrs.evolve(other, signature=one.signature)
    for newer in (twin, forged, signed(sequence=4), signed(certificate_sha256=bytes(32))):
        with pytest.raises(DigestRefused):
            prove(Fork(signer.chain, one, newer, "", ()), judge)


CHANGES = {
    "other federation": ({"of": "other.example.org"}, "of federation 'other.example.org', not ours"),
    "other certificate": ({"certificate_sha256": bytes(32)}, "not that of the certificate the digest names"),
    "other origin": ({"origin": "victim.example.org"}, "says it is of 'victim.example.org'"),
    "expires when issued": ({"expires_at_ms": 0}, "expires before it was issued"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_a_digest_says_must_hold(federation: TestFederation, kind: str) -> None:
    """A digest of another federation, certificate or origin, or without life, is refused for good."""
    changes, says = CHANGES[kind]
    found = refusal(federation, a_digest(federation, **changes))
    assert says in found.reason
    assert found.lasting


@pytest.mark.parametrize("signature", [b"", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"x" * 72])
def test_bad_signature_is_refused(federation: TestFederation, signature: bytes) -> None:
    """A signature that is none, zero or garbage is refused."""
    assert (
        refusal(federation, a_digest(federation), signature=signature).reason
        == "the signature does not match"
    )


def test_changed_payload_is_refused(federation: TestFederation) -> None:
    """One changed byte of the payload is refused."""
    assert (
        refusal(federation, a_digest(federation), payload=b"the paYload").reason
        == "the signature does not match"
    )


def test_life_is_bounded(federation: TestFederation) -> None:
    """A digest may live a week to the millisecond, and not one more."""
    longest = federation.now_ms + DIGEST_LIFETIME_MS
    assert verified(federation, a_digest(federation, expires_at_ms=longest)).digest.expires_at_ms == longest
    assert refusal(federation, a_digest(federation, expires_at_ms=longest + 1)).reason == (
        "is valid for longer than the protocol allows"
    )


def test_digest_never_outlives_its_certificate(federation: TestFederation) -> None:
    """A digest may end with its certificate, not later."""
    end = federation.material(HOST).not_after_ms
    late = {"issued_at_ms": end - DAY_MS, "now_ms": end}
    good = a_digest(federation, issued_at_ms=end - DAY_MS, expires_at_ms=end)
    assert verified(federation, good, now_ms=late["now_ms"]).digest == good
    bad = attrs.evolve(good, expires_at_ms=end + 1)
    assert refusal(federation, bad, now_ms=late["now_ms"]).reason == "outlives its certificate"


def test_digest_dated_ahead_is_refused_for_now_only(federation: TestFederation) -> None:
    """A digest dated ten minutes ahead passes, one millisecond more is refused, and may come again."""
    issued = federation.now_ms + CLOCK_AHEAD_MS
    assert verified(federation, a_digest(federation, issued_at_ms=issued)).digest.issued_at_ms == issued
    assert not refusal(federation, a_digest(federation, issued_at_ms=issued + 1)).lasting


def test_chain_is_judged_as_of_when_the_digest_was_issued(federation: TestFederation) -> None:
    """Years after its certificate expired a digest is as good as on the day it was signed, CRL age or not."""
    years = federation.now_ms + 1000 * DAY_MS
    assert verified(federation, a_digest(federation), now_ms=years).digest.origin == HOST


@pytest.mark.parametrize("days", [-1, 91])
def test_issued_outside_of_the_certificate_is_refused(federation: TestFederation, days: int) -> None:
    """A digest dated before or after the life of its certificate is refused."""
    issued = federation.now_ms + days * DAY_MS
    bad = a_digest(federation, issued_at_ms=issued, expires_at_ms=issued + 1)
    assert "E-CHAIN-" in refusal(federation, bad, now_ms=federation.now_ms + 100 * DAY_MS).reason


def test_cached_verdict_does_not_hide_the_date(federation: TestFederation) -> None:
    """A chain that was good for one digest is judged again for one issued outside of its life."""
    judge = DigestVerifier(federation.material("judge.example.org"))
    assert verified(federation, a_digest(federation), judge=judge).digest.origin == HOST
    issued = federation.now_ms - DAY_MS
    bad = a_digest(federation, issued_at_ms=issued, expires_at_ms=issued + 1)
    assert "certificate not yet valid" in refusal(federation, bad, judge=judge).reason


def test_revocation_reaches_every_digest_ever_signed(federation: TestFederation) -> None:
    """A revoked certificate's digests are refused whenever they were signed, cached verdict or not."""
    material = federation.material("judge.example.org")
    judge = DigestVerifier(material)
    assert verified(federation, a_digest(federation), judge=judge).digest.origin == HOST
    crl = federation.crl(2, [federation.serial(HOST)])
    root_crl = material.anchors.crls.of_issuer(material.roots[0].subject)
    judge.replace(attrs.evolve(material, anchors=TrustAnchors(material.roots, CrlSet((root_crl, crl)))))
    assert "E-CHAIN-23: certificate revoked" in refusal(federation, a_digest(federation), judge=judge).reason


def test_unknown_revocation_state_is_refused(federation: TestFederation) -> None:
    """Without a CRL of the issuer nothing of it is accepted."""
    material = federation.material("judge.example.org")
    root_crl = material.anchors.crls.of_issuer(material.roots[0].subject)
    judge = DigestVerifier(attrs.evolve(material, anchors=TrustAnchors(material.roots, CrlSet((root_crl,)))))
    assert "E-CHAIN-3: no CRL of issuer" in refusal(federation, a_digest(federation), judge=judge).reason


def signed_by(
    federation: TestFederation, credentials: Credentials, **changes: Any
) -> tuple[Digest, dict[str, Any]]:
    """Return a digest of BAD_HOST signed by some credentials, and how it comes."""
    digest = a_digest(
        federation,
        origin=BAD_HOST,
        certificate_sha256=hashlib.sha256(credentials.chain[0]).digest(),
        **changes,
    )
    how: dict[str, Any] = {"chain": credentials.chain}
    if kind_signs(credentials):
        how["signature"] = credentials.key.sign(signing.DIGEST_CONTEXT + b"the payload", signing._SIGNING)
    return digest, how


def kind_signs(credentials: Credentials) -> bool:
    """Tell whether the key is one that can sign digests."""
    return credentials.key.curve.name == "secp256r1"


@pytest.mark.parametrize(
    "kind", ["port URI", "no SAN", "CA as leaf", "no EKU", "serverAuth only", "foreign root", "version 1"]
)
def test_digest_of_a_bad_certificate_is_refused(federation: TestFederation, kind: str) -> None:
    """What may not connect may not sign either."""
    digest, how = signed_by(federation, bad_leaf(federation, kind))
    assert refusal(federation, digest, **how).reason.startswith("E-")


def test_good_draft_signs(federation: TestFederation) -> None:
    """The certificates the tests spoil are good before: the refusals come from the one fault."""
    digest, how = signed_by(federation, signed_draft(a_draft(federation)))
    assert verified(federation, digest, **how).digest.origin == BAD_HOST


def test_newer_certificate_ranks_higher(federation: TestFederation) -> None:
    """Of two certificates of one origin the later notBefore wins, then the greater serial, whatever the epochs."""
    old, new = a_draft(federation), a_draft(federation)
    new.start += timedelta(seconds=1)
    old.serial, new.serial = 2, 1
    heads = []
    for draft, epoch in ((old, 9), (new, 1)):
        digest, how = signed_by(federation, signed_draft(draft), epoch=epoch)
        heads.append(verified(federation, digest, **how).head)
    assert heads[1].is_above(heads[0])
    assert heads[0].order.certificate.serial == bytes(19) + b"\x02"


@pytest.mark.parametrize("chain", [(), (b"",), (b"\x30\x00",), (b"x",) * 5, (b"x" * 20000,)])
def test_any_bytes_as_chain_are_refused(federation: TestFederation, chain: tuple[bytes, ...]) -> None:
    """Chains that are empty, too long or no certificates are refused, never a crash."""
    digest = a_digest(federation, certificate_sha256=hashlib.sha256(chain[0] if chain else b"").digest())
    assert refusal(federation, digest, chain=chain).lasting


def test_chain_is_kept_without_what_was_put_into_it(federation: TestFederation) -> None:
    """A root or a stranger's certificate in the chain is not kept with the line."""
    material = federation.material(HOST)
    junk = pem.certificate_der(material.roots[0])
    found = verified(federation, a_digest(federation), chain=(*material.signer.chain, junk))
    assert found.chain == material.signer.chain


def test_good_leaf_lends_its_verdict_to_no_other_chain(federation: TestFederation) -> None:
    """After a good chain, the same leaf without its issuer is refused."""
    judge = DigestVerifier(federation.material("judge.example.org"))
    assert verified(federation, a_digest(federation), judge=judge).digest.origin == HOST
    alone = federation.material(HOST).signer.chain[:1]
    assert "E-CHAIN-20" in refusal(federation, a_digest(federation), judge=judge, chain=alone).reason


def test_verdicts_kept_are_bounded(federation: TestFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of certificates does not fill the memory."""
    monkeypatch.setattr(verifier, "VERDICTS_KEPT", 2)
    judge = DigestVerifier(federation.material("judge.example.org"))
    for _ in range(4):
        digest, how = signed_by(federation, signed_draft(a_draft(federation)))
        verified(federation, digest, judge=judge, **how)
    assert len(judge._verdicts) == 2


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the payloads whose signature was computed, in order."""
    payloads: list[bytes] = []
    real = signing.is_signed

    def counted(public_key: Any, payload: bytes, signature: bytes) -> bool:
        payloads.append(payload)
        return real(public_key, payload, signature)

    monkeypatch.setattr(signing, "is_signed", counted)
    return payloads


def test_a_signature_is_computed_once(federation: TestFederation, looked_at: list[bytes]) -> None:
    """The same bytes from a second peer, or after a change of trust, cost no second computation."""
    material = federation.material("judge.example.org")
    judge = DigestVerifier(material)
    signature = federation.material(HOST).signer.sign(b"the payload")
    for _ in range(3):
        verified(federation, a_digest(federation), judge=judge, signature=signature)
        judge.replace(material)
    assert looked_at == [b"the payload"]


def test_a_good_signature_lends_nothing_to_another(
    federation: TestFederation, looked_at: list[bytes]
) -> None:
    """Another signature, payload or certificate is looked at anew, and refused each time."""
    judge = DigestVerifier(federation.material("judge.example.org"))
    good = federation.material(HOST).signer.sign(b"the payload")
    verified(federation, a_digest(federation), judge=judge, signature=good)
    for how in ({"signature": good[:-1] + bytes([good[-1] ^ 1])}, {"payload": b"another", "signature": good}):
        for _ in range(2):
            refused = refusal(federation, a_digest(federation), judge=judge, **how)
            assert refused.reason == "the signature does not match"
    digest, how = signed_by(federation, signed_draft(a_draft(federation)))
    assert refusal(federation, digest, judge=judge, **{**how, "signature": good}).reason == (
        "the signature does not match"
    )
    assert len(looked_at) == 6


def test_signatures_remembered_are_bounded(
    federation: TestFederation, looked_at: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one longest not seen goes first."""
    monkeypatch.setattr(verifier, "VERDICTS_REMEMBERED", 2)
    judge = DigestVerifier(federation.material("judge.example.org"))
    signer = federation.material(HOST).signer
    for payload in (b"1", b"2", b"1", b"3", b"1", b"2"):
        verified(
            federation, a_digest(federation), judge=judge, payload=payload, signature=signer.sign(payload)
        )
    assert looked_at == [b"1", b"2", b"3", b"2"]


@pytest.mark.parametrize("kind", ["ahead", "lifeless"])
def test_dates_are_looked_at_before_the_chain(federation: TestFederation, kind: str) -> None:
    """What the dates alone rule out costs no parsing of a stranger's certificates."""
    changes = {
        "ahead": {"issued_at_ms": federation.now_ms + CLOCK_AHEAD_MS + 1},
        "lifeless": {"expires_at_ms": federation.now_ms},
    }[kind]
    junk = (b"no certificate",)
    digest = a_digest(federation, certificate_sha256=hashlib.sha256(junk[0]).digest(), **changes)
    reason = refusal(federation, digest, chain=junk).reason
    assert "ahead of" in reason if kind == "ahead" else reason == "expires before it was issued"


def test_issuer_that_is_no_ca_is_refused(federation: TestFederation) -> None:
    """A node's certificate cannot issue another."""
    member = federation.material(HOST)
    draft = a_draft(federation)
    draft.issuer = issue.CertificateAuthority(member.leaf, member.key)
    credentials = attrs.evolve(signed_draft(draft), issuers=(member.leaf, *member.issuers))
    digest, how = signed_by(federation, credentials)
    assert "E-CHAIN-" in refusal(federation, digest, **how).reason
    assert isinstance(credentials.leaf, x509.Certificate)
    assert milliseconds(credentials.leaf.not_valid_after_utc) > federation.now_ms


def test_any_changed_byte_of_a_certificate_is_refused(federation: TestFederation) -> None:
    """A leaf with any one byte changed is refused in good order, never another exception."""
    judge = DigestVerifier(federation.material("judge.example.org"))
    leaf, issuer = federation.material(HOST).signer.chain
    passed = []
    for position in range(len(leaf)):
        changed = leaf[:position] + bytes([leaf[position] ^ 0x41]) + leaf[position + 1 :]
        digest = a_digest(federation, certificate_sha256=hashlib.sha256(changed).digest())
        try:
            verified(federation, digest, judge=judge, chain=(changed, issuer))
        except DigestRefused:
            continue
        passed.append(position)
    assert passed == []


def test_refused_chain_leaves_nothing_in_the_queue_of_openssl(federation: TestFederation) -> None:
    """A stranger's bad chain leaves no error behind that a live connection would take for its own."""
    leaf, issuer = federation.material(HOST).signer.chain
    forged = leaf[:-3] + bytes([leaf[-3] ^ 1]) + leaf[-2:]
    digest = a_digest(federation, certificate_sha256=hashlib.sha256(forged).digest())
    assert "E-CHAIN-7" in refusal(federation, digest, chain=(forged, issuer)).reason
    assert lib.ERR_peek_error() == 0
