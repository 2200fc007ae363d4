"""The real reactor of this process, turned by hand until something has come: for sockets and threads in one test."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

DEADLINE_S = 30.0


def turned(deferred: Deferred[Any]) -> Any:
    """Turn the reactor until a Deferred has fired; return its result or raise its error."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    end_s = time.monotonic() + DEADLINE_S
    while not results:
        assert time.monotonic() < end_s, "nothing came in time"
        reactor.iterate(0.01)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def turned_until(check: Any, what: str) -> Any:
    """Turn the reactor until a check holds; return what it returned."""
    end_s = time.monotonic() + DEADLINE_S
    while not (found := check()):
        assert time.monotonic() < end_s, f"not in time: {what}"
        reactor.iterate(0.01)
    return found
