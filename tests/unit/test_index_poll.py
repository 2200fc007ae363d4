"""Looks through an index for what went past the proxy; index poll, questions."""

import json
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from esgf_gossip.demo.index_stub import IndexStub
from esgf_gossip.sources.index_client import Answer, IndexUnreachable
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import event_intake, index_poll
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.event_intake import Intake
from esgf_gossip.tracking.events import file_key
from esgf_gossip.tracking.index_poll import LAG_MS, WHOLE_EVERY_MS, IndexPoll
from esgf_gossip.tracking.index_questions import BEFORE_S, LARGE_BYTES, IndexQuestions
from esgf_gossip.tracking.seen_files import files_of
from helpers.sightings import MASTER, NODE, NOON_MS, OTHER, a_sighting, version

HOUR_S = 3600


class Bench:
    """An index, a poll of it every hour, and a clock for all."""

    def __init__(self, path):
        self.clock = Clock()
        self.clock.advance(NOON_MS / 1000)
        self.stub = IndexStub(
            lambda: datetime.fromtimestamp(self.clock.seconds(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        )
        self.asked = []
        self.interfere = lambda _: None
        self.said = []
        self.database = TrackingDatabase(
            path, {"intake": event_intake.SCRIPT, "index_poll": index_poll.SCRIPT}, AtOnce()
        )
        self.intake = Intake(self.database, [NODE], self.publish, self.clock, self.now_ms)
        self.intake.start()
        self.questions = IndexQuestions(self.ask, self.clock, self.now_ms)
        self.begin()

    def begin(self):
        self.poll = IndexPoll(
            self.questions, self.intake, self.database, [NODE], HOUR_S, self.clock, self.now_ms
        )

    def now_ms(self):
        return int(self.clock.seconds() * 1000)

    def publish(self, events):
        self.said += [f"{one.type.value} {one.dataset.version} {one.epoch}" for one in events]
        self.events = [*getattr(self, "events", []), *events]
        return succeed(None)

    def ask(self, method, target, fields, body, timeout_s, most_bytes):
        query = parse_qs(target.decode().partition("?")[2])
        self.asked.append(query)
        found = self.interfere(query)
        if found is not None:
            return found
        return succeed(Answer(200, Headers(), self.stub.search(query)))

    def put(self, number, **fields):
        """Put a dataset into the index, past the proxy."""
        whole = {"master_id": MASTER, "version": str(number), "data_node": NODE, "type": "Dataset", **fields}
        whole.setdefault("id", f"{MASTER}.v{number}|{whole['data_node']}")
        text = "".join(f'<field name="{name}">{value}</field>' for name, value in whole.items())
        self.stub._publish(f"<doc>{text}</doc>".encode())

    def put_file(self, number, name, checksum):
        """Put a file into the index."""
        record = f"{MASTER}.v{number}|{NODE}"
        self.put(
            number,
            type="File",
            id=f"{MASTER}.v{number}.{name}|{NODE}",
            dataset_id=record,
            title=name,
            checksum=checksum,
            url=f"https://{NODE}/{name}|application/netcdf|HTTPServer",
        )

    def end(self, number, *, is_deleted=False):
        """Retract or delete, past the proxy."""
        self.stub._end(b"", {"id": [f"{MASTER}.v{number}|{NODE}"]}, is_deleted=is_deleted)

    def look(self, after_s=HOUR_S):
        """Let time pass and look; return what was said of it."""
        self.clock.advance(after_s)
        self.said.clear()
        looking = self.poll.look()
        for _ in range(50):
            self.clock.advance(0.2)
        assert looking.called
        return list(self.said)


@pytest.fixture
def bench(tmp_path):
    """Give an index and a poll."""
    found = Bench(tmp_path / "tracking.db")
    yield found
    found.poll.stop()
    found.intake.stop()
    found.database.close()


def test_the_first_look_is_quiet_and_later_ones_tell(bench):
    """What is there is learned; then a publication, a retraction, a return and a retraction again are found."""
    bench.put(1)
    bench.put(2)
    bench.end(1)
    bench.put(5, data_node=OTHER)
    assert bench.look() == []
    bench.put_file(3, "a.nc", "aa")
    bench.put(3)
    assert bench.look() == ["new-version 3 0"]
    assert bench.events[-1].supersedes == ("2", "1")
    bench.end(2)
    assert bench.look() == ["published 2 0", "retracted 2 0"]
    assert bench.look() == []
    bench.put(2)
    assert bench.look() == ["reinstated 2 1"]
    bench.end(2)
    assert bench.look() == ["retracted 2 1"]
    bench.end(2, is_deleted=True)
    assert bench.look() == []
    asked = len(bench.asked)
    assert bench.look() == []
    assert len(bench.asked) - asked == 3
    assert bench.poll.fault == ""


def test_files_are_learned_before_a_new_version_is_told(bench):
    """Those of a version that went past the proxy, so that what did not change can be named."""
    bench.look()
    for number, checksum in ((1, "bb"), (2, "cc")):
        bench.put_file(number, "a.nc", "aa")
        bench.put_file(number, "b.nc", checksum)
        bench.put(number)
        bench.look()
    assert bench.events[-1].unchanged == (file_key("a.nc"),)


def test_an_index_that_shows_its_changes_late_takes_nothing_back(bench):
    """What passed the proxy minutes ago is not judged by what a search shows."""
    bench.look()
    bench.put(1)
    bench.intake.see([a_sighting("publish", 1, int(bench.clock.seconds() - NOON_MS / 1000))])
    bench.intake.see([a_sighting("retract", 1, int(bench.clock.seconds() - NOON_MS / 1000) + 1)])
    assert bench.look(60) == []
    bench.end(1)
    assert bench.look(60) == []
    bench.put(1)
    assert bench.look(60) == []
    assert bench.look(LAG_MS / 1000) == ["reinstated 1 1"]


def test_a_first_look_that_breaks_off_goes_on_where_it_was(bench, monkeypatch):
    """Pages read are not read again after a restart; the fault is told and ends."""
    monkeypatch.setattr(index_poll, "PAGE", 2)
    for number in range(1, 8):
        bench.put(number)
    bench.interfere = lambda query: fail(IndexUnreachable("it is away")) if query["offset"] == ["4"] else None
    assert bench.look() == []
    assert bench.poll.fault == "the index could not be looked through: it is away"
    assert bench.poll.counts.failures == 1
    bench.poll.stop()
    bench.begin()
    bench.interfere = lambda _: None
    bench.asked.clear()
    assert bench.look() == []
    assert bench.poll.fault == ""
    assert [query["offset"][0] for query in bench.asked][:2] == ["4", "6"]
    bench.put(8)
    assert bench.look() == ["new-version 8 0"]
    assert len(bench.events[-1].supersedes) == 7


def test_an_index_that_holds_more_than_is_known_is_read_whole_once_a_day(bench):
    """Records with an old time stamp came in by another way: they are learned, and nobody is told."""
    bench.put(1)
    bench.look()
    bench.put(2)
    bench.stub.records[f"{MASTER}.v2|{NODE}"]["_timestamp"] = ["2001-01-01T00:00:00Z"]
    for _ in range(3):
        assert bench.look() == []
    assert bench.look(WHOLE_EVERY_MS / 1000) == []
    assert bench.look() == []
    bench.end(2)
    assert bench.look() == ["published 2 0", "retracted 2 0"]


def test_the_look_comes_again_by_itself(bench):
    """Every hour, with some spread; five minutes after a fault; never after the stop."""
    bench.poll.start()
    assert bench.poll.counts.looks == 1
    bench.clock.advance(HOUR_S)
    assert bench.poll.counts.looks == 2
    bench.interfere = lambda _: fail(IndexUnreachable("it is away"))
    bench.clock.advance(HOUR_S)
    assert bench.poll.counts.failures == 1
    bench.interfere = lambda _: None
    bench.clock.advance(300)
    assert (bench.poll.counts.looks, bench.poll.fault) == (3, "")
    bench.poll.stop()
    bench.clock.advance(10 * HOUR_S)
    assert bench.poll.counts.looks == 3


def test_a_stop_ends_the_look_under_way(bench):
    """Whoever waits for it is told that it is over."""
    bench.interfere = lambda _: Deferred()
    looking = bench.poll.look()
    bench.poll.stop()
    assert looking.called


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"response": {"numFound": "x", "docs": []}}',
        b'{"response": 1}',
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_none_is_a_fault_and_changes_nothing(bench, body):
    """A proxy's error page, or worse."""
    bench.interfere = lambda _: succeed(Answer(200, Headers(), body))
    assert bench.look() == []
    assert "something that is none" in bench.poll.fault


def test_records_that_are_none_are_left_out(bench):
    """Whatever a field holds."""
    odd = [
        {"id": 5},
        {"id": None, "version": []},
        {"id": ["a.v1|b"], "replica": {"x": 1}, "_timestamp": 7},
        9,
    ]
    body = json.dumps({"response": {"numFound": 4, "docs": odd}}).encode()
    bench.interfere = lambda _: succeed(Answer(200, Headers(), body))
    bench.look()
    assert bench.poll.fault == ""


def test_what_ends_is_asked_for_before_it_is_gone(bench):
    """A retraction deletes the records of the files: their URLs are saved at the last moment."""
    bench.put(1)
    bench.put_file(1, "a.nc", "aa")
    asking = bench.questions.before([a_sighting("retract", 1)])
    bench.intake.see(asking.result, is_quiet=True)
    assert [file.name for file in bench.database.now(files_of, version(1))] == ["a.nc"]
    bench.said.clear()
    bench.intake.see([a_sighting("retract", 1, 1)])
    assert bench.said == ["published 1 0", "retracted 1 0"]


def test_the_version_before_is_asked_for_before_a_new_one_is_told(bench):
    """So the first version that passes the proxy replaces what was there before tracking began."""
    bench.put(1)
    bench.put_file(1, "a.nc", "aa")
    bench.put(2)
    asking = bench.questions.before([a_sighting("publish", 2)])
    found = [(one.operation.value, one.dataset.version) for one in asking.result]
    assert found == [("publish", "1"), ("add-files", "1")]


def test_a_publisher_does_not_wait_for_an_index_that_hangs(bench):
    """The call goes on without what could not be asked."""
    bench.interfere = lambda _: Deferred()
    asking = bench.questions.before([a_sighting("retract", 1)])
    bench.clock.advance(BEFORE_S)
    assert asking.result.check(IndexUnreachable)
    asking.addErrback(lambda _: None)


def test_a_large_answer_is_read_beside_the_reactor(bench):
    """Pages of large records, and the files of a large dataset, go to a thread; small ones do not."""
    works = []
    bench.questions._run = lambda work, _reactor: works.append(work) or succeed(work())
    bench.put(1)
    found = bench.questions.page({"type": "Dataset"}, "id")
    assert (len(found.result.records), works) == (1, [])
    bench.put(2, title="x" * LARGE_BYTES)
    found = bench.questions.page({"type": "Dataset"}, "id,title")
    assert (len(found.result.records), len(works)) == (2, 1)
    bench.interfere = lambda _: succeed(Answer(200, Headers(), b"[" * (LARGE_BYTES + 1)))
    failed = bench.questions.page({"type": "Dataset"}, "id")
    assert failed.result.check(IndexUnreachable)
    failed.addErrback(lambda _: None)
