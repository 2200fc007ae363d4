"""Planned downtime: esgf.maintenance, and how views judge it."""

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.standing import Standing
from esgf_gossip.esgf.bodies import BodyError
from esgf_gossip.esgf.health import SERVICES, Health, ServiceHealth
from esgf_gossip.esgf.health import to_body as health_body
from esgf_gossip.esgf.maintenance import (
    LONGEST_MS,
    MAINTENANCE,
    Maintenance,
    MaintenanceError,
    from_body,
    to_body,
)
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.judgement import REGISTRATION, Judge
from esgf_gossip.views.list_reasons import list_body, places
from esgf_gossip.views.lists_xml import USUAL
from helpers.bench import START_MS, a_line
from helpers.web import a_registration, a_view

HOUR_MS = 3_600_000
NOW_MS = START_MS + HOUR_MS
HOSTS = ("a.example.org", "b.example.org", "c.example.org")
INDEX = {
    "index__service__endpoint": "http://%s/esg-search/search",
    "index__service__app__home": "/usr/local/index",
}


def a_federation(windows, issued_at_ms=START_MS):
    """Return the judge of three index nodes that announce these windows, by host."""
    registry = Registry()
    for host in HOSTS:
        properties = {name: text % host if "%s" in text else text for name, text in INDEX.items()}
        said = attrs.evolve(a_registration(host, **properties), node_type=NodeType.DATA | NodeType.INDEX)
        entries = {REGISTRATION: said.to_body()}
        entries[SERVICES] = health_body({"IndexService": ServiceHealth(Health.UP, START_MS)})
        if host in windows:
            entries[MAINTENANCE] = to_body(windows[host])
        line = a_line(host, entries=entries, issued_at_ms=issued_at_ms)
        registry.accept(line.verified, {sha256(body): body for body in entries.values()})
    standing = Standing(registry, [])
    standing.roster_drawn(frozenset(HOSTS), frozenset())
    standing.judge()
    return Judge(registry, standing)


def view_at(judge, at_ms, expiry_ms=None):
    """Return the view of a time."""
    return judge.view(a_view().own, at_ms, at_ms if expiry_ms is None else expiry_ms)


def shards(tmp_path, view, lists=None):
    """Return the list of shards over a view, and its alarms."""
    lists = lists or ListFiles(tmp_path, USUAL)
    lists.update(view, is_ready=True)
    return dict(lists)["esgf_shards.xml"].decode(), lists.alarms


def test_within_the_window_a_node_is_in_maintenance_and_out_of_the_lists(tmp_path):
    """Before and after it is as ever; even most nodes at once raise no alarm: it is planned."""
    window = Maintenance(NOW_MS, NOW_MS + HOUR_MS, "new disks")
    judge = a_federation({HOSTS[0]: window, HOSTS[1]: window})
    lists = ListFiles(tmp_path, USUAL)
    for at_ms, is_away in ((NOW_MS - 1, False), (NOW_MS, True), (NOW_MS + HOUR_MS, False)):
        view = view_at(judge, at_ms)
        expected = NodeStatus.MAINTENANCE if is_away else NodeStatus.UP
        assert [node.status for node in view.nodes] == [expected, expected, NodeStatus.UP]
        content, alarms = shards(tmp_path, view, lists)
        assert [host in content for host in HOSTS] == [not is_away, not is_away, True]
        assert alarms == ()
    body = list_body("esgf_shards.xml", places("esgf_shards.xml", view_at(judge, NOW_MS).nodes, b""))
    assert body["left_out"][0]["reason"].startswith("IndexService is in maintenance until 20")
    assert body["left_out"][0]["reason"].endswith("UTC: new disks")
    explanation = judge.explain(view_at(judge, NOW_MS).node(HOSTS[0]))
    assert explanation["reason"].startswith("it has announced maintenance until ")


def test_some_services_alone_leave_the_node_as_it_is(tmp_path):
    """What is not named stays up, and so does the node."""
    window = Maintenance(NOW_MS, NOW_MS + HOUR_MS, "", ("IndexService",))
    node = view_at(a_federation({HOSTS[0]: window}), NOW_MS).node(HOSTS[0])
    assert node.status is NodeStatus.UP
    assert node.health_of("IndexService").health is Health.MAINTENANCE
    assert node.health_of("ThreddsService").health is Health.UNKNOWN


def test_from_now_on_counts_at_once_whatever_our_clock_says():
    """A clock behind that of the announcer does not wait; a wrong one ahead, that nobody confirms, does not begin it."""
    window = Maintenance(START_MS, START_MS + HOUR_MS)
    judge = a_federation({HOSTS[0]: window}, issued_at_ms=START_MS)
    assert view_at(judge, START_MS - 5000).node(HOSTS[0]).status is NodeStatus.MAINTENANCE
    later = a_federation({HOSTS[0]: Maintenance(NOW_MS, NOW_MS + HOUR_MS)})
    assert view_at(later, NOW_MS + 5, expiry_ms=START_MS).node(HOSTS[0]).status is NodeStatus.UP


def test_a_window_that_is_to_come_is_told_and_one_that_is_over_is_not():
    """Who looks today sees what is planned for tomorrow."""
    window = Maintenance(NOW_MS, NOW_MS + HOUR_MS)
    judge = a_federation({HOSTS[0]: window})
    assert view_at(judge, START_MS).node(HOSTS[0]).maintenance == window
    assert view_at(judge, NOW_MS + HOUR_MS).node(HOSTS[0]).maintenance is None


WINDOWS = st.builds(
    lambda begins_ms, span_ms, reason, types: Maintenance(
        begins_ms, begins_ms + span_ms, reason, tuple(sorted(types))
    ),
    st.integers(0, 2**45),
    st.integers(1, LONGEST_MS),
    st.text(
        st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="\u3000\u2000"), max_size=100
    ).filter(str.isprintable),
    st.sets(st.text("abcXYZ", min_size=1, max_size=20), max_size=5),
)


@given(WINDOWS)
def test_a_window_comes_back_from_its_bytes(window):
    """Whatever can be announced can be read."""
    assert from_body(to_body(window)) == window


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.booleans(),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.just("maintenance"), inner),
        max_leaves=10,
    ).map(msgpack.packb)
)
def test_any_bytes_are_a_window_or_refused(body):
    """A stranger's entry breaks nothing."""
    try:
        window = from_body(body)
    except BodyError:
        return
    assert 0 < window.ends_ms - window.begins_ms <= LONGEST_MS


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((5, 5), "ends before it begins"),
        ((5, 4), "ends before it begins"),
        ((0, LONGEST_MS + 1), "longer than 30 days"),
        ((0, 1, "two\nlines"), "one line"),
        ((0, 1, "x" * 201), "one line"),
        ((0, 1, "", ("a",) * 65), "at most 64"),
    ],
)
def test_what_is_no_window_is_refused_with_what_would_be(fields, words):
    """Each in one line."""
    with pytest.raises(MaintenanceError, match=words):
        Maintenance(*fields)
