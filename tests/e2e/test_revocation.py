"""A member is revoked on one node, and every node of a real federation lets it go; what is no newer list changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.trust import issue, keys, pem, revocation
from esgf_gossip.trust.issue import CertificateAuthority
from helpers.daemons import a_federation_of_processes, eventually, fetch, fetch_json, status_of
from helpers.trust import foreign_issuer, real_now_ms
from helpers.trust_admin import Ran, run

COUNT = 13
# From the return of the import on; the figure itself is measured by hand, a loaded machine must not fail it.
WITHIN_S = 20.0


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoFederation]:
    """Run thirteen daemons for all tests of this file."""
    with a_federation_of_processes(tmp_path_factory.mktemp("thirteen") / "federation", COUNT) as found:
        yield found


def _hosts(federation: DemoFederation, host: str) -> set[str]:
    return {node["host"] for node in fetch_json(federation.http_url(host), "/api/v1/nodes")}


def _issuing(federation: DemoFederation) -> CertificateAuthority:
    trust = federation.directory / "trust"
    certificate = pem.certificate(pem.read(trust / "issuers" / "issuing-g1.pem"), "issuing")
    return CertificateAuthority(certificate, keys.read_key(trust / "private" / "issuing-g1.key"))


def _crl_number(federation: DemoFederation, host: str) -> int:
    folder = federation.config_path(host).parent / "trust" / "crl"
    found = [crl for path in folder.glob("*.crl.pem") for crl in pem.revocation_lists(pem.read(path), host)]
    return max(
        revocation.number(crl) for crl in found if crl.issuer == _issuing(federation).certificate.subject
    )


def _import(federation: DemoFederation, host: str, crl: Path) -> Ran:
    return run("crl", "import", crl, "--config", federation.config_path(host), "--json")


def test_a_node_revoked_on_one_node_is_out_on_all(federation: DemoFederation) -> None:
    """One import on one node: refused and disconnected everywhere, gone from the nodes and from registration.xml."""
    *others, revoked = federation.hosts
    trust = federation.directory / "trust"
    ran = run(
        "cert",
        "revoke",
        revoked,
        "--reason",
        "keyCompromise",
        "--dir",
        trust,
        "--private",
        trust / "private",
        "--json",
    )
    assert (ran.code, json.loads(ran.out)["crl"]) == (0, 2)
    eventually(lambda: status_of(federation, others[0]).get("links", 0) > 3, "links")
    done = _import(federation, others[5], Path(json.loads(ran.out)["file"]))
    assert (done.code, json.loads(done.out)["daemon"]) == (0, "reloaded")
    for host in others:
        eventually(lambda host=host: revoked not in _hosts(federation, host), f"gone at {host}", WITHIN_S)
    eventually(
        lambda: status_of(federation, revoked).get("links") == 0, "the revoked node is alone", WITHIN_S
    )
    for host in others:
        eventually(
            lambda host=host: (
                revoked.encode() not in fetch(federation.http_url(host), "/registration.xml")[2]
            ),
            f"out of the document of {host}",
            WITHIN_S,
        )
        assert _crl_number(federation, host) == 2
    # It dials again, and is refused with the reason.
    logs = [federation.node(host).log_path for host in others]
    eventually(
        lambda: any("certificate revoked" in log.read_text() for log in logs), "the reason is in a log"
    )
    assert all(_hosts(federation, host) == set(others) for host in others)
    assert all("Traceback" not in log.read_text() for log in logs)


def test_no_other_list_changes_anything_but_an_alarm(federation: DemoFederation, tmp_path: Path) -> None:
    """Forged, older, of one number, or with a revocation taken back: put among a node's files, each is an alarm and no more."""
    first, second, *_ = federation.hosts
    ca, now_ms = _issuing(federation), real_now_ms()
    held = {serial: issue.moment(now_ms) for serial in _revoked(federation, first)}
    assert held, "the test before has revoked nobody"
    foreign = foreign_issuer("federation.example.org", now_ms)
    wrong = {
        "forged": issue.crl(CertificateAuthority(ca.certificate, foreign.key), 9, held, now_ms, 14),
        "lower": issue.crl(ca, 1, held, now_ms, 14),
        "fork": issue.crl(ca, 2, {}, now_ms, 14),
        "shrunk": issue.crl(ca, 7, {}, now_ms, 14),
    }
    wants = {"forged": "E-CRL-SIG", "lower": "E-CRL-ROLLBACK", "fork": "E-CRL-FORK", "shrunk": "E-CRL-SHRINK"}
    for name, crl in wrong.items():
        path = tmp_path / f"{name}.crl.pem"
        path.write_bytes(pem.crl_pem(crl))
        assert wants[name] in _import(federation, first, path).err
    before = {host: _crl_number(federation, host) for host in (first, second)}
    folder = federation.config_path(first).parent / "trust" / "crl"
    control = federation.control(first)
    for name, crl in wrong.items():
        # By hand, past the command, as an intruder or a hasty copy would.
        path = folder / f"zz-{name}.crl.pem"
        path.write_bytes(crl.public_bytes(Encoding.PEM))
        outcome = control.ask("reload")
        said = [*outcome["refused"], *outcome["findings"]]
        assert name == "lower" or any(wants[name] in line for line in said), (name, outcome)
        path.unlink()
    assert control.ask("reload")["refused"] == []
    assert {host: _crl_number(federation, host) for host in (first, second)} == before
    assert status_of(federation, first)["links"] > 3
    for host in federation.hosts[:-1]:
        assert federation.hosts[-1] not in _hosts(federation, host)


def _revoked(federation: DemoFederation, host: str) -> frozenset[int]:
    folder = federation.config_path(host).parent / "trust" / "crl"
    found = [crl for path in folder.glob("*.crl.pem") for crl in pem.revocation_lists(pem.read(path), host)]
    return frozenset().union(*(revocation.serials(crl) for crl in found))
