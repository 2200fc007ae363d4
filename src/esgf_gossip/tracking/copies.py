"""
The copies of dataset versions that this node knows: one row for each record of an index, or what is like one.

What a sighting means for them is decided in ``catalog``; which of several sources to believe in ``turns``. A copy is
never forgotten: a retraction that comes twice, years apart, is known by it.
"""

from __future__ import annotations

import sqlite3
from enum import IntFlag
from typing import Final

import attrs

from esgf_gossip.tracking.identity import DatasetId

SCRIPT: Final = """
CREATE TABLE copy (
    number INTEGER PRIMARY KEY,
    master_id TEXT NOT NULL, version TEXT NOT NULL, data_node TEXT NOT NULL,
    is_replica INTEGER, is_quiet INTEGER NOT NULL, turn INTEGER NOT NULL, epoch INTEGER NOT NULL,
    turned_ms INTEGER NOT NULL, turned_by TEXT NOT NULL, noticed_ms INTEGER NOT NULL, published_ms INTEGER NOT NULL,
    ended_as INTEGER NOT NULL, told INTEGER NOT NULL,
    UNIQUE (master_id, version, data_node)
) STRICT;
CREATE TABLE copy_as_seen (
    copy INTEGER NOT NULL, clock TEXT NOT NULL, turn INTEGER NOT NULL, published_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL,
    PRIMARY KEY (copy, clock)
) STRICT, WITHOUT ROWID;
CREATE INDEX copy_by_node ON copy (data_node, turn)
"""

# Versions of one dataset that are looked at; real ones have a dozen.
VERSIONS_MOST: Final = 1000
NEVER_MS: Final = -1

_FIELDS: Final = (
    "number, master_id, version, data_node, is_replica, is_quiet, turn, epoch, turned_ms, turned_by, noticed_ms, "
    "published_ms, ended_as, told"
)


class Said(IntFlag):
    """Which events of a copy were said; those of an end begin anew with each epoch."""

    NOTHING = 0
    PUBLISHED = 1
    NEW_VERSION = 2
    RETRACTED = 4
    ENDED = 8


class End(IntFlag):
    """How the epoch of a copy ended."""

    NOT = 0
    DELETED = 1
    RETRACTED = 2


@attrs.define
class AsSeen:
    """
    What the sources with one clock have shown of a copy.

    ``turn``: how far they have come; ``published_ms`` and ``ended_ms``: the latest by their clock, ``NEVER_MS``.
    """

    turn: int = 0
    published_ms: int = NEVER_MS
    ended_ms: int = NEVER_MS

    @property
    def is_ended(self) -> bool:
        """Tell whether the last they have shown is an end."""
        return self.turn > 0 and self.turn % 2 == 0


@attrs.define
class Copy:
    """
    One copy of a version at one data node.

    Args:
        number: its row; 0: not stored yet.
        dataset: the version.
        data_node: that serves it.
        is_replica: None: nobody has said.
        is_quiet: known from a look through the index and not told to anybody since.
        turn: 0: nothing but files is known; odd: published; even: ended; each change is one more.
        epoch: how often it came back.
        turned_ms: when the last turn happened, by the clock of who told it first.
        turned_by: whose clock that was.
        noticed_ms: when this node noticed, by its own clock.
        published_ms: when it was published in this epoch, by the clock of who told it first.
        ended_as: how, in this epoch.
        told: what was said.
    """

    number: int
    dataset: DatasetId
    data_node: str
    is_replica: bool | None = None
    is_quiet: bool = False
    turn: int = 0
    epoch: int = 0
    turned_ms: int = 0
    turned_by: str = ""
    noticed_ms: int = 0
    published_ms: int = 0
    ended_as: End = End.NOT
    told: Said = Said.NOTHING

    @property
    def is_known(self) -> bool:
        """Tell whether its record was seen, and not its files alone."""
        return self.turn > 0

    @property
    def is_published(self) -> bool:
        """Tell whether it stands in the index now, as far as is known."""
        return self.turn % 2 == 1

    @property
    def is_original(self) -> bool:
        """Tell whether it is known to be the original."""
        return self.is_replica is False


def get_copy(connection: sqlite3.Connection, dataset: DatasetId, data_node: str) -> Copy | None:
    """Return what is known of a copy; None: nothing."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM copy WHERE master_id = ? AND version = ? AND data_node = ?",  # noqa: S608 - our own names
        (dataset.master_id, dataset.version, data_node),
    )
    return next(map(_copy, rows), None)


def copies_of(connection: sqlite3.Connection, master_id: str) -> list[Copy]:
    """Return all known copies of all versions of a dataset, lowest version first."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM copy WHERE master_id = ? LIMIT {VERSIONS_MOST}",  # noqa: S608 - our own names
        (master_id,),
    )
    return sorted(map(_copy, rows), key=lambda one: one.dataset)


def retracted_at(connection: sqlite3.Connection, data_node: str, clock: str) -> list[tuple[DatasetId, int]]:
    """Return the versions at a data node that are retracted, not deleted, and shown as such by that clock; since when."""
    rows = connection.execute(
        "SELECT master_id, version, ended_ms FROM copy JOIN copy_as_seen ON copy = number"
        " WHERE data_node = ? AND copy.turn > 0 AND copy.turn % 2 = 0 AND ended_as = ? AND clock = ?"
        " AND copy_as_seen.turn % 2 = 0",
        (data_node, int(End.RETRACTED), clock),
    )
    return [(DatasetId(master_id, version), ended_ms) for master_id, version, ended_ms in rows]


def count_shown(connection: sqlite3.Connection, data_node: str, clock: str) -> int:
    """Count the copies at a data node that sources with that clock have shown, deleted ones apart."""
    row = connection.execute(
        "SELECT count(*) FROM copy JOIN copy_as_seen ON copy = number"
        " WHERE data_node = ? AND clock = ? AND (copy.turn % 2 = 1 OR NOT ended_as & ?)",
        (data_node, clock, int(End.DELETED)),
    ).fetchone()
    return int(row[0])


def put_copy(connection: sqlite3.Connection, copy: Copy) -> None:
    """Write a copy; a new one gets its number."""
    values = (
        copy.dataset.master_id,
        copy.dataset.version,
        copy.data_node,
        None if copy.is_replica is None else int(copy.is_replica),
        int(copy.is_quiet),
        copy.turn,
        copy.epoch,
        copy.turned_ms,
        copy.turned_by,
        copy.noticed_ms,
        copy.published_ms,
        int(copy.ended_as),
        int(copy.told),
    )
    marks = ", ".join("?" * (len(values) + 1))
    cursor = connection.execute(
        f"INSERT OR REPLACE INTO copy ({_FIELDS}) VALUES ({marks})",  # noqa: S608 - our own names
        (copy.number or None, *values),
    )
    copy.number = copy.number or int(cursor.lastrowid or 0)


def get_as_seen(connection: sqlite3.Connection, copy: Copy, clock: str) -> AsSeen:
    """Return what the sources with that clock have shown of a copy."""
    row = connection.execute(
        "SELECT turn, published_ms, ended_ms FROM copy_as_seen WHERE copy = ? AND clock = ?",
        (copy.number, clock),
    ).fetchone()
    return AsSeen() if row is None else AsSeen(*row)


def put_as_seen(connection: sqlite3.Connection, copy: Copy, clock: str, seen: AsSeen) -> None:
    """Note it."""
    connection.execute(
        "INSERT OR REPLACE INTO copy_as_seen VALUES (?, ?, ?, ?, ?)",
        (copy.number, clock, seen.turn, seen.published_ms, seen.ended_ms),
    )


def _copy(row: tuple[object, ...]) -> Copy:
    number, master_id, version, data_node, is_replica, is_quiet, *numbers = row
    turn, epoch, turned_ms, turned_by, noticed_ms, published_ms, ended_as, told = numbers
    return Copy(
        number,  # type: ignore[arg-type]
        DatasetId(master_id, version),  # type: ignore[arg-type]
        data_node,  # type: ignore[arg-type]
        None if is_replica is None else bool(is_replica),
        bool(is_quiet),
        turn,  # type: ignore[arg-type]
        epoch,  # type: ignore[arg-type]
        turned_ms,  # type: ignore[arg-type]
        turned_by,  # type: ignore[arg-type]
        noticed_ms,  # type: ignore[arg-type]
        published_ms,  # type: ignore[arg-type]
        End(ended_as),
        Said(told),
    )
