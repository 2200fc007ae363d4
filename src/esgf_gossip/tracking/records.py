"""
Events as the ledger holds them: who said them, where in the log, and whether they count.

Rows to values and back, and the questions by name of a dataset. The tables are the ledger's.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from esgf_gossip.tracking.events import FILE_KEY_BYTES, DatasetEvent, EventType
from esgf_gossip.tracking.identity import DatasetId, parse_dataset

COLUMNS: Final = (
    "seen, origin, first_leaf, last_leaf, change_key, number, counts, verdict, received_ms, counted_ms, "
    "type, master_id, version, data_node, epoch, occurred_ms, supersedes, unchanged, reason, source"
)


@attrs.frozen
class Record:
    """
    One event of one origin.

    Args:
        seen: its place in the order in which events were seen here; those of one origin in the order of its log.
        origin: the node that said it.
        first_leaf: where it stands in the origin's log.
        last_leaf: where the log says it for the last time: it may repeat itself.
        change_key: of the event.
        event: what was said; of a repetition the first.
        number: among the events that came to count here, rising; None: it never did.
        counts: whether it counts.
        verdict: why not; empty where it counts.
        received_ms: when it was seen here, Unix milliseconds.
        counted_ms: when it came to count here first.
    """

    seen: int
    origin: str
    first_leaf: int
    last_leaf: int
    change_key: bytes
    event: DatasetEvent
    number: int | None = None
    counts: bool = False
    verdict: str = ""
    received_ms: int = 0
    counted_ms: int | None = None


def record_of(row: Sequence[Any]) -> Record:
    """Return the record of a row of COLUMNS."""
    seen, origin, first_leaf, last_leaf, key, number, counts, verdict, received_ms, counted_ms, *said = row
    kind, master_id, version, data_node, epoch, occurred_ms, supersedes, unchanged, reason, source = said
    event = DatasetEvent(
        EventType(kind),
        DatasetId(master_id, version),
        data_node,
        epoch,
        occurred_ms,
        tuple(json.loads(supersedes)) if supersedes else (),
        tuple(unchanged[at : at + FILE_KEY_BYTES] for at in range(0, len(unchanged), FILE_KEY_BYTES)),
        reason,
        source,
    )
    return Record(
        seen,
        origin,
        first_leaf,
        last_leaf,
        key,
        event,
        number,
        bool(counts),
        verdict,
        received_ms,
        counted_ms,
    )


def values_of(event: DatasetEvent) -> tuple[Any, ...]:
    """Return what stands in the last ten of COLUMNS."""
    return (
        event.type.value,
        event.dataset.master_id,
        event.dataset.version,
        event.data_node,
        event.epoch,
        event.occurred_ms,
        json.dumps(event.supersedes) if event.supersedes else "",
        b"".join(event.unchanged),
        event.reason,
        event.source,
    )


def records(connection: sqlite3.Connection, rest: str, values: Iterable[Any] = ()) -> list[Record]:
    """Return the records of a query: what follows ``FROM event``, our own text, with its values."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM event {rest}", tuple(values))  # noqa: S608 - our own text
    return [record_of(row) for row in rows]


def records_of_dataset(connection: sqlite3.Connection, master_id: str) -> list[Record]:
    """Return all that is said of a dataset, of all its versions, in the order seen; what does not count too."""
    return records(connection, "WHERE master_id = ? ORDER BY seen", (master_id,))


def records_of(connection: sqlite3.Connection, instance_id: str) -> list[Record]:
    """Return all that is said of one version, in the order seen; what does not count too."""
    dataset = parse_dataset(instance_id)
    return records(
        connection,
        "WHERE master_id = ? AND version = ? ORDER BY seen",
        (dataset.master_id, dataset.version),
    )
