"""
The audit of notifications: what was done with every change and every mail, appended and never changed.

Persons stand in it as keyed hashes; no address, no OpenID, and of an SMTP server's words only what names nobody.
Triggers of the database keep it: a line can lose its person (an erasure, which is counted), and lines older than the
floor can go; nothing else. Source: docs/tracking.md, "The mail".
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

DETAIL_CHARACTERS: Final = 160
LINES_MOST: Final = 10_000

SCRIPT: Final = """
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, step TEXT NOT NULL,
    change_key BLOB, person BLOB, mail INTEGER, code INTEGER, detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_change ON audit (change_key) WHERE change_key IS NOT NULL;
CREATE INDEX audit_person ON audit (person) WHERE person IS NOT NULL;
CREATE INDEX audit_mail ON audit (mail) WHERE mail IS NOT NULL;
CREATE TABLE audit_floor (one INTEGER PRIMARY KEY CHECK (one = 1), before_ms INTEGER NOT NULL) STRICT;
INSERT INTO audit_floor VALUES (1, 0);
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
WHEN NOT (
    OLD.person IS NOT NULL AND NEW.person IS NULL AND NEW.number IS OLD.number AND NEW.at_ms IS OLD.at_ms
    AND NEW.step IS OLD.step AND NEW.change_key IS OLD.change_key AND NEW.mail IS OLD.mail
    AND NEW.code IS OLD.code AND NEW.detail IS OLD.detail
)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_grows BEFORE DELETE ON audit
WHEN OLD.at_ms >= (SELECT before_ms FROM audit_floor)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_floor_rises BEFORE UPDATE ON audit_floor WHEN NEW.before_ms < OLD.before_ms
BEGIN SELECT RAISE(ABORT, 'the floor of the audit only rises'); END
"""

# Anything with an @ in it may be an address, whatever stands around it.
_ADDRESS: Final = re.compile(r"\S*@\S*")


class Step(StrEnum):
    """What is noted; the values are what the command line shows."""

    MATCHED = "matched"
    NOTICE = "notice"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    HELD = "held"
    ASKED = "release-asked"
    RELEASED = "released"
    QUEUED = "queued"
    ATTEMPT = "attempt"
    SENT = "sent"
    RETRY = "retry"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RECONCILED = "reconciled"
    PREFERENCES = "preferences"
    ERASED = "erased"
    FORGOTTEN = "forgotten"


def nameless(text: str) -> str:
    """Return a text in one short line without anything that could be an address."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return _ADDRESS.sub("<address>", " ".join(line.split()))[:DETAIL_CHARACTERS]


def note(
    connection: sqlite3.Connection,
    at_ms: int,
    step: Step,
    detail: str = "",
    *,
    change_key: bytes | None = None,
    person: bytes | None = None,
    mail: int | None = None,
    code: int | None = None,
) -> None:
    """Append one line, in the transaction of what it tells."""
    connection.execute(
        "INSERT INTO audit (at_ms, step, change_key, person, mail, code, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (at_ms, step, change_key, person, mail, code, nameless(detail)),
    )


def lines(
    connection: sqlite3.Connection,
    most: int,
    *,
    change_key: bytes | None = None,
    person: bytes | None = None,
) -> list[Mapping[str, Any]]:
    """Return the newest lines, oldest of them first: all, or of one change (with its mails), or of one person."""
    where, values = ["1"], list[Any]()
    if change_key is not None:
        where.append("(change_key = ? OR mail IN (SELECT mail FROM audit WHERE change_key = ?))")
        values += [change_key, change_key]
    if person is not None:
        where.append("person = ?")
        values.append(person)
    rows = connection.execute(
        "SELECT number, at_ms, step, change_key, person, mail, code, detail FROM audit"  # noqa: S608 - texts of ours
        f" WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?",
        (*values, min(most, LINES_MOST)),
    ).fetchall()
    names = ("number", "at_ms", "step", "change", "person", "mail", "code", "detail")
    return [
        {
            name: value.hex() if isinstance(value, bytes) else value
            for name, value in zip(names, row, strict=True)
        }
        for row in reversed(rows)
    ]


def erase_person(connection: sqlite3.Connection, person: bytes, now_ms: int) -> int:
    """Take a person out of all lines; return their number, which is noted."""
    count = connection.execute("UPDATE audit SET person = NULL WHERE person = ?", (person,)).rowcount
    note(connection, now_ms, Step.ERASED, f"a person was taken out of {count} lines")
    return count


def forget_before(connection: sqlite3.Connection, before_ms: int, now_ms: int) -> int:
    """Drop lines older than a time; return their number, which is noted."""
    connection.execute("UPDATE audit_floor SET before_ms = max(before_ms, ?)", (before_ms,))
    count = connection.execute("DELETE FROM audit WHERE at_ms < ?", (before_ms,)).rowcount
    if count:
        note(connection, now_ms, Step.FORGOTTEN, f"{count} lines were older than they are kept")
    return count
