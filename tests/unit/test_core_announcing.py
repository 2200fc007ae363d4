"""Announcements: a change alone at once, a burst together, nobody twice."""

from esgf_gossip.core.announcing import BURST_S
from esgf_gossip.core.effects import AnnounceHeads
from esgf_gossip.core.messages import Announce
from helpers.bench import Bench, a_line

A, B = "a.example.org", "b.example.org"
ORIGINS = [f"x{number}.example.org" for number in range(6)]


def take(bench, link, line):
    """Let the node hear of a line from a peer and fetch it."""
    bench.hear(link, Announce((line.head,)))
    for question in bench.said(link):
        if hasattr(question, "held"):
            bench.hear(link, line.answer(question.request))


def heads_of(messages):
    """Return the origins of all heads in these announcements."""
    return [head.origin for message in messages for head in message.heads]


def test_a_change_alone_is_announced_at_once():
    """After a rest nothing waits."""
    bench = Bench()
    giver, other = bench.open(A), bench.open(B)
    bench.pass_time(1)
    bench.said()
    take(bench, giver, a_line(ORIGINS[0]))
    assert [ORIGINS[0]] == heads_of(bench.said(other, Announce))
    assert bench.said(giver, Announce) == []


def test_a_burst_is_announced_in_two_messages():
    """The first at once, the others together, and none is lost."""
    bench = Bench()
    giver, other = bench.open(A), bench.open(B)
    bench.pass_time(1)
    bench.said()
    for origin in ORIGINS:
        take(bench, giver, a_line(origin))
    bench.pass_time(BURST_S)
    said = bench.said(other, Announce)
    assert heads_of(said) == ORIGINS
    assert len(said) == 2
    bench.pass_time(1)
    assert bench.timers(AnnounceHeads) == []


def test_what_a_peer_has_announced_meanwhile_is_not_told_to_it():
    """Waiting saves messages: who told us in the meantime knows."""
    bench = Bench()
    giver, other = bench.open(A), bench.open(B)
    bench.pass_time(1)
    lines = [a_line(origin) for origin in ORIGINS[:3]]
    for line in lines:
        take(bench, giver, line)
    bench.said()
    bench.hear(other, Announce((lines[2].head,)))
    bench.pass_time(BURST_S)
    assert [ORIGINS[1]] == heads_of(bench.said(other, Announce))


def test_a_newer_line_replaces_the_one_that_waits():
    """What goes out is what is held then."""
    bench = Bench()
    giver, other = bench.open(A), bench.open(B)
    bench.pass_time(1)
    take(bench, giver, a_line(ORIGINS[0]))
    take(bench, giver, a_line(ORIGINS[1], sequence=1))
    newer = a_line(ORIGINS[1], sequence=2)
    take(bench, giver, newer)
    bench.said(giver)
    bench.pass_time(BURST_S)
    told = [head for message in bench.said(other, Announce) for head in message.heads]
    assert newer.head == told[-1]
    assert len(told) == 2
