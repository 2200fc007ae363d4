"""
The pages that tell the past: history, differences, and the federation as it was.

What was is the archive's to find; here are the questions of a client and the forms of the answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET

from esgf_gossip.storage.history_reader import Wish
from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.node_json import json_bytes, utc_text
from esgf_gossip.web.archive import PastError, TooEarlyError
from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.questions import (
    OF_ALL_HISTORY,
    OF_HISTORY,
    QuestionError,
    history_wish,
    refuse_blank,
    refuse_unknown,
    time_of,
    times_between,
)
from esgf_gossip.web.resources import Page, send_document, send_problem

REGISTRATION_XML: Final = "registration.xml"
JSON: Final = "application/json"

_log = Logger()


class Past(Protocol):
    """What the pages ask of the archive; every answer may fail with PastError. ``recent``: what happened last."""

    recent: Collection[Mapping[str, Any]]

    def changes(self, wish: Wish) -> Deferred[dict[str, Any]]:
        """Return what happened."""

    def view(self, at_ms: int) -> Deferred[FederationView]:
        """Return the view of an earlier time."""

    def document(self, at_ms: int) -> Deferred[bytes]:
        """Return registration.xml of an earlier time."""

    def differences(self, from_ms: int, to_ms: int) -> Deferred[list[dict[str, Any]]]:
        """Return what differs between two times."""


def history_body(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of ``/api/v1/history``."""
    begins_ms = found["begins_ms"]
    return {
        "begins_at": utc_text(begins_ms) if begins_ms else None,
        "changes": found["changes"],
        "next_before": found["next_before"],
    }


def differences_body(from_ms: int, to_ms: int, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the body of ``/api/v1/differences``."""
    return {"from": utc_text(from_ms), "to": utc_text(to_ms), "nodes": nodes}


def fields_of(request: Request) -> dict[str, str]:
    """Return the parameters of a request; of one that stands twice the last counts."""
    return {
        name.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace")
        for name, values in request.args.items()
    }


def answer_later(request: Request, answer: Deferred[Any], body_of: Callable[[Any], bytes]) -> Any:
    """
    Send what an answer brings, once it does; nothing to a client that has gone meanwhile.

    The work behind the answer goes on to its end either way: who hangs up must not make room for more of it.
    A time that is too early becomes 404, another PastError 503, a Refused what it says, anything else 500.

    Args:
        request: to be answered.
        answer: what its body is made of.
        body_of: makes the body, and sets status and headers.
    """
    gone: list[Any] = []
    request.notifyFinish().addErrback(gone.append)

    def send(result: Any) -> None:
        if gone:
            return
        if isinstance(result, Failure):
            body = send_problem(request, _problem_of(result))
        else:
            try:
                body = body_of(result)
            except Refused as refusal:
                body = send_problem(request, refusal.problem)
        request.send(body)

    answer.addBoth(send)
    answer.addErrback(request.processingFailed)
    return NOT_DONE_YET


def past_problem(error: PastError) -> Problem:
    """Return how a PastError is said to a client."""
    if isinstance(error, TooEarlyError):
        return Problem(404, str(error))
    return Problem(503, str(error), {"Retry-After": "5"})


def _problem_of(failure: Failure) -> Problem:
    if isinstance(failure.value, PastError):
        return past_problem(failure.value)
    if isinstance(failure.value, Refused):
        return failure.value.problem
    _log.failure("A question about the past failed", failure)
    return Problem(500, "internal error; the daemon's log says more")


class QuestionPage(Page, ABC):
    """A page of the past; a question that cannot be read is 400."""

    def __init__(self, past: Past, now_ms: Callable[[], int]) -> None:
        super().__init__()
        self._past = past
        self._now_ms = now_ms

    def answer(self, request: Request) -> Any:
        """
        Answer the question.

        Raises:
            Refused: 400, a parameter or a value is not known.
        """
        try:
            fields = fields_of(request)
            refuse_blank(fields)
            return self.asked(request, fields, self._now_ms())
        except QuestionError as error:
            raise Refused(Problem(error.status, str(error))) from None

    @abstractmethod
    def asked(self, request: Request, fields: Mapping[str, str], now_ms: int) -> Any:
        """Answer what was read of the request."""


class HistoryPage(QuestionPage):
    """``/api/v1/history``, and ``/api/v1/nodes/<host>/history``."""

    def __init__(self, past: Past, now_ms: Callable[[], int], host: str = "") -> None:
        super().__init__(past, now_ms)
        self._host = host

    def asked(self, request: Request, fields: Mapping[str, str], now_ms: int) -> Any:
        """Send what happened, the newest first."""
        known = OF_HISTORY if self._host else OF_ALL_HISTORY
        wish = history_wish(fields, known, now_ms, self._host)
        answer = self._past.changes(wish)
        return answer_later(
            request, answer, lambda found: send_document(request, json_document(history_body(found)))
        )


class DifferencesPage(QuestionPage):
    """``/api/v1/differences?from=&to=``."""

    def asked(self, request: Request, fields: Mapping[str, str], now_ms: int) -> Any:
        """Send what differs between two times."""
        from_ms, to_ms = times_between(fields, now_ms)
        return answer_later(
            request,
            self._past.differences(from_ms, to_ms),
            lambda nodes: send_document(request, json_document(differences_body(from_ms, to_ms, nodes))),
        )


class PastDocumentPage(QuestionPage):
    """``/registration.xml?at=``."""

    def asked(self, request: Request, fields: Mapping[str, str], now_ms: int) -> Any:
        """Send the document as it would have been written then."""
        refuse_unknown(fields, ("at",))
        return answer_later(
            request,
            self._past.document(time_of(fields, now_ms)),
            lambda body: send_document(request, KeptDocument(body, "application/xml")),
        )


def send_past(request: Request, past: Past, at_ms: int, body_of: Callable[[FederationView], Any]) -> Any:
    """Send a body made of an earlier view, once it is there."""
    answer = past.view(at_ms)
    return answer_later(request, answer, lambda view: send_document(request, json_document(body_of(view))))


def json_document(body: Any) -> KeptDocument:
    """Encode a body to be sent."""
    return KeptDocument(json_bytes(body), JSON)
