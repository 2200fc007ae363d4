"""Properties of the parts that remember: dialling, overlay, epochs, and a node among hostile peers."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import effects as fx
from esgf_gossip.core import limits, overlay
from esgf_gossip.core.dialling import BACKOFF_MOST_S, DIAL_HANGS_S, DIALS_AT_ONCE, Dialling
from esgf_gossip.core.membership import wanted_addresses
from esgf_gossip.core.merkle import Tree
from esgf_gossip.core.messages import (
    Announce,
    Answer,
    Ask,
    AskLeaves,
    AskProof,
    Bodies,
    Fingerprints,
    Fork,
    Forks,
    Goodbye,
    Heads,
    Leaves,
    Ping,
    Pong,
    Proof,
    Roots,
    Unknown,
    Want,
    WantFork,
)
from esgf_gossip.core.model import CertificateRank, Head, LogRef, Order, SignedDigest
from esgf_gossip.core.publication import next_epoch
from esgf_gossip.core.table import Table
from esgf_gossip.sim.disk import Disk
from helpers.bench import OWN, Bench, a_hello, a_line

ADDRESSES = [(f"n{number}", 1) for number in range(12)]

# ----------------------------------------------------------------- dialling

dial_steps = st.lists(
    st.tuples(
        st.sampled_from(["fail", "succeed", "settle", "postpone", "wait"]),
        st.sampled_from(ADDRESSES),
        st.floats(0, 100),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(dial_steps, st.integers(0, 99))
def test_a_wanted_address_always_has_its_next_turn(steps, seed):
    """Whatever happened, each wanted address is being dialled, is due, or has a time within the bound."""
    dialling, now_s = Dialling(Random(seed)), 0.0
    targets = dict.fromkeys(ADDRESSES, 0.0)
    for step, address, seconds in steps:
        if step == "fail":
            dialling.failed(address, now_s)
        elif step == "succeed":
            dialling.succeeded(address)
        elif step == "settle":
            dialling.settled(address)
        elif step == "postpone":
            dialling.postpone(address, now_s, seconds)
        else:
            now_s += seconds
        due, soonest_s = dialling.plan(targets, now_s)
        assert len(due) <= DIALS_AT_ONCE
        since = [
            one.dialling_since_s for one in dialling._attempts.values() if one.dialling_since_s is not None
        ]
        in_hand = len(since)
        assert sum(now_s - since_s < DIAL_HANGS_S for since_s in since) <= DIALS_AT_ONCE
        assert soonest_s is not None or in_hand == len(targets)
        assert soonest_s is None or 0 < soonest_s <= max(100.0, BACKOFF_MOST_S * 1.5)


def test_dials_into_the_void_hold_up_a_living_node_no_longer_than_a_second():
    """Eight hosts without power answer nothing for long: the ninth has its turn when they are known to hang."""
    dialling = Dialling(Random(1))
    targets = dict.fromkeys([(f"n{number}", 8951) for number in range(DIALS_AT_ONCE + 1)], 0.0)
    due, soonest_s = dialling.plan(targets, 0.0)
    assert (len(due), soonest_s) == (DIALS_AT_ONCE, DIAL_HANGS_S)
    assert dialling.plan(targets, 0.9)[0] == []
    assert dialling.plan(targets, 1.0)[0] == [(f"n{DIALS_AT_ONCE}", 8951)]


@given(st.integers(0, 999))
def test_backoff_grows_with_jitter_to_its_bound_for_ever(seed):
    """Failures double the wait up to 30 s, half as much more or less; the hundredth is tried like the tenth."""
    dialling, now_s, waits = Dialling(Random(seed)), 0.0, []
    for _ in range(100):
        due, _ = dialling.plan({("a", 1): 0.0}, now_s)
        assert due == [("a", 1)]
        dialling.failed(("a", 1), now_s)
        _, wait_s = dialling.plan({("a", 1): 0.0}, now_s)
        waits.append(wait_s)
        now_s += wait_s
    assert all(wait_s <= BACKOFF_MOST_S * 1.5 for wait_s in waits)
    assert all(wait_s >= BACKOFF_MOST_S / 2 for wait_s in waits[10:])
    assert len(set(waits[10:])) > 80


@given(st.integers(0, 99))
def test_dead_addresses_do_not_keep_a_living_one_from_its_turn(seed):
    """With dozens of addresses that hang for ten seconds, each is still dialled within two minutes."""
    dialling, now_s, dialled, hanging = Dialling(Random(seed)), 0.0, {}, {}
    targets = {(f"n{number:02}", 1): 0.0 for number in range(60)}
    while now_s < 240:
        for address, since_s in list(hanging.items()):
            if now_s - since_s >= 10:
                del hanging[address]
                dialling.failed(address, now_s)
        due, _ = dialling.plan(targets, now_s)
        for address in due:
            hanging[address] = now_s
            dialled.setdefault(address, []).append(now_s)
        now_s += 1
    assert set(targets) == set(dialled)
    assert max(times[0] for times in dialled.values()) < 120
    assert min(map(len, dialled.values())) >= 2


# ----------------------------------------------------------------- overlay


def names(count):
    """Return so many host names."""
    return [f"n{number}.example.org" for number in range(count)]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 80), st.booleans())
def test_who_wants_whom_is_mutual(count, mesh):
    """If a has b, b has a; nobody has itself; everybody has at most two a ring."""
    members = names(count)
    wanted = {name: overlay.neighbours(name, members, mesh=mesh) for name in members}
    for name, others in wanted.items():
        assert name not in others
        assert all(name in wanted[other] for other in others)
        assert mesh or len(others) <= max(2, 2 * overlay.ring_count(count))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 80))
def test_every_pair_is_joined_through_neighbours(count):
    """The rings are one overlay: from any member all are reached."""
    members = names(count)
    reached, todo = {members[0]}, [members[0]]
    while todo:
        fresh = overlay.neighbours(todo.pop(), members, mesh=False) - reached
        reached |= fresh
        todo += fresh
    assert set(members) == reached


def test_neighbours_in_a_ring_are_the_next_and_the_one_before():
    """The definition of the rings, spelled out slowly."""
    members = names(40)
    expected = set()
    for number in range(overlay.ring_count(40)):
        order = overlay.ring(number, members)
        place = order.index(members[7])
        expected |= {order[(place + 1) % 40], order[(place - 1) % 40]}
    assert expected == overlay.neighbours(members[7], members, mesh=False)


@pytest.mark.parametrize(("count", "k"), [(0, 5), (1, 5), (32, 5), (33, 6), (64, 6), (65, 7), (5000, 13)])
def test_the_number_of_rings(count, k):
    """max(5, ceil(log2 N))."""
    assert k == overlay.ring_count(count)


@pytest.mark.parametrize(
    ("members", "was_mesh", "is_mesh"),
    [(11, False, True), (12, False, False), (12, True, True), (13, True, False), (11, True, True)],
)
def test_mesh_gives_way_with_hysteresis(members, was_mesh, is_mesh):
    """Up to 2K + 1 a mesh, from 2K + 3 rings, between them as before."""
    assert is_mesh == overlay.is_mesh(members, was_mesh=was_mesh)


@settings(deadline=None, max_examples=20)
@given(st.integers(3, 30), st.integers(0, 9), st.lists(st.integers(0, 29), max_size=6))
def test_every_pair_of_neighbours_is_dialled_by_one_side_at_least(count, seed, walled):
    """Of two neighbours without a link one wants the other's address, unless neither can be dialled."""
    table = Table()
    behind = {names(count)[number % count] for number in walled}
    for name in names(count):
        table.merge(a_line(name, contact=(name, 0 if name in behind else 8951)).verified)
    wanted = {
        name: wanted_addresses(
            name, overlay.neighbours(name, names(count), mesh=False), set(), table, Random(seed)
        )
        for name in names(count)
    }
    for name in names(count):
        for other in overlay.neighbours(name, names(count), mesh=False):
            dialled = (other, 8951) in wanted[name] or (name, 8951) in wanted[other]
            assert dialled == (not {name, other} <= behind)


# ----------------------------------------------------------------- epochs


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(-(2**40), 2**43), st.integers(0, 999))
def test_a_new_epoch_is_above_everything(last, shown, wall_ms, seed):
    """Above the disk, above what was shown, whatever the clock says, within what peers accept."""
    epoch = next_epoch(last, shown, wall_ms, Random(seed))
    assert last < epoch <= limits.COUNTER_MAX
    assert shown < epoch


@pytest.mark.parametrize("last", [5, 1_800_000_000 << 20])
def test_epochs_of_two_clones_differ(last):
    """Two machines that start in one second from one disk draw different epochs, be the clock ahead of it or behind."""
    drawn = {next_epoch(last, 5, 1_790_000_000_000, Random(seed)) for seed in range(200)}
    assert len(drawn) > 190


class RecordingDisk(Disk):
    """A disk that gives back what it held and only notes what is to be written."""

    def __init__(self, disk):
        super().__init__(disk.epoch, dict(disk.lines), dict(disk.bodies))
        self.persists = []

    def apply(self, effect):
        if isinstance(effect, fx.PersistEpoch | fx.PersistLine):
            self.persists.append(effect)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([b"1", b"2", b"3"]), st.integers(-(10**12), 10**12)),
        max_size=6,
    )
)
def test_our_order_never_falls_however_a_batch_is_cut(crashes):
    """Kill -9 after any prefix of what was to be persisted, with any clock: no number is used twice."""
    disk, said, highest = Disk(), {}, None
    for cut, body, clock_ms in crashes:
        recording = RecordingDisk(disk)
        bench = Bench(disk=recording, entries={"registration": b"first"}, wall_ahead_ms=clock_ms)
        bench.do(bench.node.publish({"registration": body}, bench.at()))
        # A digest is sent after it was persisted: these are what peers may have seen.
        for effect in recording.persists[:cut]:
            disk.apply(effect)
            if isinstance(effect, fx.PersistLine):
                line = effect.line
                assert line.payload_sha256 == said.setdefault(line.order, line.payload_sha256)
                assert highest is None or line.order > highest
                highest = line.order


# ----------------------------------------------------------------- hostile, but decodable

ORIGINS = ["a.example.org", "x.example.org", "y.example.org", OWN]
LEAVES = [b"one", b"two", b"three"]
LINES = [
    a_line(
        origin,
        epoch,
        sequence,
        {"e": bytes([sequence]) * 5, "f": b"shared"},
        logs={"log": LogRef(epoch, sequence + 1, Tree().extended(LEAVES[: sequence + 1]).root, 0)},
    )
    for origin in ORIGINS[:3]
    for epoch in (1, 2)
    for sequence in (1, 2)
]
origins = st.sampled_from(ORIGINS)
numbers = st.sampled_from([0, 1, 2, 3, 10, 2**62, 2**63 - 1])
hashes = st.sampled_from([bytes(32), b"\xff" * 32, *[line.head.payload_sha256 for line in LINES]])
false_heads = st.builds(
    Head,
    origins,
    st.builds(Order, st.builds(CertificateRank, numbers, st.just(bytes(20))), numbers, numbers),
    hashes,
)
heads = st.one_of(false_heads, st.sampled_from([line.head for line in LINES]))
many_heads = st.lists(heads, max_size=4).map(tuple)
requests = st.integers(0, 12)
bodies = st.lists(st.sampled_from([b"shared", b"\x01" * 5, b"junk", b""]), max_size=3).map(tuple)
signed = st.one_of(
    st.none(),
    st.sampled_from([line.signed for line in LINES]),
    st.builds(SignedDigest, st.sampled_from([line.signed.payload for line in LINES]), st.just(b"forged")),
    st.just(SignedDigest(b"\xc1", b"s")),
)
chains = st.sampled_from([(), LINES[0].chain, LINES[5].chain, LINES[9].chain, (b"x",)])
some_leaves = st.sampled_from(
    [(), *(tuple(LEAVES[low:high]) for low in (0, 1, 2) for high in (2, 3)), (b"x",)]
)
some_hashes = st.lists(hashes, max_size=3).map(tuple)
certificates = st.sampled_from([bytes(32), *{line.digest.certificate_sha256 for line in LINES}])
roots = st.dictionaries(st.sampled_from([1, 3, 77]), hashes, max_size=2)
messages = st.one_of(
    st.builds(Announce, many_heads),
    st.builds(Heads, many_heads, st.booleans()),
    st.builds(Roots, roots, st.booleans()),
    st.builds(Ask, requests, origins, st.none() | heads, st.sampled_from([b"", bytes(32)])),
    st.builds(Answer, requests, origins, signed, chains, bodies, st.booleans()),
    st.builds(Want, requests, st.lists(hashes, max_size=3).map(tuple)),
    st.builds(Bodies, requests, bodies, st.booleans()),
    st.builds(Ping, requests, requests),
    st.builds(Pong, requests, requests),
    st.builds(Unknown, st.integers(20, 99)),
    st.builds(AskLeaves, requests, origins, st.just("log"), numbers, numbers, numbers),
    st.builds(AskProof, requests, origins, st.just("log"), numbers, numbers, numbers),
    st.builds(Leaves, requests, numbers, some_leaves, some_hashes, some_hashes, st.booleans()),
    st.builds(Proof, requests, some_hashes),
    st.builds(
        Fingerprints, st.integers(0, 6), st.just(bytes(8)), st.binary(max_size=64), st.binary(max_size=1024)
    ),
    st.builds(
        Forks,
        st.lists(certificates, max_size=3).map(tuple),
        st.sampled_from([b"", bytes(32)]),
        st.sampled_from([b"", b"\xff" * 32]),
    ),
    st.builds(WantFork, certificates),
    st.builds(
        Fork,
        chains,
        signed.filter(bool),
        signed.filter(bool),
        st.sampled_from(["", "datasets"]),
        st.lists(hashes, max_size=2).map(tuple),
    ),
    st.builds(Unknown, st.integers(20, 99)),
)
rare = st.one_of(
    messages,
    messages,
    messages,
    st.builds(Goodbye, st.integers(0, 255), requests, st.just("bye")),
    st.sampled_from([a_hello(), a_hello(features=(1, 2, 3))]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["say", "say", "say", "say"]), st.integers(0, 3), rare),
        st.tuples(st.just("wait"), st.floats(0, 30), st.none()),
        st.tuples(
            st.sampled_from(["open", "lose", "publish", "trust", "append"]), st.integers(0, 3), st.none()
        ),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=400)
@given(steps)
def test_hostile_peers_never_raise_and_never_change_a_line_without_a_digest(schedule):
    """Any sequence of decodable messages is survived; every line is rightly signed and above the one before."""
    bench = Bench(seeds=(("seed", 1),))
    links = {}
    valid = {line.head for line in LINES}
    for step, argument, message in schedule:
        before = {line.digest.origin: line.head for line in bench.node.registry.table}
        if step == "wait":
            bench.pass_time(argument)
        elif step == "publish":
            bench.do(bench.node.publish({"registration": bytes([argument])}, bench.at()))
        elif step == "trust":
            bench.do(bench.node.trust_changed(bench.node.origin.publication.signer, bench.at()))
        elif step == "open" or argument not in links:
            dialled = (ORIGINS[argument], 8951) if argument % 2 else None
            links[argument] = bench.connect(ORIGINS[argument], dialled)
            if argument != 2:
                bench.do(bench.node.handle_message(links[argument], a_hello(features=(3,)), bench.at()))
        elif step == "append":
            bench.do(bench.node.append("log", [bytes([argument + 1])], bench.at()))
        elif step == "lose":
            bench.do(bench.node.peer_lost(links[argument], "lost", bench.at()))
        else:
            bench.do(bench.node.handle_message(links[argument], message, bench.at()))
        for line in bench.node.registry.table:
            held = before.get(line.digest.origin)
            assert line.head == held or line.head.is_above(held)
            assert line.digest.origin == OWN or line.head in valid
            assert bench.node.registry.missing(line.digest) == []
        assert set(before) <= {line.digest.origin for line in bench.node.registry.table}
    for (origin, name), leaves in bench.disk.leaves.items():
        assert (
            Tree().extended(leaves[number] for number in sorted(leaves))
            == bench.node.logs.held.get(origin, name).tree
        )
        assert origin == OWN or list(leaves.values()) == LEAVES[: len(leaves)]
    fetching = bench.node._fetching
    assert all(
        fetch.asked is not None or origin in fetching._waiting or origin in fetching._resting
        for origin, fetch in fetching._fetches.items()
    )
    assert fetching._resting <= fetching._fetches.keys() & fetching._due
    assert sum(fetching._questions_to.values()) == sum(
        fetch.asked is not None for fetch in fetching._fetches.values()
    )
    disk = bench.disk
    assert {line.digest.origin: line.head for line in bench.node.registry.table} == {
        name: line.head for name, line in disk.lines.items()
    }
    bench.pass_time(1000)
    assert not bench.node._fetching._fetches
