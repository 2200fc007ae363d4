"""
What a daemon has done since it started, counted: digests taken and refused, links, dials, exchanges.

Only counts; pages show them, nothing is decided by them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from esgf_gossip.core import effects as fx
from esgf_gossip.core.node import Node
from esgf_gossip.net.driver import Driver

_COUNTED: dict[type, str] = {
    fx.DigestAccepted: "digests_accepted",
    fx.DigestTurnedAway: "digests_refused",
    fx.LineWithdrawn: "lines_withdrawn",
    fx.ForkProven: "forks_proven",
    fx.TrustAccepted: "trust_objects_accepted",
    fx.TrustTurnedAway: "trust_objects_refused",
    fx.PeerJoined: "links_opened",
    fx.PeerParted: "links_ended",
    fx.DialFailed: "dials_failed",
    fx.VerdictChanged: "verdicts_changed",
}


class Figures:
    """The counts of one daemon, and the state of its links."""

    def __init__(self, node: Node, driver: Driver) -> None:
        self._node = node
        self._driver = driver
        self._counts: Counter[str] = Counter()

    def notice(self, notice: fx.Notice) -> None:
        """Count a notice of the core."""
        name = _COUNTED.get(type(notice))
        if name is not None:
            self._counts[name] += 1

    def report(self) -> dict[str, Any]:
        """Return ``counts`` since the start, ``traffic`` of all links, what is ``held``, and ``peers``: one object a link."""
        registry = self._node.registry
        connections = {connection.link: connection for connection in self._driver.connections}
        at_s = self._driver.at().mono_s
        peers = [
            {
                "host": session.peer,
                "dialled": session.dialled is not None,
                "since_s": round(at_s - session.connected_at_s, 1),
                "heard_s": round(at_s - session.heard_at_s, 1),
                "round_trip_ms": None
                if session.round_trip_s is None
                else round(session.round_trip_s * 1000, 2),
                "same_root": session.agreed_root == registry.table.root,
                "clock_offset_ms": session.clock_offset_ms,
                "waiting_bytes": connections[session.link].waiting_bytes
                if session.link in connections
                else 0,
                **(connections[session.link].traffic.numbers() if session.link in connections else {}),
            }
            for session in self._node.links.sessions.open()
        ]
        return {
            "counts": {name: self._counts[name] for name in _COUNTED.values()},
            "traffic": self._driver.traffic.numbers(),
            "held": {
                "digests": len(registry.table),
                "forks": sum(1 for _ in registry.forks),
                "trust_objects": sum(1 for _ in registry.trust),
            },
            "peers": sorted(peers, key=lambda peer: str(peer["host"])),
        }
