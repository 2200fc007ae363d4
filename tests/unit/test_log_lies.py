"""Event logs on a bench among liars: false leaves, rewritten logs, logs that their origin has lost."""

import attrs
import pytest

from esgf_gossip.core import limits
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.forks import prove
from esgf_gossip.core.log_keeping import LOST_KEPT_S
from esgf_gossip.core.logs import check_rewrite
from esgf_gossip.core.merkle import Tree
from esgf_gossip.core.messages import Answer, AskProof, Forks, Goodbye, Leaves, Proof
from esgf_gossip.core.model import RewriteEvidence, SignedDigest
from esgf_gossip.sim.disk import Disk
from helpers.bench import OWN, Bench, a_line
from helpers.library import LOG, LOGS, Library, X, asked, events, hold, kept, serve, wait

A, B = "a.example.org", "b.example.org"


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


@pytest.fixture
def link(bench):
    """Return a link to the origin X."""
    return bench.open(X, features=LOGS)


# ----------------------------------------------------------------- lies of peers


def test_false_leaves_are_never_kept_and_the_next_peer_gives_the_true_ones(bench, link):
    """A block that does not lead to the signed root is nobody's: neither stored nor shown."""
    library, liar = Library(events(0, 50)), Library(events(0, 50, "false"))
    other = bench.open(A, features=LOGS)
    bench.hear(link, library.line(1).answer(0))
    serve(bench, {link: liar}, most=1)
    assert (kept(bench), bench.told(lx.LeavesAccepted)) == ([], [])
    bench.pass_time(1)
    serve(bench, {other: library, link: liar})
    assert kept(bench) == library.leaves


def test_false_leaves_after_true_ones_accuse_nobody(bench, link):
    """The proof that the liar cannot give, or the true one of the true log, leaves the origin in peace."""
    library = Library(events(0, 50))
    hold(bench, link, library, 20)
    other = bench.open(A, features=LOGS)
    bench.hear(link, library.line(2).answer(0))
    (question,) = asked(bench, link)
    bench.hear(link, Leaves(question.request, 20, tuple(events(20, 50, "false")), (), (), is_last=True))
    (question,) = asked(bench, link, AskProof)
    assert (question.first_size, question.second_size) == (20, 50)
    for hashes in ((), (bytes(32),) * 5, library.answers(question)[0].hashes):
        bench.hear(link, Proof(question.request, hashes))
    bench.pass_time(1)
    serve(bench, {other: library, link: Library([])})
    assert kept(bench) == library.leaves
    assert bench.told(lx.LogRewritten) == []


# ----------------------------------------------------------------- lies of origins


def the_evidence(bench):
    """Return the one piece of evidence that was told, checked."""
    (told,) = bench.told(lx.LogRewritten)
    assert (told.origin, told.log) == (X, LOG)
    assert check_rewrite(told.evidence)
    (line,) = bench.node.registry.forks
    assert line == prove(line.proof, bench.verifier)
    assert (line.origin, line.proof.log, line.proof.hashes) == (X, LOG, told.evidence.hashes)
    return told.evidence


@pytest.mark.parametrize("fetched", [True, False])
@pytest.mark.parametrize("later", [events(0, 19), events(0, 20, "other")])
def test_a_log_that_shrinks_or_changes_at_one_size_is_proven_at_once(bench, link, later, fetched):
    """Two digests of one birth are enough, whether a leaf was ever seen or not."""
    library = Library(events(0, 20))
    bench.hear(link, library.line(1).answer(0))
    if fetched:
        serve(bench, {link: library})
    bench.hear(link, Library(later).line(2).answer(0))
    assert the_evidence(bench).hashes == ()
    bench.hear(link, Library(events(0, 5)).line(3).answer(0))
    assert len(bench.told(lx.LogRewritten)) == 1
    asked(bench, link)
    wait(bench, 100, link)
    assert asked(bench, link) == []


def test_a_rewritten_past_is_proven_with_the_hashes(bench, link):
    """The log grew, but from another past: the proof of the new tree shows what it makes of the old size."""
    hold(bench, link, Library(events(0, 20)), 20)
    rewritten = Library([*events(0, 7), b"another", *events(8, 50)])
    bench.hear(link, rewritten.line(2).answer(0))
    serve(bench, {link: rewritten})
    evidence = the_evidence(bench)
    assert evidence.hashes != ()
    assert kept(bench) == events(0, 20)
    wait(bench, 100, link)
    assert asked(bench, link) == []
    # A new birth is another log: it is told as what it is, and followed in the end.
    reborn = Library(rewritten.leaves, born=2)
    bench.hear(link, reborn.line(1).answer(0))
    serve(bench, {link: reborn})
    assert kept(bench) == events(0, 20)
    wait(bench, LOST_KEPT_S + 1, link)
    serve(bench, {link: reborn})
    assert kept(bench) == rewritten.leaves
    assert bench.told(lx.LogRestarted) == [lx.LogRestarted(X, LOG)]
    assert len(bench.told(lx.LogRewritten)) == 1


def test_evidence_survives_a_restart(bench, link):
    """The digest under which leaves were verified is kept with them, so a later lie is proven by it."""
    hold(bench, link, Library(events(0, 20)), 20)
    again = Bench(disk=bench.disk)
    link = again.open(X, features=LOGS)
    rewritten = Library(events(0, 50, "other"))
    again.hear(link, rewritten.line(2).answer(0))
    serve(again, {link: rewritten})
    assert the_evidence(again).hashes != ()


def test_a_rewritten_log_is_proven_to_nodes_that_never_saw_a_leaf_of_it(bench, link):
    """The fork line carries the consistency proof: whoever holds neither digest is convinced by it."""
    hold(bench, link, Library(events(0, 20)), 20)
    rewritten = Library(events(0, 50, "other"))
    bench.hear(link, rewritten.line(2).answer(0))
    serve(bench, {link: rewritten})
    (proof,) = [line.proof for line in bench.node.registry.forks]
    stranger = Bench("n.example.org")
    link = stranger.open(A, features=(2,))
    stranger.hear(link, Forks((rewritten.line(2).digest.certificate_sha256,), b"", b""))
    stranger.hear(link, proof)
    assert [line.origin for line in stranger.node.registry.forks] == [X]
    assert stranger.node.logs.held.get(X, LOG) is None


def test_evidence_is_judged_by_what_the_digests_say():
    """No honest pair is evidence: another birth, growth, one digest twice, another order, other hashes, no digest."""
    library, other = Library(events(0, 20)), Library(events(0, 50, "other"))
    first, shorter = library.line(1), library.line(2, 10)
    proof = other.answers(AskProof(1, X, LOG, 1, 20, 50))[0].hashes
    evidence = RewriteEvidence(first.signed, shorter.signed, LOG, ())
    assert check_rewrite(evidence)
    assert check_rewrite(attrs.evolve(evidence, newer=other.line(2).signed, hashes=proof))
    honest = [
        {"older": shorter.signed, "newer": first.signed},
        {"newer": first.signed},
        {"newer": attrs.evolve(library, born=2).line(1, 10).signed},
        {"newer": other.line(2).signed},
        {"newer": other.line(2).signed, "hashes": proof[1:]},
        {"newer": other.line(2).signed, "hashes": (bytes(32), *proof[1:])},
        {"log": "documents"},
        {"newer": SignedDigest(b"\xc1", b"s")},
        {"newer": a_line(A, 1, 2, logs={LOG: library.ref(10)}).signed},
        {"older": library.line(1, 0).signed, "newer": library.line(2).signed},
    ]
    whole = Library(events(0, 50))
    true_proof = whole.answers(AskProof(1, X, LOG, 1, 20, 50))[0].hashes
    honest.append({"newer": whole.line(2).signed, "hashes": true_proof})
    assert [check_rewrite(attrs.evolve(evidence, **changes)) for changes in honest] == [False] * len(honest)


# ----------------------------------------------------------------- what an origin may say


@pytest.mark.parametrize("first_retained", [1, 4095, 8192])
def test_a_log_that_begins_within_a_block_or_beyond_its_end_is_not_followed(bench, link, first_retained):
    """Its origin's fault, and no reason to refuse the digest or the peer."""
    line = Library(events(0, 5000)).line(1, first_retained=first_retained)
    bench.hear(link, line.answer(0))
    wait(bench, 60, link)
    assert asked(bench, link) == []
    assert (bench.head(X), bench.closed) == (line.head, {})


def test_an_origin_that_changes_its_names_of_logs_costs_bounded_memory(bench, link):
    """Of names that are used no longer no more are kept than one digest may have, and these not for ever."""
    for number in range(40):
        library = Library(events(0, 2, f"log {number}"), born=number)
        line = a_line(X, number, 1, logs={f"log-{number}": library.ref()})
        bench.hear(link, line.answer(0))
        serve(bench, {link: library})
        wait(bench, 1, link)
    held = bench.node.logs.held.names(X)
    assert len(held) == limits.DIGEST_LOGS + 1
    assert "log-39" in held
    bench.pass_time(LOST_KEPT_S + 1)
    assert bench.node.logs.held.names(X) == ["log-39"]
    assert list(bench.disk.logs) == [(X, "log-39")]


def test_a_revoked_origin_takes_its_logs_along(bench, link):
    """What trust no longer carries is neither held nor served, also after a restart."""
    library = Library(events(0, 5))
    hold(bench, link, library, 5)
    disk = bench.disk.copy()
    bench.verifier.revoked.add(library.line(1).chain[0])
    bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
    assert (bench.node.logs.held.get(X, LOG), bench.disk.leaves) == (None, {})
    again = Bench(disk=Disk(disk.epoch, logs=disk.logs, leaves=disk.leaves))
    assert again.node.logs.held.get(X, LOG) is not None
    disk.logs[X, LOG] = attrs.evolve(disk.logs[X, LOG], tree=Tree().extended(events(0, 5, "tampered")))
    again = Bench(disk=disk)
    assert (again.node.logs.held.get(X, LOG), again.disk.leaves) == (None, {})


# ----------------------------------------------------------------- lost by their origin


def test_a_shorter_new_birth_is_shown_to_its_origin_and_followed_later(bench, link):
    """The holder sends the origin's own digest back, once a link; without an answer it lets go after a while."""
    library = Library(events(0, 20))
    hold(bench, link, library, 20)
    shorter = Library(events(0, 10), born=2)
    bench.said()
    bench.hear(link, shorter.line(1).answer(0))
    bench.hear(link, shorter.line(2).answer(0))
    (shown,) = bench.said(link, Answer)
    assert (shown.request, shown.origin, shown.signed) == (0, X, library.line(1).signed)
    assert kept(bench) == events(0, 20)
    other = bench.open(X, features=LOGS, instance=b"another instance")
    assert [one.signed for one in bench.said(other, Answer)] == [library.line(1).signed]
    wait(bench, LOST_KEPT_S + 1, other)
    serve(bench, {other: shorter})
    assert kept(bench) == events(0, 10)
    assert bench.told(lx.LogRewritten) == []


def test_a_new_birth_with_the_same_past_takes_it_over(bench, link):
    """Equal root: nothing is asked. Longer: the tail only."""
    library = Library(events(0, 30), born=1)
    hold(bench, link, library, 20)
    reborn = attrs.evolve(library, born=5)
    bench.said()
    bench.hear(link, reborn.line(1, 20).answer(0))
    assert asked(bench, link) == []
    assert bench.disk.logs[X, LOG].born == 5
    bench.hear(link, attrs.evolve(library, born=6).line(1).answer(0))
    (question,) = asked(bench, link)
    assert (question.born, question.start) == (6, 20)


def test_an_origin_that_leaves_keeps_its_events(bench, link):
    """A leaving digest without logs drops none; one that only forgot them loses them after a while."""
    hold(bench, link, Library(events(0, 20)), 20)
    bench.hear(link, a_line(X, 2, 1, {}, leaving=True).answer(0))
    bench.pass_time(LOST_KEPT_S + 1)
    assert kept(bench) == events(0, 20)
    link = bench.open(X, features=LOGS)
    bench.hear(link, a_line(X, 3, 1, {}).answer(0))
    bench.pass_time(LOST_KEPT_S - 1)
    assert kept(bench) == events(0, 20)
    bench.pass_time(2)
    assert kept(bench) == []


def test_a_link_may_end_at_any_time(bench, link):
    """A goodbye in the middle leaves no question behind."""
    bench.hear(link, Library(events(0, 5)).line(1).answer(0))
    bench.hear(link, Goodbye(1, 30, "bye"))
    bench.pass_time(120)
    assert bench.node.logs._keeping.fetching._asked_of.total() == 0
    assert OWN in bench.node.registry.table
