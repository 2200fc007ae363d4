"""Handshakes in memory: two ends over real OpenSSL, and what each was told. No test lives here."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test import iosim
from zope.interface import implementer

from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.tls import PeerIdentity, peer_identity


@implementer(IHandshakeListener)
class Recorder(Protocol):
    """One end of a connection: notes what it is told, greets when the handshake is done."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.identity: PeerIdentity | None = None
        self.shaken = False
        self.received = b""
        self.lost: BaseException | None = None

    def handshakeCompleted(self) -> None:
        self.shaken = True
        with contextlib.suppress(TrustError):
            self.identity = peer_identity(self.transport)
        if self.greeting:
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any) -> None:
        self.lost = reason.value


def handshake(server_creator: Any, client_creator: Any) -> tuple[Recorder, Recorder, iosim.IOPump]:
    """Connect a server and a client in memory and let them talk until nothing moves."""
    server, client = Recorder(b"admitted"), Recorder()
    # Twisted holds small writes back until the next turn of the reactor: this clock is that reactor.
    clock = Clock()
    server_side = TLSMemoryBIOFactory(server_creator, False, _factory(server), clock).buildProtocol(None)
    client_side = TLSMemoryBIOFactory(client_creator, True, _factory(client), clock).buildProtocol(None)
    pump = iosim.connect(
        server_side,
        iosim.FakeTransport(server_side, isServer=True),
        client_side,
        iosim.FakeTransport(client_side, isServer=False),
    )
    pump.flush()
    clock.advance(0)
    pump.flush()
    return server, client, pump


def _factory(protocol: Protocol) -> Factory:
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda _: protocol
    return factory
