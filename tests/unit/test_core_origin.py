"""This node as an origin: epochs, its own digest, its own head shown, trust that changes (on a bench)."""

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits
from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.messages import Announce, Answer, Ask, Hello
from esgf_gossip.core.model import SignedDigest
from esgf_gossip.core.publication import GIVEN_ENTRIES, PublicationError
from esgf_gossip.sim.disk import Disk
from esgf_gossip.sim.trust import START_MS, PlainSigner
from helpers.bench import OWN, Bench, a_line

A, B, X = "a.example.org", "b.example.org", "x.example.org"


@pytest.fixture
def bench():
    """Return a started node without peers."""
    return Bench()


def show(bench, line, peer=A):
    """Let a peer show the node a digest of its own, and give it when asked; return the link."""
    link = bench.open(peer, head_of_you=line.head)
    for question in bench.said(link, Ask):
        bench.hear(link, line.answer(question.request))
    return link


def own_order(bench):
    """Return the order of the node's own line."""
    return bench.head(OWN).order


# ----------------------------------------------------------------- publishing


def test_the_epoch_is_durable_before_the_first_digest(bench):
    """An effect that persists the epoch comes before the line that uses it."""
    assert bench.disk.epoch == own_order(bench).epoch
    assert own_order(bench).sequence == 1
    again = Bench(disk=bench.disk)
    kinds = [type(output) for output in again.node.origin._out] or [type(output) for output in again.outputs]
    assert kinds.index(fx.PersistEpoch) < kinds.index(fx.PersistLine)


def test_a_change_is_pushed_to_greeted_peers_with_what_changed(bench):
    """A neighbour gets the new digest and only the changed body; one that never heard of us gets all."""
    knows = bench.open(A, head_of_you=bench.head(OWN))
    fresh = bench.connect(B)
    bench.said()
    bench.do(bench.node.publish({"registration": b"own", "metrics": b"new"}, bench.at()))
    (pushed,) = bench.said(knows, Answer)
    assert (pushed.request, pushed.bodies, pushed.chain) == (0, (b"new",), ())
    (pushed,) = bench.said(fresh, Answer)
    assert {b"own", b"new"} == set(pushed.bodies)
    assert PlainSigner(OWN).chain == pushed.chain


def test_publishing_the_same_changes_nothing(bench):
    """A source read again without a change makes no digest."""
    before = bench.head(OWN)
    assert bench.do(bench.node.publish({"registration": b"own"}, bench.at())) == []
    assert before == bench.head(OWN)


def test_unchanged_entries_keep_their_stamp_over_a_restart(bench):
    """Peers do not fetch again what did not change while we were away."""
    before = bench.node.registry.table.line(OWN).digest.entries["registration"]
    again = Bench(disk=bench.disk, entries={"registration": b"own", "metrics": b"new"})
    digest = again.node.registry.table.line(OWN).digest
    assert before == digest.entries["registration"]
    assert (digest.epoch, digest.sequence) == digest.entries["metrics"].changed_at
    assert digest.epoch > before.changed_at[0]


@pytest.mark.parametrize(
    "entries",
    [
        {f"e{number}": b"" for number in range(GIVEN_ENTRIES + 1)},
        {"e": bytes(limits.ENTRY_BYTES + 1)},
        {f"e{number}": bytes([number]) * limits.ENTRY_BYTES for number in range(8)},
        {"Bad Name": b""},
        {"reachability": b""},
        {"": b""},
        {"e" * 65: b""},
    ],
)
def test_entries_out_of_bounds_are_refused_and_the_old_ones_stay(bench, entries):
    """What no peer would take is never signed, and leaves no trace."""
    before = bench.head(OWN)
    with pytest.raises(PublicationError):
        bench.node.publish(entries, bench.at())
    assert before == bench.head(OWN)
    assert bench.do(bench.node.publish({"registration": b"own"}, bench.at())) == []
    with pytest.raises(PublicationError):
        Bench(entries=entries)


@pytest.mark.parametrize(
    "entries",
    [
        {f"{'e' * 61}-{number:02}": b"" for number in range(GIVEN_ENTRIES)},
        {f"e{number}": bytes([number]) * limits.ENTRY_BYTES for number in range(7)},
    ],
)
def test_entries_at_their_bounds_are_published(entries):
    """The largest digest and the largest entries are taken, by us and by the codec of others."""
    bench = Bench(entries=entries)
    line = bench.node.registry.table.line(OWN)
    assert line.digest == decode_digest(line.signed.payload)
    assert set(entries) == set(line.digest.entries)


def test_the_digest_is_signed_anew_before_it_expires(bench):
    """A third of its life, with jitter; the sequence grows, entries keep their stamps."""
    before = bench.node.registry.table.line(OWN).digest
    bench.pass_time(7 * 24 * 3600 / 3 + 1)
    after = bench.node.registry.table.line(OWN).digest
    assert (before.epoch, 2) == (after.epoch, after.sequence)
    assert before.entries == after.entries


def test_a_certificate_that_ends_stops_publishing():
    """No digest outlives its certificate; the node says so instead of going on."""
    bench = Bench()
    bench.verifier.revoked.add(PlainSigner(OWN).chain[0])
    bench.do(bench.node.publish({}, bench.at()))
    (stopped,) = bench.told(fx.PublishingStopped)
    assert "revoked" in stopped.reason


# ----------------------------------------------------------------- our own head, shown


def test_an_own_higher_head_leads_to_a_higher_epoch(bench):
    """A lost disk: what we once said is shown to us, and we go on above it."""
    lost = a_line(OWN, epoch=own_order(bench).epoch + 1000, sequence=7)
    link = show(bench, lost)
    assert own_order(bench).epoch > lost.head.order.epoch
    assert own_order(bench).epoch == bench.disk.epoch
    assert bench.head(OWN) == bench.disk.lines[OWN].head
    assert [fx.EpochTaken(own_order(bench).epoch)] == bench.told(fx.EpochTaken)
    assert bench.told(fx.PublishingStopped) == []
    pushed = bench.said(link, Answer)[-1]
    assert own_order(bench).epoch == decode_digest(pushed.signed.payload).epoch
    assert b"own" == bench.node.registry.entry(OWN, "registration")  # noqa: SIM300


def test_a_second_own_head_within_an_hour_stops_publishing(bench):
    """A clone or a thief: two processes must not outbid each other for ever."""
    show(bench, a_line(OWN, epoch=own_order(bench).epoch + 1000))
    thief = a_line(OWN, epoch=own_order(bench).epoch + 1000)
    show(bench, thief, peer=B)
    (stopped,) = bench.told(fx.PublishingStopped)
    assert "clone" in stopped.reason
    assert thief.head == bench.head(OWN)
    bench.do(bench.node.publish({"registration": b"other"}, bench.at()))
    assert thief.head == bench.head(OWN)


def test_own_heads_an_hour_apart_are_two_lost_disks(bench):
    """What happens rarely is an accident."""
    show(bench, a_line(OWN, epoch=own_order(bench).epoch + 1000))
    bench.now_s += 3601
    show(bench, a_line(OWN, epoch=own_order(bench).epoch + 1000), peer=B)
    assert bench.told(fx.PublishingStopped) == []
    assert len(bench.told(fx.EpochTaken)) == 2


def test_a_forged_own_head_changes_nothing(bench):
    """Nobody's claim, and nobody's signature but ours, moves our epoch."""
    before = bench.head(OWN)
    line = a_line(OWN, epoch=own_order(bench).epoch + 1000)
    forged = attrs.evolve(line.signed, signature=bytes(32))
    link = bench.open(A, head_of_you=line.head)
    for question in bench.said(link, Ask):
        bench.hear(link, line.answer(question.request, signed=forged))
    bench.pass_time(10)
    assert before == bench.head(OWN)
    assert bench.told(fx.EpochTaken) == []
    assert before.order.epoch == bench.disk.epoch


def test_a_head_of_somebody_else_in_a_hello_is_left_out(bench):
    """The field is about us; anything else in it is no claim."""
    link = bench.open(A, head_of_you=a_line(X).head)
    assert bench.said(link, Ask) == []


def test_a_newer_certificate_in_use_elsewhere_stops_publishing(bench):
    """The CA's newest certificate of a name is the one that counts."""
    show(bench, a_line(OWN, generation=2))
    (stopped,) = bench.told(fx.PublishingStopped)
    assert "newer certificate" in stopped.reason


def test_an_epoch_burned_by_a_thief_does_not_outlive_the_certificate(bench):
    """With a new certificate the node publishes again, and again after a restart."""
    show(bench, a_line(OWN, epoch=limits.COUNTER_MAX))
    assert bench.told(fx.PublishingStopped) != []
    bench.do(bench.node.trust_changed(PlainSigner(OWN, 2), bench.at()))
    first = bench.head(OWN)
    assert PlainSigner(OWN, 2).rank == first.order.certificate
    again = Bench(disk=bench.disk, generation=2)
    assert again.told(fx.PublishingStopped) == []
    assert again.head(OWN).is_above(first)


# ----------------------------------------------------------------- trust


def test_a_revoked_origin_is_withdrawn(bench):
    """What trust no longer carries goes from table, disk and roster; the rest stays."""
    link = bench.open(X)
    gone, stays = a_line(X), a_line(A)
    bench.hear(link, gone.answer(0))
    bench.hear(bench.open(A), stays.answer(0))
    bench.verifier.revoked.add(gone.chain[0])
    bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
    assert bench.head(X) is None
    assert X not in bench.disk.lines
    assert gone.digest.entries["registration"].sha256 not in bench.disk.bodies
    assert stays.head == bench.head(A)
    assert [notice.origin for notice in bench.told(fx.LineWithdrawn)] == [X]
    bench.pass_time(3)
    assert X not in bench.node.links.neighbours
    bench.hear(link, gone.answer(0))
    assert bench.head(X) is None


def test_a_new_certificate_is_published_at_once(bench):
    """A renewed certificate goes out with the next digest, chain included."""
    link = bench.open(A, head_of_you=bench.head(OWN))
    bench.said()
    bench.do(bench.node.trust_changed(PlainSigner(OWN, 2), bench.at()))
    (pushed,) = bench.said(link, Answer)
    assert PlainSigner(OWN, 2).chain == pushed.chain
    assert PlainSigner(OWN, 2).rank == own_order(bench).certificate


def test_our_own_revocation_is_said_at_once(bench):
    """A node whose certificate was revoked says so, and does not wait for its next digest."""
    bench.verifier.revoked.add(PlainSigner(OWN).chain[0])
    bench.do(bench.node.trust_changed(PlainSigner(OWN), bench.at()))
    assert len(bench.told(fx.PublishingStopped)) == 1


def test_a_clock_set_back_withdraws_nothing(bench):
    """A node that wakes in 1970 keeps its table, on disk too."""
    bench.hear(bench.open(X), a_line(X).answer(0))
    bench.wall_ahead_ms = -START_MS
    bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
    assert bench.head(X) is not None
    assert {OWN, X} == set(bench.disk.lines)


def test_what_the_disk_gives_back_is_verified_again():
    """A line that was tampered with, or revoked meanwhile, does not come back; the rest does."""
    first = Bench()
    for name in (A, B, X):
        first.hear(first.open(name), a_line(name).answer(0))
    disk = Disk(first.disk.epoch, dict(first.disk.lines), dict(first.disk.bodies))
    disk.lines[X] = attrs.evolve(disk.lines[X], signed=SignedDigest(disk.lines[X].signed.payload, bytes(32)))
    disk.lines[B] = attrs.evolve(disk.lines[B], signed=SignedDigest(b"\xc1", bytes(32)))
    again = Bench(disk=disk)
    assert {OWN, A} == {line.digest.origin for line in again.node.registry.table}
    assert [notice.origin for notice in again.told(fx.LineWithdrawn)] == [X]
    assert sorted(again.disk.lines, reverse=True)[-0:] == [OWN, A] or X not in again.disk.lines


def test_a_hello_after_a_restart_shows_a_new_instance(bench):
    """A peer tells a restart from a second link to the same process."""
    bench.connect(A)
    (hello,) = bench.said(kind=Hello)
    again = Bench(disk=bench.disk, seed=2)
    again.connect(A)
    (other,) = again.said(kind=Hello)
    assert hello.instance != other.instance


def test_a_peer_is_told_of_a_line_once(bench):
    """Announcements are not repeated on a link."""
    link, other = bench.open(A), bench.open(X)
    bench.said()
    line = a_line(X)
    bench.hear(other, line.answer(0))
    bench.hear(other, line.answer(0))
    assert [Announce((line.head,))] == bench.said(link)


def test_a_cured_stop_is_over(bench):
    """Once new trust lets the node publish again, a reload that changes nothing publishes nothing."""
    publication = bench.node.origin.publication
    bench.verifier.revoked.add(publication.signer.chain[0])
    bench.do(bench.node.trust_changed(publication.signer, bench.at()))
    assert "certificate revoked" in publication.stopped
    bench.verifier.revoked.clear()
    bench.do(bench.node.trust_changed(publication.signer, bench.at()))
    assert publication.stopped == ""
    sequence = publication.sequence
    bench.do(bench.node.trust_changed(publication.signer, bench.at()))
    assert publication.sequence == sequence
