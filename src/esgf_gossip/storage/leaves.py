"""
Event logs on disk: one row a log with its tree, one row a leaf.

Rows and bytes only, within the transactions of ``database``. What is dropped is deleted in slices, so that
the end of a long log does not hold up the node.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgpack

from esgf_gossip.core.log_effects import DropLeaves, PersistLeaves
from esgf_gossip.core.logs import StoredLog
from esgf_gossip.core.merkle import Tree
from esgf_gossip.core.model import SignedDigest

SCHEMA: Final = """
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT NOT NULL, name TEXT NOT NULL, born INTEGER NOT NULL,
        start INTEGER NOT NULL, size INTEGER NOT NULL, hashes BLOB NOT NULL,
        payload BLOB, signature BLOB, chain BLOB, UNIQUE (origin, name)
    ) STRICT;
    CREATE TABLE leaves (
        log INTEGER NOT NULL, number INTEGER NOT NULL, leaf BLOB NOT NULL, PRIMARY KEY (log, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE doomed (log INTEGER NOT NULL, below INTEGER NOT NULL) STRICT;
    """

# Rows deleted with one transaction: some milliseconds.
SLICE_LEAVES: Final = 4096
_ALL: Final = 2**63 - 1


class LeafStore:
    """The leaves in an open database; sqlite3.Error is the caller's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def load(self) -> tuple[StoredLog, ...]:
        """Return the state of every log; raises ValueError for what was never written."""
        rows = self._connection.execute(
            "SELECT origin, name, born, start, size, hashes, payload, signature, chain FROM logs ORDER BY id"
        )
        return tuple(
            StoredLog(
                origin,
                name,
                born,
                _tree(start, size, hashes),
                None if payload is None else SignedDigest(payload, signature),
                () if chain is None else tuple(msgpack.unpackb(chain)),
            )
            for origin, name, born, start, size, hashes, payload, signature, chain in rows.fetchall()
        )

    def read(self, origin: str, name: str, start: int, end: int, most_bytes: int) -> list[bytes]:
        """Return leaves from ``start`` on without a gap, to ``end`` or until they have so many bytes."""
        rows = self._connection.execute(
            "SELECT number, leaf FROM leaves WHERE log = (SELECT id FROM logs WHERE origin = ? AND name = ?) "
            "AND number >= ? AND number < ? ORDER BY number",
            (origin, name, start, end),
        )
        leaves: list[bytes] = []
        size_bytes = 0
        for number, leaf in rows:
            if number != start + len(leaves) or size_bytes >= most_bytes:
                break
            leaves.append(leaf)
            size_bytes += len(leaf)
        rows.close()
        return leaves

    def write(self, effect: PersistLeaves | DropLeaves) -> None:
        """Carry out one effect within the transaction that is open."""
        if isinstance(effect, DropLeaves):
            self._drop(effect.origin, effect.log)
            return
        if effect.is_anew:
            self._drop(effect.origin, effect.log)
        log = self._put_state(effect)
        self._connection.executemany(
            "INSERT OR REPLACE INTO leaves VALUES (?, ?, ?)",
            ((log, number, leaf) for number, leaf in enumerate(effect.leaves, start=effect.first)),
        )

    def _put_state(self, effect: PersistLeaves) -> int:
        tree, word = effect.state.tree, effect.state.word
        before = self._connection.execute(
            "SELECT id, start FROM logs WHERE origin = ? AND name = ?", (effect.origin, effect.log)
        ).fetchone()
        if before is not None and before[1] < tree.start:
            self._connection.execute("INSERT INTO doomed VALUES (?, ?)", (before[0], tree.start))
        hashes = msgpack.packb([b"".join(part) for part in (tree.left, tree.blocks, tree.frontier)])
        row = (
            effect.state.born,
            tree.start,
            tree.size,
            hashes,
            None if word is None else word.signed.payload,
            None if word is None else word.signed.signature,
            None if word is None else msgpack.packb(word.chain),
        )
        if before is not None:
            self._connection.execute(
                "UPDATE logs SET born = ?, start = ?, size = ?, hashes = ?, payload = ?, signature = ?, chain = ? "
                "WHERE id = ?",
                (*row, before[0]),
            )
            return int(before[0])
        cursor = self._connection.execute(
            "INSERT INTO logs (born, start, size, hashes, payload, signature, chain, origin, name) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, effect.origin, effect.log),
        )
        return int(cursor.lastrowid or 0)

    def _drop(self, origin: str, name: str) -> None:
        self._connection.execute(
            "INSERT INTO doomed SELECT id, ? FROM logs WHERE origin = ? AND name = ?", (_ALL, origin, name)
        )
        self._connection.execute("DELETE FROM logs WHERE origin = ? AND name = ?", (origin, name))

    def sweep(self) -> None:
        """Delete a slice of what was dropped, within the transaction that is open."""
        doomed = self._connection.execute("SELECT rowid, log, below FROM doomed LIMIT 1").fetchone()
        if doomed is None:
            return
        row, log, below = doomed
        further = self._connection.execute(
            "SELECT number FROM leaves WHERE log = ? AND number < ? ORDER BY number LIMIT 1 OFFSET ?",
            (log, below, SLICE_LEAVES),
        ).fetchone()
        if further is None:
            self._connection.execute("DELETE FROM doomed WHERE rowid = ?", (row,))
        else:
            below = further[0]
        self._connection.execute("DELETE FROM leaves WHERE log = ? AND number < ?", (log, below))


def _tree(start: int, size: int, hashes: bytes) -> Tree:
    left, blocks, frontier = (
        tuple(part[at : at + 32] for at in range(0, len(part), 32)) for part in msgpack.unpackb(hashes)
    )
    if len(frontier) != size.bit_count() or len(left) != start.bit_count():
        raise ValueError("the hashes of a log do not fit its size")
    return Tree(start, left, blocks, size, frontier)
