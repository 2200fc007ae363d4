"""
Brings matches to the home nodes of their users, and tells users itself where a home stays away.

What a home has answered for is crossed off, never before. A home that does not answer is asked again with longer and
longer rests; after ``fallback`` its users fall to the nodes that matched them. Source: docs/adr/0022-home-nodes.md.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from esgf_gossip.tracking import homeward_rows as rows
from esgf_gossip.tracking.changes import get_change
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.fallback import Fallback
from esgf_gossip.tracking.feedback_messages import Answer, Question, Verdict, batches
from esgf_gossip.tracking.homes import Homes
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.trust.sealed_values import SealedValues

PASS_S: Final = 30.0
# Homes are looked for anew, and turns of the fallback, so often.
HOMELESS_S: Final = 600.0
FALLBACK_S: Final = 120.0
HOMES_AT_ONCE: Final = 4
REST_S: Final = 60.0
# A match may come home before the change does, which takes a second or so through the federation.
UNHEARD_S: Final = 1.0
REST_MOST_S: Final = 600.0
# A home is away only after so many tries of this daemon: one lost packet is no absence.
TRIES: Final = 3
# Before that long a silence is no fault worth an administrator's eye.
FAULT_MS: Final = 3600 * 1000

# take(connection, change, matches, from_node, now_ms): puts matches of own users into the notices of the mail.
Take = Callable[[sqlite3.Connection, Change, Sequence[Match], str, int], object]
# Fires with what a home node answers to the matches of one change; fails with a DeliveryError.
Send = Callable[[str, bytes, Sequence[Match]], "Deferred[Answer]"]


class DeliveryError(Exception):
    """Report why a home node gave no answer, in one line without anything of a user."""


def receive(
    connection: sqlite3.Connection,
    question: Question,
    from_node: str,
    now_ms: int,
    *,
    is_ours: Callable[[str], bool],
    take: Take,
) -> Answer:
    """
    Take in, at the home node, what another brings; to be run as one transaction: what is answered is on the disk.

    A change that this node has not heard of, by the log or by its own errata service, is nothing to tell users of.
    """
    change = get_change(connection, question.change_key)
    if change is None:
        return Answer(Verdict.UNKNOWN_CHANGE)
    refused = tuple(n for n, match in enumerate(question.matches) if not is_ours(match.openid))
    ours = [match for n, match in enumerate(question.matches) if n not in refused]
    if not ours:
        return Answer(Verdict.REFUSED)
    take(connection, change, ours, from_node, now_ms)
    return Answer(Verdict.TAKEN, refused)


@attrs.frozen
class _Unheard:
    next_s: float
    rest_s: float


@attrs.define
class _Home:
    """What is known of one home since the start."""

    failures: int = 0
    next_s: float = 0.0
    since_ms: int = 0
    reason: str = ""
    # Changes it has not heard of: when to ask again, and the rest before that.
    unheard: dict[bytes, _Unheard] = attrs.field(factory=dict)


class Homeward:
    """
    The deliveries of a node.

    Args:
        database: has the tables of ``homeward_rows.SCRIPT``, ``changes.SCRIPT`` and ``claim``.
        clock: the reactor, or a Clock in tests.
        sealed: users lie sealed in the rows.
        homes: the homes of now; may be called in the tracker's thread.
        send: brings matches to a home node.
        take: the own mail.
        fallback: tells users of homes that stay away; None: they wait until they expire.
        now_ms: the wall clock.
        max_age_ms: what has waited for so long is given up.
        random: for rests that differ.
        is_mailing: whether this node writes to its own users; what is of them waits until it does.
    """

    log = Logger()

    def __init__(
        self,
        database: TrackingDatabase,
        clock: IReactorTime,
        sealed: SealedValues,
        *,
        homes: Callable[[], Homes],
        send: Send,
        take: Take,
        fallback: Fallback | None,
        now_ms: Callable[[], int],
        max_age_ms: int,
        random: Random,
        is_mailing: bool = True,
    ) -> None:
        self._is_mailing: Final = is_mailing
        self._database: Final = database
        self._clock: Final = clock
        self._sealed: Final = sealed
        self._homes: Final = homes
        self._send: Final = send
        self._take: Final = take
        self._fallback: Final = fallback
        self._now_ms: Final = now_ms
        self._max_age_ms: Final = max_age_ms
        self._random: Final = random
        self._known: Final[dict[str, _Home]] = {}
        self._waiting: tuple[rows.Waiting, ...] = ()
        self._next_fallback_s = 0.0
        self._timer: IDelayedCall | None = None
        self._is_passing = False
        self._is_woken = False
        self._are_homes_new = False
        self._is_stopped = False
        self._database_fault = ""
        # What became of matches since the start: taken, refused, unknown_change, busy, unanswered, expired, unreadable.
        self.counts: Final[Counter[str]] = Counter()

    # ----------------------------------------------------------------- in

    def enqueue(self, connection: sqlite3.Connection, change: Change, matches: Sequence[Match]) -> None:
        """
        Hand matches on, in the transaction of who found them: own users to the own mail, others on their way.

        Call ``wake`` when it is committed.
        """
        homes = self._homes()
        by_home: dict[str | None, list[Match]] = {}
        for match in matches:
            by_home.setdefault(homes.home_of(match.openid), []).append(match)
        now_ms = self._now_ms()
        for home, theirs in by_home.items():
            if home == homes.own and self._is_mailing:
                self._take(connection, change, theirs, homes.own, now_ms)
            else:
                rows.put(connection, self._sealed, home, theirs, now_ms)

    def start(self) -> None:
        """Begin to deliver."""
        self.wake()

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def wake(self) -> None:
        """Look at once: something was put on its way."""
        self._is_woken = True
        if not self._is_passing and not self._is_stopped:
            self._schedule(0.0)

    def heard_of(self, host: str) -> None:
        """Hear that a node is back: its rest is over."""
        known = self._known.get(host)
        if known is not None and (known.failures or known.unheard):
            known.next_s = 0.0
            known.unheard.clear()
            self.wake()

    def rejoined(self) -> None:
        """Hear that this node has peers again after it had none: it was this node that was away, every rest is over."""
        for host in list(self._known):
            self.heard_of(host)

    def homes_changed(self) -> None:
        """Hear that users may have a home now who had none, and that a home may take now whom it refused."""
        self._are_homes_new = True
        if self._known.pop(rows.NOBODY, None) is not None:
            self.wake()

    # ----------------------------------------------------------------- said

    @property
    def waiting(self) -> tuple[rows.Waiting, ...]:
        """What waited at the last pass, by home."""
        return self._waiting

    @property
    def fault(self) -> str:
        """What an administrator should see, in one line; empty while all is well."""
        if self._database_fault:
            return self._database_fault
        if self._fallback is not None and self._fallback.fault:
            return self._fallback.fault
        now_ms = self._now_ms()
        for one in sorted(self._waiting, key=lambda one: one.oldest_ms):
            known = self._known.get(one.home)
            if known is not None and known.failures >= TRIES and now_ms - known.since_ms >= FAULT_MS:
                hours = (now_ms - known.since_ms) // FAULT_MS
                return (
                    f"home node {one.home} has not answered for {hours} h ({known.reason}): "
                    f"notifications of {one.count} users and changes wait for it"
                )
        return ""

    # ----------------------------------------------------------------- passes

    def _schedule(self, after_s: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(after_s, self._begin)

    def _begin(self) -> None:
        self._is_passing, self._is_woken = True, False
        passing: Deferred[Any] = self._pass()
        passing.addErrback(self._failed)
        passing.addCallback(self._passed)

    def _passed(self, _: object) -> None:
        self._is_passing = False
        if not self._is_stopped:
            self._schedule(0.0 if self._is_woken else self._pause_s())

    def _pause_s(self) -> float:
        """Return how long until the next pass: at the latest when a change that was unheard of is asked about again."""
        now_s = self._clock.seconds()
        pauses = (one.next_s - now_s for home in self._known.values() for one in home.unheard.values())
        return min((PASS_S, *(max(0.1, pause_s) for pause_s in pauses)))

    def _failed(self, failure: Any) -> None:
        if self._is_stopped:
            return
        if failure.check(TrackingError):
            self._database_fault = str(failure.value)
            return
        # A fault of ours; its text could name a user.
        self.log.error("delivering to home nodes: {kind}", kind=failure.type.__name__)
        self._database_fault = f"delivering to home nodes failed: {failure.type.__name__}; see the log"

    @inlineCallbacks
    def _pass(self) -> Iterator[Any]:
        if self._are_homes_new:
            yield self._database.run(rows.forget_refusals)
            self._are_homes_new = False
        found = yield self._database.run(rows.survey, self._now_ms() - self._max_age_ms)
        self.counts["expired"] += found.expired
        waiting = found.waiting
        due = [one.home for one in waiting if self._is_due(one.home)]
        while due and not self._is_stopped:
            now, due = due[:HOMES_AT_ONCE], due[HOMES_AT_ONCE:]
            results = yield DeferredList([self._deliver(home) for home in now], consumeErrors=True)
            for is_done, failure in results:
                if not is_done:
                    failure.raiseException()
        if (waiting or found.has_told) and not self._is_stopped:
            yield self._fall_back(waiting)
            waiting = yield self._database.run(rows.waiting)
        self._waiting = tuple(waiting)
        for home in self._known.keys() - {one.home for one in self._waiting}:
            del self._known[home]
        self._database_fault = ""

    @inlineCallbacks
    def _fall_back(self, waiting: Sequence[rows.Waiting]) -> Iterator[Any]:
        if self._fallback is not None and self._clock.seconds() >= self._next_fallback_s:
            self._next_fallback_s = self._clock.seconds() + FALLBACK_S
            yield self._fallback.step(
                {one.home: one.answered_ms for one in waiting if self._is_away(one.home)}
            )

    def _is_due(self, home: str) -> bool:
        if home == self._homes().own and not self._is_mailing:
            return False
        known = self._known.get(home)
        return known is None or self._clock.seconds() >= known.next_s

    def _is_away(self, home: str) -> bool:
        return home == rows.NOBODY or (home in self._known and self._known[home].failures >= TRIES)

    @inlineCallbacks
    def _deliver(self, home: str) -> Iterator[Any]:
        """Bring what waits to one home, until it is done or the home wants no more for now."""
        known = self._known.setdefault(home, _Home())
        if home == rows.NOBODY:
            known.next_s = self._clock.seconds() + HOMELESS_S
            # Those that have a home now are brought there in the next pass, at once.
            self._is_woken = True
        for change_key in (yield self._database.run(rows.changes_for, home)):
            unheard = known.unheard.get(change_key)
            if unheard is not None and unheard.next_s > self._clock.seconds():
                continue
            after = 0
            while known.unheard.get(change_key) is unheard and not self._is_stopped:
                found, after, lost = yield self._database.run(
                    rows.batch,
                    self._sealed,
                    home,
                    change_key,
                    self._homes().home_of,
                    after,
                    self._now_ms(),
                )
                if not after:
                    break
                self._count_lost(lost)
                for part in batches([row.match for row in found]):
                    sent, found = found[: len(part)], found[len(part) :]
                    goes_on = yield self._bring(home, known, change_key, sent)
                    if not goes_on:
                        return
                    if known.unheard.get(change_key) is not unheard:
                        break
            if known.unheard.get(change_key) is unheard:
                known.unheard.pop(change_key, None)

    def _count_lost(self, lost: int) -> None:
        if lost:
            self.counts["unreadable"] += lost
            self.log.warn(
                "{lost} matches for home nodes were sealed by another key: they are lost", lost=lost
            )

    def _take_own(
        self, connection: sqlite3.Connection, change_key: bytes, found: Sequence[rows.Row]
    ) -> Answer:
        """Take what has become this node's own meanwhile."""
        change = get_change(connection, change_key)
        if change is None:
            return Answer(Verdict.UNKNOWN_CHANGE)
        own = self._homes().own
        self._take(connection, change, [row.match for row in found], own, self._now_ms())
        return Answer(Verdict.TAKEN)

    @inlineCallbacks
    def _bring(self, home: str, known: _Home, change_key: bytes, sent: Sequence[rows.Row]) -> Iterator[Any]:
        """Ask one question; fires with whether the home may be asked the next."""
        try:
            if home == self._homes().own:
                answer = yield self._database.run(self._take_own, change_key, sent)
            else:
                answer = yield self._send(home, change_key, [row.match for row in sent])
        except DeliveryError as error:
            self.counts["unanswered"] += len(sent)
            if not known.failures:
                known.since_ms = self._now_ms()
            known.failures += 1
            known.reason = str(error)
            self._rest(known)
            return False
        known.failures = 0
        self.counts[answer.verdict.name.lower()] += len(sent)
        refused = set(range(len(sent)) if answer.verdict is Verdict.REFUSED else answer.refused)
        is_done = answer.verdict in (Verdict.TAKEN, Verdict.REFUSED)
        yield self._database.run(
            rows.note_answer,
            home,
            self._now_ms(),
            [row.id for n, row in enumerate(sent) if is_done and n not in refused],
            [row.id for n, row in enumerate(sent) if is_done and n in refused],
        )
        if answer.verdict is Verdict.UNKNOWN_CHANGE:
            before = known.unheard.get(change_key)
            rest_s = UNHEARD_S if before is None else min(2 * before.rest_s, 2 * REST_S)
            next_s = self._clock.seconds() + rest_s * (1.0 + self._random.random())
            known.unheard[change_key] = _Unheard(next_s, rest_s)
            return True
        if answer.verdict is Verdict.BUSY:
            known.next_s = self._clock.seconds() + REST_S * (0.5 + self._random.random())
            return False
        return True

    def _rest(self, known: _Home) -> None:
        rest_s = min(REST_MOST_S, REST_S * 2.0 ** min(known.failures - 1, 10))
        known.next_s = self._clock.seconds() + rest_s * (0.5 + self._random.random() / 2)
