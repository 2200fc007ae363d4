"""A member is revoked: its certificate on a CRL, the CRL by hand to real daemons."""

from __future__ import annotations

import json
from pathlib import Path

from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.trust import issue, keys, pem
from esgf_gossip.trust.issue import CertificateAuthority
from helpers.daemons import a_federation_of_processes, eventually, fetch, fetch_json, status_of
from helpers.trust import real_now_ms
from helpers.trust_admin import run


def _revoking_crl(federation: DemoFederation, host: str, path: Path) -> Path:
    trust = federation.directory / "trust"
    content = pem.read(federation.config_path(host).parent / "trust" / "chain.pem")
    serial = pem.certificates(content, host)[0].serial_number
    certificate = pem.certificate(pem.read(trust / "issuers" / "issuing-g1.pem"), "issuing")
    issuing = CertificateAuthority(certificate, keys.read_key(trust / "private" / "issuing-g1.key"))
    now_ms = real_now_ms()
    path.write_bytes(pem.crl_pem(issue.crl(issuing, 2, {serial: issue.moment(now_ms)}, now_ms, 14)))
    return path


def _hosts(federation: DemoFederation, host: str) -> set[str]:
    return {node["host"] for node in fetch_json(federation.http_url(host), "/api/v1/nodes")}


def test_a_revoked_node_is_out_after_reload(tmp_path: Path) -> None:
    """With the CRL imported and reloaded its live links are dropped, it is gone from the nodes, and stays out."""
    with a_federation_of_processes(tmp_path / "federation", 3) as federation:
        first, second, revoked = federation.hosts
        eventually(lambda: status_of(federation, first).get("links") == 2, "both links")
        crl = _revoking_crl(federation, revoked, tmp_path / "new.crl.pem")
        for host in (first, second):
            ran = run("crl", "import", crl, "--config", federation.config_path(host), "--json")
            assert (ran.code, [one["number"] for one in json.loads(ran.out)["imported"]]) == (0, [2])
            # Nothing happens before the daemon is told.
            assert revoked in _hosts(federation, host)
            assert federation.control(host).ask("reload") == {
                "changed": ["trust"],
                "refused": [],
                "findings": [],
            }
        for host in (first, second):
            eventually(
                lambda host=host: status_of(federation, host).get("links") == 1, f"link of {host} dropped"
            )
            eventually(lambda host=host: _hosts(federation, host) == {first, second}, f"gone at {host}")
            eventually(
                lambda host=host: (
                    revoked.encode() not in fetch(federation.http_url(host), "/registration.xml")[2]
                ),
                "out of the document",
            )
        # It dials again, and is refused with the reason.
        logs = [federation.node(host).log_path for host in (first, second)]
        eventually(
            lambda: any("certificate revoked" in log.read_text() for log in logs), "the reason is in the log"
        )
        assert _hosts(federation, first) == {first, second}
        assert all("Traceback" not in log.read_text() for log in logs)
