"""Trust objects in a federation: how fast one reaches everybody, and that no partition keeps one out."""

from esgf_gossip.core import effects as fx
from esgf_gossip.sim.network import a_network
from esgf_gossip.sim.trust import an_object

KEY = "crl/00ff"
DAY_S = 24 * 3600.0


def a_federation(count, seed):
    """Return a network whose nodes hold one set, and their names."""
    network = a_network(count, seed)
    assert network.run(120.0, until=network.converged)
    return network, list(network.hosts)


def numbers(network):
    """Return the number in force on each running node."""
    tables = [host.node.registry.trust for host in network.hosts.values() if host.node is not None]
    return {None if KEY not in table else table.get(KEY).number for table in tables}


def test_a_revocation_offered_on_one_node_reaches_fifty_in_a_second():
    """Whoever brings it in, everybody has it within a few hops, and each asked for it once."""
    network, names = a_federation(50, 1)
    network.offer_trust(names[17], [(KEY, an_object(KEY, 1))])
    network.run(60.0)
    assert numbers(network) == {1}
    network.offer_trust(names[33], [(KEY, an_object(KEY, 2))])
    assert network.run(1.5, lambda: numbers(network) == {2})
    accepted = [
        notice
        for host in network.hosts.values()
        for notice in host.notices
        if isinstance(notice, fx.TrustAccepted)
    ]
    assert len(accepted) == 2 * len(names)


def test_both_halves_of_a_partition_of_forty_days_end_with_the_higher_number():
    """What either half put in force meanwhile is in force everywhere after it heals, and nothing falls."""
    network, names = a_federation(12, 2)
    halves = {name: number < 6 for number, name in enumerate(names)}
    network.faults.cut = lambda one, other: halves[one] != halves[other]
    network.run(60.0)
    network.offer_trust(names[0], [(KEY, an_object(KEY, 5))])
    network.offer_trust(names[8], [(KEY, an_object(KEY, 4))])
    network.run(60.0)
    assert numbers(network) == {4, 5}, "the cut did nothing"
    left_s = 40 * DAY_S
    while left_s > 0.0:
        left_s -= network.timeline.leap(left_s)
        network.run(30.0)
    assert numbers(network) == {4, 5}
    expired = network.hosts[names[0]].node.registry.table.line(names[8]).digest.expires_at_ms
    assert expired < network.wall_ms, "the partition was not long enough"
    network.faults.cut = None
    assert network.run(1800.0, lambda: numbers(network) == {5})
