"""
Tells users whose home node stays away: claims them, waits for its turn, finds the address, hands them to the own mail.

Of the nodes that matched a user one tells him: the first by rendezvous hash that can. All say so in their logs, by
tokens that hide the user. Source: docs/adr/0022-home-nodes.md.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred

from esgf_gossip.tracking import homeward_rows as rows
from esgf_gossip.tracking.changes import get_change
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.events import Claim
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.trust.sealed_values import SealedValues

# Users whose addresses are asked for at the same time; their providers have a pace of their own.
USERS_AT_ONCE: Final = 20


class Fallback:
    """
    The fallback of a node.

    Args:
        database: has the tables of ``homeward_rows.SCRIPT``, ``changes.SCRIPT`` and ``claim``.
        sealed: as of the rows.
        own: this node.
        publish_claims: appends claims to the own log; fires when they are on the disk.
        resolve: finds the address of a user.
        take: the own mail, as of ``homeward.Take``.
        may_act: whether this node may tell users of a home now (``homes.sees_most``).
        now_ms: the wall clock.
        after_ms: a home is away once it has not answered for so long.
    """

    def __init__(
        self,
        database: TrackingDatabase,
        sealed: SealedValues,
        own: str,
        *,
        publish_claims: Callable[[Sequence[Claim]], "Deferred[Any] | None"],
        resolve: Callable[[str], "Deferred[Resolution]"],
        take: Callable[[sqlite3.Connection, Change, Sequence[Match], str, int], object],
        may_act: Callable[[str], bool],
        now_ms: Callable[[], int],
        after_ms: int,
    ) -> None:
        self._database: Final = database
        self._sealed: Final = sealed
        self._own: Final = own
        self._publish_claims: Final = publish_claims
        self._resolve: Final = resolve
        self._take: Final = take
        self._may_act: Final = may_act
        self._now_ms: Final = now_ms
        self._after_ms: Final = after_ms
        # Why claims are not said, in one line; empty while they are.
        self.fault = ""
        # What became of users since the start: claimed, told, stood_down; unknown and unresolved at each try.
        self.counts: Final[Counter[str]] = Counter()

    @inlineCallbacks
    def step(self, away: Mapping[str, int]) -> Iterator[Any]:
        """
        Do what is due.

        Args:
            away: the homes that do not answer, and when each last did (Unix milliseconds, 0: never).
        """
        yield self._tell_others()
        now_ms = self._now_ms()
        homes = {
            home
            for home, answered_ms in away.items()
            if now_ms - answered_ms >= self._after_ms and self._may_act(home)
        }
        for home in sorted(homes):
            yield self._claim(home, now_ms)
        after = 0
        while True:
            turns, after, stood_down = yield self._database.run(
                rows.my_turns, self._sealed, self._own, homes, self._now_ms(), after
            )
            self.counts["stood_down"] += stood_down
            for start in range(0, len(turns), USERS_AT_ONCE):
                yield self._tell_users(turns[start : start + USERS_AT_ONCE])
            if not after:
                return

    @inlineCallbacks
    def _claim(self, home: str, now_ms: int) -> Iterator[Any]:
        while True:
            claimed, told = yield self._database.run(
                rows.to_claim, self._sealed, home, now_ms - self._after_ms
            )
            self.counts["stood_down"] += told
            if claimed:
                # Said before it is noted: said twice does no harm, noted and not said would.
                is_said = yield self._said([Claim(token, is_sent=False) for _, token in claimed])
                if not is_said:
                    return
                yield self._database.run(rows.note_claimed, claimed, self._now_ms())
                self.counts["claimed"] += len(claimed)
            if not claimed and not told:
                return

    @inlineCallbacks
    def _tell_users(self, turns: Sequence[rows.Row]) -> Iterator[Any]:
        asked = [(row, self._resolve(row.match.openid)) for row in turns]
        for row, resolving in asked:
            found: Resolution = yield resolving
            if found.finding is not Finding.FOUND:
                # In a later turn, this node's or another's; the home, once it is back, knows its users best.
                self.counts["unknown" if found.finding is Finding.UNKNOWN else "unresolved"] += 1
            elif (yield self._database.run(self._hand_over, row)):
                self.counts["told"] += 1
        yield self._tell_others()

    def _hand_over(self, connection: sqlite3.Connection, row: rows.Row) -> bool:
        if not rows.is_still_mine(connection, row):
            return False
        change = get_change(connection, row.match.change_key)
        if change is None:
            return False
        self._take(connection, change, [row.match], self._own, self._now_ms())
        rows.note_told(connection, row, self._now_ms())
        return True

    @inlineCallbacks
    def _tell_others(self) -> Iterator[Any]:
        """Say what was told, also what an end of the daemon left unsaid; it is forgotten once it is said."""
        while told := (yield self._database.run(rows.told)):
            is_said = yield self._said([Claim(token, is_sent=True) for _, token in told])
            if not is_said:
                return
            yield self._database.run(rows.remove, [number for number, _ in told])

    @inlineCallbacks
    def _said(self, claims: Sequence[Claim]) -> Iterator[Any]:
        """Fire with whether claims are in the own log; if not they are said in a later step."""
        try:
            yield maybeDeferred(self._publish_claims, claims)
        except Exception as error:  # noqa: BLE001 - the log is another's: whatever it is, it is told
            self.fault = f"claims cannot be written to the log: {error}"
            return False
        self.fault = ""
        return True
