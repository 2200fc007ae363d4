"""Services seen from outside: what is said, how it is counted, whom a look may reach, when a node doubts itself."""

from __future__ import annotations

import ipaddress
import threading
from random import Random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from esgf_gossip.core.observers import Observers
from esgf_gossip.esgf.bodies import BodyError
from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.esgf.observations import HOSTS_MOST, from_body, to_body
from esgf_gossip.esgf.services import Service
from esgf_gossip.sources import roots as roots_module
from esgf_gossip.sources.observing import Observing
from esgf_gossip.sources.reach import is_open, is_own
from esgf_gossip.sources.roots import DataRoots, find_fault
from esgf_gossip.views.outside import seen_down
from helpers.site import FULL_HOST, a_view, demo_site

NAME = st.text(st.characters(codec="utf-8"), max_size=64)
DOWN = st.builds(
    ServiceHealth,
    st.just(Health.DOWN),
    st.integers(0, 2**40),
    st.text(st.characters(codec="utf-8"), max_size=200),
)
OBSERVATIONS = st.dictionaries(NAME, st.dictionaries(NAME, DOWN, min_size=1, max_size=3), max_size=4)
A_FAULT = ServiceHealth(Health.DOWN, 5, "answers with status 503")


@given(OBSERVATIONS)
def test_a_body_says_what_was_put_in(observations):
    """Writing and reading is the identity."""
    assert from_body(to_body(observations)) == observations


def test_only_exceptions_are_told():
    """What is up is not in the entry, nor a host of which nothing is down."""
    up = ServiceHealth(Health.UP, 1, "")
    assert from_body(
        to_body({"a.org": {"IndexService": up, "FrontEnd": A_FAULT}, "b.org": {"FrontEnd": up}})
    ) == {"a.org": {"FrontEnd": A_FAULT}}


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"observations": []},
        {"observations": {"h": []}},
        {"observations": {"h": {"t": [1]}}},
        {"observations": {"h": {"t": [-1, ""]}}},
        {"observations": {"h": {"t": [1, 2]}}},
        {"observations": {"h": {"t": [1, "x" * 201]}}},
        {"observations": {"h" * 254: {}}},
        {"observations": {1: {}}},
        {"observations": {str(number): {} for number in range(HOSTS_MOST + 1)}},
        {"observations": {"h": {str(number): [1, ""] for number in range(65)}}},
    ],
)
def test_what_is_out_of_bounds_is_one_error(said):
    """Every bound of the entry."""
    with pytest.raises(BodyError):
        from_body(msgpack.packb(said))


@given(st.binary(max_size=60))
def test_any_bytes_are_observations_or_one_error(body):
    """A stranger's bytes never raise anything else."""
    try:
        found = from_body(body)
    except BodyError:
        return
    assert all(one.health is Health.DOWN for services in found.values() for one in services.values())


# ------------------------------------------------------------------ how it is counted

MEMBERS = frozenset(f"n{number}.org" for number in range(20))
OBSERVERS = Observers(MEMBERS)
SUBJECT = "n7.org"
WATCHERS = OBSERVERS.originals(SUBJECT)


def said(reporting, silent=()):
    """Return what these nodes say of one service of the subject."""
    return {
        **{observer: {SUBJECT: {"IndexService": A_FAULT}} for observer in reporting},
        **{observer: {} for observer in silent},
    }


@pytest.mark.parametrize(
    ("reporting", "silent", "is_down"),
    [
        (5, 0, True),
        (3, 2, True),
        (2, 3, False),
        (2, 2, False),
        (2, 1, True),
        (2, 0, True),
        (1, 0, False),
        (0, 5, False),
    ],
)
def test_more_than_half_of_those_who_look_and_two_at_least(reporting, silent, is_down):
    """Who does not look does not count; one alone never decides."""
    statements = said(WATCHERS[:reporting], WATCHERS[reporting : reporting + silent])
    found = seen_down(statements, OBSERVERS.originals)
    assert (SUBJECT in found) is is_down


@given(st.sets(st.sampled_from(sorted(MEMBERS - set(WATCHERS)))), st.sampled_from(WATCHERS))
def test_neither_one_liar_nor_any_number_of_strangers_takes_a_service_out(strangers, liar):
    """Whoever is not to look is not heard, and one of those who are is not enough."""
    statements = said({*strangers, liar}, set(WATCHERS) - {liar})
    assert seen_down(statements, OBSERVERS.originals) == {}
    assert seen_down(said({*strangers, liar}), OBSERVERS.originals) == {}


def test_what_is_shown_names_who_saw_it():
    """The reason names the observers, since is the middle of their times, all within the bound of a reason."""
    statements = {
        observer: {SUBJECT: {"IndexService": ServiceHealth(Health.DOWN, 10 * place, "x" * 200)}}
        for place, observer in enumerate(WATCHERS)
    }
    found = seen_down(statements, OBSERVERS.originals)[SUBJECT]["IndexService"]
    assert found.since_ms == 20
    assert found.reason.startswith(f"seen from {', '.join(sorted(WATCHERS))}: x")
    assert len(found.reason) == 200


@pytest.mark.parametrize(
    ("own", "outside", "shown"),
    [
        ("up", True, "down"),
        ("up", False, "up"),
        ("down", True, "own"),
        ("maintenance", True, "maintenance"),
        (None, True, "down"),
    ],
)
def test_what_a_node_says_against_itself_goes_first(own, outside, shown):
    """Its own down and its maintenance stand; its own up gives way to a quorum."""
    health = {} if own is None else {"IndexService": ServiceHealth(Health(own), 1, "own")}
    node = a_view(
        demo_site(FULL_HOST).registration, health=health, outside={"IndexService": A_FAULT} if outside else {}
    )
    found = node.health_of("IndexService")
    assert (found.reason if shown == "own" else found.health.value) == shown


# ------------------------------------------------------------------ whom a look may reach


@pytest.mark.parametrize(
    ("address", "is_so"),
    [
        ("192.0.43.8", True), ("2620:0:861::1", True),
        ("127.0.0.1", False), ("10.0.0.1", False), ("192.168.1.1", False), ("172.16.0.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("224.0.0.1", False), ("0.0.0.0", False), ("255.255.255.255", False), ("::1", False),
        ("fe80::1", False), ("fd00::1", False), ("ff02::1", False), ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False), ("localhost", False), ("", False), ("10.1.2.3", True),
    ],
)  # fmt: skip
def test_only_addresses_that_are_everybodys_are_open(address, is_so):
    """Loopback, private, link-local, multicast and reserved ones are not, in no disguise; allowed ones are."""
    assert is_open(address, (ipaddress.ip_network("10.1.0.0/16"),)) is is_so


@pytest.mark.parametrize(
    ("endpoint", "is_so"),
    [
        ("https://a.org/x", True), ("https://A.ORG:8443/x", True), ("gsiftp://a.org:2811/", True), ("a.org:7512", True),
        ("https://b.org/x", False), ("https://a.org@b.org/", False), ("https://a.org.evil.org/", False), ("http://[half", False),
        ("http://10.1.2.3/", True), ("http://10.2.2.3/", False), ("http://127.0.0.1/", False), ("", False), ("http://", False),
    ],
)  # fmt: skip
def test_only_the_members_own_host_is_looked_at(endpoint, is_so):
    """Its name is in its certificate; what it says of other hosts is a claim."""
    assert is_own(Service("FrontEnd", endpoint), "a.org", (ipaddress.ip_network("10.1.0.0/16"),)) is is_so


# ------------------------------------------------------------------ looking

FRONT = Service("FrontEnd", "https://x/")


def front_of(host):
    """Return a service on that host."""
    return (Service("FrontEnd", f"https://{host}/"),)


class Eyes:
    """Looks as the test says: ``dark`` hosts do not answer, of ``hidden`` ones nobody may look."""

    def __init__(self) -> None:
        self.dark: set[str] = set()
        self.hidden: set[str] = set()
        self.asked: list[str] = []

    def look(self, service, _timeout_s) -> Deferred:
        host = service.endpoint.split("/")[2]
        self.asked.append(host)
        return succeed(None if host in self.hidden else "dark" if host in self.dark else "")


@pytest.fixture
def watching():
    """Four hosts that are looked at every ten seconds."""
    clock, eyes, told = Clock(), Eyes(), []
    subjects = {f"{name}.org": front_of(f"{name}.org") for name in "abcd"}
    observing = Observing(
        lambda: subjects, eyes.look, lambda: told.append(observing.seen), clock, lambda: 7, Random(1)
    )
    observing.start(10, (), None)
    yield clock, eyes, told, subjects, observing
    observing.stop()
    assert clock.getDelayedCalls() == []


def pass_time(clock, seconds):
    """Let the clock go on in small steps."""
    clock.pump([1.0] * seconds)


def test_an_exception_is_told_after_two_looks_and_taken_back_after_two(watching):
    """Nothing before the first look; then an empty statement, which says that this node looks."""
    clock, eyes, told, _, observing = watching
    assert observing.seen is None
    pass_time(clock, 40)
    assert observing.seen == {}
    eyes.dark.add("b.org")
    pass_time(clock, 25)
    assert observing.seen == {"b.org": {"FrontEnd": ServiceHealth(Health.DOWN, 7, "dark")}}
    assert told[-1] == observing.seen
    eyes.dark.clear()
    pass_time(clock, 25)
    assert observing.seen == {} == told[-1]


def test_a_node_that_sees_most_others_down_doubts_itself(watching):
    """It says nothing at all, and speaks again when it sees."""
    clock, eyes, told, _, observing = watching
    pass_time(clock, 40)
    eyes.dark |= {"a.org", "b.org", "c.org"}
    pass_time(clock, 40)
    assert observing.seen is None
    assert told[-1] is None
    eyes.dark = {"a.org"}
    pass_time(clock, 40)
    assert set(observing.seen) == {"a.org"}


def test_who_is_no_subject_any_more_is_looked_at_no_more(watching):
    """The roster moves: looks end, and what was seen of them goes."""
    clock, eyes, _, subjects, observing = watching
    eyes.dark.add("b.org")
    pass_time(clock, 40)
    assert set(observing.seen) == {"b.org"}
    del subjects["b.org"]
    pass_time(clock, 10)
    assert observing.seen == {}
    eyes.asked.clear()
    pass_time(clock, 40)
    assert "b.org" not in eyes.asked
    assert "a.org" in eyes.asked


def test_a_look_that_may_not_be_had_says_nothing(watching):
    """Neither up nor down, and it is tried again: addresses change."""
    clock, eyes, told, _, observing = watching
    eyes.hidden.add("a.org")
    pass_time(clock, 40)
    assert observing.seen == {}
    assert eyes.asked.count("a.org") >= 3
    assert told == [{}]


def test_a_subject_on_another_host_is_not_looked_at():
    """A service that names a third party's host has nobody knock there."""
    clock, eyes = Clock(), Eyes()
    observing = Observing(
        lambda: {"a.org": front_of("victim.org")}, eyes.look, lambda: None, clock, lambda: 7, Random(1)
    )
    observing.start(10, (), None)
    pass_time(clock, 60)
    assert (eyes.asked, observing.seen) == ([], {})
    observing.stop()


def test_what_was_told_before_a_restart_stands_until_it_is_contradicted():
    """An exception of the last run is there before the first look, and goes by looks alone."""
    clock, eyes = Clock(), Eyes()
    told = {"a.org": {"FrontEnd": A_FAULT}}
    subjects = {f"{name}.org": front_of(f"{name}.org") for name in "ab"}
    observing = Observing(lambda: subjects, eyes.look, lambda: None, clock, lambda: 7, Random(1))
    observing.start(10, (), told)
    assert observing.seen == told
    pass_time(clock, 12)
    assert observing.seen == told
    pass_time(clock, 30)
    assert observing.seen == {}
    observing.stop()


# ------------------------------------------------------------------ the data folders


def test_a_folder_that_is_gone_empty_or_closed_is_named(tmp_path):
    """The first that is not well, in one line."""
    good, bare = tmp_path / "good", tmp_path / "bare"
    good.mkdir()
    bare.mkdir()
    (good / "data.nc").write_text("x")
    assert find_fault([good]) == ""
    assert find_fault([good, bare]) == f"{bare} is empty: is it mounted?"
    assert find_fault([tmp_path / "gone"]) == f"{tmp_path}/gone: No such file or directory"
    assert find_fault([good / "data.nc"]) == f"{good}/data.nc: Not a directory"


def join_threads() -> None:
    """Wait for the threads that look."""
    for thread in threading.enumerate():
        if thread.name == "source":
            thread.join(60)


class ThreadsAndClock(Clock):
    """A clock whose threads hand over at once."""

    def callFromThread(self, call, *arguments) -> None:
        call(*arguments)


def test_a_file_system_that_hangs_is_told_and_asked_by_one_thread_only(monkeypatch):
    """The look ends, the next says that the last still waits, and when it has answered all is well."""
    is_free = threading.Event()

    def hanging(_folders) -> str:
        assert is_free.wait(60)
        return ""

    monkeypatch.setattr(roots_module, "find_fault", hanging)
    clock, heard = ThreadsAndClock(), []
    roots = DataRoots(["/esg/data"], clock)
    roots.look(5).addCallback(heard.append)
    clock.advance(5)
    roots.look(5).addCallback(heard.append)
    assert heard == ["/esg/data: no answer of a file system", "/esg/data: still no answer of a file system"]
    is_free.set()
    join_threads()
    roots.look(5).addCallback(heard.append)
    join_threads()
    assert heard[2:] == [""]
