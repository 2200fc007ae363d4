"""
The sender: takes mails out of the outbox, one connection and one transaction for each, and notes what came of them.

A mail is claimed on disk only when a session is ready, and its outcome is on disk before the next is claimed: a kill
at any point leaves at most one that may have arrived. What the server as a whole does wrong makes the sender wait,
longer each time; what it does to one mail makes that mail wait. Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping
from json import JSONDecodeError
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from esgf_gossip.core.errors import WireError
from esgf_gossip.tracking import outbox
from esgf_gossip.tracking.audit import nameless
from esgf_gossip.tracking.backoff import delay_ms
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.mta_log import accepted
from esgf_gossip.tracking.outbox import Mail, Outcome, Result
from esgf_gossip.tracking.pausing import Pause
from esgf_gossip.tracking.send_rates import SendRates
from esgf_gossip.tracking.smtp_session import SmtpSession
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.sealed_values import SealedValues

# A session without work is closed; servers do not like guests who rest.
REST_S: Final = 5.0
FIRST_PAUSE_MS: Final = 1000
LAST_PAUSE_MS: Final = 300_000
# Nothing is due: look again all the same.
IDLE_S: Final = 60.0
DISK_PAUSE_S: Final = 10.0
_LOOKS: Final = 100
# Of what lies damaged; a fault of the program is none of the mail's, and loses none.
_UNREADABLE: Final = (TrustError, WireError, JSONDecodeError, UnicodeError)

_log = Logger()


@attrs.frozen
class SenderSettings:
    """
    How mails go out.

    Args:
        server: named in what is said to the operator.
        rate_per_s: mails in any second, in all.
        domain_rate_per_s: mails in any second, to one domain.
        mta_log: log of the mail server; None: there is none to ask.
        settle_ms: how old an ambiguous mail must be before the log is asked: its line must be there by then.
    """

    server: str
    rate_per_s: int
    domain_rate_per_s: int
    mta_log: Path | None = None
    settle_ms: int = 30_000


@attrs.frozen
class _Work:
    """
    What the outbox has for us: a mail, or how long to wait for one (None: until woken).

    ``is_taken_back``: mails were not wanted any more, and some of their notices may be.
    """

    mail: Mail | None
    wait_s: float | None = None
    is_taken_back: bool = False


class Sender:
    """
    One loop, from ``start`` to ``stop``.

    Args:
        database: of the tracker.
        values: seals what lies in the outbox.
        settings: how.
        open_session: connects; fires with a session that can send.
        still_wanted: in the tracker's thread, (connection, number of a mail, now): False where nothing in the mail is
            wanted any more, so that it was cancelled or taken back.
        taken_back: called when a mail was taken back, so that another is made.
        in_thread: runs a function that reads a file outside of the reactor.
        clock: of the reactor.
        now_ms: Unix milliseconds.
        random: for jitter.
    """

    def __init__(
        self,
        database: TrackingDatabase,
        values: SealedValues,
        settings: SenderSettings,
        open_session: Callable[[], Deferred[SmtpSession]],
        still_wanted: Callable[[sqlite3.Connection, int, int], bool],
        taken_back: Callable[[], None],
        in_thread: Callable[..., Deferred[Any]],
        clock: IReactorTime,
        now_ms: Callable[[], int],
        random: Random,
    ) -> None:
        self._database: Final = database
        self._values: Final = values
        self._settings: Final = settings
        self._open_session: Final = open_session
        self._still_wanted: Final = still_wanted
        self._taken_back: Final = taken_back
        self._in_thread: Final = in_thread
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._random: Final = random
        self._pause: Final = Pause(clock)
        self._rates: SendRates | None = None
        self._session: SmtpSession | None = None
        self._opening: Deferred[SmtpSession] | None = None
        self._failures = 0
        self._is_stopped = False
        self._running: Deferred[None] | None = None
        self._log_fault_since_ms: int | None = None
        self._server_fault = ""
        self._other_fault = ""
        self._log_fault = ""

    @property
    def fault(self) -> str:
        """What keeps mails from going out, for the operator; empty: nothing."""
        return "; ".join(text for text in (self._other_fault, self._server_fault, self._log_fault) if text)

    def start(self) -> None:
        """Begin; nothing goes out in the first second, for the last one before may have been full."""
        self._rates = SendRates(
            self._settings.rate_per_s, self._settings.domain_rate_per_s, self._clock.seconds()
        )
        self._running = self._run_on()

    def wake(self) -> None:
        """Look for work now."""
        self._pause.end()

    @inlineCallbacks
    def stop(self) -> Generator[Any, Any, None]:
        """Cut the session; fire when the outcome of the mail under way is on disk."""
        self._is_stopped = True
        self._pause.end(by_force=True)
        if self._opening is not None:
            self._opening.cancel()
        if self._session is not None:
            self._session.quit()
        if self._running is not None:
            yield self._running

    @inlineCallbacks
    def _run_on(self) -> Generator[Any, Any, None]:
        while not self._is_stopped:
            try:
                yield self._run()
            except Exception as error:  # noqa: BLE001 - mail must go on; what was under way is ambiguous then
                # Its text could hold an address.
                _log.error("The sender of mails failed: {kind}", kind=type(error).__name__)
                self._other_fault = f"the sender of mails failed: {type(error).__name__}; a fault of this program; it tries again"
                self._close_session()
                yield self._pause.wait(IDLE_S, is_firm=True)

    @inlineCallbacks
    def _run(self) -> Generator[Any, Any, None]:
        done: tuple[Mail, Outcome] | None = None
        is_recovered = False
        while not self._is_stopped or done is not None:
            try:
                if not is_recovered:
                    yield self._database.run(outbox.recover, self._now_ms())
                    is_recovered = True
                if done is not None:
                    # Alone: whatever is wrong with the next mail, this one is not sent again for it.
                    yield self._database.run(outbox.settle, *done, self._now_ms(), self._random)
                    done = None
                yield self._reconcile()
                work: _Work = yield self._database.run(
                    self._turn, self._now_ms(), self._clock.seconds(), is_able=self._is_able()
                )
                self._other_fault = ""
            except (TrackingError, CancelledError) as error:
                if self._is_stopped:
                    return
                # The outcome in hand is not lost while we live; a kill now makes it ambiguous.
                self._other_fault = str(error) or "the database of the tracker is closed"
                yield self._pause.wait(DISK_PAUSE_S)
                continue
            if work.is_taken_back:
                self._taken_back()
            if work.mail is None:
                yield self._rest(work.wait_s)
                continue
            outcome = yield self._send(work.mail)
            done = (work.mail, outcome)
        self._close_session()

    def _is_able(self) -> bool:
        return not self._is_stopped and self._session is not None and self._session.is_open

    @inlineCallbacks
    def _send(self, mail: Mail) -> Generator[Any, Any, Outcome]:
        assert self._session is not None
        assert self._rates is not None
        outcome: Outcome = yield self._session.send(mail)
        self._rates.note(mail.domain, self._clock.seconds())
        if outcome.result is Result.ACCEPTED or (outcome.result is Result.REFUSED and outcome.code >= 500):
            self._failures, self._server_fault = 0, ""
        elif not self._session.is_open:
            self._failed(outcome.text)
        return outcome

    @inlineCallbacks
    def _rest(self, wait_s: float | None) -> Generator[Any, Any, None]:
        """Wait as long as the outbox says; where it has work at once, get a session for it."""
        if self._is_stopped:
            return
        if wait_s is not None and wait_s <= 0:
            if self._failures:
                yield self._pause.wait(
                    delay_ms(self._failures, FIRST_PAUSE_MS, LAST_PAUSE_MS, self._random) / 1000, is_firm=True
                )
            if not self._is_stopped:
                yield self._connect()
            return
        if self._session is not None and (wait_s is None or wait_s > REST_S):
            is_woken = yield self._pause.wait(REST_S)
            if not is_woken:
                self._close_session()
            return
        yield self._pause.wait(IDLE_S if wait_s is None else min(wait_s, IDLE_S))

    @inlineCallbacks
    def _connect(self) -> Generator[Any, Any, None]:
        self._close_session()
        try:
            self._opening = self._open_session()
            self._session = yield self._opening
        except Exception as error:  # noqa: BLE001 - whatever the network or the server does is waited out
            self._failed(str(error) or type(error).__name__)
        finally:
            self._opening = None

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.quit()

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._server_fault = (
            f"the mail server {self._settings.server} takes no mail: {nameless(why)}; mails wait for it"
        )

    def _turn(
        self,
        connection: sqlite3.Connection,
        now_ms: int,
        now_s: float,
        *,
        is_able: bool,
    ) -> _Work:
        """Claim the next mail, in one transaction of the tracker's thread."""
        found = self._next(connection, now_ms, now_s, is_able=is_able)
        taken_back = 0
        while isinstance(found, int):
            mail = self._claimed(connection, found, now_ms)
            if mail is not None:
                return _Work(mail, is_taken_back=taken_back > 0)
            taken_back += 1
            # Very many that nobody wants any more: others get the tracker's thread between.
            is_enough = taken_back >= _LOOKS
            found = 0.001 if is_enough else self._next(connection, now_ms, now_s, is_able=is_able)
        return _Work(None, found, is_taken_back=taken_back > 0)

    def _claimed(self, connection: sqlite3.Connection, number: int, now_ms: int) -> Mail | None:
        """Claim a mail; None: it is not wanted any more, or what lies on the disk of it cannot be read."""
        connection.execute("SAVEPOINT one_mail")
        try:
            is_wanted = self._still_wanted(connection, number, now_ms)
            mail = outbox.claim(connection, self._values, number, now_ms) if is_wanted else None
        except _UNREADABLE as error:
            connection.execute("ROLLBACK TO one_mail")
            mail = None
            outbox.finish(connection, number, "failed", now_ms, f"cannot be read: {type(error).__name__}")
            _log.error("Mail {number} on the disk cannot be read: it is not sent", number=number)
        connection.execute("RELEASE one_mail")
        return mail

    def _next(
        self, connection: sqlite3.Connection, now_ms: int, now_s: float, *, is_able: bool
    ) -> int | float | None:
        """Return the number of the mail that may go out now, or for how many seconds none may; None: none waits."""
        assert self._rates is not None
        full: Mapping[bytes, float] = self._rates.full_domains(now_s)
        found = outbox.next_due(connection, tuple(full), is_reconciled=self._settings.mta_log is not None)
        if found is None:
            return min(full.values(), default=None)
        number, due_ms = found
        if due_ms > now_ms:
            return min([(due_ms - now_ms) / 1000, *full.values()])
        wait_s = self._rates.wait_s(now_s)
        if wait_s > 0:
            return wait_s
        return number if is_able else 0.0

    @inlineCallbacks
    def _reconcile(self) -> Generator[Any, Any, None]:
        """Ask the mail server's log of mails that may have arrived."""
        path = self._settings.mta_log
        if path is None:
            return
        now_ms, settle_ms = self._now_ms(), self._settings.settle_ms
        asked = yield self._database.run(outbox.ambiguous, now_ms, settle_ms)
        if not asked:
            next_ms = yield self._database.run(outbox.next_ambiguous_ms, settle_ms)
            if next_ms is not None:
                self._pause.at_most((next_ms - now_ms) / 1000 + 0.01)
            return
        try:
            found = yield self._in_thread(accepted, path, frozenset(asked))
        except OSError as error:
            self._log_fault = f"{path}: {error.strerror}; mails that may have arrived wait an hour for it"
            if self._log_fault_since_ms is None:
                self._log_fault_since_ms = now_ms
            if now_ms - self._log_fault_since_ms < outbox.RECONCILE_MOST_MS:
                return
            found = frozenset()
        self._log_fault_since_ms, self._log_fault = None, ""
        yield self._database.run(outbox.reconcile, asked, found, self._now_ms())
