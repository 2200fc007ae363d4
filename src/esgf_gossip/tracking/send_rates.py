"""
How many mails may go out in a second: in all, and to one domain, in any window of one second.

A mail counts from its first command to the answer to its last, so that no delay on the way can bring more than the
rate together at the server. After a start it is as if the last second had been full.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 1.0
# Above what the clock is read with; a window at the server must not be shorter than ours by a rounding.
_MARGIN_S: Final = 0.005


class SendRates:
    """
    The mails of the last second.

    Args:
        per_s: in all.
        domain_per_s: to one domain.
        started_s: when this began, by the same clock as all times here.
    """

    def __init__(self, per_s: int, domain_per_s: int, started_s: float) -> None:
        self._per_s: Final = per_s
        self._domain_per_s: Final = domain_per_s
        self._started_s: Final = started_s
        self._ended: deque[tuple[float, bytes]] = deque()

    def note(self, domain: bytes, at_s: float) -> None:
        """Note that an attempt has ended, whatever came of it."""
        self._ended.append((at_s, domain))

    def wait_s(self, now_s: float) -> float:
        """Return how long nothing may be sent; 0: something may, but not to ``full_domains``."""
        self._forget(now_s)
        waits = [self._started_s + WINDOW_S - now_s]
        if len(self._ended) >= self._per_s:
            waits.append(self._left_s(self._ended[-self._per_s][0], now_s))
        return max(0.0, *waits)

    def full_domains(self, now_s: float) -> dict[bytes, float]:
        """Return the domains that may not be mailed to now, and for how long each."""
        self._forget(now_s)
        ended: dict[bytes, list[float]] = {}
        for at_s, domain in self._ended:
            ended.setdefault(domain, []).append(at_s)
        return {
            domain: self._left_s(times[-self._domain_per_s], now_s)
            for domain, times in ended.items()
            if len(times) >= self._domain_per_s
        }

    def _left_s(self, at_s: float, now_s: float) -> float:
        return at_s + WINDOW_S + _MARGIN_S - now_s

    def _forget(self, now_s: float) -> None:
        while self._ended and self._left_s(self._ended[0][0], now_s) <= 0:
            self._ended.popleft()
