"""
Listening and dialling: TCP, then TLS from trust, then a LinkConnection.

How connections are made, never whether: the core decides whom to dial.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from esgf_gossip.core.limits import HANDSHAKE_S, PENDING_HANDSHAKES
from esgf_gossip.core.model import Address
from esgf_gossip.net.driver import Driver
from esgf_gossip.net.link import LinkConnection
from esgf_gossip.trust.tls import ConnectionCreator

BACKLOG: Final = 256


class _LinkFactory(Factory):
    """Makes the LinkConnections of one direction."""

    noisy = False

    def __init__(self, driver: Driver, clock: Any, dialled: Address | None) -> None:
        self._driver = driver
        self._clock = clock
        self._dialled = dialled
        self._made: set[LinkConnection] = set()

    def buildProtocol(self, addr: IAddress | None) -> LinkConnection | None:  # noqa: ARG002 - Twisted's signature
        """Make a connection, or none where too many strangers are at the door already."""
        if self._dialled is None:
            self._made = {connection for connection in self._made if connection.is_pending}
            if len(self._made) >= PENDING_HANDSHAKES:
                return None
        connection = LinkConnection(self._driver, self._clock, self._dialled)
        self._made.add(connection)
        return connection


class Connections:
    """The listener of a node and its dials."""

    log = Logger()

    def __init__(self, driver: Driver, creator: ConnectionCreator, reactor: Any) -> None:
        self._driver = driver
        self._creator = creator
        self._reactor = reactor
        self._port: Any = None
        self._dials: set[Deferred[Any]] = set()
        driver.dial = self.dial

    def listen(self, address: Address) -> None:
        """
        Listen for peers.

        Raises:
            CannotListenError: the port is in use or the address not ours.
        """
        factory: Any = TLSMemoryBIOFactory(
            self._creator, False, _LinkFactory(self._driver, self._reactor, None)
        )
        factory.noisy = False
        self._port = self._reactor.listenTCP(address[1], factory, backlog=BACKLOG, interface=address[0])

    def dial(self, address: Address) -> None:
        """Connect to an address; the driver hears of it as a link or as a failed dial."""
        factory: Any = TLSMemoryBIOFactory(
            self._creator, True, _LinkFactory(self._driver, self._reactor, address)
        )
        factory.noisy = False
        endpoint = HostnameEndpoint(self._reactor, address[0], address[1], timeout=HANDSHAKE_S)
        attempt: Deferred[Any] = endpoint.connect(factory)
        self._dials.add(attempt)

        def ended(result: Any) -> None:
            self._dials.discard(attempt)
            if isinstance(result, Failure):
                self._driver.dial_failed(address, _reason(result))

        attempt.addBoth(ended)

    def stop(self) -> Deferred[Any] | None:
        """Stop listening and dialling."""
        for attempt in list(self._dials):
            attempt.cancel()
        port, self._port = self._port, None
        return None if port is None else port.stopListening()


def _reason(failure: Failure) -> str:
    error = failure.value
    if isinstance(error, ConnectingCancelledError):
        return "cancelled"
    if isinstance(error, DNSLookupError):
        return "the name is not known (DNS)"
    if isinstance(error, ConnectError):
        return str(error).rstrip(".") or type(error).__name__
    return f"{type(error).__name__}: {error}"
