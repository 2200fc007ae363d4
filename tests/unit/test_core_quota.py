"""What one origin may make others take in: buckets, turns, and claims that wait for them (core.quota, core.fetching)."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits
from esgf_gossip.core.messages import Announce, Ask, Bodies, Want
from esgf_gossip.core.quota import OriginQuota, Quotas, TokenBucket
from esgf_gossip.sim.network import a_network
from helpers.bench import Bench, a_line

A, B, X = "a.example.org", "b.example.org", "x.example.org"
BURST = limits.ORIGIN_DIGESTS_AT_ONCE


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


def accepted(bench, origin=X):
    """Return how many digests of an origin were taken."""
    return len([notice for notice in bench.told(fx.DigestAccepted) if notice.origin == origin])


def asked(bench, link, kind=Ask):
    """Return the one question the node has asked over a link."""
    (question,) = bench.said(link, kind)
    return question


def spend(bench, link, count=BURST):
    """Let an origin use up its turns by pushing its digests 1 to ``count``."""
    for number in range(1, count + 1):
        bench.hear(link, a_line(X, 1, number).answer(0))
    bench.said()


# ----------------------------------------------------------------- the bucket


amounts = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 5)), max_size=40)


@given(st.floats(0.1, 100), st.floats(1, 100), amounts)
def test_a_bucket_never_gives_more_than_its_rate(per_s, at_once, steps):
    """Who waits as told takes at most the burst, the rate times the time, and one last amount."""
    bucket, now_s, taken, last = TokenBucket(per_s, at_once), 100.0, 0.0, 0.0
    for amount, pause_s in steps:
        now_s += pause_s + bucket.wait_s(now_s + pause_s)
        assert bucket.wait_s(now_s) <= 1e-3
        assert taken <= at_once + per_s * (now_s - 100.0) + 1e-3
        bucket.take(amount, now_s)
        taken, last = taken + amount, amount
    assert taken <= at_once + per_s * (now_s - 100.0) + last + 1e-3


@given(st.floats(0.1, 100), st.floats(1, 100), st.floats(0, 1000), st.floats(0, 1))
def test_a_debt_is_paid_after_the_wait_and_not_before(per_s, at_once, amount, share):
    """The wait told is exact: nothing is owed after it, something is until then."""
    bucket = TokenBucket(per_s, at_once)
    bucket.take(amount, 5.0)
    wait_s = bucket.wait_s(5.0)
    assert wait_s == pytest.approx(max(0.0, (amount - at_once) / per_s), abs=1e-5)
    assert bucket.wait_s(5.0 + share * wait_s) == pytest.approx((1 - share) * wait_s, abs=1e-4)
    assert bucket.wait_s(5.0 + wait_s) <= 1e-4


@given(st.lists(st.floats(-1000, 0), max_size=20))
def test_a_clock_that_steps_back_gives_nothing_and_takes_nothing(steps):
    """However far it steps, what is owed is owed for the same time from then on."""
    bucket, now_s = TokenBucket(2.0, 10), 0.0
    bucket.take(20, now_s)
    for step_s in steps:
        now_s += step_s
        assert bucket.wait_s(now_s) == 5.0
    assert bucket.wait_s(now_s + 5.0) <= 1e-3


def test_a_rest_of_any_length_gives_one_burst():
    """A bucket does not overflow."""
    bucket = TokenBucket(1.0, 10)
    bucket.take(0, 0.0)
    bucket.take(11, 1e9)
    assert bucket.wait_s(1e9) == 1.0


def test_an_origin_waits_for_the_scarcer_of_its_two_goods():
    """Digests and bytes are counted apart; the longer wait counts."""
    quota = OriginQuota()
    quota.take_bodies(limits.ORIGIN_BODY_BYTES_AT_ONCE, 0.0)
    assert quota.wait_s(0.0) == 0.0
    quota.take_bodies(limits.ORIGIN_BODY_BYTES_PER_MINUTE, 0.0)
    assert quota.wait_s(0.0) == pytest.approx(60.0)
    for _ in range(BURST):
        quota.take_digest(0.0)
    assert quota.wait_s(0.0) == pytest.approx(60.0)
    assert quota.wait_s(60.0) == 0.0


def test_origins_are_counted_apart():
    """What one says too often is not the other's burden."""
    quotas = Quotas()
    for _ in range(BURST):
        quotas.take_digest(A, 0.0)
    assert (quotas.wait_s(A, 0.0), quotas.wait_s(B, 0.0)) == (1.0, 0.0)


# ----------------------------------------------------------------- an origin that says too much


def test_an_origin_that_publishes_in_a_loop_is_taken_once_a_second(bench):
    """Hundreds of valid digests a second: the burst, then one a second, each the newest there is."""
    link = bench.open(X)
    bench.said()
    checked = bench.verifier.calls
    number = 0
    for _ in range(60):
        bench.pass_time(0.05)
        for _ in range(10):
            number += 1
            bench.hear(link, a_line(X, 1, number).answer(0))
        for question in bench.said(link, Ask):
            bench.hear(link, a_line(X, 1, number).answer(question.request))
    assert number == 600
    assert BURST <= accepted(bench) <= BURST + 4
    assert bench.verifier.calls - checked == accepted(bench)
    assert bench.closed == {}
    bench.pass_time(1.1)
    bench.hear(link, a_line(X, 1, number).answer(bench.said(link, Ask)[0].request))
    assert bench.head(X) == a_line(X, 1, number).head


@pytest.mark.parametrize("count", [BURST, BURST + 1])
def test_the_burst_is_taken_at_once_and_no_more(bench, count):
    """At the bound all is taken; one more waits for its turn, and a second later it has it."""
    link = bench.open(X)
    spend(bench, link, count)
    assert accepted(bench) == BURST
    bench.pass_time(1.0)
    assert [question.held for question in bench.said(link, Ask)] == [
        a_line(X, 1, BURST).head for _ in range(count - BURST)
    ]


def test_what_waits_is_asked_of_who_has_the_newest(bench):
    """Of all that announce meanwhile the holder of the highest head is asked, once, for the newest it has."""
    origin, older, newest = bench.open(X), bench.open(A), bench.open(B)
    spend(bench, origin)
    bench.hear(older, Announce((a_line(X, 1, 20).head,)))
    bench.hear(newest, Announce((a_line(X, 1, 30).head,)))
    bench.hear(older, Announce((a_line(X, 1, 29).head,)))
    assert bench.said(kind=Ask) == []
    assert bench.timers(fx.FetchDue) == [fx.FetchDue(X)]
    bench.pass_time(1.0)
    assert bench.said(older, Ask) == []
    bench.hear(newest, a_line(X, 1, 30).answer(asked(bench, newest).request))
    assert bench.head(X) == a_line(X, 1, 30).head
    assert bench.node._fetching._fetches == {}


def test_others_are_not_held_up(bench):
    """Searches that rest take no place of those that are asked for."""
    link = bench.open(A)
    origins = [f"x{number}.example.org" for number in range(limits.FETCHES_AT_ONCE)]
    for origin in origins:
        for _ in range(BURST):
            bench.node._fetching._quotas.take_digest(origin, bench.now_s)
    bench.hear(link, Announce(tuple(a_line(origin).head for origin in origins)))
    bench.said()
    bench.hear(link, Announce((a_line(B).head,)))
    bench.hear(link, a_line(B).answer(asked(bench, link).request))
    assert bench.head(B) == a_line(B).head


def test_bodies_beyond_their_quota_delay_the_next_digest(bench):
    """Half a megabyte at once is fine; what is beyond is paid for at 64 KiB a minute."""
    link = bench.open(X)
    full = {f"e{number}": bytes([number]) * limits.ENTRY_BYTES for number in range(8)}
    bench.hear(link, a_line(X, 1, 1, full).answer(0))
    six_seconds = b"x" * (limits.ORIGIN_BODY_BYTES_PER_MINUTE // 10)
    bench.hear(link, a_line(X, 1, 2, {"e": six_seconds}).answer(0))
    assert accepted(bench) == 2
    bench.said()
    bench.hear(link, a_line(X, 1, 3, {}).answer(0))
    bench.pass_time(5.9)
    assert bench.said(link, Ask) == []
    assert accepted(bench) == 2
    bench.pass_time(0.2)
    bench.hear(link, a_line(X, 1, 3, {}).answer(asked(bench, link).request))
    assert accepted(bench) == 3


def test_bodies_sent_by_hash_are_counted_too(bench):
    """It makes no difference how a body comes; one that is held already is free."""
    link = bench.open(X)
    body = b"b" * limits.ENTRY_BYTES
    bench.hear(link, a_line(X, 1, 1, {"e": body}).answer(0, bodies=()))
    bench.hear(link, Bodies(asked(bench, link, Want).request, (body,), is_last=True))
    bench.hear(link, a_line(X, 1, 2, {"e": body}).answer(0))
    bucket = bench.node._fetching._quotas._of(X)._body_bytes
    assert bucket._tokens == limits.ORIGIN_BODY_BYTES_AT_ONCE - limits.ENTRY_BYTES


def test_a_push_that_came_too_soon_is_forgotten_with_its_link(bench):
    """Nothing is left to wait for, and the timer that is set finds nothing."""
    link = bench.open(X)
    spend(bench, link, BURST + 1)
    assert bench.node._fetching._resting == {X}
    bench.do(bench.node.peer_lost(link, "gone", bench.at()))
    assert bench.node._fetching._fetches == {}
    bench.pass_time(2)
    assert bench.node._fetching._due == set()


def test_one_timer_an_origin_however_often_its_search_begins_anew(bench):
    """A link that comes and goes with its claims sets no timer of its own."""
    spend(bench, bench.open(X))
    for number in range(20):
        link = bench.open(A)
        bench.hear(link, Announce((a_line(X, 2, number + 1).head,)))
        bench.do(bench.node.peer_lost(link, "gone", bench.at()))
    assert bench.timers(fx.FetchDue) == [fx.FetchDue(X)]


def test_a_new_certificate_comes_in_its_turn(bench):
    """Whose rank is not known is verified at once, and still waits for its turn."""
    link = bench.open(X)
    spend(bench, link)
    renewed = a_line(X, 1, 1, generation=2)
    bench.hear(link, renewed.answer(0))
    assert accepted(bench) == BURST
    bench.pass_time(1)
    bench.hear(link, renewed.answer(asked(bench, link).request))
    assert bench.head(X) == renewed.head


def test_a_fork_is_seen_though_its_origin_is_over_its_quota(bench):
    """Evidence that a key is used twice needs no turn: it is checked at once, whichever of the two counts."""
    link = bench.open(X)
    spend(bench, link)
    for entry in (b"1", b"2", b"3"):
        bench.hear(link, a_line(X, 1, BURST, {"e": entry}).answer(0))
    assert bench.told(fx.ForkProven) == [fx.ForkProven(X, a_line(X).digest.certificate_sha256)]
    assert accepted(bench) == BURST


def test_a_relay_cannot_use_up_the_turns_of_an_origin(bench):
    """What an origin said long ago, replayed, is not counted against it."""
    link, relay = bench.open(X), bench.open(A)
    newest = a_line(X, 1, 1, generation=2)
    bench.hear(link, newest.answer(0))
    for number in range(3 * BURST):
        bench.hear(relay, Announce((attrs.evolve(newest.head, order=a_line(X, 9, generation=3).head.order),)))
        for question in bench.said(relay, Ask):
            bench.hear(relay, a_line(X, 7, number + 1).answer(question.request))
    assert bench.node._fetching._quotas.wait_s(X, bench.now_s) == 0.0
    assert bench.head(X) == newest.head


# ----------------------------------------------------------------- a quota only delays


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40)), max_size=12))
def test_with_any_quotas_all_end_with_one_root(seed, debts):
    """Whatever each node thinks of each origin's turns, they agree when time has passed."""
    network = a_network(5, seed)
    names = list(network.hosts)
    network.run(5)
    for place, digests in debts:
        holder, origin = names[(place + digests) % 5], names[place]
        for _ in range(digests):
            network.hosts[holder].node._fetching._quotas.take_digest(origin, network.now_s)
    for number in range(30):
        network.publish(names[number % 2], {"registration": b"%d" % number})
        network.run(0.01)
    behind = not network.converged()
    assert network.run(600, until=network.converged)  # the deepest debt drawn is 480 turns
    assert behind
    for host in network.running():
        assert host.node.registry.entry(names[1], "registration") == b"29"
        assert host.node._fetching._due == host.node._fetching._resting
