"""
A value that is read again and again from somewhere else: a file, a database, the host.

A source that cannot be read leaves what was told before, and that is said once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

# A source is busy with us for at most a twentieth of its time; one that hung for hours is asked again within the hour.
REST: Final = 20.0
REST_MOST_S: Final = 3600.0
# After so long without an answer, a mount that hangs for one, the log says so.
PATIENCE_S: Final = 120.0

T = TypeVar("T")
# Fires with the value, or fails with SourceError; a value that is there at once is as good.
Source = Callable[[], "Deferred[T] | T"]


class SourceError(Exception):
    """Report why a source gives no value: where, what, what to do, in one line, without a secret."""


class Gauge(Generic[T]):
    """
    Keeps one value.

    Args:
        what: how the log calls the values.
        nothing: the value where there is no source.
        on_change: called when it changed, but not within ``start``.
        clock: the reactor, or a Clock in tests.
        least_s: from one look to the next at least, whatever ``start`` asks for.
    """

    log = Logger()

    def __init__(
        self,
        what: str,
        nothing: T,
        on_change: Callable[[], object],
        clock: Any,
        least_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.value = nothing
        self._what: Final = what
        self._nothing: Final = nothing
        self._on_change: Final = on_change
        self._clock: Final = clock
        self._least_s: Final = least_s
        self._failure = ""
        self._every_s = 0.0
        self._source: Source[T] | None = None
        self._call: Any = None
        self._patience: Any = None

    def start(self, source: Source[T] | None, every_s: float, told: T) -> None:
        """
        Read the source now, and again and again from now on.

        Args:
            source: of the value; None: there is none, and nothing is told any more.
            every_s: how often.
            told: what stands until it has answered.
        """
        self.stop()
        self._source, self._every_s, self._failure = source, every_s, ""
        self.value = self._nothing if source is None else told
        if source is not None:
            self._look(source, is_first=True)

    def stop(self) -> None:
        """Read no more; an answer under way tells nobody."""
        self._source = None
        for call in (self._call, self._patience):
            if call is not None and call.active():
                call.cancel()

    def _look(self, source: Source[T], *, is_first: bool = False) -> None:
        begun_s = self._clock.seconds()
        answer = maybeDeferred(source)
        if not answer.called:
            self._patience = self._clock.callLater(
                PATIENCE_S, self._say, "the source does not answer", source
            )
        # What is there at once stands before the first word of this node.
        is_silent = is_first and answer.called
        answer.addCallbacks(self._heard, self._failed, (source,), {"is_silent": is_silent}, (source,))
        answer.addErrback(lambda failure: self.log.failure("reading {what}", failure, what=self._what))
        answer.addBoth(lambda _: self._next(source, self._clock.seconds() - begun_s))

    def _next(self, source: Source[T], took_s: float) -> None:
        if self._source is source:
            if self._patience is not None and self._patience.active():
                self._patience.cancel()
            after_s = max(self._every_s, self._least_s(), min(REST * took_s, REST_MOST_S))
            self._call = self._clock.callLater(after_s, self._look, source)

    def _heard(self, value: T, source: Source[T], *, is_silent: bool) -> None:
        if self._source is not source:
            return
        if self._failure:
            self.log.info("{what} are read again", what=self._what)
            self._failure = ""
        changed, self.value = value != self.value, value
        if changed and not is_silent:
            self._on_change()

    def _failed(self, failure: Failure, source: Source[T]) -> None:
        failure.trap(SourceError)
        self._say(str(failure.value), source)

    def _say(self, text: str, source: Source[T]) -> None:
        if self._source is source and text != self._failure:
            self._failure = text
            self.log.warn("{what} stay as they are: {failure}", what=self._what, failure=text)


def in_thread(work: Callable[[], T], reactor: Any) -> Deferred[T]:
    """Do the work in a thread of its own; fires with what it returns or raises."""
    answer: Deferred[T] = Deferred()

    def run() -> None:
        try:
            value = work()
        except Exception:  # noqa: BLE001 - whatever it is belongs to the reactor's thread
            reactor.callFromThread(answer.errback, Failure())
        else:
            reactor.callFromThread(answer.callback, value)

    # Not the reactor's pool: a stop waits for that, and a database or a mount may take its time.
    threading.Thread(target=run, name="source", daemon=True).start()
    return answer
