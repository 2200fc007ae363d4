"""
The keeper of federated metadata: follows what is held, tells what changed, keeps the files of this site's programs.

What counts is the documents room's to say, and the same on every node; users come to the desk. Source: docs/documents.md; docs/adr/0018-documents.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import attrs
from twisted.logger import Logger

from esgf_gossip.config import DocumentsTable
from esgf_gossip.core.effects import Notice
from esgf_gossip.core.node import Node
from esgf_gossip.document_desk import DocumentDesk, DocumentError, named
from esgf_gossip.document_exports import DocumentExports
from esgf_gossip.document_reader import DocumentReader, Read
from esgf_gossip.documents.library import Library
from esgf_gossip.documents.names import DocumentName
from esgf_gossip.documents.versions import Document
from esgf_gossip.net.sparing import Sparing
from esgf_gossip.views.federation import DocumentCounts
from esgf_gossip.web.events import EventHub
from esgf_gossip.web.metadata_bodies import change_body


@attrs.frozen
class _Told:
    """What was last told of a document: its heads, and under which state it is counted."""

    heads: frozenset[bytes]
    state: str

    @classmethod
    def of(cls, document: Document) -> _Told:
        state = "conflict" if document.is_conflict else "deleted" if document.is_deleted else "current"
        return cls(document.head_ids, state)


class Stage(Protocol):
    """What the daemon shows of itself, as far as documents move it."""

    events: EventHub

    def moved(self) -> None:
        """Note that something changed."""


class DocumentKeeper:
    """
    The documents of one node; ``desk`` is where they are asked for and written.

    Args:
        node: whose logs are read.
        read: reads leaves of a log from the disk.
        append: adds leaves to a log of this node; raises PublicationError, StorageError.
        stage: where changes are told.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds, for the date that a version shows.
    """

    log = Logger()

    def __init__(
        self,
        node: Node,
        read: Read,
        append: Callable[[str, Sequence[bytes]], None],
        stage: Stage,
        clock: Any,
        now_ms: Callable[[], int],
    ) -> None:
        self._stage = stage
        self._sparing = Sparing(clock, self._tell_left_out)
        self._reader = DocumentReader(node, read, self._settled, clock)
        self.desk: Final = DocumentDesk(node.name, self._reader, read, append, now_ms)
        self._exports = DocumentExports(clock)
        self._settings: DocumentsTable | None = None
        self._told: dict[DocumentName, _Told] | None = None
        self._states: dict[str, int] = {}
        self._refused_told: dict[str, int] = {}

    @property
    def library(self) -> Library:
        """All documents."""
        return self._reader.library

    @property
    def fault(self) -> str:
        """One line while an export or its hook fails, else empty."""
        return self._exports.fault

    def start(self, settings: DocumentsTable) -> None:
        """Read what the disk holds, in slices, and follow the logs from now on."""
        self._settings = settings
        self._exports.replace(settings.export, settings.hook)
        self._reader.start(frozenset(settings.projects))

    def replace(self, settings: DocumentsTable) -> bool:
        """Go on with other settings; tell whether they are others. Files that somebody changed are put right."""
        is_other, self._settings = settings != self._settings, settings
        self._exports.replace(settings.export, settings.hook)
        self._reader.want(frozenset(settings.projects))
        if self._reader.has_read:
            self._export(self._exports.names)
        return is_other

    def stop(self) -> None:
        """Follow no more; a hook that runs is ended."""
        self._reader.stop()
        self._exports.stop()
        self._sparing.stop()

    def notice(self, notice: Notice) -> None:
        """Hear a notice of the core."""
        self._reader.notice(notice)

    # ----------------------------------------------------------------- telling

    def _settled(self) -> None:
        """Tell what changed since last told; of the first time only the exports hear, for nothing happened then."""
        self._tell_refused()
        changed, is_first = sorted(self.library.changed), self._told is None
        self.library.changed.clear()
        if self._told is None:
            self._told = {}
        for name in changed:
            document = self.library.get(name)
            before, now = self._told.get(name), None if document is None else _Told.of(document)
            if now == before:
                continue
            self._note(name, before, now)
            if not is_first:
                self._stage.events.publish("document-changed", change_body(name, document))
                is_conflict = document is not None and document.is_conflict
                if document is not None and is_conflict and self._sparing.allows("conflicts of documents"):
                    self.log.warn(
                        "document {name} is in conflict: {heads}", name=str(name), heads=named(document)
                    )
        self._export(self._exports.names if is_first else changed)
        if changed or is_first:
            self._stage.moved()

    def _note(self, name: DocumentName, before: _Told | None, now: _Told | None) -> None:
        assert self._told is not None
        if before is not None:
            self._states[before.state] -= 1
        if now is not None:
            self._states[now.state] = self._states.get(now.state, 0) + 1
            self._told[name] = now
        else:
            self._told.pop(name, None)

    def _tell_refused(self) -> None:
        for writings in self.library.authors:
            is_new = writings.refused_count > self._refused_told.get(writings.author, 0)
            if is_new and self._sparing.allows(f"documents of {writings.author}"):
                latest = writings.refusals[-1]
                self.log.warn(
                    "{author}: {count} leaves of documents do not count; the latest, {document}: {reason}",
                    author=writings.author,
                    count=writings.refused_count,
                    document=latest.document or "unreadable",
                    reason=latest.reason,
                )
            self._refused_told[writings.author] = writings.refused_count

    def _tell_left_out(self, subject: str, count: int) -> None:
        self.log.warn("{count} more lines on {subject} within a minute", count=count, subject=subject)

    def _export(self, names: Sequence[DocumentName]) -> None:
        for name in names:
            document = self.library.get(name)
            if document is None or not self._exports.is_wanted(name):
                continue  # not known yet is no reason to take a file away
            shown = next((head for head in document.heads if not head.is_deletion), None)
            if shown is None:
                self._exports.remove(name, document.heads[0].id)
                continue
            try:
                self._exports.write(name, shown.id, self.desk.body(shown))
            except DocumentError as error:
                self._exports.fail(name, str(error))

    def counts(self) -> DocumentCounts:
        """Return the numbers of the documents."""
        authors = self.library.authors
        return DocumentCounts(
            **self._states,
            versions=sum(len(one.versions) for one in authors),
            refused=sum(one.refused_count for one in authors),
        )
