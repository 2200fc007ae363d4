"""The folder of the task queue, with real files: nothing is opened that is no task, nothing is lost; spool."""

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from esgf_gossip.sources.spool import CUR, DONE, FAILED, NEW, REASON, TMP, Spool, SpoolError, new_name
from esgf_gossip.storage.task_journal import JournalError, TaskJournal, read_notes
from esgf_gossip.tasks.scan import STEP_NAMES, Scan, Survey


@pytest.fixture
def spool(tmp_path):
    """Give a folder of tasks."""
    found = Spool(tmp_path / "tasks")
    found.make()
    return found


def put(spool, folder, *names):
    """Write files, each younger than the one before."""
    for place, name in enumerate(names):
        path = spool.path / folder / name
        path.write_bytes(os.fsencode(name))
        os.utime(path, ns=(10**9 + place, 10**9 + place))


def run(work):
    """Step until it is over; return it and the number of steps."""
    for steps in range(1, 1000):
        work.step()
        if work.is_over:
            return work, steps
    raise AssertionError("it never ends")


def test_a_file_is_handed_in_claimed_and_put_aside(spool):
    """One rename each; the reason stands beside it."""
    spool.submit("a", b"content")
    assert spool.read(NEW, "a", 100) == b"content"
    assert (spool.claim("a"), spool.claim("a")) == (True, False)
    assert spool.put_aside("a", CUR, FAILED, "no\ngood") == "a"
    assert (spool.reason(FAILED, "a"), spool.reason(FAILED, "b")) == ("no good", "")
    spool.retry("a")
    assert (spool.holds(NEW, "a"), os.listdir(spool.path / FAILED)) == (True, [])


def test_nothing_is_overwritten(spool):
    """What comes under a name that is taken gets another, or waits."""
    put(spool, DONE, "a")
    put(spool, CUR, "a")
    other = spool.put_aside("a", CUR, DONE)
    assert other != "a"
    assert sorted(os.listdir(spool.path / DONE)) == sorted(["a", other])
    put(spool, CUR, "b")
    put(spool, NEW, "b")
    spool.give_back("b")
    assert spool.holds(CUR, "b")
    put(spool, FAILED, "b")
    with pytest.raises(FileExistsError):
        spool.retry("b")


@pytest.mark.parametrize("name", [f"x{REASON}", "x" * 200, "a b", "\udcff", "-rf", "ü"])
def test_a_strange_name_becomes_a_plain_one(spool, name):
    """Whatever a program calls its file, it lies in failed under a name that anybody can type."""
    put(spool, NEW, name)
    target = spool.put_aside(name, NEW, FAILED, "why")
    assert target.isascii()
    assert "/" not in target
    assert not target.endswith(REASON)
    assert spool.reason(FAILED, target) == "why"


def make_socket(path):
    """Leave a socket there."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a FIFO"),
        (os.mkdir, "a folder"),
        (lambda path: os.symlink("/etc/hostname", path), "a symbolic link"),
        (make_socket, "a socket"),
    ],
)
def test_what_is_no_file_is_refused_without_waiting(spool, make, kind):
    """A FIFO without a writer would hold up the reader for ever."""
    make(spool.path / NEW / "odd")
    with pytest.raises(SpoolError, match=f"is {kind}"):
        spool.read(NEW, "odd", 100)
    scan, _ = run(Scan(spool, NEW, 10, lambda _: False))
    assert ([one.kind for one in scan.odd], scan.oldest) == ([kind], [])
    spool.put_aside("odd", NEW, FAILED, "odd")
    assert spool.discard(FAILED, "odd")
    assert os.listdir(spool.path / FAILED) == []


def test_a_link_that_takes_the_place_of_a_file_is_not_followed(spool, monkeypatch):
    """Between look and open somebody may have been quick."""
    (spool.path / NEW / "link").symlink_to("/etc/hostname")
    regular = (spool.path / TMP).parent / "regular"
    regular.write_text("x")
    monkeypatch.setattr(Path, "lstat", lambda _path: os.stat(regular))
    with pytest.raises(SpoolError, match="Too many levels"):
        spool.read(NEW, "link", 100)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_only_files_of_accepted_users_are_read(spool):
    """Others' are refused unread."""
    put(spool, NEW, "theirs")
    os.chown(spool.path / NEW / "theirs", 12345, 12345)
    with pytest.raises(SpoolError, match="belongs to user 12345"):
        spool.read(NEW, "theirs", 100)
    assert Spool(spool.path, [12345]).read(NEW, "theirs", 100) == b"theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user and back")
def test_a_file_that_this_user_may_not_read_is_refused(spool):
    """By a real user without rights."""
    put(spool, NEW, "theirs")
    os.seteuid(65534)
    try:
        with pytest.raises(SpoolError, match="Permission denied; let the user of the daemon read it"):
            spool.read(NEW, "theirs", 100)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("number", "error"), [(errno.EACCES, SpoolError), (errno.EMFILE, OSError)])
def test_a_file_that_cannot_be_read_is_its_own_fault_unless_the_host_is_at_its_end(
    spool, monkeypatch, number, error
):
    """Too many open files say nothing of this one."""
    put(spool, NEW, "a")

    def no(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", no)
    with pytest.raises(error, match=os.strerror(number)):
        spool.read(NEW, "a", 100)


def test_a_second_daemon_keeps_out(spool):
    """Its recovery would take tasks that run."""
    other = Spool(spool.path)
    spool.lock()
    spool.lock()
    with pytest.raises(OSError, match="another daemon"):
        other.lock()
    spool.unlock()
    other.lock()
    other.unlock()


def test_a_scan_finds_the_oldest_in_steps(spool):
    """It keeps what there is room for, and counts the others."""
    names = [f"{number:04}" for number in range(3 * STEP_NAMES)]
    put(spool, NEW, *names)
    scan, steps = run(Scan(spool, NEW, 50, lambda name: name == "0000"))
    assert [name for _, name in scan.oldest] == names[1:51]
    assert scan.beyond == len(names) - 51
    # More where the disk is slow.
    assert steps >= 4


def test_a_survey_keeps_the_newest_and_their_reasons(spool):
    """Too many and too old go, with their lines; a line without its file goes too."""
    for number in range(5):
        put(spool, CUR, f"t{number}")
        spool.put_aside(f"t{number}", CUR, FAILED, f"reason {number}")
    (spool.path / FAILED / f"gone{REASON}").write_text("x")
    newest = sorted(spool.look(FAILED), key=lambda one: one.moved_ns)
    survey, _ = run(Survey(spool, FAILED, 3, 10**15, time.time_ns()))
    assert survey.count == 3
    assert len(os.listdir(spool.path / FAILED)) == 6
    assert {one.reason for one in survey.newest} >= {"reason 4", "reason 3"}
    assert newest
    survey, _ = run(Survey(spool, FAILED, 3, 10**9, time.time_ns() + 10**10))
    assert (survey.count, os.listdir(spool.path / FAILED)) == (0, [])


def test_a_folder_with_something_in_it_stays(spool):
    """Nobody asked us to delete a tree."""
    (spool.path / FAILED / "tree").mkdir()
    (spool.path / FAILED / "tree" / "leaf").write_text("x")
    survey, _ = run(Survey(spool, FAILED, 0, 0, time.time_ns()))
    assert (survey.count, (spool.path / FAILED / "tree" / "leaf").exists()) == (1, True)


def test_what_a_program_left_half_written_goes_after_a_day_and_a_half(spool):
    """Maildir's rule for tmp."""
    put(spool, TMP, "half")
    run(Survey(spool, TMP, 0, 0, time.time_ns()))
    assert spool.holds(TMP, "half")
    run(Survey(spool, TMP, 0, 0, time.time_ns() + 37 * 3600 * 10**9))
    assert not spool.holds(TMP, "half")


def test_names_rise():
    """What is handed in later is done later, in the same tick of the clock too."""
    assert new_name(9) < new_name(10)
    assert new_name() != new_name()


@pytest.fixture
def journal(tmp_path):
    """Give an open record."""
    found = TaskJournal(tmp_path / "tasks.db")
    yield found
    found.close()


def test_done_and_what_a_task_wrote_are_one(journal):
    """Where the write fails nothing is noted; a second time is an error of ours, never a second line."""

    def broken(transaction):
        transaction.add_note("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        journal.complete("a", b"x", 1, broken)
    assert (journal.done("a", b"x"), read_notes(journal.path, 10)) == (None, [])
    journal.complete("a", b"x", 5, lambda transaction: transaction.add_note("whole"))
    assert [(one.id, one.text) for one in read_notes(journal.path, 10)] == [("a", "whole")]
    assert (journal.done("a", b"x").is_same, journal.done("a", b"y").is_same) == (True, False)
    assert journal.count_done() == 1


def test_tries_are_counted_until_the_task_is_done_or_given_up(journal):
    """Over a restart as well."""
    assert [journal.add_failure("a"), journal.add_interruption("a"), journal.add_failure("a")] == [1, 1, 2]
    other = TaskJournal(journal.path)
    assert other.add_failure("a") == 3
    other.forget_tries("a")
    other.close()
    assert journal.add_failure("a") == 1


def test_ids_are_forgotten_by_age_and_number(journal, monkeypatch):
    """The file does not grow for ever."""
    monkeypatch.setattr("esgf_gossip.storage.task_journal.KEEP_IDS", 3)
    monkeypatch.setattr("esgf_gossip.storage.task_journal.KEEP_NOTES", 2)
    for number in range(5):
        journal.complete(f"i{number}", b"", number, lambda transaction: transaction.add_note("n"))
    assert not journal.trim(10)
    assert [number for number in range(5) if journal.done(f"i{number}", b"")] == [2, 3, 4]
    assert [one.at_ms for one in read_notes(journal.path, 10)] == [3, 4]
    assert not journal.trim(10**15)
    assert (journal.done("i4", b""), journal.count_done()) == (None, 5)


def test_a_damaged_or_newer_file_is_told(tmp_path):
    """Ids done are not thrown away silently."""
    path = tmp_path / "tasks.db"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(JournalError, match="damaged"):
        TaskJournal(path)
    path.write_bytes(b"")
    TaskJournal(path).close()
    import sqlite3

    with sqlite3.connect(path) as found:
        found.execute("PRAGMA user_version = 9")
    found.close()
    with pytest.raises(JournalError, match="newer version"):
        TaskJournal(path)
