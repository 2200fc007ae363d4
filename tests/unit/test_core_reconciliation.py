"""Anti-entropy and answers: roots, vectors, bodies by hash (core.node and core.reconciliation on a bench)."""

from collections import Counter

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core.messages import Announce, Ask, Bodies, Goodbye, Heads, Ping, Pong, Roots, Want
from esgf_gossip.core.model import Head
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


# ----------------------------------------------------------------- roots


def test_roots_that_stay_different_cause_no_growing_traffic(bench):
    """A peer whose root will never be ours is compared with at a bounded, constant rate."""
    link = bench.open(A, roots={1: bytes(32)})
    per_minute = []
    for _ in range(12):
        said = Counter()
        for _ in range(120):
            bench.pass_time(0.5)
            bench.hear(link, Pong(0, 0))
            for message in bench.said(link):
                said[type(message)] += 1
                if isinstance(message, Roots) and not message.is_reply:
                    bench.hear(link, Roots({1: bytes(32)}, is_reply=True))
                elif isinstance(message, Ping):
                    bench.hear(link, Pong(message.token, 0))
        per_minute.append(said[Roots] + said[Heads])
    assert bench.closed == {}
    assert sum(per_minute) > 0
    assert max(per_minute[2:]) <= 8


def test_a_reply_nobody_asked_for_starts_nothing(bench):
    """A peer cannot make us send all heads, or set timers, by replying without end."""
    link = bench.open(A)
    bench.said()
    timers = len(bench.timers(fx.CompareRoots))
    for _ in range(50):
        bench.hear(link, Roots({1: bytes(32)}, is_reply=True))
    assert bench.said(link) == []
    assert timers == len(bench.timers(fx.CompareRoots))


def test_roots_without_a_common_kind_compare_nothing(bench):
    """An empty comparison does not count as a peer that holds the same."""
    bench.open(A, roots={})
    bench.open(B, roots={77: bytes(32)})
    assert bench.node.peers_compared == 0
    bench.open(C)
    assert bench.node.peers_compared == 1


def test_what_a_peer_lacks_is_announced_again(bench):
    """A head told before is told again when the peer's own list shows that it did not take it."""
    link, other = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(other, Announce((line.head,)))
    bench.hear(other, line.answer(asked(bench, other).request))
    assert [Announce((line.head,))] == bench.said(link, Announce)
    bench.hear(link, Heads((), is_last=True))
    (again,) = bench.said(link, Announce)
    assert {X, "m.example.org"} == {head.origin for head in again.heads}


def test_heads_go_out_in_pages_within_a_frame(bench):
    """A table of hundreds of long names is told in frames below the bound, the last marked."""
    link = bench.open(A)
    for number in range(600):
        name = f"{'n' * 60}.{number}.{'d' * 60}.{'d' * 60}.{'d' * 58}.example"
        bench.node.registry.accept(a_line(name).verified, {})
    bench.said()
    bench.hear(link, Roots({1: bytes(32)}, is_reply=False))
    bench.node.links.sessions.get(link).roots_asked = True
    bench.hear(link, Roots({1: bytes(32)}, is_reply=True))
    pages = bench.said(link, Heads)
    assert [page.is_last for page in pages] == [False, False, True]
    assert sum(len(page.heads) for page in pages) == 601


def test_a_body_is_given_by_hash_and_a_stranger_hash_left_out(bench):
    """Want is answered with what is held, each body once, even when nothing is."""
    link = bench.open(A)
    bench.said()
    own = sha256(b"own")
    bench.hear(link, Want(3, (own, own, bytes(32))))
    bench.hear(link, Want(4, (bytes(32),)))
    assert [Bodies(3, (b"own",), is_last=True), Bodies(4, (), is_last=True)] == bench.said(link)


def test_a_question_about_what_we_do_not_have_gets_an_answer(bench):
    """'Nothing newer' is said at once, so that nobody waits for a timer."""
    link = bench.open(A)
    bench.said()
    bench.hear(link, Ask(9, X, None, b""))
    bench.hear(link, Ask(10, "m.example.org", bench.head("m.example.org"), b""))
    assert [(answer.request, answer.signed) for answer in bench.said(link)] == [(9, None), (10, None)]


def test_a_goodbye_in_the_middle_of_an_answer_leaves_nothing_behind(bench):
    """Parts of an answer go with their link."""
    link = bench.open(A)
    line = a_line(X)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request, is_last=False))
    bench.hear(link, Goodbye(1, 0, ""))
    assert not bench.node._fetching._assemblies
    assert not bench.node._fetching._fetches


def test_a_head_orders_by_certificate_then_epoch_then_sequence_then_smaller_hash():
    """No clock, no arrival: one total order over distinct heads of an origin."""
    low = a_line(X, 9, 9).head
    by_certificate = a_line(X, 1, 1, generation=2).head
    smaller = attrs.evolve(low, payload_sha256=bytes(32))
    assert by_certificate.is_above(low)
    assert not low.is_above(by_certificate)
    assert smaller.is_above(low)
    assert not low.is_above(low)
    assert isinstance(low, Head)
    assert low.is_above(None)
