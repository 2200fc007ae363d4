"""A wait of a loop that something else can end."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Pause:
    """One loop's waits; what ends a wait before it began ends the next one."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: Deferred[bool] | None = None
        self._call: IDelayedCall | None = None
        self._is_woken = False
        self._is_firm = False
        self._most_s: float | None = None

    def wait(self, seconds: float, *, is_firm: bool = False) -> Deferred[bool]:
        """Fire after so long, with False; or with True as soon as ``end`` is called. One that is firm ends by force alone."""
        if self._most_s is not None:
            seconds, self._most_s = min(seconds, self._most_s), None
        waited: Deferred[bool] = Deferred()
        if self._is_woken and not is_firm:
            self._is_woken = False
            seconds = 0.0
        self._waiting, self._is_firm = waited, is_firm
        self._call = self._clock.callLater(max(seconds, 0.0), self._fire, is_woken=False)
        return waited

    def at_most(self, seconds: float) -> None:
        """Bound the next wait."""
        self._most_s = seconds if self._most_s is None else min(seconds, self._most_s)

    def end(self, *, by_force: bool = False) -> None:
        """End the wait, or the next one that is not firm."""
        self._is_woken = True
        if self._waiting is not None and (by_force or not self._is_firm):
            self._is_woken = False
            self._fire(is_woken=True)

    def _fire(self, *, is_woken: bool) -> None:
        waited, self._waiting = self._waiting, None
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        if waited is not None:
            waited.callback(is_woken)
