"""
The outbox: whole mails on disk, from the transaction that marked their notices to the answer of the SMTP server.

A mail is ``queued``, ``sending`` (written before the first byte goes out), then ``sent``, ``failed`` or ``cancelled``;
``dry`` where nothing is sent at all. One that was ``sending`` when the daemon ended may have arrived: it is ambiguous,
is looked for in the log of the mail server where there is one, and else goes out again with the same Message-ID.
Source: RFC 5321, section 6.1; docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from enum import StrEnum
from random import Random
from typing import Any, Final

import attrs

from esgf_gossip.core import packing
from esgf_gossip.tracking import audit
from esgf_gossip.tracking.audit import Step
from esgf_gossip.tracking.backoff import delay_ms
from esgf_gossip.trust.sealed_values import SealedValues

FIRST_RETRY_MS: Final = 5 * 60_000
# Of one whose connection ended first: most likely not for its sake.
FIRST_UNSENT_MS: Final = 20_000
LAST_RETRY_MS: Final = 4 * 3_600_000
GIVE_UP_MS: Final = 5 * 86_400_000
# A mail server's log that cannot be read holds a mail up for so long; a second mail is better than none.
RECONCILE_MOST_MS: Final = 3_600_000
RECONCILE_BATCH: Final = 1000

SCRIPT: Final = """
CREATE TABLE mail (
    number INTEGER PRIMARY KEY AUTOINCREMENT, person BLOB NOT NULL, message_id TEXT NOT NULL UNIQUE,
    domain BLOB NOT NULL, sealed BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'cancelled', 'dry')),
    tries INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL, queued_ms INTEGER NOT NULL,
    ambiguous_ms INTEGER, changed_ms INTEGER NOT NULL, code INTEGER
) STRICT;
CREATE INDEX mail_due ON mail (state, due_ms, domain, ambiguous_ms);
CREATE INDEX mail_ambiguous ON mail (ambiguous_ms) WHERE state = 'queued' AND ambiguous_ms IS NOT NULL;
CREATE INDEX mail_person ON mail (person)
"""


class Result(StrEnum):
    """What came of one attempt."""

    ACCEPTED = "accepted"
    # The server said no; ``code`` says whether for now (4xx) or for good (5xx).
    REFUSED = "refused"
    # The connection ended before the content was out: it cannot have arrived.
    UNSENT = "unsent"
    # It ended after that: it may have arrived.
    UNKNOWN = "unknown"


@attrs.frozen
class Outcome:
    """One attempt: what came of it, the reply code (0: none), the server's words."""

    result: Result
    code: int = 0
    text: str = attrs.field(default="", repr=False)


@attrs.frozen
class Mail:
    """One mail to send: from whom by the envelope, to whom, and its bytes."""

    number: int
    domain: bytes
    sender: str = attrs.field(repr=False)
    recipient: str = attrs.field(repr=False)
    message: bytes = attrs.field(repr=False)


def new_number(connection: sqlite3.Connection, person: bytes, domain: bytes, now_ms: int) -> int:
    """Reserve the number of a mail, which its links and its return path are made of; ``fill`` follows."""
    cursor = connection.execute(
        "INSERT INTO mail (person, message_id, domain, sealed, state, due_ms, queued_ms, changed_ms)"
        " VALUES (?, 'new', ?, x'', 'dry', ?, ?, ?)",
        (person, domain, now_ms, now_ms, now_ms),
    )
    return int(cursor.lastrowid or 0)


def fill(
    connection: sqlite3.Connection,
    values: SealedValues,
    number: int,
    message_id: str,
    sender: str,
    recipient: str,
    message: bytes,
    *,
    dry_run: bool,
) -> None:
    """Put a rendered mail under its number, to be sent; or only to be looked at."""
    content = packing.pack([sender, recipient, message])
    connection.execute(
        "UPDATE mail SET message_id = ?, sealed = ?, state = ? WHERE number = ?",
        (message_id, values.seal(content, _context(number)), "dry" if dry_run else "queued", number),
    )


def recover(connection: sqlite3.Connection, now_ms: int) -> int:
    """Put back what was being sent when the daemon ended, as ambiguous; return how many."""
    return connection.execute(
        "UPDATE mail SET state = 'queued', due_ms = ?, ambiguous_ms = ?, changed_ms = ? WHERE state = 'sending'",
        (now_ms, now_ms, now_ms),
    ).rowcount


def next_due(
    connection: sqlite3.Connection, full: Collection[bytes], *, is_reconciled: bool
) -> tuple[int, int] | None:
    """Return number and time of the next mail whose domain may be mailed to; None: none waits."""
    marks = ",".join("?" * len(full))
    ambiguous = "AND ambiguous_ms IS NULL" if is_reconciled else ""
    row = connection.execute(
        f"SELECT number, due_ms FROM mail WHERE state = 'queued' AND domain NOT IN ({marks}) {ambiguous}"  # noqa: S608
        " ORDER BY due_ms LIMIT 1",
        tuple(full),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def claim(connection: sqlite3.Connection, values: SealedValues, number: int, now_ms: int) -> Mail:
    """Mark a mail as being sent and return it; on disk when the transaction is, before its first byte goes out."""
    connection.execute("UPDATE mail SET state = 'sending', changed_ms = ? WHERE number = ?", (now_ms, number))
    domain, sealed = connection.execute(
        "SELECT domain, sealed FROM mail WHERE number = ?", (number,)
    ).fetchone()
    sender, recipient, message = packing.array(
        packing.unpack(values.open(sealed, _context(number))), 3, "a mail"
    )
    return Mail(number, domain, str(sender), str(recipient), bytes(message))


def settle(connection: sqlite3.Connection, mail: Mail, outcome: Outcome, now_ms: int, random: Random) -> str:
    """Note what came of an attempt; return the state the mail has now, empty where it was erased meanwhile."""
    row = connection.execute(
        "SELECT person, tries, queued_ms FROM mail WHERE number = ? AND state = 'sending'", (mail.number,)
    ).fetchone()
    if row is None:
        return ""
    person, tries, queued_ms = row[0], row[1] + 1, row[2]
    code = outcome.code or None
    audit.note(
        connection,
        now_ms,
        Step.ATTEMPT,
        f"{outcome.result}: {outcome.text}",
        person=person,
        mail=mail.number,
        code=code,
    )
    if outcome.result is Result.ACCEPTED:
        return finish(connection, mail.number, "sent", now_ms, code=code)
    if outcome.result is Result.REFUSED and outcome.code >= 500:
        return finish(connection, mail.number, "failed", now_ms, "refused for good", code=code)
    if now_ms - queued_ms >= GIVE_UP_MS:
        return finish(connection, mail.number, "failed", now_ms, "given up after five days", code=code)
    first_ms = FIRST_UNSENT_MS if outcome.result is Result.UNSENT else FIRST_RETRY_MS
    wait_ms = delay_ms(tries, first_ms, LAST_RETRY_MS, random)
    connection.execute(
        "UPDATE mail SET state = 'queued', tries = ?, due_ms = ?, code = ?, changed_ms = ?, ambiguous_ms = ?"
        " WHERE number = ?",
        (
            tries,
            now_ms + wait_ms,
            code,
            now_ms,
            now_ms if outcome.result is Result.UNKNOWN else None,
            mail.number,
        ),
    )
    audit.note(connection, now_ms, Step.RETRY, f"in {wait_ms // 1000} s", person=person, mail=mail.number)
    return "queued"


_STEPS: Final[Mapping[str, Step]] = {
    "sent": Step.SENT,
    "failed": Step.FAILED,
    "cancelled": Step.CANCELLED,
}


def finish(
    connection: sqlite3.Connection,
    number: int,
    state: str,
    now_ms: int,
    detail: str = "",
    *,
    code: int | None = None,
) -> str:
    """End a mail; its content is not kept."""
    row = connection.execute("SELECT person FROM mail WHERE number = ?", (number,)).fetchone()
    connection.execute(
        "UPDATE mail SET state = ?, code = coalesce(?, code), changed_ms = ?, ambiguous_ms = NULL, sealed = x''"
        " WHERE number = ?",
        (state, code, now_ms, number),
    )
    audit.note(connection, now_ms, _STEPS[state], detail, person=row and row[0], mail=number, code=code)
    return state


def ambiguous(connection: sqlite3.Connection, now_ms: int, settle_ms: int) -> dict[str, int]:
    """Return Message-ID and number of mails that may have arrived and are due, of those that became so long enough ago."""
    rows = connection.execute(
        "SELECT message_id, number FROM mail INDEXED BY mail_ambiguous WHERE state = 'queued' AND max(ambiguous_ms + ?, due_ms) <= ?"
        " AND ambiguous_ms IS NOT NULL LIMIT ?",
        (settle_ms, now_ms, RECONCILE_BATCH),
    )
    return {message_id: number for message_id, number in rows}  # noqa: C416 - rows are tuples of a cursor


def next_ambiguous_ms(connection: sqlite3.Connection, settle_ms: int) -> int | None:
    """Return when the next ambiguous mail is to be looked for; None: there is none."""
    row = connection.execute(
        "SELECT min(max(ambiguous_ms + ?, due_ms)) FROM mail INDEXED BY mail_ambiguous WHERE state = 'queued' AND ambiguous_ms IS NOT NULL",
        (settle_ms,),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def reconcile(
    connection: sqlite3.Connection, asked: Mapping[str, int], accepted: Collection[str], now_ms: int
) -> int:
    """Note which of the ambiguous mails the mail server took; the others may be sent. Return how many it took."""
    for message_id, number in asked.items():
        still = connection.execute(
            "SELECT person FROM mail WHERE number = ? AND state = 'queued'", (number,)
        ).fetchone()
        if still is None:
            continue
        taken = message_id in accepted
        detail = (
            "the mail server's log has it" if taken else "the mail server's log has it not: to be sent again"
        )
        audit.note(connection, now_ms, Step.RECONCILED, detail, person=still[0], mail=number)
        if taken:
            finish(connection, number, "sent", now_ms, "by the mail server's log")
        else:
            connection.execute("UPDATE mail SET ambiguous_ms = NULL WHERE number = ?", (number,))
    return len(set(asked) & set(accepted))


def give_up(connection: sqlite3.Connection, now_ms: int) -> int:
    """End mails that waited longer than five days, such as those of a server that never answered."""
    rows = connection.execute(
        "SELECT number FROM mail WHERE state = 'queued' AND queued_ms < ?", (now_ms - GIVE_UP_MS,)
    ).fetchall()
    for (number,) in rows:
        finish(connection, number, "failed", now_ms, "given up after five days")
    return len(rows)


def counts(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return how many mails there are by state, how many of the queued were tried, and since when the oldest waits."""
    by_state = dict(connection.execute("SELECT state, count(*) FROM mail GROUP BY state").fetchall())
    retried, oldest_ms = connection.execute(
        "SELECT count(*) FILTER (WHERE tries > 0), min(queued_ms) FROM mail WHERE state IN ('queued', 'sending')"
    ).fetchone()
    return {"by_state": by_state, "retried": retried, "oldest_ms": oldest_ms}


def _context(number: int) -> str:
    return f"mail/{number}"
