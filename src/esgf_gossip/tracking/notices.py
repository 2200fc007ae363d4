"""
Notices: what one person is to be told of one change, once, whatever nodes, OpenIDs and repetitions it came from.

An arrival is a match of one OpenID; when its address is known it becomes a notice, unique by person and change. All
functions run in the tracker's thread, in the caller's transaction. Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from random import Random
from typing import Final

import attrs

from esgf_gossip.tracking import audit, persons
from esgf_gossip.tracking.audit import Step
from esgf_gossip.tracking.backoff import delay_ms
from esgf_gossip.tracking.changes import change_from_json
from esgf_gossip.tracking.joining import add_match, said_from_bytes, said_to_bytes, unite
from esgf_gossip.tracking.matches import Change, Match, change_to_json
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.tracking.restored import RESTORED, may_be_told
from esgf_gossip.trust.sealed_values import SealedValues

# An identity provider that does not answer is asked again after a minute, then less and less often.
FIRST_RETRY_MS: Final = 60_000
LAST_RETRY_MS: Final = 6 * 3_600_000

SCRIPT: Final = """
CREATE TABLE told (
    change_key BLOB PRIMARY KEY, kind TEXT NOT NULL, occurred_ms INTEGER NOT NULL, taken_ms INTEGER NOT NULL,
    body TEXT NOT NULL, recipients INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL CHECK (state IN ('open', 'held', 'released', 'too-old')),
    held_by TEXT NOT NULL DEFAULT '', held_ms INTEGER NOT NULL DEFAULT 0,
    asked_by TEXT NOT NULL DEFAULT '', released_by TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE arrival (
    openid_key BLOB NOT NULL, change_key BLOB NOT NULL REFERENCES told,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'found', 'unknown')),
    person BLOB, taken_ms INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (openid_key, change_key)
) STRICT;
CREATE INDEX arrival_person ON arrival (person, change_key) WHERE person IS NOT NULL;
CREATE INDEX arrival_change ON arrival (change_key);
CREATE INDEX arrival_waiting ON arrival (openid_key) WHERE state = 'waiting';
CREATE TABLE notice (
    number INTEGER PRIMARY KEY, person BLOB NOT NULL, change_key BLOB NOT NULL REFERENCES told,
    made_ms INTEGER NOT NULL, state TEXT NOT NULL CHECK (state IN ('open', 'mailed', 'skipped')), mail INTEGER,
    UNIQUE (person, change_key)
) STRICT;
CREATE INDEX notice_open ON notice (person, made_ms, change_key) WHERE state = 'open';
CREATE INDEX notice_mail ON notice (mail) WHERE mail IS NOT NULL;
CREATE INDEX notice_change ON notice (change_key)
"""


@attrs.frozen
class Bounds:
    """
    What decides who is told at all.

    Args:
        max_age_ms: nothing older is ever mailed.
        hold_above: recipients of a change above which it waits for a release.
        address_ms: how long an address that was found is not asked for again.
    """

    max_age_ms: int
    hold_above: int
    address_ms: int


def take(
    connection: sqlite3.Connection,
    values: SealedValues,
    bounds: Bounds,
    change: Change,
    matches: Sequence[Match],
    from_node: str,
    now_ms: int,
) -> int:
    """
    Take matches of one change from one node, this one or another; return how many users are new to the change.

    Idempotent: a match that came before changes nothing, more files of a user are joined to those that came.
    """
    if _told_state(connection, change, now_ms, bounds) == "too-old":
        return 0
    count = sum(
        _take_one(connection, values, bounds, change, match, from_node, now_ms)
        for match in matches
        if match.change_key == change.key
    )
    if count:
        audit.note(connection, now_ms, Step.MATCHED, f"{count} users from {from_node}", change_key=change.key)
        _hold_if_many(connection, change.key, count, now_ms, bounds)
    return count


def _told_state(connection: sqlite3.Connection, change: Change, now_ms: int, bounds: Bounds) -> str:
    row = connection.execute("SELECT state FROM told WHERE change_key = ?", (change.key,)).fetchone()
    if row is not None:
        return str(row[0])
    state, held_by, held_ms = "open", "", 0
    if now_ms - change.occurred_ms > bounds.max_age_ms:
        state = "too-old"
    elif may_be_told(connection, change.occurred_ms):
        state, held_by, held_ms = "held", RESTORED, now_ms
        audit.note(connection, now_ms, Step.HELD, RESTORED, change_key=change.key)
    connection.execute(
        "INSERT INTO told (change_key, kind, occurred_ms, taken_ms, body, state, held_by, held_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            change.key,
            change.kind,
            change.occurred_ms,
            now_ms,
            json.dumps(change_to_json(change)),
            state,
            held_by,
            held_ms,
        ),
    )
    if state == "too-old":
        audit.note(
            connection,
            now_ms,
            Step.SKIPPED,
            "older than what is mailed, for everybody",
            change_key=change.key,
        )
    return state


def _take_one(
    connection: sqlite3.Connection,
    values: SealedValues,
    bounds: Bounds,
    change: Change,
    match: Match,
    from_node: str,
    now_ms: int,
) -> int:
    key = persons.openid_key(values, match.openid)
    if persons.is_buried(connection, key, change.occurred_ms):
        return 0
    context = _context(key, change.key)
    row = connection.execute(
        "SELECT state, body FROM arrival WHERE openid_key = ? AND change_key = ?", (key, change.key)
    ).fetchone()
    if row is not None:
        if row[0] != "unknown":
            before = said_from_bytes(values.open(row[1], context))
            joined = add_match(before, from_node, match)
            if joined != before:
                connection.execute(
                    "UPDATE arrival SET body = ? WHERE openid_key = ? AND change_key = ?",
                    (values.seal(said_to_bytes(joined), context), key, change.key),
                )
        return 0
    connection.execute(
        "INSERT INTO arrival (openid_key, change_key, state, taken_ms, body) VALUES (?, ?, 'waiting', ?, ?)",
        (key, change.key, now_ms, values.seal(said_to_bytes(add_match({}, from_node, match)), context)),
    )
    known = persons.get_identity(connection, key)
    if known is None or known.state == "unknown":
        persons.ask_for(connection, values, match.openid, now_ms)
    elif known.state == "found":
        is_fresh = now_ms - known.found_ms < bounds.address_ms
        if known.person is not None and is_fresh and persons.has_address(connection, known.person):
            _make_notices(connection, key, known.person, now_ms)
        else:
            persons.ask_for(connection, values, match.openid, now_ms)
    return 1


def _hold_if_many(
    connection: sqlite3.Connection, change_key: bytes, count: int, now_ms: int, bounds: Bounds
) -> None:
    connection.execute(
        "UPDATE told SET recipients = recipients + ? WHERE change_key = ?", (count, change_key)
    )
    held = connection.execute(
        "UPDATE told SET state = 'held', held_by = '', held_ms = ?, asked_by = ''"
        " WHERE change_key = ? AND (state = 'open' OR (state = 'held' AND held_by = ?)) AND recipients > ?",
        (now_ms, change_key, RESTORED, bounds.hold_above),
    ).rowcount
    if held:
        detail = f"more than {bounds.hold_above} recipients: two people must release it"
        audit.note(connection, now_ms, Step.HELD, detail, change_key=change_key)


def settle(
    connection: sqlite3.Connection,
    values: SealedValues,
    key: bytes,
    resolution: Resolution,
    now_ms: int,
    random: Random,
) -> None:
    """Note what came of asking for the address of an OpenID; what waited for it becomes notices, or nothing."""
    known = persons.get_identity(connection, key)
    if known is None or known.state != "waiting":
        return
    if resolution.finding is Finding.UNANSWERED:
        wait_ms = delay_ms(known.tries + 1, FIRST_RETRY_MS, LAST_RETRY_MS, random)
        connection.execute(
            "UPDATE identity SET tries = tries + 1, due_ms = ? WHERE key = ?", (now_ms + wait_ms, key)
        )
        return
    address = persons.usable_address(resolution.address) if resolution.finding is Finding.FOUND else ""
    if address:
        person = persons.keep_person(connection, values, address, now_ms)
        connection.execute(
            "UPDATE identity SET state = 'found', person = ?, found_ms = ? WHERE key = ?",
            (person, now_ms, key),
        )
        _make_notices(connection, key, person, now_ms)
        return
    reason = resolution.reason if resolution.finding is Finding.UNKNOWN else "the address cannot be mailed to"
    connection.execute("UPDATE identity SET state = 'unknown', person = NULL WHERE key = ?", (key,))
    for (change_key,) in _waiting(connection, key):
        audit.note(connection, now_ms, Step.UNKNOWN, reason, change_key=change_key)
    connection.execute(
        "UPDATE arrival SET state = 'unknown', body = x'' WHERE openid_key = ? AND state = 'waiting'", (key,)
    )


def _waiting(connection: sqlite3.Connection, key: bytes) -> list[tuple[bytes]]:
    return connection.execute(
        "SELECT change_key FROM arrival WHERE openid_key = ? AND state = 'waiting'", (key,)
    ).fetchall()


def _make_notices(connection: sqlite3.Connection, key: bytes, person: bytes, now_ms: int) -> None:
    for (change_key,) in _waiting(connection, key):
        made = connection.execute(
            "INSERT INTO notice (person, change_key, made_ms, state) VALUES (?, ?, ?, 'open')"
            " ON CONFLICT (person, change_key) DO NOTHING",
            (person, change_key, now_ms),
        ).rowcount
        if made:
            audit.note(connection, now_ms, Step.NOTICE, change_key=change_key, person=person)
    connection.execute(
        "UPDATE arrival SET state = 'found', person = ? WHERE openid_key = ? AND state = 'waiting'",
        (person, key),
    )


def get_change(connection: sqlite3.Connection, change_key: bytes) -> Change | None:
    """Return a change that matches were taken of."""
    row = connection.execute("SELECT body FROM told WHERE change_key = ?", (change_key,)).fetchone()
    return None if row is None else change_from_json(json.loads(row[0]))


def match_of(
    connection: sqlite3.Connection, values: SealedValues, person: bytes, change_key: bytes
) -> Match | None:
    """Return what a person holds of a change, by all nodes and all OpenIDs; None where nothing is known any more."""
    rows = connection.execute(
        "SELECT openid_key, body FROM arrival WHERE person = ? AND change_key = ? AND state = 'found'",
        (person, change_key),
    )
    said = [
        match
        for key, body in rows
        for match in said_from_bytes(values.open(body, _context(key, change_key))).values()
    ]
    return unite(said) if said else None


def arrived(
    connection: sqlite3.Connection, values: SealedValues, openid_key: bytes, change_key: bytes
) -> Match | None:
    """Return what arrived of one OpenID and a change; None where it is not kept."""
    row = connection.execute(
        "SELECT body FROM arrival WHERE openid_key = ? AND change_key = ? AND state <> 'unknown'",
        (openid_key, change_key),
    ).fetchone()
    if row is None:
        return None
    said = said_from_bytes(values.open(row[0], _context(openid_key, change_key)))
    return unite(said.values()) if said else None


def _context(openid_key: bytes, change_key: bytes) -> str:
    return f"match/{openid_key.hex()}/{change_key.hex()}"
