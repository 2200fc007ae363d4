"""
One TLS connection as a stream of messages.

Knows bytes, deadlines and back-pressure; decides nothing of the protocol.
camelCase methods are those that Twisted calls.
"""

from __future__ import annotations

from typing import Any, Final
from typing import Protocol as TypingProtocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.framing import frame
from esgf_gossip.core.limits import HANDSHAKE_S, SEND_QUEUE_BYTES
from esgf_gossip.core.messages import Message
from esgf_gossip.core.model import Address, Link
from esgf_gossip.core.outbox import Outbox
from esgf_gossip.net.budget import PeerBudget
from esgf_gossip.net.intake import Intake
from esgf_gossip.net.traffic import Traffic
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.tls import (
    ALPN_FEEDBACK,
    PeerIdentity,
    is_feedback,
    is_visit,
    peer_identity,
    refusal_reason,
)

# loseConnection waits for a peer that may never read (twisted#7926).
CLOSE_S: Final = 5.0
# One question by esgf-feedback/1, from the handshake to the answer: its matches are written to the disk between.
FEEDBACK_S: Final = 30.0


class Ear(TypingProtocol):
    """Who hears the bytes of a peer that came for something else than gossip."""

    def take(self, data: bytes) -> None:
        """Take bytes, whatever they are."""
        ...


class LinkOwner(TypingProtocol):
    """Who is told what happens on a connection."""

    def link_up(self, connection: LinkConnection, identity: PeerIdentity) -> Link:
        """Number a connection whose peer is verified, and admitted us where we dialled."""
        ...

    def link_message(self, link: Link, message: Message) -> None:
        """Take a message."""
        ...

    def link_garbled(self, link: Link, error: WireError) -> None:
        """Hear that the bytes of a link are not our protocol."""
        ...

    def link_down(self, link: Link, reason: str) -> None:
        """Hear that a connection that was up has ended."""
        ...

    def link_refused(self, connection: LinkConnection, reason: str) -> None:
        """Hear that a connection ended before it was up."""
        ...

    def visited(self, connection: LinkConnection) -> Ear | None:
        """Return who hears a peer that came for trust objects alone, None where it comes too often."""
        ...

    def feedback(self, connection: LinkConnection, identity: PeerIdentity) -> Ear | None:
        """Return who hears a member that brings matches, None where it is not wanted."""
        ...


@implementer(IHandshakeListener, IPushProducer)
class LinkConnection(Protocol):
    """
    The protocol under TLS.

    A client is up with the first byte from the server: in TLS 1.3 its own
    handshake completes before the server has judged its certificate.
    """

    def __init__(self, owner: LinkOwner, clock: IReactorTime, dialled: Address | None) -> None:
        self.dialled: Final = dialled
        self.made_at_s: Final = clock.seconds()
        self.link: Link | None = None
        self.traffic = Traffic()
        self._owner = owner
        self._clock = clock
        self._intake = Intake(clock, self._deliver, self._tell_garbled, self._tell_end)
        self._identity: PeerIdentity | None = None
        self._visitor: Ear | None = None
        self._refusal = ""
        self._closing = ""
        self._is_over = False
        self._is_told = False
        self._end = ""
        self._is_aborted = False
        self._has_heard = False
        self._closed: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._paused = False
        self._outbox = Outbox()

    @property
    def remote(self) -> str:
        """The address at the other end, for the log."""
        peer: Any = self.transport.getPeer() if self.transport is not None else None
        return f"{peer.host}:{peer.port}" if hasattr(peer, "host") else "?"

    @property
    def remote_host(self) -> str:
        """The address at the other end without its port: whom a flood is counted against."""
        peer: Any = self.transport.getPeer() if self.transport is not None else None
        return str(getattr(peer, "host", "?"))

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait here because the peer does not keep up."""
        return self._outbox.size_bytes

    @property
    def budget(self) -> PeerBudget:
        """What the peer may make us work; one for all its links, once it is known who it is."""
        return self._intake.budget

    @budget.setter
    def budget(self, budget: PeerBudget) -> None:
        self._intake.budget = budget

    @property
    def is_over(self) -> bool:
        """Tell whether the connection has ended."""
        return self._is_over

    @property
    def is_unsettled(self) -> bool:
        """
        Tell whether the connection is on its way up or down: TLS or first message outstanding, or closing.

        Each costs a file descriptor, and no session of the core accounts for it.
        """
        if self._is_over or self._is_aborted:
            return False
        return bool(self._closing) or not self._has_heard

    # ----------------------------------------------------------------- up

    def connectionMade(self) -> None:
        """Start the deadline; the TLS handshake has not begun yet."""
        self._set_deadline(
            HANDSHAKE_S, "no TLS handshake in time" if self.dialled is None else "no admission in time"
        )
        self._intake.start(self.transport)
        self.transport.registerProducer(self, True)

    def handshakeCompleted(self) -> None:
        """Read who is at the other end; a server is up now."""
        if self.dialled is None and is_visit(self.transport):
            self._visitor = self._owner.visited(self)
            if self._visitor is None:
                self._abort("too many visits for trust")
            return
        try:
            if self.dialled is None and is_feedback(self.transport):
                self._hear_feedback(peer_identity(self.transport, ALPN_FEEDBACK))
                return
            self._identity = peer_identity(self.transport)
        except TrustError as error:
            self._abort(str(error))
            return
        if self.dialled is None:
            self._up()

    def _hear_feedback(self, identity: PeerIdentity) -> None:
        self._set_deadline(FEEDBACK_S, "no question in time")
        self._visitor = self._owner.feedback(self, identity)
        if self._visitor is None:
            self._abort("no feedback is taken here, or too much of it at once")

    def _up(self) -> None:
        if self._identity is None or self._refusal:
            return
        self._cancel_deadline()
        self.link = self._owner.link_up(self, self._identity)

    # ----------------------------------------------------------------- in

    def dataReceived(self, data: bytes) -> None:
        """Take bytes in; messages come out of them a slice at a time."""
        if self._visitor is not None:
            self._visitor.take(data)
            return
        if self.link is None:
            self._up()
        if self.link is not None:
            self.traffic.receive(len(data))
            self._intake.add(data)

    def _deliver(self, payload: bytes) -> None:
        if self.link is None:
            return
        self._has_heard = True
        self.traffic.deliver()
        try:
            self._owner.link_message(self.link, decode(payload))
        except WireError as error:
            self._intake.stop()
            self._tell_garbled(error)
        except Exception:
            # Ours to mend; in a later turn nobody above would end the link, and it would stay mute.
            self._abort("a fault of this daemon, see its log")
            raise

    def _tell_garbled(self, error: WireError) -> None:
        if self.link is not None:
            self._owner.link_garbled(self.link, error)

    def pause_reading(self, for_s: float) -> None:
        """Hear nothing from the peer for so many seconds."""
        self._intake.hold(for_s)

    # ----------------------------------------------------------------- out

    def send(self, message: Message) -> None:
        """Send a message, or keep it while the peer does not read; too much of it ends the link."""
        if self._closing or self._is_over:
            return
        if not self._paused:
            self._write(frame(encode(message)))
            return
        self._outbox.put(message)
        if self._outbox.size_bytes > SEND_QUEUE_BYTES:
            self._abort(f"the peer reads too slowly ({self._outbox.size_bytes} bytes waiting)")

    def _write(self, data: bytes) -> None:
        self._intake.spent(len(data))
        self.traffic.send(len(data))
        self.transport.write(data)

    def pauseProducing(self) -> None:
        """Hear that the peer does not keep up."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Hear that the peer keeps up again."""
        self._paused = False
        while not self._paused and (data := self._outbox.take()) is not None:
            self._write(data)

    def stopProducing(self) -> None:
        """Hear that the connection is gone."""
        self._paused = True
        self._outbox.clear()

    # ----------------------------------------------------------------- down

    def closed(self) -> Deferred[None]:
        """Return a Deferred that fires when the connection is over; ask at most once."""
        self._closed = Deferred()
        if self._is_told:
            self._closed.callback(None)
        return self._closed

    def close(self, reason: str) -> None:
        """End the connection after what was sent; nothing more is delivered."""
        if self._closing:
            return
        self._closing = reason
        self._intake.stop()
        if self._is_over:
            self._tell_end()
            return
        self._set_deadline(CLOSE_S, reason)
        # Before the queue: a peer that reads slowly would pause us again, and the goodbye at its end be lost.
        self.transport.unregisterProducer()
        self.resumeProducing()
        self.transport.loseConnection()

    def abort(self, reason: str) -> None:
        """End the connection now, whatever is still to be sent."""
        if not self._is_over:
            self._abort(reason)

    def _abort(self, reason: str) -> None:
        self._is_aborted = True
        self._closing = self._closing or reason
        self._refusal = self._refusal or reason
        self._intake.stop()
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 - Twisted's signature
        """Tell the owner once all that came before was delivered, with the precise reason where trust gave one."""
        self._cancel_deadline()
        self._is_over = True
        self._end = self._refusal or self._closing or refusal_reason(reason.value)
        self._intake.end()

    def _tell_end(self) -> None:
        if self._is_told:
            return
        self._is_told = True
        if self.link is not None:
            self._owner.link_down(self.link, self._end)
        elif self._visitor is None:
            self._owner.link_refused(self, self._end)
        if self._closed is not None:
            self._closed.callback(None)

    def _set_deadline(self, after_s: float, reason: str) -> None:
        self._cancel_deadline()
        self._deadline = self._clock.callLater(after_s, self._abort, reason)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
