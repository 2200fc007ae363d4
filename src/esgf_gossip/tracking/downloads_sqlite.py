"""
Who downloaded what, in a SQLite file of its own beside the node's others.

It is big and can be made anew from the site's log; it names users, so nobody else may read it. Same interface as
``downloads_postgres``. Neither has an index of downloads by user: to keep one costs as much as the downloads
themselves, and what needs it (export, erasure, forgetting users) is rare and reads all of them.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import attrs

from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import downloads
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.downloads import DownloadCounts, DownloadsError, Sorted, Span, Tally, exported
from esgf_gossip.tracking.events import EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.matching import Row, matches_of, plan
from esgf_gossip.tracking.openids import fold_openid
from esgf_gossip.tracking.stored_downloads import Steps, StoredDownloads
from esgf_gossip.tracking.urls import Place

SCRIPT: Final = """
CREATE TABLE state (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tally (name TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE dataset (
    number INTEGER PRIMARY KEY, master TEXT NOT NULL, version TEXT NOT NULL, UNIQUE (master, version)
) STRICT;
CREATE TABLE file (
    number INTEGER PRIMARY KEY, dataset INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (dataset, name)
) STRICT;
CREATE TABLE person (number INTEGER PRIMARY KEY, folded TEXT NOT NULL UNIQUE, openid TEXT NOT NULL) STRICT;
CREATE TABLE download (
    dataset INTEGER NOT NULL, person INTEGER NOT NULL, file INTEGER NOT NULL, host TEXT NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, whole_ms INTEGER, PRIMARY KEY (dataset, person, file)
) STRICT, WITHOUT ROWID;
CREATE INDEX download_age ON download (last_ms);
CREATE TABLE place (
    key BLOB NOT NULL, host TEXT NOT NULL, dataset INTEGER, PRIMARY KEY (key, host)
) STRICT, WITHOUT ROWID;
CREATE TABLE unresolved (
    key BLOB NOT NULL, place_host TEXT NOT NULL, person INTEGER NOT NULL, path TEXT NOT NULL, host TEXT NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, whole_ms INTEGER, PRIMARY KEY (key, place_host, person)
) STRICT, WITHOUT ROWID;
CREATE INDEX unresolved_age ON unresolved (last_ms);
CREATE TABLE erased (hash BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID
"""
_CACHE_KB: Final = 64 * 1024
# What is carried from the log of pages into the file at a time: a look changes as many pages as it has rows, and pages
# that change again meanwhile are carried once.
_CARRIED_PAGES: Final = 32_000

# In any order of rows the same comes out.
_JOINED: Final = """
first_ms = min(first_ms, excluded.first_ms),
host = CASE WHEN (excluded.last_ms, excluded.host) > (last_ms, host) THEN excluded.host ELSE host END,
last_ms = max(last_ms, excluded.last_ms),
whole_ms = max(coalesce(whole_ms, excluded.whole_ms), coalesce(excluded.whole_ms, whole_ms))
"""
_ADD_DOWNLOAD: Final = f"""
INSERT INTO download (dataset, person, file, host, first_ms, last_ms, whole_ms)
SELECT file.dataset, person.number, file.number, ?, ?, ?, ? FROM person, file
WHERE file.dataset = ? AND file.name = ? AND person.folded = ?
ON CONFLICT DO UPDATE SET {_JOINED}
"""  # noqa: S608
_NUMBER: Final = "SELECT number FROM dataset WHERE master = ? AND version = ?"
_ADD_DATASET: Final = "INSERT INTO dataset (master, version) VALUES (?, ?) RETURNING number"
_ADD_UNRESOLVED: Final = f"""
INSERT INTO unresolved (key, place_host, person, path, host, first_ms, last_ms, whole_ms)
SELECT ?, ?, person.number, ?, ?, ?, ?, ? FROM person WHERE person.folded = ?
ON CONFLICT DO UPDATE SET {_JOINED}
"""  # noqa: S608
_CLAIMS: Final = """
SELECT place.key, place.host, dataset.master, dataset.version
FROM place LEFT JOIN dataset ON dataset.number = place.dataset WHERE place.key IN
"""
# Paths of one question: one for each path takes ten times as long.
_KEYS: Final = 500
_MATCHED: Final = """
SELECT download.person, person.openid, download.dataset, file.name, download.host, download.last_ms
FROM json_each(?) AS held CROSS JOIN download ON download.dataset = held.value
JOIN person ON person.number = download.person JOIN file ON file.number = download.file
WHERE download.first_ms <= ?
AND NOT EXISTS (
    SELECT 1 FROM json_each(?) AS newer CROSS JOIN download AS taken
    ON taken.dataset = newer.value AND taken.person = download.person
)
ORDER BY download.person, download.last_ms DESC, file.name
"""
_COUNTS: Final = """
SELECT (SELECT count(*) FROM download), (SELECT count(*) FROM person), (SELECT count(*) FROM dataset),
(SELECT count(*) FROM place), (SELECT count(*) FROM unresolved)
"""

P = ParamSpec("P")
T = TypeVar("T")


class SqliteDownloads(StoredDownloads):
    """
    The store in a file.

    Args:
        path: of the file; made where there is none, with mode 0600.

    Raises:
        DownloadsError: damaged, or the disk says no.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_STEPS)
        with _explained():
            self._database: Final = TrackingDatabase(
                path, {"downloads": SCRIPT}, AtOnce(), "it is made anew from the site's log of downloads"
            )
            self._database.now(_tune)
            self._reader: Final = self._database.reader()
        self._reader.execute(f"PRAGMA cache_size = -{_CACHE_KB}")

    def match(self, changes: Sequence[Change], known_ms: int = 0) -> Generator[list[Match], None, None]:
        """Find who holds what changed, in batches, change by change; see ``Downloads``."""
        for change in changes:
            with _explained():
                wanted = plan(change, dict(_versions(self._reader, change)))
                asked = json.dumps(list(wanted.held)), json.dumps(list(wanted.newer))
                before_ms = max(change.occurred_ms, known_ms)
                with contextlib.closing(self._reader.cursor()) as cursor:
                    rows: Iterable[Row] = cursor.execute(_MATCHED, (asked[0], before_ms, asked[1]))
                    yield from matches_of(change, wanted, rows)

    def close(self) -> None:
        """Close the file; twice does no harm."""
        self._reader.close()
        self._database.close()

    def _run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with _explained():
            return self._database.now(work, *args, **kwargs)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (TrackingError, sqlite3.Error) as error:
        raise DownloadsError(" ".join(str(error).split())) from None


def _tune(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CARRIED_PAGES}")


def _state(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT body FROM state WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _set_state(connection: sqlite3.Connection, name: str, body: str) -> None:
    connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, body))


def _advance(
    connection: sqlite3.Connection, fetches: Sequence[downloads.Fetch], tally: Tally, position: str
) -> None:
    claims = _claims(connection, {fetch.place.key for fetch in fetches})
    erased = dict(connection.execute("SELECT hash, at_ms FROM erased"))
    _write(connection, downloads.sort_out(fetches, claims, erased))
    # A reading that comes again says the same position: its rows are counted already.
    if _state(connection, downloads.POSITION) != position:
        connection.executemany(
            "INSERT INTO tally VALUES (?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number",
            attrs.asdict(tally).items(),
        )
    _set_state(connection, downloads.POSITION, position)


def _claims(
    connection: sqlite3.Connection, keys: Collection[bytes]
) -> dict[bytes, dict[str, DatasetId | None]]:
    waiting = list(keys)
    parts = (waiting[first : first + _KEYS] for first in range(0, len(waiting), _KEYS))
    return downloads.merged_claims(
        (key, host, None if master is None else DatasetId(master, version))
        for part in parts
        for key, host, master, version in connection.execute(
            f"{_CLAIMS} ({', '.join('?' * len(part))})", part
        )
    )


def _write(connection: sqlite3.Connection, found: Sorted) -> None:
    connection.executemany(
        "INSERT INTO person (folded, openid) VALUES (?, ?) ON CONFLICT DO NOTHING", found.people.items()
    )
    numbers = _name_datasets(connection, {dataset for dataset, _, _ in found.downloads})
    # In the order of the tables: pages that are touched one after another are at hand.
    ordered = sorted(
        (numbers[dataset], name, folded, span) for (dataset, folded, name), span in found.downloads.items()
    )
    connection.executemany(
        "INSERT INTO file (dataset, name) VALUES (?, ?) ON CONFLICT DO NOTHING",
        dict.fromkeys((number, name) for number, name, _, _ in ordered),
    )
    connection.executemany(
        _ADD_DOWNLOAD,
        (
            (s.host, s.first_ms, s.last_ms, s.whole_ms, number, name, folded)
            for number, name, folded, s in ordered
        ),
    )
    connection.executemany(
        _ADD_UNRESOLVED,
        (
            (place.key, place.host, place.path, s.host, s.first_ms, s.last_ms, s.whole_ms, folded)
            for (place, folded), s in found.unresolved.items()
        ),
    )


def _name_datasets(connection: sqlite3.Connection, datasets: Collection[DatasetId]) -> dict[DatasetId, int]:
    """Return the number of each."""
    numbers = {}
    for dataset in datasets:
        names = (dataset.master_id, dataset.version)
        known = (
            connection.execute(_NUMBER, names).fetchone()
            or connection.execute(_ADD_DATASET, names).fetchone()
        )
        numbers[dataset] = known[0]
    return numbers


def _learn(
    connection: sqlite3.Connection,
    places: Mapping[tuple[bytes, str], DatasetId | None],
    published: int | None,
) -> int:
    numbers = _name_datasets(connection, {one for one in places.values() if one is not None})
    known = _claims(connection, {key for key, _ in places})
    changed: set[bytes] = set()
    for (key, host), dataset in places.items():
        of_key = known.setdefault(key, {})
        claimed = downloads.united(of_key[host], dataset) if host in of_key else dataset
        if host in of_key and of_key[host] == claimed:
            continue
        of_key[host] = claimed
        changed.add(key)
        connection.execute(
            "INSERT OR REPLACE INTO place VALUES (?, ?, ?)",
            # What differs from what was there is what is said now, or nobody's.
            (key, host, None if claimed is None else numbers[claimed]),
        )
    if published is not None:
        _set_state(connection, downloads.PUBLISHED, str(published))
    return sum(_resolve(connection, key, known[key]) for key in changed)


def _resolve(connection: sqlite3.Connection, key: bytes, claims: downloads.Claims) -> int:
    rows = connection.execute(
        "SELECT place_host, path, person, folded, first_ms, last_ms, whole_ms, host FROM unresolved"
        " JOIN person ON person.number = unresolved.person WHERE key = ?",
        (key,),
    ).fetchall()
    if not rows:
        return 0
    found = Sorted({}, {}, {})
    gone = []
    for place_host, path, person, folded, *span in rows:
        if downloads.resolve(found, Place(place_host, path), claims, folded, Span(*span)):
            gone.append((key, place_host, person))
    _write(connection, found)
    connection.executemany("DELETE FROM unresolved WHERE key = ? AND place_host = ? AND person = ?", gone)
    return len(gone)


def _versions(connection: sqlite3.Connection, change: Change) -> Iterator[tuple[int, DatasetId]]:
    if change.kind == EventType.NEW_VERSION and change.successor is not None:
        master = change.successor.master_id
        for number, version in connection.execute(
            "SELECT number, version FROM dataset WHERE master = ?", (master,)
        ):
            yield number, DatasetId(master, version)
        return
    for dataset in change.datasets:
        for (number,) in connection.execute(_NUMBER, (dataset.master_id, dataset.version)):
            yield number, dataset


def _export(connection: sqlite3.Connection, openid: str) -> dict[str, Any]:
    folded = fold_openid(openid)
    held = connection.execute(
        "SELECT master || '.v' || version, file.name, host, first_ms, last_ms, whole_ms FROM download"
        " JOIN dataset ON dataset.number = download.dataset JOIN file ON file.number = download.file"
        " WHERE download.person = (SELECT number FROM person WHERE folded = ?) ORDER BY 1, 2",
        (folded,),
    ).fetchall()
    unresolved = connection.execute(
        "SELECT path, host, first_ms, last_ms, whole_ms FROM unresolved"
        " WHERE person = (SELECT number FROM person WHERE folded = ?) ORDER BY 1, 2",
        (folded,),
    ).fetchall()
    return exported(openid, held, unresolved)


def _erase(connection: sqlite3.Connection, folded: str, now_ms: int) -> dict[str, int]:
    number = "(SELECT number FROM person WHERE folded = ?)"
    gone = {
        table: connection.execute(f"DELETE FROM {table} WHERE person = {number}", (folded,)).rowcount  # noqa: S608
        for table in ("download", "unresolved")
    }
    connection.execute("DELETE FROM person WHERE folded = ?", (folded,))
    connection.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (downloads.user_hash(folded), now_ms))
    return {"downloads": gone["download"], "unresolved": gone["unresolved"]}


def _forget(connection: sqlite3.Connection, before_ms: int) -> bool:
    has_more = False
    for table, key in (("download", "dataset, person, file"), ("unresolved", "key, place_host, person")):
        gone = connection.execute(
            f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE last_ms < ? ORDER BY last_ms LIMIT ?)",  # noqa: S608
            (before_ms, downloads.FORGET_ROWS),
        ).rowcount
        has_more = has_more or gone == downloads.FORGET_ROWS
    if not has_more and downloads.is_sweep_due(_state(connection, downloads.SWEPT), before_ms):
        connection.execute(
            "DELETE FROM person WHERE number NOT IN"
            " (SELECT person FROM download UNION SELECT person FROM unresolved)"
        )
        _set_state(connection, downloads.SWEPT, str(before_ms))
    return has_more


def _counts(connection: sqlite3.Connection) -> DownloadCounts:
    found = connection.execute(_COUNTS).fetchone()
    tally = dict(connection.execute("SELECT name, number FROM tally"))
    return DownloadCounts(*found, **tally)


_STEPS: Final = Steps(_state, _advance, _learn, _export, _erase, _forget, _counts)
