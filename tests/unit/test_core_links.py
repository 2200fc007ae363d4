"""Greeting, beats, duplicates, goodbyes, dialling: core.links on a bench and between two nodes."""

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core.dialling import BACKOFF_MOST_S
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.messages import (
    Announce,
    Farewell,
    Goodbye,
    Heads,
    Hello,
    Ping,
    Pong,
    Roots,
)
from helpers.bench import OWN, Bench, NodePair, a_hello, a_line

A, B, X = "a.example.org", "b.example.org", "x.example.org"


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


@pytest.fixture
def pair():
    """Return two started nodes without links."""
    return NodePair()


def alive(bench, link, seconds):
    """Let time pass while the peer answers every ping."""
    for _ in range(int(seconds)):
        bench.pass_time(1)
        for ping in bench.said(link, Ping):
            bench.hear(link, Pong(ping.token, bench.at().wall_ms))


# ----------------------------------------------------------------- greeting


def test_the_server_greets_first_and_the_client_answers(bench):
    """The server's hello admits the client, which says nothing before."""
    server = bench.connect(A)
    (hello,) = bench.said(server, Hello)
    assert (hello.version_min, hello.version_max, hello.federation) == (1, 1, "fed.example.org")
    client = bench.connect(B, dialled=(B, 8951))
    assert bench.said(client) == []
    bench.hear(client, a_hello())
    assert [Hello] == [type(message) for message in bench.said(client, Hello)]
    assert [fx.PeerJoined(B)] == bench.told(fx.PeerJoined)


def test_a_hello_shows_the_highest_head_held_of_the_peer(bench):
    """A node that lost its memory learns from the first peer what it has said."""
    line = a_line(A)
    bench.hear(bench.open(A), line.answer(0))
    again = bench.connect(A)
    (hello,) = bench.said(again, Hello)
    assert line.head == hello.head_of_you


def test_two_nodes_exchange_their_lines_by_hello_and_vector(pair):
    """After the hellos both hold both lines, and nothing more is said."""
    pair.dial(A)
    pair.deliver()
    roots = {node.registry.table.root for node in pair.nodes.values()}
    assert (len(roots), [len(node.registry.table) for node in pair.nodes.values()]) == (1, [2, 2])
    assert pair.deliver() == 0


@pytest.mark.parametrize(
    "message", [Ping(1, 1), Roots({}, is_reply=False), Announce(()), Heads((), is_last=True)]
)
def test_the_first_message_is_a_hello(bench, message):
    """Who says anything before its hello is sent away; other links are left alone."""
    other, link = bench.open(B), bench.connect(A)
    bench.hear(link, message)
    (goodbye,) = bench.said(link, Goodbye)
    assert goodbye.farewell == Farewell.MISBEHAVIOUR
    assert "not a hello" in bench.closed[link]
    assert other not in bench.closed


def test_a_second_hello_is_a_breach(bench):
    """One hello from each side."""
    link = bench.open(A)
    bench.hear(link, a_hello())
    assert "second hello" in bench.closed[link]


def test_another_version_is_told_in_one_line_and_others_stay(bench):
    """A peer from the future hears both ranges and what to do; no other link is touched."""
    other, link = bench.open(B), bench.connect(A, dialled=(A, 8951))
    bench.hear(link, a_hello(version_min=2, version_max=7))
    (goodbye,) = bench.said(link, Goodbye)
    assert goodbye.farewell == Farewell.VERSION
    assert "versions 2 to 7" in goodbye.text
    assert "1 to 1" in goodbye.text
    assert "\n" not in goodbye.text
    assert other not in bench.closed
    bench.dials.clear()
    bench.pass_time(50)
    assert (A, 8951) not in bench.dials


def test_a_wider_range_of_versions_is_understood(bench):
    """A newer peer that still speaks ours is a peer."""
    link = bench.open(A, version_min=1, version_max=9)
    assert bench.node.links.sessions.get(link).version == 1


def test_another_federation_is_refused(bench):
    """A member of another federation is told so and closed."""
    link = bench.connect(A)
    bench.hear(link, a_hello(federation="other.example.org"))
    assert "other.example.org" in bench.closed[link]
    assert bench.told(fx.PeerJoined) == []


def test_bytes_that_are_no_message_close_only_their_link(bench):
    """Garbled bytes end a link with a goodbye and change nothing else."""
    other, link = bench.open(B), bench.open(A)
    lines = len(bench.node.registry.table)
    bench.do(bench.node.wire_error(link, WireError("not msgpack"), bench.at()))
    assert "not msgpack" in bench.closed[link]
    assert other not in bench.closed
    assert lines == len(bench.node.registry.table)
    assert bench.do(bench.node.wire_error(link, WireError("again"), bench.at())) == []


def test_no_hello_in_time_ends_a_link(bench):
    """A link whose peer stays mute after TLS is given up."""
    link = bench.connect(A)
    bench.pass_time(16)
    assert bench.closed[link] == "no hello in time"


def test_mute_links_of_one_peer_are_bounded(bench):
    """A member that opens links without end and says no hello keeps only a few."""
    links = [bench.connect(A) for _ in range(100)]
    assert len(bench.node.links.sessions) <= 8
    assert bench.node.links.sessions.get(links[-1]) is not None


def test_a_link_to_ourselves_is_dropped_and_not_dialled_again():
    """A seed that turns out to be this node is no peer."""
    bench = Bench(seeds=(("alias.example.org", 8951),))
    assert bench.dials == [("alias.example.org", 8951)]
    link = bench.connect(OWN, dialled=("alias.example.org", 8951))
    assert "itself" in bench.closed[link]
    bench.dials.clear()
    bench.pass_time(700)
    assert bench.dials == []


# ----------------------------------------------------------------- duplicates


@pytest.mark.parametrize("first", [A, B])
@pytest.mark.parametrize("seed", range(4))
def test_crossing_dials_leave_one_link_the_same_on_both_sides(pair, first, seed):
    """Both dial at once: the link of the smaller name stays, whoever saw which first."""
    second = B if first == A else A
    orders = [((A, B), (A, B)), ((B, A), (A, B)), ((A, B), (B, A)), ((B, A), (B, A))][seed]
    wires = {first: pair.join(first, orders[0])}
    wires[second] = pair.join(second, orders[1])
    pair.deliver()
    assert [wires[A]] == pair.wires
    assert [wires[A]] == pair.links(A) == pair.links(B)
    assert pair.deliver() == 0


@pytest.mark.parametrize("order", [(A, B), (B, A)])
def test_two_links_dialled_by_one_side_leave_one(pair, order):
    """A seed and a contact that lead to one node: one link stays, even when the ends were numbered otherwise."""
    pair.join(A, (A, B))
    pair.join(A, order, address=("alias", 1))
    pair.deliver()
    assert len(pair.wires) == 1
    assert pair.wires == pair.links(A) == pair.links(B)


def test_two_links_dialled_by_one_side_and_seen_in_the_other_order(pair):
    """Links cross in the network: the two ends never close one each."""
    nodes = pair.nodes
    one = pair.join(A, (A,))
    two = pair.join(A, (A,), address=("alias", 1))
    for wire, number in ((two, 1), (one, 2)):
        wire.ends[B] = number
        wire.waiting[B] = type(wire.waiting[A])()
        pair._do(B, nodes[B].peer_connected(number, A, None, pair.at()))
    pair.deliver()
    assert len(pair.wires) == 1
    assert pair.wires == pair.links(A) == pair.links(B)


def test_a_restarted_peer_replaces_its_half_open_link(pair):
    """A new instance counts at once; the old link, whose other end is gone, is closed."""
    pair.dial(A)
    pair.deliver()
    (old,) = pair.wires
    pair.now_s += 1
    pair.restart(A)
    pair.wires.append(old)  # b's end is still there: nobody told it
    old.ends = {B: pair.nodes[B].links.sessions.open()[0].link}
    new = pair.dial(A)
    pair.deliver()
    assert [new] == pair.links(A) == pair.links(B)
    assert len(pair.nodes[B].links.sessions) == 1


def test_a_contact_that_leads_to_another_node_makes_no_dial_loop(bench):
    """A member that names a neighbour's address as its own costs a few dials, and no link of the neighbour's."""
    victim = bench.open(A, dialled=(A, 8951))
    bench.hear(victim, a_line(A).answer(0))
    liar = bench.open(X)
    bench.hear(liar, a_line(X, contact=("victim", 8951)).answer(0))
    bench.do(bench.node.peer_lost(liar, "gone", bench.at()))
    bench.pass_time(3)
    dials = 0
    for _ in range(600):
        bench.pass_time(1)
        for ping in bench.said(victim, Ping):
            bench.hear(victim, Pong(ping.token, bench.at().wall_ms))
        for address in bench.dials:
            if address == ("victim", 8951):
                dials += 1
                bench.open(A, dialled=address)
            else:
                bench.do(bench.node.dial_failed(address, "refused", bench.at()))
        bench.dials.clear()
    assert victim not in bench.closed
    assert 0 < dials <= 45


# ----------------------------------------------------------------- beats


def test_a_ping_is_answered_and_a_pong_measures_the_round_trip(bench):
    """Each side learns how far the other is and what its clock says, which it read half a round trip ago."""
    link = bench.open(A)
    (ping,) = bench.said(link, Ping)
    bench.hear(link, Ping(9, 1))
    assert [Pong(9, bench.at().wall_ms)] == bench.said(link)
    bench.now_s += 0.25
    bench.hear(link, Pong(ping.token, bench.at().wall_ms + 1000))
    session = bench.node.links.sessions.get(link)
    assert (session.round_trip_s, session.clock_offset_ms) == (0.25, 1125)


def test_a_pong_nobody_asked_for_measures_nothing(bench):
    """A peer cannot make itself look near or far."""
    link = bench.open(A)
    bench.hear(link, Pong(77, 0))
    assert bench.node.links.sessions.get(link).round_trip_s is None


def test_a_silent_peer_is_pinged_and_given_up(bench):
    """Who dialled asks after twenty seconds of silence and gives up twenty seconds later."""
    link = bench.open(A, dialled=(A, 8951))
    alive(bench, link, 5)
    bench.pass_time(30)
    assert link not in bench.closed
    bench.pass_time(20)
    assert len(bench.said(link, Ping)) == 1
    assert "silent" in bench.closed[link]
    assert [notice.peer for notice in bench.told(fx.PeerParted)] == [A]


def test_a_silent_peer_that_dialled_us_is_given_up_later(bench):
    """Who was dialled waits for the other's pings, longer than any of them can take."""
    link = bench.open(A)
    (ping,) = bench.said(link, Ping)
    bench.hear(link, Pong(ping.token, 0))
    bench.pass_time(38)
    assert link not in bench.closed
    bench.pass_time(10)
    assert "silent" in bench.closed[link]


@pytest.mark.parametrize("dialled", [None, (A, 8951)])
def test_a_stalled_loop_of_ours_does_not_blame_peers(bench, dialled):
    """After a pause of our own process every peer gets a new chance, those without a hello too."""
    link, mute = bench.open(A, dialled=dialled), bench.connect(B)
    alive(bench, link, 20 if dialled else 4)
    bench.said()
    mute = bench.connect(B) if mute in bench.closed else mute
    bench.now_s += 100
    bench.pass_time(0)
    assert link not in bench.closed
    assert mute not in bench.closed
    bench.pass_time(1)
    assert link not in bench.closed


# ----------------------------------------------------------------- goodbyes


def test_links_not_needed_are_closed_after_a_minute():
    """A link to a node that is no neighbour goes when its replacements are up, with a goodbye."""
    bench = Bench()
    for number in range(40):
        bench.node.registry.accept(a_line(f"n{number}.example.org").verified, {})
    bench.node.links.draw(bench.at())
    wanted = sorted(bench.node.links.neighbours)
    strangers = sorted({f"n{number}.example.org" for number in range(40)} - set(wanted))
    links = {name: bench.open(name, dialled=(name, 8951)) for name in [*wanted, strangers[0]]}
    for _ in range(80):
        bench.pass_time(1)
        for link in links.values():
            for ping in bench.said(link, Ping):
                bench.hear(link, Pong(ping.token, bench.at().wall_ms))
        if bench.closed:
            break
    assert {links[strangers[0]]: "not needed any more"} == bench.closed
    assert 59 < bench.now_s < 71


@pytest.mark.parametrize("farewell", [*Farewell, 77])
def test_a_goodbye_ends_the_link_and_is_followed_by_a_pause(bench, farewell):
    """Whatever the reason, known or not, the peer is dialled again only after a pause."""
    link = bench.open(A, dialled=(A, 8951))
    bench.hear(link, a_line(A).answer(0))
    bench.pass_time(6)
    bench.dials.clear()
    bench.hear(link, Goodbye(farewell, 30, "a word"))
    assert "a word" in bench.closed[link]
    assert bench.dials == []
    assert bench.do(bench.node.handle_message(link, Ping(1, 1), bench.at())) == []
    bench.pass_time(70)
    assert (A, 8951) in bench.dials


def test_a_goodbye_does_not_make_its_sender_leave(bench):
    """Only a signed digest says that a node has left."""
    link = bench.open(A)
    line = a_line(A)
    bench.hear(link, line.answer(0))
    bench.hear(link, Goodbye(Farewell.LEAVING, 0, ""))
    assert line.head == bench.head(A)
    bench.pass_time(5)
    assert A in bench.node.links.neighbours


def test_a_goodbye_postpones_no_address_of_another_node(bench):
    """A member that names a victim's address as its contact cannot keep us from dialling the victim."""
    link = bench.open(X)
    bench.hear(link, a_line(X, contact=(A, 8951)).answer(0))
    bench.hear(link, a_line(X, sequence=2, contact=(A, 8951)).answer(0))
    victim = bench.open(A)
    bench.hear(victim, a_line(A).answer(0))
    bench.hear(link, Goodbye(Farewell.NOT_NEEDED, 0, ""))
    bench.dials.clear()
    bench.do(bench.node.peer_lost(victim, "gone", bench.at()))
    bench.pass_time(5)
    assert (A, 8951) in bench.dials


def test_stopping_says_goodbye_on_every_link(bench):
    """An orderly stop names the seconds it expects to be away."""
    links = [bench.open(A), bench.open(B), bench.connect(X)]
    bench.said()
    bench.do(bench.node.stop(away_s=12))
    assert [Goodbye(Farewell.STOPPING, 12, "this node stops")] * 3 == bench.said(kind=Goodbye)
    assert set(links) == set(bench.closed)


def test_leaving_is_published_before_the_goodbye(bench):
    """Neighbours get the last digest, then hear LEAVING."""
    link = bench.open(A)
    bench.said()
    bench.do(bench.node.leave(bench.at()))
    bench.do(bench.node.stop())
    answer, goodbye = bench.said(link)
    assert b"" not in (answer.signed.payload, answer.signed.signature)
    assert bench.node.registry.table.line(OWN).digest.leaving
    assert goodbye.farewell == Farewell.LEAVING


# ----------------------------------------------------------------- dialling


def test_a_peer_in_a_crash_loop_is_not_hammered():
    """A seed that takes every link and drops it at once is dialled ever more rarely."""
    bench = Bench(seeds=((A, 8951),))
    dials = 0
    for _ in range(600):
        while bench.dials:
            bench.dials.pop()
            dials += 1
            link = bench.open(A, dialled=(A, 8951))
            bench.do(bench.node.peer_lost(link, "crashed", bench.at()))
        bench.pass_time(1)
    assert 15 <= dials <= 60


def test_after_a_long_link_the_first_dial_is_soon():
    """Failures of long ago do not delay the way back."""
    bench = Bench(seeds=((A, 8951),))
    for _ in range(6):
        bench.do(bench.node.dial_failed((A, 8951), "refused", bench.at()))
        bench.pass_time(BACKOFF_MOST_S * 1.5)
    link = bench.open(A, dialled=(A, 8951))
    alive(bench, link, 20)
    bench.dials.clear()
    bench.do(bench.node.peer_lost(link, "gone", bench.at()))
    bench.pass_time(1)
    assert bench.dials == [(A, 8951)]
    bench.do(bench.node.dial_failed((A, 8951), "refused", bench.at()))
    assert bench.told(fx.DialFailed)[-1].attempts == 1


def test_seeds_are_dialled_while_others_are_connected():
    """The old network split for good because it did not."""
    bench = Bench(seeds=((A, 8951), (B, 8951)))
    link = bench.open(A, dialled=(A, 8951))
    dials = 0
    for _ in range(300):
        alive(bench, link, 1)
        while bench.dials:
            dials += bench.dials.pop() == (B, 8951)
            bench.do(bench.node.dial_failed((B, 8951), "refused", bench.at()))
    assert dials >= 6


def test_a_dial_is_reported_with_its_attempts(bench):
    """Who looks sees how often an address failed in a row."""
    for expected in (1, 2, 3):
        bench.do(bench.node.dial_failed((A, 1), "refused", bench.at()))
        assert attrs.evolve(fx.DialFailed((A, 1), "refused", 0), attempts=expected) == bench.notices[-1]
