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


def test_a_killed_node_is_unreachable_everywhere_with_proof(tmp_path):
    """Kill -9 one of seven: every other says unreachable, and shows signed reports that a stranger can check."""
    with a_federation_of_processes(tmp_path, 7) as federation:
        victim, *others = federation.hosts
        federation.kill(victim)
        eventually(lambda: _statuses(federation, others, victim) == {"unreachable"}, "all know")
        body = fetch_json(federation.http_url(others[0]), f"/api/v1/nodes/{victim}/explain")
        reporting = [one for one in body["observers"] if one["vote"] == "reports"]
        assert len(reporting) >= 3
        config = federation.config_path(others[0]).parent
        host, federation_id = others[0], status_of(federation, others[0])["federation"]
        material = TrustMaterial.load(
            config / "trust", host=host, federation=federation_id, now_ms=1000 * int(os.stat(config).st_mtime)
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
            verified = DigestVerifier(material).verify(
                signed, digest, material.signer.chain, digest.issued_at_ms
            )
            assert verified.digest.origin == host

        federation.start(victim)
        eventually(lambda: status_of(federation, victim), "it answers")
        eventually(lambda: _statuses(federation, federation.hosts, victim) == {"up"}, "it is back")


def test_a_silent_process_is_unreachable_until_it_goes_on(tmp_path):
    """SIGSTOP closes no link and answers nothing; SIGCONT brings it back, without a restart and without a fork."""
    with a_federation_of_processes(tmp_path, 7) as federation:
        victim, *others = federation.hosts
        before = status_of(federation, victim)["epoch"]
        os.kill(federation.process_id(victim), signal.SIGSTOP)
        try:
            eventually(lambda: _statuses(federation, others, victim) == {"unreachable"}, "silence is noticed")
        finally:
            os.kill(federation.process_id(victim), signal.SIGCONT)
        eventually(lambda: _statuses(federation, federation.hosts, victim) == {"up"}, "it is heard again")
        eventually(
            lambda: {status_of(federation, host)["nodes"]["up"] for host in federation.hosts} == {7},
            "nobody else is in doubt",
        )
        assert status_of(federation, victim)["epoch"] == before


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
