"""
Which tasks are done, how often the others were tried: a SQLite file of its own, every word of it on the disk at once.

That a task is done and what it wrote here is one transaction. Beside the registry, so that a flood of tasks never
holds up or fills what the federation needs (docs/adr/0019).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import attrs

FILE_NAME: Final = "tasks.db"
# An id that comes again after so long, or so many others, is taken for a new task.
KEEP_IDS: Final = 1_000_000
KEEP_IDS_MS: Final = 400 * 24 * 60 * 60 * 1000
KEEP_NOTES: Final = 100_000
# Of one step of forgetting, so that it takes milliseconds.
TRIM_ROWS: Final = 500
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE done (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL, sha256 BLOB NOT NULL
) STRICT;
CREATE TABLE tries (
    id TEXT PRIMARY KEY, failures INTEGER NOT NULL, interruptions INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE notes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
PRAGMA user_version = 1;
COMMIT;
"""

T = TypeVar("T")


class JournalError(Exception):
    """Report what is wrong with the file, where, and what to do, in one line. Nothing was half-written."""


@attrs.frozen
class Done:
    """When a task was done, and whether with the same file."""

    at_ms: int
    is_same: bool


@attrs.frozen
class NoteLine:
    """One line that a task has left."""

    at_ms: int
    id: str
    text: str


@attrs.frozen
class Transaction:
    """What an action may write in one step with the note that its task is done."""

    _connection: sqlite3.Connection
    id: str
    at_ms: int

    def add_note(self, text: str) -> None:
        """Keep a line."""
        self._connection.execute(
            "INSERT INTO notes (at_ms, id, text) VALUES (?, ?, ?)", (self.at_ms, self.id, text)
        )


class TaskJournal:
    """
    The file as the daemon writes it.

    ``done`` and ``count_done`` read, by a connection of their own, and wait for no write. All others write, with an
    fsync that may take long: one thread calls them.
    """

    def __init__(self, path: Path) -> None:
        """
        Open or make the file.

        Raises:
            JournalError: damaged, from a newer version, or the disk says no.
        """
        self.path: Final = path
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._connection = self._guard(self._open)
        self._reader = self._guard(self._open_reader)

    def _open(self) -> sqlite3.Connection:
        # Private from its first instant, as the registry; SQLite's own files take its mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(self.path, timeout=0.5, isolation_level=None, check_same_thread=False)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise JournalError(f"{self.path}: written by a newer version; upgrade esgf-gossip")
            # A task that is told to be done must be so after a power failure too.
            connection.execute("PRAGMA synchronous = FULL")
            if version == 0:
                connection.executescript(_SCHEMA)
            # Damage beyond the first page shows itself here.
            connection.execute("SELECT MAX(number) FROM done").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_reader(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.as_uri()}?mode=ro",
            uri=True,
            timeout=0.5,
            isolation_level=None,
            check_same_thread=False,
        )

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException as error:
            if self._connection is not None and self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError):
                raise _explained(self.path, error) from None
            raise

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError(f"{self.path}: closed already")
        return self._connection

    @property
    def _open_reading(self) -> sqlite3.Connection:
        if self._reader is None:
            raise JournalError(f"{self.path}: closed already")
        return self._reader

    def close(self) -> None:
        """Close the file; twice does no harm."""
        for connection in (self._reader, self._connection):
            if connection is not None:
                connection.close()
        self._reader = self._connection = None

    def done(self, task_id: str, content: bytes) -> Done | None:
        """
        Tell when a task was done; None where it was not.

        Raises:
            JournalError: the file cannot be read.
        """
        query = "SELECT at_ms, sha256 FROM done WHERE id = ?"
        row = self._guard(lambda: self._open_reading.execute(query, (task_id,)).fetchone())
        return None if row is None else Done(row[0], row[1] == hashlib.sha256(content).digest())

    def complete(
        self, task_id: str, content: bytes, at_ms: int, write: Callable[[Transaction], None] | None
    ) -> None:
        """
        Note that a task is done, in one step with what it writes.

        Raises:
            JournalError: neither is on the disk.
        """

        def work() -> None:
            connection = self._open_connection
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO done (id, at_ms, sha256) VALUES (?, ?, ?)",
                (task_id, at_ms, hashlib.sha256(content).digest()),
            )
            if write is not None:
                write(Transaction(connection, task_id, at_ms))
            connection.execute("DELETE FROM tries WHERE id = ?", (task_id,))
            connection.execute("COMMIT")

        self._guard(work)

    def add_failure(self, task_id: str) -> int:
        """
        Count a try that failed; return how many did.

        Raises:
            JournalError: it is not counted.
        """
        return self._count(task_id, 1, 0)[0]

    def add_interruption(self, task_id: str) -> int:
        """
        Count a try in whose midst the daemon ended; return how many did.

        Raises:
            JournalError: it is not counted.
        """
        return self._count(task_id, 0, 1)[1]

    def _count(self, task_id: str, failures: int, interruptions: int) -> tuple[int, int]:
        query = (
            "INSERT INTO tries VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET failures = failures"
            " + excluded.failures, interruptions = interruptions + excluded.interruptions"
            " RETURNING failures, interruptions"
        )
        values = (task_id, failures, interruptions)
        rows = self._guard(lambda: self._open_connection.execute(query, values).fetchall())
        return int(rows[0][0]), int(rows[0][1])

    def forget_tries(self, task_id: str) -> None:
        """
        Begin to count anew.

        Raises:
            JournalError: the counts stand.
        """
        query = "DELETE FROM tries WHERE id = ?"
        self._guard(lambda: self._open_connection.execute(query, (task_id,)))

    def count_done(self) -> int:
        """
        Count the tasks that were ever done, as far as this file goes back.

        Raises:
            JournalError: the file cannot be read.
        """
        query = "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'done'"
        return int(self._guard(lambda: self._open_reading.execute(query).fetchone())[0])

    def trim(self, now_ms: int) -> bool:
        """
        Forget what is too old or too much, at most ``TRIM_ROWS`` of each; tell whether there is more.

        Raises:
            JournalError: nothing was forgotten.
        """
        # Numbers rise by one and with time: only the oldest rows are looked at.
        ids = (
            "DELETE FROM done WHERE number IN (SELECT number FROM done ORDER BY number LIMIT ?)"
            " AND (number <= (SELECT MAX(number) FROM done) - ? OR at_ms < ?)"
        )
        notes = (
            "DELETE FROM notes WHERE number IN (SELECT number FROM notes ORDER BY number LIMIT ?)"
            " AND number <= (SELECT MAX(number) FROM notes) - ?"
        )

        def work() -> bool:
            connection = self._open_connection
            gone = connection.execute(ids, (TRIM_ROWS, KEEP_IDS, now_ms - KEEP_IDS_MS)).rowcount
            return max(gone, connection.execute(notes, (TRIM_ROWS, KEEP_NOTES)).rowcount) == TRIM_ROWS

        return bool(self._guard(work))


def read_notes(path: Path, most: int) -> list[NoteLine]:
    """
    Return the newest lines that tasks have left, the oldest of them first; none where there is no file.

    Raises:
        JournalError: the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.5)) as found:
            # 0: a daemon is just making it.
            (version,) = found.execute("PRAGMA user_version").fetchone()
            query = "SELECT at_ms, id, text FROM notes ORDER BY number DESC LIMIT ?"
            rows = found.execute(query, (most,)).fetchall() if version else []
    except sqlite3.Error as error:
        raise _explained(path, error) from None
    return [NoteLine(*row) for row in reversed(rows)]


def _explained(path: Path, error: Exception) -> JournalError:
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return JournalError(
            f"{path}: damaged ({error}); move it and {path.name}-wal away and restart: ids done are forgotten then"
        )
    return JournalError(f"{path}: {getattr(error, 'strerror', None) or error}; make room, or mend the disk")
