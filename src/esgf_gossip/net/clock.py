"""
The two clocks of a daemon: one that tells the time, one that nobody sets.

Twisted's reactor counts by the time of day, so that every step of that clock makes
timers fire at once or an hour late (twisted.python.runtime). Watching others by
such timers would call them dead; here the reactor gets a steady clock instead.
"""

from __future__ import annotations

import time
from typing import Any


def wall_clock_ms() -> int:
    """Return Unix milliseconds, UTC."""
    return time.time_ns() // 1_000_000


def steady_s() -> float:
    """Return seconds that only ever rise, those included in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def make_steady(reactor: Any) -> bool:
    """
    Let a reactor count by the steady clock; tell whether it does.

    Only before its first timer: one that was set by the time of day would never fire.
    """
    if reactor.seconds is steady_s:
        return True
    if reactor.getDelayedCalls():
        return False
    reactor.seconds = steady_s
    return True
