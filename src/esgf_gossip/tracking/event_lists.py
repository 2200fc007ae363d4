"""
The ledger's events as lists: those that count by number or time, those in quarantine, and all in numbers.

Every list has a bound, and every question an index; a text is looked for in the newest events alone.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import attrs

from esgf_gossip.tracking import foreign_claims
from esgf_gossip.tracking.events import EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.ledger import Taken, judge_anew
from esgf_gossip.tracking.records import Record, records
from esgf_gossip.views.federation import DatasetCounts

EVENTS_MOST: Final = 1000
# Where a text is looked for: some tens of milliseconds of reading.
SEARCHED_EVENTS: Final = 50_000
ALERTS_NAMED: Final = 20


@attrs.frozen
class EventWish:
    """
    Which events that count are asked for.

    Args:
        after: only those with a higher number.
        since_ms: only those that came to count here then or later.
        project: only of this project; empty: of all.
        type: only of this type; empty: of all.
        text: only those whose dataset or data node has this in it, of the newest ``SEARCHED_EVENTS``.
        limit: at most so many.
        is_newest_first: the newest, and these in falling order; else the oldest, rising.
    """

    after: int | None = None
    since_ms: int | None = None
    project: str = ""
    type: str = ""
    text: str = ""
    limit: int = EVENTS_MOST
    is_newest_first: bool = False


def events(connection: sqlite3.Connection, wish: EventWish) -> list[Record]:
    """Return the events asked for."""
    terms, values = ["number IS NOT NULL", "counts = 1"], []
    after = wish.after
    if wish.since_ms is not None:
        # Numbers rise with the time at which they were given, as long as the clock does.
        row = connection.execute(
            "SELECT number FROM event WHERE counted_ms >= ? ORDER BY counted_ms, number LIMIT 1",
            (wish.since_ms,),
        ).fetchone()
        if row is None:
            return []
        after = max(row[0] - 1, after or 0)
    if wish.text:
        after = max(newest_number(connection) - SEARCHED_EVENTS, after or 0)
        terms.append("(instr(lower(master_id || '.v' || version), ?) OR instr(data_node, ?))")
        values += [wish.text.lower()] * 2
    for name, value in (("project", wish.project), ("type", wish.type)):
        if value:
            terms.append(f"{name} = ?")
            values.append(value)
    if after is not None:
        terms.append("number > ?")
        values.append(after)  # type: ignore[arg-type]
    order = "DESC" if wish.is_newest_first else "ASC"
    rest = f"WHERE {' AND '.join(terms)} ORDER BY number {order} LIMIT ?"
    return records(connection, rest, (*values, min(wish.limit, EVENTS_MOST)))


def newest_number(connection: sqlite3.Connection) -> int:
    """Return the number of the event that came to count last; 0: none did."""
    (newest,) = connection.execute("SELECT newest FROM numbered").fetchone()
    return int(newest)


def quarantined(connection: sqlite3.Connection, limit: int = EVENTS_MOST) -> list[Record]:
    """Return events that do not count, the latest first."""
    return records(connection, "WHERE counts = 0 ORDER BY seen DESC LIMIT ?", (min(limit, EVENTS_MOST),))


def projects(connection: sqlite3.Connection, most: int) -> list[str]:
    """Return the projects of which events count, sorted, at most so many."""
    found: list[str] = []
    last = ""
    while len(found) < most:
        (following,) = connection.execute(
            "SELECT min(project) FROM event WHERE number IS NOT NULL AND project > ?", (last,)
        ).fetchone()
        if following is None:
            break
        last = following
        found.append(last)
    return found


def alerts(connection: sqlite3.Connection, most: int = ALERTS_NAMED) -> list[tuple[DatasetId, str, int]]:
    """Return retracted versions this node still serves a replica of: the version, the data node, since when it is known here."""
    rows = connection.execute(
        "SELECT master_id, version, data_node, since_ms FROM replica_alert ORDER BY since_ms DESC, master_id LIMIT ?",
        (most,),
    )
    return [(DatasetId(master, version), host, since_ms) for master, version, host, since_ms in rows]


def counts(connection: sqlite3.Connection) -> DatasetCounts:
    """Return the ledger in numbers."""
    by_type = {kind.value: 0 for kind in EventType}
    by_type.update(connection.execute("SELECT type, counted FROM tally"))
    (waiting,) = connection.execute("SELECT count(*) FROM event WHERE counts = 0").fetchone()
    dropped, unreadable = connection.execute(
        "SELECT coalesce(sum(dropped), 0), coalesce(sum(unreadable), 0) FROM place"
    ).fetchone()
    (stale,) = connection.execute("SELECT count(*) FROM replica_alert").fetchone()
    names = tuple(f"{dataset}|{host}" for dataset, host, _ in alerts(connection))
    claimed, claims = foreign_claims.noted(connection, ALERTS_NAMED)
    lines = tuple(map(str, claims))
    return DatasetCounts(by_type, waiting, dropped, unreadable, stale, names, claimed, lines)


def accept(
    connection: sqlite3.Connection, key_prefix: str, own: str, now_ms: int
) -> tuple[list[Record], Taken]:
    """
    Let events in quarantine count, on this node alone, whatever speaks against them.

    Args:
        connection: of the tracker.
        key_prefix: the beginning of their change key, in hexadecimal.
        own: this node.
        now_ms: Unix milliseconds.

    Returns:
        The events that were accepted, none where there are none of that key or their keys differ; and what came of it.
    """
    rows: list[Any] = connection.execute(
        "SELECT change_key, origin, master_id FROM event WHERE counts = 0 AND lower(substr(hex(change_key), 1, ?)) = ?",
        (len(key_prefix), key_prefix.lower()),
    ).fetchall()
    if len({key for key, *_ in rows}) != 1:
        return [], Taken(None)
    connection.executemany(
        "INSERT OR IGNORE INTO accepted VALUES (?, ?, ?)", [(key, origin, now_ms) for key, origin, _ in rows]
    )
    taken = judge_anew(connection, {master for *_, master in rows}, own, now_ms)
    return records(connection, "WHERE change_key = ? ORDER BY seen", (rows[0][0],)), taken
