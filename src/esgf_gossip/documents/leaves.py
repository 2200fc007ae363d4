"""
What stands in a log of documents: pieces of bodies, and versions that refer to them.

From bytes to values and back, each field with its bound. A leaf holds 4 KiB, a body 64: a body stands in
pieces before the version that needs it. Source: docs/protocol.md, "Logs"; docs/adr/0018-documents.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import attrs

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import LEAF_BYTES
from esgf_gossip.documents.names import DocumentName, DocumentNameError, parse_name

# The name of the log in a digest.
LOG: Final = "documents"
# protocol: seventeen leaves.
BODY_BYTES: Final = 64 * 1024
# protocol: what a leaf holds beside the fields of a piece.
PIECE_BYTES: Final = LEAF_BYTES - 96
PIECES: Final = -(-BODY_BYTES // PIECE_BYTES)
# protocol: more heads than anybody reads at once are merged in two steps.
PARENTS: Final = 16

_PIECE: Final = 1
_VERSION: Final = 2
_ID_PREFIX: Final = b"esgf-gossip/document/1\0"


@attrs.frozen
class PieceLeaf:
    """A piece of the body with this SHA-256; pieces stand in order."""

    sha256: bytes
    index: int
    data: bytes = attrs.field(repr=False)


@attrs.frozen
class VersionLeaf:
    """
    One version of a document; a deletion is one without a body.

    ``parents`` are the ids of the versions it follows. ``time_ms`` is the clock of its author: shown, never judged by.
    """

    name: DocumentName
    parents: tuple[bytes, ...]
    time_ms: int
    sha256: bytes | None
    size_bytes: int


def decode_leaf(leaf: bytes) -> PieceLeaf | VersionLeaf | None:
    """
    Read one leaf; None for a kind of a later version. Fields after those known are ignored.

    Raises:
        WireError: it is none.
    """
    fields = packing.array(packing.unpack(leaf), 1, "a leaf of documents")
    kind = packing.number(fields[0])
    if kind == _PIECE:
        packing.array(fields, 4, "a piece of a body")
        return PieceLeaf(
            packing.sha256(fields[1]),
            packing.number(fields[2], PIECES - 1),
            packing.blob(fields[3], 1, PIECE_BYTES),
        )
    if kind == _VERSION:
        return _version(packing.array(fields, 6, "a version of a document"))
    return None


def _version(fields: list[object]) -> VersionLeaf:
    if type(fields[1]) is not str:
        raise WireError("the name of a document was expected")
    try:
        name = parse_name(fields[1])
    except DocumentNameError as error:
        raise WireError(str(error)) from None
    parents = packing.items(fields[2], packing.sha256, PARENTS, "parents")
    if len(set(parents)) < len(parents):
        raise WireError("a parent is named twice")
    time_ms = packing.time_ms(fields[3])
    sha256 = None if fields[4] is None else packing.sha256(fields[4])
    size_bytes = packing.number(fields[5], BODY_BYTES)
    if sha256 is None and size_bytes:
        raise WireError("a deletion has no size")
    return VersionLeaf(name, parents, time_ms, sha256, size_bytes)


def version_id(author: str, leaf: bytes) -> bytes:
    """Return the id of a version: its author and its leaf, unknown fields included, so nobody can name it before it is."""
    return hashlib.sha256(_ID_PREFIX + author.encode() + b"\0" + leaf).digest()


def encode_version(version: VersionLeaf) -> bytes:
    """Write the leaf of a version."""
    fields = [
        _VERSION,
        str(version.name),
        version.parents,
        version.time_ms,
        version.sha256,
        version.size_bytes,
    ]
    return packing.pack(fields)


def sha256_of(body: bytes) -> bytes:
    """Return the hash that names a body."""
    return hashlib.sha256(body).digest()


def encode_body(body: bytes) -> list[bytes]:
    """Write the leaves that carry a body, in order; none for an empty one."""
    sha256 = sha256_of(body)
    starts = range(0, len(body), PIECE_BYTES)
    return [
        packing.pack([_PIECE, sha256, index, body[start : start + PIECE_BYTES]])
        for index, start in enumerate(starts)
    ]


def body_of(leaves: Sequence[bytes], sha256: bytes) -> bytes | None:
    """Put a body together again; None where the leaves do not hold it."""
    pieces = []
    for leaf in leaves:
        try:
            piece = decode_leaf(leaf)
        except WireError:
            return None
        if not isinstance(piece, PieceLeaf):
            return None
        pieces.append(piece.data)
    body = b"".join(pieces)
    return body if sha256_of(body) == sha256 else None
