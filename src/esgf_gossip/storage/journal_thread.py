"""
One thread that works in a file's database: an fsync may take long, and the reactor has others to serve.

What is handed to it is done in order, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool


class JournalThread:
    """
    The thread, from the first write to ``stop``.

    Args:
        reactor: hears what came of it.
        name: of the thread.
    """

    def __init__(self, reactor: Any, name: str = "tasks") -> None:
        self._reactor: Final = reactor
        self._name: Final = name
        self._pool: ThreadPool | None = None
        self._is_stopped = False

    def write(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Deferred[Any]:
        """Have something written; fires in the reactor's thread with what it returned or raised; nothing after ``stop``."""
        if self._is_stopped:
            return fail(CancelledError())
        if self._pool is None:
            self._pool = ThreadPool(0, 1, self._name)
            self._pool.start()
        return deferToThreadPool(self._reactor, self._pool, work, *arguments, **named)

    def stop(self) -> None:
        """Wait until what was handed in is written; twice does no harm."""
        self._is_stopped = True
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()


class AtOnce:
    """The same without a thread, for tests with a clock of their own."""

    def write(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Deferred[Any]:
        """Write now."""
        return maybeDeferred(work, *arguments, **named)

    def stop(self) -> None:
        """Do nothing: nothing is under way."""
