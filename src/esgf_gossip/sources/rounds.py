"""
Work that is done again and again: a look at a folder, a service, a database; what failed is shown and tried again.

Never two rounds at once. What went wrong is told once, and that it goes again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.sources.gauge import SourceError

# After a failure, doubled up to the longest pause.
RETRY_S: Final = 5.0
RETRY_MOST_S: Final = 300.0


class Rounds:
    """
    Rounds of one kind, from ``start`` to ``stop``.

    Args:
        what: how the log calls them.
        work: does one; what it returns, or fires with, is true where there is more to do at once.
        every_s: from the end of one to the next.
        clock: the reactor, or a Clock in tests.
        expected: what may go wrong outside of this program; its text is shown. Else the log has the whole.

    ``fault`` says what went wrong in the last round, or ""; ``done`` counts those that went well.
    """

    log = Logger()

    def __init__(
        self,
        what: str,
        work: Callable[[], Deferred[Any] | Any],
        every_s: float,
        clock: Any,
        expected: tuple[type[Exception], ...] = (SourceError, OSError),
    ) -> None:
        self.fault = ""
        self.done = 0
        self._what: Final = what
        self._work: Final = work
        self._every_s: Final = every_s
        self._clock: Final = clock
        self._expected: Final = expected
        self._retry_s = RETRY_S
        self._is_started = False
        self._call: Any = None
        self._round: Deferred[Any] | None = None

    def start(self) -> None:
        """Begin with the next turn; twice does no harm."""
        if not self._is_started:
            self._is_started = True
            self._next(0)

    def stop(self) -> None:
        """Begin no more rounds and leave the one under way; twice does no harm."""
        self._is_started = False
        if self._call is not None and self._call.active():
            self._call.cancel()
        under_way, self._round = self._round, None
        if under_way is not None:
            under_way.cancel()

    def wake(self) -> None:
        """Begin a round now, where none is under way."""
        if self._call is not None and self._call.active():
            self._call.reset(0)

    def _next(self, after_s: float) -> None:
        self._call = self._clock.callLater(after_s, self._go)

    def _go(self) -> None:
        under_way = self._round = maybeDeferred(self._work)
        under_way.addCallbacks(self._went_well, self._failed)
        under_way.addErrback(lambda failure: self.log.failure("{what}", failure, what=self._what))

    def _went_well(self, has_more: Any) -> None:
        self._round = None
        if not self._is_started:
            return
        if self.fault:
            self.log.info("{what}: goes again", what=self._what)
        self.fault, self._retry_s = "", RETRY_S
        self.done += 1
        self._next(0 if has_more is True else self._every_s)

    def _failed(self, failure: Failure) -> None:
        self._round = None
        if not self._is_started:
            return
        if failure.check(*self._expected):
            fault = " ".join(str(failure.value).split())[:500]
            if fault != self.fault:
                self.log.warn("{what}: {fault}; trying again", what=self._what, fault=fault)
        else:
            fault = "internal error; the daemon's log says more"
            self.log.failure("{what}", failure, what=self._what)
        self.fault = fault
        self._next(self._retry_s)
        self._retry_s = min(self._retry_s * 2, RETRY_MOST_S)
