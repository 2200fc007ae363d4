"""Keys used twice: a thief is proven everywhere at the speed of a change, an honest node never, whatever becomes of its machine."""

from copy import deepcopy
from random import Random

import attrs
import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core.digests import decode_digest, encode_digest
from esgf_gossip.core.messages import Answer
from esgf_gossip.core.model import SignedDigest
from esgf_gossip.sim.network import a_network
from esgf_gossip.sim.trust import PlainSigner

SEED = 20_261_125
VICTIM = 1
# The longest way of a message in these networks.
SLOWEST_S = 0.020


def name(number):
    """Return the name of a node of a_network."""
    return f"n{number:02}.example.org"


def settled(size, seed=SEED):
    """Return a network in agreement, its links of the start closed."""
    network = a_network(size, seed)
    assert network.settle(60)
    network.run(60)
    assert network.settle(60)
    return network


def a_theft(network):
    """Return what a thief of the victim's key says under the number of its newest digest."""
    line = network.hosts[name(VICTIM)].node.registry.table.line(name(VICTIM))
    digest = attrs.evolve(line.digest, expires_at_ms=line.digest.expires_at_ms - 1)
    payload = encode_digest(digest)
    signed = SignedDigest(payload, PlainSigner(name(VICTIM)).sign(payload))
    return Answer(0, name(VICTIM), signed, line.chain, (), is_last=True)


def slip_in(network, machine, message):
    """Let a neighbour of the victim hear a message as the victim's own, as whoever has its key can."""
    host = network.hosts[machine]
    (link,) = [one.link for one in host.node.links.sessions.open() if one.peer == name(VICTIM)]
    network.perform(host, host.node.handle_message(link, message, network.at(host)))


def proven(network):
    """Tell which running nodes hold a proof about the victim's certificate."""
    certificate = PlainSigner(name(VICTIM)).certificate_sha256
    return {host.machine for host in network.running() if certificate in host.node.registry.forks}


def seconds_until(network, condition, within_s=30.0):
    """Return the virtual seconds until a condition holds."""
    begun_s = network.now_s
    assert network.run(within_s, until=condition)
    return network.now_s - begun_s


@pytest.mark.parametrize("size", [7, 25])
def test_a_stolen_key_is_proven_everywhere_as_fast_as_a_change_spreads(size):
    """One node hears both digests: all hold the proof and one table, in the time of an ordinary change."""
    changes_s, proofs_s = [], []
    for seed in range(3):
        network = settled(size, SEED + seed)
        network.publish(name(2), {"registration": b"changed"})
        changes_s.append(
            seconds_until(
                network,
                lambda network=network: (
                    {host.node.registry.entry(name(2), "registration") for host in network.running()}
                    == {b"changed"}
                ),
            )
        )
        network.run(30)
        neighbour = min(session.peer for session in network.hosts[name(VICTIM)].node.links.sessions.open())
        slip_in(network, neighbour, a_theft(network))
        assert proven(network) == {neighbour}
        proofs_s.append(seconds_until(network, lambda network=network: len(proven(network)) == size))
        assert network.settle(60)
        told = [one for host in network.running() for one in host.notices if isinstance(one, fx.ForkProven)]
        assert len(told) == size
        assert all(
            PlainSigner(name(VICTIM)).certificate_sha256 in host.disk.forks for host in network.running()
        )
    # A change is sent unasked by its origin; a proof is asked for at the first hop too.
    assert max(proofs_s) <= 2 * max(changes_s) + 2 * SLOWEST_S
    assert max(proofs_s) < 1.0


def test_two_branches_meet_after_a_partition():
    """Each side holds one of two digests of one number; when they meet all hold the proof and the smaller hash."""
    network = settled(6)
    left = {name(0), name(1), name(2)}
    network.faults.cut = lambda one, other: (one in left) != (other in left)
    network.run(120)
    network.publish(name(VICTIM), {"registration": b"left"})
    network.run(5)
    theft = a_theft(network)
    host = network.hosts[name(4)]
    # On the right nobody is linked with the victim: the thief's word comes as a line fetched from elsewhere.
    verified = network.verifier.verify(
        theft.signed, decode_digest(theft.signed.payload), theft.chain, network.wall_ms
    )
    left_head = network.hosts[name(0)].node.registry.table.head(name(VICTIM))
    bodies = network.hosts[name(0)].node.registry.bodies_of(verified.digest)
    host.node._line_is_whole(verified, bodies, network.at(host))
    network.perform(host, host.node._finish(network.at(host)))
    network.run(5)
    heads = {host.node.registry.table.head(name(VICTIM)) for host in network.running()}
    assert heads == {left_head, verified.head}
    assert proven(network) == set()
    network.faults.cut = None
    assert network.run(900, until=lambda: len(proven(network)) == 6)
    assert network.settle(120)
    smaller = min(heads, key=lambda head: head.payload_sha256)
    for host in network.running():
        head = host.node.registry.table.head(name(VICTIM))
        assert head == smaller or head.order > smaller.order
    assert len({host.node.registry.forks.root for host in network.running()}) == 1


def test_whoever_was_away_learns_of_the_proof_and_a_restart_keeps_it():
    """The proof is a line like any: reconciled, persistent, and no mark on the next certificate."""
    network = settled(5)
    network.kill(name(4))
    network.run(5)
    slip_in(network, name(0), a_theft(network))
    assert network.run(30, until=lambda: len(proven(network)) == 4)
    network.start(name(4), [name(0)])
    assert network.run(30, until=lambda: len(proven(network)) == 5)
    network.kill(name(3))
    network.faults.cut = lambda one, other: name(3) in (one, other)
    network.start(name(3))
    assert name(3) in proven(network)


@pytest.mark.parametrize("seed", range(6))
def test_an_honest_node_is_never_proven_a_liar_by_crashes_at_any_persist_point(seed):
    """Kill -9 before, between and after the writes of a change, again and again, with peers that remember all."""
    network, random = settled(4, SEED + seed), Random(seed)
    network.verifier.forks.clear()
    crashes = 0
    for turn in range(25):
        host = network.hosts[name(VICTIM)]
        network.faults.crash_after(name(VICTIM), turn % 4)
        if host.node is not None:
            network.publish(name(VICTIM), {"registration": f"{turn}".encode()})
        network.run(random.uniform(0.0, 3.0))
        if host.node is None:
            crashes += 1
            network.faults.forget_crash(name(VICTIM))
            if turn % 4 == 3:
                network.faults.crash_after(name(VICTIM), random.randint(0, 2))
            network.start(name(VICTIM), [name(0)])
            network.run(random.uniform(0.0, 3.0))
    assert crashes > 8
    network.faults.forget_crash(name(VICTIM))
    if network.hosts[name(VICTIM)].node is None:
        network.start(name(VICTIM), [name(0)])
    assert network.settle(120)
    assert proven(network) == set()
    assert network.verifier.forks == set()


def resumed(network, machine, node):
    """Put a process back as it was in memory some time ago: its timers run, its links do not."""
    host = network.hosts[machine]
    host.node = node
    for timer in (fx.CheckLinks(), fx.CompareRoots()):
        network.perform(host, node.handle_timer(timer, network.at(host)))


@pytest.mark.parametrize("meets", ["those who know more", "one who was away"])
def test_a_resumed_snapshot_uses_no_number_twice(meets):
    """A machine goes on from its memory of an hour ago and signs at once: nobody ever sees that digest."""
    network = settled(5)
    host = network.hosts[name(VICTIM)]
    said = []
    host.tamper = lambda _end, message, payload: said.append(message) or [payload]
    network.publish(name(VICTIM), {"registration": b"before"})
    network.run(30)
    verifier = network.verifier
    memory, disk = deepcopy(host.node, {id(verifier): verifier}), host.disk.copy()
    network.publish(name(VICTIM), {"registration": b"one more"})
    network.run(30)
    if meets == "one who was away":
        # It holds the number that the resumed machine will use next, and not what came after.
        network.faults.cut = lambda one, other: name(4) in (one, other)
        network.run(120)
    network.publish(name(VICTIM), {"registration": b"the last"})
    network.run(30)
    epoch = host.disk.lines[name(VICTIM)].order.epoch
    network.kill(name(VICTIM))
    network.restore_disk(name(VICTIM), disk)
    network.run(60)
    resumed(network, name(VICTIM), memory)
    network.publish(name(VICTIM), {"registration": b"resumed"})
    used = memory.registry.table.line(name(VICTIM))
    assert used.order.epoch == epoch
    assert used.digest.sequence == 3, "no number is used twice, so nothing is tested"
    if meets == "one who was away":
        others = {name(0), name(2), name(3)}
        network.faults.cut = lambda one, other: (one in others) != (other in others)
    for session in list(memory.links.sessions):
        network.perform(host, memory.peer_lost(session.link, "reset", network.at(host)))
    network.run(120)
    network.faults.cut = None
    assert network.settle(900)
    own = [message for message in said if isinstance(message, Answer) and message.origin == name(VICTIM)]
    payloads = {message.signed.payload for message in own if message.signed is not None}
    numbers = [(digest.epoch, digest.sequence) for digest in map(decode_digest, payloads)]
    assert used.signed.payload not in payloads
    assert len(set(numbers)) == len(numbers) >= 4
    assert proven(network) == set()
    assert {host.node.registry.entry(name(VICTIM), "registration") for host in network.running()} == {
        b"resumed"
    }
