"""
Damping: a node that goes up and down and up again comes back into what is served ever later.

Only the way back is delayed; that a node is unreachable is told at once. Nothing of
the protocol depends on it. Time is passed in.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

# So many falls within the window are a restart, a second try, a move; more are flapping.
FREE_FALLS: Final = 3
WINDOW_S: Final = 600.0
FIRST_DELAY_S: Final = 10.0
MOST_DELAY_S: Final = 300.0


@attrs.define
class _Record:
    fell_at_s: deque[float]
    is_down: bool = False
    held_until_s: float = 0.0


class Damping:
    """The nodes that were unreachable of late; ``held`` are those to be served as if they still were."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def fell(self, host: str, now_s: float) -> None:
        """Note that a node is unreachable now."""
        record = self._records.setdefault(host, _Record(deque(maxlen=32)))
        if not record.is_down:
            record.is_down = True
            record.fell_at_s.append(now_s)

    def rose(self, host: str, now_s: float) -> float:
        """Note that a node is unreachable no more; return for how many seconds it is held back, 0 for none."""
        record = self._records.get(host)
        if record is None or not record.is_down:
            return 0.0
        record.is_down = False
        falls = sum(now_s - fell_at_s <= WINDOW_S for fell_at_s in record.fell_at_s)
        delay_s = 0.0
        if falls > FREE_FALLS:
            delay_s = min(MOST_DELAY_S, FIRST_DELAY_S * 2.0 ** (falls - FREE_FALLS - 1))
        record.held_until_s = now_s + delay_s
        return delay_s

    def held(self, now_s: float) -> frozenset[str]:
        """Return the nodes that are back but held, and forget those that have been well for long."""
        for host, record in list(self._records.items()):
            last_s = max(record.held_until_s, record.fell_at_s[-1])
            if not record.is_down and now_s - last_s > WINDOW_S:
                del self._records[host]
        return frozenset(
            host
            for host, record in self._records.items()
            if not record.is_down and now_s < record.held_until_s
        )
