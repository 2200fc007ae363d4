"""
What a publisher asks of an index, as sightings: publish, update, retract, delete of ``esg-search/ws``.

A call is read before it is handed on and counts when the index has said success. What cannot be read is handed on all
the same, and found by the next look through the index. Source: docs/tracking.md, "The index proxy".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import parse_qsl

import attrs

from esgf_gossip.tracking import record_fields
from esgf_gossip.tracking.identity import DatasetId, IdentityError, parse_record
from esgf_gossip.tracking.record_fields import Fields
from esgf_gossip.tracking.sightings import Operation, Sighting

SOURCE: Final = "proxy"
UPDATES_MOST: Final = 20_000
# Names of records in one retract or delete.
NAMES_MOST: Final = 20_000
# An answer says success or error at its beginning.
ANSWER_CHARACTERS: Final = 4096

_SUCCESS: Final = re.compile(rb"<response\b[^>]{0,500}\bstatus\s{0,9}=\s{0,9}[\"']success[\"']")
_SETS: Final = re.compile(
    r"<field\s{1,20}name\s{0,20}=\s{0,20}[\"'](latest|retracted)[\"']\s{0,20}>\s{0,200}<value>\s{0,200}(\w{1,5})"
)
_ENDS: Final = {"retract": Operation.RETRACT, "delete": Operation.DELETE}
_CALLS: Final = frozenset({"publish", "update", *_ENDS})


@attrs.frozen
class Call:
    """
    One call as it was read.

    ``sightings``: what it does, when it succeeds. ``unread``: parts of it that name nothing known here.
    """

    sightings: tuple[Sighting, ...] = ()
    unread: int = 0


def read_call(name: str, query: bytes, body: bytes, now_ms: int) -> Call:
    """
    Read a call.

    Args:
        name: its last part of the path, such as ``publish``.
        query: of its URL, as it came.
        body: as it came.
        now_ms: Unix milliseconds; the answer comes later, and counts (``attrs.evolve`` it then).
    """
    if name not in _CALLS:
        return Call()
    if name in _ENDS:
        found = list(_ended(_ENDS[name], query, body, now_ms))
    else:
        text = body.decode("utf-8", "replace")
        found = list(_published(text, now_ms) if name == "publish" else _updated(text, now_ms))
    sightings = tuple(one for one in found if one is not None)
    return Call(sightings, len(found) - len(sightings) or int(not found and name != "update"))


def is_success(status: int, answer: bytes) -> bool:
    """Tell whether an index has done what it was asked, by its answer."""
    return status == 200 and _SUCCESS.search(answer[:ANSWER_CHARACTERS]) is not None


def published(found: Fields, now_ms: int, source: str = SOURCE) -> Sighting | None:
    """Return what the record of a dataset or a file tells; None: it names no copy of a dataset."""
    try:
        dataset, data_node = record_fields.copy_of(found)
    except IdentityError:
        return None
    is_replica = record_fields.flag(found, "replica")
    if record_fields.is_file(found):
        file = record_fields.seen_file(found)
        return Sighting(Operation.ADD_FILES, dataset, data_node, is_replica, now_ms, source, (file,))
    # Published with the mark of a retraction: it was retracted before, elsewhere or by another way.
    is_retracted = record_fields.flag(found, "retracted")
    operation = Operation.RETRACT if is_retracted else Operation.PUBLISH
    return Sighting(operation, dataset, data_node, bool(is_replica), now_ms, source)


def _published(text: str, now_ms: int) -> Iterator[Sighting | None]:
    for found in record_fields.documents(text):
        yield published(found, now_ms)


def _updated(text: str, now_ms: int) -> Iterator[Sighting | None]:
    # Files carry the marks of their dataset in an update of their own.
    if re.search(r"core\s{0,9}=\s{0,9}[\"']files[\"']", text[:1000]):
        return
    at = text.find("<update>")
    for _ in range(UPDATES_MOST):
        if at < 0:
            return
        end = text.find("</update>", at)
        part = text[at : end if end >= 0 else len(text)]
        at = text.find("<update>", end) if end >= 0 else -1
        copy = _asked(part)
        for field, flag in dict(_SETS.findall(part)).items():
            operation = {
                ("latest", "false"): Operation.SUPERSEDE,
                ("retracted", "true"): Operation.RETRACT,
                ("retracted", "false"): Operation.PUBLISH,
            }.get((field, flag.lower()))
            if operation is not None:
                yield copy and Sighting(operation, *copy, None, now_ms, SOURCE)


def _asked(part: str) -> tuple[DatasetId, str] | None:
    """Return the one copy that the query of an update asks for."""
    begin, end = part.find("<query>"), part.find("</query>")
    name, _, wanted = (
        record_fields.value(part[begin + 7 : end]).partition("=") if 0 <= begin < end else ("", "", "")
    )
    return _copy(wanted) if name.strip() == "id" else None


def _ended(operation: Operation, query: bytes, body: bytes, now_ms: int) -> Iterator[Sighting | None]:
    for wanted in _names(query, body):
        copy = _copy(wanted)
        yield copy and Sighting(operation, *copy, None, now_ms, SOURCE)


def _names(query: bytes, body: bytes) -> Sequence[str]:
    pairs: list[tuple[str, str]] = []
    for form in (query, body):
        try:
            pairs += parse_qsl(form.decode("latin-1").strip(), max_num_fields=NAMES_MOST, encoding="utf-8")
        except ValueError:
            continue
    return [text for name, text in pairs if name == "id"]


def _copy(wanted: str) -> tuple[DatasetId, str] | None:
    try:
        return parse_record(wanted.strip().strip('"'))
    except IdentityError:
        return None
