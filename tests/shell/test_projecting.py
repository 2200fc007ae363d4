"""The projector: keeps up with the log, never blocks the reactor, says what it misses, hands matches over."""

from __future__ import annotations

import queue

import attrs
import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from esgf_gossip.sources.access_log import AccessLog, LogReading, LogRow, PublishedFiles
from esgf_gossip.sources.gauge import SourceError, in_thread
from esgf_gossip.tracking.downloads import DownloadsError
from esgf_gossip.tracking.downloads_postgres import PostgresDownloads
from esgf_gossip.tracking.downloads_sqlite import SqliteDownloads
from esgf_gossip.tracking.events import EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change
from esgf_gossip.tracking.projecting import PASS_S, RETRY_MOST_S, STOP_S, Projector, StoppedError
from esgf_gossip.tracking.sightings import SeenFile
from helpers.access_tables import INSERT, READER, TRACKER, add_tables, address_of, password_file
from helpers.daemons import eventually
from helpers.postgres import postgres_server

DATASET = DatasetId("obs4MIPs.A.B", "1")
PLACE = "https://data.example.org/flat/a.nc"
NOW_MS = 1_700_000_000_000
CHANGE = Change(b"r" * 32, EventType.RETRACTED, (DATASET,), NOW_MS + 10**9)


class Log:
    """A log of two rows a look, which may fail."""

    def __init__(self) -> None:
        self.rows: list[LogRow] = []
        self.files: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.faults: list[str] = []
        self.fault = lambda: ""

    def add(self, *users: str) -> None:
        """Write a download of each."""
        for user in users:
            self.rows.append(LogRow(len(self.rows) + 1, user, PLACE, NOW_MS, True))

    def read(self, position, now_ms, *, is_rechecking) -> LogReading:
        """Read on."""
        self._ask("rows")
        new = self.rows[position.highest : position.highest + 2]
        after = position.moved([row.id for row in new], [], now_ms, is_rechecked=is_rechecking)
        return LogReading(tuple(new), after, len(new) == 2)

    def published(self, after) -> PublishedFiles:
        """Read on."""
        self._ask("files")
        return PublishedFiles(tuple(self.files), len(self.files), has_more=False)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        self.faults.append(self.fault())
        if what in self.errors:
            raise self.errors[what]


@attrs.define
class Stage:
    """A projector on a clock; what blocks is done when ``hold`` is not set."""

    clock: Clock
    source: Log
    projector: Projector
    held: list
    hold: bool = False

    def release(self, count: int = 1) -> None:
        """Do the next held steps."""
        for _ in range(count):
            work, answer = self.held.pop(0)
            maybeDeferred(work).chainDeferred(answer)


@pytest.fixture
def stage(tmp_path):
    """A projector over a made-up log and a real file, not started."""
    clock, source, held = Clock(), Log(), []

    def run(work, reactor):
        if not made.hold:
            return maybeDeferred(work)
        answer = Deferred()
        held.append((work, answer))
        return answer

    projector = Projector(
        lambda: SqliteDownloads(tmp_path / "downloads.db"),
        source,
        clock,
        lambda: NOW_MS + round(clock.seconds() * 1000),
        10**12,
        run,
    )
    source.fault = lambda: projector.fault
    made = Stage(clock, source, projector, held)
    yield made
    made.hold = False
    while held:
        made.release()
    projector.stop()
    for call in clock.getDelayedCalls():
        call.cancel()


def learned(stage) -> None:
    """Tell the projector whose file the log speaks of."""
    stage.projector.learn([(DATASET, SeenFile("a.nc", (PLACE,)))])


def results(deferred) -> list:
    """Collect what it fires with."""
    told = []
    deferred.addBoth(told.append)
    return told


def matched(stage) -> set[str]:
    """Return whom a retraction concerns."""
    users: set[str] = set()
    done = results(stage.projector.match([CHANGE], lambda batch: users.update(one.openid for one in batch)))
    assert done == [len(users)]
    return users


def test_it_reads_to_the_end_and_again_after_a_while(stage):
    """A pass ends when nothing is left; the next one comes half a minute later."""
    stage.source.add("u1", "u2", "u3", "u4", "u5")
    stage.projector.start()
    learned(stage)
    stage.clock.advance(0)
    assert stage.source.asked == ["files", "rows", "rows", "rows"]
    assert matched(stage) == {"u1", "u2", "u3", "u4", "u5"}
    stage.source.add("u6")
    stage.clock.advance(PASS_S - 0.1)
    assert "u6" not in matched(stage)
    stage.clock.advance(0.1)
    assert "u6" in matched(stage)
    assert stage.projector.counts().rows == 6


def test_counting_takes_a_hundredth_of_the_time(stage):
    """What takes long to count is counted seldom, what takes no time after each pass."""
    stage.source.add("u1")
    stage.projector.start()
    stage.clock.advance(0)
    assert stage.projector.counts().rows == 1
    stage.source.add("u2")
    stage.hold = True
    stage.clock.advance(PASS_S)
    while stage.projector.counts().rows == 1:
        # Of a pass each step takes two seconds, and counting is the last.
        stage.clock.advance(2)
        stage.release()
    stage.hold = False
    stage.source.add("u3")
    stage.clock.pump([PASS_S] * 6)
    assert stage.projector.counts().rows == 2
    stage.clock.pump([PASS_S] * 2)
    assert stage.projector.counts().rows == 3


def test_waiting_for_another_step_is_not_counting(stage):
    """A step that takes a minute before the count does not put the next one off by a hundred minutes."""
    stage.source.add("u1")
    stage.projector.start()
    stage.hold = True
    stage.clock.advance(0)
    while "rows" not in stage.source.asked:
        stage.release()
    # Files are learned before the rest of the pass is done, and take their time.
    learned(stage)
    stage.release()
    while not stage.projector.caught_up(NOW_MS - 1):
        stage.release()
    stage.projector.export("u1")
    stage.clock.advance(PASS_S * 2)
    while stage.held:
        stage.release()
    stage.hold = False
    stage.source.add("u2")
    stage.clock.pump([PASS_S] * 3)
    assert stage.projector.counts().rows == 2


def test_one_fault_is_one_line_of_the_log(stage):
    """While nobody answers, the publisher's tables are not told of beside the log."""
    told = []
    observer = lambda event: told.append(event["log_format"]) if event["log_level"] is LogLevel.warn else None
    refused = SourceError("[tracking] database: nobody answers")
    stage.source.errors = {"rows": refused, "files": refused}
    globalLogPublisher.addObserver(observer)
    try:
        stage.projector.start()
        stage.clock.pump([0, 0, 1, 2, 4])
        assert told == ["downloads are not read: {fault}"]
        del stage.source.errors["rows"]
        stage.clock.pump([RETRY_MOST_S])
    finally:
        globalLogPublisher.removeObserver(observer)
    assert told[1:] == ["files of the publisher's tables are not read: {error}"]


def test_a_change_waits_for_a_pass_that_began_after_it(stage):
    """What was downloaded before the change is in; a pass under way began too early, so one more is made at once."""
    stage.projector.start()
    learned(stage)
    stage.clock.advance(0)
    assert stage.projector.caught_up(NOW_MS - 1)
    stage.clock.advance(1)
    assert not stage.projector.caught_up(NOW_MS + 1000)
    stage.hold = True
    stage.clock.advance(PASS_S - 1)
    told = results(stage.projector.when_caught_up(NOW_MS + 30_000))
    stage.source.add("late")
    stage.release()
    assert told == []
    stage.clock.advance(0)
    stage.release()
    assert told == [None]
    stage.hold = False
    # What is counted after it.
    stage.release()
    assert matched(stage) == {"late"}
    # Nobody is under way: one is made for it.
    stage.clock.advance(1)
    assert results(stage.projector.when_caught_up(NOW_MS + 31_000)) == []
    before = len(stage.source.asked)
    stage.clock.advance(0)
    assert len(stage.source.asked) == before + 1
    assert stage.projector.caught_up(NOW_MS + 30_500)


def test_a_database_that_is_away_is_told_and_asked_less_often(stage):
    """One failure is retried at once and not told; then waits double up to five minutes; what waits goes on waiting."""
    stage.source.errors["rows"] = SourceError("[tracking] database: nobody answers")
    stage.projector.start()
    learned(stage)
    told = results(stage.projector.when_caught_up(NOW_MS))
    stage.clock.advance(0)
    assert stage.source.asked == ["files", "rows", "files", "rows"]
    assert set(stage.source.faults) == {""}
    assert stage.projector.fault == "[tracking] database: nobody answers"
    for wait_s in (1, 2, 4, 8, 16, 32, 64, 128, 256, RETRY_MOST_S, RETRY_MOST_S):
        before = stage.source.asked.count("rows")
        stage.clock.advance(wait_s - 0.5)
        assert stage.source.asked.count("rows") == before
        stage.clock.advance(0.5)
        assert stage.source.asked.count("rows") == before + 1
    assert told == []
    # Changes that came before can be matched with what is there.
    assert matched(stage) == set()
    del stage.source.errors["rows"]
    stage.source.add("u1")
    stage.clock.advance(RETRY_MOST_S)
    assert (stage.projector.fault, told) == ("", [None])
    assert matched(stage) == {"u1"}


def test_a_bug_does_not_end_it_and_says_no_names(stage, log):
    """Whatever is raised, it is tried again; the log has where, not what."""
    stage.source.errors["rows"] = RuntimeError("https://idp.example.org/openid/alice")
    stage.projector.start()
    stage.clock.pump([0, 0])
    assert stage.projector.fault == "reading downloads failed (RuntimeError); see the log"
    assert log
    assert not any("alice" in str(entry) for entry in log)
    stage.source.errors.clear()
    stage.clock.advance(1)
    assert stage.projector.fault == ""


def test_publishers_tables_come_first_and_may_be_missing(stage):
    """Their URLs are known before the log is read; the log is read without them too."""
    stage.source.files = [(DATASET.instance_id, "flat/a.nc")]
    stage.source.add("u1")
    stage.source.errors["files"] = SourceError("[tracking] database: permission denied")
    stage.projector.start()
    stage.clock.advance(0)
    assert (stage.projector.counts().unresolved, stage.projector.fault) == (1, "")
    del stage.source.errors["files"]
    for _ in range(21):
        stage.clock.advance(PASS_S)
    assert matched(stage) == {"u1"}
    assert stage.source.asked.count("files") == 2


def test_batches_are_handed_over_one_by_one(stage, monkeypatch):
    """The next batch is looked for when the one before is taken; meanwhile the log is read; a refusal ends it."""
    monkeypatch.setattr("esgf_gossip.tracking.matching.BATCH_MATCHES", 2)
    stage.source.add("u1", "u2", "u3")
    stage.projector.start()
    learned(stage)
    stage.clock.advance(0)
    taken, answers = [], []

    def take(batch):
        taken.append(len(batch))
        answers.append(Deferred())
        return answers[-1]

    done = results(stage.projector.match([CHANGE], take))
    # A second one waits for the first.
    second = results(stage.projector.match([CHANGE], lambda batch: None))
    assert (taken, second) == ([2], [])
    stage.source.add("u4")
    stage.clock.advance(PASS_S)
    answers[0].callback(None)
    # The match is of one moment.
    assert taken == [2, 1]
    answers[1].callback(None)
    assert (done, second) == ([3], [4])
    done = results(stage.projector.match([CHANGE], take))
    answers[2].errback(ValueError("the disk is full"))
    assert isinstance(done[0].value, ValueError)
    assert taken == [2, 1, 2]
    assert matched(stage) == {"u1", "u2", "u3", "u4"}


def test_a_stop_ends_what_waits_and_leaves_nothing_open(stage, monkeypatch):
    """Waiters are told, a match under way ends after its batch, the store is closed, and nothing begins afterwards."""
    monkeypatch.setattr("esgf_gossip.tracking.matching.BATCH_MATCHES", 1)
    stage.source.add("u1", "u2")
    stage.projector.start()
    learned(stage)
    stage.clock.advance(0)
    answer = Deferred()
    done = results(stage.projector.match([CHANGE], lambda batch: answer))
    waiting = results(stage.projector.when_caught_up(NOW_MS + 1))
    stopped = results(stage.projector.stop())
    assert stopped == [None]
    assert isinstance(waiting[0].value, StoppedError)
    answer.callback(None)
    assert isinstance(done[0].value, StoppedError)
    assert isinstance(results(stage.projector.erase("u1"))[0].value, StoppedError)
    assert stage.clock.getDelayedCalls() == []


def test_a_stop_does_not_wait_for_ever(stage):
    """A server that holds the connection and says nothing does not hold up the daemon's end."""
    stage.hold = True
    stage.projector.start()
    stage.clock.advance(0)
    stopped = results(stage.projector.stop())
    stage.clock.advance(STOP_S - 1)
    assert stopped == []
    stage.clock.advance(1)
    assert stopped == [None]


def test_a_store_that_cannot_be_opened_is_tried_again(stage, monkeypatch):
    """A full disk, a schema that is missing: told, and mended without a restart."""
    opens = stage.projector._open_store
    monkeypatch.setattr(
        stage.projector, "_open_store", lambda: (_ for _ in ()).throw(DownloadsError("no room"))
    )
    stage.projector.start()
    stage.clock.pump([0, 0])
    assert stage.projector.fault == "no room"
    monkeypatch.setattr(stage.projector, "_open_store", opens)
    stage.clock.advance(1)
    assert stage.projector.fault == ""


def test_without_a_log_what_is_there_is_matched(tmp_path):
    """A node whose site logs elsewhere has caught up always."""
    clock = Clock()
    projector = Projector(
        lambda: SqliteDownloads(tmp_path / "downloads.db"),
        None,
        clock,
        lambda: 0,
        1,
        lambda work, _: maybeDeferred(work),
    )
    projector.start()
    clock.advance(0)
    assert projector.caught_up(10**15)
    assert results(projector.when_caught_up(10**15)) == [None]
    assert results(projector.match([CHANGE], lambda batch: None)) == [0]
    assert results(projector.export("u1"))[0]["downloads"] == []
    projector.stop()


class Pump(Clock):
    """A clock to which threads come back when they are let."""

    def __init__(self) -> None:
        super().__init__()
        self.returned = queue.SimpleQueue()

    def callFromThread(self, work, *arguments):
        """Note a call."""
        self.returned.put((work, arguments))

    def turn(self) -> bool:
        """Do what came and what is due."""
        self.advance(0)
        while not self.returned.empty():
            work, arguments = self.returned.get()
            work(*arguments)
        return True


def test_threads_and_two_roles_of_one_server(tmp_path):
    """Log and store in one PostgreSQL, two roles, real threads; a restart in between is not even told."""
    with postgres_server() as server:
        add_tables(server)
        with server.superuser() as owner:
            for number in range(1, 30):
                owner.execute(
                    INSERT, [number, f"https://idp.example.org/{number % 7}", PLACE, NOW_MS / 1000, True]
                )
        password = password_file(tmp_path)
        pump = Pump()
        projector = Projector(
            lambda: PostgresDownloads(address_of(server, TRACKER), password),
            AccessLog(address_of(server, READER), password, rows=10),
            pump,
            lambda: NOW_MS,
            10**12,
            in_thread,
        )
        projector.start()
        told = results(projector.when_caught_up(NOW_MS))
        eventually(lambda: pump.turn() and told, "the log is read")
        resolved = results(projector.learn([(DATASET, SeenFile("a.nc", (PLACE,)))]))
        eventually(lambda: pump.turn() and resolved, "files are learned")
        assert resolved == [7]
        server.stop()
        server.start()
        users = []
        done = results(projector.match([CHANGE], users.extend))
        eventually(lambda: pump.turn() and done, "matches are found")
        assert (done, len(users)) == ([7], 7)
        stopped = results(projector.stop())
        eventually(lambda: pump.turn() and stopped, "it has stopped")
