"""
A federation of thousands that starts in step: everybody holds everything and is linked to its neighbours.

Each node starts for real and signs its digest; what would be minutes of first
exchanges is left out: the registries are copies of one, the links are simply there.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from esgf_gossip.core import overlay
from esgf_gossip.core.registry import Registry
from esgf_gossip.sim.disk import Disk, NoDisk
from esgf_gossip.sim.network import VirtualNetwork

# Hellos, pings and the drawing of the rings are over by then.
GREETING_S = 3.0


def start_in_step(network: VirtualNetwork, names: Sequence[str], *, keep_disks: bool = False) -> None:
    """
    Start these machines in agreement and let them greet each other.

    Args:
        network: empty so far.
        names: of the machines.
        keep_disks: whether machines may restart later; costs memory for each line and node.
    """
    # Millions of objects that all live to the end: to go through them again and again is a third of the time.
    gc.disable()
    try:
        _start(network, names, keep_disks=keep_disks)
    finally:
        gc.freeze()
        gc.enable()
    network.run(GREETING_S)
    assert len(network.roots()) == 1


def _start(network: VirtualNetwork, names: Sequence[str], *, keep_disks: bool) -> None:
    whole = Registry()
    for name in names:
        network.add(name, disk=Disk() if keep_disks else NoDisk())
        node = network.start(name).node
        assert node is not None
        (line,) = node.registry.table
        whole.accept(line, node.registry.bodies_of(line.digest))
    members = frozenset(names)
    mesh = overlay.is_mesh(len(members), was_mesh=True)
    for name in names:
        host = network.hosts[name]
        assert host.node is not None
        host.node.registry.adopt(whole)
        if keep_disks:
            host.disk.lines.update({line.digest.origin: line for line in whole.table})
            for line in whole.table:
                host.disk.bodies.update(whole.bodies_of(line.digest))
        host.node.links.roster_moved(network.at(host))
    for name in names:
        for other in sorted(overlay.neighbours(name, members, mesh=mesh)):
            if name < other:
                network.link(name, other)
