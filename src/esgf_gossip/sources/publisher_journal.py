"""
The journal that the publisher of a site keeps in its PostgreSQL: what it did to which dataset, and when.

Only reading (``postgres_reading``). What a row means is ``tracking.publisher_events``' work. Columns and traps:
docs/tracking.md, "The publisher's journal".
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.postgres_reading import reading

if TYPE_CHECKING:
    import psycopg

QUESTION_S: Final = 20
# Rows of one look that say something, and rows that are looked at for them.
ROWS: Final = 50
LOOKED_AT: Final = 2000
# A number is given before its row is there: what is committed late lies this far back at most.
WINDOW: Final = 10_000
FILES: Final = 20_000
VERSIONS: Final = 1000
TEXT_CHARACTERS: Final = 2000

PUBLISHED: Final = frozenset({3})
DELETED: Final = frozenset({12})
RETRACTED: Final = frozenset({7, 17})
_TELLING: Final = PUBLISHED | DELETED | RETRACTED
# Rows that name a version which was there at the time.
_NAMING: Final = (1, 2, 3)

_TABLES: Final = (
    "public.event",
    "public.dataset",
    "public.dataset_version",
    "public.dataset_file_version",
    "public.file_version",
)
_NUMBERS: Final = "SELECT id, event FROM public.event WHERE id > %s ORDER BY id LIMIT %s"
_LAST: Final = "SELECT max(id) FROM public.event"
# A time that Python has no date for is none. The dataset is found by its name: its number is unset when it is deleted.
_ROWS: Final = """
SELECT e.id, CASE WHEN e.datetime BETWEEN '1970-01-02' AND '9999-12-30' THEN e.datetime END, left(e.object_name, %s),
    e.object_version, e.event, d.id IS NOT NULL, d.master_gateway IS NOT NULL
FROM public.event e LEFT JOIN public.dataset d ON d.name = e.object_name
WHERE e.id = ANY(%s) ORDER BY e.id
"""
_VERSIONS: Final = """
SELECT d.name, v.version FROM public.dataset d JOIN public.dataset_version v ON v.dataset_id = d.id
WHERE d.name = ANY(%s) AND v.version IS NOT NULL
UNION
SELECT e.object_name, e.object_version FROM public.event e
WHERE e.object_name = ANY(%s) AND e.event = ANY(%s) AND e.object_version IS NOT NULL
LIMIT %s
"""
_FILES: Final = """
SELECT left(f.location, %s), left(f.url, %s), f.size, f.checksum, f.tracking_id
FROM public.dataset d
JOIN public.dataset_version v ON v.dataset_id = d.id AND v.version = %s
JOIN public.dataset_file_version x ON x.dataset_version_id = v.id
JOIN public.file_version f ON f.id = x.file_version_id
WHERE d.name = %s ORDER BY f.id LIMIT %s
"""


@attrs.frozen
class JournalFile:
    """One file of a version, as the publisher's tables have it; ``url`` is whole or a path below the server's root."""

    location: str
    url: str
    size_bytes: int | None
    checksum: str
    tracking_id: str


@attrs.frozen
class JournalRow:
    """
    One row of the journal, with what the other tables say of its dataset now.

    Args:
        number: of the row.
        at: when, by the publisher's clock, without a zone; None: no time that makes sense.
        master_id: of the dataset.
        version: as the row has it; of an end it is the newest, not always the one that ended.
        code: what was done.
        is_replica: None: the dataset is not in the database any more.
        versions: all that are known of the dataset; of rows that end something.
        files: of the version; of rows that publish one.
    """

    number: int
    at: dt.datetime | None
    master_id: str
    version: int | None
    code: int
    is_replica: bool | None
    versions: frozenset[int] = frozenset()
    files: tuple[JournalFile, ...] = attrs.field(default=(), repr=False)


@attrs.frozen
class JournalPage:
    """
    What one look found.

    Args:
        numbers: of all new rows of this page, also of those that say nothing to anybody.
        rows: those that do.
        has_more: whether others wait.
        is_new: whether this is another journal than the one whose numbers were known: it begins anew.
        is_absent: whether the database has no publisher's table at all, and none was ever read.
    """

    numbers: tuple[int, ...]
    rows: tuple[JournalRow, ...] = attrs.field(repr=False)
    has_more: bool = False
    is_new: bool = False
    is_absent: bool = False


def read_journal(
    address: str, password_file: Path | None, position: int, seen: Collection[int], most: int = ROWS
) -> JournalPage:
    """
    Read the next rows. Blocks for at most half a minute: not for the reactor's thread.

    Args:
        address: what libpq connects with.
        password_file: its first line is the password; None: libpq's own ways.
        position: highest number that is done.
        seen: numbers that are done, as far back as ``WINDOW``.
        most: rows of the page that say something.

    Raises:
        SourceError: psycopg is missing, nobody answers, or what was asked for is not there.
    """
    with reading(address, password_file, "[tracking]", QUESTION_S) as connection:
        if not _has_tables(connection, is_expected=position > 0):
            return JournalPage((), (), is_absent=True)
        (last,) = connection.execute(_LAST).fetchone() or (None,)
        if position and (last or 0) < position:
            return JournalPage((), (), is_new=True)
        new = _new_numbers(connection, position, seen)
        telling = [number for number, code in new if code in _TELLING][:most]
        # What says nothing is done with the page: most rows of a journal are such.
        end = telling[-1] if len(telling) == most else sys.maxsize
        page = tuple(number for number, _ in new if number <= end)
        has_more = len(page) < len(new) or len(new) == LOOKED_AT
        return JournalPage(page, tuple(_rows(connection, telling)), has_more)


def _new_numbers(
    connection: psycopg.Connection[Any], position: int, seen: Collection[int]
) -> list[tuple[int, int | None]]:
    asked = (max(position - WINDOW, 0), len(seen) + LOOKED_AT)
    return [row for row in connection.execute(_NUMBERS, asked) if row[0] not in seen][:LOOKED_AT]


def _has_tables(connection: psycopg.Connection[Any], *, is_expected: bool) -> bool:
    """Tell whether it is the database of a publisher; one that has lost a part of it, or all, is an error."""
    question = "SELECT " + ", ".join(["to_regclass(%s) IS NOT NULL"] * len(_TABLES))
    found = connection.execute(question.encode(), _TABLES).fetchone() or ()
    missing = [name for name, is_there in zip(_TABLES, found, strict=True) if not is_there]
    if len(missing) == len(_TABLES) and not is_expected:
        return False
    if missing:
        raise SourceError(
            f"[tracking] database: {connection.info.dbname} has no table {', '.join(missing)}; "
            "is it the publisher's database, and may the role use its schema?"
        )
    return True


def _rows(connection: psycopg.Connection[Any], numbers: list[int]) -> Iterable[JournalRow]:
    rows = [
        JournalRow(number, at, name, version, code, is_replica if is_known else None)
        for number, at, name, version, code, is_known, is_replica in connection.execute(
            _ROWS, (TEXT_CHARACTERS, numbers)
        )
    ]
    ended = sorted({row.master_id for row in rows if row.code not in PUBLISHED})
    versions: dict[str, set[int]] = {}
    if ended:
        asked = (ended, ended, list(_NAMING), len(ended) * VERSIONS)
        for name, version in connection.execute(_VERSIONS, asked):
            versions.setdefault(name, set()).add(version)
    for row in rows:
        if row.code not in PUBLISHED:
            yield attrs.evolve(row, versions=frozenset(versions.get(row.master_id, ())))
        elif row.version is None:
            yield row
        else:
            yield attrs.evolve(row, files=tuple(_files(connection, row)))


def _files(connection: psycopg.Connection[Any], row: JournalRow) -> Iterable[JournalFile]:
    asked = (TEXT_CHARACTERS, TEXT_CHARACTERS, row.version, row.master_id, FILES)
    for location, url, size, checksum, tracking_id in connection.execute(_FILES, asked):
        yield JournalFile(location, url or "", size, checksum or "", tracking_id or "")
