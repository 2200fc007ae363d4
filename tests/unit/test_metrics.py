"""Download numbers: read from the dashboard's file, told to all, never taken for more than they are."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from esgf_gossip.esgf.bodies import BodyError
from esgf_gossip.esgf.metrics import COUNT_MAX, Metrics, MetricsError, from_body, parse_data_users, to_body
from esgf_gossip.esgf.registration import Group
from esgf_gossip.own_site import DATABASE_EVERY_S, FILE_EVERY_S
from esgf_gossip.sources.gauge import PATIENCE_S, REST_MOST_S, Gauge, SourceError
from esgf_gossip.sources.metrics_files import Numbers, read_data_users
from esgf_gossip.views.federation import FederationView, OwnState
from esgf_gossip.views.legacy_json import metrics as metrics_json
from esgf_gossip.views.node_json import node_body
from esgf_gossip.views.registration_xml import ElementCache, render
from helpers.site import FULL_HOST, a_view, demo_site

COUNTS = st.integers(0, COUNT_MAX)
LINE = b"DOWNLOADCOUNT=5,DOWNLOADSIZE=6,DOWNLOADUSERS=7,REGISTEREDUSERS=8"


@given(st.builds(Metrics, *[st.none() | COUNTS] * 4))
def test_a_body_says_what_was_put_in(metrics):
    """Writing and reading is the identity."""
    assert from_body(to_body(metrics)) == metrics


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"metrics": []},
        {"metrics": {"download_count": 1, "download_bytes": 1, "download_users": -1}},
        {"metrics": {"download_count": 1, "download_bytes": 2**63, "download_users": 1}},
        {"metrics": {"download_count": True, "download_bytes": 1, "download_users": 1}},
        {"metrics": {"download_count": 1.5, "download_bytes": 1, "download_users": 1}},
    ],
)
def test_what_is_no_number_is_one_error(said):
    """Neither a missing number nor one out of range is taken."""
    with pytest.raises(BodyError):
        from_body(msgpack.packb(said))


@given(st.binary(max_size=80))
def test_any_bytes_are_numbers_or_one_error(body):
    """A stranger's bytes, as entry and as file, never raise anything else."""
    for read in (from_body, lambda content: parse_data_users(content, "file")):
        try:
            found = read(body)
        except (BodyError, MetricsError):
            continue
        assert all(0 <= number <= COUNT_MAX for number in found.numbers().values())


@pytest.mark.parametrize(
    ("content", "metrics"),
    [
        (LINE, Metrics(5, 6, 7, 8)),
        (LINE.lower() + b"\n", Metrics(5, 6, 7, 8)),
        (b"# by the dashboard\n" + LINE, Metrics(5, 6, 7, 8)),
        (LINE.rpartition(b",")[0], Metrics(5, 6, 7, None)),
        (LINE.replace(b"=6", b"=9999999999999999999"), Metrics(5, COUNT_MAX, 7, 8)),
    ],
)
def test_the_file_is_read_as_java_reads_it(content, metrics):
    """In any case, anywhere, with or without the users; a number no column holds becomes the largest."""
    assert parse_data_users(content, "file") == metrics


@pytest.mark.parametrize("content", [b"", b"DOWNLOADCOUNT=5", LINE.replace(b"=6", b"="), LINE + b",x"])
def test_a_file_without_numbers_is_named(content):
    """The error names the file."""
    with pytest.raises(MetricsError, match=r"/x/data_users\.metrics: no line "):
        parse_data_users(content, "/x/data_users.metrics")


NUMBERS = Metrics(5, 6, 7, 8)
NOTHING = Numbers()


def test_a_new_number_is_told_within_a_minute_and_a_lost_file_changes_nothing(tmp_path):
    """Only a change is told; harm to the file leaves what was told, and the file is read when it is whole again."""
    clock, told, path = Clock(), [], tmp_path / "data_users.metrics"
    gauge = Gauge("download numbers", NOTHING, lambda: told.append(gauge.value.metrics), clock)
    path.write_bytes(LINE)
    gauge.start(lambda: read_data_users(path), FILE_EVERY_S, NOTHING)
    assert (gauge.value.metrics, told) == (NUMBERS, [])
    clock.advance(FILE_EVERY_S)
    assert told == []
    path.unlink()
    clock.advance(FILE_EVERY_S)
    path.write_bytes(b"half")
    clock.advance(FILE_EVERY_S)
    assert (gauge.value.metrics, told) == (NUMBERS, [])
    path.write_bytes(LINE.replace(b"=5", b"=50"))
    clock.advance(FILE_EVERY_S)
    assert told == [Metrics(50, 6, 7, 8)]
    gauge.start(None, 0.0, gauge.value)
    assert (gauge.value, clock.getDelayedCalls()) == (NOTHING, [])


class Database:
    """A source that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Deferred] = []

    def __call__(self) -> Deferred:
        self.asked.append(Deferred())
        return self.asked[-1]


def test_a_database_is_asked_again_after_a_rest_that_grows_with_the_answer(everything_said):
    """One question at a time; what was told stands until an answer, a failure is said once and its end too."""
    clock, told, database = Clock(), [], Database()
    gauge = Gauge("download numbers", NOTHING, lambda: told.append(gauge.value), clock)
    before, after = Numbers(NUMBERS, (Group("wheel", ""),)), Numbers(Metrics(9, 9, 9), ())
    gauge.start(database, DATABASE_EVERY_S, before)
    assert (gauge.value, len(database.asked)) == (before, 1)
    clock.advance(DATABASE_EVERY_S)
    assert len(database.asked) == 1, "the first has not answered"
    database.asked[0].callback(after)
    assert told == [after]
    clock.advance(REST_MOST_S - 1)
    assert len(database.asked) == 1
    clock.advance(1)
    for number in (1, 2):
        database.asked[number].errback(SourceError("gone"))
        clock.advance(DATABASE_EVERY_S)
    assert (gauge.value, told) == (after, [after])
    database.asked[3].callback(after)
    said = everything_said()
    assert said.count("'failure': 'gone'") == 1
    assert said.count("read again") == 2, "after the long silence, and after the failure"
    assert told == [after]


def test_an_answer_after_the_stop_tells_nobody(everything_said):
    """Neither numbers nor a failure, and nothing is asked any more."""
    clock, told, database = Clock(), [], Database()
    gauge = Gauge("download numbers", NOTHING, lambda: told.append(1), clock)
    for end in (
        lambda answer: answer.callback(Numbers(NUMBERS)),
        lambda answer: answer.errback(SourceError("x")),
    ):
        gauge.start(database, DATABASE_EVERY_S, NOTHING)
        gauge.stop()
        end(database.asked[-1])
    assert (told, clock.getDelayedCalls(), gauge.value) == ([], [], NOTHING)
    assert "stay as they are" not in everything_said()


def test_a_source_that_never_answers_is_said(everything_said):
    """A file system that hangs holds up its thread; the log says so once, and again nothing is asked."""
    clock, database = Clock(), Database()
    gauge = Gauge("download numbers", NOTHING, lambda: None, clock)
    gauge.start(database, DATABASE_EVERY_S, NOTHING)
    clock.advance(PATIENCE_S - 1)
    assert "does not answer" not in everything_said()
    clock.pump([1.0] * 10_000)
    assert everything_said().count("stay as they are: {failure}") == 1
    database.asked[0].callback(Numbers(NUMBERS))
    assert gauge.value == Numbers(NUMBERS)
    assert len(database.asked) == 1
    clock.advance(REST_MOST_S)
    assert len(database.asked) == 2, "after a silence of any length it is asked within the hour"
    gauge.stop()
    assert clock.getDelayedCalls() == []


def test_a_fault_of_our_own_ends_no_reading(everything_said):
    """Whatever goes wrong is in the log with its traceback, and the next look comes."""
    clock, database = Clock(), Database()
    gauge = Gauge("download numbers", NOTHING, lambda: None, clock)
    gauge.start(database, DATABASE_EVERY_S, NOTHING)
    database.asked[0].errback(ZeroDivisionError())
    clock.advance(DATABASE_EVERY_S)
    assert len(database.asked) == 2
    assert "ZeroDivisionError" in everything_said()


def test_the_api_says_the_numbers_there_are():
    """What nobody counted is left out, and a node that tells nothing has none."""
    site = demo_site(FULL_HOST).registration
    assert node_body(a_view(site))["metrics"] == {}
    assert node_body(a_view(site, metrics=Metrics(1, 2, 3)))["metrics"] == {
        "download_count": 1,
        "download_bytes": 2,
        "download_users": 3,
    }


def test_old_documents_show_what_there_is():
    """A node that counts accounts alone has no Metrics in registration.xml, and one number in metrics.json."""
    site = demo_site(FULL_HOST).registration
    accounts = a_view(site, metrics=Metrics(registered_users=4))
    assert b"<Metrics" not in render([accounts], 1, ElementCache())
    assert metrics_json(
        FederationView(1, b"", OwnState(FULL_HOST, "f", "0", 1, 1, 0, 0, 0, 0), (accounts,))
    ) == {"users_count": "4"}
