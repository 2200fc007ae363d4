"""A reactor of a test's own, turned by hand: real sockets on loopback without the one that Twisted keeps for a process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

DEADLINE_S = 30.0


class OwnReactor(EPollReactor):
    """The reactor; ``wait`` turns it until something has come of a Deferred."""

    def wait(self, awaited: Deferred[Any]) -> Any:
        """Return what it fires with, or raise."""
        results: list[Any] = []
        awaited.addBoth(results.append)
        self.turn_until(lambda: results, "an answer")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def turn_until(self, check: Any, what: str) -> Any:
        """Turn until ``check`` returns something true, and return that."""
        end = time.monotonic() + DEADLINE_S
        while not (found := check()):
            assert time.monotonic() < end, f"not within {DEADLINE_S:.0f} s: {what}"
            self.iterate(0.01)
        return found


@contextmanager
def own_reactor() -> Iterator[OwnReactor]:
    """Make a reactor; all it has open is closed at the end."""
    reactor = OwnReactor()
    reactor.startRunning(installSignalHandlers=False)
    try:
        yield reactor
    finally:
        # Its threads end with this.
        reactor.fireSystemEvent("shutdown")
        reactor.iterate(0)
        for reader in reactor.removeAll():
            reader.connectionLost(Failure(ConnectionError("the test is over")))
        reactor.iterate(0)
        for waker in list(reactor._internalReaders):
            waker.connectionLost(Failure(ConnectionError("the test is over")))
        reactor._poller.close()
