"""
The changes users are told of, in the order in which they came to count here.

One row for each key, whoever said it and however often. Who matches them with downloads remembers the number of the
last one done. Errata and accepted events both end here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

import attrs

from esgf_gossip.tracking.identity import parse_dataset
from esgf_gossip.tracking.matches import Change, change_to_json

SCRIPT: Final = """
CREATE TABLE change (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, kind TEXT NOT NULL,
    occurred_ms INTEGER NOT NULL, counted_ms INTEGER NOT NULL, body TEXT NOT NULL
) STRICT
"""


def add_change(connection: sqlite3.Connection, change: Change, now_ms: int) -> int | None:
    """
    Note a change; return its number, None where its key is known already (what was noted first stays).

    Nothing happens later than it is heard of: a clock that runs ahead would keep a change fresh for ever.
    """
    change = attrs.evolve(change, occurred_ms=min(change.occurred_ms, now_ms))
    cursor = connection.execute(
        "INSERT INTO change (key, kind, occurred_ms, counted_ms, body) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (key) DO NOTHING",
        (change.key, change.kind, change.occurred_ms, now_ms, json.dumps(change_to_json(change))),
    )
    return cursor.lastrowid if cursor.rowcount else None


def get_change(connection: sqlite3.Connection, key: bytes) -> Change | None:
    """Return a change by its key; None where it does not count here."""
    row = connection.execute("SELECT body FROM change WHERE key = ?", (key,)).fetchone()
    return None if row is None else change_from_json(json.loads(row[0]))


def changes_after(connection: sqlite3.Connection, number: int, most: int) -> list[tuple[int, Change]]:
    """Return the next changes after a number, with theirs, at most so many."""
    rows = connection.execute(
        "SELECT number, body FROM change WHERE number > ? ORDER BY number LIMIT ?", (number, most)
    )
    return [(int(found), change_from_json(json.loads(body))) for found, body in rows]


def change_from_json(body: Mapping[str, Any]) -> Change:
    """Return the change that ``change_to_json`` wrote; for values of our own, which are not checked again."""
    return Change(
        **{
            **body,
            "key": bytes.fromhex(body["key"]),
            "datasets": tuple(parse_dataset(one) for one in body["datasets"]),
            "successor": None if body["successor"] is None else parse_dataset(body["successor"]),
            "supersedes": tuple(body["supersedes"]),
            "unchanged": frozenset(bytes.fromhex(one) for one in body["unchanged"]),
        }
    )
