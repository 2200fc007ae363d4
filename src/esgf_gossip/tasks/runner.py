"""
The task queue at work: looks at the folder, starts what is next, notes how it ended.

In short turns of the reactor, each bounded whatever lies in the folder. What is on the disk leads: a task is in one
folder at every instant, and done is what the journal says is done. Why it is so: docs/adr/0019.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from random import Random, SystemRandom
from typing import Any, Final

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,  # noqa: A004 - addTimeout's own
    inlineCallbacks,
    maybeDeferred,
)
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.net.sparing import Sparing
from esgf_gossip.sources.spool import CUR, DONE, FAILED, Spool, SpoolError, shown
from esgf_gossip.storage.journal_thread import AtOnce, JournalThread
from esgf_gossip.storage.task_journal import Done, JournalError, TaskJournal
from esgf_gossip.tasks.actions import ACTIONS, Action, Daemon, TaskRefusedError, TryAgainError
from esgf_gossip.tasks.intake import POLL_S, TROUBLES, Intake
from esgf_gossip.tasks.queue import Queue, Waiting, backoff_s
from esgf_gossip.tasks.task import FILE_BYTES, Task, TaskError, parse_task
from esgf_gossip.tasks.tidying import Limits, Tidying
from esgf_gossip.views.node_json import utc_text
from esgf_gossip.views.task_counts import TaskCounts

# After the disk has failed.
TROUBLE_S: Final = 5.0


class TaskRunner:
    """
    One queue, from ``start`` to ``stop``.

    Args:
        spool: the folder.
        open_journal: opens the record of what is done.
        daemon: what tasks may have done.
        limits: what is kept and borne.
        thread: writes into the record.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        actions: what tasks may ask for.
        random: spreads the pauses.
    """

    log = Logger()

    def __init__(
        self,
        spool: Spool,
        open_journal: Callable[[], TaskJournal],
        daemon: Daemon,
        limits: Limits,
        thread: JournalThread | AtOnce,
        clock: Any,
        now_ms: Callable[[], int],
        actions: Mapping[str, Action] = ACTIONS,
        random: Random | None = None,
    ) -> None:
        self._spool: Final = spool
        self._open_journal: Final = open_journal
        self._daemon: Final = daemon
        self._limits: Final = limits
        self._thread: Final = thread
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._actions: Final = actions
        self._arguments: Final = {name: action.arguments for name, action in actions.items()}
        self._random: Final = random or SystemRandom()
        self._queue: Final = Queue()
        self._journal: TaskJournal | None = None
        self._running: Final[dict[str, Deferred[Any]]] = {}
        # What an action wants written, where it has done its part and the disk has not.
        self._owed: Final[dict[str, Any]] = {}
        self._polled_at_s = float("-inf")
        self._done = 0
        self._error = ""
        # In this turn; and in a write that the next task has not yet shown to go through.
        self._has_failed = self._is_disk_bad = False
        self._call: Any = None
        self._is_started = False
        self._sparing: Final = Sparing(clock, self._tell_left_out)
        self._intake: Final = Intake(spool, self._queue, self._arguments, clock, now_ms, self._refused)
        self._tidying: Final = Tidying(spool, limits, clock, now_ms, self._trim)

    # ----------------------------------------------------------------- from outside

    def start(self) -> None:
        """Begin; what is wrong with the disk shows in ``counts`` and is tried again."""
        self._is_started = True
        self._turn()

    def stop(self) -> None:
        """Start nothing more; what runs is cancelled, and done by the next run."""
        if not self._is_started:
            return
        self._is_started = False
        self._cancel_call()
        self._sparing.stop()
        for running in tuple(self._running.values()):
            running.cancel()
        # An orderly end: nobody is to take them for interrupted.
        with contextlib.suppress(OSError):
            for name in self._queue.resting_claimed():
                self._spool.give_back(name)
        self._intake.close()
        self._tidying.close()
        self._thread.stop()
        if self._journal is not None:
            self._journal.close()
        self._spool.unlock()

    def wake(self) -> None:
        """Look at the folder now."""
        self._intake.look_now()
        if self._is_started and not self._error:
            self._turn_in(0.0)

    def counts(self) -> TaskCounts:
        """Return the queue in numbers."""
        oldest = [ns for ns in (self._queue.oldest_ns(), self._intake.oldest_ns()) if ns is not None]
        alarms = []
        if self._tidying.failed:
            alarms.append(f"{self._tidying.failed} failed; esgf-gossip task list says why")
        if self._intake.immovable:
            name, why = next(iter(self._intake.immovable.items()))
            alarms.append(
                f"{len(self._intake.immovable)} cannot be moved out of new/, one is {name!r}: {why}"
            )
        return TaskCounts(
            waiting=len(self._queue) - self._queue.running + self._intake.waiting,
            running=self._queue.running,
            done=self._done,
            failed=self._tidying.failed,
            oldest_age_s=max(self._now_ms() - min(oldest) // 10**6, 0) // 1000 if oldest else 0,
            error=self._error,
            alarms=tuple(alarms),
            failures=self._tidying.failures,
        )

    # ----------------------------------------------------------------- turns

    def _turn(self) -> None:
        self._call = None
        if not self._is_started:
            return
        try:
            has_more = self._work()
        except (JournalError, OSError) as error:
            self._fail(error)
            after_s = TROUBLE_S
        except Exception:  # noqa: BLE001 - a fault of ours must not end the queue
            self.log.failure("a turn of the task queue failed")
            after_s = TROUBLE_S
        else:
            rest_s = self._queue.wait_s(self._clock.seconds())
            after_s = 0.0 if has_more else min(POLL_S, POLL_S if rest_s is None else rest_s)
        self._turn_in(TROUBLE_S if self._error else after_s)

    def _turn_in(self, after_s: float) -> None:
        # A task that ended at once may have asked for the next turn, or have stopped us.
        self._cancel_call()
        if self._is_started:
            self._call = self._clock.callLater(after_s, self._turn)

    def _cancel_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            with contextlib.suppress(AlreadyCalled, AlreadyCancelled):
                call.cancel()

    def _work(self) -> bool:
        """Do a bounded piece of everything there is to do; tell whether there is more."""
        self._has_failed = False
        self._open()
        self._poll()
        self._intake.step()
        task = self._queue.next(self._clock.seconds())
        if task is not None:
            doing = self._do(task)
            doing.addErrback(self._disk_failed, task)
            doing.addErrback(lambda failure: self.log.failure("a task of the queue ended badly", failure))
        self._tidying.step()
        if self._error and not self._has_failed and not (self._is_disk_bad and len(self._queue)):
            # Something went through to the disk again.
            self.log.info("tasks go on")
            self._error = ""
        return bool(
            self._intake.is_busy or self._tidying.is_busy or self._queue.wait_s(self._clock.seconds()) == 0.0
        )

    def _fail(self, error: Exception) -> None:
        where = getattr(error, "filename", None) or self._spool.path
        what = (
            str(error) if isinstance(error, JournalError) else f"{where}: {getattr(error, 'strerror', error)}"
        )
        self._has_failed = True
        if not self._error:
            self.log.critical("tasks wait: {what}; they go on when the disk works again", what=what)
        self._error = what

    @property
    def _record(self) -> TaskJournal:
        if self._journal is None:
            raise JournalError(f"{self._spool.path}: the queue is not open")
        return self._journal

    def _open(self) -> None:
        if self._journal is None:
            self._spool.make()
            self._spool.lock()
            self._journal = self._open_journal()
            self._done = self._journal.count_done()

    def _poll(self) -> None:
        now_s = self._clock.seconds()
        if now_s - self._polled_at_s < POLL_S:
            return
        self._polled_at_s = now_s
        self._intake.poll()
        self._tidying.poll()

    # ----------------------------------------------------------------- one task

    @inlineCallbacks
    def _do(self, waiting: Waiting) -> Generator[Deferred[Any], Any, None]:
        name = waiting.name
        if not waiting.is_claimed and not self._spool.claim(name):
            self._queue.finish(name)
            return
        try:
            content = self._spool.read(CUR, name, FILE_BYTES)
            task = parse_task(content, name, self._arguments)
            if (task.id, task.key) != (waiting.id, waiting.key):
                raise TaskError("was changed while it waited; write it whole in tmp/ and rename it into new/")
        except FileNotFoundError:
            self._queue.finish(name)
            return
        except (SpoolError, TaskError) as fault:
            yield self._give_up(waiting, str(fault))
            return
        done = self._record.done(task.id, content)
        if done is not None:
            self._leave_done(name, done)
            return
        if name in self._intake.interrupted:
            count = yield self._thread.write(self._record.add_interruption, task.id)
            if not self._is_started:
                return
            self._intake.interrupted.discard(name)
            if count >= self._limits.interruptions:
                reason = f"the daemon ended {count} times while it ran; it is taken for the cause"
                yield self._give_up(waiting, reason)
                return
        try:
            if name not in self._owed:
                self._owed[name] = yield self._act(name, task)
            write = self._owed[name]
            yield self._thread.write(self._record.complete, task.id, content, self._now_ms(), write)
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an action raises is a failure of its task
            self._owed.pop(name, None)
            yield self._failed(error, waiting, task)
            return
        self._done += 1
        self._spool.put_aside(name, CUR, DONE)
        self._leave(name)
        if self._sparing.allows("tasks done"):
            self.log.info("task {name} is done: {action}", name=name, action=task.action)

    def _act(self, name: str, task: Task) -> Deferred[Any]:
        action = self._actions[task.action]
        acting = maybeDeferred(action.run, self._daemon, task.arguments)
        self._running[name] = acting
        acting.addTimeout(action.timeout_s, self._clock)

        def forget(result: Any) -> Any:
            del self._running[name]
            return result

        return acting.addBoth(forget)

    def _leave_done(self, name: str, done: Done) -> None:
        other = "" if done.is_same else "; that file said something else"
        reason = f"a task of this id was done already at {utc_text(done.at_ms)}{other}"
        self._spool.put_aside(name, CUR, DONE, reason)
        self._leave(name)
        if self._sparing.allows("tasks done before"):
            self.log.warn("task {name} is not done again: {reason}", name=name, reason=reason)

    @inlineCallbacks
    def _failed(self, error: Exception, waiting: Waiting, task: Task) -> Generator[Deferred[Any], Any, None]:
        name = waiting.name
        if not self._is_started:
            # Cancelled by us: it goes back to where the next daemon finds it.
            self._spool.give_back(name)
            return
        reason = _reason(error, task)
        count = self._limits.attempts
        if not isinstance(error, TaskRefusedError):
            count = yield self._thread.write(self._record.add_failure, task.id)
        if count >= self._limits.attempts:
            yield self._give_up(waiting, reason)
            if self._sparing.allows("failed tasks"):
                self.log.warn("task {name} has failed: {reason}", name=name, reason=reason)
            return
        after_s = backoff_s(count, self._random)
        self._queue.rest(name, self._clock.seconds(), after_s)
        self._turn_in(0.0)
        if self._sparing.allows("tasks tried again"):
            self.log.info(
                "task {name} is tried again in {after} s: {reason}",
                name=name,
                after=round(after_s, 1),
                reason=reason,
            )

    @inlineCallbacks
    def _give_up(self, waiting: Waiting, reason: str) -> Generator[Deferred[Any], Any, None]:
        # First the counts: who tries it again begins anew, whatever happens in between.
        yield self._thread.write(self._record.forget_tries, waiting.id)
        self._spool.put_aside(waiting.name, CUR, FAILED, reason)
        self._leave(waiting.name)

    def _disk_failed(self, failure: Failure, waiting: Waiting) -> None:
        if not self._is_started:
            return
        failure.trap(JournalError, OSError)
        name, error = waiting.name, failure.value
        is_claimed = self._spool.holds(CUR, name)
        if isinstance(error, OSError) and error.errno not in TROUBLES and not is_claimed:
            self._intake.immovable[name] = str(error.strerror)
            self._queue.finish(name)
            return
        self._fail(error)
        self._is_disk_bad = True
        self._queue.rest(name, self._clock.seconds(), 0.0, is_claimed=is_claimed)
        self._turn_in(TROUBLE_S)

    def _leave(self, name: str) -> None:
        self._is_disk_bad = False
        self._owed.pop(name, None)
        self._queue.finish(name)
        self._intake.left(name)
        self._tidying.ended()
        self._turn_in(0.0)

    def _refused(self, name: str, reason: str) -> None:
        if self._sparing.allows("refused tasks"):
            self.log.warn("task {name} is refused: {reason}", name=shown(name), reason=reason)

    def _tell_left_out(self, subject: str, count: int) -> None:
        self.log.warn("{count} more lines on {subject} within a minute", count=count, subject=subject)

    def _trim(self) -> None:
        trimmed = self._thread.write(self._record.trim, self._now_ms())
        trimmed.addCallback(lambda has_more: self._trim() if has_more and self._is_started else None)
        trimmed.addErrback(_let_be)


def _let_be(failure: Failure) -> None:
    """Keep silent: a full disk shows itself with the next task, and old ids harm nobody meanwhile."""
    failure.trap(JournalError, CancelledError)


def _reason(error: Exception, task: Task) -> str:
    if isinstance(error, TaskRefusedError | TryAgainError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"{task.action} did not end in time"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or task.action}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
