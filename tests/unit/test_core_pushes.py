"""An announcement that overtakes the origin's own copy: who is linked to the origin waits for it a moment."""

import pytest

from esgf_gossip.core import sessions
from esgf_gossip.core.messages import Announce, Ask, Ping, Pong
from helpers.bench import Bench, a_line

ORIGIN = "o.example.org"
RELAY = "r.example.org"
ROUND_TRIP_S = 0.1


@pytest.fixture
def bench():
    """Return a node that has a relay and no origin yet."""
    return Bench()


def a_link(bench, peer, round_trip_s=ROUND_TRIP_S):
    """Open a link and answer its first ping after a round trip."""
    link = bench.open(peer)
    (ping,) = bench.said(link, Ping)
    bench.pass_time(round_trip_s)
    bench.hear(link, Pong(ping.token, bench.at().wall_ms))
    return link


def test_the_origins_own_copy_is_awaited_and_costs_no_question(bench):
    """It left before the relay could announce it: half a round trip later it is here."""
    origin, relay = a_link(bench, ORIGIN), a_link(bench, RELAY)
    line = a_line(ORIGIN)
    bench.hear(relay, Announce((line.head,)))
    bench.pass_time(ROUND_TRIP_S / 2)
    assert bench.said(relay, Ask) == []
    bench.hear(origin, line.answer(0))
    assert bench.head(ORIGIN) == line.head
    bench.pass_time(2)
    assert bench.said(None, Ask) == []


def test_an_origin_that_does_not_push_is_not_awaited_for_long(bench):
    """After half a round trip and a little the announcer is asked."""
    a_link(bench, ORIGIN)
    relay = a_link(bench, RELAY)
    line = a_line(ORIGIN)
    bench.hear(relay, Announce((line.head,)))
    bench.pass_time(ROUND_TRIP_S / 2 + sessions.PUSH_LATE_S + 0.001)
    (ask,) = bench.said(relay, Ask)
    bench.hear(relay, line.answer(ask.request))
    assert bench.head(ORIGIN) == line.head


def test_a_slow_origin_holds_nobody_up(bench):
    """However long its round trip was measured, the wait has a bound."""
    a_link(bench, ORIGIN, round_trip_s=5.0)
    relay = a_link(bench, RELAY)
    bench.hear(relay, Announce((a_line(ORIGIN).head,)))
    bench.pass_time(sessions.PUSH_WAIT_MOST_S + 0.001)
    assert len(bench.said(relay, Ask)) == 1


@pytest.mark.parametrize("peers", [(), (ORIGIN,)])
def test_nobody_waits_without_a_copy_to_come(bench, peers):
    """Not linked to the origin, or told by the origin itself: the announcer is asked at once."""
    links = {peer: a_link(bench, peer) for peer in (RELAY, *peers)}
    announcer = links[ORIGIN] if peers else links[RELAY]
    bench.hear(announcer, Announce((a_line(ORIGIN).head,)))
    assert len(bench.said(announcer, Ask)) == 1


def test_a_lost_link_to_the_origin_loses_no_announcement(bench):
    """The push will not come: the announcer is asked when the wait ends."""
    origin, relay = a_link(bench, ORIGIN), a_link(bench, RELAY)
    bench.hear(relay, Announce((a_line(ORIGIN).head,)))
    bench.do(bench.node.peer_lost(origin, "gone", bench.at()))
    bench.pass_time(sessions.PUSH_WAIT_MOST_S)
    assert len(bench.said(relay, Ask)) == 1
