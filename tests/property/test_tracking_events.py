"""One change is one event, through however many sources it comes, in whatever order."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esgf_gossip.tracking.catalog import recall
from helpers.sightings import Catalog, a_file, a_sighting, moved

OWN = ("proxy", "index")
SOURCES = (*OWN, "kafka", "stac", "journal")
HALF_DAY_S = 12 * 3600
# Every source but those of this node has a clock of its own, without a zone.
CLOCKS = st.fixed_dictionaries(
    {name: st.just(0) if name in OWN else st.integers(-HALF_DAY_S, HALF_DAY_S) for name in SOURCES}
)
FILES = {1: (a_file("a.nc", "aa"), a_file("b.nc", "bb")), 2: (a_file("a.nc", "aa"), a_file("b.nc", "cc"))}


def _told(history, clocks):
    """Return what each source tells of a history, with the true time of each."""
    return {
        source: [
            (at, a_sighting(operation, number, at + clocks[source], source, files=FILES[number]))
            for at, (operation, number) in enumerate(history, 1)
        ]
        for source in SOURCES
    }


def _counts(deliveries):
    """Take sightings as they come; nothing comes before it happened."""
    catalog = Catalog()
    now = 0
    for at, sighting in deliveries:
        now = max(now, at)
        catalog.see(sighting, now)
    return Counter(catalog.story()), catalog


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), CLOCKS)
def test_any_order_and_repetition_give_one_new_version_and_one_retraction(data, clocks):
    """A version is replaced and retracted; five sources say it, shuffled and repeated, each by its own clock."""
    told = _told([("publish", 1), ("publish", 2), ("retract", 1), ("delete", 1)], clocks)
    everything = [one for story in told.values() for one in story]
    deliveries = data.draw(st.permutations(everything + data.draw(st.lists(st.sampled_from(everything)))))
    counts, catalog = _counts(deliveries)
    # Where the deletion came first, or the higher version, that was said too; no user is told of either.
    assert counts.pop("published 2 0", 1) == counts.pop("unpublished 1 0", 1) == 1
    assert counts == {"published 1 0": 1, "new-version 2 0": 1, "retracted 1 0": 1}
    assert all(len(one.unchanged) in (0, 1) for one in catalog.said)


@st.composite
def histories(draw):
    """A dataset whose second version comes and goes."""
    history = [("publish", 1), ("publish", 2)]
    expected = Counter(["published 1 0", "new-version 2 0"])
    ends = draw(st.lists(st.sampled_from(["retract", "delete", "retract+delete"]), max_size=4))
    for epoch, end in enumerate(ends):
        history += [(one, 2) for one in end.split("+")]
        expected[f"{'retracted' if end.startswith('retract') else 'unpublished'} 2 {epoch}"] += 1
        if draw(st.booleans()):
            break
        history.append(("publish", 2))
        expected[f"{'reinstated' if end.startswith('retract') else 'published'} 2 {epoch + 1}"] += 1
    return history, expected


def _lagging(happened, clocks, data):
    """Draw how sources tell a history: each in its order, any of them late, parts of it again."""
    told = _told(happened, clocks)
    places = dict.fromkeys(SOURCES, 0)
    deliveries = []
    while any(places[name] < len(happened) for name in SOURCES):
        name = data.draw(st.sampled_from([one for one in SOURCES if places[one] < len(happened)]))
        # At least once: a queue goes back a few and tells them again.
        back = data.draw(st.integers(0, places[name])) if data.draw(st.booleans()) else places[name]
        deliveries += told[name][back : places[name] + 1]
        places[name] += 1
    return deliveries


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(histories(), CLOCKS, st.data())
def test_sources_that_lag_and_repeat_add_nothing(history, clocks, data):
    """Each source tells the same history in its order, any of them late, parts of it again: each turn is said once."""
    happened, expected = history
    counts, _ = _counts(_lagging(happened, clocks, data))
    assert counts == expected


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(histories(), CLOCKS, st.booleans(), st.data())
def test_own_events_that_come_back_late_change_nothing(history, clocks, is_replica, data):
    """What was said comes back from the own log at any later time: the same is said as if it never did."""
    deliveries = [
        (at, moved(one, is_replica=is_replica) if one.is_replica is False else one)
        for at, one in _lagging(history[0], clocks, data)
    ]
    plain, echoed = Catalog(), Catalog()
    now = heard = 0
    for at, sighting in deliveries:
        now = max(now, at)
        plain.see(sighting, now)
        echoed.see(sighting, now)
        for _ in range(data.draw(st.integers(0, len(echoed.said) - heard))):
            recall(echoed.connection, echoed.said[heard])
            heard += 1
        assert echoed.story() == plain.story()
