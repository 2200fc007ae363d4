"""The task queue at work on real files, with a clock of its own; task runner."""

import errno
import json
import os
import sqlite3
import threading
import time
from itertools import pairwise

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from esgf_gossip.sources.spool import CUR, DONE, FAILED, NEW, REASON, Spool
from esgf_gossip.storage.journal_thread import AtOnce, JournalThread
from esgf_gossip.storage.task_journal import JournalError, TaskJournal, read_notes
from esgf_gossip.tasks.actions import ACTIONS, Action, Note, TaskRefusedError
from esgf_gossip.tasks.runner import TROUBLE_S, TaskRunner
from esgf_gossip.tasks.tidying import Limits
from helpers.daemons import eventually


class Bench:
    """A folder, a clock, a daemon that works on it, and programs that hand in."""

    def __init__(self, folder, **limits):
        self.folder = folder
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.limits = Limits(**limits)
        self.spool = Spool(folder / "tasks")
        self.asked = []
        self.answers = {}
        self.count = 0
        self.actions = {**ACTIONS, "ask": Action("ask", Note, self._ask, timeout_s=30.0)}
        self.start()

    def _ask(self, _daemon, arguments):
        self.asked.append(arguments.text)
        answer = self.answers[arguments.text] = Deferred()
        return answer

    def start(self, thread=None):
        """Begin as a new process would."""
        self.runner = TaskRunner(
            self.spool,
            lambda: TaskJournal(self.folder / "tasks.db"),
            None,
            self.limits,
            thread or AtOnce(),
            self.clock,
            lambda: int(self.clock.seconds() * 1000),
            self.actions,
        )
        self.runner.start()

    def hand_in(self, *texts, action="note", **fields):
        """Hand in a task for each text, named as it."""
        for text in texts:
            self.count += 1
            content = {"id": text, "action": action, "text": text, **fields}
            self.spool.submit(f"{text}.json", json.dumps(content).encode())
            stamp = self.count * 10**9
            os.utime(self.spool.path / NEW / f"{text}.json", ns=(stamp, stamp))

    def wait(self, seconds):
        """Let time pass, in steps."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)

    def names(self, folder):
        """Name what is in a folder."""
        return sorted(os.listdir(self.spool.path / folder))

    def notes(self):
        """Return what took effect, in order."""
        return [one.text for one in read_notes(self.folder / "tasks.db", 1000)]


@pytest.fixture
def bench(tmp_path):
    """Give a daemon that runs."""
    found = Bench(tmp_path)
    yield found
    found.runner.stop()


def test_a_task_is_done_within_a_second_and_at_once_when_told(bench):
    """The folder is looked at every second; submit says a word."""
    bench.hand_in("a")
    bench.wait(1.25)
    assert (bench.notes(), bench.names(DONE), bench.names(NEW)) == (["a"], ["a.json"], [])
    bench.hand_in("b")
    bench.runner.wake()
    bench.clock.advance(0)
    assert bench.notes() == ["a", "b"]
    assert bench.runner.counts().done == 2


def test_a_name_in_the_same_tick_of_the_folder_is_found(bench):
    """A folder whose time did not move may hold something new all the same."""
    bench.wait(2)
    stamp = bench.spool.changed_ns(NEW)
    bench.hand_in("a")
    os.utime(bench.spool.path / NEW, ns=(stamp, stamp))
    bench.wait(61)
    assert bench.notes() == ["a"]


def test_what_hangs_holds_back_its_key_alone_and_ends_in_failed(bench):
    """Others go on beside it; after its time it is tried again, then given up with a reason."""
    bench.limits = Limits(attempts=2)
    bench.runner.stop()
    bench.start()
    bench.hand_in("hangs", action="ask", key="k")
    bench.hand_in("behind", key="k")
    bench.hand_in("beside")
    bench.wait(2)
    assert (bench.notes(), bench.names(CUR)) == (["beside"], ["hangs.json"])
    counts = bench.runner.counts()
    assert (counts.running, counts.waiting, counts.oldest_age_s > 0) == (1, 1, True)
    bench.wait(70)
    assert (bench.asked, bench.notes()) == (["hangs", "hangs"], ["beside", "behind"])
    assert bench.spool.reason(FAILED, "hangs.json") == "ask did not end in time"
    counts = bench.runner.counts()
    assert (counts.failed, len(counts.alarms), counts.failures[0].reason) == (1, 1, "ask did not end in time")


def test_a_late_answer_of_what_was_given_up_has_no_effect(bench):
    """Only the try that is waited for may write."""
    bench.hand_in("slow", action="ask")
    bench.wait(1.25)
    first = bench.answers["slow"]
    bench.wait(35)
    assert first.called
    bench.answers["slow"].callback(lambda transaction: transaction.add_note("once"))
    bench.wait(2)
    assert bench.notes() == ["once"]


def test_what_is_refused_is_not_tried_again(bench):
    """The reason stands beside it at once."""
    bench.hand_in("no", action="ask")
    bench.wait(1.25)
    bench.answers["no"].errback(TaskRefusedError("never"))
    bench.wait(1)
    assert (bench.names(FAILED), bench.spool.reason(FAILED, "no.json")) == (
        ["no.json", f"no.json{REASON}"],
        "never",
    )


def test_failures_are_counted_over_a_restart(bench):
    """Who restarts the daemon does not give a task all its tries anew."""
    bench.hand_in("bad", action="ask")
    for number in range(5):
        eventually(lambda number=number: bench.wait(5) or len(bench.asked) > number, "another try")
        bench.answers["bad"].errback(RuntimeError("no"))
        bench.runner.stop()
        assert bench.names(CUR) == []
        bench.start()
    bench.wait(2)
    assert bench.names(FAILED) == ["bad.json", f"bad.json{REASON}"]
    assert bench.spool.reason(FAILED, "bad.json") == "RuntimeError: no"


def test_a_task_in_hand_whenever_the_daemon_dies_is_taken_for_the_cause(bench):
    """It would kill every daemon that comes."""
    bench.hand_in("poison", action="ask")
    bench.wait(2)
    for _ in range(10):
        # As after a kill: nothing was put back.
        bench.runner.stop()
        (bench.spool.path / NEW / "poison.json").rename(bench.spool.path / CUR / "poison.json")
        bench.start()
        bench.wait(2)
    assert "the daemon ended 10 times" in bench.spool.reason(FAILED, "poison.json")
    bench.spool.retry("poison.json")
    bench.wait(2)
    assert bench.names(CUR) == ["poison.json"]


def test_an_id_done_is_not_done_again(bench):
    """The file goes to done, and says so; another content under the id is told."""
    bench.hand_in("a")
    bench.wait(2)
    bench.hand_in("a")
    bench.spool.submit("other.json", b'{"id": "a", "action": "note", "text": "else"}')
    bench.wait(2)
    assert bench.notes() == ["a"]
    reasons = [bench.spool.reason(DONE, name) for name in bench.names(DONE) if not name.endswith(REASON)]
    assert sorted("done already" in reason for reason in reasons) == [False, True, True]
    assert sum("something else" in reason for reason in reasons) == 1


def test_a_name_that_comes_again_waits_for_the_one_in_hand(bench):
    """A rename would bury the task that runs."""
    bench.hand_in("a", action="ask")
    bench.wait(2)
    bench.spool.submit("a.json", b'{"id": "second", "action": "note", "text": "second"}')
    bench.wait(5)
    assert (bench.names(NEW), bench.names(CUR)) == (["a.json"], ["a.json"])
    bench.answers["a"].callback(lambda transaction: transaction.add_note("first"))
    bench.wait(2)
    assert bench.notes() == ["first", "second"]


def test_a_file_changed_while_it_waits_is_no_task(bench):
    """Its place in the order was another's."""
    bench.hand_in("a", action="ask", key="k")
    bench.hand_in("b", key="k")
    bench.wait(2)
    (bench.spool.path / NEW / "b.json").write_text('{"id": "c", "action": "note", "text": "c"}')
    bench.answers["a"].callback(None)
    bench.wait(2)
    assert "was changed while it waited" in bench.spool.reason(FAILED, "b.json")


def test_a_waiting_file_may_be_taken_away(bench):
    """Discarded while it waits: as if it had never come."""
    bench.hand_in("a", action="ask", key="k")
    bench.hand_in("b", "c", key="k")
    bench.wait(2)
    bench.spool.discard(NEW, "b.json")
    bench.answers["a"].callback(None)
    bench.wait(2)
    assert (bench.notes(), bench.runner.counts().waiting) == (["c"], 0)


@pytest.mark.parametrize("where", ["journal", "claim", "put_aside"])
def test_a_full_disk_is_an_alarm_and_no_loss(bench, monkeypatch, where):
    """Wherever it strikes: the task waits, and goes on by itself; it is not a failure of the task."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    def no(*_):
        raise sqlite3.OperationalError("database or disk is full") if where == "journal" else full

    with monkeypatch.context() as broken:
        if where == "journal":
            broken.setattr("esgf_gossip.storage.task_journal.Transaction.add_note", no)
        else:
            broken.setattr(Spool, where, no)
        bench.hand_in("a", "b", key="k")
        bench.wait(4 * TROUBLE_S)
        assert "full" in bench.runner.counts().error or "No space" in bench.runner.counts().error
        assert len(bench.names(NEW)) + len(bench.names(CUR)) == 2
    bench.wait(2 * TROUBLE_S)
    assert (bench.notes(), bench.runner.counts().error) == (["a", "b"], "")
    assert bench.names(FAILED) == []


def test_what_has_had_its_effect_has_it_once_however_long_the_disk_is_full(bench, monkeypatch):
    """Only the word that it is done is owed; the action is not asked again."""

    def no(*_):
        raise JournalError("full")

    with monkeypatch.context() as broken:
        broken.setattr(TaskJournal, "complete", no)
        bench.hand_in("a", action="ask")
        bench.wait(2)
        bench.answers["a"].callback(None)
        bench.wait(5 * TROUBLE_S)
        assert (bench.names(CUR), bench.runner.counts().error) == (["a.json"], "full")
    bench.wait(2 * TROUBLE_S)
    assert (bench.asked, bench.runner.counts().done, bench.names(CUR)) == (["a"], 1, [])


def test_a_folder_that_cannot_be_looked_through_is_looked_through_again(bench, monkeypatch):
    """A fault in the midst does not count as an empty folder."""
    bench.hand_in("a", action="ask")
    bench.wait(2)
    bench.answers["a"].errback(TaskRefusedError("no"))
    bench.wait(2)
    real = Spool.look

    def no(_spool, folder):
        if folder == FAILED:
            raise OSError(errno.EIO, "Input/output error")
        return real(_spool, folder)

    with monkeypatch.context() as broken:
        broken.setattr(Spool, "look", no)
        (bench.spool.path / FAILED / "b").write_text("x")
        bench.wait(2)
        assert "Input/output error" in bench.runner.counts().error
        assert bench.runner.counts().failed == 1
    bench.wait(2 * TROUBLE_S)
    assert (bench.runner.counts().error, bench.runner.counts().failed) == ("", 2)


def test_what_became_too_old_goes_although_nothing_comes(tmp_path):
    """Once an hour all folders are looked through."""
    bench = Bench(tmp_path, keep_ms=1)
    # Files are moved at the time of the machine, which is ahead of the bench's clock.
    bench.runner.stop()
    bench.clock.advance(time.time() - bench.clock.seconds() + 10)
    bench.start()
    bench.wait(2)
    (bench.spool.path / DONE / "old").write_text("x")
    bench.wait(60)
    assert bench.names(DONE) == ["old"]
    bench.clock.advance(3600)
    bench.wait(2)
    assert bench.names(DONE) == []
    bench.runner.stop()


def test_nothing_begins_while_the_daemon_stops(bench):
    """A write that ends after the stop begins no action; the thread takes nothing more."""
    reactor = _Calls()
    thread = JournalThread(reactor)
    bench.hand_in("a", action="ask")
    bench.wait(2)
    bench.runner.stop()
    (bench.spool.path / NEW / "a.json").rename(bench.spool.path / CUR / "a.json")
    bench.start(thread)
    bench.wait(1)
    bench.runner.stop()
    reactor.run()
    assert bench.asked == ["a"]
    assert bench.names(CUR) == ["a.json"]
    ended = []
    thread.write(ended.append, 1).addErrback(lambda failure: failure.trap(CancelledError))
    assert ended == []


def test_a_file_that_cannot_be_moved_is_an_alarm_and_stops_nobody(bench, monkeypatch):
    """A folder of another user in new/ stays where it is."""
    (bench.spool.path / NEW / "odd").mkdir()
    real = Spool.put_aside

    def guarded(spool, name, *arguments):
        if name == "odd":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(spool, name, *arguments)

    monkeypatch.setattr(Spool, "put_aside", guarded)
    bench.hand_in("a")
    bench.wait(2)
    assert bench.notes() == ["a"]
    assert "cannot be moved out of new/, one is 'odd': is a folder" in bench.runner.counts().alarms[0]


def test_a_folder_that_cannot_be_made_is_an_alarm(tmp_path):
    """The daemon runs; its tasks wait."""
    (tmp_path / "tasks").write_text("in the way")
    bench = Bench(tmp_path)
    assert "tasks: File exists" in bench.runner.counts().error
    (tmp_path / "tasks").unlink()
    bench.wait(2 * TROUBLE_S)
    assert bench.runner.counts().error == ""
    bench.runner.stop()


def test_done_keeps_so_many(tmp_path):
    """The oldest go first."""
    bench = Bench(tmp_path, keep=4)
    bench.hand_in(*"abcdefgh")
    bench.wait(5)
    assert len(bench.names(DONE)) == 4
    bench.runner.stop()


def test_a_bomb_is_taken_in_small_bites(bench, monkeypatch):
    """Of more files than there is memory for, each is done, in order, and a turn reads ten at most."""
    monkeypatch.setattr("esgf_gossip.tasks.intake.WINDOW", 40)
    bench.hand_in(*[f"{number:03}" for number in range(200)], key="k")
    reads = []
    real = Spool.read
    monkeypatch.setattr(Spool, "read", lambda *arguments: reads.append(1) or real(*arguments))
    turns = []
    work = bench.runner._work
    monkeypatch.setattr(bench.runner, "_work", lambda: turns.append(len(reads)) or work())
    bench.wait(3)
    assert bench.notes() == [f"{number:03}" for number in range(200)]
    assert max(after - before for before, after in pairwise(turns)) <= 12


class _Calls:
    """Takes what a thread hands to the reactor's."""

    def __init__(self):
        self.calls = []

    def callFromThread(self, call, *arguments, **named):
        """Keep a call."""
        self.calls.append(lambda: call(*arguments, **named))

    def run(self):
        """Do what was kept."""
        while self.calls:
            self.calls.pop(0)()


def test_the_journal_is_written_in_one_thread_in_order():
    """Never in the reactor's own; stop waits for what was handed in."""
    reactor, said = _Calls(), []
    thread = JournalThread(reactor)
    for number in range(20):
        thread.write(lambda number: (number, threading.current_thread()), number).addCallback(said.append)
    thread.stop()
    thread.stop()
    reactor.run()
    assert [number for number, _ in said] == list(range(20))
    assert len({one for _, one in said}) == 1
    assert threading.main_thread() not in {one for _, one in said}
