"""
Digests: when the notices of a person become one mail.

After a quiet period since the last of them, or the longest delay since the first, whichever is sooner; retractions at
once where the person chose so. Rendering, outbox and notices change in one transaction. Source: docs/tracking.md,
"The mail".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import Final

import attrs
from twisted.logger import Logger

from esgf_gossip.tracking import audit, holds, notices, outbox, persons
from esgf_gossip.tracking.audit import Step
from esgf_gossip.tracking.doubts import Doubts
from esgf_gossip.tracking.events import EventType
from esgf_gossip.tracking.mail_text import IssuesOf, Item, MailText, SuccessorOf
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.preferences import Preferences, read_preferences
from esgf_gossip.tracking.tokens import envelope_address
from esgf_gossip.trust.sealed_values import SealedValues

# Persons in one transaction: some tenths of a second of the tracker's thread.
PERSONS_AT_ONCE: Final = 20
# Notices that one mail holds; the others of a person follow in a second one.
NOTICES_MOST: Final = 5000
_POSTPONED_MS: Final = 600_000

_log = Logger()


@attrs.frozen
class Window:
    """
    When a mail is due.

    Args:
        quiet_ms: after the last notice.
        max_delay_ms: after the first, however many follow.
        max_age_ms: of a change; nothing older is mailed.
    """

    quiet_ms: int
    max_delay_ms: int
    max_age_ms: int


@attrs.frozen
class Due:
    """Who is due for a mail, for the retractions alone or for everything; and when the next person is."""

    persons: tuple[tuple[bytes, bool], ...]
    next_ms: int | None


def due_persons(
    connection: sqlite3.Connection, window: Window, now_ms: int, most: int, without: Collection[bytes] = ()
) -> Due:
    """Return the persons whose mails are due, those that waited longest first, without some."""
    rows = connection.execute(
        "SELECT notice.person, min(min(made_ms) + ?, max(made_ms) + ?) AS due_ms,"
        " min(CASE WHEN kind = ? AND is_immediate THEN made_ms END) AS at_once_ms"
        " FROM notice JOIN told USING (change_key) LEFT JOIN wish ON wish.person = notice.person"
        " WHERE notice.state = 'open' AND told.state IN ('open', 'released') GROUP BY notice.person"
        " ORDER BY min(due_ms, coalesce(at_once_ms, due_ms)) LIMIT ?",
        (window.max_delay_ms, window.quiet_ms, EventType.RETRACTED, most + 1 + len(without)),
    ).fetchall()
    rows = [row for row in rows if row[0] not in without]
    due = [
        (person, due_ms > now_ms)
        for person, due_ms, at_once_ms in rows
        if due_ms <= now_ms or at_once_ms is not None
    ]
    later = [row[1] for row in rows if row[1] > now_ms and row[2] is None]
    return Due(tuple(due[:most]), now_ms if len(due) > most else min(later, default=None))


@attrs.frozen
class _Notice:
    number: int
    change: Change
    occurred_ms: int


IsTold = Callable[[sqlite3.Connection, str, bytes], bool]


def untold(_connection: sqlite3.Connection, _openid: str, _change_key: bytes) -> bool:
    """Tell that nobody else writes to users."""
    return False


class DigestMaker:
    """
    Makes mails of notices, in the tracker's thread.

    Args:
        values: seals and hashes.
        window: when a mail is due.
        text: renders it.
        sender: address mails come from, without the part that is different in each.
        successor_of: what is to be taken in place of a version, by the ledger; called in the tracker's thread.
        issues_of: errata of datasets, by the local copy; called in the tracker's thread.
        is_dry_run: render and keep, send nothing.
        is_told: whether another node has told the bearer of an OpenID of a change.
        doubts: which changes wait for people.
    """

    def __init__(
        self,
        values: SealedValues,
        window: Window,
        text: MailText,
        sender: str,
        successor_of: SuccessorOf,
        issues_of: IssuesOf,
        *,
        is_dry_run: bool,
        is_told: IsTold = untold,
        doubts: Doubts = Doubts(),  # noqa: B008 - frozen
    ) -> None:
        self._values: Final = values
        self._window: Final = window
        self._text: Final = text
        self._sender: Final = sender
        self._successor_of: Final = successor_of
        self._issues_of: Final = issues_of
        self._is_dry_run: Final = is_dry_run
        self._is_told: Final = is_told
        self._doubts: Final = doubts
        self._broken: Final[set[bytes]] = set()

    def queue_due(
        self, connection: sqlite3.Connection, now_ms: int, most: int = PERSONS_AT_ONCE
    ) -> tuple[int, int | None]:
        """Queue the mails that are due, of so many persons; return how many, and when to call again (None: when woken)."""
        # Before that, so that it is seen as held however long a mail about it would wait.
        self._doubts.review(connection, now_ms)
        due = due_persons(connection, self._window, now_ms, most, self._broken)
        count = 0
        for person, only_retractions in due.persons:
            connection.execute("SAVEPOINT one_person")
            try:
                count += self._queue_one(connection, person, now_ms, only_retractions=only_retractions)
            except (sqlite3.Error, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 - a fault with one person's mail must not keep all others from theirs
                connection.execute("ROLLBACK TO one_person")
                self._broken.add(person)
                # Its text could hold an address.
                _log.error("A mail could not be made: {kind}", kind=type(error).__name__)
            connection.execute("RELEASE one_person")
        return count, due.next_ms

    @property
    def fault(self) -> str:
        """What the operator must know: mails that could not be made; empty: nothing."""
        if not self._broken:
            return ""
        return f"the mails of {len(self._broken)} persons could not be made, a fault of this program; they wait for a restart"

    def _queue_one(
        self, connection: sqlite3.Connection, person: bytes, now_ms: int, *, only_retractions: bool
    ) -> bool:
        preferences = read_preferences(connection, person)
        address, domain = persons.address_of(connection, self._values, person)
        wanted: list[tuple[_Notice, Item]] = []
        for notice in _open_notices(connection, person, only_retractions=only_retractions):
            if self._is_held_now(connection, notice.change, now_ms):
                continue
            match = notices.match_of(connection, self._values, person, notice.change.key)
            why_not = self._why_not(connection, person, notice, match, preferences, now_ms)
            if not address:
                why_not = why_not or "the address is forgotten"
            if why_not or match is None:
                _skip(connection, person, notice, why_not or "nothing is known of it any more", now_ms)
            else:
                issues = tuple(self._issues_of(connection, match.datasets or notice.change.datasets))
                wanted.append((notice, Item(notice.change, match, issues)))
        if not wanted:
            return False
        number = outbox.new_number(connection, person, domain, now_ms)
        message_id = self._text.message_id(number, person, now_ms)
        # A mail that is too large is made again, with less in it.
        successors = cache(partial(self._successor_of, connection))
        items = [item for _, item in wanted]
        message = self._text.render(items, successors, address, person, number, message_id, now_ms)
        envelope = envelope_address(self._values, self._sender, number)
        outbox.fill(
            connection,
            self._values,
            number,
            message_id,
            envelope,
            address,
            message,
            dry_run=self._is_dry_run,
        )
        detail = "a dry run: not sent" if self._is_dry_run else ""
        for notice, _ in wanted:
            connection.execute(
                "UPDATE notice SET state = 'mailed', mail = ? WHERE number = ?", (number, notice.number)
            )
            audit.note(
                connection,
                now_ms,
                Step.QUEUED,
                detail,
                change_key=notice.change.key,
                person=person,
                mail=number,
            )
        return True

    def _is_held_now(self, connection: sqlite3.Connection, change: Change, now_ms: int) -> bool:
        """Hold a change that is in doubt; tell whether it is not to be mailed."""
        word = self._doubts.of(connection, change)
        return bool(word) and holds.hold_by_rule(connection, change.key, word, now_ms)

    def _why_not(
        self,
        connection: sqlite3.Connection,
        person: bytes,
        notice: _Notice,
        match: Match | None,
        preferences: Preferences,
        now_ms: int,
    ) -> str:
        if now_ms - notice.occurred_ms > self._window.max_age_ms:
            return "older than what is mailed"
        if persons.is_buried(connection, person, notice.occurred_ms):
            return "the person was erased"
        if not preferences.wants(notice.change, () if match is None else match.datasets):
            return "unsubscribed"
        # Another node may have stood in while this one was away.
        openids = persons.openids_of(connection, self._values, person)
        if any(self._is_told(connection, openid, notice.change.key) for _, openid in openids):
            return "told by another node"
        return ""

    def still_wanted(self, connection: sqlite3.Connection, number: int, now_ms: int) -> bool:
        """
        Tell whether a queued mail may go out; one that may not is cancelled, or taken back so that it is made anew.

        What its receiver unsubscribed from meanwhile, and what is held meanwhile, is not in a mail that goes out;
        unless it may have gone out already.
        """
        person, ambiguous_ms = connection.execute(
            "SELECT person, ambiguous_ms FROM mail WHERE number = ?", (number,)
        ).fetchone()
        preferences = read_preferences(connection, person)
        is_choosy = any(scope.startswith("dataset:") for scope in preferences.unwanted)
        held, unwanted, count = False, list[tuple[_Notice, str]](), 0
        for notice, state in _notices_of(connection, number):
            count += 1
            held = held or state == "held" or self._is_held_now(connection, notice.change, now_ms)
            key = notice.change.key
            match = notices.match_of(connection, self._values, person, key) if is_choosy else None
            why_not = self._why_not(connection, person, notice, match, preferences, now_ms)
            if why_not:
                unwanted.append((notice, why_not))
        if count and len(unwanted) < count and not held and (not unwanted or ambiguous_ms is not None):
            return True
        if held and ambiguous_ms is not None:
            connection.execute(
                "UPDATE mail SET due_ms = ? WHERE number = ?", (now_ms + _POSTPONED_MS, number)
            )
            return False
        for notice, why_not in unwanted:
            _skip(connection, person, notice, why_not, now_ms)
        connection.execute(
            "UPDATE notice SET state = 'open', mail = NULL WHERE mail = ? AND state = 'mailed'", (number,)
        )
        outbox.finish(
            connection, number, "cancelled", now_ms, "held or not wanted any more, in whole or in part"
        )
        return False


def _open_notices(
    connection: sqlite3.Connection, person: bytes, *, only_retractions: bool
) -> Sequence[_Notice]:
    rows = connection.execute(
        "SELECT number, change_key, occurred_ms FROM notice JOIN told USING (change_key)"
        " WHERE person = ? AND notice.state = 'open' AND told.state IN ('open', 'released') AND (kind = ? OR NOT ?)"
        " ORDER BY made_ms, number LIMIT ?",
        (person, EventType.RETRACTED, only_retractions, NOTICES_MOST),
    ).fetchall()
    return [_read(connection, *row) for row in rows]


def _notices_of(connection: sqlite3.Connection, mail: int) -> Sequence[tuple[_Notice, str]]:
    rows = connection.execute(
        "SELECT number, change_key, occurred_ms, told.state FROM notice JOIN told USING (change_key) WHERE mail = ?",
        (mail,),
    ).fetchall()
    return [(_read(connection, *row[:3]), row[3]) for row in rows]


def _read(connection: sqlite3.Connection, number: int, change_key: bytes, occurred_ms: int) -> _Notice:
    change = notices.get_change(connection, change_key)
    assert change is not None
    return _Notice(number, change, occurred_ms)


def _skip(connection: sqlite3.Connection, person: bytes, notice: _Notice, why: str, now_ms: int) -> None:
    connection.execute("UPDATE notice SET state = 'skipped', mail = NULL WHERE number = ?", (notice.number,))
    audit.note(connection, now_ms, Step.SKIPPED, why, change_key=notice.change.key, person=person)
