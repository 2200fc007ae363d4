"""
Keeps the store of downloads up with the site's log, and finds in it who is to be told of a change.

Everything that asks a database happens in a thread, one thing after the other and never for long, so that a change
waits for one step of reading and not for five million rows. The reactor is never blocked.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, fail, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.sources.access_log import DATASETS_AGAIN, LogReading, PublishedFiles
from esgf_gossip.sources.gauge import SourceError, in_thread
from esgf_gossip.sources.log_position import LogPosition
from esgf_gossip.tracking.downloads import DownloadCounts, Downloads, DownloadsError
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.sightings import SeenFile

# From the end of one pass to the next.
PASS_S: Final = 30.0
# The publisher's tables, what is too old, and the counts.
CARE_S: Final = 600.0
# Counting looks at every row: after it a hundred times as long passes until the next.
_COUNT_SHARE: Final = 100
# After a failure: at once, then after this, doubled up to the most.
RETRY_S: Final = 1.0
RETRY_MOST_S: Final = 300.0
# A stop waits that long for a step under way; a server that says nothing does not hold it up longer.
STOP_S: Final = 10.0
# Files that are learned in one step.
LEARN_FILES: Final = 5_000

T = TypeVar("T")


class Source(Protocol):
    """Where downloads are read: ``sources.access_log.AccessLog``. Blocks; raises SourceError."""

    def read(self, position: LogPosition, now_ms: int, *, is_rechecking: bool) -> LogReading:
        """Read on from a position."""
        ...

    def published(self, after: int) -> PublishedFiles:
        """Read on in the publisher's tables."""
        ...


class StoppedError(Exception):
    """Report that the projector was stopped before it was done."""


class Projector:
    """
    Reads, resolves, forgets and matches. All methods are called in the reactor's thread.

    Args:
        open_store: makes or opens the store; called in the thread, again and again while it fails with DownloadsError.
        source: the site's log; None: there is none, and the store has what is in it already.
        reactor: for delays, and to come back from the thread; with a Clock in tests.
        now_ms: the node's clock, Unix milliseconds.
        keep_ms: how long a download is remembered.
        run: does blocking work elsewhere and fires in the reactor's thread with what it returns.
    """

    log = Logger()

    def __init__(
        self,
        open_store: Callable[[], Downloads],
        source: Source | None,
        reactor: Any,
        now_ms: Callable[[], int],
        keep_ms: int,
        run: Callable[[Callable[[], Any], Any], Deferred[Any]] = in_thread,
    ) -> None:
        self._open_store: Final = open_store
        self._source: Final = source
        self._reactor: Final = reactor
        self._now_ms: Final = now_ms
        self._keep_ms: Final = keep_ms
        self._run: Final = run
        self._lock: Final = DeferredLock()
        self._matching: Final = DeferredLock()
        self._store: Downloads | None = None
        self._call: Any = None
        self._is_running = False
        self._is_passing = False
        self._failures = 0
        self._fault = ""
        self._counts = DownloadCounts()
        self._cared_s: float | None = None
        self._count_again_s = 0.0
        # When the last whole pass began.
        self._passed_ms: int | None = None
        self._begun = 0
        # Each with the number of passes begun before it came.
        self._waiting: list[tuple[int, Deferred[None]]] = []

    @property
    def fault(self) -> str:
        """Why the log is not read just now, in one line; empty: it is."""
        return self._fault

    def counts(self) -> DownloadCounts:
        """Return what the store held when it was last looked through."""
        return self._counts

    def start(self) -> None:
        """Begin to read."""
        self._is_running = True
        self._soon(0.0)

    def stop(self) -> Deferred[None]:
        """Read no more; fires when nothing is under way, or after ``STOP_S``. What waits fails with StoppedError."""
        self._is_running = False
        if self._call is not None and self._call.active():
            self._call.cancel()
        waiting, self._waiting = self._waiting, []
        for _, waiter in waiting:
            waiter.errback(StoppedError())
        closed: Deferred[None] = self._lock.run(self._in_thread, self._close)
        stopped: Deferred[None] = Deferred()
        patience = self._reactor.callLater(STOP_S, stopped.callback, None)

        def done(_: object) -> None:
            if patience.active():
                patience.cancel()
                stopped.callback(None)

        closed.addBoth(done)
        return stopped

    def caught_up(self, at_ms: int) -> bool:
        """Tell whether all is in the store that was downloaded before a time: a whole pass began after it."""
        return self._source is None or (self._passed_ms is not None and self._passed_ms > at_ms)

    def when_caught_up(self, at_ms: int) -> Deferred[None]:
        """
        Fire when all is in the store that was downloaded before a time, which has come; a pass is made for it at once.

        Waits while the log cannot be read (``fault``); fails with StoppedError.
        """
        if self.caught_up(at_ms):
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        # By passes, not by the clock, which may be set meanwhile.
        self._waiting.append((self._begun, waiter))
        # While the database is away its retries go on as they do.
        if self._is_running and not self._is_passing and not self._failures:
            self._soon(0.0)
        return waiter

    def match(
        self,
        changes: Sequence[Change],
        take: Callable[[list[Match]], Deferred[Any] | None],
        known_ms: int = 0,
    ) -> Deferred[int]:
        """
        Find who holds what changed; fires with the number of matches.

        Args:
            changes: that happened.
            take: is given each batch in the reactor's thread; the next one is looked for when it has fired. What it
                fails with ends this.
            known_ms: when this node knew of them (Unix milliseconds): what was downloaded until then counts too.

        Raises:
            DownloadsError: the store cannot be asked; batches that were taken stay taken, and come again the next time.
            StoppedError: it was stopped.
        """
        # One after the other: each keeps a question open while what it found is taken.
        found: Deferred[int] = self._matching.run(self._match, changes, take, known_ms)
        return found

    @inlineCallbacks
    def _match(
        self,
        changes: Sequence[Change],
        take: Callable[[list[Match]], Deferred[Any] | None],
        known_ms: int,
    ) -> Generator[Deferred[Any], Any, int]:
        found = yield self._with_store(lambda store: store.match(changes, known_ms))
        count = 0
        try:
            while True:
                batch = yield self._with_store(lambda _: next(found, None))
                if batch is None:
                    return count
                count += len(batch)
                taken = take(batch)
                if taken is not None:
                    yield taken
        finally:
            # Not by way of ``_with_store``: what is left open is closed after a stop too.
            yield self._lock.run(self._in_thread, lambda: _leave(found))

    @inlineCallbacks
    def learn(self, files: Iterable[tuple[DatasetId, SeenFile]]) -> Generator[Deferred[Any], Any, int]:
        """Remember whose files are where, before they are asked for; fires with the number of downloads resolved."""
        listed = list(files)
        count = 0
        for first in range(0, len(listed), LEARN_FILES):
            part = listed[first : first + LEARN_FILES]
            count += yield self._with_store(partial(_learn, part))
        return count

    def export(self, openid: str) -> Deferred[dict[str, Any]]:
        """Fire with all that is kept of a user, as JSON values."""
        return self._with_store(lambda store: store.export(openid))

    def erase(self, openid: str) -> Deferred[dict[str, int]]:
        """Forget a user for ever; fires with how many downloads that were."""
        return self._with_store(lambda store: store.erase(openid, self._now_ms()))

    def _with_store(
        self, work: Callable[[Downloads], T], on_turn: Callable[[], object] = lambda: None
    ) -> Deferred[T]:
        """Do a step with the store in the thread, when the one before is done; ``on_turn`` is called then."""
        if not self._is_running:
            return fail(StoppedError())

        def step() -> T:
            if self._store is None:
                self._store = self._open_store()
            return work(self._store)

        def turn() -> Deferred[T]:
            on_turn()
            return self._in_thread(step) if self._is_running else fail(StoppedError())

        return self._lock.run(turn)

    def _in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        return self._run(work, self._reactor)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _soon(self, after_s: float) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._reactor.callLater(after_s, self._pass)

    def _pass(self) -> None:
        self._is_passing = True
        self._begun += 1
        self._whole_pass().addCallbacks(self._passed, self._failed)

    @inlineCallbacks
    def _whole_pass(self) -> Generator[Deferred[Any], Any, int]:
        began_ms, now_s = self._now_ms(), self._reactor.seconds()
        is_due = self._cared_s is None or now_s - self._cared_s >= CARE_S
        if self._source is not None:
            source = self._source
            missing = (yield self._read_published(source)) if is_due else ""
            is_first = has_more = True
            while has_more:
                has_more = yield self._with_store(partial(_advance, source, self._now_ms, is_first))
                is_first = False
            if missing:
                # Where the log is not read either, that says so: one line for one fault.
                self.log.warn("files of the publisher's tables are not read: {error}", error=missing)
        if is_due:
            while (yield self._with_store(lambda store: store.forget(self._now_ms() - self._keep_ms))):
                pass
            self._cared_s = now_s
        return began_ms

    @inlineCallbacks
    def _read_published(self, source: Source) -> Generator[Deferred[Any], Any, str]:
        has_more = is_first = True
        try:
            while has_more:
                has_more = yield self._with_store(partial(_take_published, source, is_first))
                is_first = False
        except SourceError as error:
            # The log is worth reading without them.
            return str(error)
        return ""

    def _passed(self, began_ms: int) -> None:
        self._is_passing = False
        if self._fault:
            self.log.info("downloads are read again")
        self._fault, self._failures = "", 0
        self._passed_ms = began_ms
        ready = [waiter for before, waiter in self._waiting if before < self._begun]
        self._waiting = [one for one in self._waiting if one[0] >= self._begun]
        if self._is_running:
            self._soon(0.0 if self._waiting else PASS_S)
        for waiter in ready:
            waiter.callback(None)
        # Nobody waits for figures.
        if self._is_running and not self._waiting and self._reactor.seconds() >= self._count_again_s:
            self._count_again_s = math.inf
            self._count().addErrback(
                lambda failure: self.log.debug("not counted: {what}", what=failure.type.__name__)
            )

    @inlineCallbacks
    def _count(self) -> Generator[Deferred[Any], Any, None]:
        # Waiting for a turn is not counting.
        begun_s: list[float] = []
        try:
            self._counts = yield self._with_store(
                lambda store: store.counts(), lambda: begun_s.append(self._reactor.seconds())
            )
        finally:
            ended_s = self._reactor.seconds()
            self._count_again_s = ended_s + _COUNT_SHARE * sum(ended_s - begun for begun in begun_s)

    def _failed(self, failure: Failure) -> None:
        self._is_passing = False
        if not self._is_running:
            return
        self._failures += 1
        if isinstance(failure.value, SourceError | DownloadsError):
            text = failure.getErrorMessage()
        else:
            # A bug must not end the reading for ever. Where it was is told, not what it says: that may name users.
            text = f"reading downloads failed ({type(failure.value).__name__}); see the log"
            where = "".join(traceback.format_tb(failure.getTracebackObject()))
            self.log.error("{text}\n{where}", text=text, where=where)
        # The first question after a restart of the server fails, so one failure is not told yet.
        if self._failures > 1 and text != self._fault:
            self._fault = text
            self.log.warn("downloads are not read: {fault}", fault=text)
        delay_s = 0.0 if self._failures == 1 else min(RETRY_S * 2 ** (self._failures - 2), RETRY_MOST_S)
        if self._is_running:
            self._soon(delay_s)


def _leave(found: Generator[list[Match], None, None]) -> None:
    # The store may be closed already.
    with contextlib.suppress(DownloadsError):
        found.close()


def _learn(files: Sequence[tuple[DatasetId, SeenFile]], store: Downloads) -> int:
    return store.learn(files)


def _take_published(source: Source, is_again: bool, store: Downloads) -> bool:
    # Numbers are taken before rows are written, and files come after their dataset.
    published = source.published(max(0, store.published_to() - (DATASETS_AGAIN if is_again else 0)))
    store.take_published(published)
    return published.has_more


def _advance(source: Source, now_ms: Callable[[], int], is_rechecking: bool, store: Downloads) -> bool:
    reading = source.read(store.position(), now_ms(), is_rechecking=is_rechecking)
    store.advance(reading)
    return reading.has_more
