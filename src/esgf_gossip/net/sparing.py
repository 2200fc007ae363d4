"""
A bound on what strangers can make us write into the log.

Counting only: who is counted, and what is said of it, is the caller's. Without
it one hostile peer that connects in a loop fills a disk with refusals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

WINDOW_S: Final = 60.0
# Enough to see what happens; an honest peer has one or two lines of one kind a minute.
LINES_A_WINDOW: Final = 6
# A flood from many addresses shares one allowance, and the memory of a minute stays small.
SUBJECTS: Final = 256
OTHERS: Final = "others"


class Sparing:
    """
    Allow so many lines a minute about each subject; what was held back is told once, at the end of the minute.

    Args:
        clock: the reactor, or a Clock in tests.
        tell: called with a subject and how many of its lines were held back.
    """

    def __init__(self, clock: IReactorTime, tell: Callable[[str, int], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._counts: dict[str, int] = {}
        self._window: IDelayedCall | None = None

    def allows(self, subject: str) -> bool:
        """Count one line about a subject; tell whether it may be written."""
        if self._window is None:
            self._window = self._clock.callLater(WINDOW_S, self._close_window)
        if subject not in self._counts and len(self._counts) >= SUBJECTS:
            subject = OTHERS
        count = self._counts[subject] = self._counts.get(subject, 0) + 1
        return count <= LINES_A_WINDOW

    def stop(self) -> None:
        """Tell what is owed and leave no timer behind."""
        if self._window is not None and self._window.active():
            self._window.cancel()
        self._close_window()

    def _close_window(self) -> None:
        self._window = None
        counts, self._counts = self._counts, {}
        for subject, count in counts.items():
            if count > LINES_A_WINDOW:
                self._tell(subject, count - LINES_A_WINDOW)
