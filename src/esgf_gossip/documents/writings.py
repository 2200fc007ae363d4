"""
What one author wrote: the leaves of its log, read in order, and which of them count.

A function of the leaves, of the author's roles and of the projects wanted, so every node that holds the same comes
to the same. Bodies are checked as their pieces go by and are not kept. Source: docs/adr/0018-documents.md.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from typing import Any, Final

import attrs

from esgf_gossip.core.errors import WireError
from esgf_gossip.documents.leaves import BODY_BYTES, PieceLeaf, VersionLeaf, decode_leaf, version_id
from esgf_gossip.documents.names import writer_role
from esgf_gossip.documents.versions import Body, Version

# protocol: versions of one author that count, the first of its log; 1 kB of memory each.
VERSIONS_OF_AUTHOR: Final = 50_000
# protocol: bodies of which some pieces have come and no version yet; an honest author has one open at a time.
OPEN_BODIES: Final = 64
# Refusals that can be shown, the latest; all are counted.
REFUSALS_KEPT: Final = 64

_EMPTY: Final = hashlib.sha256(b"").digest()


@attrs.frozen
class Refusal:
    """A leaf that does not count: its number in the log, the document it names (empty: none), why."""

    leaf: int
    document: str
    reason: str


@attrs.define
class _OpenBody:
    """A body whose pieces go by."""

    hash: Any = attrs.field(factory=hashlib.sha256)
    size_bytes: int = 0
    leaves: tuple[int, ...] = ()


class Writings:
    """
    The log of one author as far as it was read.

    Args:
        author: the origin of the log.
        roles: those of its certificate; without one for any project nothing counts.
        projects: those wanted; empty: all. What is of another is passed over.
    """

    def __init__(self, author: str, roles: frozenset[str], projects: frozenset[str] = frozenset()) -> None:
        self.author: Final = author
        self.roles: Final = roles
        self.projects: Final = projects
        self.versions: Final[dict[bytes, Version]] = {}
        self.refusals: Final[deque[Refusal]] = deque(maxlen=REFUSALS_KEPT)
        self.refused_count = 0
        self._bodies: dict[bytes, Body] = {_EMPTY: Body(_EMPTY, 0, ())}
        self._open: OrderedDict[bytes, _OpenBody] = OrderedDict()

    def add(self, number: int, leaf: bytes) -> Version | None:
        """Read the next leaf; return the version it brought, None where none counts by it."""
        try:
            said = decode_leaf(leaf)
        except WireError as error:
            self._refuse(number, "", f"it cannot be read: {error}")
            return None
        if isinstance(said, PieceLeaf):
            self._piece(number, said)
            return None
        if said is None or (self.projects and said.name.project not in self.projects):
            return None
        return self._version(number, said, version_id(self.author, leaf))

    def body_of(self, sha256: bytes) -> Body | None:
        """Return where this author's log holds a body whole, None where no version has used it."""
        return self._bodies.get(sha256)

    def _piece(self, number: int, piece: PieceLeaf) -> None:
        if piece.sha256 in self._bodies:
            return
        if piece.index == 0:
            self._open[piece.sha256] = _OpenBody()
            self._open.move_to_end(piece.sha256)
            if len(self._open) > OPEN_BODIES:
                self._open.popitem(last=False)
        body = self._open.get(piece.sha256)
        if body is None:
            return
        if piece.index != len(body.leaves) or body.size_bytes + len(piece.data) > BODY_BYTES:
            del self._open[piece.sha256]
            return
        body.hash.update(piece.data)
        body.size_bytes += len(piece.data)
        body.leaves += (number,)

    def _version(self, number: int, said: VersionLeaf, key: bytes) -> Version | None:
        if key in self.versions:
            return None  # given back twice by peers, after a disk was lost
        name, role = str(said.name), writer_role(said.name.project)
        if role not in self.roles:
            self._refuse(number, name, f"the certificate of {self.author} has not the role {role}")
            return None
        if len(self.versions) >= VERSIONS_OF_AUTHOR:
            self._refuse(number, name, f"{self.author} has written {VERSIONS_OF_AUTHOR} versions already")
            return None
        body = None
        if said.sha256 is not None:
            body = self._whole(said.sha256, said.size_bytes)
            if body is None:
                self._refuse(number, name, "its body does not stand before it")
                return None
        version = Version(key, said.name, self.author, said.time_ms, said.parents, body)
        self.versions[key] = version
        return version

    def _whole(self, sha256: bytes, size_bytes: int) -> Body | None:
        known = self._bodies.get(sha256)
        if known is not None:
            return known if known.size_bytes == size_bytes else None
        body = self._open.pop(sha256, None)
        if body is None or body.size_bytes != size_bytes or body.hash.digest() != sha256:
            return None
        self._bodies[sha256] = Body(sha256, body.size_bytes, body.leaves)
        return self._bodies[sha256]

    def _refuse(self, number: int, document: str, reason: str) -> None:
        self.refused_count += 1
        self.refusals.append(Refusal(number, document, reason))
