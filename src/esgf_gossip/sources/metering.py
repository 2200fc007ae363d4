"""
Download numbers and access groups of this site, from a file or a database that another program keeps.

A source that cannot be read leaves what was told before, a restart included, and says so once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.esgf.metrics import FILE_BYTES, MetricsError, parse_data_users
from esgf_gossip.files import read_file
from esgf_gossip.sources.postgres import DatabaseError, Numbers, ask

# The dashboard writes every few minutes; each new number goes to all nodes.
FILE_EVERY_S: Final = 60.0
DATABASE_EVERY_S: Final = 300.0
# A database is busy with us for at most a twentieth of its time, however many rows there are.
REST: Final = 20.0

# Fires with the numbers, or fails with MetricsError, DatabaseError or OSError.
Source = Callable[[], "Deferred[Numbers] | Numbers"]


class Metering:
    """
    Keeps the numbers of this node.

    ``numbers`` are the last ones read; ``on_change`` is called when they changed, but not within ``start``.
    """

    log = Logger()

    def __init__(self, on_change: Callable[[], object], clock: Any) -> None:
        self.numbers = Numbers()
        self._on_change: Final = on_change
        self._failure = ""
        self._clock: Final = clock
        self._every_s = 0.0
        self._source: Source | None = None
        self._call: Any = None

    def start(self, source: Source | None, every_s: float, told: Numbers) -> None:
        """
        Read the source now, and again and again from now on.

        Args:
            source: of the numbers; None: there is none, and nothing is told any more.
            every_s: how often.
            told: what stands until it has answered.
        """
        self.stop()
        self._source, self._every_s, self._failure = source, every_s, ""
        self.numbers = Numbers() if source is None else told
        if source is not None:
            self._look(source, is_first=True)

    def stop(self) -> None:
        """Read no more; an answer under way tells nobody."""
        self._source = None
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _look(self, source: Source, *, is_first: bool = False) -> None:
        begun_s = self._clock.seconds()
        answer = maybeDeferred(source)
        # What is there at once stands before the first word of this node.
        is_silent = is_first and answer.called
        answer.addCallbacks(self._heard, self._failed, (source,), {"is_silent": is_silent}, (source,))
        answer.addErrback(lambda failure: self.log.failure("reading download numbers", failure))
        answer.addBoth(lambda _: self._next(source, self._clock.seconds() - begun_s))

    def _next(self, source: Source, took_s: float) -> None:
        if self._source is source:
            self._call = self._clock.callLater(max(self._every_s, REST * took_s), self._look, source)

    def _heard(self, numbers: Numbers, source: Source, *, is_silent: bool) -> None:
        if self._source is not source:
            return
        if self._failure:
            self.log.info("download numbers are read again")
            self._failure = ""
        changed, self.numbers = numbers != self.numbers, numbers
        if changed and not is_silent:
            self._on_change()

    def _failed(self, failure: Failure, source: Source) -> None:
        failure.trap(MetricsError, DatabaseError)
        text = str(failure.value)
        if self._source is source and text != self._failure:
            self._failure = text
            self.log.warn("download numbers stay as they are: {failure}", failure=text)


def file_source(path: Path) -> Source:
    """Return a source that reads the dashboard's ``data_users.metrics``."""
    return partial(read_data_users, path)


def read_data_users(path: Path) -> Numbers:
    """
    Read the dashboard's ``data_users.metrics``.

    Raises:
        MetricsError: it cannot be read, or holds no such numbers.
    """
    try:
        return Numbers(parse_data_users(read_file(path, FILE_BYTES), str(path)))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MetricsError(f"{path}: {reason}; see [metrics] in node.toml") from None


def database_source(address: str, password_file: Path | None, reactor: Any) -> Source:
    """Return a source that asks the site's PostgreSQL in a thread of its own."""

    def look() -> Deferred[Numbers]:
        answer: Deferred[Numbers] = Deferred()

        def work() -> None:
            try:
                numbers = ask(address, password_file)
            except Exception:  # noqa: BLE001 - whatever it is belongs to the reactor's thread
                reactor.callFromThread(answer.errback, Failure())
            else:
                reactor.callFromThread(answer.callback, numbers)

        # Not the reactor's pool: a stop waits for that, and a database may take its time. One look at a time.
        threading.Thread(target=work, name="database", daemon=True).start()
        return answer

    return look
