"""What the mail asks of those who know the events: whether a change may be mailed without the word of people."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import attrs

from esgf_gossip.tracking.matches import Change


def _nothing(_connection: sqlite3.Connection, _change: Change) -> str:
    return ""


def _none(_connection: sqlite3.Connection, _now_ms: int) -> int:
    return 0


@attrs.frozen
class Doubts:
    """
    Two questions, asked in the tracker's thread and in the transaction of what follows.

    Args:
        of: why a change is to be held, a word of ``tracking.holds``; empty: it is not.
        review: (connection, now) holds what waits and is contested, looks again at what is held; returns how many are new.
    """

    of: Callable[[sqlite3.Connection, Change], str] = _nothing
    review: Callable[[sqlite3.Connection, int], int] = _none
