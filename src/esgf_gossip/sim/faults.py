"""
What goes wrong between and inside machines, and how often it really did.

A fault is set here and carried out by the wires and the network, which count
each time it bites: a test asserts ``counts``, so that no fault is only believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

# The first retransmission of TCP comes after 200 ms at the earliest (Linux, TCP_RTO_MIN).
RETRANSMIT_LEAST_S = 0.2
# Linux doubles up to two minutes and gives up after about a quarter of an hour (tcp_retries2).
RETRANSMIT_MOST_S = 120.0
GIVE_UP_S = 900.0

HELD = "message held by a cut"
LOST = "segment lost"
BLOCKED_DIAL = "dial into a cut"
HALF_OPEN = "end left half open"
PAUSED = "event during a pause"
CRASHED = "crash at a persist point"
TIMED_OUT = "link timed out by TCP"
RESET = "link reset by a peer that knows nothing of it"


class Faults:
    """
    The faults in force. ``cut(a, b)`` tells whether nothing gets from a to b now; None: no cut anywhere.

    ``loss`` is the share of messages whose first copy is lost.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.cut: Callable[[str, str], bool] | None = None
        self.loss = 0.0
        self._crashes: dict[str, int] = {}

    # ----------------------------------------------------------------- cuts

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Tell whether nothing gets from one host to another now."""
        return self.cut is not None and self.cut(sender, receiver)

    def cut_ways(self, ways: Iterable[tuple[str, str]]) -> None:
        """Cut these directions, one way each."""
        closed = frozenset(ways)
        self.cut = lambda one, other: (one, other) in closed

    def partition(self, *groups: Iterable[str]) -> None:
        """Let hosts of different groups hear nothing of each other; those in no group form one more."""
        group_of = {name: number for number, group in enumerate(groups) for name in group}
        self.cut = lambda one, other: group_of.get(one) != group_of.get(other)

    def heal(self) -> None:
        """End all cuts."""
        self.cut = None

    # ----------------------------------------------------------------- loss

    def retransmission_s(self, latency_s: float, random: Random) -> float:
        """Return how much later a message comes because copies of it were lost; 0.0 mostly."""
        delay_s, wait_s = 0.0, max(RETRANSMIT_LEAST_S, 2 * latency_s)
        while self.loss and random.random() < self.loss:
            self.counts[LOST] += 1
            delay_s += wait_s
            wait_s = min(RETRANSMIT_MOST_S, 2 * wait_s)
        return delay_s

    # ----------------------------------------------------------------- crashes

    def crash_after(self, name: str, persists: int) -> None:
        """Let a host crash when so many more Persist effects are on its disk: 0 before the next, none sent after."""
        self._crashes[name] = persists

    def forget_crash(self, name: str) -> bool:
        """Drop a crash that has not happened; tell whether there was one."""
        return self._crashes.pop(name, None) is not None

    def crashes_now(self, name: str) -> bool:
        """Tell whether the host crashes before its next Persist effect."""
        if self._crashes.get(name) != 0:
            return False
        del self._crashes[name]
        self.counts[CRASHED] += 1
        return True

    def persisted(self, name: str) -> None:
        """Count one Persist effect that is on the disk."""
        if name in self._crashes:
            self._crashes[name] -= 1
