"""
The wires between simulated machines: TCP as far as a protocol can feel it.

Inside a link nothing is lost, doubled or overtaken: a lost segment comes later,
and everything behind it too; a cut holds everything up until it is healed, TCP
gives up or an end lets go. Only across links, after a reconnect, is anything
seen twice or out of order. A close travels like data, so a cut or a machine
without power leaves the other end half open.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from esgf_gossip.core.model import Link
from esgf_gossip.sim import faults as fault
from esgf_gossip.sim.faults import Faults
from esgf_gossip.sim.host import End, Host
from esgf_gossip.sim.latency import Latency
from esgf_gossip.sim.timeline import Timeline

JITTER = 0.1


class Wires:
    """All links. What arrives is told by ``on_payload(end, payload)`` and ``on_lost(end, reason)``."""

    def __init__(
        self,
        timeline: Timeline,
        faults: Faults,
        latency: Latency,
        random: Random,
        on_payload: Callable[[End, bytes], None],
        on_lost: Callable[[End, str], None],
    ) -> None:
        self.latency = latency
        self.delivered = 0
        self._timeline = timeline
        self._faults = faults
        self._random = random
        self._on_payload = on_payload
        self._on_lost = on_lost
        self._numbers = itertools.count(1)

    def join(self, one: Host, other: Host, latency_s: float) -> tuple[End, End]:
        """Make a link; return the end of each."""
        ours = End(Link(next(self._numbers)), one, latency_s)
        theirs = End(Link(next(self._numbers)), other, latency_s)
        ours.other, theirs.other = theirs, ours
        one.ends[ours.link] = ours
        other.ends[theirs.link] = theirs
        return ours, theirs

    # ----------------------------------------------------------------- sending

    def carry(self, end: End, payload: bytes) -> None:
        """Send a payload from one end of a link to the other."""
        self._travel(end, self._payload, payload)

    def close(self, end: End) -> None:
        """Close one end; the other hears of it behind what was sent before."""
        self._drop(end)
        self._travel(end, self._closed, "connection lost")

    def vanish(self, end: End) -> None:
        """Lose one end without a word, as a machine without power does."""
        self._drop(end)
        if end.other.is_open:
            self._faults.counts[fault.HALF_OPEN] += 1

    def _drop(self, end: End) -> None:
        end.is_open = False
        end.host.ends.pop(end.link, None)

    def _travel(self, end: End, action: Callable[..., None], argument: object) -> None:
        other = end.other
        delay_s = end.latency_s * (1.0 + JITTER * self._random.random())
        if self._faults.loss:
            delay_s += self._faults.retransmission_s(end.latency_s, self._random)
        arrival_s = max(self._timeline.now_s + delay_s, other.quiet_until_s)
        other.quiet_until_s = arrival_s
        self._timeline.later(arrival_s - self._timeline.now_s, self._arrive, other, action, argument)

    # ----------------------------------------------------------------- arriving

    def _arrive(self, end: End, action: Callable[..., None], argument: Any) -> None:
        if end.held:
            end.held.append((action, (end, argument)))
        elif self._faults.cut is not None and self._is_cut(end):
            self._faults.counts[fault.HELD] += 1
            if action == self._closed and end.is_open:
                self._faults.counts[fault.HALF_OPEN] += 1
            end.held.append((action, (end, argument)))
            self._timeline.later(fault.RETRANSMIT_LEAST_S, self._again, end, fault.RETRANSMIT_LEAST_S, 0.0)
        else:
            action(end, argument)

    def _is_cut(self, end: End) -> bool:
        return self._faults.is_cut(end.other.host.machine, end.host.machine)

    def _again(self, end: End, wait_s: float, waited_s: float) -> None:
        waited_s += wait_s
        if not self._is_cut(end):
            while end.held:
                action, arguments = end.held.popleft()
                action(*arguments)
        elif waited_s < fault.GIVE_UP_S and (end.is_open or end.other.is_open):
            wait_s = min(fault.RETRANSMIT_MOST_S, 2 * wait_s)
            self._timeline.later(wait_s, self._again, end, wait_s, waited_s)
        else:
            end.held.clear()
            if end.other.is_open:
                self._faults.counts[fault.TIMED_OUT] += 1
                self._closed(end.other, "connection timed out")

    def _payload(self, end: End, payload: bytes) -> None:
        if end.is_open:
            self.delivered += 1
            self._on_payload(end, payload)
        elif end.host.is_powered and end.other.is_open:
            self._faults.counts[fault.RESET] += 1
            self._travel(end, self._closed, "connection reset")

    def _closed(self, end: End, reason: str) -> None:
        if end.is_open:
            self._drop(end)
            self._on_lost(end, reason)
