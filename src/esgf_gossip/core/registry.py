"""
The registry: the table and the bodies its lines refer to.

Takes only VerifiedDigest. A line is held whole or not at all, but for expired
ones, whose bodies nobody keeps. No peers, no clock, no signatures here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from esgf_gossip.core.forks import ForkTable
from esgf_gossip.core.model import Digest, EntryRef, Head, VerifiedDigest
from esgf_gossip.core.table import Table
from esgf_gossip.core.trust_lines import TrustTable


def sha256(body: bytes) -> bytes:
    """Return the content address of a body."""
    return hashlib.sha256(body).digest()


def changed_entries(before: Mapping[str, EntryRef], after: Mapping[str, EntryRef]) -> frozenset[str]:
    """Name the entries that are not the same in two digests of one origin, by their content."""
    return frozenset(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or before[name].sha256 != after[name].sha256
    )


@attrs.frozen
class Change:
    """What accepting a line changed: entry names, bodies that came in, hashes nobody refers to any more."""

    line: VerifiedDigest
    changed: frozenset[str]
    added: Mapping[bytes, bytes] = attrs.field(repr=False)
    dropped: frozenset[bytes]


class Registry:
    """Everything one node holds of the federation."""

    def __init__(self) -> None:
        self.table = Table()
        self.forks = ForkTable()
        self.trust = TrustTable()
        self._bodies: dict[bytes, bytes] = {}
        self._references: Counter[bytes] = Counter()
        self._moved: set[str] = set()

    def take_moved(self) -> list[str]:
        """Return the origins whose lines moved since last asked, sorted."""
        moved, self._moved = self._moved, set()
        return sorted(moved)

    def adopt(self, other: Registry) -> None:
        """Hold what another registry holds in place of what is held here: thousands start in step by it."""
        self.table.adopt(other.table)
        self.trust.adopt(other.trust)
        self._bodies = dict(other._bodies)
        self._references = other._references.copy()

    def body(self, content_hash: bytes) -> bytes | None:
        """Return the body of that SHA-256, or None."""
        return self._bodies.get(content_hash)

    def bodies_of(self, digest: Digest) -> dict[bytes, bytes]:
        """Return the bodies a digest refers to, those held, by SHA-256."""
        refs = (ref.sha256 for ref in digest.entries.values())
        return {content: self._bodies[content] for content in refs if content in self._bodies}

    def entry(self, origin: str, name: str) -> bytes | None:
        """Return the body of an origin's entry, or None."""
        line = self.table.line(origin)
        ref = None if line is None else line.digest.entries.get(name)
        return None if ref is None else self._bodies.get(ref.sha256)

    def missing(self, digest: Digest, at_hand: Iterable[bytes] = ()) -> list[bytes]:
        """Return the hashes a digest refers to that are neither held nor at hand, each once, in a stable order."""
        have = set(at_hand)
        wanted = dict.fromkeys(ref.sha256 for _, ref in sorted(digest.entries.items()))
        return [content for content in wanted if content not in have and content not in self._bodies]

    def misstated(self, digest: Digest, at_hand: Mapping[bytes, bytes]) -> str:
        """
        Return the name of an entry whose body, held or at hand, has not the size the digest states; else "".

        Sizes bound what every relay has to send for an origin, so a digest that understates them is none.
        """
        for name, ref in sorted(digest.entries.items()):
            body = at_hand.get(ref.sha256, self._bodies.get(ref.sha256))
            if body is not None and len(body) != ref.size_bytes:
                return name
        return ""

    def accept(self, line: VerifiedDigest, bodies: Mapping[bytes, bytes]) -> Change | None:
        """
        Take a line with the bodies that were missing, or return None where the line held is not below it.

        Args:
            line: verified by a Verifier.
            bodies: by SHA-256, already checked against it; those the digest does not name are left out.
        """
        before = self.table.line(line.digest.origin)
        if not self.table.merge(line):
            return None
        self._moved.add(line.digest.origin)
        new_refs = line.digest.entries
        old_refs = {} if before is None else before.digest.entries
        named = {ref.sha256 for ref in new_refs.values()}
        added = {
            content: bodies[content] for content in named if content in bodies and content not in self._bodies
        }
        self._bodies.update(added)
        self._references.update(ref.sha256 for ref in new_refs.values())
        dropped = self._release(ref.sha256 for ref in old_refs.values())
        return Change(line, changed_entries(old_refs, new_refs), added, dropped)

    def withdraw(self, origin: str) -> frozenset[bytes]:
        """Forget a line that trust no longer carries; return the hashes nobody refers to any more."""
        line = self.table.line(origin)
        if line is None:
            return frozenset()
        self.table.remove(origin)
        self._moved.add(origin)
        return self._release(ref.sha256 for ref in line.digest.entries.values())

    def _release(self, hashes: Iterable[bytes]) -> frozenset[bytes]:
        dropped = set()
        for content in hashes:
            self._references[content] -= 1
            if self._references[content] <= 0:
                del self._references[content]
                if self._bodies.pop(content, None) is not None:
                    dropped.add(content)
        return frozenset(dropped)

    def heads_above(self, seen: Mapping[str, Head]) -> list[Head]:
        """Return our heads that are above those a peer has shown, sorted by origin."""
        return [head for head in self.table.heads() if head.is_above(seen.get(head.origin))]
