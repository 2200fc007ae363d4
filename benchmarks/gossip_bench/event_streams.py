"""
Every node's ``/api/v1/events``, read as the bytes come, in one loop with one clock.

Keeps what each node has said so far (heads and statuses of the others) and every
event with its time. Opens streams of daemons that are still starting: the
control socket's file shows that a daemon is about to listen, so nothing is
asked of one that is still importing Python.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from esgf_gossip.demo.plan import LOOPBACK, PlannedNode
from gossip_bench.loop import Loop
from gossip_bench.server_sent import EventParser

LOOK_AGAIN_S: Final = 0.005
_IN_PROGRESS: Final = (0, errno.EINPROGRESS)


@attrs.frozen
class Heard:
    """One event: when we read it (loop seconds), who told it, what."""

    at_s: float
    node: str
    name: str
    data: dict[str, Any]


@attrs.define
class Said:
    """What one node has said since its stream was opened."""

    listening_at_s: float | None = None
    complete_at_s: float | None = None
    heads: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    statuses: dict[str, str] = attrs.field(factory=dict)


class EventStreams:
    """The streams of all nodes. ``said`` has the nodes that are followed; ``heard`` all events, oldest first."""

    def __init__(self, loop: Loop) -> None:
        self.heard: list[Heard] = []
        self.said: dict[str, Said] = {}
        self._loop = loop
        self._sockets: dict[str, list[socket.socket]] = {}

    def follow(self, node: PlannedNode) -> None:
        """Open the stream of a node as soon as it listens, then read its table once: nothing is missed between."""
        said = self.said[node.host] = Said()
        self._sockets[node.host] = []
        self._look(node, said)

    def hang_up(self, host: str) -> None:
        """Close the stream of a node and forget what it said; its events stay."""
        self.said.pop(host, None)
        for one in self._sockets.pop(host, []):
            self._loop.remove(one)
            one.close()

    def hang_up_all(self) -> None:
        """Close all streams."""
        for host in list(self._sockets):
            self.hang_up(host)

    def since(self, at_s: float) -> Iterator[Heard]:
        """Yield the events read at or after that time, the newest first."""
        for heard in reversed(self.heard):
            if heard.at_s < at_s:
                return
            yield heard

    def statuses_told(self, since_s: float) -> Iterator[Heard]:
        """Yield the changes of status told since then, the newest first."""
        return (heard for heard in self.since(since_s) if heard.name == "node-status")

    # ----------------------------------------------------------------- up

    def _look(self, node: PlannedNode, said: Said) -> None:
        if self.said.get(node.host) is not said:
            return  # hung up meanwhile
        if node.control_socket.exists():
            events = self._connected(node)
            if events is not None:
                said.listening_at_s = self._loop.now_s
                self._read_events(node, said, events)
                return
        self._loop.later(LOOK_AGAIN_S, lambda: self._look(node, said))

    def _connected(self, node: PlannedNode) -> socket.socket | None:
        """Connect; on loopback a listener is connected at once and anything else refused at once."""
        ours = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        ours.settimeout(5.0)
        if ours.connect_ex((LOOPBACK, node.http_port)) in _IN_PROGRESS:
            return ours
        ours.close()
        return None

    def _read_events(self, node: PlannedNode, said: Said, ours: socket.socket) -> None:
        parser = EventParser()

        def read() -> None:
            data = self._received(node.host, ours)
            was_open = parser.is_open
            for name, happening in parser.feed(data):
                self._take(node.host, said, name, happening)
            if parser.is_open and not was_open:
                table = self._connected(node)
                if table is not None:
                    self._read_table(node, said, table)

        self._ask(node, ours, "/api/v1/events", read)

    def _read_table(self, node: PlannedNode, said: Said, ours: socket.socket) -> None:
        answer = bytearray()

        def read() -> None:
            data = self._received(node.host, ours)
            answer.extend(data)
            if not data:
                for other in json.loads(answer.partition(b"\r\n\r\n")[2]):
                    host, head = other["host"], (other["epoch"], other["sequence"])
                    said.heads[host] = max(head, said.heads.get(host, head))
                    # An event that came meanwhile is newer.
                    said.statuses.setdefault(host, other["status"])
                said.complete_at_s = self._loop.now_s

        self._ask(node, ours, "/api/v1/nodes", read)

    def _ask(self, node: PlannedNode, ours: socket.socket, path: str, read: Callable[[], None]) -> None:
        ours.sendall(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{node.http_port}\r\n\r\n".encode())
        ours.setblocking(False)
        self._sockets[node.host].append(ours)
        self._loop.add(ours, read, selectors.EVENT_READ)

    # ----------------------------------------------------------------- in

    def _received(self, host: str, ours: socket.socket) -> bytes:
        """Read once; at the end of the stream, or when its daemon was killed, let go of the socket."""
        try:
            data = ours.recv(256 * 1024)
        except ConnectionError:
            data = b""
        if not data:
            self._loop.remove(ours)
            ours.close()
            self._sockets[host].remove(ours)
        return data

    def _take(self, host: str, said: Said, name: str, data: dict[str, Any]) -> None:
        self.heard.append(Heard(self._loop.now_s, host, name, data))
        match name:
            case "digest-accepted":
                said.heads[data["origin"]] = (data["epoch"], data["sequence"])
            case "node-status":
                said.statuses[data["host"]] = data["status"]
