"""How many lines strangers can make us write: net.sparing."""

import pytest
from twisted.internet.task import Clock

from esgf_gossip.net.sparing import LINES_A_WINDOW, OTHERS, SUBJECTS, WINDOW_S, Sparing


@pytest.fixture
def told():
    """What was told of lines held back."""
    return []


@pytest.fixture
def clock():
    """Virtual time."""
    return Clock()


@pytest.fixture
def sparing(clock, told):
    """A bound in virtual time."""
    return Sparing(clock, lambda subject, count: told.append((subject, count)))


def test_so_many_lines_a_minute_about_each(sparing):
    """One flood takes nothing from the others."""
    allowed = [sparing.allows("192.0.2.1") for _ in range(LINES_A_WINDOW + 2)]
    assert allowed == [True] * LINES_A_WINDOW + [False] * 2
    assert sparing.allows("192.0.2.2")


def test_what_was_held_back_is_told_once_a_minute(sparing, clock, told):
    """A flood is a number in the log, and the next minute begins anew; silence costs no timer."""
    for _ in range(1000):
        sparing.allows("192.0.2.1")
    sparing.allows("192.0.2.2")
    clock.advance(WINDOW_S)
    assert told == [("192.0.2.1", 1000 - LINES_A_WINDOW)]
    assert clock.getDelayedCalls() == []
    assert sparing.allows("192.0.2.1")


def test_a_flood_from_many_addresses_shares_one_allowance(sparing, clock, told):
    """The memory of a minute is bounded, whoever comes."""
    allowed = sum(sparing.allows(f"192.0.2.{number}") for number in range(SUBJECTS + 1000))
    assert allowed == SUBJECTS + LINES_A_WINDOW
    clock.advance(WINDOW_S)
    assert told == [(OTHERS, 1000 - LINES_A_WINDOW)]


def test_a_stop_tells_what_is_owed(sparing, clock, told):
    """Nothing is lost with the daemon, and no timer stays."""
    for _ in range(LINES_A_WINDOW + 1):
        sparing.allows("192.0.2.1")
    sparing.stop()
    assert (told, clock.getDelayedCalls()) == ([("192.0.2.1", 1)], [])
    sparing.stop()
    assert told == [("192.0.2.1", 1)]
