"""What one hostile peer or origin cannot do: poison, fill memory, hold up others (core.fetching on a bench)."""

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits
from esgf_gossip.core.fetching import ANSWER_BYTES
from esgf_gossip.core.messages import Announce, Answer, Ask, Bodies, Heads, Want
from helpers.bench import START_MS, Bench, a_line

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


# ----------------------------------------------------------------- relays that mangle

LEAF, ISSUER = a_line(X).chain
SIGNATURE = a_line(X).signed.signature


@pytest.mark.parametrize(
    ("signature", "chain"),
    [
        (bytes(32), (LEAF, ISSUER)),
        (SIGNATURE + b"x", (LEAF, ISSUER)),
        (SIGNATURE, ()),
        (SIGNATURE, (ISSUER,)),
        (SIGNATURE, (b"certificate 1 of b.example.org", ISSUER)),
        (SIGNATURE, (LEAF + ISSUER,)),
        (SIGNATURE, (LEAF[:4], LEAF[4:] + ISSUER)),
        (SIGNATURE + LEAF[:5], (LEAF[5:], ISSUER)),
        (SIGNATURE[:-3], (SIGNATURE[-3:] + LEAF, ISSUER)),
    ],
)
def test_a_relay_that_mangles_does_not_poison_the_good_copy(bench, signature, chain):
    """What one relay spoiled is refused, and the same digest is taken from the next."""
    relay, honest = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(relay, Announce((line.head,)))
    bench.hear(honest, Announce((line.head,)))
    mangled = attrs.evolve(line.signed, signature=signature)
    bench.hear(relay, line.answer(asked(bench, relay).request, signed=mangled, chain=chain))
    assert bench.head(X) is None
    assert bench.closed == {}
    bench.hear(honest, line.answer(asked(bench, honest).request))
    assert line.head == bench.head(X)


def test_what_was_refused_is_judged_once(bench):
    """A refused digest is remembered until trust changes, then judged anew."""
    line = a_line(X)
    bench.verifier.revoked.add(line.chain[0])
    link = bench.open(X)
    for _ in range(5):
        calls = bench.verifier.calls
        bench.hear(link, line.answer(0))
    assert calls == bench.verifier.calls
    assert len(bench.told(fx.DigestTurnedAway)) == 1
    assert bench.closed == {}
    bench.verifier.revoked.clear()
    bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
    bench.hear(link, line.answer(0))
    assert line.head == bench.head(X)


def test_a_digest_dated_ahead_is_accepted_later(bench):
    """A verdict that only the clock gave is not remembered; an announcement brings the line in time."""
    link = bench.open(A)
    line = a_line(X, issued_at_ms=bench.at().wall_ms + 700_000)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request))
    assert bench.head(X) is None
    assert bench.told(fx.DigestTurnedAway)[0].reason == "dated ahead"
    bench.wall_ahead_ms = 200_000
    bench.hear(link, Heads((line.head,), is_last=True))
    bench.hear(link, line.answer(asked(bench, link).request))
    assert line.head == bench.head(X)


def test_expired_lines_come_with_their_bodies_while_anybody_has_them(bench):
    """A wrong clock of ours makes living lines look expired: their bodies are taken all the same."""
    bench.wall_ahead_ms = 8 * 24 * 3600 * 1000
    link = bench.open(A, clock_ms=START_MS)
    line = a_line(X)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request, bodies=()))
    want = asked(bench, link, Want)
    bench.hear(link, Bodies(want.request, line.bodies, is_last=True))
    assert line.bodies[0] == bench.node.registry.entry(X, "registration")


def test_an_expired_line_whose_bodies_are_gone_is_taken_without(bench):
    """The table never forgets, even when nobody keeps what an expired line said."""
    link = bench.open(A)
    line = a_line(X, issued_at_ms=bench.at().wall_ms - 8 * 24 * 3600 * 1000)
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request, bodies=()))
    assert line.head == bench.head(X)


def test_a_fork_is_proven_and_both_orders_of_arrival_end_alike():
    """Two digests of one number are proof; the smaller hash counts whoever came first."""
    one, two = a_line(X, entries={"registration": b"1"}), a_line(X, entries={"registration": b"2"})
    smaller = min((one, two), key=lambda line: line.head.payload_sha256)
    for order in ((one, two), (two, one)):
        bench = Bench()
        link = bench.open(X)
        for line in order:
            bench.hear(link, line.answer(0))
        assert smaller.head == bench.head(X)
        assert [fx.ForkProven(X, one.digest.certificate_sha256)] == bench.told(fx.ForkProven)


# ----------------------------------------------------------------- floods


def test_claims_of_unknown_origins_are_bounded(bench):
    """A peer that names more nodes than there are fills only its own share of our memory."""
    link = bench.open(A)
    for page in range(12):
        heads = tuple(a_head(f"x{page}-{number}.example.org") for number in range(500))
        bench.hear(link, Announce(heads))
    session = bench.node.links.sessions.get(link)
    assert len(session.known) == limits.UNKNOWN_CLAIMS_PER_PEER
    assert len(bench.node._fetching._fetches) <= limits.UNKNOWN_CLAIMS_PER_PEER
    assert bench.closed == {}


def test_claims_not_confirmed_do_not_raise_the_bound(bench):
    """Answering 'nothing newer' about a known origin gives no right to more unknown ones."""
    link, other = bench.open(A), bench.open(B)
    for page in range(9):
        bench.hear(link, Announce(tuple(a_head(f"x{page}-{number}.example.org") for number in range(500))))
    line = a_line(X)
    bench.hear(other, Announce((line.head,)))
    bench.hear(other, line.answer(asked(bench, other).request))
    session = bench.node.links.sessions.get(link)
    before = len(session.known)
    for number in range(20):
        bench.node._fetching.claim(session, a_head(X, 50 + number), bench.at())
        session.forget_claim(X, bench.node.registry.table)
        bench.hear(link, Announce((a_head(f"more{number}.example.org"),)))
    assert before == len(session.known)


def test_a_flood_of_claims_does_not_hold_up_an_honest_change(bench):
    """One silent liar with thousands of claims leaves room for what others announce."""
    liar, honest = bench.open(A), bench.open(B)
    for page in range(8):
        bench.hear(liar, Announce(tuple(a_head(f"x{page}-{number}.example.org") for number in range(500))))
    bench.said()
    line = a_line(X)
    bench.hear(honest, Announce((line.head,)))
    bench.hear(honest, line.answer(asked(bench, honest).request))
    assert line.head == bench.head(X)


def test_a_flood_of_one_liar_is_asked_about_in_small_portions(bench):
    """What waits for a liar's slots is asked when they are free, never all at once."""
    liar = bench.open(A)
    bench.said()
    heads = tuple(a_head(f"x{number}.example.org") for number in range(500))
    bench.hear(liar, Announce(heads))
    assert len(bench.said(liar, Ask)) == limits.FETCHES_PER_LINK


def test_everything_claimed_is_asked_for_in_the_end(bench):
    """Searches that had to wait are not forgotten: each is asked for once others are done."""
    link = bench.open(A)
    bench.said()
    lines = {f"x{number}.example.org": a_line(f"x{number}.example.org") for number in range(300)}
    bench.hear(link, Announce(tuple(line.head for line in lines.values())))
    for _ in range(300):
        for question in bench.said(link, Ask):
            bench.hear(link, lines[question.origin].answer(question.request))
    assert {name: line.head for name, line in lines.items()} == {name: bench.head(name) for name in lines}
    assert not bench.node._fetching._fetches
    assert not bench.node._fetching._waiting


def test_an_honest_announcer_is_asked_though_a_liar_claimed_first(bench):
    """A search that waits for a liar's slot is asked at once of whoever else announces."""
    liar, honest = bench.open(A), bench.open(B)
    line = a_line(X)
    bench.hear(liar, Announce(tuple(a_head(f"x{number}.example.org") for number in range(200))))
    bench.hear(liar, Announce((a_head(X, 99),)))
    bench.said()
    bench.hear(honest, Announce((line.head,)))
    bench.hear(honest, line.answer(asked(bench, honest).request))
    assert line.head == bench.head(X)


def test_a_lost_liar_leaves_no_search_behind(bench):
    """What waited for a link goes with it, so that the next announcer is asked at once."""
    liar = bench.open(A)
    bench.hear(liar, Announce(tuple(a_head(f"x{number}.example.org") for number in range(200))))
    bench.do(bench.node.peer_lost(liar, "gone", bench.at()))
    assert not bench.node._fetching._fetches
    assert not bench.node._fetching._waiting


# ----------------------------------------------------------------- memory


def test_an_answer_above_its_bound_ends_the_link(bench):
    """Nobody makes us collect more than a digest, a chain and all entries can have."""
    link = bench.open(A)
    line = a_line(X)
    bench.hear(link, Announce((line.head,)))
    request = asked(bench, link).request
    part = line.answer(request, bodies=(bytes(limits.ENTRY_BYTES),), is_last=False)
    for _ in range(ANSWER_BYTES // limits.ENTRY_BYTES):
        bench.hear(link, part)
    assert bench.closed == {}
    bench.hear(link, part)
    assert "above" in bench.closed[link]
    assert bench.head(X) is None


def test_answers_begun_and_not_ended_are_bounded(bench):
    """An honest peer ends one answer before the next; who opens many is sent away."""
    link = bench.open(A)
    heads = [a_head(f"x{number}.example.org") for number in range(limits.FETCHES_AT_ONCE)]
    bench.hear(link, Announce(tuple(heads)))
    for question in bench.said(link, Ask):
        if link not in bench.closed:
            bench.hear(
                link, Answer(question.request, question.origin, None, (), (b"x" * 60_000,), is_last=False)
            )
    held = sum(part.size_bytes for part in bench.node._fetching._assemblies.values())
    assert held <= 4 * ANSWER_BYTES


def test_bodies_pushed_again_and_again_are_not_kept(bench):
    """An origin that pushes a line nobody can complete cannot fill our memory with junk."""
    link = bench.open(X)
    line = a_line(X, entries={"registration": b"r" * 100})
    for number in range(50):
        junk = tuple(bytes([number, part]) * 20_000 for part in range(8))
        if link not in bench.closed:
            for place, body in enumerate(junk):
                bench.hear(link, line.answer(0, bodies=(body,), is_last=place == 7))
    kept = sum(
        len(body) for fetch in bench.node._fetching._fetches.values() for body in fetch.bodies.values()
    )
    assert kept <= limits.ENTRIES_TOTAL_BYTES


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_digest_that_misstates_a_size_is_refused(bench, size):
    """Sizes bound what relays must send for an origin, so a lie about them is the origin's end, not the relay's."""
    link = bench.open(A)
    line = a_line(X, entries={"registration": b"rr"}, sizes={"registration": size})
    bench.hear(link, Announce((line.head,)))
    bench.hear(link, line.answer(asked(bench, link).request))
    assert bench.head(X) is None
    assert bench.closed == {}
    assert [
        word for notice in bench.told(fx.DigestTurnedAway) for word in notice.reason.split() if word == "size"
    ] == ["size"]
    assert bench.said(link, Want) == []


def test_a_size_misstated_of_a_body_already_held_is_refused(bench):
    """Naming a body of somebody else with a smaller size is the same lie."""
    link = bench.open(A)
    honest = a_line(B, entries={"registration": b"shared"})
    liar = a_line(X, entries={"registration": b"shared"}, sizes={"registration": 1})
    for line in (honest, liar):
        bench.hear(link, Announce((line.head,)))
        bench.hear(link, line.answer(asked(bench, link).request))
    assert honest.head == bench.head(B)
    assert bench.head(X) is None
