"""The logs of the node itself on a bench: appending, retention, births, and what it takes back from whom."""

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.log_serving import pages
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree
from esgf_gossip.core.messages import Answer, AskLeaves, Leaves
from esgf_gossip.core.model import Link, SignedDigest
from esgf_gossip.core.own_logs import RECOVERY_S
from esgf_gossip.core.publication import PublicationError
from esgf_gossip.sim.disk import Disk
from esgf_gossip.sim.trust import PlainSigner
from helpers.bench import OWN, Bench
from helpers.library import LOG, LOGS, Library, X, events, kept, serve, wait

A, B = "a.example.org", "b.example.org"


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


def append(bench, leaves, log=LOG):
    """Append events as the driver would."""
    return bench.do(bench.node.append(log, leaves, bench.at()))


def own_ref(bench, log=LOG):
    """Return what the node's newest digest says of a log."""
    return bench.node.registry.table.line(OWN).digest.logs.get(log)


def show(bench, library, peer=A, signed=None, **changes):
    """Let a peer show the node a digest of its own; return the link and the questions that follow."""
    link = bench.open(peer, features=LOGS)
    line = library.line(7, **changes)
    bench.hear(link, Answer(0, OWN, signed or line.signed, line.chain, (), is_last=True))
    return link, bench.said(link, AskLeaves)


def former(leaves, born=5):
    """Return what a peer holds of a log of a former run."""
    return Library(leaves, born, OWN)


# ----------------------------------------------------------------- appending


def test_appended_leaves_are_durable_before_the_digest_that_names_them(bench):
    """One digest for all of them, with the new size and root, persisted after the leaves."""
    sequence = bench.head(OWN).order.sequence
    outputs = append(bench, events(0, 3))
    kinds = [type(output) for output in outputs]
    assert kinds.index(lx.PersistLeaves) < kinds.index(fx.PersistLine)
    assert kept(bench, OWN) == events(0, 3)
    ref = own_ref(bench)
    assert (ref.size, ref.root, ref.first_retained) == (3, Tree().extended(events(0, 3)).root, 0)
    assert ref.born == bench.head(OWN).order.epoch
    assert bench.head(OWN).order.sequence == sequence + 1
    assert bench.told(lx.LeavesAccepted) == [lx.LeavesAccepted(OWN, LOG, ref.born, 0, 3)]


def test_nothing_appended_is_nothing_published(bench):
    """An empty batch makes no digest and no log."""
    assert append(bench, []) == []
    assert own_ref(bench) is None


@pytest.mark.parametrize(
    ("log", "leaf"),
    [("Bad Name", b"x"), (LOG, b""), (LOG, bytes(limits.LEAF_BYTES + 1)), ("a" * 65, b"x")],
)
def test_what_no_peer_would_take_is_refused_as_a_whole(bench, log, leaf):
    """The batch is judged before any of it is added."""
    with pytest.raises(PublicationError):
        bench.node.append(log, [b"good", leaf], bench.at())
    assert (own_ref(bench), bench.disk.leaves) == (None, {})
    append(bench, [bytes(limits.LEAF_BYTES)])
    assert own_ref(bench).size == 1


def test_one_log_more_than_a_digest_may_name_is_refused(bench):
    """Eight logs are published, the ninth is not begun."""
    for number in range(limits.DIGEST_LOGS):
        append(bench, [b"x"], f"log-{number}")
    with pytest.raises(PublicationError, match="one more"):
        bench.node.append("log-8", [b"x"], bench.at())
    append(bench, [b"y"], "log-7")
    assert len(bench.node.registry.table.line(OWN).digest.logs) == limits.DIGEST_LOGS


def test_a_node_that_publishes_no_more_appends_no_more(bench):
    """An event that nobody can hear of must not look as if it were told."""
    bench.verifier.revoked.add(PlainSigner(OWN).chain[0])
    bench.do(bench.node.publish({}, bench.at()))
    with pytest.raises(PublicationError, match="publishes no more"):
        bench.node.append(LOG, [b"x"], bench.at())
    assert bench.disk.leaves == {}


def test_retention_is_rounded_down_to_a_block_and_told(bench):
    """Whole blocks go, the root stays; what is not there to begin with is refused."""
    append(bench, events(0, 3 * BLOCK_LEAVES))
    root = own_ref(bench).root
    bench.do(bench.node.retain(LOG, 2 * BLOCK_LEAVES - 1, bench.at()))
    assert (own_ref(bench).first_retained, own_ref(bench).root) == (BLOCK_LEAVES, root)
    assert kept(bench, OWN) == events(BLOCK_LEAVES, 3 * BLOCK_LEAVES)
    sequence = bench.head(OWN).order.sequence
    assert bench.do(bench.node.retain(LOG, BLOCK_LEAVES, bench.at())) == []
    assert sequence == bench.head(OWN).order.sequence
    for log, first in ((LOG, 3 * BLOCK_LEAVES + 1), (LOG, -1), ("documents", 0)):
        with pytest.raises(PublicationError):
            bench.node.retain(log, first, bench.at())
    again = Bench(disk=bench.disk)
    assert own_ref(again) == attrs.evolve(own_ref(bench), born=again.head(OWN).order.epoch)


def test_every_start_is_a_new_birth_of_the_same_log(bench):
    """A restart goes on from the disk; a run never speaks for another."""
    append(bench, events(0, 5))
    again = Bench(disk=bench.disk)
    assert own_ref(again).born == again.head(OWN).order.epoch != own_ref(bench).born
    assert (own_ref(again).size, own_ref(again).root) == (own_ref(bench).size, own_ref(bench).root)
    append(again, events(5, 6))
    assert kept(again, OWN) == events(0, 6)


def test_leaves_whose_digest_was_never_sent_are_published_by_the_next_run(bench):
    """A crash between leaves and digest leaves the log ahead of the line."""
    (effect,) = [one for one in append(bench, events(0, 5)) if isinstance(one, lx.PersistLeaves)]
    crashed = Bench(seed=3)
    disk = crashed.disk.copy()
    disk.apply(effect)
    assert own_ref(Bench(disk=disk)).size == 5


def test_our_own_log_is_served_under_the_birth_of_its_digest(bench):
    """Also what was written by a run before."""
    append(bench, events(0, 5))
    again = Bench(disk=bench.disk)
    link = again.open(A, features=LOGS)
    again.said()
    again.hear(link, AskLeaves(1, OWN, LOG, own_ref(again).born, 0, 5))
    assert again.said(link) == [Leaves(1, 0, tuple(events(0, 5)), (), (), is_last=True)]


def test_an_answer_is_cut_into_frames():
    """Leaves of any size go in messages that fit, left-hand hashes first, right-hand hashes last."""
    leaves = [bytes([number % 251 + 1]) * (number * 37 % limits.LEAF_BYTES + 1) for number in range(300)]
    order = lx.SendLeaves(Link(1), 4, X, LOG, 4096, 4396, (bytes(32),), (bytes(32),) * 2)
    parts = list(pages(order, leaves))
    assert [leaf for part in parts for leaf in part.leaves] == leaves
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [bool(part.left) for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [len(part.right) for part in parts] == [0] * (len(parts) - 1) + [2]
    assert all(sum(len(leaf) + 3 for leaf in part.leaves) <= limits.LEAVES_PACKED_BYTES for part in parts)
    starts = [part.start for part in parts]
    assert starts == [4096 + sum(len(one.leaves) for one in parts[:number]) for number in range(len(parts))]
    assert list(pages(order, leaves[:9]))[-1].right == ()


# ----------------------------------------------------------------- taking back


def test_leaves_of_a_lost_disk_are_taken_back_and_published_once(bench):
    """Block by block, verified against our own old signature; one digest when all are there."""
    library = former(events(0, 2 * BLOCK_LEAVES + 7))
    sequence = bench.head(OWN).order.sequence
    link, (question,) = show(bench, library)
    assert (question.born, question.start, question.size) == (5, 0, 2 * BLOCK_LEAVES + 7)
    for answer in library.answers(question):
        bench.hear(link, answer)
    serve(bench, {link: library})
    assert kept(bench, OWN) == library.leaves
    assert own_ref(bench).root == library.ref().root
    assert bench.head(OWN).order.sequence == sequence + 1
    assert bench.told(lx.LogRecovered) == [lx.LogRecovered(LOG, len(library.leaves))]
    assert show(bench, library, B)[1] == []


def test_a_crash_while_leaves_come_back_loses_none_of_them(bench):
    """The next run goes on from the block that was written last."""
    library = former(events(0, 2 * BLOCK_LEAVES + 7))
    link, (question,) = show(bench, library)
    for answer in library.answers(question):
        bench.hear(link, answer)
    again = Bench(disk=bench.disk, seed=2)
    assert kept(again, OWN) == events(0, BLOCK_LEAVES)
    link, (question,) = show(again, library)
    assert question.start == BLOCK_LEAVES
    for answer in library.answers(question):
        again.hear(link, answer)
    serve(again, {link: library})
    assert kept(again, OWN) == library.leaves


def test_an_older_disk_asks_for_what_it_lacks_and_puts_it_behind_its_own(bench):
    """What was appended since keeps its place: it was told already."""
    append(bench, events(0, 10))
    again = Bench(disk=bench.disk)
    append(again, events(0, 2, "new"))
    library = former(events(0, 30))
    link, (question,) = show(again, library)
    assert question.start == 10
    again.hear(link, *library.answers(question))
    assert kept(again, OWN) == [*events(0, 10), *events(0, 2, "new"), *events(10, 30)]


def test_a_log_with_a_first_leaf_dropped_comes_back_from_there(bench):
    """Left-hand hashes stand for what no peer holds any more."""
    library = former(events(0, BLOCK_LEAVES + 50))
    link, (question,) = show(bench, library, first_retained=BLOCK_LEAVES)
    assert question.start == BLOCK_LEAVES
    bench.hear(link, *library.answers(question))
    assert kept(bench, OWN) == events(BLOCK_LEAVES, BLOCK_LEAVES + 50)
    assert (own_ref(bench).size, own_ref(bench).first_retained) == (BLOCK_LEAVES + 50, BLOCK_LEAVES)
    assert own_ref(bench).root == library.ref().root


def test_nobody_else_makes_us_say_anything(bench):
    """A forged digest, one of another node, leaves that are not ours: nothing is appended."""
    library = former(events(0, 20))
    line = library.line(7)
    assert show(bench, library, signed=SignedDigest(line.signed.payload, bytes(32)))[1] == []
    link, _questions = show(bench, library, B, signed=Library(events(0, 5)).line(1).signed)
    assert "of another node" in bench.closed[link]
    link, (question,) = show(bench, library, "c.example.org")
    bench.hear(link, *former(events(0, 20, "false")).answers(question))
    wait(bench, RECOVERY_S + 40, link)
    assert (bench.disk.leaves, own_ref(bench)) == ({}, None)
    assert bench.node.logs._keeping.fetching._fetches == {}


def test_digests_shown_are_bounded(bench):
    """Each costs a signature to check, so a link may show only so many."""
    link = bench.open(A, features=LOGS)
    calls = bench.verifier.calls
    for number in range(40):
        line = former(events(0, 20), born=number).line(number)
        forged = SignedDigest(line.signed.payload, bytes(32))
        bench.hear(link, Answer(0, OWN, forged, line.chain, (), is_last=True))
    assert bench.verifier.calls - calls == limits.OWN_DIGESTS_PER_LINK
    assert bench.closed == {}


def test_two_former_runs_are_both_taken_back(bench):
    """One after the other, each from the past that the disk gave back."""
    one, two = former(events(0, 20), 5), former(events(0, 30), 6)
    link, (question,) = show(bench, one)
    other, questions = show(bench, two, B)
    assert questions == []
    bench.hear(link, *one.answers(question))
    serve(bench, {other: two, link: Library([])})
    assert kept(bench, OWN) == events(0, 30)


def test_what_nobody_gives_back_is_let_go_and_the_next_is_tried(bench):
    """After a minute without a leaf the node goes on without them."""
    one, two = former(events(0, 20), 5), former(events(0, 30), 6)
    link, _ = show(bench, one)
    other, _ = show(bench, two, B)
    bench.do(bench.node.peer_lost(link, "gone", bench.at()))
    while bench.now_s < RECOVERY_S + 40:
        serve(bench, {other: two})
        wait(bench, 2, other)
    assert kept(bench, OWN) == events(0, 30)


# ----------------------------------------------------------------- a disk that fails


def test_leaves_that_the_disk_did_not_take_lead_to_a_new_birth(bench):
    """What was signed and is lost must not come back as something else under one birth."""
    append(bench, events(0, 5))
    before = bench.disk.copy()
    append(bench, events(5, 9))
    born = own_ref(bench).born
    bench.disk.logs, bench.disk.leaves = before.logs, before.leaves
    bench.do(bench.node.restore_logs(bench.disk.stored_logs(), bench.at()))
    assert own_ref(bench).size == 5
    assert own_ref(bench).born > born
    assert bench.disk.epoch == own_ref(bench).born
    append(bench, events(0, 9, "other"))
    assert kept(bench, OWN) == [*events(0, 5), *events(0, 9, "other")]
    epoch = bench.disk.epoch
    bench.do(bench.node.restore_logs(bench.disk.stored_logs(), bench.at()))
    assert bench.disk.epoch == epoch


def test_others_leaves_that_the_disk_did_not_take_are_fetched_again(bench):
    """After the disk works again the node holds what is on it, and asks for the rest."""
    library = Library(events(0, 20))
    link = bench.open(X, features=LOGS)
    for sequence, size in ((1, 10), (2, 20)):
        bench.hear(link, library.line(sequence, size).answer(0))
        before = bench.disk.copy()
        serve(bench, {link: library})
    bench.disk.logs, bench.disk.leaves = before.logs, before.leaves
    bench.do(bench.node.restore_logs(bench.disk.stored_logs(), bench.at()))
    (question,) = bench.said(link, AskLeaves)
    assert question.start == 10
    bench.hear(link, *library.answers(question))
    assert kept(bench) == library.leaves


def test_a_disk_without_logs_is_an_old_disk(bench):
    """A database from before there were logs starts like any other."""
    disk = Disk(bench.disk.epoch, bench.disk.lines, bench.disk.bodies)
    assert own_ref(Bench(disk=disk)) is None
