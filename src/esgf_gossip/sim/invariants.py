"""
What must hold in every history, watched while it is played and judged at its end.

Sees disks and tables from outside; changes nothing. Numbers are those of the
invariants in docs/simulator.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from esgf_gossip.core import effects as fx
from esgf_gossip.core.membership import is_member
from esgf_gossip.core.model import Head
from esgf_gossip.core.publication import PROTOCOL_ENTRIES
from esgf_gossip.sim.host import Host
from esgf_gossip.sim.network import VirtualNetwork


class Watch:
    """
    The floors of every machine, by what reached its disk.

    ``fallen`` lists lines that were replaced by lower ones, ``stopped`` nodes
    that publish no more, ``forks`` what nodes themselves proved to be forks.
    """

    def __init__(self, network: VirtualNetwork) -> None:
        self.fallen: list[str] = []
        self.stopped: list[str] = []
        self.forks: list[str] = []
        self._network = network
        self._floors: dict[str, dict[str, Head]] = {}
        network.on_persist = self._persisted
        network.on_notice = self._told

    def disk_replaced(self, machine: str) -> None:
        """Begin anew with the disk as it is now: what it lost nobody can ask of it."""
        disk = self._network.hosts[machine].disk
        self._floors[machine] = {origin: line.head for origin, line in disk.lines.items()}

    def _persisted(self, host: Host, effect: fx.Output) -> None:
        if isinstance(effect, fx.PersistLine):
            head = effect.line.head
            floors = self._floors.setdefault(host.machine, {})
            if not head.is_above(floors.get(head.origin)):
                self.fallen.append(f"{host.machine} replaced its line of {head.origin} by one not above it")
            floors[head.origin] = head
        elif isinstance(effect, fx.RemoveLine):
            self.fallen.append(
                f"{host.machine} removed its line of {effect.origin} though nothing was revoked"
            )

    def _told(self, host: Host, notice: fx.Output) -> None:
        if isinstance(notice, fx.PublishingStopped):
            self.stopped.append(f"{host.machine}: {notice.reason}")
        elif isinstance(notice, fx.ForkProven):
            self.forks.append(f"{host.machine} proved a fork of {notice.origin}")

    # ----------------------------------------------------------------- the end

    def floors_held(self) -> Iterator[str]:
        """Yield where a running node holds less than reached its disk once."""
        for host in self._network.running():
            assert host.node is not None
            for origin, floor in self._floors.get(host.machine, {}).items():
                head = host.node.registry.table.head(origin)
                if head is None or floor.is_above(head):
                    yield f"{host.machine} holds less of {origin} than before"

    def resurrected(self, left: Collection[str]) -> Iterator[str]:
        """Yield nodes that left, as somebody who runs has on disk, and are a member again for somebody."""
        now_ms = self._network.wall_ms
        known = {
            origin
            for host in self._network.running()
            for origin in left
            if origin in host.disk.lines and host.disk.lines[origin].digest.leaving
        }
        for host in self._network.running():
            assert host.node is not None
            for origin in sorted(known):
                line = host.node.registry.table.line(origin)
                if line is not None and (not line.digest.leaving or is_member(line, now_ms)):
                    yield f"{origin} left and is back at {host.machine}"


def disagreements(network: VirtualNetwork) -> Iterator[str]:
    """Yield where running nodes do not hold what running origins last published, or not what their disk holds."""
    running = network.running()
    for host in running:
        assert host.node is not None
        registry = host.node.registry
        held = {line.digest.origin: line.head for line in registry.table}
        if held != {origin: line.head for origin, line in host.disk.lines.items()}:
            yield f"the table of {host.machine} is not that of its disk"
        for origin in running:
            line = registry.table.line(origin.name)
            # What the protocol itself says may change at any time; roots have been compared.
            names = set() if line is None else set(line.digest.entries) - PROTOCOL_ENTRIES
            if {name: registry.entry(origin.name, name) for name in names} != origin.entries:
                yield f"{host.machine} does not hold what {origin.name} published"
