"""How long a daemon takes to answer a trifle: the stalls of its reactor, seen from outside."""

from __future__ import annotations

import socket
from typing import Final

from esgf_gossip.demo.plan import LOOPBACK
from gossip_bench.loop import Loop

EVERY_S: Final = 0.005


class Probe:
    """
    Asks for /healthz over one connection, again and again, until closed.

    ``longest_s``: the longest answer. ``own_longest_s``: how late our own loop
    was at worst, so that a busy machine is not taken for a busy daemon.
    """

    def __init__(self, loop: Loop, port: int) -> None:
        self.longest_s = 0.0
        self.own_longest_s = 0.0
        self.answers = 0
        self._loop = loop
        self._is_closed = False
        self._asked_at_s: float | None = None
        self._request = f"GET /healthz HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode()
        self._socket = socket.create_connection((LOOPBACK, port), timeout=10)
        loop.add(self._socket, self._answered)
        self._ask()

    def close(self) -> None:
        """Stop; an answer that is still due counts with the time waited so far."""
        if self._is_closed:
            return
        if self._asked_at_s is not None:
            self.longest_s = max(self.longest_s, self._loop.now_s - self._asked_at_s)
        self._is_closed = True
        self._loop.remove(self._socket)
        self._socket.close()

    def _ask(self) -> None:
        if self._is_closed:
            return
        self._asked_at_s = self._loop.now_s
        self._socket.sendall(self._request)

    def _answered(self) -> None:
        if not self._socket.recv(65536):
            self.close()
            return
        if self._asked_at_s is not None:
            self.longest_s = max(self.longest_s, self._loop.now_s - self._asked_at_s)
            self._asked_at_s = None
            self.answers += 1
            due_s = self._loop.now_s + EVERY_S
            self._loop.later(EVERY_S, lambda: self._due(due_s))

    def _due(self, due_s: float) -> None:
        self.own_longest_s = max(self.own_longest_s, self._loop.now_s - due_s)
        self._ask()
