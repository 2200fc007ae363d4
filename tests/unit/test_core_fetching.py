"""How lines come in: announce, ask, verify, take in whole or not at all (core.fetching on a bench)."""

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits
from esgf_gossip.core.fetching import QUESTIONS_PER_FETCH
from esgf_gossip.core.messages import Announce, Answer, Ask, Bodies, Ping, Pong, Want
from esgf_gossip.core.registry import sha256
from helpers.bench import Bench, a_line

A, B, C, X = "a.example.org", "b.example.org", "c.example.org", "x.example.org"


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


def asked(bench, link, kind=Ask):
    """Return the one question the node has asked over a link."""
    (question,) = bench.said(link, kind)
    return question


def a_head(origin, number=1):
    """Return a head nobody can back with bytes."""
    return attrs.evolve(a_line(origin, number).head, payload_sha256=bytes(32))


# ----------------------------------------------------------------- the usual way


def test_an_announced_line_is_asked_for_and_taken_whole(bench):
    """Announce, ask, answer: the line, its body and the disk have it, and other peers hear of it."""
    announcer, other = bench.open(A), bench.open(B)
    bench.said()
    line = a_line(X)
    bench.hear(announcer, Announce((line.head,)))
    question = asked(bench, announcer)
    assert (question.origin, question.held, question.certificate_sha256) == (X, None, b"")
    bench.hear(announcer, line.answer(question.request))
    assert line.head == bench.head(X)
    assert line.bodies[0] == bench.node.registry.entry(X, "registration")
    assert line.signed == bench.disk.lines[X].signed
    assert line.bodies[0] == bench.disk.bodies[sha256(line.bodies[0])]
    assert [Announce((line.head,))] == bench.said(other)
    assert bench.said(announcer) == []


def test_an_old_announcement_is_not_asked_for(bench):
    """At the line or below it nothing is ever asked."""
    link = bench.open(A)
    for sequence in (2, 3):
        line = a_line(X, sequence=sequence)
        bench.hear(link, Announce((line.head,)))
        bench.hear(link, line.answer(asked(bench, link).request))
    bench.said()
    bench.hear(link, Announce((a_line(X, sequence=2).head, a_line(X, sequence=3).head)))
    assert bench.said(link, Ask) == []


def test_only_changed_entries_come_with_the_next_digest(bench):
    """The question names the line held, the answer leaves out what it has, the entry stays served."""
    link = bench.open(A)
    first = a_line(X, 1, 1, {"registration": b"r", "metrics": b"1"})
    bench.hear(link, Announce((first.head,)))
    bench.hear(link, first.answer(asked(bench, link).request))
    second = a_line(X, 1, 2, {"registration": b"r", "metrics": b"2"})
    bench.hear(link, Announce((second.head,)))
    question = asked(bench, link)
    assert (first.head, first.digest.certificate_sha256) == (question.held, question.certificate_sha256)
    bench.hear(link, second.answer(question.request, bodies=(b"2",), chain=()))
    assert (
        bench.node.registry.entry(X, "registration"),
        bench.node.registry.entry(X, "metrics"),
    ) == (b"r", b"2")
    assert sha256(b"1") not in bench.disk.bodies


def test_a_silent_announcer_is_passed_over(bench):
    """No answer in time: the next announcer is asked, and what it says counts."""
    first, second = bench.open(A), bench.open(B)
    bench.said()
    line = a_line(X)
    bench.hear(first, Announce((line.head,)))
    bench.hear(second, Announce((line.head,)))
    assert len(bench.said(first, Ask)) == 1
    assert bench.said(second, Ask) == []
    bench.pass_time(0.5)
    bench.hear(second, line.answer(asked(bench, second).request))
    assert line.head == bench.head(X)


def test_a_late_answer_is_still_welcome(bench):
    """Who was passed over may answer yet: the bytes prove themselves."""
    first, second = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(first, Announce((line.head,)))
    bench.hear(second, Announce((line.head,)))
    question = asked(bench, first)
    bench.pass_time(0.5)
    bench.hear(first, line.answer(question.request))
    assert line.head == bench.head(X)


def test_a_lost_announcer_is_replaced_at_once(bench):
    """When the link breaks on which we wait, nobody waits for the timer."""
    first, second = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(first, Announce((line.head,)))
    bench.hear(second, Announce((line.head,)))
    bench.said()
    bench.do(bench.node.peer_lost(first, "gone", bench.at()))
    bench.hear(second, line.answer(asked(bench, second).request))
    assert line.head == bench.head(X)


def test_a_measured_round_trip_shortens_the_wait(bench):
    """1.1 round trips and 50 ms are enough where the round trip is known."""
    first, second = bench.open(A), bench.open(B)
    (ping,) = bench.said(first, Ping)
    bench.now_s += 0.1
    bench.hear(first, Pong(ping.token, 0))
    line = a_line(X)
    bench.hear(first, Announce((line.head,)))
    bench.hear(second, Announce((line.head,)))
    bench.pass_time(0.15)
    assert bench.said(second, Ask) == []
    bench.pass_time(0.02)
    assert len(bench.said(second, Ask)) == 1


def test_a_claim_nobody_backs_is_dropped_and_replaces_nothing(bench):
    """A false announcement costs a bounded number of questions; the true line stays and can still grow."""
    link = bench.open(A)
    line = a_line(X)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request))
    bench.hear(link, Announce((a_head(X, 99),)))
    for _ in range(200):
        bench.pass_time(1)
        for ping in bench.said(link, Ping):
            bench.hear(link, Pong(ping.token, 0))
    assert line.head == bench.head(X)
    assert bench.timers(fx.RetryFetch) == []
    newer = a_line(X, sequence=2)
    other = bench.open(B)
    bench.hear(other, Announce((newer.head,)))
    bench.hear(other, newer.answer(asked(bench, other).request))
    assert newer.head == bench.head(X)


def test_questions_for_one_claim_are_bounded(bench):
    """A peer that never answers is asked a dozen times, with growing patience."""
    link = bench.open(A)
    bench.said()
    bench.hear(link, Announce((a_head(X),)))
    questions = []
    for _ in range(200):
        bench.pass_time(1)
        bench.hear(link, Pong(0, 0))
        questions += bench.said(link, Ask)
    assert len(questions) == QUESTIONS_PER_FETCH
    assert len({question.request for question in questions}) == QUESTIONS_PER_FETCH


def test_a_true_line_is_found_beside_a_false_higher_claim(bench):
    """A liar that claims more than there is delays the true line by one question, no more."""
    liar, honest = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(liar, Announce((a_head(X, 99),)))
    bench.hear(honest, Announce((line.head,)))
    bench.said()
    bench.pass_time(0.5)
    bench.hear(honest, line.answer(asked(bench, honest).request))
    assert line.head == bench.head(X)


def test_nothing_newer_goes_on_to_the_next(bench):
    """A peer that does not confirm its own claim is not asked again."""
    liar, honest = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(liar, Announce((a_head(X, 99),)))
    bench.hear(honest, Announce((line.head,)))
    bench.hear(liar, Answer(asked(bench, liar).request, X, None, (), (), is_last=True))
    bench.hear(honest, line.answer(asked(bench, honest).request))
    assert line.head == bench.head(X)
    bench.pass_time(5)
    assert bench.said(liar, Ask) == []


# ----------------------------------------------------------------- bodies


def test_a_missing_body_is_wanted_by_its_hash(bench):
    """A line without one of its bodies is not taken; the body is asked for by hash, then all is there."""
    link = bench.open(A)
    line = a_line(X, entries={"registration": b"r", "metrics": b"m"})
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request, bodies=(b"r",)))
    assert bench.head(X) is None
    want = asked(bench, link, Want)
    assert (sha256(b"m"),) == want.hashes
    bench.hear(link, Bodies(want.request, (b"m",), is_last=True))
    assert line.head == bench.head(X)
    assert b"m" == bench.node.registry.entry(X, "metrics")  # noqa: SIM300


def test_a_body_with_another_hash_is_ignored(bench):
    """Only what the digest names is kept, whatever else a relay puts in."""
    link = bench.open(A)
    line = a_line(X, entries={"registration": b"r"})
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request, bodies=(b"forged",)))
    want = asked(bench, link, Want)
    bench.hear(link, Bodies(want.request, (b"forged again",), is_last=True))
    assert bench.head(X) is None
    want = asked(bench, link, Want)
    bench.hear(link, Bodies(want.request, (b"junk", b"r"), is_last=True))
    assert line.head == bench.head(X)
    assert {sha256(b"own"), sha256(b"r")} == set(bench.disk.bodies)


def test_bodies_that_come_late_still_count(bench):
    """Over a slow link every answer is late; its bodies prove themselves by their hash."""
    link = bench.open(A)
    line = a_line(X, entries={"registration": b"r"})
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request, bodies=()))
    want = asked(bench, link, Want)
    bench.pass_time(5)
    assert len(bench.said(link, Want)) > 0
    bench.hear(link, Bodies(want.request, (b"r",), is_last=True))
    assert line.head == bench.head(X)


def test_large_entries_arrive_in_frames_within_the_bound():
    """Seven entries of 64 KiB go out in parts below the bound of a frame and come in whole."""
    entries = {f"entry-{number}": bytes([number]) * limits.ENTRY_BYTES for number in range(7)}
    giver, taker = Bench(X, entries=entries), Bench()
    given, taken = giver.open("m.example.org"), taker.open(X)
    taker.hear(taken, Announce((giver.head(X),)))
    giver.said()
    giver.hear(given, asked(taker, taken))  # the bench asserts the bound of every frame sent
    parts = giver.said(given, Answer)
    assert len(parts) > 3
    for part in parts:
        assert taker.head(X) is None
        taker.hear(taken, part)
    assert giver.head(X) == taker.head(X)
    assert [entries[name] for name in sorted(entries)] == [
        taker.node.registry.entry(X, name) for name in sorted(entries)
    ]


# ----------------------------------------------------------------- who may push


def test_an_origin_may_push_its_own_change(bench):
    """A neighbour's own change comes whole, without the question."""
    link = bench.open(X)
    line = a_line(X)
    bench.said()
    bench.hear(link, line.answer(0))
    assert line.head == bench.head(X)
    assert bench.said(link) == []


def test_nobody_pushes_for_another(bench):
    """What was not asked for comes from its origin only; others end their link."""
    link = bench.open(A)
    bench.hear(link, a_line(X).answer(0))
    assert "unasked" in bench.closed[link]
    assert bench.head(X) is None


def test_an_answer_to_no_question_is_ignored(bench):
    """A request number we never used, or not on this link, begins nothing."""
    link, other = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(link, line.answer(77))
    assert bench.head(X) is None
    bench.hear(other, Announce((line.head,)))
    question = asked(bench, other)
    bench.hear(link, line.answer(question.request))
    assert bench.head(X) is None
    assert bench.closed == {}


def test_the_rest_of_an_old_answer_does_not_spoil_a_new_search(bench):
    """The last part of an answer that was late for one search says nothing about the next."""
    first, second = bench.open(A), bench.open(B)
    line, newer = a_line(X), a_line(X, sequence=2)
    bench.hear(first, Announce((line.head,)))
    bench.hear(second, Announce((line.head,)))
    old = asked(bench, first)
    bench.pass_time(0.5)
    bench.hear(second, line.answer(asked(bench, second).request))
    bench.hear(first, line.answer(old.request, is_last=False))
    bench.hear(first, Announce((newer.head,)))
    bench.hear(first, Answer(old.request, X, None, (), (), is_last=True))
    bench.hear(first, newer.answer(asked(bench, first).request))
    assert newer.head == bench.head(X)


def test_an_answer_about_another_origin_ends_the_link(bench):
    """Who was asked about one node and answers about another breaks the protocol."""
    link = bench.open(A)
    bench.hear(link, Announce((a_head(X),)))
    bench.hear(link, a_line(B).answer(asked(bench, link).request, origin=X))
    assert "answered about" in bench.closed[link]


def test_bytes_that_are_no_digest_end_the_link(bench):
    """A relay checks before it passes on, so malformed bytes are its own fault."""
    link = bench.open(A)
    bench.hear(link, Announce((a_head(X),)))
    line = a_line(X)
    bad = attrs.evolve(line.signed, payload=b"\xc1")
    bench.hear(link, line.answer(asked(bench, link).request, signed=bad))
    assert "protocol error" in bench.closed[link]
