"""
How far a table of downloads is read, which nobody may miss a row of.

Ids are taken before rows are written, and rows are written by many at once: a lower id may appear after a higher one.
And a row is there from the first byte on and is marked when the last is sent. So what is below the highest id read and
was not there is remembered and asked for again, and so is what had not ended; both for a day, and within a bound.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import attrs

# Longer than a transfer or a transaction lasts.
WAIT_MS: Final = 24 * 60 * 60 * 1000
# The newest of them are kept, so that asking for them takes a fraction of a second.
GAPS: Final = 10_000
OPEN_ROWS: Final = 20_000


@attrs.frozen
class Gap:
    """Ids that were not there, from ``first`` to ``last``, since when (Unix milliseconds)."""

    first: int
    last: int
    since_ms: int


@attrs.frozen
class LogPosition:
    """
    How far it is read.

    Args:
        highest: id that was read.
        gaps: below it, by id.
        open_rows: ids whose transfer had not ended, with the time since when that is known, by id.
    """

    highest: int = 0
    gaps: tuple[Gap, ...] = ()
    open_rows: tuple[tuple[int, int], ...] = ()

    def moved(
        self, seen: Sequence[int], reopened: Collection[int], now_ms: int, *, is_rechecked: bool
    ) -> LogPosition:
        """
        Return the position after rows were read.

        Args:
            seen: their ids, rising.
            reopened: those of them that have not ended.
            now_ms: Unix milliseconds.
            is_rechecked: whether gaps and open rows were asked for: those that are old enough are then given up.
        """
        old = [number for number in seen if number <= self.highest]
        new = [number for number in seen if number > self.highest]
        gaps = _filled(self.gaps, old, now_ms) if old else list(self.gaps)
        before = self.highest
        for number in new:
            if number > before + 1:
                gaps.append(Gap(before + 1, number - 1, now_ms))
            before = number
        waiting = dict(self.open_rows)
        for number in seen:
            waiting.pop(number, None)
        since = dict(self.open_rows)
        waiting.update((number, since.get(number, now_ms)) for number in reopened)
        if is_rechecked:
            gaps = [gap for gap in gaps if now_ms - gap.since_ms < WAIT_MS]
            waiting = {number: at for number, at in waiting.items() if now_ms - at < WAIT_MS}
        return LogPosition(before, tuple(gaps[-GAPS:]), tuple(sorted(waiting.items())[-OPEN_ROWS:]))

    def encode(self) -> str:
        """Write it as text."""
        return json.dumps(
            [self.highest, [[gap.first, gap.last, gap.since_ms] for gap in self.gaps], self.open_rows]
        )


def decode_position(text: str) -> LogPosition:
    """Read what ``encode`` wrote; a text of our own, which is not checked."""
    highest, gaps, open_rows = json.loads(text)
    return LogPosition(
        highest, tuple(Gap(*gap) for gap in gaps), tuple((number, since) for number, since in open_rows)
    )


def _filled(gaps: Iterable[Gap], found: Sequence[int], now_ms: int) -> list[Gap]:
    # Both rise, and so do the answers: one walk along both.
    left: list[Gap] = []
    at = 0
    for gap in gaps:
        first = gap.first
        while at < len(found) and found[at] < first:
            at += 1
        filled = False
        while at < len(found) and found[at] <= gap.last:
            if found[at] > first:
                left.append(Gap(first, found[at] - 1, gap.since_ms))
            first, filled = found[at] + 1, True
            at += 1
        if first <= gap.last:
            # Somebody writes here: what is above may still come as long as if it had just been missed.
            left.append(Gap(first, gap.last, now_ms if filled else gap.since_ms))
    return left
