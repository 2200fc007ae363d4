"""Every fault of the simulator really happens, counts itself, and does what its name says."""

from collections import Counter

import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core.limits import DIGEST_LIFETIME_MS
from esgf_gossip.sim import faults
from esgf_gossip.sim.latency import Regions
from esgf_gossip.sim.network import VirtualNetwork, a_network
from esgf_gossip.sim.traffic import Traffic

SEED = 20_261_124


def name(number):
    """Return the name of a node of a_network."""
    return f"n{number:02}.example.org"


def settled(size, seed=SEED):
    """Return a network in agreement."""
    network = a_network(size, seed)
    assert network.settle(60)
    return network


def peers(network, machine):
    """Return the peers with whom a node believes to be linked."""
    return {session.peer for session in network.hosts[machine].node.links.sessions.open()}


def served(network, machine, origin):
    """Return what a node holds as the registration of an origin."""
    return network.hosts[machine].node.registry.entry(origin, "registration")


def test_one_seed_gives_one_history():
    """Two runs of a seed are equal to the last message; another seed is another history."""

    def history(seed):
        network = a_network(6, seed)
        network.traffic = Traffic()
        network.faults.loss = 0.05
        network.run(60)
        return network.timeline.events, dict(network.traffic.size_bytes), network.roots()

    assert history(SEED) == history(SEED)
    assert history(SEED) != history(SEED + 1)


def test_a_lost_segment_comes_later_and_holds_up_what_is_behind_it():
    """Loss delays, keeps the order, and loses nothing."""
    network = settled(2)
    network.faults.loss = 0.3
    for turn in range(20):
        network.publish(name(0), {"registration": f"{turn}".encode()})
    assert network.run(60, until=lambda: served(network, name(1), name(0)) == b"19")
    assert network.faults.counts[faults.LOST] > 3
    assert {name(1)} == peers(network, name(0))


def test_latency_grows_with_the_distance_of_regions():
    """Links of one region are short, others up to 150 ms, the same in every run and both ways."""
    regions = Regions()
    names = [f"host{number}" for number in range(60)]
    random = VirtualNetwork(1).random
    found = [regions.between(one, other, random) for one in names for other in names if one != other]
    assert 0.005 <= min(found) < 0.015
    assert 0.08 < max(found) <= 0.150
    assert regions.between("a", "b", random) == Regions().between("b", "a", random)


def test_a_short_cut_holds_messages_up_and_loses_none():
    """Three seconds without a wire: late, in order, and on the same links."""
    network = settled(4)
    network.run(20)
    for host in network.running():
        host.notices.clear()
    network.faults.partition([name(0), name(1)])
    network.publish(name(0), {"registration": b"late"})
    network.run(3)
    assert served(network, name(2), name(0)) != b"late"
    assert served(network, name(1), name(0)) == b"late"
    network.faults.heal()
    assert network.run(10, until=lambda: served(network, name(2), name(0)) == b"late")
    assert network.faults.counts[faults.HELD] > 0
    assert not [one for host in network.running() for one in host.notices if isinstance(one, fx.PeerParted)]


def test_a_one_way_cut_ends_links_and_blocks_dials_both_ways():
    """A node that can only speak is given up by all; it comes back when the cut ends."""
    network = settled(3)
    network.faults.cut_ways({(name(1), name(0)), (name(2), name(0))})
    network.run(120)
    assert set() == peers(network, name(0))
    assert network.faults.counts[faults.BLOCKED_DIAL] > 0
    network.faults.heal()
    assert network.run(120, until=lambda: len(peers(network, name(0))) == 2)


def test_a_machine_without_power_leaves_links_half_open():
    """Nothing is closed and nothing answers, until silence or the restarted machine tells."""
    network = settled(3)
    network.run(20)
    network.power_off(name(2))
    assert network.faults.counts[faults.HALF_OPEN] == 2
    network.run(3)
    assert name(2) in peers(network, name(0))
    network.run(60)
    assert name(2) not in peers(network, name(0))
    network.start(name(2), [name(0)])
    assert network.settle(60)


def test_a_restarted_machine_resets_what_it_does_not_know():
    """Who still believes in a link of an earlier run is told by its first message."""
    network = settled(3)
    network.run(20)
    network.power_off(name(2))
    network.start(name(2))
    network.publish(name(0), {"registration": b"into the void"})
    network.run(30)
    assert network.faults.counts[faults.RESET] > 0
    assert served(network, name(2), name(0)) == b"into the void"
    assert name(2) in peers(network, name(0))


def test_a_paused_process_finds_everything_late_and_at_once():
    """Timers and messages wait for SIGCONT; the node sees the jump of its clock and blames nobody."""
    network = settled(4)
    network.run(30)
    for host in network.running():
        host.notices.clear()
    network.pause(name(1), 12.0)
    network.publish(name(0), {"registration": b"meanwhile"})
    network.run(11)
    assert served(network, name(1), name(0)) != b"meanwhile"
    network.run(3)
    assert served(network, name(1), name(0)) == b"meanwhile"
    assert network.faults.counts[faults.PAUSED] > 3
    assert not [one for one in network.hosts[name(1)].notices if isinstance(one, fx.PeerParted)]


@pytest.mark.parametrize("persists", range(4))
def test_a_crash_leaves_what_was_persisted_before_it_and_sends_nothing(persists):
    """Whichever effect is the last on the disk, the next run uses no number twice."""
    network = settled(4)
    host = network.hosts[name(1)]
    network.faults.crash_after(name(1), persists)
    epoch = host.disk.epoch
    turns = max(1, persists)
    for turn in range(turns):
        assert host.node is not None
        network.publish(name(1), {"registration": f"{turn}".encode()})
    assert host.node is None
    assert network.faults.counts[faults.CRASHED] == 1
    held = host.disk.lines[name(1)].digest.sequence
    network.run(5)
    network.start(name(1), [name(0)])
    assert network.settle(60)
    assert host.disk.epoch > epoch
    assert served(network, name(3), name(1)) == f"{turns - 1}".encode()
    assert held == 1 + persists
    assert network.verifier.forks == set()


@pytest.mark.parametrize("persists", [0, 1])
def test_a_crash_in_the_first_batch_of_a_start_is_survived(persists):
    """Before the epoch is durable, or right after: the next start takes a higher one."""
    network = settled(3)
    host = network.hosts[name(1)]
    network.kill(name(1))
    epoch = host.disk.epoch
    network.faults.crash_after(name(1), persists)
    network.start(name(1), [name(0)])
    assert host.node is None
    assert (host.disk.epoch > epoch) == (persists == 1)
    network.start(name(1), [name(0)])
    assert network.settle(60)
    assert network.verifier.forks == set()


@pytest.mark.parametrize("clock_behind_days", [0, 3])
def test_a_restored_backup_makes_no_fork(clock_behind_days):
    """A machine comes back with the disk of an earlier day, its clock behind perhaps: no number is used twice."""
    network = settled(4)
    host = network.hosts[name(1)]
    network.kill(name(1))
    host.clock_ahead_ms = -clock_behind_days * 24 * 3600 * 1000
    backup = host.disk.copy()
    network.start(name(1), [name(0)])
    for turn in range(3):
        network.publish(name(1), {"registration": f"{turn}".encode()})
        network.run(5)
    network.kill(name(1))
    newest = host.disk.lines[name(1)].order
    network.restore_disk(name(1), backup)
    assert host.disk.lines[name(1)].order < newest
    network.start(name(1), [name(0)])
    network.run(30)
    host.clock_ahead_ms = 0
    assert network.settle(60)
    assert host.disk.lines[name(1)].order > newest
    assert network.verifier.forks == set()


def test_a_cloned_machine_ends_in_a_stop_and_no_fork():
    """Two processes with one key and one disk: both notice, at least one stops, no number is used twice."""
    network = settled(5)
    network.run(5)
    network.clone(name(1), "clone.example.org")
    network.start("clone.example.org", [name(0)])
    for turn in range(6):
        network.run(30)
        for machine in (name(1), "clone.example.org"):
            network.publish(machine, {"registration": f"{turn} of {machine}".encode()})
    notices = [*network.hosts[name(1)].notices, *network.hosts["clone.example.org"].notices]
    assert [one for one in notices if isinstance(one, fx.EpochTaken)]
    assert [one for one in notices if isinstance(one, fx.PublishingStopped)]
    assert network.verifier.forks == set()
    assert network.settle(300)


def test_a_leap_passes_days_and_still_renews_digests():
    """Nine days in a moment: every digest is signed again in time and nothing expires."""
    network = settled(4)
    network.run(60)
    first = {host.name: host.disk.lines[host.name].digest.issued_at_ms for host in network.running()}
    start_ms, leaps = network.wall_ms, 0
    while network.wall_ms < start_ms + DIGEST_LIFETIME_MS * 9 / 7:
        network.timeline.leap(12 * 3600)
        network.run(5)
        leaps += 1
    assert leaps > 18
    assert network.settle(60)
    node = network.hosts[name(0)].node
    for line in node.registry.table:
        assert line.digest.issued_at_ms > first[line.digest.origin]
        assert line.digest.expires_at_ms > network.wall_ms
    assert len(peers(network, name(0))) == 3


def test_clock_steps_change_no_order():
    """A clock set back and forth by days while its node publishes: the newest digest is the last one made."""
    network = settled(4)
    host = network.hosts[name(1)]
    for turn, days in enumerate((-3, 0, -1, 0)):
        host.clock_ahead_ms = days * 24 * 3600 * 1000
        network.publish(name(1), {"registration": f"{turn}".encode()})
        network.run(5)
    assert network.settle(60)
    assert served(network, name(3), name(1)) == b"3"


def test_traffic_counts_frames_by_kind_and_pair():
    """What is counted is what was sent, and only while somebody counts."""
    network = settled(3)
    network.run(30)
    network.traffic = Traffic(by_pair=Counter())
    network.publish(name(0), {"registration": b"x" * 5000})
    network.run(2)
    assert network.traffic.messages["Answer"] >= 2
    assert network.traffic.size_bytes["Answer"] > 10_000
    assert network.traffic.by_pair[name(0), name(1)] > 5000
    assert network.traffic.total_bytes == sum(network.traffic.by_pair.values())
