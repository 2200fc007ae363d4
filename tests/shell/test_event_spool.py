"""The folder of files with events: each is taken once it is on the disk, or put aside with a reason; none is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from esgf_gossip.sources import event_spool
from esgf_gossip.sources.event_spool import FILES, EventSpool
from esgf_gossip.sources.rounds import RETRY_MOST_S, Rounds
from esgf_gossip.sources.spool import CUR, DONE, FAILED, NEW, REASON, Spool
from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.stac_feed import EventReader
from helpers.stac import NOW_MS, RETRACT, a_patch, a_post

POST, PATCH = json.dumps(a_post()).encode(), json.dumps(a_patch(RETRACT)).encode()


class Folder:
    """A spool at work on a clock of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.seen = []
        self.answer = succeed
        self.now_ns = 10**18
        self.begin()

    def begin(self):
        """Begin as a new process would."""
        reader = EventReader("stac", lambda: NOW_MS, self.clock)
        self.spool = EventSpool(
            self.path, reader.read, self.see, self.clock, lambda: self.now_ns, (TrackingError,)
        )
        self.spool.start()
        self.run()

    def see(self, sightings):
        self.seen.append([one.operation.value for one in sightings])
        return self.answer(None)

    def run(self, seconds=event_spool.POLL_S):
        """Let time pass, and every turn in it."""
        for _ in range(200):
            self.clock.advance(0)
        self.clock.advance(seconds)
        for _ in range(200):
            self.clock.advance(0)

    def put(self, name, content=POST, folder=NEW, at_ns=None):
        """Put a file."""
        (self.path / folder / name).write_bytes(content)
        if at_ns is not None:
            os.utime(self.path / folder / name, ns=(at_ns, at_ns))

    def names(self, folder):
        """Return what lies in a folder."""
        return sorted(os.listdir(self.path / folder))


@pytest.fixture
def folder(tmp_path):
    """A folder with nothing in it."""
    found = Folder(tmp_path / "events")
    yield found
    found.spool.stop()


def test_files_are_taken_oldest_first(folder):
    """Each is handed on as a whole and lies in done/ then."""
    folder.put("b", POST, at_ns=10**9)
    folder.put("a", POST + b"\n" + PATCH, at_ns=2 * 10**9)
    folder.run()
    assert folder.seen == [["publish"], ["publish", "retract"]]
    assert (folder.names(NEW), folder.names(CUR), folder.names(DONE)) == ([], [], ["a", "b"])
    assert (folder.spool.taken, folder.spool.refused, folder.spool.fault) == (2, 0, "")


def test_what_is_none_is_put_aside_with_the_reason(folder):
    """Nothing of it is taken, and what stands behind it goes on."""
    folder.put("a", POST + b"\n{}")
    folder.put("b")
    os.mkfifo(folder.path / NEW / "c")
    (folder.path / NEW / "d").symlink_to("/etc/passwd")
    folder.run()
    assert folder.seen == [["publish"]]
    assert [one for one in folder.names(FAILED) if not one.endswith(REASON)] == ["a", "c", "d"]
    spool = Spool(folder.path)
    assert spool.reason(FAILED, "a") == "message 2: data is missing, not an object"
    assert spool.reason(FAILED, "c") == "is a FIFO, no file; write a file"
    assert folder.spool.refused == 3


def test_a_file_that_is_too_long_is_put_aside(folder, monkeypatch):
    """It is not read to its end."""
    monkeypatch.setattr(event_spool, "FILE_BYTES", 100)
    folder.put("a", b"x" * 101)
    folder.run()
    assert "longer than 100 bytes" in Spool(folder.path).reason(FAILED, "a")


def test_a_disk_that_says_no_loses_nothing(folder):
    """The file waits in cur/, the fault is shown, and it goes on by itself."""
    folder.answer = lambda _: fail(TrackingError("tracking.db: no room"))
    folder.put("a")
    folder.run()
    assert (folder.names(CUR), folder.spool.fault) == (["a"], "tracking.db: no room")
    folder.answer = succeed
    folder.run(RETRY_MOST_S)
    assert (folder.names(DONE), folder.spool.fault) == (["a"], "")


def test_what_was_under_way_is_begun_again_by_the_next_run(folder):
    """Written or not, its events come again; their ids tell."""
    folder.answer = lambda _: Deferred()
    folder.put("a")
    folder.run()
    assert folder.names(CUR) == ["a"]
    folder.spool.stop()
    folder.answer = succeed
    folder.begin()
    assert (folder.seen, folder.names(DONE)) == ([["publish"]] * 2, ["a"])


def test_of_two_daemons_one_works(folder):
    """The other says so, and takes over when the first ends."""
    second = Folder(folder.path)
    assert "another daemon works on this folder" in second.spool.fault
    folder.spool.stop()
    second.put("a")
    second.run(RETRY_MOST_S)
    assert second.seen == [["publish"]]
    second.spool.stop()


def test_many_files_are_taken_in_bounded_rounds(folder):
    """No round is longer because more wait."""
    for number in range(FILES * 2 + 1):
        folder.put(f"{number:04d}", at_ns=10**9 + number)
    folder.run()
    folder.run()
    assert len(folder.names(DONE)) == FILES * 2 + 1


def test_a_file_of_one_name_comes_again(folder):
    """Nothing in done/ is overwritten."""
    for _ in range(2):
        folder.put("a")
        folder.run()
    assert len(folder.names(DONE)) == 2


def test_what_cannot_be_moved_holds_up_nobody(folder, monkeypatch):
    """It is shown, and the others go on."""
    real = Spool.claim

    def claim(spool, name):
        if name == "a":
            raise PermissionError(1, "Operation not permitted")
        return real(spool, name)

    monkeypatch.setattr(Spool, "claim", claim)
    folder.put("a")
    folder.put("b")
    folder.run()
    assert folder.names(DONE) == ["b"]
    assert folder.spool.fault == f"{folder.path}: 'a' cannot be moved: Operation not permitted"


def test_what_is_kept_long_enough_is_removed(folder, monkeypatch):
    """By age and by number, with its reason."""
    folder.put("a", b"x")
    folder.put("b")
    folder.run()
    folder.now_ns = (
        max(one.stat().st_ctime_ns for one in (folder.path / FAILED).iterdir()) + event_spool.KEEP_NS * 2
    )
    folder.run(event_spool.TIDY_S)
    assert (folder.names(DONE), folder.names(FAILED)) == ([], [])
    folder.now_ns = 0
    monkeypatch.setattr(event_spool, "KEPT", 2)
    for name in "cdefg":
        folder.put(name)
    folder.run()
    folder.run(event_spool.TIDY_S)
    assert len(folder.names(DONE)) == 2


def test_rounds_that_fail_rest_longer_each_time_and_say_so_once():
    """One that goes well ends it."""
    clock, outcomes = Clock(), [OSError("no"), OSError("no"), OSError("no"), None, None]
    at_s = []

    def work():
        at_s.append(clock.seconds())
        outcome = outcomes.pop(0)
        return succeed(None) if outcome is None else fail(outcome)

    rounds = Rounds("work", work, 60.0, clock)
    rounds.start()
    rounds.start()
    faults = []
    for _ in range(36):
        clock.advance(1)
        faults.append(rounds.fault)
    assert at_s == [1, 6, 16, 36]
    assert (faults[0], faults[-1]) == ("no", "")
    rounds.wake()
    clock.advance(0)
    assert at_s[-1] == 36
    rounds.stop()
    rounds.stop()
    clock.advance(1000)
    assert len(at_s) == 5
    assert rounds.done == 2


def test_an_error_of_our_own_is_logged_whole(log):
    """What nobody expected is no text for a page."""
    clock = Clock()
    rounds = Rounds("work", lambda: 1 / 0, 60.0, clock)
    rounds.start()
    clock.advance(0)
    assert "internal error" in rounds.fault
    assert log[0]["log_failure"].check(ZeroDivisionError)
    rounds.stop()
