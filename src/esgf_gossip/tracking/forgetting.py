"""
What is known of a person, given out and erased; and what is dropped because it is old.

An erasure takes addresses, OpenIDs, matches, notices and mails, and the person out of the audit. What stays is a keyed
hash with a date, so that nothing is mailed of what had happened before, and the wish for silence where there was one.
Source: docs/tracking.md, "Erasing".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from esgf_gossip.tracking import audit, notices, outbox, persons
from esgf_gossip.tracking.audit import Step
from esgf_gossip.tracking.matches import match_to_json
from esgf_gossip.tracking.preferences import erase_preferences, read_preferences
from esgf_gossip.trust.sealed_values import SealedValues

DAY_MS: Final = 86_400_000
# How long the full list of a mail can be read, at least.
LIST_MS: Final = 90 * DAY_MS
EXPORT_MOST: Final = 100_000
NO_OPENID: Final = "no OpenID of this address is known here: downloads are found by OpenID; erase that too"
_AT_ONCE: Final = 2000

# What other tables hold of the owner of some OpenIDs; called in the tracker's thread.
OfOpenids = Callable[[sqlite3.Connection, Sequence[str]], Mapping[str, Any]]


@attrs.frozen
class Subject:
    """Whom an address or an OpenID means: a person, if known; the OpenIDs with their keys."""

    person: bytes | None
    openids: tuple[tuple[bytes, str], ...] = attrs.field(repr=False)

    @property
    def is_known(self) -> bool:
        """Whether anything leads to it."""
        return self.person is not None or bool(self.openids)


def find_subject(connection: sqlite3.Connection, values: SealedValues, who: str) -> Subject:
    """Return whom a text means: an OpenID where it is a URL, else an address; it need not be known here."""
    who = who.strip()
    if "://" not in who:
        person = persons.person_key(values, who)
        return Subject(person, tuple(persons.openids_of(connection, values, person)))
    key = persons.openid_key(values, who)
    known = persons.get_identity(connection, key)
    person_or_none = None if known is None else known.person
    others = () if person_or_none is None else persons.openids_of(connection, values, person_or_none)
    return Subject(person_or_none, tuple(dict([(key, who), *others]).items()))


def export_subject(
    connection: sqlite3.Connection, values: SealedValues, subject: Subject, also: OfOpenids | None = None
) -> dict[str, Any]:
    """Return everything that is known of a person, as JSON values."""
    person = subject.person
    marks = ",".join("?" * len(subject.openids))
    arrivals = connection.execute(
        "SELECT openid_key, change_key, state, taken_ms FROM arrival"  # noqa: S608 - marks of ours
        f" WHERE openid_key IN ({marks}) OR (? IS NOT NULL AND person = ?) LIMIT ?",
        (*(key for key, _ in subject.openids), person, person, EXPORT_MOST),
    ).fetchall()
    told: dict[str, Any] = {
        "openids": [openid for _, openid in subject.openids],
        "matches": [_arrival(connection, values, *row) for row in arrivals],
    }
    if person is not None:
        preferences = read_preferences(connection, person)
        rows = connection.execute(
            "SELECT number, message_id, state, queued_ms, changed_ms, tries, code FROM mail WHERE person = ? LIMIT ?",
            (person, EXPORT_MOST),
        ).fetchall()
        names = ("number", "message_id", "state", "queued_ms", "changed_ms", "tries", "code")
        told |= {
            "address": persons.address_of(connection, values, person)[0],
            "preferences": {
                "unwanted": sorted(preferences.unwanted),
                "retractions_at_once": preferences.is_immediate,
            },
            "mails": [dict(zip(names, row, strict=True)) for row in rows],
            "audit": audit.lines(connection, audit.LINES_MOST, person=person),
        }
    if also is not None:
        told |= also(connection, [openid for _, openid in subject.openids])
    return told


def _arrival(
    connection: sqlite3.Connection,
    values: SealedValues,
    openid_key: bytes,
    change_key: bytes,
    state: str,
    taken_ms: int,
) -> dict[str, Any]:
    match = notices.arrived(connection, values, openid_key, change_key)
    change = notices.get_change(connection, change_key)
    return {
        "change": change_key.hex(),
        "kind": "" if change is None else change.kind,
        "state": state,
        "taken_ms": taken_ms,
        "match": None if match is None else match_to_json(match),
    }


def erase_subject(
    connection: sqlite3.Connection, subject: Subject, now_ms: int, also: OfOpenids | None = None
) -> dict[str, Any]:
    """Erase everything that is known of a person and leave tombstones; return what was erased, in counts, and a note."""
    counts: dict[str, Any] = {"openids": len(subject.openids), "matches": 0, "notices": 0, "mails": 0}
    for key, _ in subject.openids:
        counts["matches"] += connection.execute("DELETE FROM arrival WHERE openid_key = ?", (key,)).rowcount
        connection.execute("DELETE FROM identity WHERE key = ?", (key,))
        persons.bury(connection, key, now_ms)
    person = subject.person
    if person is not None:
        counts["matches"] += connection.execute("DELETE FROM arrival WHERE person = ?", (person,)).rowcount
        counts["notices"] = connection.execute("DELETE FROM notice WHERE person = ?", (person,)).rowcount
        counts["mails"] = connection.execute("DELETE FROM mail WHERE person = ?", (person,)).rowcount
        counts["preferences"] = erase_preferences(connection, person)
        counts["addresses"] = connection.execute("DELETE FROM person WHERE key = ?", (person,)).rowcount
        counts["audit_lines"] = audit.erase_person(connection, person, now_ms)
        persons.bury(connection, person, now_ms)
    if also is not None:
        counts |= also(connection, [openid for _, openid in subject.openids])
    if not subject.openids:
        counts["note"] = NO_OPENID
    return counts


@attrs.frozen
class Keeping:
    """
    How long what is kept.

    Args:
        address_ms: an address, after it was last found, once no mail to it waits.
        max_age_ms: of a change that is still mailed; what keeps it from being mailed twice lives longer.
        audit_ms: lines of the audit.
    """

    address_ms: int
    max_age_ms: int
    audit_ms: int


def forget_old(connection: sqlite3.Connection, keeping: Keeping, now_ms: int) -> dict[str, int]:
    """Drop what is old; in bounded steps: call again while anything is dropped. Return counts."""
    addresses = connection.execute(
        "UPDATE person SET address = NULL WHERE key IN (SELECT key FROM person WHERE address IS NOT NULL"
        " AND found_ms < ? AND NOT EXISTS (SELECT 1 FROM notice WHERE notice.person = person.key AND state = 'open')"
        " AND NOT EXISTS (SELECT 1 FROM mail WHERE mail.person = person.key AND state IN ('queued', 'sending'))"
        " LIMIT ?)",
        (now_ms - keeping.address_ms, _AT_ONCE),
    ).rowcount
    before_ms = now_ms - max(keeping.max_age_ms, LIST_MS) - DAY_MS
    old = "SELECT change_key FROM told WHERE occurred_ms < ? AND taken_ms < ?"
    waits = "SELECT mail FROM notice WHERE mail IS NOT NULL"
    bounds = (before_ms, before_ms)
    told = connection.execute(
        f"DELETE FROM notice WHERE number IN (SELECT number FROM notice WHERE change_key IN ({old}) LIMIT ?)",  # noqa: S608
        (*bounds, _AT_ONCE),
    ).rowcount
    told += connection.execute(
        f"DELETE FROM arrival WHERE rowid IN (SELECT rowid FROM arrival WHERE change_key IN ({old}) LIMIT ?)",  # noqa: S608
        (*bounds, _AT_ONCE),
    ).rowcount
    if not told:
        connection.execute(f"DELETE FROM told WHERE change_key IN ({old} LIMIT ?)", (*bounds, _AT_ONCE))  # noqa: S608
    mails = connection.execute(
        "DELETE FROM mail WHERE number IN (SELECT number FROM mail WHERE state NOT IN ('queued', 'sending')"  # noqa: S608
        f" AND changed_ms < ? AND number NOT IN ({waits}) LIMIT ?)",
        (before_ms, _AT_ONCE),
    ).rowcount
    given_up = outbox.give_up(connection, now_ms)
    identities = connection.execute(
        "DELETE FROM identity WHERE key IN (SELECT key FROM identity WHERE NOT EXISTS"
        " (SELECT 1 FROM arrival WHERE arrival.openid_key = identity.key) LIMIT ?)",
        (_AT_ONCE,),
    ).rowcount
    connection.execute(
        "DELETE FROM person WHERE key IN (SELECT key FROM person WHERE address IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM identity WHERE identity.person = person.key) LIMIT ?)",
        (_AT_ONCE,),
    )
    _age_out(connection, keeping, now_ms)
    lines = audit.forget_before(connection, now_ms - keeping.audit_ms, now_ms)
    return {
        "addresses": addresses,
        "notices": told,
        "mails": mails,
        "given_up": given_up,
        "identities": identities,
        "audit_lines": lines,
    }


def _age_out(connection: sqlite3.Connection, keeping: Keeping, now_ms: int) -> None:
    """Stop asking for addresses that no mail can come of any more."""
    rows = connection.execute(
        "SELECT arrival.rowid, openid_key, change_key FROM arrival JOIN told USING (change_key)"
        " WHERE arrival.state = 'waiting' AND told.occurred_ms < ? LIMIT ?",
        (now_ms - keeping.max_age_ms, _AT_ONCE),
    ).fetchall()
    for rowid, openid_key, change_key in rows:
        connection.execute("UPDATE arrival SET state = 'unknown', body = x'' WHERE rowid = ?", (rowid,))
        audit.note(
            connection,
            now_ms,
            Step.SKIPPED,
            "no address was found before it was too old",
            change_key=change_key,
        )
        connection.execute(
            "UPDATE identity SET state = 'unknown' WHERE key = ? AND state = 'waiting' AND NOT EXISTS"
            " (SELECT 1 FROM arrival WHERE openid_key = ? AND state = 'waiting')",
            (openid_key, openid_key),
        )
