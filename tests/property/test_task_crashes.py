"""The daemon dies at any step of a task: nothing is lost, nothing takes effect twice, keys keep their order."""

import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from esgf_gossip.sources.spool import CUR, DONE, FAILED, NEW, REASON, TMP, Spool
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.storage.task_journal import TaskJournal, read_notes
from esgf_gossip.tasks.actions import ACTIONS, Action, Note
from esgf_gossip.tasks.runner import TaskRunner
from esgf_gossip.tasks.tidying import Limits

# Memory, where there is such a folder: thousands of fsyncs are not what is tested here.
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
KEYS = ("", "", "a", "b")
WHAT = ("note", "note", "note", "slow", "slow", "flaky", "hopeless", "hanging", "nonsense")
TASKS = st.lists(st.tuples(st.sampled_from(WHAT), st.sampled_from(KEYS), st.booleans()), max_size=6)


class KilledError(BaseException):
    """kill -9: nobody catches it."""


class Fuse:
    """Burns down with every step on the disk; when it is out the daemon is dead."""

    def __init__(self, steps):
        self.left = steps
        self.is_dead = False

    def burn(self):
        """Count one point between two steps; die at the last."""
        if self.left is not None:
            self.left -= 1
        self.is_dead = self.is_dead or self.left == 0
        if self.is_dead:
            raise KilledError


def _dying(base, names):
    """Make a class that may die before and after each of these methods."""

    def method(name):
        def call(self, *arguments, **named):
            self.fuse.burn()
            result = getattr(base, name)(self, *arguments, **named)
            self.fuse.burn()
            return result

        return call

    return type(f"Dying{base.__name__}", (base,), {name: method(name) for name in names})


DyingSpool = _dying(Spool, ("claim", "give_back", "put_aside", "discard"))
# Between the line that says why and the move of the file.
DyingSpool._write_reason = lambda self, path, reason: (Spool._write_reason(path, reason), self.fuse.burn())[0]
DyingJournal = _dying(TaskJournal, ("complete", "add_failure", "add_interruption", "forget_tries"))


class Crashes(RuleBasedStateMachine):
    """One folder, many daemons, each of which ends when its fuse does."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=PLACE))
        self.files = Spool(self.folder / "tasks")
        self.files.make()
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.count = 0
        self.ids = {}
        self.order = {key: [] for key in KEYS}
        self.failures = Counter()
        self.refused = set()
        self.actions = {
            **ACTIONS,
            "slow": Action("fire later", Note, self._slow),
            "flaky": Action("fail twice", Note, self._flaky),
            "hopeless": Action("fail for ever", Note, self._hopeless),
            "hanging": Action("never end", Note, lambda _daemon, _arguments: Deferred(), timeout_s=3.0),
        }
        self.runner = None
        self._start(None)

    def _write(self, arguments):
        fuse = self.fuse

        def write(transaction):
            fuse.burn()
            transaction.add_note(arguments.text)
            fuse.burn()

        return write

    def _slow(self, _daemon, arguments):
        answer = Deferred()
        self.clock.callLater(2.0, lambda: answer.called or answer.callback(self._write(arguments)))
        return answer

    def _flaky(self, _daemon, arguments):
        self.failures[arguments.text] += 1
        if self.failures[arguments.text] < 3:
            raise RuntimeError("not yet")
        return self._write(arguments)

    def _hopeless(self, _daemon, _arguments):
        raise RuntimeError("never")

    def _start(self, steps):
        self.fuse = Fuse(None)
        self.spool = DyingSpool(self.folder / "tasks")
        self.spool.fuse = self.fuse
        self.runner = TaskRunner(
            self.spool,
            self._journal,
            None,
            Limits(attempts=4, interruptions=1_000_000),
            AtOnce(),
            self.clock,
            lambda: int(self.clock.seconds() * 1000),
            self.actions,
            Random(1),
        )
        self.fuse.left = steps
        self._guarded(self.runner.start)

    def _journal(self):
        self.journal = DyingJournal(self.folder / "tasks.db")
        self.journal.fuse = self.fuse
        return self.journal

    def _guarded(self, work):
        try:
            work()
        except KilledError:
            assert self.fuse.is_dead
        if self.fuse.is_dead:
            self._bury()
            self._start(None)

    def _bury(self):
        """Let the kernel do what it does at the end of a process."""
        self.runner._is_started = False
        self.runner._cancel_call()
        self.journal.close()
        self.spool.unlock()

    def drop(self, action, key, is_twin):
        """Let a program hand in a task, perhaps one that was handed in before, or what is no task."""
        self.count += 1
        name = f"{self.count:06}.json"
        task_id = f"id-{self.count:06}"
        if action == "nonsense":
            self.refused.add(name)
        elif is_twin and self.ids:
            task_id = sorted(self.ids)[self.count % len(self.ids)]
            # A twin may come under another key; that would change the order of a task that has one.
            action, own_key = self.ids[task_id]
            key = own_key or key
        else:
            self.ids[task_id] = (action, key)
            self.order[key].append(task_id)
        content = {"id": task_id, "action": action, "key": key, "text": task_id}
        self.files.submit(name, json.dumps(content).encode())
        stamp = int(self.clock.seconds() * 10**9) + self.count
        os.utime(self.folder / "tasks" / NEW / name, ns=(stamp, stamp))

    @rule(tasks=TASKS, steps=st.integers(1, 40), seconds=st.integers(1, 6))
    def run_until_killed(self, tasks, steps, seconds):
        """Tasks come; the daemon dies somewhere in the next steps, and another one starts."""
        self.fuse.left = steps
        self.run(tasks, seconds)

    @rule(tasks=TASKS, seconds=st.integers(1, 6))
    def run(self, tasks, seconds):
        """Tasks come, time goes on."""
        for task in tasks:
            self.drop(*task)
        for _ in range(seconds * 5):
            self._guarded(lambda: self.clock.advance(0.2))

    @rule(tasks=TASKS)
    def restart(self, tasks):
        """An administrator restarts the daemon in order; tasks come meanwhile."""
        self._guarded(self.runner.stop)
        for task in tasks:
            self.drop(*task)
        if not self.runner._is_started:
            self._start(None)

    @invariant()
    def every_file_is_somewhere(self):
        """Each file handed in is in exactly one folder."""
        found = Counter(
            name.partition("~")[0]
            for part in (NEW, CUR, DONE, FAILED)
            for name in os.listdir(self.folder / "tasks" / part)
            if not name.endswith(REASON)
        )
        assert set(found.values()) <= {1}
        assert len(found) == self.count

    @invariant()
    def nothing_took_effect_twice(self):
        """A task has left at most one line."""
        assert set(Counter(note.id for note in self._notes()).values()) <= {1}

    def _notes(self):
        return read_notes(self.folder / "tasks.db", 10_000)

    def teardown(self):
        """Left in peace, the daemon does all there is to do, each once, in order."""
        self.fuse.left = None
        for _ in range(400):
            if not os.listdir(self.folder / "tasks" / NEW) and not os.listdir(self.folder / "tasks" / CUR):
                break
            self.run((), 2)
        try:
            self._judge()
        finally:
            self._bury()
            shutil.rmtree(self.folder)

    def _judge(self):
        places = {part: os.listdir(self.folder / "tasks" / part) for part in (TMP, NEW, CUR, FAILED)}
        assert (places[TMP], places[NEW], places[CUR]) == ([], [], [])
        failed = {name for name in places[FAILED] if not name.endswith(REASON)}
        assert {f"{name}{REASON}" for name in failed} <= set(places[FAILED])
        assert self.refused <= failed
        told = [note.id for note in self._notes()]
        lasting = {one for one, (action, _) in self.ids.items() if action not in ("hopeless", "hanging")}
        assert Counter(told) == Counter(lasting)
        with sqlite3.connect(self.folder / "tasks.db") as found:
            assert {one for (one,) in found.execute("SELECT id FROM done")} == lasting
        for key in set(KEYS) - {""}:
            assert [one for one in told if self.ids[one][1] == key] == [
                one for one in self.order[key] if one in lasting
            ]


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=100, stateful_step_count=12, deadline=None)
