"""
Which address to dial when: backoff with jitter, for ever.

Pure bookkeeping over addresses and monotonic seconds. Seeds and remembered
peers are tried again for ever, also while others are connected: the old
network split for good because it did not.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

import attrs

from esgf_gossip.core.model import Address

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MOST_S: Final = 30.0
DIALS_AT_ONCE: Final = 8
# A dial that is not answered so soon goes into the void: it costs nothing and holds up nobody else.
DIAL_HANGS_S: Final = 1.0
DIAL_SOON_S: Final = 0.05
# With all dials taken the next plan comes with the end of one, or when they are known to hang.
DIAL_FULL_S: Final = DIAL_HANGS_S
# A dial the shell never answered (it always should) blocks its address no longer than this.
DIAL_LOST_S: Final = 60.0
DIALS_REMEMBERED: Final = 20_000


@attrs.define
class _Attempt:
    next_at_s: float
    failures: int = 0
    dialling_since_s: float | None = None


class Dialling:
    """Keep the attempts of every address that is or was wanted."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._attempts: dict[Address, _Attempt] = {}

    def plan(self, targets: Mapping[Address, float], now_s: float) -> tuple[list[Address], float | None]:
        """
        Return the addresses to dial now, and after how many seconds to ask again (None: no need).

        Args:
            targets: addresses wanted now, with the delay in seconds before a first attempt: of two
                nodes that want each other, one waits so that they do not meet half way.
            now_s: monotonic seconds.
        """
        self._forget_unwanted(targets)
        due: list[Address] = []
        soonest: float | None = None
        free = DIALS_AT_ONCE - self._dialling(now_s)
        waiting: list[tuple[float, Address]] = []
        for address, delay_s in targets.items():
            attempt = self._attempts.setdefault(address, _Attempt(now_s + delay_s))
            if attempt.dialling_since_s is None:
                waiting.append((attempt.next_at_s, address))
        # Who waits longest goes first: many dead addresses must not keep a living one from its turn.
        for next_at_s, address in sorted(waiting):
            if next_at_s <= now_s and free > 0:
                free -= 1
                self._attempts[address].dialling_since_s = now_s
                due.append(address)
            else:
                wait = max(next_at_s - now_s, DIAL_SOON_S if free > 0 else DIAL_FULL_S)
                soonest = wait if soonest is None else min(soonest, wait)
        return due, soonest

    def succeeded(self, address: Address) -> None:
        """Note that somebody answered; what failed before counts until the link has lasted."""
        attempt = self._attempts.get(address)
        if attempt is not None:
            attempt.dialling_since_s = None

    def settled(self, address: Address) -> None:
        """Note that a link to an address has lasted: the next loss starts from a short delay again."""
        attempt = self._attempts.get(address)
        if attempt is not None:
            attempt.failures = 0

    def failed(self, address: Address, now_s: float) -> int:
        """Note a failure and return how many there were in a row."""
        attempt = self._attempts.setdefault(address, _Attempt(now_s))
        attempt.dialling_since_s = None
        attempt.failures += 1
        delay = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(attempt.failures - 1, 10))
        attempt.next_at_s = now_s + delay * self._random.uniform(0.5, 1.5)
        return attempt.failures

    def postpone(self, address: Address, now_s: float, delay_s: float) -> None:
        """Leave an address alone for a while: its node said it does not need the link, or stops."""
        attempt = self._attempts.setdefault(address, _Attempt(now_s))
        attempt.dialling_since_s = None
        attempt.next_at_s = max(attempt.next_at_s, now_s + delay_s)

    def hasten(self, address: Address, now_s: float) -> None:
        """Give an address the next turn, a second time where the first dial hangs; one just dialled is left alone."""
        attempt = self._attempts.setdefault(address, _Attempt(now_s))
        attempt.next_at_s = min(attempt.next_at_s, now_s)
        if attempt.dialling_since_s is not None and now_s - attempt.dialling_since_s >= DIAL_HANGS_S:
            attempt.dialling_since_s = None

    def _dialling(self, now_s: float) -> int:
        count = 0
        for attempt in self._attempts.values():
            if attempt.dialling_since_s is None:
                continue
            if now_s - attempt.dialling_since_s > DIAL_LOST_S:
                attempt.dialling_since_s = None
            else:
                count += now_s - attempt.dialling_since_s < DIAL_HANGS_S
        return count

    def _forget_unwanted(self, targets: Mapping[Address, float]) -> None:
        # The failures of an address survive its being unwanted for a while, but not without bound.
        if len(self._attempts) > DIALS_REMEMBERED:
            self._attempts = {
                address: attempt
                for address, attempt in self._attempts.items()
                if address in targets or attempt.dialling_since_s is not None
            }
