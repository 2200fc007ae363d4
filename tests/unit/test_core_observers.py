"""Who watches whom: five distinct observers, the same in all eyes, stand-ins where they are gone, and no favourites."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core.observers import SEATS, Duty, Observers, observers_of
from esgf_gossip.core.overlay import ring


def names(count):
    """Return the names of so many nodes."""
    return [f"n{number:04}.example.org" for number in range(count)]


@st.composite
def rosters(draw, most=24):
    """Draw members, and who of them is mute and who unreachable."""
    members = frozenset(names(draw(st.integers(1, most))))
    return members, *(draw(st.frozensets(st.sampled_from(sorted(members)))) for _ in range(2))


def slow_seats(subject, members, mute, unreachable):
    """The obvious twin of ``seats``: each ring turned so that it begins before the subject, read backwards."""

    def backwards(number):
        order = ring(number, members)
        place = order.index(subject)
        return [
            other
            for other in reversed(order[place + 1 :] + order[:place])
            if not (other in mute and subject in mute)
        ]

    if len(members) - 1 <= SEATS:
        return [(other,) for other in sorted(backwards(0))]
    originals = []
    for number in range(SEATS):
        originals += [other for other in backwards(number) if other not in originals][:1]
    seats = []
    for number, observer in enumerate(originals):
        line = [observer, *(other for other in backwards(number) if other not in originals)]
        gone = next((place for place, holder in enumerate(line) if holder not in unreachable), len(line))
        seats.append(tuple(line[: gone + 1]))
    return seats


@pytest.mark.parametrize("count", [7, 8, 25, 50, 200])
def test_each_node_has_five_distinct_observers_and_never_itself(count):
    """From seven nodes on: one observer a seat."""
    observers = Observers(frozenset(names(count)))
    for subject in names(count):
        found = observers.originals(subject)
        assert SEATS == len(found) == len(set(found))
        assert subject not in found


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_in_a_small_federation_all_others_watch(count):
    """At most five others: everybody watches everybody."""
    members = frozenset(names(count))
    for subject in members:
        assert members - {subject} == set(Observers(members).originals(subject))
        assert (members - {subject}) == Observers(members).duties(subject, set()).keys()


def test_who_is_no_member_has_no_observers_and_no_duties():
    """A stranger, and an empty federation."""
    for members in (frozenset(), frozenset(names(9))):
        observers = Observers(members)
        assert observers.originals("stranger.example.org") == ()
        assert observers.seats("stranger.example.org", ()) == []
        assert observers.duties("stranger.example.org", ()) == {}


@settings(deadline=None)
@given(rosters())
def test_seats_agree_with_their_slow_twin(roster):
    """The first five rings, each node once, stand-ins behind those that are unreachable."""
    members, mute, unreachable = roster
    observers = Observers(members, mute)
    for subject in members:
        assert slow_seats(subject, members, mute, unreachable) == observers.seats(subject, unreachable)


@settings(deadline=None)
@given(rosters())
def test_duties_are_the_seats_from_the_other_side(roster):
    """Who holds a seat of a node has the duty, and nobody else; all others know it too."""
    members, mute, unreachable = roster
    observers = Observers(members, mute)
    expected = {observer: {} for observer in members}
    for subject in members:
        seats = observers.seats(subject, unreachable)
        for number, seat in reversed(list(enumerate(seats))):
            for holder in seat:
                expected[holder][subject] = Duty(number, len(seats), stands_in=holder != seat[0])
    assert expected == {observer: observers.duties(observer, unreachable) for observer in members}


@given(rosters())
def test_two_nodes_that_cannot_dial_each_other_never_watch_each_other(roster):
    """Not as observers and not as stand-ins."""
    members, mute, unreachable = roster
    observers = Observers(members, mute)
    for subject in mute:
        holders = {holder for seat in observers.seats(subject, unreachable) for holder in seat}
        assert not holders & mute


@given(rosters(), st.data())
def test_a_seat_only_grows_with_those_unreachable(roster, data):
    """Else verdicts had no least fixpoint."""
    members, mute, unreachable = roster
    more = unreachable | data.draw(st.frozensets(st.sampled_from(sorted(members))))
    observers = Observers(members, mute)
    for subject in members:
        fewer_seats, more_seats = observers.seats(subject, unreachable), observers.seats(subject, more)
        assert [
            seat[: len(fewer)] for fewer, seat in zip(fewer_seats, more_seats, strict=True)
        ] == fewer_seats


@given(rosters())
def test_a_seat_ends_with_a_node_that_is_not_unreachable(roster):
    """Or with the last that could stand in; nobody holds a seat twice, no observer stands in for another."""
    members, mute, unreachable = roster
    observers = Observers(members, mute)
    for subject in members:
        originals = observers.originals(subject)
        for seat in observers.seats(subject, unreachable):
            assert len(set(seat)) == len(seat)
            assert set(seat[:-1]) <= unreachable
            assert not set(seat[1:]) & set(originals)


def test_observers_do_not_depend_on_the_order_of_names():
    """Two nodes with one roster name the same observers, whatever they learned first."""
    some = names(40)
    one, other = Observers(frozenset(some)), Observers(frozenset(reversed(some)))
    assert [one.originals(name) for name in some] == [other.originals(name) for name in some]
    assert observers_of(frozenset(some), frozenset()) is observers_of(frozenset(reversed(some)), frozenset())


def test_the_load_is_fair():
    """Nobody watches many times more than five of a thousand nodes, nobody less than one."""
    observers = Observers(frozenset(names(1000)))
    load = Counter(observer for subject in names(1000) for observer in observers.originals(subject))
    assert sum(load.values()) == 5 * 1000
    assert len(load) == 1000
    assert max(load.values()) <= 12


def test_half_of_a_thousand_gone_leaves_fair_duties():
    """Who stands in watches a few more, not a crowd: REPORTS_MOST is far away."""
    some = names(1000)
    gone = frozenset(some[::2])
    observers = Observers(frozenset(some))
    loads = [len(observers.duties(observer, gone)) for observer in some[1::2]]
    assert max(loads) < 60
    assert 5 < sum(loads) / len(loads) < 20
