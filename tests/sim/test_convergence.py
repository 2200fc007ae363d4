"""Federations of the real core in virtual time: faults of every kind end in equal roots."""

import itertools
from random import Random

import pytest

from esgf_gossip.core import comparing, publication
from esgf_gossip.core import effects as fx
from esgf_gossip.core.messages import Fingerprints, Goodbye
from esgf_gossip.sim.faults import HELD
from esgf_gossip.sim.network import VirtualNetwork, a_network

SEED = 20_261_123


def name(number):
    """Return the name of a node of a_network."""
    return f"n{number:02}.example.org"


def settle(network, seconds=120.0):
    """Let time pass until all running nodes agree; fail with the seed otherwise."""
    converged = network.run(seconds, until=network.converged)
    assert converged, f"no agreement after {seconds} s of virtual time: {sizes(network)}"


def sizes(network):
    """Return what to print when a federation does not agree."""
    return {
        host.name: (
            len(host.node.registry.table),
            sorted(session.peer for session in host.node.links.sessions.open()),
        )
        for host in network.running()
    }


def served(network, origin, entry="registration"):
    """Return what the running nodes serve as an entry of an origin."""
    return {host.node.registry.entry(origin, entry) for host in network.running()}


@pytest.mark.parametrize("victim", range(7))
def test_any_node_may_be_killed_and_come_back(victim):
    """Seven nodes: one dies, another changes meanwhile, the dead one returns and all are equal."""
    network = a_network(7, SEED + victim)
    settle(network)
    network.kill(name(victim))
    other = name((victim + 1) % 7)
    network.publish(other, {"registration": b"changed"})
    network.run(30)
    assert victim not in {int(host.name[1:3]) for host in network.running()}
    assert {b"changed"} == served(network, other)
    before = network.hosts[name(victim)].disk.epoch
    network.start(name(victim), [name(0 if victim else 1)])
    settle(network)
    assert network.run(60, until=lambda: served(network, other) == {b"changed"})
    assert network.hosts[name(victim)].disk.epoch > before


def test_the_seed_may_be_gone_for_good():
    """The first node never returns and the others restart one by one: still one federation."""
    network = a_network(6, SEED)
    settle(network)
    network.kill(name(0))
    for number in range(1, 6):
        network.kill(name(number))
        network.run(5)
        network.start(name(number), [name(0)])
        network.run(5)
    network.publish(name(3), {"registration": b"after"})
    settle(network)
    assert network.run(60, until=lambda: served(network, name(3)) == {b"after"})
    assert len(network.running()) == 5


def test_a_partition_longer_than_the_life_of_digests_heals(monkeypatch):
    """Both halves expire each other, and find each other again without anybody's help."""
    monkeypatch.setattr(publication, "DIGEST_LIFETIME_MS", 1800 * 1000)
    network = a_network(4, SEED)
    settle(network)
    halves = {name(0): 0, name(1): 0, name(2): 1, name(3): 1}
    network.faults.cut = lambda a, b: halves[a] != halves[b]
    network.run(2 * 3600)
    network.publish(name(0), {"registration": b"left"})
    network.publish(name(2), {"registration": b"right"})
    network.run(60)
    node = network.hosts[name(0)].node
    expires_ms = node.registry.table.line(name(2)).digest.expires_at_ms
    assert expires_ms < network.at().wall_ms, "the partition was not long enough"
    assert len(network.roots()) == 2
    network.faults.cut = None
    settle(network, 900)
    assert network.run(60, until=lambda: served(network, name(2)) == {b"right"})
    assert {b"left"} == served(network, name(0))


def test_partitions_heal_by_fingerprints_too(monkeypatch):
    """Tables too large for a vector are narrowed down over real links: both halves get what the other changed."""
    monkeypatch.setattr(comparing, "VECTOR_HEADS", 0)
    network = a_network(6, SEED)
    settle(network)
    network.run(60)
    halves = {name(number): number % 2 for number in range(6)}
    network.faults.cut = lambda a, b: halves[a] != halves[b]
    network.run(120)
    for number in range(4):
        network.publish(name(number), {"registration": b"changed"})
    network.run(30)
    assert len(network.roots()) == 2
    said = []
    for host in network.running():
        host.tamper = lambda _end, message, payload: said.append(message) or [payload]
    network.faults.cut = None
    settle(network)
    assert network.run(60, until=lambda: served(network, name(2)) == served(network, name(3)) == {b"changed"})
    assert {message.level for message in said if isinstance(message, Fingerprints)} == {1, 2, 3, 4, 5}
    assert not [message for message in said if isinstance(message, Goodbye) and message.farewell == 6]


def test_everybody_restarts_at_once():
    """A power cut: all disks survive, all nodes start in one second, one federation results."""
    network = a_network(9, SEED)
    settle(network)
    epochs = {host.name: host.disk.epoch for host in network.running()}
    for number in range(9):
        network.kill(name(number))
    assert network.running() == []
    network.run(3)
    for number in range(9):
        network.start(name(number), [name(0)])
    settle(network)
    assert all(host.disk.epoch > epochs[host.name] for host in network.running())


@pytest.mark.parametrize("clock_back", [False, True])
def test_a_lost_disk_makes_no_fork(clock_back):
    """A node comes back with nothing, its clock minutes behind perhaps: a higher epoch, and no number used twice."""
    network = a_network(5, SEED)
    settle(network)
    host = network.hosts[name(2)]
    before = host.disk.lines[name(2)].order
    network.kill(name(2))
    network.run(5)
    network.lose_disk(name(2))
    host.clock_ahead_ms = -5 * 60 * 1000 if clock_back else 0
    network.start(name(2), [name(0)])
    assert (host.disk.epoch < before.epoch) == clock_back
    settle(network)
    network.run(60)
    assert host.disk.lines[name(2)].order.epoch > before.epoch
    assert [bool(clock_back)] == [any(isinstance(one, fx.EpochTaken) for one in host.notices)]
    notices = list(itertools.chain.from_iterable(one.notices for one in network.hosts.values()))
    assert not [one for one in notices if isinstance(one, fx.ForkProven | fx.PublishingStopped)]
    assert len(network.roots()) == 1


def test_links_that_lose_messages_in_one_direction_heal():
    """One node hears nobody for a while, another loses a third of what it says: all agree in the end."""
    network = a_network(7, SEED)
    settle(network)
    lossy = Random(SEED)
    network.faults.cut = lambda a, b: b == name(3) or (a == name(4) and lossy.random() < 0.3)
    for turn in range(6):
        network.publish(name(turn), {"registration": f"turn {turn}".encode()})
        network.run(20)
    assert network.faults.counts[HELD] > 10
    assert len(network.roots()) > 1
    network.faults.cut = None
    settle(network, 300)


def test_a_node_that_left_never_comes_back_from_a_stale_table():
    """A node that was away when another left brings an old table: the line is the floor."""
    network = a_network(6, SEED)
    settle(network)
    network.kill(name(5))
    network.run(5)
    network.leave(name(2))
    network.run(10)
    assert name(2) in network.hosts[name(5)].disk.lines
    assert not network.hosts[name(5)].disk.lines[name(2)].digest.leaving
    network.start(name(5), [name(0)])
    settle(network)
    network.run(120)
    assert len(network.running()) == 5
    for host in network.running():
        assert host.node.registry.table.line(name(2)).digest.leaving
        assert name(2) not in host.node.links.neighbours


@pytest.mark.parametrize(("size", "within_s"), [(25, 20.0), (50, 30.0)])
def test_larger_federations_converge(size, within_s):
    """All start at once with one seed; then a change is everywhere within two seconds."""
    network = a_network(size, SEED + size)
    settle(network, within_s)
    network.run(90)
    network.publish(name(size // 2), {"registration": b"changed"})
    assert network.run(2.0, until=lambda: served(network, name(size // 2)) == {b"changed"})
    assert len(network.roots()) == 1


def test_a_federation_at_rest_says_little_and_no_more_with_time():
    """Beats and comparisons only: the same in every quarter of an hour, however long it lasts."""
    network = a_network(8, SEED)
    settle(network)
    network.run(300)
    counts = []
    for _ in range(4):
        before = network.wires.delivered
        network.run(900)
        counts.append(network.wires.delivered - before)
    links = sum(len(host.node.links.sessions) for host in network.running()) / 2
    assert min(counts) > 0
    assert max(counts) < 1.1 * min(counts)
    # Five observers ping each of eight nodes every four seconds, and are answered; the rest is comparisons.
    assert max(counts) / 15 / links < 45, "messages a minute and link"


def test_a_quarrel_of_trust_causes_no_growing_traffic():
    """Nodes that refuse a line others hold keep comparing, at a constant rate."""
    network = VirtualNetwork(SEED)
    for number in range(5):
        network.add(name(number))
        network.start(name(number), [name(0)] if number else [])
    settle(network)
    line = network.hosts[name(4)].disk.lines[name(4)]
    stern = type(network.verifier)({line.chain[0]})
    for number in (0, 1):
        node = network.hosts[name(number)].node
        node._revision._verifier = node._fetching._judging._verifier = stern
        network.perform(
            network.hosts[name(number)],
            node.trust_changed(node.origin.publication.signer, network.at()),
        )
    network.run(600)
    assert len(network.roots()) == 2
    counts = []
    for _ in range(4):
        before = network.wires.delivered
        network.run(600)
        counts.append(network.wires.delivered - before)
    assert max(counts) < 1.25 * min(counts)
    beats = 600 * 5 * 4 * 2 / 4
    assert max(counts) - beats < 10 * 10 * 20


def test_a_silent_liar_holds_up_nobody():
    """A member that announces everything first and answers nothing costs each change one question."""
    network = a_network(8, SEED)
    settle(network)
    network.run(60)
    liar = name(1)
    silenced = [0]

    def drop(sender, _receiver):
        silenced[0] += sender == liar
        return sender == liar

    network.faults.cut = drop
    network.publish(name(6), {"registration": b"changed"})
    others = [host for host in network.running() if host.name != liar]
    spread = network.run(
        5.0,
        until=lambda: all(host.node.registry.entry(name(6), "registration") == b"changed" for host in others),
    )
    assert spread
    network.run(5)
    assert silenced[0] > 0


def test_nodes_between_mesh_and_rings_do_not_flap():
    """Twelve nodes, some of which remember thirteen: whoever sees a mesh and whoever sees rings live together."""
    network = a_network(13, SEED)
    settle(network)
    network.run(30)
    network.leave(name(12))
    network.run(30)
    network.kill(name(3))
    network.run(5)
    network.start(name(3), [name(0)])
    settle(network)
    shapes = {host.node.links._mesh for host in network.running()}
    assert shapes == {True, False}, "the nodes agree about the shape, so nothing is tested"
    network.run(600)
    for host in network.running():
        host.notices.clear()
    network.run(3600)
    parted = sum(isinstance(one, fx.PeerParted) for host in network.running() for one in host.notices)
    # Partners drawn at random every five minutes come and go; nothing else does.
    assert parted <= 12 * 12 * 2 * 1.5
    assert len(network.roots()) == 1
