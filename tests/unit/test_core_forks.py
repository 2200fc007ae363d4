"""Fork lines: what is a proof, how proofs come in and go out, what a liar cannot do with them (core.forking on a bench)."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import effects as fx
from esgf_gossip.core import forking, limits
from esgf_gossip.core.forks import prove
from esgf_gossip.core.messages import Fork, Forks, Roots, WantFork
from esgf_gossip.core.registry import sha256
from esgf_gossip.sim.trust import PlainVerifier
from esgf_gossip.views.federation import OwnState
from esgf_gossip.views.judgement import Judge
from helpers.bench import Bench, a_fork, a_line
from helpers.comparison import Ends

A, B, C, X = "a.example.org", "b.example.org", "c.example.org", "x.example.org"
BOTH = (1, 2)


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


def certificate(fork):
    """Return the name of a fork line."""
    return sha256(fork.chain[0])


def claim(*certificates):
    """Return the claim to hold proofs about these."""
    return Forks(certificates, b"", b"")


def offer(bench, link, fork):
    """Claim a proof and give it when asked."""
    bench.hear(link, claim(certificate(fork)))
    assert bench.said(link, WantFork) == [WantFork(certificate(fork))]
    bench.hear(link, fork)


def is_marked(bench, origin):
    """Tell whether the view shows a node as forked."""
    own = OwnState("h", "f", "0", 1, 1, 0, 0, 0, 0)
    return (
        Judge(bench.node.registry, bench.node.standing).view(own, bench.at().wall_ms, 0).node(origin).forked
    )


# ----------------------------------------------------------------- coming and going


def test_a_proof_is_asked_for_checked_kept_and_told_on(bench):
    """A claim brings the proof, the proof goes to the disk and its name to everybody who has not claimed it."""
    link, other, old = bench.open(A, features=BOTH), bench.open(B, features=BOTH), bench.open(C)
    bench.said()
    fork = a_fork(X)
    offer(bench, link, fork)
    assert bench.disk.forks == {certificate(fork): fork}
    assert bench.told(fx.ForkProven) == [fx.ForkProven(X, certificate(fork))]
    assert bench.said(other) == [claim(certificate(fork))]
    assert bench.said(link) == bench.said(old) == []
    bench.hear(other, WantFork(certificate(fork)))
    assert bench.said(other) == [fork]


def test_the_mark_outlives_a_restart_and_ends_with_the_certificate(bench):
    """Proven once, a node is shown as forked until it has a new certificate; the proof stays."""
    link = bench.open(A, features=BOTH)
    bench.hear(bench.open(X), a_line(X).answer(0))
    assert not is_marked(bench, X)
    offer(bench, link, a_fork(X))
    assert is_marked(bench, X)
    again = Bench(disk=bench.disk, seed=2)
    assert is_marked(again, X)
    assert again.node.registry.forks.root == bench.node.registry.forks.root
    again.hear(again.open(X), a_line(X, generation=2).answer(0))
    assert not is_marked(again, X)
    assert len(again.node.registry.forks) == 1


def test_two_digests_of_one_number_that_meet_here_are_the_proof(bench):
    """Who meets both needs nobody's proof; which pair it was does not matter to the root."""
    link, other = bench.open(X, features=BOTH), bench.open(B, features=BOTH)
    bench.said()
    for word in (b"3", b"4"):
        bench.hear(link, a_line(X, entries={"registration": word}).answer(0))
    (fork,) = bench.disk.forks.values()
    assert prove(fork, PlainVerifier()).origin == X
    assert bench.said(other, Forks) == [claim(certificate(fork))]
    elsewhere = Bench()
    offer(elsewhere, elsewhere.open(A, features=BOTH), a_fork(X))
    assert elsewhere.disk.forks[certificate(fork)] != fork
    assert elsewhere.node.registry.forks.root == bench.node.registry.forks.root


def test_a_revoked_certificate_takes_its_proof_along(bench):
    """A fork line ends like any line: where trust no longer carries the certificate; also on a disk."""
    fork = a_fork(X)
    offer(bench, bench.open(A, features=BOTH), fork)
    backup = bench.disk.copy()
    bench.verifier.revoked.add(fork.chain[0])
    bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
    assert bench.disk.forks == {}
    assert len(bench.node.registry.forks) == 0
    late = Bench(disk=backup)
    assert late.disk.forks == backup.forks == {certificate(fork): fork}
    late.verifier.revoked.add(fork.chain[0])
    late.do(late.node.trust_changed(late.node.origin.publication.signer, late.at()))
    assert late.disk.forks == {}


def test_a_proof_on_the_disk_that_is_none_is_removed(bench):
    """What a disk gives back is verified like a stranger's word."""
    fork = a_fork(X)
    bench.disk.forks[certificate(fork)] = attrs.evolve(fork, newer=fork.older)
    again = Bench(disk=bench.disk)
    assert again.disk.forks == {}
    assert len(again.node.registry.forks) == 0


def test_peers_without_the_feature_hear_nothing_and_are_not_heard(bench):
    """Old versions are left alone."""
    old = bench.open(A)
    bench.said()
    bench.hear(old, claim(certificate(a_fork(X))))
    bench.hear(old, a_fork(X))
    assert bench.said(old) == []
    assert bench.disk.forks == {}
    assert bench.closed == {}


def test_a_proof_is_given_once_a_second(bench):
    """A peer that asks without end gets no more than one that asks once."""
    fork = a_fork(X)
    link = bench.open(A, features=BOTH)
    offer(bench, link, fork)
    for _ in range(100):
        bench.hear(link, WantFork(certificate(fork)))
    assert bench.said(link, Fork) == [fork]
    bench.pass_time(1)
    bench.hear(link, WantFork(certificate(fork)))
    bench.hear(link, WantFork(bytes(32)))
    assert bench.said(link, Fork) == [fork]


# ----------------------------------------------------------------- no proofs

GOOD = a_fork(X)
OTHER = a_line(X, 7, 7)
NO_PROOFS = {
    "the same bytes twice": attrs.evolve(GOOD, newer=GOOD.older),
    "the same bytes signed twice": attrs.evolve(GOOD, newer=attrs.evolve(GOOD.older, signature=b"other")),
    "two numbers": attrs.evolve(GOOD, newer=OTHER.signed),
    "two certificates": attrs.evolve(GOOD, newer=a_fork(X, 2).newer),
    "two origins": attrs.evolve(GOOD, newer=a_fork(B).newer),
    "a forged signature": attrs.evolve(GOOD, newer=attrs.evolve(GOOD.newer, signature=b"forged")),
    "a forged older one": attrs.evolve(GOOD, older=attrs.evolve(GOOD.older, signature=b"forged")),
    "another chain": attrs.evolve(a_fork(B), chain=GOOD.chain),
    "a log nobody can judge yet": attrs.evolve(GOOD, newer=OTHER.signed, log="datasets"),
}


@pytest.mark.parametrize("name", NO_PROOFS)
def test_what_proves_nothing_is_refused_and_remembered(bench, name):
    """Two signatures at most are checked, once: the same evidence from the next peer costs none."""
    fork = NO_PROOFS[name]
    link, other = bench.open(A, features=BOTH), bench.open(B, features=BOTH)
    bench.said()
    before = bench.verifier.calls
    offer(bench, link, fork)
    calls = bench.verifier.calls
    assert calls <= before + 2
    offer(bench, other, fork)
    assert bench.verifier.calls == calls
    assert bench.disk.forks == {}
    assert bench.closed == {}
    bench.hear(link, claim(certificate(fork)))
    assert bench.said(link, WantFork) == []


def test_what_is_no_digest_is_a_breach(bench):
    """An honest peer gives on only what it verified itself."""
    link = bench.open(A, features=BOTH)
    offer(bench, link, attrs.evolve(GOOD, older=attrs.evolve(GOOD.older, payload=b"\xc1")))
    assert "protocol error" in bench.closed[link]


def test_a_refused_proof_is_judged_again_when_trust_changed(bench):
    """A revocation that is not known any more, or a root that is, changes the verdict."""
    link = bench.open(A, features=BOTH)
    bench.verifier.revoked.add(GOOD.chain[0])
    offer(bench, link, GOOD)
    assert bench.disk.forks == {}
    bench.verifier.revoked.clear()
    bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
    assert bench.said(link, WantFork) == [WantFork(certificate(GOOD))]
    bench.hear(link, GOOD)
    assert bench.disk.forks == {certificate(GOOD): GOOD}


# ----------------------------------------------------------------- liars


def test_a_proof_nobody_asked_for_costs_nothing(bench):
    """No signature is checked for a peer's own pleasure."""
    link = bench.open(A, features=BOTH)
    before = bench.verifier.calls
    for _ in range(50):
        bench.hear(link, GOOD)
    assert bench.verifier.calls == before
    assert bench.disk.forks == {}


def test_a_silent_claimant_holds_up_a_proof_for_a_second(bench):
    """The next claimant is asked; a claim that is not backed is dropped, a late proof counts."""
    liar, honest = bench.open(A, features=BOTH), bench.open(B, features=BOTH)
    bench.said()
    for link in (liar, honest):
        bench.hear(link, claim(certificate(GOOD)))
    assert bench.said(honest, WantFork) == []
    bench.pass_time(forking.FORK_WAIT_S)
    assert bench.said(honest, WantFork) == [WantFork(certificate(GOOD))]
    bench.hear(liar, GOOD)
    assert bench.disk.forks == {certificate(GOOD): GOOD}


def test_a_flood_of_claims_is_asked_about_in_small_portions(bench):
    """A liar with thousands of certificates has its own few questions; others are asked at once."""
    liar, honest = bench.open(A, features=BOTH), bench.open(B, features=BOTH)
    bench.said()
    for page in range(5):
        bench.hear(
            liar, claim(*(sha256(bytes([page, number % 256, number // 256])) for number in range(900)))
        )
    assert len(bench.said(liar, WantFork)) == limits.FORKS_PER_LINK
    assert len(bench.node.links.sessions.get(liar).forks.claimed) == limits.FORK_CLAIMS_PER_LINK
    offer(bench, honest, GOOD)
    assert bench.disk.forks == {certificate(GOOD): GOOD}
    asked = 0
    for _ in range(400):
        bench.pass_time(1)
        asked += len(bench.said(liar, WantFork))
    assert asked <= limits.FORK_CLAIMS_PER_LINK, "it is asked for ever"
    assert not bench.node._forking._asked


def test_a_peer_whose_proofs_prove_nothing_is_ignored(bench):
    """Sixteen times two signatures, then its claims count no more; the next peer's do."""
    liar, honest = bench.open(A, features=BOTH), bench.open(B, features=BOTH)
    bench.said()
    for number in range(limits.FORK_REFUSALS_PER_LINK):
        offer(bench, liar, attrs.evolve(a_fork(X, 2 + number), newer=OTHER.signed))
    bench.hear(liar, claim(certificate(GOOD)))
    assert bench.said(liar, WantFork) == []
    offer(bench, honest, GOOD)
    assert bench.closed == {}


# ----------------------------------------------------------------- reconciliation

FORKS = [a_fork(f"n{number}.example.org") for number in range(12)]
some = st.sets(st.integers(0, 11))


@settings(deadline=None, max_examples=60)
@given(some, some, st.integers(1, 5))
def test_any_two_sets_of_proofs_end_as_their_union(first, second, page):
    """Whatever either end holds and however it is cut into pages, both hold all after one comparison."""
    ends = Ends([], [])
    for end, numbers in ((ends.one, first), (ends.other, second)):
        for number in numbers:
            end.registry.forks.add(prove(FORKS[number], PlainVerifier()))
    whole, forking.MESSAGE_FORKS = forking.MESSAGE_FORKS, page
    try:
        ends.compare()
    finally:
        forking.MESSAGE_FORKS = whole
    assert set(ends.one.registry.forks.certificates()) == {
        certificate(FORKS[number]) for number in first | second
    }
    assert ends.are_equal
    given_once = [message for message in ends.heard if isinstance(message, Fork)]
    assert len(given_once) == len(first ^ second)


def test_a_page_nobody_asked_for_is_a_claim_only(bench):
    """What we hold is told in answer to our own question, not at a peer's will."""
    link = bench.open(A, features=BOTH)
    offer(bench, link, GOOD)
    for _ in range(20):
        bench.hear(link, Forks((), b"", forking.LAST))
    assert bench.said(link, Forks) == []
    session = bench.node.links.sessions.get(link)
    session.roots_asked = True
    bench.hear(link, Roots({3: bytes(32)}, is_reply=True))
    for _ in range(20):
        bench.hear(link, Forks((), b"", forking.LAST))
    assert bench.said(link, Forks) == [claim(certificate(GOOD))]
