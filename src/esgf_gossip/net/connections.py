"""
Listening and dialling: TCP, then TLS from trust, then a LinkConnection.

How connections are made, never whether: the core decides whom to dial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from esgf_gossip.core.limits import HANDSHAKE_CROWDED_S, HANDSHAKE_S, PENDING_HANDSHAKES
from esgf_gossip.core.messages import TrustHeads
from esgf_gossip.core.model import Address
from esgf_gossip.net.driver import Driver
from esgf_gossip.net.link import LinkConnection
from esgf_gossip.net.trust_door import Visit
from esgf_gossip.trust.tls import ConnectionCreator

BACKLOG: Final = 256
TOO_MANY: Final = "too many connections at the door"


class _LinkFactory(Factory):
    """Makes the LinkConnections of one direction; ``made`` are those that are not over, in order."""

    noisy = False

    def __init__(self, driver: Driver, clock: Any, dialled: Address | None) -> None:
        self._driver = driver
        self._clock = clock
        self._dialled = dialled
        self._made: list[LinkConnection] = []

    def buildProtocol(self, addr: IAddress | None) -> LinkConnection:  # noqa: ARG002 - Twisted's signature
        """Make a connection."""
        connection = LinkConnection(self._driver, self._clock, self._dialled)
        self._made.append(connection)
        return connection

    def unsettled(self) -> list[LinkConnection]:
        """Return the connections on their way up or down, the oldest first."""
        self._made = [connection for connection in self._made if not connection.is_over]
        return [connection for connection in self._made if connection.is_unsettled]


class _Door(TLSMemoryBIOFactory):  # type: ignore[misc]
    """
    Lets strangers in, not more than PENDING_HANDSHAKES of them at a time.

    The bound is kept here, below TLS: TLSMemoryBIOFactory cannot bear a wrapped
    factory that makes no protocol.
    """

    def __init__(self, creator: ConnectionCreator, links: _LinkFactory, driver: Driver, reactor: Any) -> None:
        super().__init__(creator, False, links, reactor)
        self.noisy = False
        self._links = links
        self._driver = driver
        self._reactor = reactor

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make a connection, or none where too many strangers are at the door already."""
        unsettled = self._links.unsettled()
        if len(unsettled) >= PENDING_HANDSHAKES:
            crowd, count = Counter(one.remote_host for one in unsettled).most_common(1)[0]
            if count > 1:
                # One address that stalls: it makes room itself, and keeps nobody else out.
                oldest = next(one for one in unsettled if one.remote_host == crowd)
            else:
                # From everywhere, after a blackout say: who came first is nearly in, or stalls.
                oldest = unsettled[0]
                if self._reactor.seconds() - oldest.made_at_s < HANDSHAKE_CROWDED_S:
                    self._driver.refused(str(getattr(addr, "host", "?")), TOO_MANY)
                    return None
            oldest.abort(TOO_MANY)
        return super().buildProtocol(addr)


class Connections:
    """The listener of a node and its dials."""

    log = Logger()

    def __init__(self, driver: Driver, creator: ConnectionCreator, reactor: Any) -> None:
        self._driver = driver
        self._creator = creator
        self._reactor = reactor
        self._port: Any = None
        self._dials: set[Deferred[Any]] = set()
        self._links = _LinkFactory(driver, reactor, None)
        driver.dial = self.dial

    def listen(self, address: Address) -> None:
        """
        Listen for peers.

        Raises:
            CannotListenError: the port is in use or the address not ours.
        """
        factory = _Door(self._creator, self._links, self._driver, self._reactor)
        self._port = self._reactor.listenTCP(address[1], factory, backlog=BACKLOG, interface=address[0])

    def dial(self, address: Address) -> None:
        """Connect to an address; the driver hears of it as a link or as a failed dial."""
        factory: Any = TLSMemoryBIOFactory(
            self._creator, True, _LinkFactory(self._driver, self._reactor, address), self._reactor
        )
        factory.noisy = False
        attempt: Deferred[Any] = self._endpoint(address).connect(factory)
        self._dials.add(attempt)

        def ended(result: Any) -> None:
            self._dials.discard(attempt)
            if isinstance(result, Failure):
                self._driver.dial_failed(address, _reason(result))

        attempt.addBoth(ended)

    def visit(
        self, address: Address, said: Iterable[TrustHeads], done: Callable[[list[tuple[str, bytes]]], None]
    ) -> None:
        """Fetch public trust objects from an address; ``done`` gets what came, nothing where it cannot be reached."""
        factory: Any = TLSMemoryBIOFactory(
            self._creator.for_visits,
            True,
            Factory.forProtocol(lambda: Visit(said, self._reactor, done)),
            self._reactor,
        )
        factory.noisy = False
        factory.wrappedFactory.noisy = False
        attempt: Deferred[Any] = self._endpoint(address).connect(factory)
        self._dials.add(attempt)

        def ended(result: Any) -> None:
            self._dials.discard(attempt)
            if isinstance(result, Failure):
                done([])

        attempt.addBoth(ended)

    def ask(
        self, address: Address, make: Callable[[], Protocol], failed: Callable[[str], None]
    ) -> Callable[[], None]:
        """
        Connect by esgf-feedback/1 with a protocol of the caller's; ``failed`` gets the reason where nobody is reached.

        Returns what gives up while it is not reached.
        """
        wrapped = Factory.forProtocol(make)
        wrapped.noisy = False
        factory: Any = TLSMemoryBIOFactory(self._creator.for_feedback, True, wrapped, self._reactor)
        factory.noisy = False
        attempt: Deferred[Any] = self._endpoint(address).connect(factory)
        self._dials.add(attempt)

        def ended(result: Any) -> None:
            self._dials.discard(attempt)
            if isinstance(result, Failure):
                failed(_reason(result))

        attempt.addBoth(ended)
        return attempt.cancel

    def _endpoint(self, address: Address) -> Any:
        host, port = address
        # HostnameEndpoint would start a thread to look up what is no name.
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, timeout=HANDSHAKE_S)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, timeout=HANDSHAKE_S)
        return HostnameEndpoint(self._reactor, host, port, timeout=HANDSHAKE_S)

    def stop(self) -> Deferred[Any] | None:
        """Stop listening and dialling."""
        for attempt in list(self._dials):
            attempt.cancel()
        for connection in self._links.unsettled():
            if connection.link is None:
                connection.abort("this node stops")
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
