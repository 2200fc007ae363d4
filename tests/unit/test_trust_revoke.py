"""cert revoke: what it ends, in which list, how often, and what a revoked key may never do again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509

from esgf_gossip.trust import pem, revocation
from esgf_gossip.trust.revoke import find
from helpers.trust import DAY_MS, TestFederation, a_federation
from helpers.trust_admin import Ran, admin, run

HOST = "node.example.org"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation with one node."""
    found = a_federation(tmp_path / "federation")
    found.node(HOST)
    return found


def _revoke(federation: TestFederation, wanted: object, *more: object, reason: str = "keyCompromise") -> Ran:
    return run("cert", "revoke", wanted, "--reason", reason, *admin(federation), *more)


def _crl(federation: TestFederation) -> x509.CertificateRevocationList:
    path = federation.authority.directory / "crl" / "issuing-g1.crl.pem"
    return pem.revocation_lists(pem.read(path), str(path))[0]


def _serial(federation: TestFederation) -> int:
    return federation.authority.issued()[-1].serial_number


def test_a_node_is_revoked_in_one_step(federation: TestFederation) -> None:
    """Number 2 of the list holds its serial and the reason, the audit log says who and why, and the chain of hashes holds."""
    ran = _revoke(federation, HOST, "--json")
    serial = _serial(federation)
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "node": HOST,
        "serials": [f"{serial:x}"],
        "crl": 2,
        "secrets": [],
        "revoked": True,
        "file": str(federation.authority.directory / "crl" / "issuing-g1.crl.pem"),
        "files": [str(federation.authority.directory / "crl" / "issuing-g1.crl.pem")],
    }
    assert revocation.serials(_crl(federation)) == {serial}
    assert revocation.reasons(_crl(federation)) == {serial: x509.ReasonFlags.key_compromise}
    lines = [
        json.loads(line) for line in (federation.authority.directory / "log.jsonl").read_text().splitlines()
    ]
    about = next(line for line in lines if "keyCompromise" in json.dumps(line))
    assert HOST in json.dumps(about)
    assert run("log", "verify", "--dir", federation.authority.directory).code == 0


def test_a_serial_is_taken_in_any_case(federation: TestFederation) -> None:
    """By serial number, in either case, with the reason given."""
    serial = _serial(federation)
    ran = _revoke(federation, f"{serial:X}", "--json", reason="superseded")
    assert json.loads(ran.out)["serials"] == [f"{serial:x}"]
    assert revocation.reasons(_crl(federation)) == {serial: x509.ReasonFlags.superseded}


def test_revoking_twice_is_nothing_to_do(federation: TestFederation) -> None:
    """The second time says in which list it stands and signs nothing."""
    assert _revoke(federation, HOST).code == 0
    before = pem.crl_pem(_crl(federation))
    ran = _revoke(federation, HOST)
    assert (ran.code, ran.out) == (0, "already revoked in CRL 2\n")
    assert pem.crl_pem(_crl(federation)) == before


def test_reasons_and_revocations_are_carried_on(federation: TestFederation) -> None:
    """Every later list still says what was revoked, when and why."""
    federation.node("other.example.org")
    _revoke(federation, HOST)
    first = _crl(federation)
    _revoke(federation, "other.example.org", reason="cessationOfOperation")
    assert run("crl", "publish", *admin(federation)).code == 0
    last = _crl(federation)
    assert revocation.number(last) == 4
    assert revocation.serials(first) < revocation.serials(last)
    assert set(revocation.reasons(last).values()) == {
        x509.ReasonFlags.key_compromise,
        x509.ReasonFlags.cessation_of_operation,
    }


def test_no_reason_given_leaves_no_extension(federation: TestFederation) -> None:
    """RFC 5280 wants unspecified left out."""
    _revoke(federation, HOST, reason="unspecified")
    assert revocation.reasons(_crl(federation)) == {}
    assert revocation.serials(_crl(federation))


@pytest.mark.parametrize("wanted", ["nobody.example.org", "ffff", "0x", "node.example.org\n", ""])
def test_what_was_never_issued_is_not_found(federation: TestFederation, wanted: str) -> None:
    """An unknown name or serial is one line and exit 5, and no list is signed."""
    ran = _revoke(federation, wanted)
    assert (ran.code, ran.error) == (5, "E-NOTFOUND")
    assert revocation.number(_crl(federation)) == 1


def test_a_reason_that_takes_back_is_none(federation: TestFederation) -> None:
    """A hold that could be lifted is not offered."""
    assert _revoke(federation, HOST, reason="certificateHold").code == 2


def test_the_key_of_a_revoked_certificate_is_never_certified_again(federation: TestFederation) -> None:
    """A request with the same key is refused, whatever the fingerprint."""
    csr = next(federation.node(HOST).glob("*.csr.pem"), None)
    assert csr is not None
    _revoke(federation, HOST)
    assert run("cert", "import", csr, *admin(federation)).code == 0
    request = federation.authority.pending()[0]
    ran = run("cert", "approve", request.request_id, "--fingerprint", request.fingerprint, *admin(federation))
    assert (ran.code, ran.error) == (4, "E-POLICY")
    assert "revoked" in ran.err


def test_a_restored_administration_can_go_above_what_nodes_hold(federation: TestFederation) -> None:
    """After a backup was put back the next list takes a number the nodes follow."""
    assert run("crl", "publish", "--min-number", 40, *admin(federation)).code == 0
    assert revocation.number(_crl(federation)) == 40
    assert run("crl", "publish", "--min-number", 40, *admin(federation)).code == 0
    assert revocation.number(_crl(federation)) == 41


def test_an_expired_certificate_of_a_node_is_left_alone_where_a_living_one_is_meant(
    federation: TestFederation,
) -> None:
    """What has expired needs no list; a node with nothing else can still be named."""
    now_ms = federation.now_ms + 200 * DAY_MS
    found = find(federation.authority, HOST, now_ms)
    assert [one.serial_number for one in found] == [_serial(federation)]
