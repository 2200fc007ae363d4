"""Nodes whose trust has run out while they were away: they start, look for newer trust, and are back by themselves."""

from __future__ import annotations

from pathlib import Path

from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.trust import issue, keys, pem
from esgf_gossip.trust.issue import CertificateAuthority
from helpers.daemons import all_equal, eventually, status_of
from helpers.trust import DAY_MS, real_now_ms

AWAY_DAYS = 40


def _issuing(federation: DemoFederation) -> CertificateAuthority:
    trust = federation.directory / "trust"
    certificate = pem.certificate(pem.read(trust / "issuers" / "issuing-g1.pem"), "issuing")
    return CertificateAuthority(certificate, keys.read_key(trust / "private" / "issuing-g1.key"))


def _give(federation: DemoFederation, host: str, number: int, age_days: int) -> None:
    """Put a CRL of the issuing CA in place of the node's, signed so many days ago for 14 days."""
    ca = _issuing(federation)
    crl = issue.crl(ca, number, {}, real_now_ms() - age_days * DAY_MS, 14)
    folder = federation.config_path(host).parent / "trust" / "crl"
    (path,) = (
        path
        for path in folder.glob("*.pem")
        if pem.revocation_lists(pem.read(path), str(path))[0].issuer == ca.certificate.subject
    )
    path.write_bytes(pem.crl_pem(crl))


def test_a_node_that_was_off_for_forty_days_comes_back_by_itself(tmp_path: Path) -> None:
    """Its list ran out twelve days ago: nobody lets it in, it fetches the newest from who refuses it, and is linked."""
    with DemoFederation(tmp_path / "federation", 4) as federation:
        federation.prepare()
        *others, away = federation.hosts
        for host in others:
            _give(federation, host, 6, 1)
        _give(federation, away, 1, AWAY_DAYS)
        for host in others:
            federation.start(host)
        eventually(lambda: all_equal(federation, others, 3), "three converge")
        federation.start(away)
        log = federation.node(away).log_path
        eventually(lambda: "too old" in log.read_text(), "it says that its list is too old")
        eventually(lambda: all_equal(federation, federation.hosts, 4), "four converge")
        assert "Traceback" not in log.read_text()


def test_halves_of_a_federation_that_were_parted_for_forty_days_find_each_other(tmp_path: Path) -> None:
    """Only one half got new lists meanwhile; the other takes them from it, in one go for all of its nodes."""
    with DemoFederation(tmp_path / "federation", 6) as federation:
        federation.prepare()
        fresh, late = federation.hosts[:3], federation.hosts[3:]
        for host in fresh:
            _give(federation, host, 6, 1)
        for host in late:
            _give(federation, host, 2, AWAY_DAYS)
        for host in late:
            federation.start(host)
        eventually(lambda: all(status_of(federation, host) for host in late), "the late half runs")
        assert all(status_of(federation, host)["links"] == 0 for host in late)
        for host in fresh:
            federation.start(host)
        eventually(lambda: all_equal(federation, federation.hosts, 6), "six converge")
