"""The federation as it was and what differs: views.past, views.differences, views.history_json; times: web.instants."""

import math
from datetime import UTC, timedelta, timezone

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.core.reachability import REACHABILITY, Reachability, encode_reachability
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.esgf.health import to_body as health_body
from esgf_gossip.views.differences import (
    DIFFERENCES_MOST,
    NAME_CHARACTERS,
    TEXT_CHARACTERS,
    differences,
    view_differences,
)
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.history_json import change_body, is_routine
from esgf_gossip.views.node_json import json_bytes
from esgf_gossip.views.past import past_view
from esgf_gossip.web.instants import InstantError, instant_ms
from helpers.bench import START_MS, a_line
from helpers.watch import a_report
from helpers.web import a_node, a_registration, a_view

HOSTS = tuple(f"n{number}.example.org" for number in range(4))
OWN = a_view().own


def said(entries, host=HOSTS[0], epoch=1, sequence=1, **changes):
    """Return a digest with its bodies, as a reader of the file gives it."""
    line = a_line(host, epoch, sequence, entries, **changes)
    return line.digest, {sha256(body): body for body in entries.values()}


def body_of(after, before=None):
    """Return the change from one digest to the next."""
    return change_body(1, START_MS, HOSTS[0], "digest", {}, after, before)


def test_verdicts_of_the_past_are_found_again():
    """A node that most of its observers reported then is unreachable in the view of then, with the root of then."""
    subject, *others = HOSTS
    reports = encode_reachability(Reachability({subject: a_report(subject)}))
    lines = [a_line(subject, 1, 1, {}), *(a_line(host, 1, 1, {REACHABILITY: reports}) for host in others)]
    registry = Registry()
    for line in lines:
        registry.accept(line.verified, {sha256(reports): reports})
    view = past_view([line.verified for line in lines], {sha256(reports): reports}, OWN, START_MS + 1)
    assert view.node(subject).status is NodeStatus.UNREACHABLE
    assert {view.node(host).status for host in others} == {NodeStatus.UP}
    assert view.root == registry.table.root
    late = past_view([line.verified for line in lines], {}, OWN, START_MS + 8 * 86_400_000)
    assert {node.status for node in late.nodes} == {NodeStatus.STALE}


def test_a_change_names_what_differs():
    """Properties, health and reports are told by name, before and after; what stayed is not."""
    old, new = a_registration(HOSTS[0]), a_registration(HOSTS[0], node__short__name="B")
    up = {"IndexService": ServiceHealth(Health.UP, 1)}
    down = {"IndexService": ServiceHealth(Health.DOWN, 2, "refused")}
    before = said({"registration": old.to_body(), "services": health_body(up)})
    after = said({"registration": new.to_body(), "services": health_body(down)}, sequence=2)
    found = body_of(after, before)
    changes = {one["name"]: (one["before"], one["after"]) for one in found["changes"]}
    assert changes["registration.node.short.name"] == ("A", "B")
    assert changes["services.IndexService"] == ("up, 1, ", "down, 2, refused")
    assert len(changes) == 2
    assert found["summary"] == "registration: node.short.name; services: IndexService"


@pytest.mark.parametrize(
    ("after", "before", "summary"),
    [
        (said({}), None, "is known from now on"),
        (said({}, sequence=2), said({}), "signed anew, nothing else changed"),
        (said({}, epoch=2), said({}), "started anew"),
        (said({}, sequence=2, leaving=True), said({}), "has left the federation"),
        (said({}, sequence=3), said({}, sequence=2, leaving=True), "is back"),
        (said({"x": b"\x01"}, sequence=2), said({}), "new x"),
        (said({"x": b"\xc1"}, sequence=2), said({"x": b"\xc0"}), "new x"),
    ],
)
def test_a_change_is_said_in_a_sentence(after, before, summary):
    """What a person reads first."""
    assert body_of(after, before)["summary"] == summary


VALUES = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=8)


@given(VALUES, VALUES)
def test_differences_turn_one_into_the_other(before, after):
    """What is not named is the same on both sides, and what is named is not."""
    found = {one.name: one for one in differences(before, after)}
    for name in before.keys() | after.keys():
        assert (name in found) == (before.get(name) != after.get(name))
    assert all(one.before != one.after for one in found.values())


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_a_stranger_publishes_is_told_within_bounds(one, other):
    """Bodies are of anyone: no bytes break the telling, none make it long."""
    for name in ("registration", "reachability", "services", "unheard-of"):
        found = body_of(said({name: one}, sequence=2), said({name: other}))
        assert len(found["changes"]) <= DIFFERENCES_MOST
        assert all(len(str(change["after"])) <= 2 * TEXT_CHARACTERS + 3 for change in found["changes"])


def nested(levels, inner):
    """Pack a value in so many maps of one long key each."""
    for _ in range(levels):
        inner = {"\u4e2d" * 500: inner}
    return inner


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 1000 + b"\x01",
        b"\x81\x01" * 500 + b"\x01",
        msgpack.packb({"x": {"a": math.nan, "b": math.inf, "c": [math.nan, 1]}}),
        msgpack.packb({"x": nested(4, {str(number): number for number in range(8000)})}),
        msgpack.packb({"x": ["a" * 60_000]}),
    ],
    ids=["deep lists", "deep maps", "no numbers", "long names", "long text"],
)
def test_a_cunning_entry_costs_little_and_is_told_as_json(body):
    """Nesting, repetition and numbers that JSON has not: told within 200 kB, whatever was before."""
    for before in (b"\x01", msgpack.packb({"x": {"a": 1.0}}), body[:-1] + b"\x02"):
        found = body_of(said({"x": body}, sequence=2), said({"x": before}))
        assert found["changes"]
        assert len(json_bytes(found)) < 200_000
        names = [one["name"] for one in found["changes"]]
        assert max(len(name) for name in names) <= NAME_CHARACTERS
    unchanged = body_of(said({"x": body}, sequence=2), said({"x": body}))
    assert unchanged["changes"] == []


def test_what_differs_beyond_what_is_told_is_told_by_its_hash():
    """Two long texts that begin alike are not the same, and the change says so."""
    one, other = (msgpack.packb({"x": "a" * 1000 + end}) for end in "bc")
    (change,) = body_of(said({"x": other}, sequence=2), said({"x": one}))["changes"]
    assert (change["before"], change["after"]) == (sha256(one).hex(), sha256(other).hex())


def test_two_views_differ_by_node():
    """Who came, who went, who changed; stamps that every digest has anew are no difference."""
    first = a_view(a_node("a.org"), a_node("b.org"), a_node("c.org"))
    moved = attrs.evolve(a_node("b.org"), status=NodeStatus.UNREACHABLE, sequence=99, issued_at_ms=5)
    renamed = a_node("c.org", registration=a_registration("c.org", node__short__name="C"))
    found = {row["host"]: row for row in view_differences(first, a_view(moved, renamed, a_node("d.org")))}
    assert (found["a.org"]["before"], found["a.org"]["after"]) == ("up", None)
    assert (found["b.org"]["before"], found["b.org"]["after"], found["b.org"]["changes"]) == (
        "up",
        "unreachable",
        [],
    )
    assert {one["name"] for one in found["c.org"]["changes"]} == {"short_name", "property.node.short.name"}
    assert (found["d.org"]["before"], found["d.org"]["after"]) == (None, "up")
    assert view_differences(first, first) == []


NOW_MS = 1_795_694_400_000  # 2026-11-26T12:00:00Z
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("text", "from_now_ms"),
    [
        ("now", 0),
        ("2026-11-26T12:00:00Z", 0),
        ("2026-11-26T13:00:00+01:00", 0),
        ("2026-11-26 11:00", -HOUR_MS),
        ("2026-11-26", -12 * HOUR_MS),
        ("today", -12 * HOUR_MS),
        ("yesterday 14:00", -22 * HOUR_MS),
        ("Yesterday at 14:00", -22 * HOUR_MS),
        ("3h ago", -3 * HOUR_MS),
        ("-90min", -90 * 60_000),
        ("2 d ago", -48 * HOUR_MS),
        ("2 minutes ago", -2 * 60_000),
        ("1 hour ago", -HOUR_MS),
        ("3 weeks ago", -21 * 24 * HOUR_MS),
        ("just now", 0),
        ("11:30", -HOUR_MS // 2),
        ("12:30", -23 * HOUR_MS - HOUR_MS // 2),
        ("2026-11-26 11:00:00 UTC", -HOUR_MS),
        ("0001-01-01T00:00:00+14:00", -NOW_MS),
    ],
)
def test_a_time_is_read_as_people_write_it(text, from_now_ms):
    """Programs write RFC 3339, people do not."""
    assert instant_ms(text, NOW_MS) == NOW_MS + from_now_ms


def test_a_time_without_a_zone_is_of_the_zone_given():
    """What a person means is the clock on the wall."""
    zone = timezone(timedelta(hours=2))
    assert instant_ms("2026-11-26 14:00", NOW_MS, zone) == NOW_MS
    assert instant_ms("2026-11-26 12:00", NOW_MS, UTC) == NOW_MS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "24:00",
        "2026-13-01",
        "2026-11-26 25:00",
        "yesterday 99:00",
        "1e9",
        "9" * 70,
    ],
)
def test_what_is_no_time_is_refused_with_examples(text):
    """One line that shows how to write it."""
    with pytest.raises(InstantError, match="yesterday 14:00"):
        instant_ms(text, NOW_MS)


@pytest.mark.parametrize(
    ("kind", "summary", "names", "is_so"),
    [
        ("digest", "resources: cores_free", ["resources.cores_free", "metrics.downloads"], True),
        ("digest", "signed anew, nothing else changed", [], True),
        ("digest", "is known from now on", [], False),
        ("digest", "has left the federation", [], False),
        ("digest", "started anew; resources: cores_free", ["resources.cores_free"], False),
        ("digest", "is back; resources: cores_free", ["resources.cores_free"], False),
        ("digest", "registration: a", ["resources.a", "registration.a"], False),
        ("digest", "hears nothing of b.org", ["reachability.b.org"], False),
        ("status", "is up", [], False),
    ],
)
def test_only_what_comes_all_day_is_routine(kind, summary, names, is_so):
    """Figures, loads, reports, a later date; never a start, a return or a word on what the node is."""
    changes = [{"name": name, "before": None, "after": "1"} for name in names]
    assert is_routine({"kind": kind, "summary": summary, "changes": changes}) is is_so
