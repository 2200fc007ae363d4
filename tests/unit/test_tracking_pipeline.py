"""From changes to matches: in order, again after a crash, nothing of the past; files are learned first."""

import attrs
import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import changes, event_intake, file_learning, pipeline
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.file_learning import FileLearning
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.pipeline import FIRST_PAUSE_S, Pipeline
from helpers.sightings import NODE, a_file, a_sighting

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
DATASET = DatasetId("CMIP6.a.b", "1")


class AwayError(Exception):
    """Say that the downloads cannot be asked."""


def a_change(number, occurred_ms=NOW_MS):
    """Return a retraction."""
    return Change(bytes([number]) * 32, "retracted", (DATASET,), occurred_ms)


def a_match(change, user="ada"):
    """Return somebody who holds what changed."""
    return Match(change.key, f"https://idp.example/openid/{user}", (), 1, (DATASET,), 1, NOW_MS - 1)


class Bench:
    """A pipeline whose downloads answer as they are told."""

    def __init__(self, path):
        self.path = path
        self.clock = Clock()
        self.caught_up = lambda _at_ms: succeed(None)
        self.answer = lambda _changes: None
        self.asked = []
        self.handed = []
        self.woken = 0
        self.begin()

    def begin(self):
        scripts = {"changes": changes.SCRIPT, "pipeline": pipeline.SCRIPT}
        self.database = TrackingDatabase(self.path, scripts, AtOnce())
        self.pipeline = Pipeline(
            self.database,
            self.wait,
            self.match,
            lambda _connection, change, matches, _now_ms: self.handed.append((change.key[0], len(matches))),
            self.hear,
            30 * DAY_MS,
            self.clock,
            lambda: NOW_MS,
            (AwayError,),
        )
        self.pipeline.start()

    def wait(self, at_ms):
        return self.caught_up(at_ms)

    def hear(self):
        self.woken += 1

    def match(self, wanted, take, known_ms):
        assert known_ms == NOW_MS
        self.asked.append([change.key[0] for change in wanted])
        failure = self.answer(wanted)
        if failure is not None:
            return fail(failure)
        return take([a_match(change, user) for change in wanted for user in ("ada", "bo")])

    def add(self, *wanted):
        for change in wanted:
            self.database.now(changes.add_change, change, NOW_MS)
        self.pipeline.wake()

    def close(self):
        self.pipeline.stop()
        self.database.close()


@pytest.fixture
def bench(tmp_path):
    """Give a pipeline that runs."""
    found = Bench(tmp_path / "tracking.db")
    yield found
    found.close()


def test_each_change_is_looked_up_once(bench):
    """What was done is not looked up again, not after a restart either; what comes later is."""
    bench.add(a_change(1), a_change(2))
    assert (bench.asked, bench.handed, bench.woken) == ([[1, 2]], [(1, 2), (2, 2)], 1)
    bench.close()
    bench.begin()
    bench.add(a_change(3))
    assert bench.asked == [[1, 2], [3]]
    assert (bench.pipeline.changes, bench.pipeline.matches) == (1, 2)


def test_nobody_is_told_of_the_past(bench):
    """A change that is too old is passed by, and counted."""
    bench.add(a_change(1, NOW_MS - 31 * DAY_MS), a_change(2, NOW_MS - 29 * DAY_MS))
    assert bench.asked == [[2]]
    assert (bench.pipeline.changes, bench.pipeline.too_old) == (2, 1)


def test_a_clock_that_runs_ahead_keeps_nothing_fresh(bench):
    """Nothing happens later than it is heard of."""
    bench.add(a_change(1, NOW_MS + 400 * DAY_MS))
    [(_, kept)] = bench.database.now(changes.changes_after, 0, 9)
    assert kept.occurred_ms == NOW_MS


def test_what_fails_comes_again(bench):
    """While the downloads cannot be asked the fault is shown, and the same changes are looked up afterwards."""
    bench.answer = lambda _changes: AwayError("the database is away")
    bench.add(a_change(1))
    assert (bench.pipeline.fault, bench.handed) == ("the database is away", [])
    bench.add(a_change(2))
    assert bench.asked == [[1]]
    bench.answer = lambda _changes: None
    bench.clock.advance(FIRST_PAUSE_S)
    assert (bench.asked, bench.pipeline.fault) == ([[1], [1, 2]], "")


def test_a_fault_of_this_program_names_no_user(bench):
    """The text of an exception nobody expects may hold anything."""
    bench.answer = lambda _changes: ValueError("https://idp.example/openid/ada")
    bench.add(a_change(1))
    assert bench.pipeline.fault == "matching failed (ValueError)"


def test_downloads_are_read_up_to_the_change_first(bench):
    """Nobody is looked for before everything is known that was downloaded until then; a stop in the midst loses nothing."""
    waits = Deferred()
    bench.caught_up = lambda at_ms: waits if at_ms == NOW_MS else fail(AssertionError(at_ms))
    bench.add(a_change(1))
    assert bench.asked == []
    bench.close()
    bench.caught_up = lambda _at_ms: succeed(None)
    bench.begin()
    assert bench.asked == [[1]]


def test_files_are_learned_once_and_all_anew_by_a_new_store(tmp_path):
    """Each file goes to the store once, what changed again, everything to a store that is new."""
    scripts = {"intake": event_intake.SCRIPT, "learning": file_learning.SCRIPT}
    database = TrackingDatabase(tmp_path / "tracking.db", scripts, AtOnce())
    learned = []

    def see(*files):
        sighting = attrs.evolve(a_sighting("publish", 1), files=files)
        database.now(event_intake.catalog.see, sighting, [NODE], NOW_MS, is_quiet=True)

    def learn(pairs):
        learned.append([file.name for _, file in pairs])
        return succeed(0)

    learning = FileLearning(database, learn, lambda: not learned)
    see(a_file("a.nc"), a_file("b.nc"))
    learning.learn_new()
    learning.learn_new()
    see(a_file("c.nc"))
    learning.learn_new()
    FileLearning(database, learn, lambda: False).learn_new()
    assert learned == [["a.nc", "b.nc"], ["c.nc"]]
    FileLearning(database, learn, lambda: True).learn_new()
    assert learned[-1] == ["a.nc", "b.nc", "c.nc"]
    database.close()
