"""What pages are made of, without a page: words, the map, rows of trust; web.dashboard."""

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.views.federation import SEVERITY, NodeStatus
from esgf_gossip.views.node_json import plain_utc
from esgf_gossip.web.dashboard import federation, words, world_map
from esgf_gossip.web.dashboard.trust import trust_rows
from helpers import crowd


def test_long_names_of_services_may_go_on_another_line():
    """Where a word begins, never within one; what is no name of ours stays escaped."""
    assert words.humps("OpenIDProvider") == "Open<wbr>IDProvider"
    assert words.humps("LASService") == "LASService"
    assert words.humps("<b>A") == "&lt;b&gt;<wbr>A"


def test_what_cannot_be_seen_is_replaced():
    """Direction overrides, zero-width texts and controls are shown as what they are: something else."""
    assert words.shown("\u202egnp.exe\x00\ud800") == "\ufffdgnp.exe\ufffd\ufffd"
    assert len(words.shown("W" * 5000)) == words.TEXT_CHARACTERS + 1
    assert words.shown(None) == ""
    assert words.link_target("javascript:alert(1)") == ""
    assert words.link_target("https://a.org/x y") == ""
    assert words.link_target("https://a.org/x") == "https://a.org/x"


@pytest.mark.parametrize(
    ("before_ms", "text"),
    [
        (0, "just now"),
        (59_999, "just now"),
        (60_000, "1 minute ago"),
        (3 * 3_600_000, "3 hours ago"),
        (59 * 86_400_000, "59 days ago"),
        (61 * 86_400_000, "2026-09-26"),
        (-90_000, "in 1 minute"),
        (-1, "in a moment"),
    ],
)
def test_times_are_said_as_people_say_them(before_ms, text):
    """Near ones from now, far ones by their date."""
    assert words.relative(crowd.NOW_MS - before_ms, crowd.NOW_MS) == text


@given(st.integers(-(2**63), 2**64))
def test_any_number_of_a_stranger_is_a_time(unix_ms):
    """Stamps beyond the calendar do not break a page."""
    assert words.relative(unix_ms, crowd.NOW_MS)
    assert words.rfc3339(unix_ms).endswith("Z")
    assert plain_utc(unix_ms).endswith("UTC")


def test_sizes_and_counts_are_readable():
    """Two digits or more, thousands apart."""
    assert [words.size(number) for number in (0, 999, 1000, 12_345, 2**40)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12 kB",
        "1.1 TB",
    ]
    assert words.count(1234567) == "1\u202f234\u202f567"
    assert words.plural(1, "digest") == "1 digest"
    assert words.plural(2, "property", "properties") == "2 properties"
    assert words.span(3700) == "1 hour"


@given(st.floats(-180, 180), st.floats(world_map.SOUTH, world_map.NORTH))
def test_every_place_is_on_the_map(lon, lat):
    """East is right, north is up, and nothing is outside the frame."""
    x, y = world_map.project(lon, lat)
    assert -0.01 <= x <= world_map.WIDTH + 0.01
    assert -0.01 <= y <= world_map.HEIGHT
    assert (x > world_map.WIDTH / 2) == (lon > 0) or abs(lon) < 1e-9
    assert world_map.project(lon, lat - 0.5)[1] > y


@pytest.mark.parametrize("lat", [-55, -30, 0, 10, 45, 60, 80])
def test_the_projection_keeps_areas(lat):
    """Equal Earth: a small field of the map has the area of the globe at any latitude (Savric et al. 2018)."""
    step = 0.01
    west, east = world_map.project(40, lat), world_map.project(40 + step, lat)
    south, north = world_map.project(40, lat - step / 2), world_map.project(40, lat + step / 2)
    area = (east[0] - west[0]) * (south[1] - north[1])
    # The equator's half is pi / (sqrt(3) / 2 * A1) radii long.
    unit = math.pi / (math.sqrt(3) / 2 * 1.340264) / (world_map.WIDTH / 2)
    radians = math.radians(step)
    assert area * unit**2 == pytest.approx(math.cos(math.radians(lat)) * radians**2, rel=1e-3)


def test_marks_hold_every_node_that_says_its_place_the_worst_first():
    """Near ones share a mark; nobody is lost, nobody is twice."""
    nodes = [attrs.evolve(node) for node in crowd.a_crowd(200)]
    marks = world_map.marks(nodes)
    placed = [node.host for mark in marks for node in mark.nodes]
    assert sorted(placed) == sorted(
        node.host
        for node in nodes
        if node.status is not NodeStatus.LEFT and node.registration.location.lat is not None
    )
    assert len(marks) < 120
    for mark in marks:
        assert mark.status is min((node.status for node in mark.nodes), key=SEVERITY.index)
        assert mark.counts[0] == (mark.status, sum(node.status is mark.status for node in mark.nodes))
        assert sum(number for _, number in mark.counts) == len(mark.nodes)


def test_who_lags_in_trust_is_named():
    """An old bundle, an old list: beside the newest that any node tells of; who left does not count."""
    nodes = crowd.a_crowd(60)
    rows = trust_rows(crowd.trust_of(nodes))
    gone = {node.host for node in nodes if node.status is NodeStatus.LEFT}
    assert not gone & {row.host for row in rows}
    assert {row.bundle for row in rows if row.is_behind_bundle} == {2}
    assert {row.crls for row in rows if row.crls_behind} == {(8,)}
    ends = [row.not_after_ms for row in rows]
    assert ends == sorted(ends)
    assert rows[0].is_soon(crowd.NOW_MS)


def test_what_one_node_claims_makes_nobody_else_late():
    """A bundle and a list that no second node names are no newest, unless this node holds them itself."""
    report = crowd.trust_of(crowd.a_crowd(20))
    liar = next(one for one in report["nodes"] if one["host"] != report["host"] and not one["leaving"])
    before = {row.host: (row.is_behind_bundle, row.crls_behind) for row in trust_rows(report)}
    issuer = next(iter(liar["crls"]))
    liar.update(bundle=10**9, crls={issuer: 10**9, "cd" * 10: 1})
    after = {row.host: (row.is_behind_bundle, row.crls_behind) for row in trust_rows(report)}
    assert {host: said for host, said in after.items() if host != liar["host"]} == {
        host: said for host, said in before.items() if host != liar["host"]
    }
    own = next(one for one in report["nodes"] if one["host"] == report["host"])
    own["bundle"] = 4
    late = {row.host for row in trust_rows(report) if row.is_behind_bundle}
    assert late == after.keys() - {liar["host"], own["host"]}


def test_the_next_certificate_to_end_is_one_in_use():
    """What a node had that expired long ago, or left, does not hide the next that matters."""
    nodes = crowd.a_crowd(3)
    nodes = [
        attrs.evolve(nodes[0], status=NodeStatus.STALE),
        *(attrs.evolve(one, status=NodeStatus.UP) for one in nodes[1:]),
    ]
    trust = {row.host: row for row in trust_rows(crowd.trust_of(nodes))}
    assert next(iter(trust)) == nodes[0].host
    assert federation.next_to_end(crowd.crowd_view(nodes), trust)[0].host == nodes[1].host
    assert federation.next_to_end(crowd.crowd_view([]), {}) == []
