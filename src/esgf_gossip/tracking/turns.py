"""
Which of several sources to believe: whether what one of them shows of a copy is new, or an old story told again.

The life of a copy is a row of turns: published, ended, published again, ended again. Every source tells the same row,
some sooner, some later, some by a clock that is hours off. A source that is behind catches up without making news; one
that has told all that is known makes news with its next turn. Where a source skipped some of the row, clocks decide,
as far apart as two of them can be. Source: docs/tracking.md, "Where events come from".
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from esgf_gossip.tracking.copies import AsSeen, Copy

# The proxy hands on to the index that is looked through: they show one row of turns by one clock.
INDEX: Final = "index"
HAND: Final = "hand"
_CLOCKS: Final = {"proxy": INDEX, "index": INDEX, "hand": HAND, "task": HAND}
# Clocks that are this node's own.
OWN_CLOCKS: Final = frozenset({INDEX, HAND})
# Two local times without a zone differ by so much at most: from UTC+14 to UTC-12.
SKEW_MS: Final = 26 * 3600 * 1000


class Turn(Enum):
    """What a sighting is for the life of a copy."""

    # It happened since; nobody has told it yet.
    NEW = "new"
    # It is what is known to be so.
    CURRENT = "current"
    # It is over, or an earlier turn told late.
    OLD = "old"


def clock_of(source: str) -> str:
    """Return by whose clock a source tells the time; sources with one clock tell one row of turns."""
    return _CLOCKS.get(source, source)


def judge(copy: Copy, seen: AsSeen, source: str, at_ms: int, now_ms: int, *, is_end: bool) -> Turn:
    """
    Tell what a sighting is for a copy, and note in ``seen`` that its source has shown it.

    Args:
        copy: as it is known; not changed.
        seen: what the sources with the same clock have shown of it.
        source: of the sighting.
        at_ms: when it happened, by that clock.
        now_ms: by this node's clock.
        is_end: retracted or deleted; else: published.
    """
    if clock_of(source) in OWN_CLOCKS:
        # Our own clock was ahead once: what it dated then must not hold up what happens now.
        seen.published_ms = _not_ahead(seen.published_ms, now_ms, at_ms)
        seen.ended_ms = _not_ahead(seen.ended_ms, now_ms, at_ms)
    # Within one clock there is no doubt. Of two things in one instant the end is believed.
    if at_ms < seen.published_ms if is_end else at_ms <= seen.ended_ms:
        return Turn.OLD
    has_shown = seen.turn > 0
    is_repeated = has_shown and is_end == seen.is_ended
    is_news_to_source = not is_repeated or at_ms > (seen.ended_ms if is_end else seen.published_ms)
    if is_end:
        seen.ended_ms = max(seen.ended_ms, at_ms)
    else:
        seen.published_ms = max(seen.published_ms, at_ms)
    # Ends have even numbers.
    turn = seen.turn if is_repeated else seen.turn + 1 + ((seen.turn + 1) % 2 == int(is_end))
    # A look through the index shows how it is, not that something happened: it makes news only of its own next turn.
    can_skip = is_news_to_source and source != INDEX
    is_same = copy.turn > 0 and (copy.turn % 2 == 0) == is_end
    if turn > copy.turn:
        seen.turn = turn
        return Turn.NEW
    if is_same:
        # What a look agrees with, made after that was noticed, its index has caught up with.
        if (can_skip or source == INDEX) and _is_later(copy, source, at_ms, now_ms):
            turn = copy.turn
        seen.turn = max(seen.turn, turn)
        return Turn.CURRENT if seen.turn == copy.turn else Turn.OLD
    if can_skip and _is_later(copy, source, at_ms, now_ms):
        seen.turn = copy.turn + 1
        return Turn.NEW
    seen.turn = turn
    return Turn.OLD


def _is_later(copy: Copy, source: str, at_ms: int, now_ms: int) -> bool:
    """Tell whether it happened after the last known turn, whatever the clocks."""
    clock = clock_of(source)
    if clock in OWN_CLOCKS and at_ms > _not_ahead(copy.noticed_ms, now_ms, at_ms):
        return True
    is_one_clock = clock == copy.turned_by or {clock, copy.turned_by} <= OWN_CLOCKS
    return at_ms > copy.turned_ms + (0 if is_one_clock else SKEW_MS)


def _not_ahead(stamp_ms: int, now_ms: int, at_ms: int) -> int:
    return stamp_ms if stamp_ms <= now_ms else at_ms - 1
