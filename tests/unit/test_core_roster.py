"""When the roster is read anew: after a change, at the first expiry, and not at every check of links."""

import pytest

from esgf_gossip.core import links, overlay
from esgf_gossip.core.membership import roster
from esgf_gossip.core.messages import Ping
from esgf_gossip.core.registry import Registry, sha256
from helpers.bench import Bench, a_line

OTHER = "p.example.org"
PUPPET = "q.example.org"


@pytest.fixture
def readings(monkeypatch):
    """Count how often the whole table is read for its members."""
    found = []
    real = links.roster

    def counted(table, now_ms):
        found.append(now_ms)
        return real(table, now_ms)

    monkeypatch.setattr(links, "roster", counted)
    return found


def keep_talking(bench, link, seconds):
    """Let time pass with a peer that says something every few seconds, so that the clock is confirmed."""
    for _ in range(int(seconds / 4)):
        bench.pass_time(4)
        bench.hear(link, Ping(1, bench.at().wall_ms))


def test_checks_of_links_do_not_read_the_table(readings):
    """With thousands of lines a check every five seconds costs the links, not the lines."""
    bench = Bench()
    link = bench.open(PUPPET)
    bench.hear(link, a_line(PUPPET).answer(0))
    keep_talking(bench, link, 60)
    readings.clear()
    keep_talking(bench, link, 600)
    assert readings == []


def test_who_expires_leaves_the_rings_at_the_next_check_and_who_signed_again_stays(readings):
    """The first expiry is watched for; a newer digest moves it, and its old end takes nobody out."""
    bench = Bench()
    link = bench.open(PUPPET)
    start_ms = bench.at().wall_ms
    bench.hear(link, a_line(PUPPET, issued_at_ms=start_ms).answer(0))
    bench.node.registry.accept(a_line(OTHER, issued_at_ms=start_ms, lifetime_ms=100_000).verified, {})
    bench.node.links.roster_moved(bench.at())
    keep_talking(bench, link, 60)
    assert OTHER in bench.node.links.neighbours
    newer = a_line(OTHER, sequence=2, issued_at_ms=bench.at().wall_ms, lifetime_ms=200_000)
    bench.node.registry.accept(newer.verified, {})
    readings.clear()
    keep_talking(bench, link, 60)
    assert len(readings) == 1, "the old end passed and was looked at once"
    assert OTHER in bench.node.links.neighbours
    keep_talking(bench, link, 160)
    assert OTHER not in bench.node.links.neighbours
    assert len(readings) == 2


def test_the_next_expiry_is_that_of_a_member():
    """Who has left or is expired already cannot expire; an empty table has no next expiry."""
    registry = Registry()
    assert roster(registry.table, 0) == (frozenset(), 0)
    for name, lifetime_ms, leaving in (("a", 500, False), ("b", 100, False), ("c", 50, True)):
        line = a_line(f"{name}.example.org", issued_at_ms=1000, lifetime_ms=lifetime_ms, leaving=leaving)
        registry.accept(line.verified, {})
    assert roster(registry.table, 1000) == ({"a.example.org", "b.example.org"}, 1100)
    assert roster(registry.table, 1100) == ({"a.example.org"}, 1500)
    assert roster(registry.table, 1500) == (frozenset(), 0)


def test_an_equal_roster_is_the_same_object():
    """Whoever keeps the members sees at a glance that nothing moved, however often they are drawn."""
    bench = Bench()
    link = bench.open(PUPPET)
    bench.hear(link, a_line(PUPPET).answer(0))
    bench.pass_time(3)
    before = bench.node.links.members
    assert before == {bench.node.name, PUPPET}
    bench.node.links.draw(bench.at())
    assert bench.node.links.members is before
    bench.node.registry.accept(a_line(OTHER).verified, {})
    bench.node.links.draw(bench.at())
    assert bench.node.links.members == before | {OTHER}


def test_one_roster_is_sorted_once():
    """All who ask about one roster, in whatever collection, share its rings; another roster has its own."""
    names = [f"n{number}.example.org" for number in range(40)]
    overlay._rings.cache_clear()
    first = {name: overlay.neighbours(name, names, mesh=False) for name in names}
    again = {name: overlay.neighbours(name, set(names), mesh=False) for name in names}
    assert first == again
    assert overlay._rings.cache_info().misses == 1
    fewer = overlay.neighbours(names[0], names[:-1], mesh=False)
    assert names[-1] not in fewer
    assert overlay._rings.cache_info().misses == 2


def test_a_registry_that_adopts_another_is_its_equal_and_its_own():
    """Same root, same bodies; what changes in one afterwards does not change in the other."""
    one, other = Registry(), Registry()
    line = a_line(OTHER)
    one.accept(line.verified, {sha256(body): body for body in line.bodies})
    other.accept(a_line(PUPPET).verified, {})
    other.adopt(one)
    assert other.table.root == one.table.root
    assert other.entry(OTHER, "registration") == line.bodies[0]
    other.withdraw(OTHER)
    assert one.entry(OTHER, "registration") == line.bodies[0]
    assert len(one.table) == 1
