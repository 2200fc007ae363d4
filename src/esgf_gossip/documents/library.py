"""
All documents a node knows: the writings of every author, joined by name.

The same for every node that holds the same logs and the same certificates, in whatever order they came.
Source: docs/adr/0018-documents.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from esgf_gossip.documents.names import DocumentName
from esgf_gossip.documents.versions import Document
from esgf_gossip.documents.writings import Writings


class Library:
    """The documents by name; ``changed`` holds the names whose heads may have changed, until somebody takes them."""

    def __init__(self) -> None:
        self.changed: Final[set[DocumentName]] = set()
        self._writings: dict[str, Writings] = {}
        self._documents: dict[DocumentName, Document] = {}

    @property
    def names(self) -> list[DocumentName]:
        """The names of all documents, deleted ones too, sorted."""
        return sorted(self._documents)

    @property
    def authors(self) -> list[Writings]:
        """What each author wrote, by host name; those too whose every leaf is refused."""
        return [self._writings[author] for author in sorted(self._writings)]

    def get(self, name: DocumentName) -> Document | None:
        """Return a document, None where no version of it counts."""
        return self._documents.get(name)

    def writings(self, author: str) -> Writings | None:
        """Return what was read of an author's log."""
        return self._writings.get(author)

    def add(self, author: str, number: int, leaf: bytes) -> None:
        """Read the next leaf of an author that is held."""
        version = self._writings[author].add(number, leaf)
        if version is not None:
            self._documents.setdefault(version.name, Document()).add(version)
            self.changed.add(version.name)

    def put(self, writings: Writings) -> None:
        """Hold this of an author, in place of what was held of it."""
        before = self._writings.get(writings.author)
        self._writings[writings.author] = writings
        touched = {version.name for version in writings.versions.values()}
        if before is not None:
            touched |= {version.name for version in before.versions.values()}
        self._join(touched, writings.author)

    def forget(self, author: str) -> None:
        """Hold nothing of an author any more."""
        before = self._writings.pop(author, None)
        if before is not None:
            self._join({version.name for version in before.versions.values()}, author)

    def _join(self, names: Iterable[DocumentName], author: str) -> None:
        """Make documents anew of what others wrote and what is held of this author."""
        versions = {
            name: [one for one in document if one.author != author]
            for name in names
            if (document := self._documents.get(name)) is not None
        }
        held = self._writings.get(author)
        for version in () if held is None else held.versions.values():
            versions.setdefault(version.name, []).append(version)
        for name, those in versions.items():
            if those:
                self._documents[name] = Document(those)
            else:
                self._documents.pop(name, None)
            self.changed.add(name)
