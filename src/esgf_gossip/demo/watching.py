"""
What the nodes of a demo say of themselves, as they say it.

Subscribes to every control socket by ``watch`` and waits in one selector: for
events, for the end of a process, for a signal. A daemon that is still starting
is tried again until it answers once; after that nothing is ever asked.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import attrs

from esgf_gossip.cli.control_client import Conversation
from esgf_gossip.cli.failures import CommandError
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.esgf.node_type import node_type_names, parse_node_type

# How long until a daemon that does not answer yet is tried again.
CONNECT_AGAIN_S: Final = 0.05
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.define
class NodeRow:
    """One node as the table shows it. ``*_s`` are monotonic seconds; ``statuses`` is what it says of the others."""

    host: str
    http_url: str
    types: tuple[str, ...] = ()
    own: Mapping[str, Any] = attrs.field(factory=dict)
    statuses: dict[str, str] = attrs.field(factory=dict)
    ready_at_s: float | None = None
    exit_code: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.exit_code is None

    @property
    def root(self) -> str:
        """The hash over its table, hex; empty while it has not answered."""
        return str(self.own.get("root") or "")

    @property
    def nodes_known(self) -> int:
        """How many nodes it holds, itself included."""
        counts = self.own.get("nodes")
        return int(counts.get("total", 0)) if isinstance(counts, Mapping) else 0


class Watching:
    """
    The picture of a whole demo, kept by events.

    Args:
        federation: its daemons are started or about to be.
        say: called with a line for people when something remarkable happens.
    """

    def __init__(self, federation: DemoFederation, say: Callable[[str], None] = lambda _: None) -> None:
        self.rows: Final = {host: NodeRow(host, federation.http_url(host)) for host in federation.hosts}
        self.started_at_s: float | None = None
        self.converged_at_s: float | None = None
        self.root = ""
        self.is_stopped = False
        self._federation = federation
        self._say = say
        self._selector = selectors.DefaultSelector()
        self._waiting: set[str] = set()
        self._conversations: dict[str, Conversation] = {}

    def close(self) -> None:
        """Hang up everywhere."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
        for conversation in self._conversations.values():
            conversation.close()
        self._selector.close()

    def follow(self, host: str) -> None:
        """Begin to watch a daemon that was just started; the clock runs from the first one."""
        if self.started_at_s is None:
            self.started_at_s = time.monotonic()
        descriptor = os.pidfd_open(self._federation.process_id(host))
        self._selector.register(descriptor, selectors.EVENT_READ, lambda: self._ended(host, descriptor))
        self.rows[host].types = _types(self._federation, host)
        self._waiting.add(host)

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Let Ctrl-C, SIGTERM and SIGHUP end ``run`` instead of the process."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)

        def stop(_: int, __: FrameType | None) -> None:
            self.is_stopped = True

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        # The signal's byte wakes the selector, which Python would otherwise go on to wait in.
        wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._selector.register(ours, selectors.EVENT_READ, lambda: ours.recv(64))
        try:
            yield
        finally:
            self._selector.unregister(ours)
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()

    @property
    def is_settled(self) -> bool:
        """Whether every node that runs has answered: the start is over."""
        return not self._waiting

    @property
    def converge_s(self) -> float | None:
        """Seconds from the start of the first process to convergence; None: not yet."""
        if self.converged_at_s is None or self.started_at_s is None:
            return None
        return self.converged_at_s - self.started_at_s

    @property
    def converge_after_start_s(self) -> float | None:
        """Seconds from the first answer of the last node to convergence; None: not yet."""
        if self.converged_at_s is None:
            return None
        ready_at_s = [row.ready_at_s for row in self.rows.values() if row.ready_at_s is not None]
        # A node killed and started again answers after the first convergence.
        return max(0.0, self.converged_at_s - max(ready_at_s))

    def step(self, timeout_s: float) -> None:
        """Wait for the next happenings, at most so long, and take them in."""
        if self._waiting:
            timeout_s = min(timeout_s, CONNECT_AGAIN_S)
        for key, _ in self._selector.select(timeout_s):
            key.data()
        for host in sorted(self._waiting):
            self._try_to_connect(host)
        self._judge()

    def status_seen(self, host: str) -> str:
        """Say what most of the other running nodes say of a node; with nobody to ask, nothing."""
        votes = Counter(
            row.statuses[host]
            for row in self.rows.values()
            if row.host != host and row.host in self._conversations and host in row.statuses
        )
        return votes.most_common(1)[0][0] if votes else ""

    def _try_to_connect(self, host: str) -> None:
        row = self.rows[host]
        try:
            picture, conversation = self._federation.control(host).watch()
        except CommandError:
            return  # not up yet; its log says why if it never is
        row.own = picture.get("status") or {}
        row.statuses = {node["host"]: node["status"] for node in picture.get("nodes") or []}
        row.ready_at_s = time.monotonic()
        self._waiting.discard(host)
        self._conversations[host] = conversation
        self._selector.register(conversation, selectors.EVENT_READ, lambda: self._heard(host, conversation))
        self._say(f"{host} is up: {row.http_url}")
        # Events that came in one piece with the answer wake no selector.
        self._take_lines(host, conversation)

    def _heard(self, host: str, conversation: Conversation) -> None:
        try:
            conversation.read_more()
            self._take_lines(host, conversation)
        except CommandError:
            # The process ends too, or is about to: that is told by its descriptor.
            self._hang_up(host)

    def _take_lines(self, host: str, conversation: Conversation) -> None:
        for event in conversation.lines_at_hand():
            self._take(self.rows[host], str(event.get("event")), event.get("data") or {})

    def _take(self, row: NodeRow, name: str, data: Mapping[str, Any]) -> None:
        match name:
            case "status":
                row.own = data
            case "node-status" if "host" in data:
                before = row.statuses.get(data["host"])
                row.statuses[data["host"]] = str(data.get("status"))
                if before not in (None, data.get("status")):
                    self._say(f"{row.host} sees {data['host']}: {data.get('status')}")
            case "digest-accepted" if "origin" in data:
                row.statuses.setdefault(data["origin"], "up")

    def _ended(self, host: str, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)
        self._waiting.discard(host)
        self._hang_up(host)
        row = self.rows[host]
        row.exit_code = self._federation.exit_code(host)
        self._say(
            f"{host} has ended ({way_out(row.exit_code)}); it stays down: {self._federation.node(host).log_path}"
        )

    def _hang_up(self, host: str) -> None:
        conversation = self._conversations.pop(host, None)
        if conversation is not None:
            self._selector.unregister(conversation)
            conversation.close()

    def _judge(self) -> None:
        """Take note of the moment at which all running nodes hold one root and all nodes."""
        running = [row for row in self.rows.values() if row.is_running]
        roots = {row.root for row in running}
        if len(roots) != 1 or "" in roots or any(row.nodes_known != len(self.rows) for row in running):
            return
        self.root = roots.pop()
        if self.converged_at_s is None:
            self.converged_at_s = time.monotonic()
            self._say(
                f"converged: {len(running)} nodes, root {self.root[:8]}, {self.converge_s:.2f} s after the first "
                f"process was started, {self.converge_after_start_s:.2f} s after the last node answered"
            )


def way_out(code: int | None) -> str:
    """Say how a process ended."""
    if code is None:
        return "running"
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _types(federation: DemoFederation, host: str) -> tuple[str, ...]:
    config_type = federation.node(host).folder / "config_type"
    return node_type_names(parse_node_type(config_type.read_bytes(), str(config_type)))
