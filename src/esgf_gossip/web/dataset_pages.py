"""
The HTTP pages of dataset events, for programs: what happened, what does not count, and "are these still good?".

What counts, the tracking room knows; here are the forms of the answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import Request

from esgf_gossip.dataset_errors import FAULTY, DatasetError
from esgf_gossip.views.node_json import json_bytes
from esgf_gossip.web.dataset_questions import (
    asked_texts,
    check_answer,
    event_wish,
    events_answer,
    quarantine_answer,
)
from esgf_gossip.web.past_pages import JSON, answer_later, fields_of, json_document
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.questions import QuestionError, refuse_blank, refuse_unknown
from esgf_gossip.web.resources import MISSING, Page, ProblemPage, send_document


class Datasets(Protocol):
    """What pages ask of the keeper of dataset events."""

    def ask(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Answer a question; may fail with DatasetError."""


def refusing(failure: Failure) -> None:
    """
    Say a DatasetError as HTTP does.

    Raises:
        Refused: in its place.
    """
    failure.trap(DatasetError)
    error = failure.value
    fields = {"Retry-After": "5"} if error.status == FAULTY else {}
    raise Refused(Problem(error.status, str(error), fields)) from None


class DatasetPage(Page, ABC):
    """A page that answers from the ledger, a moment later; a question that cannot be read is 400."""

    def __init__(self, datasets: Datasets, now_ms: Callable[[], int]) -> None:
        super().__init__()
        self._datasets = datasets
        self._now_ms = now_ms

    def answer(self, request: Request) -> Any:
        """
        Answer the question.

        Raises:
            Refused: 400, a parameter or a value is not known.
        """
        fields = fields_of(request)
        try:
            refuse_blank(fields)
            work, *arguments = self.question(fields)
        except QuestionError as error:
            raise Refused(Problem(error.status, str(error))) from None
        answer = self._datasets.ask(work, *arguments).addErrback(refusing)
        return answer_later(request, answer, lambda body: send_document(request, json_document(body)))

    @abstractmethod
    def question(self, fields: Mapping[str, str]) -> tuple[Any, ...]:
        """Return what is to be done with the ledger, and its arguments."""


class EventsPage(DatasetPage):
    """``/api/v1/datasets/events``: what came to count, the newest or from a number or time on."""

    def question(self, fields: Mapping[str, str]) -> tuple[Any, ...]:
        """Read which events."""
        return events_answer, event_wish(fields, self._now_ms())


class QuarantinePage(DatasetPage):
    """``/api/v1/datasets/quarantine``: what does not count, and why."""

    def question(self, fields: Mapping[str, str]) -> tuple[Any, ...]:
        """Take no parameter."""
        refuse_unknown(fields, ())
        return (quarantine_answer,)


class CheckPage(Page):
    """``POST /api/v1/datasets/check``: how versions stand; a query whose words are in its body."""

    allowed = "POST"

    def __init__(self, datasets: Datasets) -> None:
        super().__init__()
        self._datasets = datasets

    def answer(self, request: Request) -> Any:
        """
        Answer for each dataset that is asked about.

        Raises:
            Refused: 400, the body cannot be read, or asks too much; 415, it is of another type.
        """
        try:
            refuse_unknown(fields_of(request), ())
            asked = asked_texts(request.content.getvalue(), request.getHeader("Content-Type") or "")
        except QuestionError as error:
            raise Refused(Problem(error.status, str(error))) from None
        request.setHeader("Cache-Control", "no-store")

        def send(connection_body: Any) -> bytes:
            request.setHeader("Content-Type", JSON)
            return json_bytes(connection_body)

        return answer_later(request, self._datasets.ask(check_answer, asked).addErrback(refusing), send)


class DatasetsFolder(ProblemPage):
    """``/api/v1/datasets``: no page itself, three below it."""

    isLeaf = False

    def __init__(self, datasets: Datasets, now_ms: Callable[[], int]) -> None:
        super().__init__(MISSING.problem)
        self.putChild(b"events", EventsPage(datasets, now_ms))
        self.putChild(b"quarantine", QuarantinePage(datasets, now_ms))
        self.putChild(b"check", CheckPage(datasets))
