"""
Virtual time: one priority queue of things to come, and a leap over days in which nothing happens.

Knows nothing of networks. Things due at one instant happen in the order in which they were planned.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Timeline:
    """
    The clock of a simulation.

    ``now_s`` are virtual seconds since the start, as monotonic clocks see them;
    ``leapt_s`` is what wall clocks are ahead of that by leaps.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.leapt_s = 0.0
        self.events = 0
        self._queue: list[tuple[float, int, bool, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def later(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Plan an action."""
        heapq.heappush(self._queue, (self.now_s + seconds, next(self._order), False, action, arguments))

    def later_by_wall(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Plan an action that a leap brings nearer."""
        heapq.heappush(self._queue, (self.now_s + seconds, next(self._order), True, action, arguments))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stop early when ``until`` holds. Tells whether it held."""
        end_s = self.now_s + seconds
        queue = self._queue
        while queue and queue[0][0] <= end_s:
            self.now_s, _, _, action, arguments = heapq.heappop(queue)
            self.events += 1
            action(*arguments)
            if until is not None and until():
                return True
        self.now_s = end_s
        return until is None or until()

    def leap(self, seconds: float) -> float:
        """
        Move all wall clocks on while everything else stands still; return the seconds leapt.

        Ends where the first action planned by wall time is due. What it leaves
        out are beats that would have been answered and dials that would have
        failed; what a node does by the calendar it does at the right time.
        """
        due = [entry[0] for entry in self._queue if entry[2]]
        leapt_s = max(0.0, min([seconds, *(one - self.now_s for one in due)]))
        self.leapt_s += leapt_s
        self._queue = [
            (due_s - leapt_s, order, True, action, arguments) if by_wall else entry
            for entry in self._queue
            for due_s, order, by_wall, action, arguments in [entry]
        ]
        heapq.heapify(self._queue)
        return leapt_s
