"""
One selector, one clock, a few timers: everything the harness waits for goes through here.

All times of all measurements are this loop's ``now_s``: monotonic seconds, taken
as soon as the selector returns, before anything is parsed.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from typing import Any


class Loop:
    """A selector with timers; nothing runs but inside ``run_until`` and ``run_for``."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def add(self, source: Any, callback: Callable[[], object], events: int = selectors.EVENT_READ) -> None:
        """Call back whenever the source is ready."""
        self._selector.register(source, events, callback)

    def change(self, source: Any, callback: Callable[[], object], events: int = selectors.EVENT_READ) -> None:
        """Wait for other events of a source."""
        self._selector.modify(source, events, callback)

    def remove(self, source: Any) -> None:
        """Wait for a source no longer; do so before it is closed."""
        self._selector.unregister(source)

    def later(self, after_s: float, callback: Callable[[], object]) -> None:
        """Call back once; timers are never cancelled, a late one must do no harm."""
        heapq.heappush(self._timers, (time.monotonic() + after_s, next(self._numbers), callback))

    def run_until(self, is_done: Callable[[], bool], most_s: float) -> bool:
        """Run until the condition holds, at most so many seconds; tell whether it holds."""
        end_s = time.monotonic() + most_s
        while not is_done():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._step(left_s)
        return True

    def run_for(self, seconds: float) -> None:
        """Run for so long."""
        self.run_until(lambda: False, seconds)

    def close(self) -> None:
        """Give the selector back; the sources are their owners'."""
        self._selector.close()

    def _step(self, most_s: float) -> None:
        if self._timers:
            most_s = min(most_s, max(0.0, self._timers[0][0] - time.monotonic()))
        ready = self._selector.select(most_s)
        self.now_s = time.monotonic()
        registered = self._selector.get_map()
        for key, _ in ready:
            # An earlier callback of this round may have closed it.
            if registered.get(key.fd) is key:
                key.data()
        while self._timers and self._timers[0][0] <= self.now_s:
            heapq.heappop(self._timers)[2]()
