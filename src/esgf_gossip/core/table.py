"""
The replicated table: one line per origin, for ever, and the root over all of them.

The line is the floor: nothing at or below it is ever accepted again. Only the
order of lines is decided here; bodies are the registry's.
Source: design of state-based CRDTs (Shapiro et al. 2011); docs/adr/0003-order-of-digests.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from esgf_gossip.core.model import Head, VerifiedDigest


class Table:
    """Keep the highest verified digest of each origin: a join semilattice, whatever the order of arrival."""

    def __init__(self) -> None:
        self._lines: dict[str, VerifiedDigest] = {}
        self._root: bytes | None = None

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, origin: str) -> bool:
        return origin in self._lines

    def __iter__(self) -> Iterator[VerifiedDigest]:
        return iter(self._lines.values())

    def line(self, origin: str) -> VerifiedDigest | None:
        """Return the line of an origin, or None."""
        return self._lines.get(origin)

    def head(self, origin: str) -> Head | None:
        """Return the short form of a line, or None."""
        line = self._lines.get(origin)
        return None if line is None else line.head

    def adopt(self, other: Table) -> None:
        """Hold the lines of another table in place of these."""
        self._lines = dict(other._lines)
        self._root = other.root

    def merge(self, line: VerifiedDigest) -> bool:
        """
        Take a line if it is above the one held; tell whether it was.

        Commutative, associative, idempotent: a maximum over a total order.
        """
        if not line.head.is_above(self.head(line.digest.origin)):
            return False
        self._lines[line.digest.origin] = line
        self._root = None
        return True

    def remove(self, origin: str) -> None:
        """Forget a line that trust no longer carries; the CRL or the bundle is its floor from now on."""
        self._lines.pop(origin, None)
        self._root = None

    def heads(self) -> list[Head]:
        """Return all heads, sorted by origin."""
        return [self._lines[origin].head for origin in sorted(self._lines)]

    @property
    def root(self) -> bytes:
        """
        The SHA-256 over all heads in the order of their origins; 32 bytes, equal for equal tables.

        Kept until a line changes; then O(N) over bytes that every line keeps.
        """
        if self._root is None:
            self._root = hashlib.sha256(b"".join([head.encoded for head in self.heads()])).digest()
        return self._root
