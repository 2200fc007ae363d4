"""The health of services: what a node says, when it says it, and what lists make of it."""

from __future__ import annotations

from random import Random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from esgf_gossip.core import limits
from esgf_gossip.esgf.bodies import BodyError
from esgf_gossip.esgf.health import REASON_CHARACTERS, Health, ServiceHealth, from_body, to_body
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.services import Service
from esgf_gossip.sources.probing import Probing
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.views.federation import FederationView, NodeStatus, OwnState
from esgf_gossip.views.lists_xml import USUAL, lines_of
from esgf_gossip.views.node_json import Wanted, services_body, status_body
from helpers.site import a_view

OWN = OwnState("n0.example.org", "fed.example.org", "0", 1, 1, 0, 0, 0, 0)
IDP = Service("OpenIDProvider", "https://a.example.org/idp")
UP, DOWN = ServiceHealth(Health.UP, 1000), ServiceHealth(Health.DOWN, 2000, "refused")
NAMES = st.text(max_size=limits.NAME_CHARACTERS)
TOLD = st.builds(
    ServiceHealth,
    st.sampled_from([Health.UP, Health.DOWN, Health.MAINTENANCE]),
    st.integers(0, limits.TIME_MS_MAX),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=REASON_CHARACTERS),
)
# Anything msgpack can say.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=64), TOLD, max_size=8))
def test_a_body_says_what_was_put_in(services):
    """Writing and reading is the identity, and equal healths give equal bytes."""
    body = to_body(services)
    assert dict(from_body(body)) == services
    assert to_body(dict(reversed(services.items()))) == body


@given(
    st.binary(max_size=60)
    | ANYTHING.map(msgpack.packb)
    | ANYTHING.map(lambda x: msgpack.packb({"services": x}))
)
def test_any_bytes_are_a_body_or_one_error(body):
    """A stranger's bytes never raise anything else, and what is read is within bounds."""
    try:
        read = from_body(body)
    except BodyError:
        return
    assert all(one.health is not Health.UNKNOWN and one.since_ms >= 0 for one in read.values())


def test_what_a_later_version_says_is_passed_over():
    """A health, a key, a further field not known today do not hide the rest."""
    body = msgpack.packb(
        {
            "services": {"A": ["asleep", 1, ""], "C": [["up"], 1, ""], "B": ["down", 2, "x", {"more": 1}]},
            "further": [1],
        }
    )
    assert dict(from_body(body)) == {"B": ServiceHealth(Health.DOWN, 2, "x")}


class Looks:
    """Looks that answer what the test says."""

    def __init__(self):
        self.reason, self.at_s = "", []
        self.clock, self.changes = Clock(), []
        self.probing = Probing(
            self.look, lambda: self.changes.append(self.told()), self.clock, self.now_ms, Random(1)
        )

    def now_ms(self):
        """Return the time of the clock."""
        return int(self.clock.seconds() * 1000)

    def look(self, _service, timeout_s):
        """Answer at once."""
        assert 0 < timeout_s <= 5
        self.at_s.append(self.clock.seconds())
        return succeed(self.reason)

    def told(self):
        """Return the health told of the one service."""
        one = self.probing.health.get(IDP.type)
        return None if one is None else one.health

    def pass_s(self, seconds):
        """Let time go in small steps."""
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)


@pytest.fixture
def looks():
    """Return looks at one service every 10 s, begun."""
    looks = Looks()
    looks.probing.start([IDP], 10.0, {})
    return looks


def test_two_looks_in_vain_are_down_and_two_good_ones_up(looks):
    """One failure is no news; the second, half a period later, is; likewise on the way back."""
    looks.pass_s(30)
    assert looks.changes == [Health.UP]
    looks.reason, count = "refused", len(looks.at_s)
    while len(looks.at_s) == count:
        looks.pass_s(0.1)
    assert looks.told() is Health.UP
    looks.pass_s(5.1)
    assert looks.changes == [Health.UP, Health.DOWN]
    assert looks.probing.health[IDP.type].reason == "refused"
    looks.reason, count = "", len(looks.at_s)
    while len(looks.at_s) == count:
        looks.pass_s(0.1)
    assert looks.told() is Health.DOWN
    looks.pass_s(5.1)
    assert looks.changes == [Health.UP, Health.DOWN, Health.UP]


def test_failures_that_alternate_are_told_once(looks):
    """A service that answers every other look is not told up and down in turn."""
    looks.pass_s(10)
    for turn in range(20):
        looks.reason, count = "refused" if turn % 2 else "", len(looks.at_s)
        while len(looks.at_s) == count:
            looks.pass_s(0.1)
    assert looks.changes == [Health.UP]


def test_a_service_that_never_answered_is_down_after_two_looks():
    """Nothing was told of it, so nothing is taken back; it is not up in between."""
    other = Looks()
    other.reason = "refused"
    other.probing.start([IDP], 10.0, {})
    other.pass_s(12)
    assert other.changes == [Health.DOWN]


def test_what_was_told_before_a_restart_stays_until_it_is_contradicted():
    """A provider that was down before the restart is not up because nobody has looked yet."""
    looks = Looks()
    looks.probing.start([IDP], 10.0, {IDP.type: DOWN, "Gone": UP})
    assert dict(looks.probing.health) == {IDP.type: DOWN}
    looks.pass_s(5.1)
    assert looks.told() is Health.DOWN
    looks.pass_s(15)
    assert looks.changes == [Health.UP]


def test_a_look_that_ends_after_the_stop_tells_nobody():
    """A slow answer of a service that is not looked at any more changes nothing."""
    waiting, looks = Deferred(), Looks()
    looks.look = lambda _service, _timeout_s: waiting
    looks.probing._look = looks.look
    looks.probing.start([IDP], 10.0, {})
    looks.pass_s(6)
    looks.probing.stop()
    waiting.callback("refused")
    looks.pass_s(60)
    assert (looks.changes, looks.clock.getDelayedCalls()) == ([], [])


def a_federation(down=(), hosts=8, at_s=0, **changes):
    """Return nodes that each have a provider and an index, those of some numbers down."""
    nodes = []
    for number in range(hosts):
        host = f"n{number}.example.org"
        properties = {
            "idp.service.endpoint": f"https://{host}/idp",
            "index.service.endpoint": f"https://{host}/esg-search",
            "orp.security.authorization.service.endpoint": f"https://{host}/azs",
        }
        health = {"OpenIDProvider": DOWN, "IndexService": DOWN, "AuthorizationService": DOWN}
        nodes.append(
            a_view(Registration(host, 60, properties), health=health if number in down else {}, **changes)
        )
    return FederationView(at_s * 1000, b"", OWN, tuple(nodes))


def listed(files, name="esgf_idp.xml"):
    """Return the numbers of the nodes in a list."""
    return [number for number in range(8) if f"n{number}.example.org".encode() in dict(files)[name]]


@pytest.fixture
def files(tmp_path):
    """Return the lists of a fresh node."""
    return ListFiles(tmp_path, tuple(USUAL))


def test_what_is_down_leaves_the_lists_that_ask_for_it_and_returns(files):
    """Providers and shards by default; the others keep theirs."""
    files.update(a_federation(), is_ready=True)
    files.update(a_federation(down={1, 6}), is_ready=True)
    for name in ("esgf_idp.xml", "esgf_shards.xml"):
        assert listed(files, name) == [0, 2, 3, 4, 5, 7]
    assert listed(files, "esgf_azs.xml") == list(range(8))
    files.update(a_federation(), is_ready=True)
    assert (listed(files), files.alarms) == (list(range(8)), ())


def test_a_list_can_keep_what_is_down(tmp_path):
    """``[outputs] drop_down = []`` leaves every list to the registrations alone."""
    files = ListFiles(tmp_path, tuple(USUAL), drop_down=())
    files.update(a_federation(down={1}), is_ready=True)
    assert listed(files) == list(range(8))


EVERYBODY = frozenset(range(8))
# Longer ago than what counts as one failure.
LATER_S = 1000


@pytest.mark.parametrize("name", ["esgf_idp.xml", "esgf_shards.xml"])
def test_a_list_that_would_lose_more_than_half_stays_with_an_alarm(files, name):
    """One failure never empties a list; what had left before stays away, and the alarm ends with its cause."""
    files.update(a_federation(), is_ready=True)
    files.update(a_federation(down={3}), is_ready=True)
    for at_s in (LATER_S, 10 * LATER_S):
        files.update(a_federation(down=EVERYBODY, at_s=at_s), is_ready=True)
        assert listed(files, name) == [0, 1, 2, 4, 5, 6, 7]
        assert f"{name} is kept as it was: 7 of its 7 entries are down at once" in files.alarms
    files.update(a_federation(down={0, 1}, at_s=11 * LATER_S), is_ready=True)
    assert (listed(files, name), files.alarms) == ([2, 3, 4, 5, 6, 7], ())


def test_one_failure_told_by_one_node_after_another_is_one_failure(files):
    """Nodes look at different moments: those that left the list first come back when it turns out that all are down."""
    files.update(a_federation(), is_ready=True)
    for number in range(8):
        files.update(a_federation(down=range(number + 1), at_s=20 * number), is_ready=True)
        assert listed(files) == (list(range(number + 1, 8)) if number < 4 else sorted(EVERYBODY))


def test_failures_far_apart_are_taken_for_what_they_are(files):
    """Providers that die one a day leave one after another; the last stays."""
    for number in range(8):
        files.update(a_federation(down=range(number + 1), at_s=86400 * number), is_ready=True)
        assert listed(files) == list(range(min(number + 1, 7), 8))
    assert files.alarms


def test_the_guard_holds_over_a_restart(tmp_path):
    """The list on the disk is the last good one; a new process does not forget who was in it, nor who was not."""
    before = ListFiles(tmp_path, tuple(USUAL))
    before.update(a_federation(down={3}), is_ready=True)
    before.update(a_federation(down=EVERYBODY, at_s=LATER_S), is_ready=True)
    after = ListFiles(tmp_path, tuple(USUAL))
    after.update(a_federation(down=EVERYBODY, at_s=2 * LATER_S), is_ready=True)
    assert listed(after) == [0, 1, 2, 4, 5, 6, 7]
    assert len(after.alarms) == 2


def test_the_guard_keeps_nobody_who_is_no_member(files):
    """Who left or expired goes from a guarded list as from any other."""
    files.update(a_federation(), is_ready=True)
    gone = a_federation(down=set(range(8)))
    stale = [a_view(gone.nodes[0].registration, status=NodeStatus.STALE, health=gone.nodes[0].health)]
    files.update(FederationView(0, b"", OWN, (*stale, *gone.nodes[1:])), is_ready=True)
    assert listed(files) == [1, 2, 3, 4, 5, 6, 7]


@given(st.lists(st.tuples(st.sets(st.integers(0, 7)), st.integers(0, 2000)), min_size=1, max_size=8))
def test_no_series_of_failures_empties_a_list(tmp_path_factory, series):
    """Whatever goes down, in whatever order and time: all that is up is listed, and the list is never empty."""
    files = ListFiles(tmp_path_factory.mktemp("lists"), ())
    at_s = 0
    for down, after_s in series:
        at_s += after_s
        files.update(a_federation(down=down, at_s=at_s), is_ready=True)
        now = set(listed(files))
        assert now >= EVERYBODY - down
        assert now
        assert bool(now & down) == any("esgf_idp.xml" in alarm for alarm in files.alarms)


def test_the_lines_of_a_file_are_those_written(files):
    """What is read back to guard a list is what stands in it."""
    files.update(a_federation(), is_ready=True)
    assert "<value>https://n0.example.org/idp</value>" in lines_of(dict(files)["esgf_idp.xml"])


def test_services_are_listed_flat_and_by_type_and_health():
    """One object a service; who left or expired has none."""
    view = a_federation(down={1}, hosts=3)
    assert len(services_body(view, Wanted())) == 9
    found = services_body(view, Wanted("indexservice", "down"))
    assert [(one["host"], one["since"], one["reason"]) for one in found] == [
        ("n1.example.org", "1970-01-01T00:00:02.000Z", "refused")
    ]
    assert services_body(a_federation(hosts=3, status=NodeStatus.LEFT), Wanted()) == []


def test_an_alarm_of_the_lists_is_part_of_the_status():
    """Said only while something is wrong."""
    alarmed = OwnState("a.example.org", "fed.example.org", "0", 1, 1, 0, 0, 0, 0, list_alarms=("kept",))
    assert status_body(FederationView(0, b"", alarmed, ()))["lists"] == {"alarms": ["kept"]}
    assert "lists" not in status_body(FederationView(0, b"", OWN, ()))
