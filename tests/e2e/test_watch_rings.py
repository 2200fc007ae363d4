"""Real processes that die, fall silent and come back: what the others say of them, and with what proof."""

import os
import signal
from base64 import b64decode

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.model import SignedDigest
from esgf_gossip.core.reachability import decode_reachability
from esgf_gossip.core.registry import sha256
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.verifier import DigestVerifier
from helpers.daemons import a_federation_of_processes, eventually, fetch_json, status_of


def _statuses(federation, hosts, subject):
    return {fetch_json(federation.http_url(host), f"/api/v1/nodes/{subject}")["status"] for host in hosts}


def test_a_killed_and_a_silent_node_are_unreachable_with_proof_and_come_back(tmp_path):
    """
    Kill -9 one of seven, SIGSTOP another (no link closes, nothing is answered): all others say unreachable of both.

    The proof is signed reports that a stranger can check; the silent one comes back without a restart, without a fork.
    """
    with a_federation_of_processes(tmp_path, 7) as federation:
        victim, silent, *others = federation.hosts
        before = status_of(federation, silent)["epoch"]
        federation.kill(victim)
        os.kill(federation.process_id(silent), signal.SIGSTOP)
        try:
            for subject in (victim, silent):
                eventually(lambda: _statuses(federation, others, subject) == {"unreachable"}, "all know")  # noqa: B023 - called in this round
            _assert_the_evidence_is_signed(federation, others[0], victim)
        finally:
            os.kill(federation.process_id(silent), signal.SIGCONT)
        federation.start(victim)
        eventually(lambda: status_of(federation, victim), "it answers")
        eventually(
            lambda: {status_of(federation, host)["nodes"]["up"] for host in federation.hosts} == {7},
            "both are back, nobody else is in doubt",
        )
        assert status_of(federation, silent)["epoch"] == before


def _assert_the_evidence_is_signed(federation, host, victim):
    body = fetch_json(federation.http_url(host), f"/api/v1/nodes/{victim}/explain")
    reporting = [one for one in body["observers"] if one["vote"] == "reports"]
    assert len(reporting) >= 3
    folder, federation_id = federation.config_path(host).parent, status_of(federation, host)["federation"]
    material = TrustMaterial.load(
        folder / "trust", host=host, federation=federation_id, now_ms=1000 * int(os.stat(folder).st_mtime)
    )
    line_of = {one["host"]: one["evidence"] for one in reporting}
    own = line_of.get(host) or next(iter(line_of.values()))
    entry, payload = b64decode(own["entry"]), b64decode(own["payload"])
    digest = decode_digest(payload)
    assert digest.entries["reachability"].sha256 == sha256(entry)
    assert victim in decode_reachability(entry).reports
    if digest.origin == host:
        # The chain of this observer is at hand: the evidence passes the verifier of the daemon.
        signed = SignedDigest(payload, b64decode(own["signature"]))
        verified = DigestVerifier(material).verify(signed, digest, material.signer.chain, digest.issued_at_ms)
        assert verified.digest.origin == host


def test_an_orderly_restart_alarms_nobody(tmp_path):
    """A node that says goodbye to all and comes back within its time is never called suspect."""
    with a_federation_of_processes(tmp_path, 5) as federation:
        victim, *others = federation.hosts
        eventually(
            lambda: all(status_of(federation, host)["links"] == 4 for host in federation.hosts),
            "all are linked",
        )
        federation.terminate(victim)
        federation.start(victim)
        eventually(lambda: status_of(federation, victim).get("links", 0) >= 3, "it is back")
        for host in others:
            log = (federation.config_path(host).parent / "daemon.log").read_text()
            assert f"{victim} is unreachable" not in log
            assert f"{victim} is reported" not in log
