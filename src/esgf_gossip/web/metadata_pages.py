"""
The HTTP pages of metadata documents, for programs: the list, one document, its history, its content, what is refused.

What a document is, the desk knows; here are the questions of a client and the forms of the answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from twisted.web.http import Request
from twisted.web.resource import IResource

from esgf_gossip.document_desk import DocumentDesk, DocumentError
from esgf_gossip.documents.names import DocumentName, is_part
from esgf_gossip.documents.versions import Version
from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.metadata_bodies import document_body, history_body, refused_body, summary_body
from esgf_gossip.web.past_pages import fields_of, json_document
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.questions import (
    OF_PAGES,
    VERSIONS_MOST,
    VERSIONS_USUAL,
    Part,
    QuestionError,
    number,
    refuse_blank,
    refuse_unknown,
)
from esgf_gossip.web.resources import MISSING, Page, send_document

OF_DOCUMENTS: Final = ("project", "application", *OF_PAGES)
# Of one answer; Link names the next part.
DOCUMENTS_MOST: Final = 1000
# Never shown by a browser as a page: anybody who may write a document could put a script into one.
CONTENT_TYPE: Final = "application/octet-stream"


class MetadataPage(Page, ABC):
    """A page that answers from the desk; what either refuses becomes a problem."""

    known: tuple[str, ...] = ()

    def __init__(self, desk: DocumentDesk) -> None:
        super().__init__()
        self._desk = desk

    def answer(self, request: Request) -> Any:
        """
        Answer the question.

        Raises:
            Refused: 400, a parameter or a value is not known; and whatever the desk refuses.
        """
        fields = fields_of(request)
        try:
            refuse_blank(fields)
            refuse_unknown(fields, self.known)
            return send_document(request, self.asked(request, fields))
        except (QuestionError, DocumentError) as error:
            raise Refused(Problem(error.status, str(error))) from None

    @abstractmethod
    def asked(self, request: Request, fields: Mapping[str, str]) -> KeptDocument:
        """Answer what was read of the request."""


class DocumentsPage(MetadataPage):
    """``/api/v1/documents``: all, or those of a project or an application; below it one page per document."""

    known = OF_DOCUMENTS

    def __init__(self, desk: DocumentDesk) -> None:
        super().__init__(desk)
        self.putChild(b"refused", RefusedPage(desk))

    def asked(self, request: Request, fields: Mapping[str, str]) -> KeptDocument:
        """Send the documents with their heads, without content."""
        asked = Part.read(fields)
        part = Part(asked.offset, min(asked.limit or DOCUMENTS_MOST, DOCUMENTS_MOST))
        library = self._desk.library
        names = [
            name
            for name in library.names
            if fields.get("project") in (None, name.project)
            and fields.get("application") in (None, name.application)
        ]
        offset = part.next_offset(names)
        if offset is not None:
            query = urlencode({**fields, "offset": str(offset)})
            request.setHeader("Link", f'</api/v1/documents?{query}>; rel="next"')
        found = ((name, library.get(name)) for name in part.of(names))
        return json_document(
            [summary_body(name, document) for name, document in found if document is not None]
        )

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Find a project."""
        return _Folder(self._desk, (_text(path),)) if path else self


class _Folder(Page):
    """A project, or an application of one: no page of its own, documents below it."""

    def __init__(self, desk: DocumentDesk, parts: tuple[str, ...]) -> None:
        super().__init__()
        self._desk = desk
        self._parts = parts

    def answer(self, request: Request) -> Any:  # noqa: ARG002 - as all pages
        """Refuse: what is asked for here is a list."""
        query = urlencode(dict(zip(("project", "application"), self._parts, strict=False)))
        raise Refused(
            Problem(404, f"no document of that name; /api/v1/documents?{query} lists what there is")
        )

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Find an application, or a document."""
        parts = (*self._parts, _text(path))
        if not all(map(is_part, parts)):
            return MISSING
        return (
            _Folder(self._desk, parts) if len(parts) < 3 else DocumentPage(self._desk, DocumentName(*parts))
        )


class DocumentPage(MetadataPage):
    """``/api/v1/documents/<project>/<application>/<name>``: its heads with their content; a conflict has several."""

    def __init__(self, desk: DocumentDesk, name: DocumentName) -> None:
        super().__init__(desk)
        self._name = name
        self.putChild(b"history", VersionsPage(desk, name))
        self.putChild(b"content", ContentPage(desk, name))

    def asked(self, request: Request, fields: Mapping[str, str]) -> KeptDocument:  # noqa: ARG002 - as all pages
        """Send the document."""
        return json_document(whole_body(self._desk, self._name))


class VersionsPage(MetadataPage):
    """``.../history``: the versions, the newest generation first."""

    known = ("limit",)

    def __init__(self, desk: DocumentDesk, name: DocumentName) -> None:
        super().__init__(desk)
        self._name = name

    def asked(self, request: Request, fields: Mapping[str, str]) -> KeptDocument:  # noqa: ARG002 - as all pages
        """Send the history."""
        return json_document(versions_body(self._desk, self._name, fields))


class ContentPage(MetadataPage):
    """``.../content``: the bytes of the only head, or of a version."""

    known = ("version",)

    def __init__(self, desk: DocumentDesk, name: DocumentName) -> None:
        super().__init__(desk)
        self._name = name

    def asked(self, request: Request, fields: Mapping[str, str]) -> KeptDocument:
        """Send the bytes, to be saved and not shown."""
        version = self._desk.find(self._name, fields.get("version", ""))
        content = self._desk.body(version)
        request.setHeader("Content-Disposition", f'attachment; filename="{self._name.name}"')
        request.setHeader("X-Content-Type-Options", "nosniff")
        return KeptDocument(content, CONTENT_TYPE)


class RefusedPage(MetadataPage):
    """``/api/v1/documents/refused``: leaves of documents that do not count, and why."""

    def asked(self, request: Request, fields: Mapping[str, str]) -> KeptDocument:  # noqa: ARG002 - as all pages
        """Send the latest of each author."""
        return json_document(refused_body(self._desk.library.authors))


def whole_body(desk: DocumentDesk, name: DocumentName) -> dict[str, Any]:
    """Return a document with the content of its heads; a content that the disk does not give is null."""

    def content(version: Version) -> bytes | None:
        try:
            return desk.body(version)
        except DocumentError:
            return None

    return document_body(name, desk.document(name), content, desk.library.authors)


def versions_body(desk: DocumentDesk, name: DocumentName, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the versions of a document, at most ``limit`` of them."""
    limit = number(fields, "limit", 1, VERSIONS_MOST) or VERSIONS_USUAL
    return history_body(name, desk.document(name), limit)


def _text(path: bytes) -> str:
    return path.decode("ascii", "replace")
