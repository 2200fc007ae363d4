"""
The web room without a network: a facade, a view, and a client that talks to a site in memory.

For the tests of shell and unit; nothing here is under test.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from esgf_gossip.core.reachability import Reachability
from esgf_gossip.documents.library import Library
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.storage.history_reader import Wish
from esgf_gossip.tracking_room import LOG_SCRIPTS as SCRIPTS
from esgf_gossip.views.explanation import explain
from esgf_gossip.views.federation import FederationView, NodeStatus, NodeView, OwnState
from esgf_gossip.views.history_json import change_body
from esgf_gossip.web.events import EventHub
from esgf_gossip.web.kept import KeptDocuments
from esgf_gossip.web.log_tail import LogTail
from esgf_gossip.web.site import NodeSite, make_site
from helpers.watch import a_report, a_standing

HOST = "esgf-a.example.org"
NOON_MS = 1_700_000_000_123
NOON = "2023-11-14T22:13:20.123Z"
# The paths that answer without a parameter, whatever the federation.
PATHS = (
    "/",
    "/api/v1/status",
    "/api/v1/nodes",
    "/api/v1/services",
    "/api/v1/documents",
    "/api/v1/documents/refused",
    "/api/v1/datasets/events",
    "/api/v1/datasets/quarantine",
    "/api/v1/history",
    "/openapi.json",
    "/metrics",
    "/healthz",
    "/readyz",
)
PROPERTIES = {
    "esg.root.id": "EXAMPLE",
    "node.short.name": "A",
    "node.long.name": "Node A",
    "node.peer.group": "esgf-test,esgf-prod",
    "node.geolocation.lat": "53.5",
    "node.geolocation.lon": "10",
    "node.geolocation.city": "Hamburg",
    "thredds.service.endpoint": "http://esgf-a.example.org/thredds",
    "thredds.service.app.home": "/usr/local/tomcat/webapps/thredds",
}


def a_registration(host: str = HOST, **properties: str) -> Registration:
    """Make the registration of a data node."""
    return Registration(
        host, 4, PROPERTIES | {key.replace("__", "."): text for key, text in properties.items()}
    )


def a_node(host: str = HOST, **changes: Any) -> NodeView:
    """Make a node that is up."""
    fields: dict[str, Any] = {
        "host": host,
        "status": NodeStatus.UP,
        "since_ms": NOON_MS,
        "epoch": 1_782_579_200_000_000,
        "sequence": 7,
        "issued_at_ms": NOON_MS,
        "expires_at_ms": NOON_MS + 1000,
        "contact": (host, 8951),
        "registration": a_registration(host),
        "registration_issued_at_ms": NOON_MS,
    }
    return NodeView(**fields | changes)


def a_view(*nodes: NodeView, **changes: Any) -> FederationView:
    """Make a view of the nodes; changes go to what the daemon says of itself."""
    fields: dict[str, Any] = {
        "host": HOST,
        "federation": "test",
        "version": "0.1.0",
        "epoch": 1_782_579_200_000_000,
        "sequence": 7,
        "links": 4,
        "started_at_ms": NOON_MS,
        "certificate_not_after_ms": NOON_MS,
        "crl_age_s": 60,
    }
    return FederationView(NOON_MS, b"\xab" * 32, OwnState(**fields | changes), nodes or (a_node(),))


class StubPast:
    """Stands in for the archive: the past is as the present, and one change happened."""

    def __init__(self, daemon: StubDaemon) -> None:
        self._daemon = daemon
        self.wishes: list[Wish] = []
        self.recent: list[dict[str, Any]] = []
        self.fault: Exception | None = None

    def changes(self, wish: Wish) -> Deferred[dict[str, Any]]:
        self.wishes.append(wish)
        detail = {"status": "up", "before": "unreachable"}
        change = change_body(7, NOON_MS, wish.host or HOST, "status", detail)
        return self._answer({"begins_ms": NOON_MS - 1000, "changes": [change], "next_before": None})

    def view(self, at_ms: int) -> Deferred[FederationView]:
        return self._answer(attrs.evolve(self._daemon.picture, at_ms=at_ms))

    def document(self, at_ms: int) -> Deferred[bytes]:
        return self._answer(b"<Registration at='%d'/>" % at_ms)

    def differences(self, from_ms: int, to_ms: int) -> Deferred[list[dict[str, Any]]]:
        changes = [{"name": "short_name", "before": from_ms, "after": to_ms}]
        return self._answer([{"host": HOST, "before": "up", "after": "up", "changes": changes}])

    def _answer(self, result: Any) -> Deferred[Any]:
        return succeed(result) if self.fault is None else fail(self.fault)


class NoMetadata:
    """Stands in for the keeper of documents: there is none. Those of a test come from archivists."""

    def __init__(self) -> None:
        self.library = Library()


class NoDatasets:
    """Stands in for the keeper of dataset events: an empty ledger in memory; ``fault`` is what questions fail with."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for script in SCRIPTS.values():
            self.connection.executescript(script)
        self.fault: Exception | None = None

    def ask(self, work: Any, *args: Any) -> Deferred[Any]:
        return succeed(work(self.connection, *args)) if self.fault is None else fail(self.fault)


class StubDaemon:
    """Stands in for the daemon behind the site and behind the control socket."""

    shard_form = "host:port"

    def __init__(self, *nodes: NodeView) -> None:
        self.picture = a_view(*nodes)
        self.past = StubPast(self)
        self.log_tail = LogTail()
        self.private = True
        self.documents = KeptDocuments()
        self.events = EventHub()
        self.ready = True
        self.metadata: Any = NoMetadata()
        self.datasets: Any = NoDatasets()

    def view(self) -> FederationView:
        return self.picture

    def is_ready(self) -> bool:
        return self.ready

    def now_ms(self) -> int:
        return NOON_MS

    def trust_report(self) -> dict[str, Any]:
        return {"nodes": [], "error": "", "hook_error": "", "alarms": [], "findings": []}

    def gossip_report(self) -> dict[str, Any]:
        return {"counts": {}, "traffic": {}, "held": {}, "peers": []}

    def is_private(self) -> bool:
        return self.private

    def configuration(self) -> str:
        return '[node]\nhost = "esgf-a.example.org"\n'

    maintenance = None

    def announce(self, window: Any) -> None:
        self.maintenance = window

    def explain(self, host: str) -> dict[str, Any] | None:
        node = self.picture.node(host)
        if node is None:
            return None
        others = [one.host for one in self.picture.members if one.host != host][:3]
        reporting = {NodeStatus.UNREACHABLE: 2, NodeStatus.SUSPECT: 1}.get(node.status, 0)
        said = Reachability({host: a_report(host, since_ms=node.since_ms - 6000)})
        statements = dict.fromkeys(others[:reporting], said)
        return explain(node, *a_standing([host, *others], statements, self.picture.at_ms))


@attrs.frozen
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LiveTransport(StringTransportWithDisconnection):
    """A transport that, as a real one, writes nothing after its end."""

    def abortConnection(self) -> None:
        self.aborting = True
        self.loseConnection()


class Client:
    """One connection to a site."""

    def __init__(self, site: NodeSite) -> None:
        self.protocol = site.buildProtocol(None)
        self.transport = LiveTransport()
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    @property
    def received(self) -> bytes:
        return self.transport.value()

    def send(self, data: bytes) -> bytes:
        self.transport.clear()
        self.protocol.dataReceived(data)
        return self.received

    def ask(self, path: str, method: str = "GET", **fields: str) -> Answer:
        return parsed(self.send(request(path, method, **fields)), is_head=method == "HEAD")

    def leave(self) -> None:
        self.transport.loseConnection()


def request(path: str, method: str = "GET", **fields: str) -> bytes:
    """Write a request; a field of None is left out."""
    named = {"Host": HOST} | {name.replace("_", "-"): text for name, text in fields.items()}
    lines = [f"{name}: {text}\r\n" for name, text in named.items() if text is not None]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


def parsed(data: bytes, *, is_head: bool = False) -> Answer:
    """Read an answer; the length it says must be the length it has."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
    if "content-length" in fields and not is_head:
        assert int(fields["content-length"]) == len(body)
    return Answer(int(first.split()[1]), fields, body)


def a_site(daemon: StubDaemon | None = None, clock: Clock | None = None, hosts: tuple[str, ...] = (HOST,)):
    """Assemble a site."""
    return make_site(daemon or StubDaemon(), hosts, clock or Clock())
