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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import msgpack

from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.storage.history_reader import (
    BEGINS,
    TRIMMED,
    HistoryError,
    explained,
    lines_until,
)
from esgf_gossip.views.history_json import DIGEST, WITHDRAWN

# Of one step of trimming, so that it takes milliseconds; and a tenth of the rows where the file is too large.
TRIM_ROWS: Final = 1000
TRIM_BYTES: Final = 4 * 1024 * 1024
_VACUUM_PAGES: Final = TRIM_BYTES // 4096
# By so much the last date may be ahead of the clock before it is the date that is doubted.
AHEAD_MS: Final = 3_600_000
_ALWAYS_MS: Final = 2**63 - 1
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

T = TypeVar("T")


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
                raise explained(path, error) from None
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
            raise explained(self.path, error) from None

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
        rows = self._guard(lambda: lines_until(self._connection, None))
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
        now_ms = news[-1].at_ms if news else last_ms
        if now_ms < last_ms - AHEAD_MS and self._fact(BEGINS) <= now_ms:
            last_ms = self._date_back(now_ms)
        for one in news:
            last_ms = max(last_ms, one.at_ms)
            self._add_one(one, last_ms)
        connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (BEGINS, last_ms))
        connection.execute("COMMIT")
        self._last_ms = last_ms

    def _fact(self, name: str) -> int:
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _date_back(self, now_ms: int) -> int:
        """
        Date what a clock far ahead dated, now that it was set right; return the last date there is.

        Else everything that follows would carry the wrong date, for as long as that lies in the future. A clock
        that falls behind the beginning is the wrong one (a host that starts in 1970), and is not believed.
        """
        self._connection.execute(
            "UPDATE changes SET at_ms = MIN(at_ms, ?1), ends_ms = MIN(ends_ms, ?1) WHERE at_ms > ?1 OR ends_ms > ?1",
            (now_ms,),
        )
        self._connection.execute("UPDATE facts SET value = MIN(value, ?)", (now_ms,))
        return now_ms

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

        At most ``TRIM_ROWS`` rows and about ``TRIM_BYTES`` a call. A digest that was in force at the new beginning
        stays: the view of every later time needs it.

        Raises:
            HistoryError: nothing was forgotten.
        """
        return bool(self._guard(lambda: self._trim(now_ms)))

    def _trim(self, now_ms: int) -> bool:
        connection = self._connection
        oldest_ms, most = now_ms - self._keep_ms, TRIM_ROWS
        begins_ms = oldest_ms
        is_full = self._used_bytes() > self._most_bytes
        if is_full:
            oldest_ms, most = _ALWAYS_MS, self._step()
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(
            "SELECT id, ends_ms FROM changes WHERE ends_ms < ? ORDER BY ends_ms, id LIMIT ?",
            (oldest_ms, most),
        ).fetchall()
        freed_bytes = done = 0
        for change, ends_ms in rows:
            if freed_bytes > TRIM_BYTES:
                break
            freed_bytes += self._forget(change)
            begins_ms = max(begins_ms, ends_ms + 1) if is_full else begins_ms
            done += 1
        if done:
            connection.executemany(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = MAX(value, excluded.value)",
                [(BEGINS, begins_ms), (TRIMMED, begins_ms)],
            )
        connection.execute("COMMIT")
        # As a script: execute() takes one step of it, which is one page.
        connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES});")
        has_more = done == most or done < len(rows) or self._used_bytes() > self._most_bytes
        return (bool(done) and has_more) or self._pragma("freelist_count") > 0

    def _forget(self, change: int) -> int:
        """Delete one row and the bodies that only it used; return their bytes."""
        connection = self._connection
        names = connection.execute("SELECT sha256 FROM uses WHERE change = ?", (change,)).fetchall()
        connection.execute("DELETE FROM uses WHERE change = ?", (change,))
        freed_bytes = 0
        for name in names:
            gone = connection.execute(
                "DELETE FROM bodies WHERE sha256 = ?1 AND NOT EXISTS (SELECT 1 FROM uses WHERE sha256 = ?1)"
                " RETURNING LENGTH(body)",
                name,
            ).fetchall()
            freed_bytes += sum(size for (size,) in gone)
        connection.execute("DELETE FROM changes WHERE id = ?", (change,))
        return freed_bytes

    def _step(self) -> int:
        (count,) = self._connection.execute("SELECT COUNT(*) FROM changes").fetchone()
        return min(max(int(count) // 10, 1), TRIM_ROWS)

    def _used_bytes(self) -> int:
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
