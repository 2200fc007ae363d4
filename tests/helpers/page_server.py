"""
The HTTP service over a made-up federation, as a process of its own: ``page_server.py COUNT|hostile [PORT]``.

The site is the real one; only the daemon behind it is a stub. Prints its URL, ends with its standard input. Each line
of that names a status: the second node takes it, and an event tells of it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred, succeed
from twisted.protocols.basic import LineReceiver

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from esgf_gossip.tracking.event_lists import counts
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.web.site import make_site
from helpers import crowd
from helpers.archivists import some_documents
from helpers.registrars import some_events
from helpers.web import StubDaemon, StubPast


class CrowdPast(StubPast):
    """The past of a crowd: it was as it is, and forty things happened."""

    def __init__(self, daemon: Any) -> None:
        super().__init__(daemon)
        self.told = crowd.changes_of(list(daemon.picture.nodes))
        self.recent = [
            {
                "at_ms": crowd.NOW_MS - number * 47 * crowd.MINUTE_MS,
                **{name: one[name] for name in ("host", "kind", "summary")},
            }
            for number, one in enumerate(self.told)
        ]

    def changes(self, wish: Any) -> Deferred[dict[str, Any]]:
        found = [one for one in self.told if wish.host in ("", one["host"]) and one["kind"] in wish.kinds]
        return succeed({"begins_ms": crowd.NOW_MS - 60 * crowd.DAY_MS, "changes": found, "next_before": None})


class CrowdDaemon(StubDaemon):
    """A daemon that knows a crowd."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.nodes = crowd.hostile_crowd() if what == "hostile" else crowd.a_crowd(int(what))
        federation = crowd.ATTACKS[0] if what == "hostile" else "esgf.example"
        self.picture = crowd.crowd_view(self.nodes, federation)
        self.past = CrowdPast(self)
        if what not in ("0", "1"):
            self.metadata = some_documents(crowd.ATTACKS)
            some_events(self.datasets.connection, self.nodes[0].host, crowd.NOW_MS, crowd.ATTACKS)
            self.picture = attrs.evolve(
                self.picture, own=attrs.evolve(self.picture.own, datasets=counts(self.datasets.connection))
            )
        with tempfile.TemporaryDirectory() as folder:
            crowd.keep_lists(self.documents, self.picture, Path(folder))

    def now_ms(self) -> int:
        return crowd.NOW_MS

    def trust_report(self) -> dict[str, Any]:
        return crowd.trust_of(self.nodes)

    def gossip_report(self) -> dict[str, Any]:
        return crowd.gossip_of(self.nodes)

    def change(self, status: str) -> None:
        changed = attrs.evolve(self.picture.nodes[1], status=NodeStatus(status), since_ms=crowd.NOW_MS)
        nodes = tuple(changed if node.host == changed.host else node for node in self.picture.nodes)
        self.picture = attrs.evolve(self.picture, nodes=nodes)
        self.events.publish("node-status", {"host": changed.host, "status": status})


class Orders(LineReceiver):
    """Takes orders from standard input."""

    delimiter = b"\n"

    def __init__(self, daemon: CrowdDaemon) -> None:
        self._daemon = daemon

    def lineReceived(self, line: bytes) -> None:
        self._daemon.change(line.decode())

    def connectionLost(self, reason: Any = None) -> None:
        reactor.stop()


def main() -> None:
    """Serve until standard input ends."""
    daemon = CrowdDaemon(sys.argv[1])
    site = make_site(daemon, ("127.0.0.1",), reactor)
    port = reactor.listenTCP(int(sys.argv[2]) if len(sys.argv) > 2 else 0, site, interface="127.0.0.1")
    stdio.StandardIO(Orders(daemon))
    print(f"http://127.0.0.1:{port.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
