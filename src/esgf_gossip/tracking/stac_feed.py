"""
From bytes to sightings: one message, a list of them, or one on each line, within bounds.

A document is taken as a whole or not at all: the first message that is none names itself.
Source: docs/tracking.md, "STAC messages".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator

from esgf_gossip.tracking.sightings import Sighting
from esgf_gossip.tracking.stac import read_message
from esgf_gossip.tracking.stac_items import StacError

MESSAGE_BYTES: Final = 4 * 1024 * 1024
DOCUMENT_BYTES: Final = 8 * 1024 * 1024
MESSAGES: Final = 1000
# Of a document: a value takes up to a hundred bytes in memory, whatever it takes on the wire. 8 MiB of real
# messages have about 200,000.
VALUES: Final = 500_000
_BLANK: Final = " \t\r\n"

_decoder: Final = json.JSONDecoder()


class EventReader:
    """
    Reads messages for one way in.

    Args:
        source: ``stac`` or ``kafka``, see ``DatasetEvent.source``.
        now_ms: Unix milliseconds.
        clock: the reactor, which others are served by between two messages; or a Clock in tests.
    """

    def __init__(self, source: str, now_ms: Callable[[], int], clock: Any) -> None:
        self._source: Final = source
        self._now_ms: Final = now_ms
        self._cooperator: Final = Cooperator(scheduler=lambda turn: clock.callLater(0, turn))

    def read_one(self, data: bytes, fallback_id: str = "") -> tuple[Sighting, ...]:
        """
        Read one message; may be called in any thread.

        Raises:
            StacError: it is none.
        """
        _bound(data, MESSAGE_BYTES)
        text = _text(data)
        message, end = _value(text, _skipped(text, 0))
        if _skipped(text, end) != len(text):
            raise StacError("more than one JSON value")
        return read_message(message, self._source, self._now_ms(), fallback_id)

    def read(self, data: bytes) -> Deferred[list[Sighting]]:
        """
        Read a document, in turns of the reactor.

        Fires with the sightings in the order of their messages; fails with a StacError that names the first message
        which is none.
        """
        found: list[Sighting] = []

        def turns() -> Iterator[None]:
            for number, message in _messages(data):
                try:
                    found.extend(read_message(message, self._source, self._now_ms()))
                except StacError as error:
                    raise StacError(f"message {number}: {error}") from None
                yield

        return self._cooperator.cooperate(turns()).whenDone().addCallback(lambda _: found)


def _messages(data: bytes) -> Iterator[tuple[int, Any]]:
    """Give each message of a document with its number, from 1."""
    _bound(data, DOCUMENT_BYTES)
    text = _text(data)
    at, number = _skipped(text, 0), 0
    is_list = text[at : at + 1] == "["
    at = _skipped(text, at + 1) if is_list else at
    is_over = at >= len(text) or (is_list and text[at] == "]")
    while not is_over:
        number += 1
        if number > MESSAGES:
            raise StacError(f"more than {MESSAGES} messages; send them in parts")
        try:
            message, end = _value(text, at)
        except StacError as error:
            raise StacError(f"message {number}: {error}") from None
        at = _skipped(text, end)
        if is_list:
            mark = text[at : at + 1]
            if mark not in ("]", ","):
                raise StacError(f"after message {number} neither a comma nor the end of the list follows")
            is_over = mark == "]"
            at = _skipped(text, at + 1)
        else:
            if at < len(text) and "\n" not in text[end:at]:
                raise StacError(f"after message {number} no new line follows")
            is_over = at >= len(text)
        yield number, message
    if not number:
        raise StacError("no message in it")
    if at < len(text):
        raise StacError("something follows after the list")


def _bound(data: bytes, most_bytes: int) -> None:
    if len(data) > most_bytes:
        raise StacError(f"longer than {most_bytes} bytes")
    if sum(map(data.count, (b",", b"[", b"{"))) > VALUES:
        raise StacError(f"more than {VALUES} values")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StacError("not UTF-8") from None


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise StacError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise StacError("nested too deeply") from None
    except ValueError:
        raise StacError("not JSON: a number of too many digits") from None


def _skipped(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at
