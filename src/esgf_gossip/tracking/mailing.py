"""
Mailing, assembled: addresses are asked for, digests made, mails sent, what is old forgotten; each in a loop of its own.

Everything that is written goes through the tracker's thread; nothing is remembered here that a restart could lose.
Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from esgf_gossip.tracking import audit, forgetting, notices, outbox, persons, preferences, restored
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.digests import PERSONS_AT_ONCE, DigestMaker, IsTold, Window, untold
from esgf_gossip.tracking.doubts import Doubts
from esgf_gossip.tracking.forgetting import DAY_MS, Keeping
from esgf_gossip.tracking.holds import CONTESTED
from esgf_gossip.tracking.mail_text import IssuesOf, MailText, Signer, SuccessorOf
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.notices import Bounds
from esgf_gossip.tracking.pausing import Pause
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.tracking.sender import Sender, SenderSettings
from esgf_gossip.tracking.smtp_session import SmtpSession
from esgf_gossip.trust.sealed_values import SealedValues

# The tables of mailing, to be handed to the tracker's database; in this order.
SCRIPTS: Final[Mapping[str, str]] = {
    "audit": audit.SCRIPT,
    "persons": persons.SCRIPT,
    "notices": notices.SCRIPT,
    "preferences": preferences.SCRIPT,
    "outbox": outbox.SCRIPT,
    "restored": restored.SCRIPT,
}
# Questions to identity providers at once; each provider has a bound of its own in what resolves.
ASKED_AT_ONCE: Final = 16
# How long an address may be asked for; what resolves has bounds of its own, this is the last.
ASK_S: Final = 120.0
IDLE_S: Final = 60.0
BUSY_S: Final = 5.0
FORGET_S: Final = 3600.0
# New work comes in bursts; between two looks others get the tracker's thread.
LOOK_EVERY_S: Final = 0.5
# Before the @ of the sender.
SENDER_CHARACTERS: Final = 30
# In a burst of mails; else they are counted at each look.
COUNT_EVERY_S: Final = 5.0
_MINUTE_MS: Final = 60_000

Resolve = Callable[[str], Deferred[Resolution]]

_log = Logger()


@attrs.frozen
class MailSettings:
    """
    What the administrator decides; see ``[tracking]`` in docs/operations.md.

    Args:
        node: host name of this node.
        sender: address in From.
        public_url: where tracking.listen is reached by receivers.
        server: name of the SMTP server, for what is said to the operator; empty: mails are made, none goes out.
        mta_log: of that server; None: there is none.
        settle_ms: see ``SenderSettings``.
    """

    node: str
    sender: str = attrs.field()
    public_url: str
    server: str
    quiet_minutes: int = 60
    max_delay_minutes: int = 1440
    rate_per_s: int = 10
    domain_rate_per_s: int = 2
    hold_above: int = 1000
    max_age_days: int = 30
    address_days: int = 7
    keep_days: int = 1825
    mta_log: Path | None = None
    dry_run: bool = False
    settle_ms: int = 30_000

    @sender.validator
    def _check_sender(self, _attribute: Any, sender: str) -> None:
        # The return path adds some 30 characters, and a local part has at most 64 (RFC 5321, 4.5.3.1.1).
        if len(sender.rpartition("@")[0]) > SENDER_CHARACTERS:
            raise ValueError(
                f"tracking.sender: at most {SENDER_CHARACTERS} characters before the @: mails need a return path each"
            )

    @property
    def bounds(self) -> Bounds:
        """Who is told at all."""
        return Bounds(self.max_age_days * DAY_MS, self.hold_above, self.address_days * DAY_MS)

    @property
    def window(self) -> Window:
        """When a mail is due."""
        return Window(
            self.quiet_minutes * _MINUTE_MS, self.max_delay_minutes * _MINUTE_MS, self.max_age_days * DAY_MS
        )

    @property
    def keeping(self) -> Keeping:
        """How long what is kept."""
        return Keeping(self.address_days * DAY_MS, self.max_age_days * DAY_MS, self.keep_days * DAY_MS)


def _no_issues(connection: sqlite3.Connection, datasets: Sequence[Any]) -> Sequence[tuple[str, str, str]]:
    del connection, datasets
    return ()


class Mailing:
    """
    From matches to mails, between ``start`` and ``stop``.

    Args:
        database: of the tracker, made with ``SCRIPTS``.
        values: by the key of this node.
        clock: the reactor.
        settings: of the administrator.
        resolve: OpenID to address; called in the reactor's thread.
        open_session: connects to the SMTP server; None: mails are made, none goes out.
        now_ms: Unix milliseconds.
        random: for jitter.
        successor_of: what is to be taken in place of a version, by the ledger; called in the tracker's thread.
        issues_of: errata of datasets by the local copy; called in the tracker's thread.
        signer: DKIM.
        is_told: whether another node has told the bearer of an OpenID of a change; called in the tracker's thread.
        in_thread: runs a function that reads a file, outside of the reactor.
        also_forget: (connection, now) drops what is old in other tables, once an hour in the tracker's thread.
        doubts: which changes wait for people, by the events as they are judged now.
    """

    def __init__(
        self,
        database: TrackingDatabase,
        values: SealedValues,
        clock: IReactorTime,
        settings: MailSettings,
        resolve: Resolve,
        open_session: Callable[[], Deferred[SmtpSession]] | None,
        now_ms: Callable[[], int],
        random: Random,
        in_thread: Callable[..., Deferred[Any]],
        successor_of: SuccessorOf,
        issues_of: IssuesOf = _no_issues,
        signer: Signer | None = None,
        is_told: IsTold = untold,
        also_forget: Callable[[sqlite3.Connection, int], object] | None = None,
        doubts: Doubts = Doubts(),  # noqa: B008 - frozen
    ) -> None:
        self.database: Final = database
        self.values: Final = values
        self.settings: Final = settings
        self.now_ms: Final = now_ms
        self.successor_of: Final = successor_of
        self.issues_of: Final = issues_of
        self.doubts: Final = doubts
        self.text: Final = MailText(values, settings.node, settings.sender, settings.public_url, signer)
        self._clock: Final = clock
        self._resolve: Final = resolve
        self._random: Final = random
        self._also_forget: Final = also_forget
        self._digests: Final = DigestMaker(
            values,
            settings.window,
            self.text,
            settings.sender,
            successor_of,
            issues_of,
            is_dry_run=settings.dry_run,
            is_told=is_told,
            doubts=doubts,
        )
        self._sender: Final = (
            None
            if open_session is None or settings.dry_run
            else Sender(
                database,
                values,
                SenderSettings(
                    settings.server,
                    settings.rate_per_s,
                    settings.domain_rate_per_s,
                    settings.mta_log,
                    settings.settle_ms,
                ),
                open_session,
                self._digests.still_wanted,
                self.wake,
                in_thread,
                clock,
                now_ms,
                random,
            )
        )
        self._pauses: Final = {name: Pause(clock) for name in ("ask", "digest", "forget")}
        self._asked: Final[dict[bytes, Deferred[Any]]] = {}
        self._answers: list[tuple[bytes, Resolution]] = []
        self._loops: list[Deferred[None]] = []
        self._faults: Final[dict[str, str]] = {}
        self._counts: Mapping[str, Any] = {}
        self._counted_s = 0.0
        self._is_stopped = False

    def take(
        self,
        connection: sqlite3.Connection,
        change: Change,
        matches: Sequence[Match],
        from_node: str,
        now_ms: int,
    ) -> int:
        """Take matches of a change from a node, in the caller's transaction of the tracker; call ``wake`` after it."""
        return notices.take(connection, self.values, self.settings.bounds, change, matches, from_node, now_ms)

    def start(self) -> None:
        """Begin all loops."""
        if self._sender is not None:
            self._sender.start()
        for name, turn in (("ask", self._ask), ("digest", self._digest), ("forget", self._forget)):
            self._loops.append(self._loop(name, turn))

    def wake(self) -> None:
        """Look for work now: matches were taken, a change was released, preferences changed."""
        self._pauses["ask"].end()
        self._pauses["digest"].end()

    @inlineCallbacks
    def stop(self) -> Generator[Any, Any, None]:
        """Stop in order; fire when what was under way is on disk."""
        self._is_stopped = True
        for pause in self._pauses.values():
            pause.end(by_force=True)
        for asked in tuple(self._asked.values()):
            asked.cancel()
        if self._sender is not None:
            yield self._sender.stop()
        yield gatherResults(self._loops)

    @property
    def fault(self) -> str:
        """What keeps mails from being made or sent, in one line for the operator; empty: nothing."""
        sender = "" if self._sender is None else self._sender.fault
        return next((text for text in (*self._faults.values(), self._digests.fault, sender) if text), "")

    def counts(self) -> Mapping[str, Any]:
        """
        Return figures as of the last look, at most a minute old.

        ``queued``, ``sent``, ``failed``, ``cancelled``, ``dry`` (mails), ``retried`` (queued ones that were tried),
        ``waiting`` (OpenIDs without an answer), ``open`` (notices), ``held`` (changes), ``contested`` (of them those
        that are held for it), ``oldest_age_s`` (of a queued mail).
        """
        return self._counts

    @inlineCallbacks
    def _loop(self, name: str, turn: Callable[[], Generator[Any, Any, float]]) -> Generator[Any, Any, None]:
        while not self._is_stopped:
            try:
                wait_s = yield inlineCallbacks(turn)()
                self._faults[name] = ""
            except CancelledError:
                return
            except TrackingError as error:
                self._faults[name], wait_s = str(error), IDLE_S
            except Exception as error:  # noqa: BLE001 - a loop must not end for a fault of one turn
                # Its text could hold an address.
                _log.error("A turn of {name} failed: {kind}", name=name, kind=type(error).__name__)
                self._faults[name] = (
                    f"a turn of the loop {name} failed: {type(error).__name__}; a fault of this program"
                )
                wait_s = IDLE_S
            if name != "ask" and wait_s and not self._is_stopped:
                yield self._pauses[name].wait(LOOK_EVERY_S, is_firm=True)
            if not self._is_stopped:
                yield self._pauses[name].wait(wait_s)

    def _ask(self) -> Generator[Any, Any, float]:
        answers, self._answers = self._answers, []
        if answers:
            # Where the disk says no they are asked for again: on disk they still wait.
            yield self.database.run(self._settle, answers, self.now_ms())
            self._pauses["digest"].end()
        free = ASKED_AT_ONCE - len(self._asked)
        if free <= 0:
            return IDLE_S
        found, next_ms = yield self.database.run(
            persons.due_identities, self.values, self.now_ms(), free, frozenset(self._asked)
        )
        for key, openid in found:
            self._ask_one(key, openid)
        if len(self._asked) >= ASKED_AT_ONCE or next_ms is None:
            return IDLE_S
        return min(IDLE_S, max(0.0, (next_ms - self.now_ms()) / 1000))

    def _settle(
        self, connection: sqlite3.Connection, answers: Sequence[tuple[bytes, Resolution]], now_ms: int
    ) -> None:
        for key, resolution in answers:
            notices.settle(connection, self.values, key, resolution, now_ms, self._random)

    def _ask_one(self, key: bytes, openid: str) -> None:
        asked = maybeDeferred(self._resolve, openid)
        self._asked[key] = asked
        asked.addTimeout(ASK_S, self._clock)
        asked.addErrback(lambda failure: Resolution(Finding.UNANSWERED, reason=failure.type.__name__))
        asked.addCallback(self._answered, key)

    def _answered(self, resolution: Resolution, key: bytes) -> None:
        self._asked.pop(key, None)
        if not self._is_stopped:
            self._answers.append((key, resolution))
            self._pauses["ask"].end()

    def _digest(self) -> Generator[Any, Any, float]:
        count, next_ms = yield self.database.run(self._digests.queue_due, self.now_ms())
        now_s = self._clock.seconds()
        if count < PERSONS_AT_ONCE or now_s - self._counted_s >= COUNT_EVERY_S:
            self._counts, self._counted_s = (yield self.database.run(_counts, self.now_ms())), now_s
        if count and self._sender is not None:
            self._sender.wake()
        if count >= PERSONS_AT_ONCE:
            return 0.0
        wait_s = IDLE_S if next_ms is None else (next_ms - self.now_ms()) / 1000
        # While mails go out the figures follow them.
        is_busy = count or self._counts.get("queued")
        return min(BUSY_S if is_busy else IDLE_S, max(wait_s, LOOK_EVERY_S))

    def _forget(self) -> Generator[Any, Any, float]:
        if self._also_forget is not None:
            yield self.database.run(self._also_forget, self.now_ms())
        dropped = yield self.database.run(forgetting.forget_old, self.settings.keeping, self.now_ms())
        return LOOK_EVERY_S if max(dropped.values()) >= 1000 else FORGET_S


def _counts(connection: sqlite3.Connection, now_ms: int) -> dict[str, Any]:
    mails = outbox.counts(connection)
    by_state, oldest_ms = mails["by_state"], mails["oldest_ms"]
    queued = by_state.get("queued", 0) + by_state.get("sending", 0)
    waiting, open_, held, contested = connection.execute(
        "SELECT (SELECT count(*) FROM identity WHERE state = 'waiting'),"
        " (SELECT count(*) FROM notice WHERE state = 'open'), (SELECT count(*) FROM told WHERE state = 'held'),"
        " (SELECT count(*) FROM told WHERE state = 'held' AND held_by = ?)",
        (CONTESTED,),
    ).fetchone()
    return {
        "queued": queued,
        **{state: by_state.get(state, 0) for state in ("sent", "failed", "cancelled", "dry")},
        "retried": mails["retried"],
        "waiting": waiting,
        "open": open_,
        "held": held,
        "contested": contested,
        "oldest_age_s": 0.0 if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000),
    }
