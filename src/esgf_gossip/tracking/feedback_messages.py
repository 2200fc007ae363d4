"""
What is said by esgf-feedback/1: one question, the matches of one change with users of one home, and its answer.

Every field is bounded, so that any bytes give a message or a WireError. Source: docs/protocol.md, "esgf-feedback/1".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Final

import attrs

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import COUNTER_MAX, FRAME_BYTES, TIME_MS_MAX
from esgf_gossip.esgf.openids import OPENID_CHARACTERS, canonical_openid
from esgf_gossip.tracking.identity import DatasetId, IdentityError, parse_dataset
from esgf_gossip.tracking.matches import DATASETS_NAMED, FILES_NAMED, FetchedFile, Match

# Users of one question.
USERS_MOST: Final = 200
# A question is one frame; below the bound by what stands around the matches.
QUESTION_BYTES: Final = FRAME_BYTES - 1024
FILE_NAME_CHARACTERS: Final = 255
HOST_CHARACTERS: Final = 253

_QUESTION: Final = 1
_ANSWER: Final = 2


class Verdict(IntEnum):
    """What the home node says; whatever a later version may add means BUSY."""

    # On its disk: the sender may forget them, but for those it refused.
    TAKEN = 1
    # It has not heard of the change yet.
    UNKNOWN_CHANGE = 2
    # None of them is its user.
    REFUSED = 3
    # It has too much to do: later.
    BUSY = 4


@attrs.frozen
class Question:
    """The matches of one change."""

    change_key: bytes
    matches: tuple[Match, ...] = attrs.field(repr=False)


@attrs.frozen
class Answer:
    """What became of them; ``refused`` are the places of those that are not users of the home node."""

    verdict: Verdict
    refused: tuple[int, ...] = ()


def encode_question(question: Question) -> bytes:
    """Write a question; whoever makes one keeps to ``batches``."""
    return packing.pack([_QUESTION, question.change_key, [_fields(one) for one in question.matches]])


def decode_question(payload: bytes) -> Question:
    """
    Read a question.

    Raises:
        WireError: it is none.
    """
    fields = packing.array(packing.unpack(payload), 3, "a question")
    if fields[0] != _QUESTION:
        raise WireError("a question was expected")
    key = packing.sha256(fields[1])
    matches = packing.items(fields[2], lambda one: _match(one, key), USERS_MOST, "matches")
    if not matches:
        raise WireError("a question without a match")
    return Question(key, matches)


def encode_answer(answer: Answer) -> bytes:
    """Write an answer."""
    return packing.pack([_ANSWER, answer.verdict.value, answer.refused])


def decode_answer(payload: bytes) -> Answer:
    """
    Read an answer.

    Raises:
        WireError: it is none.
    """
    fields = packing.array(packing.unpack(payload), 3, "an answer")
    if fields[0] != _ANSWER:
        raise WireError("an answer was expected")
    refused = packing.items(
        fields[2], lambda one: packing.number(one, USERS_MOST - 1), USERS_MOST, "places of matches"
    )
    try:
        return Answer(Verdict(packing.number(fields[1])), refused)
    except ValueError:
        return Answer(Verdict.BUSY)


def encode_match(match: Match) -> bytes:
    """Write one match, to keep it."""
    return packing.pack(_fields(match))


def decode_match(content: bytes, change_key: bytes) -> Match:
    """
    Read one match again.

    Raises:
        WireError: it is none.
    """
    return _match(packing.unpack(content), change_key)


def batches(matches: Sequence[Match]) -> Iterator[tuple[Match, ...]]:
    """Split matches of one change into as many as one question holds."""
    batch: list[Match] = []
    size_bytes = 0
    for match in matches:
        own_bytes = len(encode_match(match))
        if batch and (len(batch) == USERS_MOST or size_bytes + own_bytes > QUESTION_BYTES):
            yield tuple(batch)
            batch, size_bytes = [], 0
        batch.append(match)
        size_bytes += own_bytes
    if batch:
        yield tuple(batch)


def _fields(match: Match) -> list[Any]:
    return [
        match.openid,
        [
            [
                str(one.dataset),
                _clean(one.name, FILE_NAME_CHARACTERS),
                _clean(one.host, HOST_CHARACTERS),
                _time(one.fetched_ms),
                one.is_unchanged,
            ]
            for one in match.files[:FILES_NAMED]
        ],
        match.file_count,
        [str(one) for one in match.datasets[:DATASETS_NAMED]],
        match.dataset_count,
        _time(match.last_fetched_ms),
    ]


def _clean(text: str, most: int) -> str:
    # Of a log of downloads, which holds what anybody asked for: as a reader takes it.
    return "".join(one if one.isprintable() else "?" for one in text[:most])


def _time(time_ms: int) -> int:
    return min(max(time_ms, 0), TIME_MS_MAX)


def _match(value: object, change_key: bytes) -> Match:
    fields = packing.array(value, 6, "a match")
    return Match(
        change_key,
        _openid(fields[0]),
        packing.items(fields[1], _file, FILES_NAMED, "files"),
        packing.number(fields[2], COUNTER_MAX),
        packing.items(fields[3], _dataset, DATASETS_NAMED, "datasets"),
        packing.number(fields[4], COUNTER_MAX),
        packing.time_ms(fields[5]),
    )


def _openid(value: object) -> str:
    text = _text(value, OPENID_CHARACTERS)
    if not canonical_openid(text):
        # Without the text: it may be somebody's all the same.
        raise WireError("an OpenID was expected")
    return text


def _file(value: object) -> FetchedFile:
    fields = packing.array(value, 5, "a file")
    return FetchedFile(
        _dataset(fields[0]),
        _text(fields[1], FILE_NAME_CHARACTERS),
        _text(fields[2], HOST_CHARACTERS),
        packing.time_ms(fields[3]),
        packing.flag(fields[4]),
    )


def _dataset(value: object) -> DatasetId:
    try:
        return parse_dataset(_text(value, 2 * HOST_CHARACTERS))
    except IdentityError:
        raise WireError("the name of a dataset version was expected") from None


def _text(value: object, most: int) -> str:
    if type(value) is not str or len(value) > most or not value.isprintable():
        raise WireError(f"a printable text of at most {most} characters was expected")
    return value
