"""Sightings in, events out: on the disk first, said in order, once more rather than never; tracking intake."""

import sqlite3

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import changes, event_intake, ledger
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.event_intake import LONGEST_PAUSE_S, Intake
from esgf_gossip.tracking.events import DatasetEvent, EventType, encode_event
from helpers.sightings import NODE, NOON_MS, OTHER, a_sighting, moved, version


class Log:
    """A log that does as it is told, and holds what it was given."""

    def __init__(self):
        self.held = []
        self.answer = lambda: succeed(None)

    def publish(self, events):
        answer = self.answer()
        if not (isinstance(answer, Deferred) and answer.called and hasattr(answer.result, "value")):
            self.held += [event for event in events if event not in self.held]
        return answer

    @property
    def story(self):
        return [f"{event.type.value} {event.dataset.version}" for event in self.held]


class Bench:
    """An intake over a file, which can be begun again as after a crash."""

    def __init__(self, path, data_nodes=(NODE,), scripts=None):
        self.path = path
        self.data_nodes = data_nodes
        self.scripts = {"intake": event_intake.SCRIPT, **(scripts or {})}
        self.clock = Clock()
        self.log = Log()
        self.begin()

    def begin(self):
        self.database = TrackingDatabase(self.path, self.scripts, AtOnce())
        self.intake = Intake(self.database, self.data_nodes, self.log.publish, self.clock, lambda: NOON_MS)
        self.intake.start()

    def crash(self):
        self.intake.stop()
        self.database.close()
        self.begin()

    def see(self, *sightings, **how):
        seen = self.intake.see(sightings, **how)
        assert seen.called
        return seen


@pytest.fixture
def bench(tmp_path):
    """Give an intake that runs."""
    found = Bench(tmp_path / "tracking.db")
    yield found
    found.intake.stop()
    found.database.close()


def test_events_reach_the_log_and_are_crossed_off(bench):
    """What was seen is said, once."""
    bench.see(a_sighting("publish", 1), a_sighting("publish", 2, 1), a_sighting("retract", 1, 2))
    assert bench.log.story == ["published 1", "new-version 2", "retracted 1"]
    counts = bench.intake.counts
    assert (counts.taken, counts.events, counts.said, counts.waiting) == (3, 3, 3, 0)
    bench.log.held.clear()
    bench.crash()
    assert bench.log.story == []


def test_a_log_that_fails_gets_everything_later_in_order(bench, caplog):
    """Sources go on; the fault is shown; pauses grow to a bound; then all is said in order."""
    bench.log.answer = lambda: fail(OSError("no space left"))
    for number in range(1, 4):
        bench.see(a_sighting("publish", number, number))
    assert bench.intake.fault == f"events of {NODE} cannot be published: no space left"
    assert bench.intake.counts.waiting == 3
    for _ in range(12):
        bench.clock.advance(LONGEST_PAUSE_S)
    calls = bench.clock.getDelayedCalls()
    assert len(calls) == 1
    assert calls[0].getTime() - bench.clock.seconds() <= LONGEST_PAUSE_S
    bench.log.answer = lambda: succeed(None)
    bench.see(a_sighting("publish", 4, 4))
    bench.clock.advance(LONGEST_PAUSE_S)
    assert bench.log.story == ["published 1", "new-version 2", "new-version 3", "new-version 4"]
    assert (bench.intake.fault, bench.intake.counts.waiting) == ("", 0)


def test_one_data_node_without_a_certificate_holds_up_nobody_else(tmp_path, monkeypatch):
    """Its events wait with a fault that names it, more than one call holds; those of others are said, in order."""
    monkeypatch.setattr(event_intake, "SAID_AT_ONCE", 3)
    bench = Bench(tmp_path / "tracking.db", [NODE, OTHER])

    def publish(events):
        if any(event.data_node == OTHER for event in events):
            return fail(OSError("not in the certificate"))
        bench.log.held += events
        return succeed(None)

    certified, bench.log.publish = bench.log.publish, publish
    bench.crash()
    elsewhere = [a_sighting("publish", number, number, data_node=OTHER) for number in range(5, 10)]
    bench.see(*elsewhere, a_sighting("publish", 1))
    bench.see(a_sighting("retract", 1, 1))
    assert bench.log.story == ["published 1", "retracted 1"]
    assert bench.intake.fault == f"events of {OTHER} cannot be published: not in the certificate"
    assert bench.intake.counts.waiting == 5
    bench.clock.advance(LONGEST_PAUSE_S)
    bench.see(a_sighting("publish", 1, 2))
    assert bench.log.story[2:] == ["reinstated 1"]
    bench.log.publish = certified
    bench.crash()
    assert [event.data_node for event in bench.log.held[3:]] == [OTHER] * 5
    assert (bench.intake.fault, bench.intake.counts.waiting) == ("", 0)
    bench.intake.stop()
    bench.database.close()


def test_a_crash_between_the_disk_and_the_log_loses_nothing(bench):
    """The source was told that it was taken; the next run says it."""
    bench.log.answer = Deferred
    bench.log.held.append(None)
    bench.see(a_sighting("publish", 1))
    bench.log.held.clear()
    bench.log.answer = lambda: succeed(None)
    bench.crash()
    assert bench.log.story == ["published 1"]


def test_nothing_is_said_before_the_start(tmp_path):
    """The log may not be there yet; sightings are kept."""
    found = Bench(tmp_path / "tracking.db")
    found.intake.stop()
    found.see(a_sighting("publish", 1))
    assert found.log.story == []
    found.intake.start()
    assert found.log.story == ["published 1"]
    found.intake.stop()
    found.database.close()


def test_what_the_disk_refuses_is_not_taken(bench):
    """The source is told, and hands it in again; nothing of it stays."""

    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    good = event_intake.catalog.see
    event_intake.catalog.see = full
    try:
        failed = bench.intake.see([a_sighting("publish", 1)])
        failure = failed.result
        failed.addErrback(lambda _: None)
    finally:
        event_intake.catalog.see = good
    assert failure.check(TrackingError)
    assert bench.intake.counts.taken == 0
    bench.see(a_sighting("publish", 1))
    assert bench.log.story == ["published 1"]


def test_many_sightings_go_in_parts_and_hostile_texts_do_not_stop_the_queue(bench, monkeypatch):
    """A first look hands in thousands; a reason of any text becomes one line."""
    monkeypatch.setattr(event_intake, "TAKEN_AT_ONCE", 20)
    bench.see(*(a_sighting("publish", number, source="index") for number in range(1, 102)), is_quiet=True)
    assert bench.intake.counts.taken == 101
    assert bench.log.story == []
    bench.see(moved(a_sighting("retract", 7, 5, "kafka"), reason="a\x1b[2J\r\n" + "x" * 900, occurred_ms=-5))
    assert bench.log.story == ["published 7", "retracted 7"]
    assert len(bench.log.held[1].reason) == 200
    assert bench.log.held[1].reason.isprintable()


def test_what_another_has_claimed_is_not_learned_quietly(tmp_path):
    """A first look finds data whose original another claims: this node claims it too; replicas and the rest stay quiet."""
    bench = Bench(tmp_path / "tracking.db", scripts={"ledger": f"{changes.SCRIPT};{ledger.SCRIPT}"})
    place = bench.database.now(ledger.begin, OTHER, 1, 0, {OTHER})
    claims = [DatasetEvent(EventType.PUBLISHED, version(number), OTHER, 0, NOON_MS) for number in (1, 2)]
    bench.database.now(
        ledger.take, place, 1, [encode_event(one) for one in claims], "own.example.org", NOON_MS
    )
    bench.see(
        a_sighting("publish", 1, source="index"),
        a_sighting("publish", 2, source="index", is_replica=True),
        a_sighting("publish", 3, source="index"),
        is_quiet=True,
    )
    assert bench.log.story == ["published 1"]
    bench.intake.stop()
    bench.database.close()


def test_who_waits_no_more_changes_nothing(bench):
    """A publisher's patience ends before the disk is done; its sighting is taken and said."""
    done = []
    run, bench.database.run = (
        bench.database.run,
        lambda work, *arguments, **named: done.append((Deferred(), work, arguments, named)) or done[-1][0],
    )
    seen = bench.intake.see([a_sighting("publish", 1)])
    seen.addErrback(lambda failure: failure.trap(CancelledError))
    seen.cancel()
    bench.database.run = run
    answer, work, arguments, named = done[0]
    run(work, *arguments, **named).chainDeferred(answer)
    assert bench.log.story == ["published 1"]


def test_a_sighting_without_a_data_node_is_of_the_original_on_record(bench):
    """A STAC patch names no node: the original's is meant; where none is on record nothing is said, and it is counted."""
    bench.see(a_sighting("publish", 1))
    bench.see(
        attrs.evolve(a_sighting("retract", 1, 2), data_node=""),
        attrs.evolve(a_sighting("retract", 7), data_node=""),
    )
    assert bench.log.story == ["published 1", "retracted 1"]
    assert bench.intake.counts.nowhere == 1
