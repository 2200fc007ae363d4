"""
What the rows of a publisher's journal say, as sightings; and how far the journal was read.

Pure, but for two small tables of the tracker's database. Source: docs/tracking.md, "The publisher's journal".
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

import attrs

from esgf_gossip.sources.publisher_journal import (
    DELETED,
    PUBLISHED,
    RETRACTED,
    WINDOW,
    JournalFile,
    JournalRow,
)
from esgf_gossip.tracking.identity import IdentityError, make_dataset
from esgf_gossip.tracking.sightings import Operation, SeenFile, Sighting
from esgf_gossip.tracking.stac_items import checksum_of

SCRIPT: Final = """
CREATE TABLE publisher_journal (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL) STRICT;
CREATE TABLE publisher_journal_row (number INTEGER PRIMARY KEY) STRICT
"""
SOURCE: Final = "journal"
NAME_CHARACTERS: Final = 255
TRACKING_ID_CHARACTERS: Final = 128


@attrs.frozen
class Position:
    """How far a journal was read: the highest number done, and all that are done not far below it."""

    number: int
    seen: frozenset[int] = attrs.field(repr=False)


@attrs.frozen
class Site:
    """
    What the journal does not say of its site.

    Args:
        data_node: the host that serves what is published, lower case.
        files: URL below which the paths of files lie, with its last slash.
        zone: of the publisher's clock; None: that of this host.
    """

    data_node: str
    files: str
    zone: dt.tzinfo | None = None


def get_position(connection: sqlite3.Connection) -> Position:
    """Return how far the journal was read."""
    row = connection.execute("SELECT position FROM publisher_journal").fetchone()
    seen = connection.execute("SELECT number FROM publisher_journal_row")
    return Position(0 if row is None else row[0], frozenset(number for (number,) in seen))


def advance(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Note that these rows are done."""
    if not numbers:
        return
    connection.executemany(
        "INSERT INTO publisher_journal_row VALUES (?) ON CONFLICT DO NOTHING",
        [(number,) for number in numbers],
    )
    connection.execute(
        "INSERT INTO publisher_journal VALUES (1, ?)"
        " ON CONFLICT (id) DO UPDATE SET position = max(position, excluded.position)",
        (max(numbers),),
    )
    connection.execute(
        "DELETE FROM publisher_journal_row WHERE number <= (SELECT position FROM publisher_journal) - ?",
        (WINDOW,),
    )


def begin_anew(connection: sqlite3.Connection) -> None:
    """Forget how far the journal was read: it is another one."""
    connection.execute("DELETE FROM publisher_journal")
    connection.execute("DELETE FROM publisher_journal_row")


def sightings_of(
    rows: Iterable[JournalRow], site: Site, now_ms: int
) -> tuple[list[Sighting], list[JournalRow]]:
    """
    Return what the rows say, in their order; and those of which nobody can tell what they say.

    The row of an end carries the newest version of its dataset, whichever ended. Where others are known it is not
    guessed: users would be told that the good version is the bad one.
    """
    found, unclear = [], []
    for row in rows:
        operation = _operation(row.code)
        if operation is None:
            continue
        try:
            if row.version is None or (operation is not Operation.PUBLISH and row.versions != {row.version}):
                raise IdentityError
            dataset = make_dataset(row.master_id, str(row.version))
        except IdentityError:
            unclear.append(row)
            continue
        files = tuple(one for one in (_file(file, site.files) for file in row.files) if one is not None)
        found.append(
            Sighting(
                operation,
                dataset,
                site.data_node,
                row.is_replica,
                _time_ms(row.at, site.zone, now_ms),
                SOURCE,
                files,
                # A database that is made anew counts from one again.
                event_id=f"journal/{site.data_node}/{row.number}/{row.at}",
            )
        )
    return found, unclear


def _operation(code: int) -> Operation | None:
    if code in PUBLISHED:
        return Operation.PUBLISH
    if code in RETRACTED:
        return Operation.RETRACT
    return Operation.DELETE if code in DELETED else None


def _time_ms(at: dt.datetime | None, zone: dt.tzinfo | None, now_ms: int) -> int:
    if at is None:
        return now_ms
    # Without a zone astimezone takes a naive time for one of this host.
    moment = at.astimezone() if zone is None else at.replace(tzinfo=zone)
    return min(max(int(moment.timestamp() * 1000), 0), now_ms)


def _file(file: JournalFile, base: str) -> SeenFile | None:
    name = (file.location or file.url).rpartition("/")[2]
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        return None
    url = file.url
    if url and "://" not in url:
        url = base + quote(url.lstrip("/"), safe="/:+,;=@!$&'()*~")
    tracking_id = file.tracking_id
    return SeenFile(
        name,
        (url,) if url.startswith(("http://", "https://")) and url.isprintable() else (),
        checksum_of(file.checksum),
        file.size_bytes if file.size_bytes is not None and file.size_bytes >= 0 else None,
        tracking_id if len(tracking_id) <= TRACKING_ID_CHARACTERS and tracking_id.isprintable() else "",
    )
