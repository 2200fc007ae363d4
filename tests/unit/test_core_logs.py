"""Event logs of others on a bench: what is fetched, verified, refused, proven."""

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits
from esgf_gossip.core.log_fetching import ANSWER_MOST_S, SILENCE_S
from esgf_gossip.core.log_keeping import LOST_KEPT_S
from esgf_gossip.core.logs import check_rewrite
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree
from esgf_gossip.core.messages import Answer, AskLeaves, AskProof, Goodbye, Leaves, Proof
from esgf_gossip.core.model import LogRef, SignedDigest
from helpers.bench import OWN, Bench, a_line
from helpers.library import LOG, LOGS, Library, X, events, kept, serve, wait
from helpers.network import Disk

A, B = "a.example.org", "b.example.org"


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


@pytest.fixture
def link(bench):
    """Return a link to the origin X."""
    return bench.open(X, features=LOGS)


def hold(bench, link, library, size, sequence=1):
    """Let the node take the line at this size and all leaves to it."""
    bench.hear(link, library.line(sequence, size).answer(0))
    serve(bench, {link: library})
    assert kept(bench) == library.leaves[:size]


def asked(bench, link, kind=AskLeaves):
    """Return the questions of a kind since last asked."""
    return bench.said(link, kind)


# ----------------------------------------------------------------- fetching


def test_a_new_digest_leads_to_one_question_for_the_tail(bench, link):
    """From the end of what is held to the signed size, no proof, no more."""
    library = Library(events(0, 50))
    hold(bench, link, library, 20)
    bench.hear(link, library.line(2).answer(0))
    (question,) = asked(bench, link)
    assert (question.born, question.start, question.size) == (1, 20, 50)
    (answer,) = library.answers(question)
    assert (answer.left, answer.right) == ((), ())
    bench.hear(link, answer)
    assert kept(bench) == events(0, 50)
    assert bench.told(fx.LeavesAccepted)[-1] == fx.LeavesAccepted(X, LOG, 1, 20, 30)
    assert bench.node.logs.held.get(X, LOG).tree.root == Tree().extended(events(0, 50)).root
    assert asked(bench, link) == []


def test_a_long_log_comes_block_by_block(bench, link):
    """Above a block each is verified by its right-hand hashes before the next is asked for."""
    library = Library(events(0, 3 * BLOCK_LEAVES + 5))
    bench.hear(link, library.line(1).answer(0))
    questions = serve(bench, {link: library})
    assert [one.start for one in questions] == [0, BLOCK_LEAVES, 2 * BLOCK_LEAVES, 3 * BLOCK_LEAVES]
    assert kept(bench) == library.leaves
    firsts = [one.first for one in bench.told(fx.LeavesAccepted)]
    assert firsts == [0, BLOCK_LEAVES, 2 * BLOCK_LEAVES, 3 * BLOCK_LEAVES]


@pytest.mark.parametrize("size", [BLOCK_LEAVES, BLOCK_LEAVES + 1])
def test_the_bound_of_a_tail_is_exact(bench, link, size):
    """A block is one question, one leaf more are two."""
    library = Library(events(0, size))
    bench.hear(link, library.line(1).answer(0))
    assert len(serve(bench, {link: library})) == (1 if size == BLOCK_LEAVES else 2)
    assert kept(bench) == library.leaves


def test_a_peer_without_the_feature_is_neither_asked_nor_answered(bench):
    """What needs both ends is used where both have it; else it is a breach."""
    old = bench.open(A)
    library = Library(events(0, 5))
    origin = bench.open(X)
    bench.hear(origin, library.line(1).answer(0))
    wait(bench, 60, origin, old)
    assert bench.said(kind=AskLeaves) == []
    bench.hear(old, AskLeaves(1, X, LOG, 1, 0, 5))
    assert "not agreed" in bench.closed[old]


def test_who_does_not_hold_the_leaves_is_passed_over_and_asked_again_later(bench, link):
    """A peer that has the digest may be fetching the leaves itself: the next is asked, then all again."""
    library, empty = Library(events(0, 5)), Library([])
    other = bench.open(A, features=LOGS)
    bench.hear(link, library.line(1).answer(0))
    (question,) = asked(bench, link)
    bench.hear(link, Leaves(question.request, 0, (), (), (), is_last=True))
    (question,) = asked(bench, other)
    bench.hear(other, Leaves(question.request, 0, (), (), (), is_last=True))
    assert bench.said(kind=AskLeaves) == []
    bench.pass_time(0.4)
    assert serve(bench, {link: library, other: empty}) != []
    assert kept(bench) == library.leaves


def test_a_silent_peer_is_passed_over(bench, link):
    """So is one that sends a leaf now and then."""
    library = Library(events(0, 500))
    bench.hear(link, library.line(1).answer(0))
    (question,) = asked(bench, link)
    other = bench.open(A, features=LOGS)
    sent, at_s = 0, bench.now_s
    while not asked(bench, other):
        bench.hear(link, Leaves(question.request, sent, (library.leaves[sent],), (), (), is_last=False))
        sent += 1
        wait(bench, SILENCE_S - 1, link, other)
        assert bench.now_s - at_s < ANSWER_MOST_S + 3 * SILENCE_S
    assert bench.now_s - at_s >= ANSWER_MOST_S


def test_a_lost_link_is_replaced_at_once(bench, link):
    """What it owed is asked of the next peer, from where the verified leaves end."""
    library = Library(events(0, 50))
    hold(bench, link, library, 20)
    other = bench.open(A, features=LOGS)
    bench.hear(link, library.line(2).answer(0))
    (question,) = asked(bench, link)
    bench.hear(link, Leaves(question.request, 20, tuple(events(20, 30)), (), (), is_last=False))
    bench.do(bench.node.peer_lost(link, "gone", bench.at()))
    (question,) = asked(bench, other)
    assert question.start == 20


def test_an_answer_that_ends_early_is_asked_on(bench, link):
    """Large leaves do not fit into one answer: the rest of the block is asked for, then all is verified."""
    library = Library(events(0, 30))
    bench.hear(link, library.line(1).answer(0))
    (question,) = asked(bench, link)
    bench.hear(link, Leaves(question.request, 0, tuple(events(0, 12)), (), (), is_last=True))
    (question,) = asked(bench, link)
    assert (question.start, kept(bench)) == (12, [])
    bench.hear(link, *library.answers(question))
    assert kept(bench) == library.leaves


@pytest.mark.parametrize(
    "answer",
    [
        Leaves(1, 1, (b"event 1",), (), (), is_last=True),
        Leaves(1, 0, tuple(events(0, 6)), (), (), is_last=True),
    ],
)
def test_leaves_that_were_not_asked_for_are_a_breach(bench, link, answer):
    """Not from elsewhere, not beyond the end."""
    bench.hear(link, Library(events(0, 5)).line(1).answer(0))
    (question,) = asked(bench, link)
    bench.hear(link, attrs.evolve(answer, request=question.request))
    assert "asked for" in bench.closed[link]
    assert kept(bench) == []


def test_late_and_strange_answers_are_left_out(bench, link):
    """An answer to no question costs its sender nothing and changes nothing."""
    bench.hear(link, Library(events(0, 5)).line(1).answer(0))
    bench.hear(link, Leaves(99, 0, tuple(events(0, 5)), (), (), is_last=True))
    bench.hear(link, Proof(99, (bytes(32),)))
    assert (kept(bench), bench.closed) == ([], {})


def test_fetches_are_bounded_in_all_and_for_each_peer(bench):
    """Many logs at once wait for their turn, and all have it."""
    libraries = {}
    for number in range(20):
        name = f"o{number}.example.org"
        library = Library(events(0, 5, name), origin=name)
        libraries[name] = library
        bench.hear(bench.open(name), library.line(1).answer(0))
    links = [bench.open(f"p{number}.example.org", features=LOGS) for number in range(6)]
    waiting = [(send.link, send.message) for send in bench.sent if isinstance(send.message, AskLeaves)]
    assert len(waiting) == limits.LOG_FETCHES_AT_ONCE
    assert max([one for one, _ in waiting].count(link) for link in links) == limits.LOG_FETCHES_PER_LINK
    for _ in range(30):
        for send in [one for one in bench.sent if isinstance(one.message, AskLeaves)]:
            bench.sent.remove(send)
            for answer in libraries[send.message.origin].answers(send.message):
                bench.hear(send.link, answer)
    assert all(kept(bench, name) == library.leaves for name, library in libraries.items())


def test_leaves_that_wait_for_their_block_are_bounded(bench):
    """The largest leaves of many origins at once never hold more memory than the bound."""
    big = bytes(limits.LEAF_BYTES)
    links = []
    for number in range(limits.LOG_FETCHES_AT_ONCE):
        name = f"o{number}.example.org"
        ref = LogRef(1, BLOCK_LEAVES, bytes(32), 0)
        links.append(bench.open(name, features=LOGS))
        bench.hear(links[-1], a_line(name, logs={LOG: ref}).answer(0))
    questions = {send.link: send.message for send in bench.sent if isinstance(send.message, AskLeaves)}
    fetching = bench.node.logs._keeping.fetching
    most = 0
    for start in range(0, BLOCK_LEAVES - 30, 30):
        for link, question in questions.items():
            bench.do(
                bench.node.handle_message(
                    link, Leaves(question.request, start, (big,) * 30, (), (), False), bench.at()
                )
            )
            most = max(most, fetching._buffered_bytes)
    assert limits.LEAVES_BUFFER_BYTES * 0.9 < most <= limits.LEAVES_BUFFER_BYTES
    for link in links:
        bench.do(bench.node.peer_lost(link, "gone", bench.at()))
    assert fetching._buffered_bytes == 0


def test_an_origin_with_very_many_leaves_is_delayed_and_not_refused(bench, link, monkeypatch):
    """After the free ones only so many an hour; also those that the disk gave back count."""
    monkeypatch.setattr(limits, "LOG_LEAVES_FREE", 100)
    library = Library(events(0, 150))
    hold(bench, link, library, 90)
    bench.hear(link, library.line(2).answer(0))
    assert asked(bench, link) == []
    bench.pass_time(40 * 3600 / limits.LOG_LEAVES_PER_HOUR - 1)
    assert asked(bench, link) == []
    bench.pass_time(3)
    serve(bench, {link: library})
    assert kept(bench) == library.leaves
    again = Bench(disk=bench.disk)
    fetching = again.node.logs._keeping.fetching
    assert fetching._allowance(X, again.at()) == 100  # the bound itself is smaller than an hour's leaves here
    monkeypatch.setattr(limits, "LOG_LEAVES_FREE", 30_000)
    again = Bench(disk=bench.disk)
    assert again.node.logs._keeping.fetching._allowance(X, again.at()) == 30_000 - 150


# ----------------------------------------------------------------- lies of peers


def test_false_leaves_are_never_kept_and_the_next_peer_gives_the_true_ones(bench, link):
    """A block that does not lead to the signed root is nobody's: neither stored nor shown."""
    library, liar = Library(events(0, 50)), Library(events(0, 50, "false"))
    other = bench.open(A, features=LOGS)
    bench.hear(link, library.line(1).answer(0))
    serve(bench, {link: liar}, most=1)
    assert (kept(bench), bench.told(fx.LeavesAccepted)) == ([], [])
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
    assert bench.told(fx.LogRewritten) == []


# ----------------------------------------------------------------- lies of origins


def the_evidence(bench):
    """Return the one piece of evidence that was told, checked."""
    (told,) = bench.told(fx.LogRewritten)
    assert (told.origin, told.log) == (X, LOG)
    assert check_rewrite(told.evidence)
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
    assert len(bench.told(fx.LogRewritten)) == 1
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
    assert bench.told(fx.LogRestarted) == [fx.LogRestarted(X, LOG)]
    assert len(bench.told(fx.LogRewritten)) == 1


def test_evidence_survives_a_restart(bench, link):
    """The digest under which leaves were verified is kept with them, so a later lie is proven by it."""
    hold(bench, link, Library(events(0, 20)), 20)
    again = Bench(disk=bench.disk)
    link = again.open(X, features=LOGS)
    rewritten = Library(events(0, 50, "other"))
    again.hear(link, rewritten.line(2).answer(0))
    serve(again, {link: rewritten})
    assert the_evidence(again).hashes != ()


def test_evidence_is_judged_by_what_the_digests_say():
    """No honest pair is evidence: another birth, growth, one digest twice, another order, other hashes, no digest."""
    library, other = Library(events(0, 20)), Library(events(0, 50, "other"))
    first, shorter = library.line(1), library.line(2, 10)
    proof = other.answers(AskProof(1, X, LOG, 1, 20, 50))[0].hashes
    evidence = fx.RewriteEvidence(first.signed, shorter.signed, LOG, ())
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
    again = Bench(disk=Disk(disk.epoch, {}, {}, disk.logs, disk.leaves))
    assert again.node.logs.held.get(X, LOG) is not None
    disk.logs[X, LOG] = attrs.evolve(disk.logs[X, LOG], tree=Tree().extended(events(0, 5, "tampered")))
    again = Bench(disk=disk)
    assert (again.node.logs.held.get(X, LOG), again.disk.leaves) == (None, {})


# ----------------------------------------------------------------- serving


def test_what_is_held_is_served_and_nothing_else(bench, link):
    """The right birth, from the first leaf held, to a size that is verified; else a few bytes that say so."""
    library = Library(events(0, 2 * BLOCK_LEAVES + 9))
    for sequence, size in enumerate((BLOCK_LEAVES + 1, None), start=1):
        bench.hear(link, library.line(sequence, size).answer(0))
        serve(bench, {link: library})
    size = len(library.leaves)
    peer = bench.open(A, features=LOGS)
    bench.said()

    def answer(question):
        bench.hear(peer, question)
        return bench.said(peer)

    (block,) = answer(AskLeaves(1, X, LOG, 1, 0, size))
    assert (block.start, block.left, block.is_last, len(block.right)) == (0, (), True, 2)
    assert [one.leaves[0] for one in answer(AskLeaves(2, X, LOG, 1, size - 1, size))] == [library.leaves[-1]]
    assert answer(AskLeaves(3, X, LOG, 1, BLOCK_LEAVES, BLOCK_LEAVES + 1))[0].leaves == (
        library.leaves[BLOCK_LEAVES],
    )
    assert answer(AskLeaves(4, X, LOG, 1, 0, BLOCK_LEAVES + 1))[-1].right != ()
    for question in (
        AskLeaves(5, X, LOG, 2, 0, size),
        AskLeaves(5, X, LOG, 1, size, size),
        AskLeaves(5, X, LOG, 1, 0, size + 1),
        AskLeaves(5, X, LOG, 1, size - 1, size + 1),
        AskLeaves(5, X, LOG, 1, 0, size - 1),
        AskLeaves(5, X, "documents", 1, 0, size),
        AskLeaves(5, B, LOG, 1, 0, size),
    ):
        assert answer(question) == [Leaves(5, question.start, (), (), (), is_last=True)]
    (proof,) = answer(AskProof(6, X, LOG, 1, 5000, size))
    assert proof == library.answers(AskProof(6, X, LOG, 1, 5000, size))[0]
    for question in (
        AskProof(7, X, LOG, 1, size, size),
        AskProof(7, X, LOG, 1, 0, size),
        AskProof(7, X, LOG, 2, 5, size),
        AskProof(7, X, LOG, 1, 5, size - 1),
    ):
        assert answer(question) == [Proof(7, ())]


def test_a_size_of_a_moment_ago_is_still_served(bench, link):
    """Who asks by the digest before the newest gets its leaves, for the last few sizes."""
    library = Library(events(0, 5000))
    for sequence, size in enumerate(range(4990, 5001), start=1):
        bench.hear(link, library.line(sequence, size).answer(0))
        serve(bench, {link: library})
    peer = bench.open(A, features=LOGS)
    bench.hear(peer, AskLeaves(1, X, LOG, 1, 0, 4995))
    assert bench.said(peer, Leaves)[-1].right != ()
    bench.hear(peer, AskLeaves(2, X, LOG, 1, 0, 4991))
    assert bench.said(peer, Leaves) == [Leaves(2, 0, (), (), (), is_last=True)]


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
    assert bench.told(fx.LogRewritten) == []


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
