"""Keepers of documents on the nodes of a virtual network: real cores, real rooms, no process. No test lives here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.task import Clock

from esgf_gossip.config import DocumentsTable
from esgf_gossip.document_desk import DocumentDesk
from esgf_gossip.document_keeper import DocumentKeeper
from esgf_gossip.documents.leaves import LOG
from esgf_gossip.documents.library import Library
from esgf_gossip.documents.names import parse_name
from esgf_gossip.sim.network import VirtualNetwork, a_network
from esgf_gossip.storage.database import StorageError
from esgf_gossip.web.events import EventHub
from helpers.writers import ROLES, picture, put_leaves

A, B, C = (f"n{number:02}.example.org" for number in range(3))
NAME = parse_name("CMIP6/publisher/facets.ini")


def settings(**changes: Any) -> DocumentsTable:
    """Return the table ``[documents]``, empty but for what is given."""
    return DocumentsTable(**{"projects": (), "export": {}, "hook": (), **changes})


class Office:
    """The keeper of one host and what it told."""

    def __init__(self, network: VirtualNetwork, name: str, table: DocumentsTable, clock: Clock) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.events = EventHub()
        self.events.subscribe(lambda event: self.told.append((event.name, dict(event.data))))
        self.is_broken = False
        self._network, self._host, self.name = network, network.hosts[name], name
        assert self._host.node is not None
        self.keeper = DocumentKeeper(
            self._host.node,
            self._read,
            self._append,
            self,
            clock,
            lambda: network.wall_ms,
        )
        self.keeper.start(table)

    def _read(self, origin: str, log: str, start: int, end: int, most_bytes: int) -> list[bytes]:
        if self.is_broken:
            raise StorageError("registry.db: the disk cannot be read")
        kept = self._host.disk.leaves.get((origin, log), {})
        return [kept[number] for number in range(start, end) if number in kept]

    def _append(self, log: str, leaves: Any) -> None:
        self._network.append(self.name, log, leaves)

    @property
    def desk(self) -> DocumentDesk:
        return self.keeper.desk

    def moved(self) -> None:
        """Draw nothing."""

    @property
    def library(self) -> Library:
        return self.keeper.library

    def text(self, name: Any = NAME) -> bytes:
        """Return the content of the only head."""
        return self.desk.body(self.desk.find(name))


class Offices:
    """A network of nodes that may write, but for those named, and a keeper on each."""

    def __init__(self, size: int = 3, seed: int = 1, without: tuple[str, ...] = (), **changes: Any) -> None:
        self.clock = Clock()
        self.network = a_network(size, seed)
        self.verifier = self.network.verifier
        names = list(self.network.hosts)
        self.verifier.roles.update({name: ROLES for name in names if name not in without})
        self.network.on_notice = self._notice
        self.by_name: dict[str, Office] = {}
        assert self.network.run(60, until=self.network.converged)
        for name in names:
            self.open(name, **changes)
            # Their first digests were verified before anybody had a role.
            self.network.publish(name, {"registration": b"again"})
        self.settle()

    def __getitem__(self, name: str) -> Office:
        return self.by_name[name]

    def open(self, name: str, **changes: Any) -> Office:
        """Put a keeper on a running node."""
        office = self.by_name[name] = Office(self.network, name, settings(**changes), self.clock)
        return office

    def _notice(self, host: Any, notice: Any) -> None:
        if host.machine in self.by_name:
            self.by_name[host.machine].keeper.notice(notice)

    def settle(self, seconds: float = 30.0) -> None:
        """Let the network and the keepers come to rest."""
        self.network.run(seconds)
        for _ in range(300):
            self.clock.advance(0)
        self.clock.advance(6)

    def agree(self) -> bool:
        """Tell whether all keepers say the same of all documents."""
        pictures = [picture(office.library) for office in self.by_name.values()]
        return all(one == pictures[0] for one in pictures)


def an_office() -> Office:
    """Return the keeper of a node alone, with a document of one version and a leaf that cannot be read."""
    offices = Offices(1)
    offices[A].desk.put(NAME, b"[facets]\n")
    offices.network.append(A, LOG, [b"garbage"])
    offices.settle(1)
    return offices[A]


def some_documents(said: Iterable[str]) -> DocumentDesk:
    """Return the desk of a node with a document in conflict, one deleted, one for each text, and something refused."""
    offices = Offices(2)
    offices.network.faults.partition([A], [B])
    for name in (A, B):
        offices[name].desk.put(NAME, f"[facets]\nwritten_by = {name}\n".encode())
    offices.network.faults.heal()
    gone = parse_name("CMIP6/publisher/gone")
    offices[A].desk.put(gone, b"soon gone")
    offices[A].desk.put(gone, None)
    for number, text in enumerate(said):
        offices[A].desk.put(parse_name(f"CMIP6/said/text-{number}"), text.encode("utf-8", "replace"))
    offices.network.append(B, LOG, [b"garbage", *put_leaves(parse_name("OTHER/said/x"), b"no role")])
    offices.settle(600)
    assert offices.agree()
    return offices[A].desk
