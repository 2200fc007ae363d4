"""
Claims of other nodes to originals that this node serves: of data from before tracking, which its own log never named.

The catalog knows such data quietly, so nobody contests the first who claims it. This node does, as soon as it knows of
both: an alarm here, and its own claim in its log for all to see. Source: docs/tracking.md, "Events of datasets".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

import attrs

from esgf_gossip.tracking.copies import Copy, copies_of, get_copy
from esgf_gossip.tracking.events import CLAIMS, DatasetEvent, EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.records import Record
from esgf_gossip.tracking.sightings import Operation, Sighting

SCRIPT: Final = """
CREATE TABLE foreign_claim (
    master_id TEXT NOT NULL, version TEXT NOT NULL, data_node TEXT NOT NULL, origin TEXT NOT NULL,
    since_ms INTEGER NOT NULL, PRIMARY KEY (master_id, version, data_node)
) STRICT, WITHOUT ROWID
"""

# Made by the intake, beside the catalog.
NODES_SCRIPT: Final = "CREATE TABLE own_data_node (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID"

# Own claims that are said at a time, and of the oldest alone: who claims everything shall not fill our log.
OWED_MOST: Final = 1000


@attrs.frozen
class ForeignClaim:
    """That ``origin`` claims the original of a version that this node serves at ``data_node``; known here since then."""

    dataset: DatasetId
    data_node: str
    origin: str
    since_ms: int

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.origin} claims {self.dataset}|{self.data_node}"


def put_data_nodes(connection: sqlite3.Connection, names: Collection[str]) -> None:
    """Keep for which data nodes this node speaks: its log may not have named one yet."""
    connection.execute("DELETE FROM own_data_node")
    connection.executemany("INSERT INTO own_data_node VALUES (?)", [(name,) for name in sorted(names)])


def note(
    connection: sqlite3.Connection,
    master: str,
    said: Sequence[Record],
    own: str,
    now_ms: int,
) -> None:
    """
    Note which originals of a dataset at this node's data nodes are another's by what counts.

    Args:
        connection: of the tracker.
        master: the dataset.
        said: all that is said of it, as it is judged now.
        own: this node.
        now_ms: Unix milliseconds.
    """
    claims = [one for one in said if one.counts and one.event.type in CLAIMS]
    # What this node holds by what counts, an operator's word included, is settled.
    ours = {one.event.dataset for one in claims if one.origin == own}
    theirs = {one.event.dataset: one.origin for one in reversed(claims) if one.event.dataset not in ours}
    wanted = {}
    if theirs and _has(connection, "own_data_node"):
        hosts = {name for (name,) in connection.execute("SELECT name FROM own_data_node")}
        wanted = {
            (copy.dataset.version, copy.data_node): theirs[copy.dataset]
            for copy in copies_of(connection, master)
            if copy.dataset in theirs and copy.data_node in hosts and _is_served(copy)
        }
    held = {
        (version, data_node): origin
        for version, data_node, origin in connection.execute(
            "SELECT version, data_node, origin FROM foreign_claim WHERE master_id = ?", (master,)
        )
    }
    for copy, origin in held.items():
        if wanted.get(copy) != origin:
            connection.execute(
                "DELETE FROM foreign_claim WHERE master_id = ? AND version = ? AND data_node = ?",
                (master, *copy),
            )
    for copy, origin in wanted.items():
        if held.get(copy) != origin:
            connection.execute(
                "INSERT INTO foreign_claim VALUES (?, ?, ?, ?, ?)", (master, *copy, origin, now_ms)
            )


def noted(connection: sqlite3.Connection, most: int) -> tuple[int, list[ForeignClaim]]:
    """Return how many there are, and the latest of them."""
    (count,) = connection.execute("SELECT count(*) FROM foreign_claim").fetchone()
    rows = connection.execute(
        "SELECT master_id, version, data_node, origin, since_ms FROM foreign_claim"
        " ORDER BY since_ms DESC, master_id, version LIMIT ?",
        (most,),
    )
    return count, [ForeignClaim(DatasetId(master, version), *rest) for master, version, *rest in rows]


def owed(connection: sqlite3.Connection) -> list[DatasetEvent]:
    """Return this node's own claims to what others claim; whether they are said already is not looked at."""
    rows = connection.execute(
        "SELECT master_id, version, data_node FROM foreign_claim ORDER BY since_ms, master_id, version LIMIT ?",
        (OWED_MOST,),
    ).fetchall()
    found = (get_copy(connection, DatasetId(master, version), node) for master, version, node in rows)
    return [_own_claim(copy) for copy in found if copy is not None and _is_served(copy)]


def owed_after(connection: sqlite3.Connection, sighting: Sighting) -> list[DatasetEvent]:
    """Return this node's claim to what it has learned quietly, where another has claimed that before; else nothing."""
    if sighting.operation is not Operation.PUBLISH or not _has(connection, "event"):
        return []
    copy = get_copy(connection, sighting.dataset, sighting.data_node)
    if copy is None or not _is_served(copy):
        return []
    claimed = connection.execute(
        "SELECT 1 FROM event WHERE master_id = ? AND version = ? AND data_node <> ? AND counts = 1 AND type IN (?, ?)",
        (sighting.dataset.master_id, sighting.dataset.version, sighting.data_node, *sorted(CLAIMS)),
    )
    return [] if claimed.fetchone() is None else [_own_claim(copy)]


def _is_served(copy: Copy) -> bool:
    return copy.is_original and copy.is_published


def _own_claim(copy: Copy) -> DatasetEvent:
    return DatasetEvent(
        EventType.PUBLISHED, copy.dataset, copy.data_node, 0, max(copy.published_ms, 0), source="index"
    )


def _has(connection: sqlite3.Connection, table: str) -> bool:
    """Tell whether a part of the tracker that is not always on has its tables."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
    return found.fetchone() is not None
