"""Trust objects: what is taken and told on, what a liar cannot do, and trust before digests (core.trusting on a bench)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits, packing, trusting
from esgf_gossip.core.comparing import TRUST_FIRST_S
from esgf_gossip.core.messages import Feature, Fingerprints, GiveTrust, Heads, Roots, TrustHeads, WantTrust
from esgf_gossip.core.model import TrustObject
from esgf_gossip.core.trust_lines import TrustTable, contradiction
from esgf_gossip.sim.trust import PlainSigner, an_object
from helpers.bench import OWN, Bench, a_line

A, B, C = "a.example.org", "b.example.org", "c.example.org"
TRUST = (Feature.BUCKETS, Feature.TRUST)
KEY = "crl/00ff"


def held(number, words="", key=KEY, stamp_s=0):
    """Return a trust object as a good judge makes it."""
    return TrustObject(key, number, stamp_s, an_object(key, number, words, stamp_s))


def claim(*objects):
    """Return the claim to hold these."""
    return TrustHeads(tuple(one.head for one in objects), "", "")


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


def offer(bench, link, one):
    """Claim an object and give it when asked."""
    bench.hear(link, claim(one))
    assert bench.said(link, WantTrust) == [WantTrust(one.key)]
    bench.hear(link, GiveTrust(one.key, one.body))


def current(bench, key=KEY):
    """Return the number in force under a key."""
    found = bench.node.registry.trust.get(key)
    return None if found is None else found.number


def test_an_object_is_asked_for_judged_kept_and_told_on(bench):
    """A claim brings the object, it goes to the disk and to whoever has not claimed it, and the shell is told."""
    link, other, old = bench.open(A, features=TRUST), bench.open(B, features=TRUST), bench.open(C)
    bench.said()
    one = held(3)
    offer(bench, link, one)
    assert bench.disk.trust == {KEY: one}
    assert bench.told(fx.TrustAccepted) == [fx.TrustAccepted(one)]
    assert bench.said(other) == [claim(one)]
    assert bench.said(link) == bench.said(old) == []
    bench.hear(other, WantTrust(KEY))
    assert bench.said(other) == [GiveTrust(KEY, one.body)]


def test_files_of_this_node_go_out_and_what_is_refused_is_told_once(bench):
    """What the trust directory holds spreads from here; the same wrong file is one line, not one a second."""
    link = bench.open(A, features=TRUST)
    bench.said()
    for _ in range(3):
        bench.do(bench.node.offer_trust([(KEY, held(1).body), ("crl/bad", b"x" * 80)], bench.at()))
    assert bench.said(link) == [claim(held(1))]
    assert [notice.key for notice in bench.told(fx.TrustTurnedAway)] == ["crl/bad"]


def test_a_lower_number_changes_nothing(bench):
    """A replay of what was in force last week is refused and told, and is not asked for when only claimed."""
    link = bench.open(A, features=TRUST)
    offer(bench, link, held(5))
    bench.hear(link, claim(held(4)))
    assert bench.said(link, WantTrust) == []
    bench.hear(link, claim(held(6)))
    bench.hear(link, GiveTrust(KEY, held(4).body))
    assert current(bench) == 5
    assert "older" in bench.told(fx.TrustTurnedAway)[0].reason


def test_a_forged_object_is_refused_and_the_good_one_comes_from_another(bench):
    """A liar's body is judged once; who has the real one is asked next."""
    liar, honest = bench.open(A, features=TRUST), bench.open(B, features=TRUST)
    one = held(7)
    bench.hear(liar, claim(one))
    bench.hear(honest, claim(one))
    assert bench.said(liar, WantTrust) == [WantTrust(KEY)]
    bench.hear(liar, GiveTrust(KEY, b"z" * 80))
    assert current(bench) is None
    assert bench.said(honest, WantTrust) == [WantTrust(KEY)]
    bench.hear(honest, GiveTrust(KEY, one.body))
    assert current(bench) == 7
    bench.hear(liar, claim(held(8)))
    assert bench.said(liar, WantTrust) == [], "asked a liar about this key again"


def test_a_silent_claimant_holds_up_nobody(bench):
    """Without an answer the next claimant is asked."""
    silent, honest = bench.open(A, features=TRUST), bench.open(B, features=TRUST)
    bench.hear(silent, claim(held(2)))
    bench.hear(honest, claim(held(2)))
    assert bench.said(honest, WantTrust) == []
    bench.pass_time(trusting.TRUST_WAIT_S)
    assert bench.said(honest, WantTrust) == [WantTrust(KEY)]


def test_a_lost_link_hands_its_question_on(bench):
    """What was asked of a peer that went is asked of the next at once."""
    gone, honest = bench.open(A, features=TRUST), bench.open(B, features=TRUST)
    bench.hear(gone, claim(held(2)))
    bench.hear(honest, claim(held(2)))
    bench.do(bench.node.peer_lost(gone, "gone", bench.at()))
    assert bench.said(honest, WantTrust) == [WantTrust(KEY)]


def test_what_was_not_asked_for_is_not_even_judged(bench):
    """A body pushed unasked costs nothing."""
    link = bench.open(A, features=TRUST)
    checks = bench.judge.checks
    bench.hear(link, GiveTrust(KEY, held(1).body))
    assert (current(bench), bench.judge.checks) == (None, checks)


def test_claims_and_questions_are_bounded(bench):
    """However much a peer claims, memory and questions under way stay within their limits."""
    link = bench.open(A, features=TRUST)
    for start in range(0, limits.TRUST_CLAIMS_PER_LINK + 512, 128):
        bench.hear(link, claim(*(held(1, key=f"crl/{n:08x}") for n in range(start, start + 128))))
    session = bench.node.links.sessions.get(link)
    assert len(session.trust.claimed) <= limits.TRUST_CLAIMS_PER_LINK
    assert len(bench.said(link, WantTrust)) == limits.TRUST_PER_LINK


def test_who_gives_only_what_is_refused_is_not_asked_any_more(bench):
    """After so many refusals a peer's claims are worth nothing, until trust changes."""
    link = bench.open(A, features=TRUST)
    for n in range(limits.TRUST_REFUSALS_PER_LINK):
        bench.hear(link, claim(held(1, key=f"crl/{n:08x}")))
        bench.hear(link, GiveTrust(f"crl/{n:08x}", b"junk %d" % n + b"." * 80))
    bench.said()
    bench.hear(link, claim(held(1)))
    assert bench.said(link, WantTrust) == []
    bench.do(bench.node.trust_changed(PlainSigner(OWN), bench.at()))
    assert WantTrust(KEY) in bench.said(link, WantTrust)


def test_the_table_takes_no_more_than_its_bound(bench, monkeypatch):
    """An issuer that floods fills the table and no more; what is held still moves on."""
    monkeypatch.setattr(trusting, "TRUST_OBJECTS", 3)
    bench.do(
        bench.node.offer_trust([(f"crl/{n}", held(1, key=f"crl/{n}").body) for n in range(5)], bench.at())
    )
    bench.do(bench.node.offer_trust([("crl/0", held(2, key="crl/0").body)], bench.at()))
    assert len(bench.node.registry.trust) == 3
    assert current(bench, "crl/0") == 2


def test_two_objects_of_one_number_are_proof(bench):
    """Both are kept beside each other and told on, the smaller hash counts, and it is told once."""
    link, other = bench.open(A, features=TRUST), bench.open(B, features=TRUST)
    one, two = held(3, "one"), held(3, "two")
    offer(bench, link, one)
    bench.said()
    bench.do(bench.node.offer_trust([(KEY, two.body)], bench.at()))
    bench.do(bench.node.offer_trust([(KEY, two.body), (KEY, one.body)], bench.at()))
    proof = bench.disk.trust[f"conflict/{KEY}/3"]
    assert packing.unpack(proof.body) == sorted([one.body, two.body])
    assert bench.told(fx.TrustConflict) == [fx.TrustConflict(KEY, 3)]
    assert bench.node.registry.trust.head(KEY).sha256 == min(one.head.sha256, two.head.sha256)
    assert proof.key in [head.key for said in bench.said(other, TrustHeads) for head in said.heads]


def test_one_statement_in_two_forms_is_no_contradiction(bench):
    """Whoever can turn a signature into its twin makes no proof by it; all nodes hold the smaller one."""
    one, two = held(3, "a~r"), held(3, "a~s")
    bench.do(bench.node.offer_trust([(KEY, one.body), (KEY, two.body)], bench.at()))
    assert list(bench.disk.trust) == [KEY]
    assert bench.told(fx.TrustConflict) == []
    assert bench.node.registry.trust.head(KEY).sha256 == min(one.head.sha256, two.head.sha256)


def test_what_is_held_outlives_a_restart_and_ends_with_its_issuer():
    """A restart has what was in force; an issuer that is trusted no more takes its objects along."""
    bench = Bench()
    bench.do(
        bench.node.offer_trust(
            [(KEY, held(4).body), ("roots/000001", held(1, key="roots/000001").body)], bench.at()
        )
    )
    again = Bench(disk=bench.disk, seed=2)
    assert again.node.registry.trust.root == bench.node.registry.trust.root
    again.judge.retired.add("crl/")
    again.do(again.node.trust_changed(PlainSigner(OWN), again.at()))
    assert list(again.disk.trust) == ["roots/000001"]


def test_a_clock_set_back_lowers_nothing():
    """What is dated ahead of a wrong clock is kept over a restart, and not taken anew."""
    bench = Bench()
    late = held(9, stamp_s=bench.at().wall_ms // 1000)
    bench.do(bench.node.offer_trust([(KEY, late.body)], bench.at()))
    again = Bench(disk=bench.disk, seed=2, wall_ahead_ms=-7 * 86_400_000)
    assert current(again) == 9
    fresh = Bench(seed=3, wall_ahead_ms=-7 * 86_400_000)
    fresh.do(fresh.node.offer_trust([(KEY, late.body)], fresh.at()))
    assert current(fresh) is None
    fresh.wall_ahead_ms = 0
    fresh.do(fresh.node.offer_trust([(KEY, late.body)], fresh.at()))
    assert current(fresh) == 9, "refused for good what only the clock refused"


def other_roots(bench):
    """Return roots that differ from the bench's in every kind."""
    return {1: b"1" * 32, 2: b"2" * 32, 3: bench.node.registry.forks.root}


def test_trust_goes_before_digests_once_for_a_difference(bench):
    """Where both differ, heads of trust are told first, digests follow half a second later, lasting difference or not."""
    link = bench.open(A, dialled=(A, 1), features=TRUST, roots=other_roots(bench))
    said = bench.said(link)
    assert TrustHeads((), "", trusting.LAST) in said
    assert not any(isinstance(one, Heads | Fingerprints) for one in said)
    bench.pass_time(TRUST_FIRST_S)
    assert any(isinstance(one, Roots) for one in bench.said(link))
    bench.pass_time(1.0)
    bench.hear(link, Roots(other_roots(bench), is_reply=False))
    assert any(isinstance(one, Heads) for one in bench.said(link)), "a lasting difference holds up digests"


def test_new_trust_asks_everybody_for_roots_where_something_was_refused(bench):
    """What was refused under old trust is compared for at once; without that nobody is asked, or all would ask all."""
    links = [bench.open(peer, features=TRUST) for peer in (A, B)]
    bench.said()
    bench.do(bench.node.trust_changed(PlainSigner(OWN), bench.at()))
    assert not any(isinstance(one, Roots) for one in bench.said())
    bench.verifier.revoked.add(PlainSigner(C).chain[0])
    bench.hear(bench.open(C, features=TRUST), a_line(C).answer(0))
    assert bench.head(C) is None
    bench.said()
    bench.verifier.revoked.clear()
    bench.do(bench.node.trust_changed(PlainSigner(OWN), bench.at()))
    assert all(any(isinstance(one, Roots) for one in bench.said(link)) for link in links)


def test_a_page_is_answered_with_what_it_lacks(bench):
    """Told all of a stretch after our own difference, we claim what is not in it, once."""
    bench.do(
        bench.node.offer_trust([(f"crl/{n}", held(1, key=f"crl/{n}").body) for n in range(3)], bench.at())
    )
    link = bench.open(A, features=TRUST, roots=other_roots(bench))
    bench.said()
    page = TrustHeads((held(1, key="crl/1").head,), "", trusting.LAST)
    bench.hear(link, page)
    bench.hear(link, page)
    assert bench.said(link, TrustHeads) == [claim(held(1, key="crl/0"), held(1, key="crl/2"))]


def test_peers_without_the_feature_hear_and_say_nothing_of_it(bench):
    """An old peer's link stays as it was."""
    link = bench.open(A)
    bench.do(bench.node.offer_trust([(KEY, held(1).body)], bench.at()))
    bench.hear(link, claim(held(2)))
    assert bench.said(link, TrustHeads) == bench.said(link, WantTrust) == []


OBJECTS = st.lists(
    st.builds(
        held,
        st.integers(0, 4),
        st.sampled_from(["", "x"]),
        st.sampled_from([KEY, "crl/01", "roots/000001"]),
        st.integers(0, 2),
    ),
    max_size=12,
)


@settings(max_examples=200)
@given(OBJECTS, st.randoms(use_true_random=False))
def test_any_order_and_repetition_give_one_table(objects, random):
    """Merging is a maximum under each key: replicas given the same objects hold the same root."""
    one, other = TrustTable(), TrustTable()
    for each in objects:
        one.merge(each)
    again = objects * 2
    random.shuffle(again)
    for each in again:
        before = other.head(each.key)
        other.merge(each)
        assert before is None or not before.is_above(other.head(each.key)), "fell"
    assert one.root == other.root


def test_a_contradiction_has_one_form_and_an_end():
    """Either order gives the same proof; proofs prove nothing about proofs, and one too large is left out."""
    proof = contradiction(KEY, 3, b"b", b"a")
    assert proof == contradiction(KEY, 3, b"a", b"b")
    assert contradiction(proof.key, 0, b"a", b"b") is None
    assert contradiction(KEY, 3, b"a" * limits.TRUST_BODY_BYTES, b"b") is None
