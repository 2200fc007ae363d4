"""
From changes to matches: each change is looked up in the downloads, and its matches are handed on, in order.

What was handed on before a crash is handed on again after it; who takes it bears that. A change that is too old for
anybody to be told is passed by, so a node that joins late, or was away for long, writes to nobody about the past.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.tracking.changes import changes_after
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.matches import Change, Match

SCRIPT: Final = """
CREATE TABLE matched (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
INSERT INTO matched VALUES (1, 0)
"""
# An erratum and its 2,747 retractions are six turns.
CHANGES_AT_ONCE: Final = 500
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 300.0

HandOn = Callable[[sqlite3.Connection, Change, Sequence[Match], int], None]
"""Takes matches of a change in the tracker's transaction; the last argument is Unix milliseconds."""


class Pipeline:
    """
    Looks up what comes to count, from ``start`` to ``stop``.

    Args:
        database: with ``SCRIPT`` among its scripts.
        caught_up: fires when all that was downloaded before a time is known (``Projector.when_caught_up``).
        match: ``Projector.match``.
        hand_on: takes what is found.
        handed: called after something was handed on, in the reactor's thread.
        max_age_ms: of changes that anybody is told of.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        expected: what else may go wrong outside of this program.
    """

    log = Logger()

    def __init__(
        self,
        database: TrackingDatabase,
        caught_up: Callable[[int], Deferred[None]],
        match: Callable[..., Deferred[int]],
        hand_on: HandOn,
        handed: Callable[[], None],
        max_age_ms: int,
        clock: Any,
        now_ms: Callable[[], int],
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        self.changes = 0
        # Of them those that nobody is told of.
        self.too_old = 0
        self.matches = 0
        # Empty: all is well; else one line for the operator.
        self.fault = ""
        self._database: Final = database
        self._caught_up: Final = caught_up
        self._match: Final = match
        self._hand_on: Final = hand_on
        self._handed: Final = handed
        self._max_age_ms: Final = max_age_ms
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._expected: Final = (TrackingError, *expected)
        self._is_running = self._is_owed = False
        self._turn: Deferred[Any] | None = None
        self._call: Any = None
        self._failures = 0

    def start(self) -> None:
        """Go on after the last change that was done."""
        self._is_running = True
        self.wake()

    def stop(self) -> None:
        """Do nothing more; what is under way is done again by the next run."""
        self._is_running = False
        if self._call is not None and self._call.active():
            self._call.cancel()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    def wake(self) -> None:
        """Hear that there may be new changes."""
        self._is_owed = True
        if self._is_running and self._turn is None and not (self._call is not None and self._call.active()):
            self._begin()

    def _begin(self) -> None:
        self._is_owed = False
        self._turn = self._one_turn()
        self._turn.addCallbacks(self._done, self._failed)

    def _done(self, is_more: bool) -> None:
        self._turn, self._failures = None, 0
        if self.fault:
            self.log.info("matching goes on")
        self.fault = ""
        if self._is_running and (is_more or self._is_owed):
            self._call = self._clock.callLater(0, self._begin)

    def _failed(self, failure: Failure) -> None:
        self._turn = None
        if not self._is_running or failure.check(CancelledError):
            return
        self._failures += 1
        if failure.check(*self._expected):
            text = failure.getErrorMessage()
        else:
            # Not what it says: that may name users.
            text = f"matching failed ({type(failure.value).__name__})"
        if text != self.fault:
            self.log.warn("who is to be told is not looked up: {reason}; it is tried again", reason=text)
        self.fault = text
        pause_s = min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
        self._call = self._clock.callLater(pause_s, self._begin)

    @inlineCallbacks
    def _one_turn(self) -> Generator[Deferred[Any], Any, bool]:
        """Do the next changes; tell whether there may be more."""
        began_ms = self._now_ms()
        found = yield self._database.run(_next_changes)
        if not found:
            return False
        fresh = {
            change.key: change for _, change in found if began_ms - change.occurred_ms <= self._max_age_ms
        }
        if fresh:
            yield self._caught_up(began_ms)
            yield self._match(
                list(fresh.values()), lambda matches: self._take(fresh, matches), known_ms=began_ms
            )
        yield self._database.run(_cross_off, found[-1][0])
        self.changes += len(found)
        self.too_old += len(found) - len(fresh)
        return len(found) == CHANGES_AT_ONCE

    def _take(self, changes: Mapping[bytes, Change], matches: Sequence[Match]) -> Deferred[None]:
        self.matches += len(matches)
        taken = self._database.run(self._take_now, changes, matches, self._now_ms())
        return taken.addCallback(lambda _: self._handed())

    def _take_now(
        self,
        connection: sqlite3.Connection,
        changes: Mapping[bytes, Change],
        matches: Sequence[Match],
        now_ms: int,
    ) -> None:
        sorted_out: dict[bytes, list[Match]] = {}
        for match in matches:
            sorted_out.setdefault(match.change_key, []).append(match)
        for key, of_one in sorted_out.items():
            self._hand_on(connection, changes[key], of_one, now_ms)


def _next_changes(connection: sqlite3.Connection) -> list[tuple[int, Change]]:
    (number,) = connection.execute("SELECT number FROM matched").fetchone()
    return changes_after(connection, number, CHANGES_AT_ONCE)


def _cross_off(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("UPDATE matched SET number = ?", (number,))
