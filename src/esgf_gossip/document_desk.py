"""
The desk for documents: hands them out, and writes what this node's users say.

What counts is the documents room's to say; here are the conditions of a reader and of a writer, and what is said when they do
not hold. Source: docs/documents.md; docs/adr/0018-documents.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from esgf_gossip.core.limits import LEAF_BYTES
from esgf_gossip.core.publication import PublicationError
from esgf_gossip.document_reader import DocumentReader, Read
from esgf_gossip.documents.leaves import (
    BODY_BYTES,
    LOG,
    PARENTS,
    PIECES,
    VersionLeaf,
    body_of,
    encode_body,
    encode_version,
    sha256_of,
)
from esgf_gossip.documents.library import Library
from esgf_gossip.documents.names import DocumentName, writer_role
from esgf_gossip.documents.versions import Document, Version
from esgf_gossip.documents.writings import VERSIONS_OF_AUTHOR
from esgf_gossip.storage.database import StorageError

# Of a version, where a person names one: enough to mean one, as git has it.
PREFIX_CHARACTERS: Final = 8
# What an --if-match says where the document must not exist yet.
NONE: Final = "none"

_PREFIX: Final = re.compile(rf"[0-9a-f]{{{PREFIX_CHARACTERS},64}}")
# Heads named in an error; a line must stay one.
HEADS_NAMED: Final = 4


MISSING: Final = 404
CONFLICT: Final = 409
_WRONG: Final = 400
_FORBIDDEN: Final = 403
FAULTY: Final = 503


class DocumentError(Exception):
    """Refuse something about a document: what, and what to do, in one line. ``status``: what HTTP says of it."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status: Final = status


@attrs.frozen
class Written:
    """What a put or delete came to; ``is_new`` is False where the document said that already."""

    version: Version
    document: Document
    is_new: bool


class DocumentDesk:
    """
    Where the documents of one node are asked for and written.

    Args:
        host: this node.
        reader: of all documents.
        read: reads leaves of a log from the disk.
        append: adds leaves to a log of this node; raises PublicationError, StorageError.
        now_ms: Unix milliseconds, for the date that a version shows.
    """

    def __init__(
        self,
        host: str,
        reader: DocumentReader,
        read: Read,
        append: Callable[[str, Sequence[bytes]], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._host = host
        self._reader = reader
        self._read = read
        self._append = append
        self._now_ms = now_ms

    @property
    def library(self) -> Library:
        """All documents."""
        return self._reader.library

    # ----------------------------------------------------------------- reading

    def body(self, version: Version) -> bytes:
        """
        Return the body of a version, read from the disk and checked.

        Raises:
            DocumentError: it is a deletion, or the disk does not give it.
        """
        body = version.body
        if body is None:
            raise DocumentError(
                f"version {short(version)} of {version.name} is a deletion: it has no body", MISSING
            )
        leaves: list[bytes] = []
        try:
            if body.leaves and body.leaves[-1] - body.leaves[0] == len(body.leaves) - 1:
                leaves = self._read(
                    version.author, LOG, body.leaves[0], body.leaves[-1] + 1, PIECES * LEAF_BYTES
                )
            else:
                for number in body.leaves:
                    leaves += self._read(version.author, LOG, number, number + 1, LEAF_BYTES)
        except StorageError as error:
            raise DocumentError(str(error), FAULTY) from None
        content = body_of(leaves, body.sha256)
        if content is None:
            raise DocumentError(
                f"the disk of this node does not hold version {short(version)} of {version.name} rightly; ask another node",
                FAULTY,
            )
        return content

    def document(self, name: DocumentName) -> Document:
        """
        Return a document.

        Raises:
            DocumentError: no version of it counts here.
        """
        document = self.library.get(name)
        if document is None:
            why = (
                ""
                if self._is_wanted(name)
                else f"; [documents] projects of this node leaves {name.project} out"
            )
            raise DocumentError(f"there is no document {name}{why}", MISSING)
        return document

    def find(self, name: DocumentName, version: str = "") -> Version:
        """
        Return a version by the beginning of its id; by default the only head.

        Raises:
            DocumentError: none, or more than one, is meant.
        """
        document = self.document(name)
        if not version:
            if document.is_conflict:
                raise DocumentError(
                    f"{name} is in conflict: {named(document)}; ask for one of them by its version", CONFLICT
                )
            return document.heads[0]
        if not _PREFIX.fullmatch(version):
            raise DocumentError(
                f"{version[:70]!r} is no version: write at least {PREFIX_CHARACTERS} hexadecimal digits of its id",
                _WRONG,
            )
        found = document.find(version)
        if len(found) != 1:
            many = "more than one version" if found else "no version"
            raise DocumentError(
                f"{many} of {name} begins with {version}; esgf-gossip doc history {name} lists all",
                _WRONG if found else MISSING,
            )
        return found[0]

    def _is_wanted(self, name: DocumentName) -> bool:
        return not self._reader.projects or name.project in self._reader.projects

    # ----------------------------------------------------------------- writing

    def put(
        self, name: DocumentName, body: bytes | None, if_match: str = "", *, merge: bool = False
    ) -> Written:
        """
        Write a new version of a document over its head, or with ``merge`` over all its heads; no body: delete it.

        Args:
            name: of the document; it may be new.
            body: at most BODY_BYTES.
            if_match: the version that must be the head (of several: one of them), or "none": there must be no document.
            merge: a conflict is meant to end by this version.

        Raises:
            DocumentError: refused; nothing was written.
        """
        if body is not None and len(body) > BODY_BYTES:
            raise DocumentError(
                f"{name} would have {len(body)} bytes; a document has at most {BODY_BYTES}", _WRONG
            )
        self._check_may_write(name)
        document = self.library.get(name)
        self._check_match(name, document, if_match)
        if body is None and (document is None or (document.is_deleted and not document.is_conflict)):
            raise DocumentError(f"there is no document {name} to delete", MISSING)
        heads = () if document is None else document.heads
        if document is not None and document.is_conflict and not merge:
            raise DocumentError(
                f"{name} is in conflict: {named(document)}; read them, then put the version that shall follow "
                "all of them with --merge",
                CONFLICT,
            )
        if document is not None and body is not None and len(heads) == 1:
            held = heads[0].body
            if held is not None and held.sha256 == sha256_of(body):
                return Written(heads[0], document, is_new=False)
        version = self._write(name, body, tuple(head.id for head in heads[:PARENTS]))
        return Written(version, self.document(name), is_new=True)

    def _check_may_write(self, name: DocumentName) -> None:
        if not self._is_wanted(name):
            raise DocumentError(
                f"[documents] projects of this node leaves {name.project} out, so it cannot know what it would write over",
                _FORBIDDEN,
            )
        role = writer_role(name.project)
        if role not in self._reader.roles(self._host):
            raise DocumentError(
                f"the certificate of this node has not the role {role}, so no node would take its version; ask for "
                f"it with trust-admin cert request --same-key --role {role}",
                _FORBIDDEN,
            )
        if not self._reader.has_read or not self._reader.catch_up(self._host):
            raise DocumentError(
                "the documents are still being read from the disk; try again in a moment", FAULTY
            )
        own = self.library.writings(self._host)
        if own is not None and len(own.versions) >= VERSIONS_OF_AUTHOR:
            raise DocumentError(
                f"this node has written {VERSIONS_OF_AUTHOR} versions, and others take no more of it; write on another node",
                _FORBIDDEN,
            )

    def _check_match(self, name: DocumentName, document: Document | None, if_match: str) -> None:
        if not if_match:
            return
        if if_match == NONE:
            if document is not None and not document.is_deleted:
                raise DocumentError(f"{name} is there already: {named(document)}", CONFLICT)
            return
        if document is None:
            raise DocumentError(
                f"there is no document {name}, so version {if_match[:70]} is not its newest", MISSING
            )
        wanted = self.find(name, if_match)
        if wanted.id not in document.head_ids:
            raise DocumentError(
                f"{name} has changed since version {short(wanted)}: {named(document)}; read it again",
                CONFLICT,
            )

    def _write(self, name: DocumentName, body: bytes | None, parents: tuple[bytes, ...]) -> Version:
        sha256 = None if body is None else sha256_of(body)
        said = VersionLeaf(name, parents, self._now_ms(), sha256, 0 if body is None else len(body))
        own = self.library.writings(self._host)
        is_held = own is not None and sha256 is not None and own.body_of(sha256) is not None
        pieces = [] if body is None or is_held else encode_body(body)
        try:
            self._append(LOG, [*pieces, encode_version(said)])
        except (PublicationError, StorageError) as error:
            raise DocumentError(f"{name} could not be written: {error}", FAULTY) from None
        self._reader.catch_up(self._host)
        written = self.library.writings(self._host)
        newest = None if written is None else next(reversed(written.versions.values()), None)
        if newest is None or (newest.name, newest.parents) != (name, parents):
            raise DocumentError(
                f"{name} was written, but the disk does not give it back; see the log of the daemon", FAULTY
            )
        return newest


def short(version: Version) -> str:
    """Return the beginning of a version's id, as people name it."""
    return version.id.hex()[:12]


def named(document: Document) -> str:
    """Return the heads of a document for one line: version and author."""
    heads = document.heads
    told = [f"{short(head)} of {head.author}" for head in heads[:HEADS_NAMED]]
    more = [f"{len(heads) - HEADS_NAMED} more"] if len(heads) > HEADS_NAMED else []
    return ", ".join([*told, *more])
