"""Nodes whose trust has run out while they were away: they start, look for newer trust, and are back by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.trust import issue, keys, pem, profile
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


def _leaf(federation: DemoFederation, host: str, age_days: int) -> bytes:
    """Return the chain of a certificate that was issued so many days ago for 90 days, for the node's own key."""
    ca = _issuing(federation)
    own = pem.certificates(pem.read(federation.config_path(host).parent / "trust" / "chain.pem"), host)[0]
    key = own.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    made = issue.leaf(profile.leaf_names(own), key, ca, real_now_ms() - age_days * DAY_MS, 90)
    return pem.certificate_pem(made) + pem.certificate_pem(ca.certificate)


def test_a_node_whose_certificate_ended_while_it_was_off_fetches_its_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was issued again in time, and delivered to the others: the node starts with what has expired, and is linked with the new."""
    with DemoFederation(tmp_path / "federation", 3) as federation:
        then_ms = real_now_ms() - 120 * DAY_MS
        with monkeypatch.context() as patched:
            patched.setattr("esgf_gossip.demo.plan.time.time_ns", lambda: then_ms * 1_000_000)
            federation.prepare()
        *others, away = federation.hosts
        for host in others:
            (federation.config_path(host).parent / "trust" / "chain.pem").write_bytes(
                _leaf(federation, host, 1)
            )
        for host in federation.hosts:
            _give(federation, host, 6, 1)
        (federation.config_path(away).parent / "trust" / "chain.pem").write_bytes(
            _leaf(federation, away, 100)
        )
        folder = federation.config_path(others[0]).parent / "trust" / "renewals"
        folder.mkdir()
        (folder / f"{away}.chain.pem").write_bytes(_leaf(federation, away, 20))
        for host in others:
            federation.start(host)
        eventually(lambda: all_equal(federation, others, 2), "two converge")
        federation.start(away)
        log = federation.node(away).log_path
        eventually(lambda: "expired on" in log.read_text(), "it says that its certificate has expired")
        eventually(lambda: all_equal(federation, federation.hosts, 3), "three converge")
        assert "Traceback" not in log.read_text()
