"""
Bare twisted.web resources: the base of all pages, kept documents, problems.

How an answer goes out lives here (methods, ETag, gzip, HEAD, errors); what it
says is the pages' own in ``api``. Bare, because klein runs at two thirds of
their speed, sends no Content-Length and turns 404 and 405 into 500.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource

from esgf_gossip.web.conditions import is_none_match, prefers_gzip
from esgf_gossip.web.kept import KeptDocument, KeptDocuments
from esgf_gossip.web.problems import CONTENT_TYPE, Problem, Refused

ALLOWED: Final = "GET, HEAD"
RETRY_AFTER_S: Final = 5

_log = Logger()


class Page(Resource):
    """
    One path that is read, never written.

    A page overrides ``answer``; to refuse it raises ``Refused``. A segment below
    that is no child is 404. ``allowed``: its methods; a POST is a question too, whose words are in its body.
    """

    allowed = ALLOWED

    def answer(self, request: Request) -> Any:
        """Return the body, or NOT_DONE_YET; status and headers go on the request."""
        raise NotImplementedError

    def render(self, request: Request) -> Any:
        """Answer GET and HEAD, or what else is a question here; everything else changes nothing and is 405."""
        try:
            if request.method.decode("latin-1") not in self.allowed.split(", "):
                raise Refused(
                    Problem(405, f"only {self.allowed} here: nothing changes state", {"Allow": self.allowed})
                )
            return self.answer(request)
        except Refused as refusal:
            return send_problem(request, refusal.problem)
        except Exception:  # noqa: BLE001 - Twisted would send its own HTML
            _log.failure("No answer to {method} {path}", method=request.method, path=request.path)
            return send_problem(request, Problem(500, "internal error; the daemon's log says more"))

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Answer every unknown segment with 404."""
        return MISSING


class ProblemPage(Page):
    """Answers with one problem, whatever the path."""

    isLeaf = True

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem: Final = problem

    def render(self, request: Request) -> Any:
        """Send the problem, to every method: what is not there allows none."""
        return send_problem(request, self.problem)


MISSING: Final = ProblemPage(Problem(404, "nothing is served at this path; / lists what is"))


class KeptPage(Page):
    """Serves the document of one name, as it is at the moment of the request."""

    def __init__(self, documents: KeptDocuments, name: str) -> None:
        super().__init__()
        self._documents = documents
        self._name = name

    def answer(self, request: Request) -> bytes:
        """
        Send the document.

        Raises:
            Refused: 503, it was not written yet; a reader must not take it for empty.
        """
        document = self._documents.get(self._name)
        if document is None:
            raise Refused(
                Problem(503, f"{self._name} is not written yet", {"Retry-After": str(RETRY_AFTER_S)})
            )
        return send_document(request, document)


def send_document(request: Request, document: KeptDocument) -> bytes:
    """
    Return the body to send; set status, validators, encoding and length.

    Source: RFC 9110, sections 8.8.3, 12.5.3, 13.1.2, 15.4.5.
    """
    etag, body = document.etag, document.body
    if document.gzip_body is not None:
        request.setHeader(b"Vary", b"Accept-Encoding")
        if prefers_gzip(_field(request, b"accept-encoding")):
            etag, body = document.gzip_etag, document.gzip_body
    request.setHeader(b"Cache-Control", b"no-cache")
    if_none_match = _field(request, b"if-none-match")
    if not if_none_match:
        return _send_whole(request, document, etag, body)
    # A client that fetched the other encoding holds the same document: it is told so by the tag it sent.
    for tag in (etag, document.etag, document.gzip_etag):
        if is_none_match(if_none_match, tag):
            request.setHeader(b"ETag", tag.encode("ascii"))
            request.setResponseCode(304)
            return b""
    return _send_whole(request, document, etag, body)


def _send_whole(request: Request, document: KeptDocument, etag: str, body: bytes) -> bytes:
    request.setHeader(b"ETag", etag.encode("ascii"))
    request.setHeader(b"Content-Type", document.content_type.encode("ascii"))
    if body is document.gzip_body:
        request.setHeader(b"Content-Encoding", b"gzip")
    return body


def send_problem(request: Request, problem: Problem) -> bytes:
    """Return the body of the problem; set its status and headers."""
    for name in ("ETag", "Content-Encoding", "Vary"):
        request.responseHeaders.removeHeader(name)
    request.setResponseCode(problem.status, HTTPStatus(problem.status).phrase.encode())
    request.setHeader("Content-Type", CONTENT_TYPE)
    request.setHeader("Cache-Control", "no-store")
    for name, value in problem.headers.items():
        request.setHeader(name, value)
    return problem.body()


def _field(request: Request, name: bytes) -> str:
    """Return a header field, its lines joined as RFC 9110, 5.3 says; empty where there is none."""
    lines = request.requestHeaders.getRawHeaders(name) or []
    return b",".join(lines).decode("latin-1")
