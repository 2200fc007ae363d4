"""Two hundred seeds of random small disasters: whatever happens, what runs in the end agrees."""

from random import Random

import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.sim.network import VirtualNetwork

SEEDS = 200


def a_cut(ways):
    """Return a cut of these directions."""
    return lambda a, b: (a, b) in ways


def a_disaster(seed):
    """Run one schedule of kills, restarts, cuts, changes, lost disks; return the network and what was done."""
    random = Random(seed)
    network = VirtualNetwork(seed)
    names = [f"n{number}.example.org" for number in range(random.randint(2, 6))]
    done = []
    for name in names:
        network.add(name)
        network.start(name, random.sample(names[:1], 1) if name != names[0] else [])
    for step in range(random.randint(3, 8)):
        network.run(random.uniform(0.1, 15))
        name = random.choice(names)
        is_running = network.hosts[name].node is not None
        action = random.choice(["kill", "change", "change", "cut", "heal", "stop", "lose"])
        if action in ("kill", "stop") and is_running:
            (network.kill if action == "kill" else network.stop)(name)
        elif action == "change" and is_running:
            network.publish(name, {"registration": f"{step}".encode(), "metrics": random.randbytes(50)})
        elif action == "cut":
            one, two = random.sample(names, 2)
            network.faults.cut = a_cut({(one, two)} if random.random() < 0.5 else {(one, two), (two, one)})
        elif action == "heal":
            network.faults.cut = None
        elif action == "lose" and not is_running:
            network.lose_disk(name)
        elif not is_running:
            network.start(name, names[:1])
        done.append((action, name))
    network.faults.cut = None
    for name in names:
        if network.hosts[name].node is None:
            network.start(name, names[:2])
    return network, done


@pytest.mark.parametrize("block", range(10))
def test_random_disasters_end_in_equal_roots(block):
    """Kill, restart, cut, change, in any order: equal roots, no fork, orders that never fall."""
    faults = 0
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        network, done = a_disaster(seed)
        faults += sum(action in ("kill", "cut", "stop", "lose") for action, _ in done)
        assert network.run(240, until=network.converged), f"seed {seed}: {done}"
        network.run(60)  # what observers had to say is said, withdrawn, and heard by all
        assert network.settle(30), f"seed {seed}: {done}"
        assert len(network.roots()) == 1, f"seed {seed}: {done}"
        for host in network.running():
            table = host.node.registry.table
            assert {line.digest.origin: line.head for line in table} == {
                name: line.head for name, line in host.disk.lines.items()
            }, f"seed {seed}"
            assert all(host.node.registry.missing(line.digest) == [] for line in table), f"seed {seed}"
            for other in network.running():
                assert host.entries["registration"] == other.node.registry.entry(host.name, "registration"), (
                    f"seed {seed}"
                )
            assert not [
                one for one in host.notices if isinstance(one, fx.ForkProven | fx.PublishingStopped)
            ], f"seed {seed}"
    assert faults > 20
