"""Event logs of others on a bench: how leaves are asked for, taken in and given on."""

import attrs
import pytest

from esgf_gossip.core import limits
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.log_fetching import ANSWER_MOST_S, SILENCE_S
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree
from esgf_gossip.core.messages import AskLeaves, AskProof, Leaves, Proof
from esgf_gossip.core.model import LogRef
from helpers.bench import Bench, a_line
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
    assert bench.told(lx.LeavesAccepted)[-1] == lx.LeavesAccepted(X, LOG, 1, 20, 30)
    assert bench.node.logs.held.get(X, LOG).tree.root == Tree().extended(events(0, 50)).root
    assert asked(bench, link) == []


def test_a_long_log_comes_block_by_block(bench, link):
    """Above a block each is verified by its right-hand hashes before the next is asked for."""
    library = Library(events(0, 3 * BLOCK_LEAVES + 5))
    bench.hear(link, library.line(1).answer(0))
    questions = serve(bench, {link: library})
    assert [one.start for one in questions] == [0, BLOCK_LEAVES, 2 * BLOCK_LEAVES, 3 * BLOCK_LEAVES]
    assert kept(bench) == library.leaves
    firsts = [one.first for one in bench.told(lx.LeavesAccepted)]
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
    monkeypatch.setattr(limits, "LOG_LEAVES_PER_HOUR", 40)
    again = Bench(disk=bench.disk)
    link = again.open(X, features=LOGS)
    library = Library(events(0, 400))
    again.hear(link, library.line(3, 190).answer(0))
    assert len(serve(again, {link: library})) == 1
    again.hear(link, library.line(4, 191).answer(0))
    assert asked(again, link) == []
    wait(again, 92, link)
    serve(again, {link: library})
    assert kept(again) == events(0, 191)


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
