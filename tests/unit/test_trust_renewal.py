"""Renewal: re-issued certificates as objects, who takes them, keys that wait, and crashes in between."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from esgf_gossip.core import packing
from esgf_gossip.core.errors import ObjectRefused
from esgf_gossip.trust import certificate_object, issue, keys, rekey, renewal
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.install import read_bundle
from esgf_gossip.trust.objects import TrustObjects
from esgf_gossip.trust.revocation import CrlSet
from helpers.trust import DAY_MS, TestFederation, a_federation
from helpers.trust_admin import admin, run

HOST, OTHER = "node.example.org", "other.example.org"
KEY = f"certificate/{HOST}"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation of two nodes."""
    found = a_federation(tmp_path / "federation")
    found.node(HOST)
    found.node(OTHER)
    return found


def reissued(federation: TestFederation, host: str = HOST, after_ms: int = DAY_MS) -> bytes:
    """Return the body of a certificate re-issued a day later."""
    approved = federation.authority.reissue(host, now_ms=federation.now_ms + after_ms)
    return certificate_object.to_body(list(read_bundle(approved.bundle_pem, "bundle").chain))


def judge(federation: TestFederation, body: bytes, key: str = KEY, days: int = 2) -> int:
    """Judge a body on the other node, and return its number."""
    objects = TrustObjects(federation.node(OTHER), federation.material(OTHER))
    return objects.judge_object(key, body, None, federation.now_ms + days * DAY_MS).number


def test_anybody_judges_it_and_only_its_node_takes_it(federation: TestFederation) -> None:
    """On another node it changes nothing; on its own it is in force with the next load, and twice is once."""
    body = reissued(federation)
    assert judge(federation, body) > 0
    now_ms = federation.now_ms + 2 * DAY_MS
    elsewhere = federation.node(OTHER) / "chain.pem"
    before = elsewhere.read_bytes()
    assert not certificate_object.apply(federation.node(OTHER), KEY, body, federation.material(OTHER), now_ms)
    assert elsewhere.read_bytes() == before
    material = federation.material(HOST)
    assert certificate_object.apply(federation.node(HOST), KEY, body, material, now_ms)
    renewed = federation.material(HOST, now_ms)
    assert renewed.leaf.serial_number != material.leaf.serial_number
    assert renewed.names == material.names
    assert not certificate_object.apply(federation.node(HOST), KEY, body, renewed, now_ms)


def test_an_older_certificate_takes_nothing_back(federation: TestFederation) -> None:
    """What was in force before the last renewal never comes back."""
    older, newer = reissued(federation, after_ms=DAY_MS), reissued(federation, after_ms=2 * DAY_MS)
    now_ms = federation.now_ms + 3 * DAY_MS
    assert judge(federation, older, days=3) < judge(federation, newer, days=3)
    certificate_object.apply(federation.node(HOST), KEY, newer, federation.material(HOST), now_ms)
    assert not certificate_object.apply(
        federation.node(HOST), KEY, older, federation.material(HOST, now_ms), now_ms
    )


def test_two_certificates_of_one_moment_have_an_order(federation: TestFederation) -> None:
    """The later one begins later, however fast the second follows: nodes go by that date."""
    federation.authority.reissue(HOST, now_ms=federation.now_ms)
    federation.authority.reissue(HOST, now_ms=federation.now_ms)
    starts = [one.not_valid_before_utc for one in federation.authority.issued() if HOST in str(one.subject)]
    assert len(starts) == len(set(starts)) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda parts: parts[:1], "issuer"),
        (lambda parts: [*parts, parts[1]], "more than the chain"),
        (lambda parts: [parts[0][:-4] + b"\0\0\0\0", *parts[1:]], "E-CHAIN"),
        (lambda parts: [b"x", *parts[1:]], "no chain"),
        (lambda _: [], "no chain"),
        (lambda parts: parts * 3, "no chain"),
    ],
    ids=["leaf alone", "too much", "forged", "no certificate", "empty", "too long"],
)
def test_what_is_no_chain_is_refused(federation: TestFederation, change: object, says: str) -> None:
    """Every defect is one reason, and none escapes as another error."""
    parts = packing.unpack(reissued(federation))
    assert callable(change)
    with pytest.raises(ObjectRefused, match=says):
        judge(federation, packing.pack(change(parts)))


def test_the_key_names_its_host(federation: TestFederation) -> None:
    """A certificate under another node's key is refused, so nobody's line can be taken."""
    with pytest.raises(ObjectRefused, match="is not for"):
        judge(federation, reissued(federation), key=f"certificate/{OTHER}")


def test_dated_ahead_is_refused_for_now_only(federation: TestFederation) -> None:
    """The clock alone is no lasting verdict."""
    with pytest.raises(ObjectRefused) as caught:
        judge(federation, reissued(federation, after_ms=9 * DAY_MS))
    assert not caught.value.lasting


def test_a_revoked_or_expired_node_is_not_renewed(federation: TestFederation) -> None:
    """After revocation or expiry a node has to ask anew; nothing is signed."""
    ran = run("cert", "reissue", OTHER, *admin(federation), "--now", "2099-01-01T00:00:00Z")
    assert (ran.code, ran.error) == (4, "E-POLICY")
    run("cert", "revoke", HOST, "--reason", "superseded", *admin(federation))
    ran = run("cert", "reissue", HOST, *admin(federation))
    assert (ran.code, ran.error) == (4, "E-POLICY")
    assert len(federation.authority.issued()) == 2


def test_reissue_wants_nodes_or_all(federation: TestFederation) -> None:
    """Neither and both are wrong usage, an unknown one is not found."""
    assert run("cert", "reissue", *admin(federation)).code == 2
    assert run("cert", "reissue", HOST, "--all", *admin(federation)).code == 2
    assert run("cert", "reissue", "nobody.example.org", *admin(federation)).code == 5


def test_all_that_are_due(federation: TestFederation) -> None:
    """--if-needed leaves alone what is young, and doing nothing is no error."""
    ran = run("cert", "reissue", "--all", "--if-needed", *admin(federation), "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"reissued": []})
    ran = run("cert", "reissue", "--all", *admin(federation), "--json")
    assert [one["node"] for one in json.loads(ran.out)["reissued"]] == [HOST, OTHER]


def _config(federation: TestFederation, host: str) -> Path:
    config = federation.node(host).parent / "node.toml"
    config.write_text(f'[node]\nhost = "{host}"\nfederation = "{federation.name}"\n')
    return config


def test_delivered_files_are_offered(federation: TestFederation) -> None:
    """What is handed to one node is found there for all, whomever it is for."""
    body = reissued(federation, after_ms=0)
    bundle = federation.authority.directory / "issued" / f"{HOST}.bundle.pem"
    ran = run("cert", "deliver", bundle, "--config", _config(federation, OTHER), "--json")
    assert (ran.code, json.loads(ran.out)["delivered"]) == (0, [HOST])
    found = certificate_object.offered(federation.node(OTHER), federation.material(OTHER))
    assert found == [(KEY, body)]
    (federation.node(OTHER) / "renewals" / "junk.chain.pem").write_text("junk")
    assert certificate_object.offered(federation.node(OTHER), federation.material(OTHER)) == found


def test_renew_is_needed_or_not(federation: TestFederation) -> None:
    """Both answers are exit 0; a second --rekey asks for the same waiting key; after expiry it is no renewal."""
    config = _config(federation, HOST)
    ran = run("cert", "renew", "--if-needed", "--config", config, "--json")
    assert (ran.code, json.loads(ran.out)["needed"]) == (0, False)
    first = json.loads(run("cert", "renew", "--rekey", "--config", config, "--json").out)
    second = json.loads(run("cert", "renew", "--rekey", "--config", config, "--json").out)
    key = federation.node(HOST) / "renewal.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert Path(first["request"]) == Path(second["request"])
    ran = run("cert", "renew", "--config", config, "--now", "2099-01-01T00:00:00Z")
    assert (ran.code, ran.error) == (4, "E-POLICY")


def test_a_certificate_for_a_key_that_is_nowhere_is_an_alarm(federation: TestFederation) -> None:
    """Somebody else's key under our name is not installed."""
    body = reissued(federation)
    material = attrs.evolve(federation.material(HOST), key=keys.new_key())
    with pytest.raises(TrustError, match="not here"):
        certificate_object.apply(federation.node(HOST), KEY, body, material, federation.now_ms + 2 * DAY_MS)


def test_a_crash_between_chain_and_key_is_mended(federation: TestFederation) -> None:
    """With the new chain in place and the new key still waiting, the next look finishes, and the old key is kept."""
    config = _config(federation, HOST)
    made = json.loads(run("cert", "renew", "--rekey", "--config", config, "--json").out)
    csr = Path(made["request"]).read_bytes()
    approved = federation.authority.approve(
        csr, fingerprint=made["fingerprint"], now_ms=federation.now_ms + DAY_MS, replace=True
    )
    directory = federation.node(HOST)
    assert not renewal.finish(directory)
    old = (directory / "node.key").read_bytes()
    (directory / "chain.pem").write_bytes(approved.chain_pem)
    assert renewal.finish(directory)
    assert not renewal.finish(directory)
    assert (directory / "retired" / "replaced.key").read_bytes() == old
    assert federation.material(HOST, federation.now_ms + 2 * DAY_MS).leaf.serial_number == approved.serial


def vouched(federation: TestFederation, host: str = HOST, **changes: object) -> bytes:
    """Return what a node publishes when it asks for a new key."""
    material = federation.material(host)
    names = attrs.evolve(material.names, **changes)
    return rekey.with_chain(
        rekey.vouch(material, issue.request(names, keys.new_key())), material.signer.chain
    )


def checked(federation: TestFederation, content: bytes, days: int = 0) -> str:
    """Let the administration check it; return whose it is."""
    anchors = TrustAnchors(tuple(federation.authority.roots()), CrlSet.choose(federation.authority.crls()))
    now_ms = federation.now_ms + days * DAY_MS
    return rekey.check(content, anchors, federation.name, now_ms).names.host


def test_the_old_key_vouches_for_the_new_one(federation: TestFederation) -> None:
    """Same names, signed by the key in force: nobody has to compare anything."""
    assert checked(federation, vouched(federation)) == HOST
    request = rekey.check(
        vouched(federation),
        TrustAnchors(tuple(federation.authority.roots()), CrlSet.choose(federation.authority.crls())),
        federation.name,
        federation.now_ms,
    )
    assert not federation.authority.is_certified(request)
    federation.authority.rekey(request, now_ms=federation.now_ms)
    assert federation.authority.is_certified(request)


@pytest.mark.parametrize(
    "changes",
    [{"roles": ("secret-admin",)}, {"groups": ("other",)}, {"dns": (HOST, "more.example.org")}],
    ids=["role", "group", "DNS"],
)
def test_more_than_it_has_is_no_renewal(federation: TestFederation, changes: dict[str, object]) -> None:
    """A name, a group or a role more needs a person who looks at it."""
    with pytest.raises(TrustError, match="asks for other names than it has"):
        checked(federation, vouched(federation, **changes))


def test_nobody_vouches_for_another(federation: TestFederation) -> None:
    """A member that asks in another's name, a turned byte, an end in the middle: refused."""
    other = federation.material(OTHER)
    posing = rekey.vouch(other, issue.request(federation.material(HOST).names, keys.new_key()))
    for content in (
        rekey.with_chain(posing, other.signer.chain),
        rekey.with_chain(posing, federation.material(HOST).signer.chain),
        b"",
        packing.pack([b"x", b"y", []]),
        vouched(federation)[:-1],
    ):
        with pytest.raises(TrustError):
            checked(federation, content)
    good = vouched(federation)
    for place in range(0, len(good), 7):
        with pytest.raises(TrustError):
            checked(federation, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])


def test_an_expired_or_revoked_key_vouches_for_nothing(federation: TestFederation) -> None:
    """Whoever took a key that ended cannot make itself a new one."""
    content = vouched(federation)
    federation.publish(federation.crl(2, days=300))
    with pytest.raises(TrustError, match="E-CHAIN-10"):
        checked(federation, content, days=91)
    run("cert", "revoke", HOST, "--reason", "keyCompromise", *admin(federation))
    with pytest.raises(TrustError, match="E-CHAIN-23"):
        checked(federation, content)
