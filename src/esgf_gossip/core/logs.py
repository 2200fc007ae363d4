"""
The logs a node holds, as states: whose, how long, verified by which digest. Leaves are on the disk.

Pure words and their judgement; what is fetched, kept and served is decided by log_fetching,
log_keeping and log_serving. Source: docs/protocol.md, "Logs"; docs/adr/0008-event-logs.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree, block_start, consistency_roots
from esgf_gossip.core.model import LogRef, RewriteEvidence, SignedDigest, VerifiedDigest

# Sizes verified lately: a peer whose line is a little older than ours is still answered.
MARKS_KEPT: Final = 8

LogKey = tuple[str, str]
"""An origin and the name of one of its logs."""


@attrs.frozen
class Log:
    """
    What a node holds of one log: the leaves from ``tree.start`` to ``tree.size``, all verified.

    ``word`` is the digest under whose root they were last verified, all of them or as its first part;
    None for the node's own. ``marks`` are the latest trees that had a signed size, oldest first.
    """

    born: int
    tree: Tree
    word: VerifiedDigest | None = attrs.field(repr=False)
    marks: tuple[Tree, ...] = attrs.field(default=(), repr=False)

    def marked(self) -> Log:
        """Return the log with its tree as the latest mark."""
        if self.marks and self.marks[-1].size == self.tree.size:
            return self
        return attrs.evolve(self, marks=(*self.marks, self.tree)[-MARKS_KEPT:])

    def tree_of(self, size: int) -> Tree | None:
        """Return the tree of a signed size, where it is the present one or a mark."""
        found = (tree for tree in (self.tree, *self.marks) if tree.size == size)
        return next(found, None)

    def without(self, start: int) -> Log:
        """Return the log without the leaves before this block; a ValueError where they do not reach so far."""
        marks = tuple(mark.without(start) for mark in self.marks if mark.size >= start >= mark.start)
        return attrs.evolve(self, tree=self.tree.without(start), marks=marks)


@attrs.frozen
class StoredLog:
    """One log as a disk gives it back; ``signed`` and ``chain`` are the digest it was verified by, None for own ones."""

    origin: str
    name: str
    born: int
    tree: Tree
    signed: SignedDigest | None
    chain: tuple[bytes, ...]


class Logs:
    """All logs of one node, its own included."""

    def __init__(self) -> None:
        self._logs: dict[LogKey, Log] = {}

    def __iter__(self) -> Iterator[LogKey]:
        return iter(list(self._logs))

    def get(self, origin: str, name: str) -> Log | None:
        """Return what is held of a log, None for nothing."""
        return self._logs.get((origin, name))

    def put(self, key: LogKey, log: Log) -> None:
        """Hold this from now on."""
        self._logs[key] = log

    def drop(self, key: LogKey) -> None:
        """Hold nothing of this log any more."""
        self._logs.pop(key, None)

    def names(self, origin: str) -> list[str]:
        """Return the names of the logs held of an origin, the longest held first."""
        return [name for owner, name in self._logs if owner == origin]


def ref_of(line: VerifiedDigest, name: str) -> LogRef | None:
    """Return what a digest says of a log, None where that is nothing this version can follow."""
    ref = line.digest.logs.get(name)
    if ref is None or ref.first_retained % BLOCK_LEAVES or ref.first_retained > ref.size:
        return None
    return ref


def answer_end(start: int, size: int) -> int:
    """Return where an answer that begins at ``start`` ends: at the size if a block reaches, else with the block."""
    return size if size - start <= BLOCK_LEAVES else block_start(start) + BLOCK_LEAVES


def contradicts(older: LogRef, newer: LogRef) -> bool:
    """Tell whether a later word on a log cannot be true beside an earlier one, whatever the leaves are."""
    if older.born != newer.born:
        return False
    return newer.size < older.size or (newer.size == older.size and newer.root != older.root)


def check_rewrite(evidence: RewriteEvidence) -> bool:
    """
    Tell whether two digests and a proof show that an origin shrank or rewrote a log.

    The signatures are the caller's to check, as is that both digests are the same origin's key. Of one birth
    a log only grows; births are epochs, so within one of them the sequence says which digest came later.
    """
    try:
        older, newer = decode_digest(evidence.older.payload), decode_digest(evidence.newer.payload)
    except WireError:
        return False
    before, after = older.logs.get(evidence.log), newer.logs.get(evidence.log)
    if before is None or after is None or before.born != after.born or older.origin != newer.origin:
        return False
    if (older.epoch, older.sequence) >= (newer.epoch, newer.sequence):
        return False
    if contradicts(before, after):
        return True
    try:
        first_root, second_root = consistency_roots(before.size, after.size, evidence.hashes)
    except ValueError:
        return False
    return second_root == after.root and first_root != before.root
