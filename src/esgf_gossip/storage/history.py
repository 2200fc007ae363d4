"""
What was, on disk: every change a node accepted, with the time it did, in a SQLite file of its own.

Rows and bytes only: what they mean is ``views.past``'s and ``views.differences``' work. Beside the registry, not in
it: the registry must be small and never lost, the past may be large and may be thrown away (docs/adr/0016).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import msgpack

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.model import CertificateRank, Order, SignedDigest, VerifiedDigest
from esgf_gossip.views.history_json import DIGEST, KINDS, WITHDRAWN

FILE_NAME: Final = "history.db"
# Of one step of trimming, so that it takes milliseconds; and a tenth of the rows where the file is too large.
TRIM_ROWS: Final = 1000
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, host TEXT NOT NULL, kind TEXT NOT NULL,
    is_line INTEGER NOT NULL, ends_ms INTEGER, detail TEXT NOT NULL, payload BLOB, signature BLOB, chain BLOB,
    not_before_s INTEGER, serial BLOB, groups TEXT
) STRICT;
CREATE INDEX by_time ON changes (at_ms);
CREATE INDEX by_host ON changes (host, id);
CREATE INDEX by_line ON changes (host, id) WHERE is_line;
CREATE INDEX by_kind ON changes (kind, id);
CREATE INDEX by_end ON changes (ends_ms) WHERE ends_ms IS NOT NULL;
CREATE TABLE bodies (sha256 BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE uses (sha256 BLOB, change INTEGER, PRIMARY KEY (sha256, change)) STRICT, WITHOUT ROWID;
CREATE INDEX by_change ON uses (change);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
COMMIT;
"""
_COLUMNS: Final = (
    "id, at_ms, host, kind, detail, payload, signature, chain, not_before_s, serial, groups, is_line"
)
_BEGINS: Final = "begins_ms"

T = TypeVar("T")


class HistoryError(Exception):
    """Report what is wrong with the file, where, and what to do, in one line. Nothing was half-written."""


@attrs.frozen
class News:
    """
    One thing that happened, to be kept.

    Args:
        at_ms: when this node took it in, Unix milliseconds.
        host: whom it is about.
        kind: one of ``KINDS``.
        detail: what JSON can say of it.
        line: the digest that was accepted, for ``DIGEST``.
        bodies: of its entries, by SHA-256; those kept already may be left out.
    """

    at_ms: int
    host: str
    kind: str
    detail: Mapping[str, Any] = attrs.field(factory=dict)
    line: VerifiedDigest | None = attrs.field(default=None, repr=False)
    bodies: Mapping[bytes, bytes] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class Kept:
    """One thing that happened, as it was kept; ``line`` was verified when it was accepted."""

    id: int
    at_ms: int
    host: str
    kind: str
    detail: Mapping[str, Any]
    line: VerifiedDigest | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Wish:
    """Which changes are asked for, the newest first; None and "" ask for all."""

    host: str = ""
    kinds: tuple[str, ...] = KINDS
    since_ms: int | None = None
    until_ms: int | None = None
    before_id: int | None = None
    limit: int = 100


class History:
    """
    The file as the daemon writes it: at most ``keep_ms`` back and ``most_bytes`` large.

    Not thread-safe. Who reads opens a ``HistoryReader``, in any thread.
    """

    def __init__(self, path: Path, keep_ms: int, most_bytes: int) -> None:
        """
        Open or make the file; one that is damaged is put aside and a new one begun.

        Raises:
            HistoryError: the disk says no, or a newer version has written the file.
        """
        self.path: Final = path
        self._keep_ms = keep_ms
        self._most_bytes = most_bytes
        self.put_aside = ""
        try:
            self._connection = self._open()
        except (sqlite3.DatabaseError, OSError) as error:
            if isinstance(error, sqlite3.OperationalError | OSError):
                raise _explained(path, error) from None
            self.put_aside = str(self._guard(self._put_aside))
            self._connection = self._guard(self._open)

    def _open(self) -> sqlite3.Connection:
        # Private from its first instant, as the registry; SQLite's own files take its mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(self.path, timeout=0.5, isolation_level=None)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise HistoryError(f"{self.path}: written by a newer version; upgrade esgf-gossip")
            if version == 0:
                connection.executescript(_SCHEMA)
            connection.execute("PRAGMA synchronous = NORMAL")
            # Damage beyond the first page shows itself here.
            (last_ms,) = connection.execute("SELECT MAX(at_ms) FROM changes").fetchone()
            # Time never falls here, whatever the clock does: ids and times have one order.
            self._last_ms = int(last_ms or 0)
        except BaseException:
            connection.close()
            raise
        return connection

    def _put_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.damaged")
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        return self.path.replace(aside)

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            if self._is_in_transaction():
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise _explained(self.path, error) from None

    def _is_in_transaction(self) -> bool:
        connection = getattr(self, "_connection", None)
        return connection is not None and connection.in_transaction

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def newest(self) -> dict[str, bytes]:
        """
        Return the SHA-256 of the payload last kept of each origin that was not withdrawn since.

        Raises:
            HistoryError: the file cannot be read.
        """
        rows = self._guard(lambda: _lines_until(self._connection, None))
        return {row[2]: hashlib.sha256(row[5]).digest() for row in rows}

    def last_words(self, kind: str) -> dict[tuple[str, str], Mapping[str, Any]]:
        """
        Return the last detail of one kind, by host and the type of service it names, "" where it names none.

        Raises:
            HistoryError: the file cannot be read.
        """
        # Of a group SQLite gives the columns of the row that has the maximum.
        query = (
            "SELECT host, COALESCE(json_extract(detail, '$.type'), ''), detail, MAX(id) FROM changes"
            " WHERE kind = ? GROUP BY 1, 2"
        )
        rows = self._guard(lambda: self._connection.execute(query, (kind,)).fetchall())
        return {(host, of): json.loads(detail) for host, of, detail, _ in rows}

    def add(self, news: Sequence[News]) -> None:
        """
        Keep what happened, as a whole or not at all.

        Raises:
            HistoryError: nothing of it is on the disk.
        """
        self._guard(lambda: self._add(news))

    def _add(self, news: Sequence[News]) -> None:
        connection = self._connection
        last_ms = self._last_ms
        connection.execute("BEGIN IMMEDIATE")
        for one in news:
            last_ms = max(last_ms, one.at_ms)
            self._add_one(one, last_ms)
        connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (_BEGINS, last_ms))
        connection.execute("COMMIT")
        self._last_ms = last_ms

    def _add_one(self, one: News, at_ms: int) -> None:
        is_line = one.kind in (DIGEST, WITHDRAWN)
        if is_line:
            self._connection.execute(
                "UPDATE changes SET ends_ms = ? WHERE id ="
                " (SELECT MAX(id) FROM changes WHERE is_line AND host = ?) AND kind = ?",
                (at_ms, one.host, DIGEST),
            )
        # A digest is needed until another takes its place; everything else only for its own moment.
        ends_ms = None if one.kind == DIGEST else at_ms
        values: list[Any] = [at_ms, one.host, one.kind, int(is_line), ends_ms]
        values.append(json.dumps(one.detail, allow_nan=False, separators=(",", ":")))
        used: dict[bytes, bytes] = dict(one.bodies)
        if one.line is None:
            values += [None] * 6
        else:
            chain = msgpack.packb(one.line.chain)
            name = hashlib.sha256(chain).digest()
            used[name] = chain
            rank = one.line.order.certificate
            groups = json.dumps(sorted(one.line.groups))
            values += [one.line.signed.payload, one.line.signed.signature, name]
            values += [rank.not_before_s, rank.serial, groups]
        cursor = self._connection.execute(
            "INSERT INTO changes (at_ms, host, kind, is_line, ends_ms, detail, payload, signature, chain, not_before_s, serial,"
            " groups) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        self._connection.executemany("INSERT OR IGNORE INTO bodies VALUES (?, ?)", used.items())
        names = set(used)
        if one.line is not None:
            names.update(ref.sha256 for ref in one.line.digest.entries.values())
        self._connection.executemany(
            "INSERT OR IGNORE INTO uses VALUES (?, ?)", ((name, cursor.lastrowid) for name in names)
        )

    def trim(self, now_ms: int) -> bool:
        """
        Forget what is too old, then the oldest where the file is too large; tell whether more is to be done.

        At most ``TRIM_ROWS`` rows a call. A digest that was in force at the new beginning stays: the view of every
        later time needs it.

        Raises:
            HistoryError: nothing was forgotten.
        """
        return bool(self._guard(lambda: self._trim(now_ms)))

    def _trim(self, now_ms: int) -> bool:
        connection = self._connection
        begins_ms = now_ms - self._keep_ms
        if self._used_bytes() > self._most_bytes:
            row = connection.execute(
                "SELECT MAX(ends_ms) FROM (SELECT ends_ms FROM changes WHERE ends_ms IS NOT NULL ORDER BY ends_ms LIMIT ?)",
                (self._step(),),
            ).fetchone()
            begins_ms = max(begins_ms, int(row[0] or 0) + 1)
        rows = connection.execute(
            "SELECT id FROM changes WHERE ends_ms < ? ORDER BY ends_ms LIMIT ?", (begins_ms, TRIM_ROWS)
        ).fetchall()
        if not rows:
            return False
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = MAX(value, excluded.value)",
            (_BEGINS, begins_ms),
        )
        for change in rows:
            names = connection.execute("SELECT sha256 FROM uses WHERE change = ?", change).fetchall()
            connection.execute("DELETE FROM uses WHERE change = ?", change)
            connection.executemany(
                "DELETE FROM bodies WHERE sha256 = ?1 AND NOT EXISTS (SELECT 1 FROM uses WHERE sha256 = ?1)",
                names,
            )
        connection.executemany("DELETE FROM changes WHERE id = ?", rows)
        connection.execute("COMMIT")
        # As a script: execute() takes one step of it, which is one page.
        connection.executescript("PRAGMA incremental_vacuum;")
        return len(rows) == TRIM_ROWS or self._used_bytes() > self._most_bytes

    def _step(self) -> int:
        (count,) = self._connection.execute("SELECT COUNT(*) FROM changes").fetchone()
        return min(max(int(count) // 10, 1), TRIM_ROWS)

    def _used_bytes(self) -> int:
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


class HistoryReader:
    """
    The file as questions read it: one snapshot, a connection of its own. A context manager.

    Raises (every method):
        HistoryError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0, isolation_level=None
            )
            self._connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise _explained(path, error) from None

    def __enter__(self) -> HistoryReader:
        """Give the open reader."""
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def begins_ms(self) -> int:
        """Return the time from which on every question can be answered; 0 where nothing was kept yet."""
        row = self._guard("SELECT value FROM facts WHERE name = ?", (_BEGINS,))
        return int(row[0][0]) if row else 0

    def changes(self, wish: Wish) -> list[Kept]:
        """Return what happened, the newest first."""
        conditions = ["kind IN (SELECT value FROM json_each(?))"]
        values: list[Any] = [json.dumps(wish.kinds)]
        for condition, value in (
            ("host = ?", wish.host or None),
            ("at_ms >= ?", wish.since_ms),
            ("at_ms <= ?", wish.until_ms),
            ("id < ?", wish.before_id),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        query = f"SELECT {_COLUMNS} FROM changes WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"  # noqa: S608 - conditions are ours
        return [self._kept(row) for row in self._guard(query, (*values, wish.limit))]

    def before(self, one: Kept) -> Kept | None:
        """Return the digest of the same origin before this one; None for the first, or after it was withdrawn."""
        query = (
            f"SELECT {_COLUMNS} FROM changes WHERE is_line AND host = ? AND id < ? ORDER BY id DESC LIMIT 1"  # noqa: S608 - columns are ours
        )
        rows = self._guard(query, (one.host, one.id))
        found = self._kept(rows[0]) if rows else None
        return None if found is None or found.kind == WITHDRAWN else found

    def lines(self, at_ms: int) -> list[VerifiedDigest]:
        """Return the table as it was at a time: the newest digest of each origin, none that was withdrawn."""
        try:
            rows = _lines_until(self._connection, at_ms)
        except sqlite3.Error as error:
            raise _explained(self._path, error) from None
        kept = (self._kept(row) for row in rows)
        return [one.line for one in kept if one.line is not None]

    def bodies(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return bodies by SHA-256; those not kept are left out."""
        found: dict[bytes, bytes] = {}
        for name in set(names):
            for (body,) in self._guard("SELECT body FROM bodies WHERE sha256 = ?", (name,)):
                found[name] = body
        return found

    def _kept(self, row: Sequence[Any]) -> Kept:
        number, at_ms, host, kind, detail, payload, signature, chain, not_before_s, serial, groups, _ = row
        if kind != DIGEST:
            return Kept(number, at_ms, host, kind, json.loads(detail))
        packed = self.bodies([chain]).get(chain, b"\x90")
        try:
            digest = decode_digest(payload)
        except WireError as error:
            raise HistoryError(
                f"{self._path}: row {number} is no digest ({error}); move the file away"
            ) from None
        order = Order(CertificateRank(not_before_s, serial), digest.epoch, digest.sequence)
        line = VerifiedDigest(
            SignedDigest(payload, signature),
            digest,
            order,
            hashlib.sha256(payload).digest(),
            tuple(msgpack.unpackb(packed)),
            frozenset(json.loads(groups)),
        )
        return Kept(number, at_ms, host, kind, json.loads(detail), line)

    def _guard(self, query: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _explained(self._path, error) from None


def _lines_until(connection: sqlite3.Connection, at_ms: int | None) -> list[Any]:
    """Return the row of the newest digest of each origin up to a time, of all times where it is None."""
    last = (
        "SELECT MAX(id) FROM changes WHERE at_ms <= ?" if at_ms is not None else "SELECT MAX(id) FROM changes"
    )
    (last_id,) = connection.execute(last, () if at_ms is None else (at_ms,)).fetchone()
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM changes WHERE id IN (SELECT (SELECT MAX(id) FROM changes AS one WHERE is_line"  # noqa: S608 - columns are ours
        " AND one.host = hosts.host AND id <= ?) FROM (SELECT DISTINCT host FROM changes WHERE is_line) AS hosts)"
        " ORDER BY host",
        (last_id or 0,),
    )
    return [row for row in rows if row[3] == DIGEST]


def _explained(path: Path, error: Exception) -> HistoryError:
    if isinstance(error, HistoryError):
        return error
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return HistoryError(f"{path}: the disk is full; free some space")
    return HistoryError(f"{path}: {error}; check the disk and the rights of the folder")
