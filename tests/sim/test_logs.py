"""Event logs in a virtual network: they spread, survive what disks and machines do, and never prove a lie of the honest."""

from random import Random

import pytest

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.log_keeping import LOST_KEPT_S
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree
from esgf_gossip.core.messages import AskLeaves, Leaves
from esgf_gossip.sim.network import VirtualNetwork, a_network
from esgf_gossip.sim.traffic import Traffic

A, B, C = (f"n{number:02}.example.org" for number in range(3))
LOG = "datasets"


def events(low, high, what="event"):
    """Return events that tell their number."""
    return [f"{what} {number}".encode() for number in range(low, high)]


def leaves(network, name, origin=A, log=LOG):
    """Return the leaves a node has on its disk, in order."""
    kept = network.hosts[name].disk.leaves.get((origin, log), {})
    return [leaf for _, leaf in sorted(kept.items())]


def holds(network, expected, names=None, origin=A):
    """Tell whether all running nodes have these leaves, and the tree of them."""
    names = names or [host.name for host in network.running()]
    return all(
        leaves(network, name, origin) == expected
        and network.hosts[name].node.logs.held.get(origin, LOG).tree.root == Tree().extended(expected).root
        for name in names
    )


def retold(network, kind):
    """Return the notices of a kind of all hosts."""
    return [one for host in network.hosts.values() for one in host.notices if isinstance(one, kind)]


def a_settled_network(size=3, seed=1):
    """Return nodes that hold one table."""
    network = a_network(size, seed)
    assert network.run(60, until=network.converged)
    return network


class Record(Traffic):
    """Keeps what was sent as (sender, receiver, message)."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def note(self, sender, receiver, message, payload_bytes):
        """Keep a message."""
        self.sent.append((sender, receiver, message))


def isolated(name):
    """Return a cut around one node."""
    return lambda one, other: name in (one, other)


def test_appended_events_reach_every_node():
    """Also those that are no neighbours of the origin: leaves follow the digest from peer to peer."""
    network = a_settled_network(16, 3)
    network.append(A, LOG, events(0, 10))
    network.append(A, LOG, events(10, 30))
    expected = events(0, 30)
    assert network.run(10, until=lambda: holds(network, expected))
    assert retold(network, lx.LogRewritten) == []
    accepted = [one for one in network.hosts[B].notices if isinstance(one, lx.LeavesAccepted)]
    assert sum(one.count for one in accepted) == 30


def test_several_blocks_reach_a_fresh_node_and_one_that_was_away():
    """Above 4,096 leaves each block is verified by itself; who was away fetches only what is missing."""
    network = a_settled_network(2, 5)
    network.append(A, LOG, events(0, 5000))
    assert network.run(30, until=lambda: holds(network, events(0, 5000)))
    network.kill(B)
    network.append(A, LOG, events(5000, 20_000))
    network.add(C)
    network.traffic = Record()
    network.start(C, [A])
    network.start(B, [A])
    assert network.run(60, until=lambda: holds(network, events(0, 20_000)))
    asked = [
        message
        for sender, _, message in network.traffic.sent
        if sender == B and isinstance(message, AskLeaves)
    ]
    assert min(one.start for one in asked) == 5000
    given = sum(len(one.leaves) for _, to, one in network.traffic.sent if to == B and isinstance(one, Leaves))
    assert given == 15_000


def test_dropped_events_are_dropped_everywhere_and_a_fresh_node_begins_after_them():
    """Whoever drops leaves keeps the left-hand hashes, so the root is verified without them."""
    network = a_settled_network(2, 7)
    network.append(A, LOG, events(0, 10_000))
    assert network.run(30, until=lambda: holds(network, events(0, 10_000)))
    host = network.hosts[A]
    network.perform(host, host.node.retain(LOG, 9000, network.at()))
    network.add(C)
    network.start(C, [B])
    kept = events(8192, 10_000)
    assert network.run(30, until=lambda: all(leaves(network, name) == kept for name in (A, B, C)))
    network.append(A, LOG, events(10_000, 15_000))
    kept = events(8192, 15_000)
    assert network.run(30, until=lambda: all(leaves(network, name) == kept for name in (A, B, C)))
    assert {host.node.logs.held.get(A, LOG).tree.root for host in network.running()} == {
        Tree().extended(events(0, 15_000)).root
    }


def test_a_restart_costs_no_leaf():
    """Every start is a new birth; who holds the same past takes it over without a question."""
    network = a_settled_network(3, 9)
    network.append(A, LOG, events(0, 500))
    assert network.run(10, until=lambda: holds(network, events(0, 500)))
    born = network.hosts[B].node.logs.held.get(A, LOG).born
    network.kill(A)
    network.traffic = Record()
    network.start(A, [B])
    assert network.run(
        30, until=lambda: all(network.hosts[name].node.logs.held.get(A, LOG).born != born for name in (B, C))
    )
    network.append(A, LOG, events(500, 510))
    assert network.run(30, until=lambda: holds(network, events(0, 510)))
    asked = [message for _, _, message in network.traffic.sent if isinstance(message, AskLeaves)]
    assert {one.start for one in asked} == {500}
    assert retold(network, lx.LogRestarted) == []


def test_a_lost_disk_is_given_back_by_peers():
    """The origin publishes without its log first; its peers keep the leaves, show their digest and give them back."""
    network = a_settled_network(3, 11)
    network.append(A, LOG, events(0, 9000))
    assert network.run(30, until=lambda: holds(network, events(0, 9000)))
    network.kill(A)
    network.lose_disk(A)
    network.start(A, [B])
    assert network.run(60, until=lambda: holds(network, events(0, 9000)))
    assert sum(one.count for one in retold(network, lx.LogRecovered)) == 9000
    network.append(A, LOG, events(9000, 9010))
    assert network.run(30, until=lambda: holds(network, events(0, 9010)))
    assert retold(network, lx.LogRewritten) == []
    assert retold(network, lx.LogRestarted) == []


def test_a_lost_disk_with_a_new_key_is_given_back_too():
    """Who loses a machine often gets a new certificate: the old chain comes along with the old digest."""
    network = a_settled_network(3, 12)
    network.append(A, LOG, events(0, 40))
    assert network.run(30, until=lambda: holds(network, events(0, 40)))
    network.kill(A)
    network.lose_disk(A)
    network.hosts[A].generation = 2
    network.start(A, [B])
    assert network.run(60, until=lambda: holds(network, events(0, 40)))


def test_a_restored_backup_that_appends_before_it_meets_anybody_loses_nothing():
    """Its own new events stay, the forgotten ones are put behind them, and nothing proves a rewriting."""
    network = a_settled_network(3, 13)
    network.append(A, LOG, events(0, 100))
    assert network.run(10, until=lambda: holds(network, events(0, 100)))
    backup = network.hosts[A].disk.copy()
    network.append(A, LOG, events(100, 160))
    assert network.run(10, until=lambda: holds(network, events(0, 160)))
    network.kill(A)
    network.hosts[A].disk = backup
    network.faults.cut = isolated(A)
    network.start(A, [B])
    network.append(A, LOG, events(0, 7, "new"))
    assert network.run(20, until=lambda: len(leaves(network, A)) == 107)
    network.faults.heal()
    merged = [*events(0, 100), *events(0, 7, "new"), *events(100, 160)]
    assert network.run(30, until=lambda: holds(network, merged, [A]))
    # Peers keep what they had until the origin had its time to take it back, then follow its newest birth.
    assert network.run(LOST_KEPT_S + 60, until=lambda: holds(network, merged))
    assert retold(network, lx.LogRewritten) == []
    assert retold(network, fx.PublishingStopped) == []


def test_a_restored_backup_goes_on_where_its_peers_are():
    """Where nothing was appended meanwhile, peers keep every leaf and fetch none."""
    network = a_settled_network(3, 15)
    network.append(A, LOG, events(0, 100))
    assert network.run(10, until=lambda: holds(network, events(0, 100)))
    backup = network.hosts[A].disk.copy()
    network.append(A, LOG, events(100, 160))
    assert network.run(10, until=lambda: holds(network, events(0, 160)))
    network.kill(A)
    network.hosts[A].disk = backup
    network.traffic = Record()
    network.start(A, [B])
    assert network.run(60, until=lambda: holds(network, events(0, 160)))
    network.append(A, LOG, [b"next"])
    assert network.run(60, until=lambda: holds(network, [*events(0, 160), b"next"]))
    given = [
        (to, leaf) for _, to, one in network.traffic.sent if isinstance(one, Leaves) for leaf in one.leaves
    ]
    assert [(A, leaf) for leaf in events(100, 160)] + [(B, b"next"), (C, b"next")] == sorted(
        given, key=lambda pair: (pair[0], len(pair[1]), pair[1])
    )
    assert retold(network, lx.LogRewritten) == []


def test_a_cloned_machine_proves_no_rewriting():
    """Two machines from one disk append different events: never is one birth told two ways."""
    network = a_settled_network(3, 17)
    network.append(A, LOG, events(0, 20))
    assert network.run(10, until=lambda: holds(network, events(0, 20)))
    original, clone = network.hosts[A], network.clone(A, "copy")
    network.start("copy", [C])
    for host, what in ((original, "one"), (clone, "two")):
        network.perform(host, host.node.append(LOG, events(0, 5, what), network.at()))
    network.run(LOST_KEPT_S + 100)
    assert retold(network, lx.LogRewritten) == []
    assert any("clone" in one.reason for one in retold(network, fx.PublishingStopped))


def test_the_log_of_a_node_that_left_is_still_given():
    """Events outlive the membership of their origin."""
    network = a_settled_network(3, 19)
    network.append(A, LOG, events(0, 50))
    assert network.run(10, until=lambda: holds(network, events(0, 50)))
    network.leave(A)
    network.run(30)
    fresh = network.add("n09.example.org")
    network.start(fresh.name, [B])
    assert network.run(60, until=lambda: holds(network, events(0, 50), [B, C, fresh.name]))


def test_leaves_that_nobody_can_give_back_are_let_go():
    """Only a part of the network had them: after a while their holder follows the origin's newest birth."""
    network = a_settled_network(3, 21)
    network.append(A, LOG, events(0, 30))
    assert network.run(10, until=lambda: holds(network, events(0, 30)))
    # The origin's disk and its peer's leaves go the same way; one holder is cut off until all is over.
    for name in (A, B):
        network.kill(name)
        network.lose_disk(name)
    network.faults.cut = isolated(C)
    network.start(A, [B])
    network.start(B, [A])
    network.append(A, LOG, events(0, 40, "again"))
    assert network.run(20, until=lambda: holds(network, events(0, 40, "again"), [A, B]))
    network.run(30)
    # Its answer to who shows it is lost: the holder is heard, what it holds is refused.
    held = network.hosts[C].node.logs.held
    network.hosts[C].disk.leaves[A, LOG] = {}
    assert held.get(A, LOG).tree.size == 30
    network.faults.heal()
    network.run(LOST_KEPT_S + 200)
    assert holds(network, events(0, 40, "again"), [A, B])
    assert network.hosts[C].node.logs.held.get(A, LOG).tree.size == 40
    assert [type(one) for one in network.hosts[C].notices if isinstance(one, lx.LogRestarted)] != []


@pytest.mark.parametrize("block", range(6))
def test_random_disasters_never_prove_a_rewriting_and_end_in_equal_logs(block):
    """Kills, cuts, backups, lost disks, appends at any time: in the end all hold what the origin holds."""
    happened, recovered = set(), 0
    for seed in range(block * 20, block * 20 + 20):
        random = Random(seed)
        network = VirtualNetwork(seed)
        names = [A, B, C][: random.randint(2, 3)]
        for name in names:
            network.add(name)
            network.start(name, [] if name == A else [A])
        backups, number = {}, 0
        for _step in range(random.randint(6, 16)):
            network.run(random.uniform(0.05, 6))
            name = random.choice(names)
            host = network.hosts[name]
            action = random.choice(["append", "append", "kill", "kill", "backup", "cut", "heal"])
            if action == "append" and host.node is not None and not host.node.origin.publication.stopped:
                count = random.choice([1, 3, BLOCK_LEAVES])
                network.append(name, LOG, events(number, number + count, name))
                number += count
            elif action == "kill" and host.node is not None:
                network.kill(name)
                fate = random.choice(["stays", "stays", "lost", "restored"])
                if fate == "lost":
                    network.lose_disk(name)
                elif fate == "restored" and name in backups:
                    host.disk = backups[name].copy()
                    happened.add("restored")
                happened.add(fate)
            elif action == "backup" and host.node is not None:
                backups[name] = host.disk.copy()
            elif action == "cut" and random.random() < 0.5:
                network.faults.cut = isolated(name)
            elif action == "heal":
                network.faults.heal()
            if host.node is None and random.random() < 0.7:
                network.start(name, [one for one in names if one != name][:1])
        network.faults.heal()
        for name in names:
            if network.hosts[name].node is None:
                network.start(name, [one for one in names if one != name])
        network.run(LOST_KEPT_S + 400)
        assert retold(network, lx.LogRewritten) == [], f"seed {seed}"
        recovered += len(retold(network, lx.LogRecovered))
        for origin in names:
            for name in names:
                assert leaves(network, name, origin) == leaves(network, origin, origin), f"seed {seed}"
    assert {"restored", "lost", "stays"} <= happened
    assert recovered > 0
