"""Each distinct bytes are judged once, cheap checks first, and who makes waste is read more slowly (core.judging)."""

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits
from esgf_gossip.core.messages import Announce, Ask, Bodies, Want
from esgf_gossip.core.registry import sha256
from helpers.bench import Bench, a_line

A, B, X = "a.example.org", "b.example.org", "x.example.org"


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


def asked(bench, link, kind=Ask):
    """Return the one question the node has asked over a link."""
    (question,) = bench.said(link, kind)
    return question


def checks(bench, link, answer):
    """Return how many signatures were looked at for an answer."""
    before = bench.verifier.calls
    bench.hear(link, answer)
    return bench.verifier.calls - before


def forged(line, number=0):
    """Return a signed digest that nobody signed."""
    return attrs.evolve(line.signed, signature=number.to_bytes(32, "big"))


# ----------------------------------------------------------------- cheap checks first


def test_what_is_below_the_line_costs_no_check(bench):
    """Of the same certificate a lower number is nothing new, whoever signed it."""
    link = bench.open(X)
    bench.hear(link, a_line(X, 5, 5).answer(0))
    assert [checks(bench, link, a_line(X, *number).answer(0)) for number in ((5, 4), (4, 9), (1, 1))] == [
        0,
        0,
        0,
    ]
    assert checks(bench, link, a_line(X, 5, 4).answer(0, signed=forged(a_line(X, 5, 4)))) == 0


def test_the_line_held_costs_no_check(bench):
    """The same bytes come again with every comparison that crosses another."""
    link = bench.open(X)
    line = a_line(X)
    assert [checks(bench, link, line.answer(0)) for _ in range(3)] == [1, 0, 0]


def test_the_other_side_of_a_fork_is_checked_once(bench):
    """A second digest of one number is evidence: worth a signature, and only one."""
    link = bench.open(X)
    one, two = a_line(X, entries={"e": b"1"}), a_line(X, entries={"e": b"2"})
    smaller, greater = sorted((one, two), key=lambda line: line.head.payload_sha256)
    bench.hear(link, smaller.answer(0))
    assert [checks(bench, link, greater.answer(0)) for _ in range(3)] == [1, 0, 0]
    assert bench.told(fx.ForkProven) == [fx.ForkProven(X, one.digest.certificate_sha256)]
    assert bench.head(X) == smaller.head


def test_a_line_that_waits_for_bodies_is_checked_once(bench):
    """The same digest from a second peer while bodies are missing is known by its bytes."""
    first, second = bench.open(A), bench.open(B)
    line = a_line(X, entries={"e": b"1", "f": b"2"})
    bench.hear(first, Announce((line.head,)))
    bench.hear(second, Announce((line.head,)))
    question = asked(bench, first)
    bench.pass_time(0.5)
    assert checks(bench, second, line.answer(asked(bench, second).request, bodies=(b"1",))) == 1
    assert checks(bench, first, line.answer(question.request, bodies=())) == 0
    want = asked(bench, second, Want)
    bench.hear(second, Bodies(want.request, (b"2",), is_last=True))
    assert bench.head(X) == line.head


def test_an_old_certificate_is_checked_once(bench):
    """Its rank is only known from its chain, but the same bytes are not looked at again."""
    link = bench.open(X)
    bench.hear(link, a_line(X, generation=2).answer(0))
    assert [checks(bench, link, a_line(X, 9).answer(0)) for _ in range(3)] == [1, 0, 0]


# ----------------------------------------------------------------- refused heads


def revoked(bench):
    """Return a line that this node's trust does not carry."""
    line = a_line(X)
    bench.verifier.revoked.add(line.chain[0])
    return line


def test_a_refused_head_is_not_asked_of_the_same_peer_again(bench):
    """Every comparison claims it anew; it would be the same answer again."""
    link = bench.open(A)
    line = revoked(bench)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request))
    for _ in range(5):
        bench.hear(link, Announce((line.head,)))
    assert bench.said(link, Ask) == []
    newer = a_line(X, 1, 2, generation=2)
    bench.hear(link, Announce((newer.head,)))
    bench.hear(link, newer.answer(asked(bench, link).request))
    assert bench.head(X) == newer.head


def test_a_refused_head_is_asked_again_when_trust_has_changed(bench):
    """A verdict of yesterday's revocation list is none of today's."""
    link = bench.open(A)
    line = revoked(bench)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request))
    bench.verifier.revoked.clear()
    bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request))
    assert bench.head(X) == line.head


def test_what_one_relay_spoils_is_asked_of_the_next(bench):
    """The head is refused of who mangled it, not of who has the good copy."""
    relay, honest = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(relay, Announce((line.head,)))
    bench.hear(relay, line.answer(asked(bench, relay).request, signed=forged(line)))
    bench.hear(relay, Announce((line.head,)))
    assert bench.said(relay, Ask) == []
    bench.hear(honest, Announce((line.head,)))
    bench.hear(honest, line.answer(asked(bench, honest).request))
    assert bench.head(X) == line.head


def test_an_answer_without_a_chain_is_not_held_against_its_digest(bench):
    """The peer left out what it thought we have: the next question gets it."""
    link = bench.open(A)
    line = a_line(X)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request, chain=()))
    assert bench.head(X) is None
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request))
    assert bench.head(X) == line.head


def test_a_lie_of_the_origin_is_asked_of_nobody(bench):
    """The origin signed a size that is wrong: it is wrong from whoever brings it."""
    first, second = bench.open(A), bench.open(B)
    line = a_line(X, entries={"e": b"rr"}, sizes={"e": 1})
    bench.hear(first, Announce((line.head,)))
    bench.hear(first, line.answer(asked(bench, first).request))
    bench.hear(second, Announce((line.head,)))
    assert bench.said(second, Ask) == []


def test_a_later_format_is_asked_of_each_peer_once(bench):
    """A digest we cannot read yet stays what it is until this daemon is newer."""
    link = bench.open(A)
    line = a_line(X)
    payload = b"\x9c\x02" + line.signed.payload[2:]
    later = attrs.evolve(line.signed, payload=payload)
    head = attrs.evolve(line.head, payload_sha256=sha256(payload))
    bench.hear(link, Announce((head,)))
    bench.hear(link, line.answer(asked(bench, link).request, signed=later))
    bench.hear(link, Announce((head,)))
    assert bench.said(link, Ask) == []
    assert bench.closed == {}
    assert len(bench.told(fx.DigestTurnedAway)) == 1


def test_verdicts_are_remembered_up_to_their_bound(bench):
    """The oldest verdict goes first, and what it was about is judged anew."""
    verdicts = bench.node._fetching._judging
    link = bench.open(A)
    first = a_line(X).head
    verdicts.settle(first.payload_sha256)
    for number in range(limits.VERDICTS_REMEMBERED - 1):
        verdicts.settle(number.to_bytes(32, "big"))
    assert verdicts.is_settled(first, link)
    verdicts.settle(bytes([255]) * 32)
    assert not verdicts.is_settled(first, link)
    assert len(verdicts._settled) == limits.VERDICTS_REMEMBERED


# ----------------------------------------------------------------- waste


@pytest.mark.parametrize("count", [limits.WASTED_CHECKS_PER_S, limits.WASTED_CHECKS_PER_S + 1])
def test_a_peer_that_wastes_checks_is_read_more_slowly(bench, count):
    """Up to its budget nothing happens; above, its link rests for what is owed, and stays."""
    link = bench.open(X)
    line = a_line(X)
    for number in range(count):
        bench.hear(link, line.answer(0, signed=forged(line, number)))
    above = count - limits.WASTED_CHECKS_PER_S
    assert [(one.link, pytest.approx(one.for_s)) for one in bench.pauses] == [
        (link, 1 / limits.WASTED_CHECKS_PER_S) for _ in range(above)
    ]
    bench.hear(link, line.answer(0))
    assert bench.head(X) == line.head
    assert bench.closed == {}


def test_lines_that_are_news_are_never_waste(bench):
    """A fresh node takes in thousands of lines from one peer at its own speed."""
    link = bench.open(A)
    for number in range(2 * limits.WASTED_CHECKS_PER_S):
        line = a_line(f"x{number}.example.org")
        bench.hear(link, Announce((line.head,)))
        bench.hear(link, line.answer(asked(bench, link).request))
    assert len(bench.node.registry.table) == 2 * limits.WASTED_CHECKS_PER_S + 1
    assert bench.pauses == []
