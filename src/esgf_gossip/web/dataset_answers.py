"""What the control socket is asked of dataset events: to read them, and alone here to say and accept them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from esgf_gossip.dataset_errors import MISSING, DatasetError
from esgf_gossip.dataset_keeper import DatasetKeeper
from esgf_gossip.tracking.events import REASON_CHARACTERS, VERSIONS, EventType
from esgf_gossip.tracking.hand import Word
from esgf_gossip.tracking.identity import DatasetId, IdentityError, make_dataset, parse_dataset
from esgf_gossip.web.control_answers import CommandError
from esgf_gossip.web.dataset_bodies import event_body
from esgf_gossip.web.dataset_questions import (
    TYPES,
    dataset_answer,
    event_wish,
    events_answer,
    quarantine_answer,
)
from esgf_gossip.web.questions import QuestionError

# Of a change key, where a person names one.
KEY_CHARACTERS: Final = 8

Answer = Callable[[Mapping[str, Any]], Any]


class DatasetAnswers:
    """Answers about the events of one node; ``by_command`` maps each command to what answers it."""

    def __init__(self, datasets: DatasetKeeper, now_ms: Callable[[], int]) -> None:
        self._datasets = datasets
        self._now_ms = now_ms
        self.by_command: Final[Mapping[str, Answer]] = {
            name: _refusing(answer)
            for name, answer in {
                "dataset-events": self._events,
                "dataset-quarantine": lambda _fields: datasets.ask(quarantine_answer),
                "dataset": lambda fields: datasets.ask(dataset_answer, _dataset(fields)),
                "dataset-say": self._say,
                "dataset-accept": self._accept,
            }.items()
        }

    def _events(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        asked = {name: value for name, value in fields.items() if name != "command"}
        return self._datasets.ask(events_answer, event_wish(asked, self._now_ms()))

    def _say(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        kind = _text(fields, "type")
        if kind not in TYPES:
            raise CommandError(f"type is one of {', '.join(TYPES)}")
        dataset = _dataset(fields)
        word = Word(
            EventType(kind),
            dataset,
            _text(fields, "data_node").lower(),
            self._now_ms(),
            _text(fields, "reason"),
            _versions(fields, dataset),
        )
        if len(word.reason) > REASON_CHARACTERS or not word.reason.isprintable():
            raise CommandError(f"a reason is one line of at most {REASON_CHARACTERS} characters")

        def said(written: list[Any]) -> Deferred[Any]:
            answer = self._datasets.ask(dataset_answer, dataset)
            types = [one.type.value for one in written]
            return answer.addCallback(lambda body: {**body, "written": types})

        return self._datasets.say(word).addCallback(said)

    def _accept(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        key = _text(fields, "key").lower()
        if not KEY_CHARACTERS <= len(key) <= 64 or set(key) - set("0123456789abcdef"):
            raise CommandError(
                f"{key[:70]!r} is no key: write at least {KEY_CHARACTERS} hexadecimal digits, as dataset quarantine shows them"
            )
        return self._datasets.accept(key).addCallback(lambda found: [event_body(one) for one in found])


def _refusing(answer: Answer) -> Answer:
    def explain(failure: Failure) -> None:
        failure.trap(DatasetError)
        raise CommandError(str(failure.value), is_missing=failure.value.status == MISSING) from None

    def refusing(fields: Mapping[str, Any]) -> Any:
        try:
            return answer(fields).addErrback(explain)
        except (IdentityError, QuestionError) as error:
            raise CommandError(str(error)) from None

    return refusing


def _dataset(fields: Mapping[str, Any]) -> DatasetId:
    return parse_dataset(_text(fields, "dataset"))


def _versions(fields: Mapping[str, Any], dataset: DatasetId) -> tuple[str, ...]:
    """Read the versions replaced, the newest first."""
    said = fields.get("supersedes") or []
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said) or len(said) > VERSIONS:
        raise CommandError(f"supersedes is a list of at most {VERSIONS} versions")
    found = {make_dataset(dataset.master_id, one) for one in said}
    return tuple(one.version for one in sorted(found, reverse=True))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if type(value) is not str:
        raise CommandError(f"{name} is a text")
    return value
