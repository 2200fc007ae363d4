"""
The HTTP service assembled: pages, accepted Host names, bounds of connections.

Only assembly lives here. The clock comes in as argument; a test gives its own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.server import Request, Site

from esgf_gossip.web.api import Facade, RootPage
from esgf_gossip.web.connection import IDLE_S, NodeChannel, NodeRequest
from esgf_gossip.web.host_names import HostNames

# Event clients included; the rest is a portal or two with their keep-alive connections.
CONNECTIONS: Final = 384


class NodeSite(Site):
    """
    A Site that knows its names, counts its connections and writes no access log.

    Twisted's access log goes to the daemon's log and wakes the process every
    second to write the date; a proxy in front is the place for one.
    """

    protocol = NodeChannel
    noisy = False

    def __init__(self, root: RootPage, host_names: HostNames, clock: IReactorTime) -> None:
        super().__init__(root, NodeRequest, timeout=IDLE_S, reactor=clock, parsePOSTFormSubmission=False)
        self.host_names: Final = host_names
        self._root = root
        self._open: set[NodeChannel] = set()

    def buildProtocol(self, addr: IAddress | None) -> NodeChannel | None:
        """Accept a connection, or None (it is closed) where there are as many as there may be."""
        return None if len(self._open) >= CONNECTIONS else super().buildProtocol(addr)

    def connected(self, channel: NodeChannel) -> None:
        """Count a connection."""
        self._open.add(channel)

    def disconnected(self, channel: NodeChannel) -> None:
        """Count a connection no more."""
        self._open.discard(channel)

    def startFactory(self) -> None:
        """Open no access log."""

    def stopFactory(self) -> None:
        """End the event streams: the port was closed."""
        self._root.events.close()

    def log(self, request: Request) -> None:
        """Write no access log."""


def make_site(facade: Facade, hosts: Collection[str], clock: IReactorTime) -> NodeSite:
    """
    Assemble the HTTP service.

    Args:
        facade: what it shows of the daemon.
        hosts: accepted Host names and addresses, ports ignored.
        clock: for timeouts and heartbeats.

    Raises:
        ValueError: one of the hosts is no host name.
    """
    return NodeSite(RootPage(facade, clock), HostNames(hosts), clock)
