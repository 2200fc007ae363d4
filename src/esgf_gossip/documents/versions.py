"""
The versions of one document: which are its heads, in which order, and what came before.

A function of the set of versions: the order in which they came, their dates and who asks play no part. A version
counts at once, whether or not its parents have come; one that is named as a parent is no head, even before it
comes. Source: docs/adr/0018-documents.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from esgf_gossip.documents.names import DocumentName


@attrs.frozen
class Body:
    """Where the body of a version is: the numbers of the leaves of its author's log that hold it, in order."""

    sha256: bytes
    size_bytes: int
    leaves: tuple[int, ...] = attrs.field(repr=False)


@attrs.frozen
class Version:
    """One version that counts; ``body`` is None for a deletion."""

    id: bytes
    name: DocumentName
    author: str
    time_ms: int
    parents: tuple[bytes, ...]
    body: Body | None

    @property
    def is_deletion(self) -> bool:
        """Tell whether this version says that the document is no more."""
        return self.body is None


class Document:
    """
    All versions of one document.

    Versions name their parents by hash, so no version can name one that names it: there are no circles, and the
    generation, 1 + the highest of the parents held, is counted here and stands in no leaf: nobody can lie about it.
    """

    def __init__(self, versions: Iterable[Version] = ()) -> None:
        self._versions: dict[bytes, Version] = {}
        self._named: set[bytes] = set()
        self._heads: set[bytes] = set()
        # None while a version that came after its children moves them: counted again when asked for.
        self._generations: dict[bytes, int] | None = {}
        for version in versions:
            self.add(version)

    def __len__(self) -> int:
        return len(self._versions)

    def __iter__(self) -> Iterator[Version]:
        return iter(self._versions.values())

    def add(self, version: Version) -> None:
        """Take a version in; one that is held already changes nothing."""
        if version.id in self._versions:
            return
        self._versions[version.id] = version
        if version.id in self._named:
            self._generations = None
        else:
            self._heads.add(version.id)
        for parent in version.parents:
            self._named.add(parent)
            self._heads.discard(parent)
        if self._generations is not None:
            known = (self._generations.get(parent, 0) for parent in version.parents)
            self._generations[version.id] = 1 + max(known, default=0)

    @property
    def heads(self) -> tuple[Version, ...]:
        """The versions that no other follows, the highest generation first, then the smallest id."""
        if len(self._heads) == 1:
            return tuple(self._versions[one] for one in self._heads)
        return self._sorted(self._heads)

    @property
    def head_ids(self) -> frozenset[bytes]:
        """The ids of the heads, in no order."""
        return frozenset(self._heads)

    @property
    def is_conflict(self) -> bool:
        """Tell whether there is more than one head: writers that did not know of each other."""
        return len(self._heads) > 1

    @property
    def is_deleted(self) -> bool:
        """Tell whether all heads are deletions."""
        return all(self._versions[head].is_deletion for head in self._heads)

    @property
    def history(self) -> tuple[Version, ...]:
        """All versions, the newest generation first."""
        return self._sorted(self._versions)

    def generation(self, version: Version) -> int:
        """Return 1 + the highest generation of the parents held, 1 where none is."""
        return self._counted()[version.id]

    def missing_parents(self, version: Version) -> tuple[bytes, ...]:
        """Return the parents that are not held: not here yet, or of a writer who may not write."""
        return tuple(parent for parent in version.parents if parent not in self._versions)

    def find(self, prefix: str) -> list[Version]:
        """Return the versions whose id begins so, in hexadecimal."""
        return [version for key, version in self._versions.items() if key.hex().startswith(prefix)]

    def _sorted(self, keys: Iterable[bytes]) -> tuple[Version, ...]:
        generations = self._counted()
        return tuple(self._versions[key] for key in sorted(keys, key=lambda key: (-generations[key], key)))

    def _counted(self) -> dict[bytes, int]:
        if self._generations is None:
            self._generations = _generations(self._versions)
        return self._generations


def _generations(versions: dict[bytes, Version]) -> dict[bytes, int]:
    """Count from versions without parents here up; without recursion, for a chain may be as long as a log."""
    children: dict[bytes, list[bytes]] = {}
    waits: dict[bytes, int] = {}
    for key, version in versions.items():
        held = [parent for parent in version.parents if parent in versions]
        waits[key] = len(held)
        for parent in held:
            children.setdefault(parent, []).append(key)
    ready = [key for key, count in waits.items() if count == 0]
    generations = dict.fromkeys(versions, 1)
    while ready:
        key = ready.pop()
        for child in children.get(key, ()):
            generations[child] = max(generations[child], generations[key] + 1)
            waits[child] -= 1
            if waits[child] == 0:
                ready.append(child)
    return generations
