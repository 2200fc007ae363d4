"""
The node's memory on disk: one SQLite file, WAL, every change one transaction.

Rows and bytes only: what a line means is the core's work, and whether it is
still true the Verifier's, which judges every line again after a restart.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Final

import attrs
import msgpack

from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.effects import (
    DropBodies,
    Persist,
    PersistEpoch,
    PersistFork,
    PersistLine,
    PersistTrust,
    RemoveFork,
    RemoveLine,
    RemoveTrust,
)
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.log_effects import DropLeaves, PersistLeaves
from esgf_gossip.core.logs import StoredLog
from esgf_gossip.core.messages import Fork
from esgf_gossip.core.model import SignedDigest, TrustObject
from esgf_gossip.core.revision import StoredLine
from esgf_gossip.storage import leaves
from esgf_gossip.storage.copying import CopyStoppedError, copy_pages

FILE_NAME: Final = "registry.db"

# One step per version of the schema, each applied once, in a transaction. Append only.
_MIGRATIONS: Final = (
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE lines (
        origin TEXT PRIMARY KEY, payload BLOB NOT NULL, signature BLOB NOT NULL, chain BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE bodies (sha256 BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT;
    """,
    # The proof is the payload of the message that gives it to a peer.
    """
    CREATE TABLE forks (certificate BLOB PRIMARY KEY, proof BLOB NOT NULL) STRICT, WITHOUT ROWID;
    """,
    leaves.SCHEMA,
    """
    CREATE TABLE trust (
        key TEXT PRIMARY KEY, number INTEGER NOT NULL, stamp INTEGER NOT NULL, body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)


class StorageError(Exception):
    """Report what is wrong with the database, where, and what to do, in one line. Nothing was half-written."""


class InUseError(StorageError):
    """Report that another daemon holds the database."""


@attrs.frozen
class Stored:
    """Everything a restart gets back."""

    epoch: int
    lines: tuple[StoredLine, ...]
    bodies: Mapping[bytes, bytes] = attrs.field(repr=False)
    forks: tuple[Fork, ...] = ()
    logs: tuple[StoredLog, ...] = attrs.field(default=(), repr=False)
    trust: tuple[TrustObject, ...] = ()


def find_fault(path: Path) -> str:
    """
    Look at a database without changing it; return what is wrong in one line, or "" where all is well or none is there.

    A file that a running daemon holds is well: the daemon looked at it.
    """
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.5)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        fault = _explained(path, error)
        return "" if isinstance(fault, InUseError) else str(fault)
    if verdict != "ok":
        return str(_damaged(path, str(verdict).splitlines()[0]))
    return "" if version <= len(_MIGRATIONS) else str(_too_new(path, version))


class Database:
    """
    The open database of one daemon; a second daemon on the same file is refused.

    Not thread-safe; calls take milliseconds (an fsync each) and are made from the reactor.
    """

    def __init__(self, path: Path) -> None:
        """
        Open or create the file and bring its schema up to date.

        Raises:
            StorageError: damaged, in use, from a newer version, or the disk says no.
        """
        self.path: Final = path
        self._connection = self._connect()
        self._leaves = leaves.LeafStore(self._connection)
        self._identity = self._identify()
        self._copying = Lock()
        self._is_closing = False

    def _connect(self) -> sqlite3.Connection:
        try:
            # Made by us, so that it is private from its first instant; SQLite's own files take its mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            # A copy is made in a thread; SQLite itself puts what threads ask of one connection in order.
            connection = sqlite3.connect(
                self.path, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"{self.path}: cannot be opened ({error}); check the folder and its rights"
            ) from None
        try:
            # Held for the life of the process: two daemons with one identity would fork it.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            self._check(connection)
            self._migrate(connection)
        except sqlite3.Error as error:
            connection.close()
            raise _explained(self.path, error) from None
        except StorageError:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged(self.path, str(verdict).splitlines()[0])

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise _too_new(self.path, version)
        for number, step in enumerate(_MIGRATIONS[version:], start=version + 1):
            connection.executescript(f"BEGIN; {step} PRAGMA user_version = {number}; COMMIT;")

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)  # noqa: PTH116 - before every transaction; pathlib takes five times as long
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close the file; everything persisted is in it. A copy that is being made ends first, unfinished."""
        self._is_closing = True
        with self._copying:
            self._connection.close()

    # ----------------------------------------------------------------- reading

    def load(self) -> Stored:
        """
        Return everything that was persisted.

        Raises:
            StorageError: the file cannot be read or holds what was never written.
        """
        try:
            with closing(self._connection.cursor()) as cursor:
                rows = cursor.execute(
                    "SELECT payload, signature, chain FROM lines ORDER BY origin"
                ).fetchall()
                bodies = dict(cursor.execute("SELECT sha256, body FROM bodies"))
                proofs = cursor.execute("SELECT proof FROM forks ORDER BY certificate").fetchall()
                trust = cursor.execute("SELECT key, number, stamp, body FROM trust ORDER BY key").fetchall()
            lines = tuple(
                StoredLine(SignedDigest(payload, signature), _chain(chain))
                for payload, signature, chain in rows
            )
            forks = tuple(_fork(proof) for (proof,) in proofs)
        except sqlite3.Error as error:
            raise _explained(self.path, error) from None
        except (ValueError, msgpack.exceptions.UnpackException) as error:
            raise _damaged(self.path, str(error)) from None
        return Stored(
            self.fact("epoch"), lines, bodies, forks, self.logs(), tuple(TrustObject(*row) for row in trust)
        )

    def logs(self) -> tuple[StoredLog, ...]:
        """
        Return the state of every log, without its leaves.

        Raises:
            StorageError: the file cannot be read or holds what was never written.
        """
        try:
            return self._leaves.load()
        except sqlite3.Error as error:
            raise _explained(self.path, error) from None
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise _damaged(self.path, str(error)) from None

    def leaves(self, origin: str, log: str, start: int, end: int, most_bytes: int) -> list[bytes]:
        """
        Return leaves of a log from ``start`` on, to ``end`` or until they have so many bytes; fewer where they are not held.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            return self._leaves.read(origin, log, start, end, most_bytes)
        except sqlite3.Error as error:
            raise _explained(self.path, error) from None

    def fact(self, name: str) -> int:
        """
        Return a number kept under a name, 0 where none is.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            raise _explained(self.path, error) from None
        return 0 if row is None else int(row[0])

    def copy_to(self, target: Path) -> None:
        """
        Copy everything into a new file, as it is at one moment; may be called in a thread while others write.

        Raises:
            StorageError: the disk says no, or this database was closed meanwhile; the target is worth nothing.
        """
        with self._copying:
            try:
                copy_pages(self._connection, target, lambda: self._is_closing)
            except (sqlite3.Error, OSError, CopyStoppedError) as error:
                raise StorageError(f"{target}: not copied: {error}; free some space, or ask again") from None

    # ----------------------------------------------------------------- writing

    def apply(self, effects: Iterable[Persist]) -> None:
        """
        Make a batch durable, as a whole or not at all.

        An epoch is on the medium when this returns. Everything else outlives the process at once, a loss of power
        within seconds: it is others' word, or our own under an epoch that ends with the power (docs/adr/0004-effects.md).

        Raises:
            StorageError: nothing of the batch is on the disk.
        """
        if self._identify() != self._identity:
            # SQLite goes on writing into a file that has no name any more, and reports success.
            raise StorageError(
                f"{self.path}: removed or replaced under the running daemon; restart it: the peers give the rest back"
            )
        batch = tuple(effects)
        must_sync = any(isinstance(effect, PersistEpoch) for effect in batch)
        try:
            if must_sync:
                self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN IMMEDIATE")
            for effect in batch:
                self._write(effect)
            self._leaves.sweep()
            self._connection.execute("COMMIT")
            if must_sync:
                self._connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise _explained(self.path, error) from None

    def set_fact(self, name: str, value: int) -> None:
        """
        Keep a number under a name.

        Raises:
            StorageError: the number before is still there.
        """
        try:
            self._put_fact(name, value)
        except sqlite3.Error as error:
            raise _explained(self.path, error) from None

    def _put_fact(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _write(self, effect: Persist) -> None:
        match effect:
            case PersistEpoch():
                self._put_fact("epoch", effect.epoch)
            case PersistLine():
                line = effect.line
                self._connection.execute(
                    "INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?)",
                    (
                        line.digest.origin,
                        line.signed.payload,
                        line.signed.signature,
                        msgpack.packb(line.chain),
                    ),
                )
                self._connection.executemany(
                    "INSERT OR IGNORE INTO bodies VALUES (?, ?)", effect.bodies.items()
                )
                self._drop(effect.dropped)
            case DropBodies():
                self._drop(effect.dropped)
            case PersistFork():
                self._connection.execute(
                    "INSERT OR REPLACE INTO forks VALUES (?, ?)",
                    (effect.line.certificate_sha256, encode(effect.line.proof)),
                )
            case RemoveFork():
                self._connection.execute(
                    "DELETE FROM forks WHERE certificate = ?", (effect.certificate_sha256,)
                )
            case PersistTrust():
                held = effect.held
                self._connection.execute(
                    "INSERT OR REPLACE INTO trust VALUES (?, ?, ?, ?)",
                    (held.key, held.number, held.stamp_s, held.body),
                )
            case RemoveTrust():
                self._connection.execute("DELETE FROM trust WHERE key = ?", (effect.key,))
            case PersistLeaves() | DropLeaves():
                self._leaves.write(effect)
            case RemoveLine():
                self._connection.execute("DELETE FROM lines WHERE origin = ?", (effect.origin,))
                self._drop(effect.dropped)

    def _drop(self, hashes: Iterable[bytes]) -> None:
        self._connection.executemany(
            "DELETE FROM bodies WHERE sha256 = ?", ((content,) for content in hashes)
        )


def _chain(packed: bytes) -> tuple[bytes, ...]:
    chain = msgpack.unpackb(packed)
    if not isinstance(chain, list) or not all(isinstance(certificate, bytes) for certificate in chain):
        raise ValueError("a chain is not a list of certificates")
    return tuple(chain)


def _fork(payload: bytes) -> Fork:
    try:
        message = decode(payload)
    except WireError as error:
        raise ValueError(str(error)) from None
    if not isinstance(message, Fork) or not message.chain:
        raise ValueError("a proof of a fork is none")
    return message


def _explained(path: Path, error: sqlite3.Error) -> StorageError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return InUseError(f"{path}: in use by another daemon; stop it first (esgf-gossip stop)")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return _damaged(path, str(error))
    if name.startswith("SQLITE_FULL"):
        return StorageError(f"{path}: the disk is full; free some space")
    return StorageError(f"{path}: {error} ({name}); check the disk and the rights of the folder")


def _damaged(path: Path, detail: str) -> StorageError:
    return StorageError(
        f"{path}: the database is damaged ({detail}); move the file away and start again: "
        "the peers give the registry back"
    )


def _too_new(path: Path, version: int) -> StorageError:
    return StorageError(
        f"{path}: written by a newer version (schema {version}, known here {len(_MIGRATIONS)}); upgrade esgf-gossip"
    )
