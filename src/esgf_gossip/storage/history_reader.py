"""
What was, as questions read it: the history file from a connection of its own.

Beside ``storage.history``, which writes it, so that answers may take their time in threads.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import msgpack

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.model import CertificateRank, Order, SignedDigest, VerifiedDigest
from esgf_gossip.views.history_json import DIGEST, KINDS, WITHDRAWN

FILE_NAME: Final = "history.db"
# Facts of the file: from when on every time can be told, and before what its changes were forgotten.
BEGINS: Final = "begins_ms"
TRIMMED: Final = "trimmed_ms"
_COLUMNS: Final = "id, at_ms, host, kind, detail, payload, signature, chain, not_before_s, serial, groups"
_LAST_BY: Final = "SELECT id FROM changes WHERE at_ms <= ? ORDER BY at_ms DESC, id DESC LIMIT 1"


class HistoryError(Exception):
    """Report what is wrong with the file, where, and what to do, in one line. Nothing was half-written."""


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
            raise explained(path, error) from None

    def __enter__(self) -> HistoryReader:
        """Give the open reader."""
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def begins_ms(self) -> int:
        """Return the time from which on every question can be answered; 0 where nothing was kept yet."""
        return self._fact(BEGINS)

    def _fact(self, name: str) -> int:
        row = self._guard("SELECT value FROM facts WHERE name = ?", (name,))
        return int(row[0][0]) if row else 0

    def changes(self, wish: Wish) -> list[Kept]:
        """Return what happened, the newest first."""
        # What is older is there only because it was in force later; what came before it is forgotten.
        since_ms = max(wish.since_ms or 0, self._fact(TRIMMED)) or None
        conditions = ["kind IN (SELECT value FROM json_each(?))"]
        values: list[Any] = [json.dumps(wish.kinds)]
        for condition, value in (
            ("host = ?", wish.host or None),
            # Ids and times have one order; by id the newest first is found without looking at those that are newer.
            ("id >= (SELECT id FROM changes WHERE at_ms >= ? ORDER BY at_ms, id LIMIT 1)", since_ms),
            (f"id <= ({_LAST_BY})", wish.until_ms),
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
            rows = lines_until(self._connection, at_ms)
        except sqlite3.Error as error:
            raise explained(self._path, error) from None
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
        number, at_ms, host, kind, detail, payload, signature, chain, not_before_s, serial, groups = row
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
            raise explained(self._path, error) from None


def lines_until(connection: sqlite3.Connection, at_ms: int | None) -> list[Any]:
    """Return the row of the newest digest of each origin up to a time, of all times where it is None."""
    query, values = ("SELECT MAX(id) FROM changes", ()) if at_ms is None else (_LAST_BY, (at_ms,))
    found = connection.execute(query, values).fetchone()
    last_id = found[0] if found else None
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM changes WHERE id IN (SELECT (SELECT MAX(id) FROM changes AS one WHERE is_line"  # noqa: S608 - columns are ours
        " AND one.host = hosts.host AND id <= ?) FROM (SELECT DISTINCT host FROM changes WHERE is_line) AS hosts)"
        " ORDER BY host",
        (last_id or 0,),
    )
    return [row for row in rows if row[3] == DIGEST]


def explained(path: Path, error: Exception) -> HistoryError:
    """Return the error that says where it happened and what to do."""
    if isinstance(error, HistoryError):
        return error
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return HistoryError(f"{path}: the disk is full; free some space")
    return HistoryError(f"{path}: {error}; check the disk and the rights of the folder")
