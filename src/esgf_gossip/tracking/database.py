"""
The tracker's own database: one SQLite file, one thread that writes, one transaction for each step.

Each part of the room owns tables in it and hands in its script; what several parts do in one step they do in one
transaction, so a crash leaves all or nothing. Users' addresses lie in it only sealed. Beside the registry, so that a
million downloads never hold up what the federation needs (docs/adr/0021-tracking.md).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from esgf_gossip.storage.journal_thread import AtOnce, JournalThread
from esgf_gossip.storage.state_files import TRACKING

FILE_NAME: Final = TRACKING
_BUSY_S: Final = 5.0

P = ParamSpec("P")
T = TypeVar("T")


class TrackingError(Exception):
    """Report what is wrong with the tracker's database, where, and what to do, in one line. Nothing was half-written."""


class TrackingDatabase:
    """
    The file as the daemon writes it.

    Args:
        path: of the file; made where there is none, with mode 0600.
        scripts: name of a part and the SQL that makes its tables; each is run once, in one transaction. A part that
            changes its tables takes another name for the script that does it.
        thread: that works; ``AtOnce`` in tests.
        loss: what is lost where it is damaged and moved away.

    Raises:
        TrackingError: damaged, or the disk says no.
    """

    def __init__(
        self,
        path: Path,
        scripts: Mapping[str, str],
        thread: JournalThread | AtOnce,
        loss: str = "who was told of what is forgotten then",
    ) -> None:
        self.path: Final = path
        self._loss: Final = loss
        self._thread: Final = thread
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = self._open(scripts)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._explained(error) from None

    def _open(self, scripts: Mapping[str, str]) -> sqlite3.Connection:
        # Private from its first instant, as the registry; SQLite's own files take its mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        # What was told to a user must be noted as told after a power failure too.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("CREATE TABLE IF NOT EXISTS script (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID")
        for name, script in scripts.items():
            if connection.execute("SELECT 1 FROM script WHERE name = ?", (name,)).fetchone() is None:
                # A script's own name is ours, never a text from outside.
                connection.executescript(
                    f"BEGIN IMMEDIATE; {script}; INSERT INTO script VALUES ('{name}'); COMMIT;"  # noqa: S608
                )
        return connection

    def run(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """
        Do one step in the thread, in a transaction of its own: ``work(connection, ...)``.

        Fires in the reactor's thread with what it returns; fails with a TrackingError where the disk says no, with
        what ``work`` raised otherwise. Whatever it raises, nothing of it stays.
        """
        return self._thread.write(self.now, work, *args, **kwargs)

    def now(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do the same in this thread; for the one thread that writes, before it runs or after it ended."""
        connection = self._connection
        if connection is None:
            raise TrackingError(f"{self.path}: closed already")
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection, *args, **kwargs)
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from None
            raise
        return result

    def reader(self) -> sqlite3.Connection:
        """Return a connection that only reads and waits for no write; the caller closes it."""
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )

    def close(self) -> None:
        """Wait for what was handed in and close the file; twice does no harm."""
        self._thread.stop()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _explained(self, error: Exception) -> TrackingError:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return TrackingError(
                f"{self.path}: damaged ({error}); restore it from a backup, or move it and {self.path.name}-wal away: "
                f"{self._loss}"
            )
        detail: Any = getattr(error, "strerror", None) or error
        return TrackingError(f"{self.path}: {detail}; make room, or mend the disk")
