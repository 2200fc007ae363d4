"""What can be asked of dataset events and versions: from texts of a client to a wish, and the answers in one reading."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from esgf_gossip.tracking import event_lists
from esgf_gossip.tracking.event_lists import EVENTS_MOST, EventWish
from esgf_gossip.tracking.events import EventType
from esgf_gossip.tracking.identity import DatasetId, IdentityError, parse_dataset
from esgf_gossip.tracking.records import records_of, records_of_dataset
from esgf_gossip.tracking.versions import status_of, statuses
from esgf_gossip.web.dataset_bodies import checked_body, event_body, unknown_body, version_body
from esgf_gossip.web.instants import InstantError, instant_ms
from esgf_gossip.web.questions import ID_MAX, QuestionError, number, refuse_unknown

EVENTS_USUAL: Final = 100
OF_EVENTS: Final = ("since", "limit", "project", "type")
CHECKED_MOST: Final = 1000
CHECK_BYTES: Final = 256 * 1024
TYPES: Final = tuple(kind.value for kind in EventType)

# As the names of datasets begin.
PROJECT: Final = "^[A-Za-z0-9][A-Za-z0-9_:+()-]{0,254}$"

_NUMBER_CHARACTERS: Final = 16


def event_wish(fields: Mapping[str, Any], now_ms: int) -> EventWish:
    """
    Read which events are asked for; without ``since`` the newest.

    Raises:
        QuestionError: a name or a value is not known.
    """
    refuse_unknown(fields, OF_EVENTS)
    kind, project = str(fields.get("type", "")), str(fields.get("project", ""))
    if kind and kind not in TYPES:
        raise QuestionError(f"type is one of {', '.join(TYPES)}")
    if project and not re.fullmatch(PROJECT, project):
        raise QuestionError("project is the first part of the name of a dataset, such as CMIP6")
    wish = EventWish(
        project=project, type=kind, limit=number(fields, "limit", 1, EVENTS_MOST) or EVENTS_USUAL
    )
    since = str(fields.get("since", ""))
    if not since:
        return attrs.evolve(wish, is_newest_first=True)
    if since.isascii() and since.isdecimal() and len(since) <= _NUMBER_CHARACTERS and int(since) <= ID_MAX:
        return attrs.evolve(wish, after=int(since))
    try:
        return attrs.evolve(wish, since_ms=instant_ms(since, now_ms))
    except InstantError as error:
        raise QuestionError(f"since is the number of an event, or a time: {error}") from None


def events_answer(connection: sqlite3.Connection, wish: EventWish) -> dict[str, Any]:
    """Return the body of ``/api/v1/datasets/events``: rising numbers, and the number to go on from."""
    found = event_lists.events(connection, wish)
    if wish.is_newest_first:
        found.reverse()
    is_cut = len(found) >= wish.limit and not wish.is_newest_first
    newest = event_lists.newest_number(connection)
    following = found[-1].number if is_cut else newest
    return {"events": [event_body(one) for one in found], "next_since": following}


def quarantine_answer(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return events that do not count, the latest first."""
    return [event_body(one) for one in event_lists.quarantined(connection)]


def dataset_answer(connection: sqlite3.Connection, dataset: DatasetId) -> dict[str, Any]:
    """Return how a version stands, and all that is said of it."""
    said = records_of(connection, str(dataset))
    return {**version_body(status_of(connection, dataset), said[:EVENTS_MOST]), "history_total": len(said)}


def asked_texts(body: bytes, content_type: str) -> list[str]:
    """
    Read what ``POST /api/v1/datasets/check`` asks about: a JSON list, an object with ``datasets``, or lines of text.

    Raises:
        QuestionError: it is neither, or there are too many.
    """
    if not body:
        raise QuestionError('the body is empty; send a list of names, such as ["DATASET.vVERSION"]')
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise QuestionError("the body is no text in UTF-8") from None
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("", "text/plain", "application/json"):
        raise QuestionError("the body is application/json or text/plain", 415)
    if kind == "application/json" or (kind == "" and text.lstrip()[:1] in ("[", "{")):
        asked = _json_list(text)
    else:
        asked = [line.strip() for line in text.splitlines() if line.strip()]
    if len(asked) > CHECKED_MOST:
        raise QuestionError(f"{len(asked)} datasets are asked about; at most {CHECKED_MOST} at once")
    return asked


def _json_list(text: str) -> list[str]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise QuestionError('the body is no JSON; write such as ["DATASET.vVERSION"]') from None
    if isinstance(said, dict):
        said = said.get("datasets")
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise QuestionError(
            'the body is a list of names, or an object with one as "datasets": ["DATASET.vVERSION"]'
        )
    return said


def check_answer(connection: sqlite3.Connection, asked: Sequence[str]) -> dict[str, Any]:
    """Return the body of ``/api/v1/datasets/check``: for each text asked, in its order, how the version stands."""
    named: dict[str, DatasetId | str] = {}
    by_master: dict[str, list[DatasetId]] = {}
    for text in asked:
        if text not in named:
            try:
                named[text] = dataset = parse_dataset(text)
            except IdentityError as error:
                named[text] = str(error)
            else:
                by_master.setdefault(dataset.master_id, []).append(dataset)
    found = {}
    for master, wanted in by_master.items():
        standing = statuses(records_of_dataset(connection, master), wanted)
        found.update({dataset: standing[dataset] for dataset in wanted})
    return {
        "datasets": [
            unknown_body(text, one) if isinstance(one := named[text], str) else checked_body(text, found[one])
            for text in asked
        ]
    }
