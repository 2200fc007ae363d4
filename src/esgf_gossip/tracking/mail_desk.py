"""
What people ask of mailing: administrators by the command line, receivers by the links in their mails.

Everything is asked and answered in the tracker's thread; what changed takes effect before the next mail goes out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred

from esgf_gossip.tracking import audit, forgetting, holds, notices
from esgf_gossip.tracking.forgetting import OfOpenids
from esgf_gossip.tracking.holds import HoldError, Standing
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.mail_items import WORDS, Item, Successors, date_text, held_datasets, inert, take_now
from esgf_gossip.tracking.mailing import Mailing
from esgf_gossip.tracking.matches import Change, FetchedFile, Match
from esgf_gossip.tracking.preferences import (
    ALL,
    BOUNCED,
    KINDS,
    Preferences,
    check_scope,
    read_preferences,
    resubscribe,
    set_immediate,
    type_scope,
    unsubscribe,
)
from esgf_gossip.tracking.tokens import Purpose, TokenError, read_token

LIST_MOST: Final = 1000
ROWS_ON_A_PAGE: Final = 500


@attrs.frozen
class Row:
    """One dataset of the full list of a mail."""

    dataset: str
    word: str
    successor: str
    date: str
    reason: str
    files: tuple[str, ...]


class MailDesk:
    """
    The counter of one mailing. Every answer is a Deferred, in the reactor's thread.

    Args:
        mailing: that runs.
        also_export: what else is known of OpenIDs, such as downloads.
        also_erase: erases that too; returns counts.
    """

    def __init__(
        self, mailing: Mailing, also_export: OfOpenids | None = None, also_erase: OfOpenids | None = None
    ) -> None:
        self._mailing: Final = mailing
        self._also_export: Final = also_export
        self._also_erase: Final = also_erase

    # Asked by administrators.

    def status(self) -> Mapping[str, Any]:
        """Return counts, the fault if any, and how mail is sent."""
        settings = self._mailing.settings
        return {
            **self._mailing.counts(),
            "fault": self._mailing.fault,
            "server": settings.server,
            "dry_run": settings.dry_run,
            "hold_above": settings.hold_above,
        }

    def changes(self, most: int) -> Deferred[list[dict[str, Any]]]:
        """Fire with the changes that users were matched with, newest first."""
        return self._run(_changes, min(most, LIST_MOST))

    def hold(self, change: str, who: str) -> Deferred[dict[str, Any]]:
        """Hold a change; fails with a HoldError."""
        return self._run(self._hold, change, who, holds.hold)

    def release(self, change: str, who: str) -> Deferred[dict[str, Any]]:
        """Release a change, or ask for it; fails with a HoldError."""
        released = self._run(self._hold, change, who, holds.release)
        return released.addCallback(self._woken)

    def preview(self, change: str, to: str) -> Deferred[dict[str, Any]]:
        """Fire with the mail about a change: as somebody in particular would get it, or to a made-up person."""
        return self._run(self._preview, change, to)

    def log(self, change: str, person: str, most: int) -> Deferred[list[Mapping[str, Any]]]:
        """Fire with lines of the audit."""
        return self._run(self._lines, change, person, most)

    def export(self, who: str) -> Deferred[dict[str, Any]]:
        """Fire with everything that is known of the person with an address or OpenID."""
        return self._run(self._export, who)

    def erase(self, who: str) -> Deferred[dict[str, Any]]:
        """Erase all that; fires with counts."""
        return self._run(self._erase, who)

    # Asked by receivers; all fail with a TokenError where the link is not theirs.

    def unsubscribe(self, token: str) -> Deferred[str]:
        """Unsubscribe; fires with what from. Again does no harm."""
        return self._run(self._unsubscribe, token)

    def scope(self, token: str) -> str:
        """
        Return what a link unsubscribes from; nothing changes.

        Raises:
            TokenError: the link is not ours.
            ScopeError: it names nothing to unsubscribe from.
        """
        return check_scope(read_token(self._mailing.values, Purpose.UNSUBSCRIBE, token)[1])

    def preferences(self, token: str) -> Deferred[Preferences]:
        """Fire with the preferences of who has the link."""
        return self._run(self._preferences, token)

    def choose(
        self, token: str, kinds: frozenset[str], back: Sequence[str], *, is_immediate: bool, nothing: bool
    ) -> Deferred[Preferences]:
        """Note what is wanted: kinds of change, datasets to be told of again, when; or nothing at all."""
        chosen = self._run(self._choose, token, kinds, back, is_immediate=is_immediate, nothing=nothing)
        return chosen.addCallback(self._woken)

    def full_list(self, token: str, page: int) -> Deferred[tuple[list[Row], int]]:
        """Fire with a page of all datasets of a mail, and the number of pages; none: it is kept no longer."""
        return self._run(self._full_list, token, page)

    def _run(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Deferred[Any]:
        return self._mailing.database.run(work, *arguments, **named)

    def _woken(self, answer: Any) -> Any:
        self._mailing.wake()
        return answer

    def _hold(
        self, connection: sqlite3.Connection, change: str, who: str, work: Callable[..., Standing]
    ) -> dict[str, Any]:
        key = holds.find_change(connection, change)
        if work is holds.release:
            self._check_counts(connection, key)
        standing = work(connection, key, who, self._mailing.now_ms())
        return {**attrs.asdict(standing), "change_key": standing.change_key.hex()}

    def _check_counts(self, connection: sqlite3.Connection, key: bytes) -> None:
        known = notices.get_change(connection, key)
        if known is not None and self._mailing.doubts.of(connection, known) == holds.WITHDRAWN:
            raise HoldError(
                f"the change {holds.WITHDRAWN} on this node, so nobody is mailed about it; dataset quarantine says why, "
                "dataset accept lets it count; nothing was changed"
            )

    def _preview(self, connection: sqlite3.Connection, change_text: str, to: str) -> dict[str, Any]:
        values = self._mailing.values
        key = holds.find_change(connection, change_text)
        change = notices.get_change(connection, key)
        assert change is not None
        if to:
            subject = forgetting.find_subject(connection, values, to)
            match = (
                None if subject.person is None else notices.match_of(connection, values, subject.person, key)
            )
            for openid_key, _ in subject.openids:
                match = match or notices.arrived(connection, values, openid_key, key)
            if match is None:
                raise HoldError(
                    "nobody of that address or OpenID was matched with this change", is_missing=True
                )
        else:
            match = made_up_match(change)
        issues = tuple(self._mailing.issues_of(connection, match.datasets or change.datasets))
        successors = partial(self._mailing.successor_of, connection)
        subject_line, plain, html = self._mailing.text.preview([Item(change, match, issues)], successors)
        standing = holds.standing(connection, key)
        return {
            "change": key.hex(),
            "state": standing.state,
            "held_by": standing.held_by,
            "recipients": standing.recipients,
            "made_up": not to,
            "subject": subject_line,
            "text": plain,
            "html": html,
        }

    def _lines(
        self, connection: sqlite3.Connection, change: str, person: str, most: int
    ) -> list[Mapping[str, Any]]:
        key = holds.find_change(connection, change) if change else None
        who = None
        if person:
            who = forgetting.find_subject(connection, self._mailing.values, person).person
            if who is None:
                return []
        return audit.lines(connection, most, change_key=key, person=who)

    def _export(self, connection: sqlite3.Connection, who: str) -> dict[str, Any]:
        values = self._mailing.values
        subject = forgetting.find_subject(connection, values, who)
        return forgetting.export_subject(connection, values, subject, self._also_export)

    def _erase(self, connection: sqlite3.Connection, who: str) -> dict[str, Any]:
        subject = forgetting.find_subject(connection, self._mailing.values, who)
        return forgetting.erase_subject(connection, subject, self._mailing.now_ms(), self._also_erase)

    def _unsubscribe(self, connection: sqlite3.Connection, token: str) -> str:
        person, scope = read_token(self._mailing.values, Purpose.UNSUBSCRIBE, token)
        unsubscribe(connection, person, check_scope(scope), self._mailing.now_ms())
        return scope

    def _preferences(self, connection: sqlite3.Connection, token: str) -> Preferences:
        return read_preferences(connection, self._person(Purpose.PREFERENCES, token))

    def _choose(
        self,
        connection: sqlite3.Connection,
        token: str,
        kinds: frozenset[str],
        back: Sequence[str],
        *,
        is_immediate: bool,
        nothing: bool,
    ) -> Preferences:
        person, now_ms = self._person(Purpose.PREFERENCES, token), self._mailing.now_ms()
        if nothing:
            unsubscribe(connection, person, ALL, now_ms)
            return read_preferences(connection, person)
        before = read_preferences(connection, person).unwanted
        for kind in KINDS:
            if kind in kinds:
                resubscribe(connection, person, type_scope(kind), now_ms)
            else:
                unsubscribe(connection, person, type_scope(kind), now_ms)
        for scope in before.intersection(back):
            resubscribe(connection, person, scope, now_ms)
        if before & {ALL, BOUNCED}:
            resubscribe(connection, person, ALL, now_ms)
        set_immediate(connection, person, now_ms, is_immediate=is_immediate)
        return read_preferences(connection, person)

    def _person(self, purpose: Purpose, token: str) -> bytes:
        return read_token(self._mailing.values, purpose, token)[0]

    def _full_list(self, connection: sqlite3.Connection, token: str, page: int) -> tuple[list[Row], int]:
        values = self._mailing.values
        person, mail = read_token(values, Purpose.LIST, token)
        if not mail.isdecimal():
            raise TokenError("the token names no mail")
        keys = connection.execute(
            "SELECT change_key FROM notice WHERE mail = ? AND person = ? ORDER BY number", (int(mail), person)
        ).fetchall()
        rows: list[Row] = []
        successors = cache(partial(self._mailing.successor_of, connection))
        begin, count = page * ROWS_ON_A_PAGE, 0
        for (key,) in keys:
            change, match = (
                notices.get_change(connection, key),
                notices.match_of(connection, values, person, key),
            )
            if change is None or match is None:
                continue
            for dataset in held_datasets(Item(change, match)):
                if begin <= count < begin + ROWS_ON_A_PAGE:
                    rows.append(_row(change, match, dataset, successors))
                count += 1
        return rows, -(-count // ROWS_ON_A_PAGE)


def made_up_match(change: Change) -> Match:
    """Return what a person could hold of a change: the versions it is about, and one file."""
    datasets = change.datasets[:3]
    if change.supersedes and datasets:
        datasets = (attrs.evolve(datasets[0], version=change.supersedes[0]),)
    files = tuple(
        FetchedFile(one, "made-up-file.nc", "data.example.org", change.occurred_ms) for one in datasets[:1]
    )
    return Match(change.key, "made-up", files, len(files), datasets, len(datasets), change.occurred_ms)


def _row(change: Change, match: Match, dataset: DatasetId, successors: Successors) -> Row:
    successor = take_now(change, dataset, successors)
    return Row(
        dataset=str(dataset),
        word=WORDS.get(change.kind, inert(change.kind)),
        successor="" if successor is None else str(successor),
        date=date_text(change.occurred_ms),
        reason=inert(change.reason or change.title),
        files=tuple(inert(file.name) for file in match.files if file.dataset == dataset),
    )


def _changes(connection: sqlite3.Connection, most: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT change_key, kind, occurred_ms, state, recipients, held_by, asked_by, released_by FROM told"
        " ORDER BY taken_ms DESC LIMIT ?",
        (most,),
    ).fetchall()
    names = ("change", "kind", "occurred_ms", "state", "recipients", "held_by", "asked_by", "released_by")
    told = []
    for row in rows:
        body = dict(zip(names, row, strict=True))
        change = notices.get_change(connection, row[0])
        assert change is not None
        states = dict(
            connection.execute(
                "SELECT coalesce(mail.state, notice.state), count(*) FROM notice LEFT JOIN mail ON mail.number = notice.mail"
                " WHERE change_key = ? GROUP BY 1",
                (row[0],),
            ).fetchall()
        )
        name = str(change.datasets[0]) if change.datasets else ""
        body |= {
            "change": row[0].hex(),
            "dataset": name,
            "datasets": len(change.datasets),
            "persons": states,
        }
        told.append(body)
    return told
