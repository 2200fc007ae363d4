"""
esgf-feedback/1, both ends: a node brings matches to the home node of their users, which answers once they are on its disk.

One question and one answer for each connection, over mutual TLS of members. Nothing is sent before the certificate of
who answered names the home that was meant; nobody but that node learns who downloaded what. Source: docs/protocol.md,
"esgf-feedback/1".
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from esgf_gossip.core.errors import WireError
from esgf_gossip.core.framing import FrameBuffer, frame
from esgf_gossip.core.model import Address
from esgf_gossip.core.quota import TokenBucket
from esgf_gossip.net.connections import Connections
from esgf_gossip.net.link import FEEDBACK_S, LinkConnection
from esgf_gossip.tracking.feedback_messages import (
    Answer,
    Question,
    Verdict,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from esgf_gossip.tracking.homeward import DeliveryError
from esgf_gossip.tracking.matches import Match
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.tls import ALPN_FEEDBACK, PeerIdentity, peer_identity, refusal_reason

# What one member may ask: connections at a time, questions a second and at once, users an hour and at once.
CONNECTIONS_PER_PEER: Final = 4
QUESTIONS_PER_S: Final = 5.0
QUESTIONS_AT_ONCE: Final = 50
USERS_PER_HOUR: Final = 20_000
USERS_AT_ONCE: Final = 100_000
# Questions whose matches are being written, all members together; the others are told to come again.
QUESTIONS_TAKEN: Final = 8
# Members whose quota is remembered; the one that has not come for longest is forgotten.
PEERS_COUNTED: Final = 1024

# Writes matches to the disk: by the name of who brings them; fires when they are there.
Taker = Callable[[str, Question], "Deferred[Answer]"]


class FeedbackHost:
    """
    The home node's side; its ``receive`` is the driver's ``on_feedback``.

    Args:
        taker: writes what is brought.
        clock: seconds for quotas.
    """

    log = Logger()

    def __init__(self, taker: Taker, clock: IReactorTime) -> None:
        self._taker: Final = taker
        self._clock: Final = clock
        self._quotas: Final[OrderedDict[str, tuple[TokenBucket, TokenBucket]]] = OrderedDict()
        self._open: Final[Counter[str]] = Counter()
        self._taking = 0
        self.questions: Final[Counter[str]] = Counter()

    def receive(self, connection: LinkConnection, identity: PeerIdentity) -> _Ear | None:
        """Return the ear for one question of a member, None where it holds too many connections already."""
        if self._open[identity.host] >= CONNECTIONS_PER_PEER:
            return None
        self._open[identity.host] += 1
        connection.closed().addCallback(lambda _: self._left(identity.host))
        return _Ear(self, identity.host, connection.transport.write, connection.close)

    def _left(self, host: str) -> None:
        self._open[host] -= 1
        if self._open[host] <= 0:
            del self._open[host]

    def answer(self, host: str, payload: bytes) -> Deferred[Answer]:
        """Fire with the answer to a question; raises WireError for what is none."""
        now_s = self._clock.seconds()
        questions, users = self._quota(host)
        if questions.wait_s(now_s, 1.0) > 0.0 or self._taking >= QUESTIONS_TAKEN:
            return self._busy()
        questions.take(1.0, now_s)
        question = decode_question(payload)
        if users.wait_s(now_s) > 0.0:
            return self._busy()
        users.take(len(question.matches), now_s)
        self._taking += 1
        taking = maybeDeferred(self._taker, host, question)
        taking.addErrback(self._failed)
        taking.addBoth(self._taken)
        return taking

    def _taken(self, answer: Answer) -> Answer:
        self._taking -= 1
        self.questions[answer.verdict.name.lower()] += 1
        return answer

    def _failed(self, failure: Failure) -> Answer:
        # A disk that says no: the sender keeps them, and comes again. Not its text: it could hold who they are.
        self.log.warn("matches of users were not taken: {kind}", kind=failure.type.__name__)
        return Answer(Verdict.BUSY)

    def _busy(self) -> Deferred[Answer]:
        self.questions["busy"] += 1
        busy: Deferred[Answer] = Deferred()
        busy.callback(Answer(Verdict.BUSY))
        return busy

    def _quota(self, host: str) -> tuple[TokenBucket, TokenBucket]:
        quota = self._quotas.get(host)
        if quota is None:
            quota = self._quotas[host] = (
                TokenBucket(QUESTIONS_PER_S, QUESTIONS_AT_ONCE),
                TokenBucket(USERS_PER_HOUR / 3600, USERS_AT_ONCE),
            )
        self._quotas.move_to_end(host)
        if len(self._quotas) > PEERS_COUNTED:
            self._quotas.popitem(last=False)
        return quota


class _Ear:
    """One question, as the home node hears it: a frame in, a frame out, the end."""

    def __init__(
        self,
        owner: FeedbackHost,
        host: str,
        write: Callable[[bytes], None],
        close: Callable[[str], None],
    ) -> None:
        self._owner: Final = owner
        self._host: Final = host
        self._write: Final = write
        self._close: Final = close
        self._frames: Final = FrameBuffer()
        self._is_over = False

    def take(self, data: bytes) -> None:
        """Take bytes; whatever they are, one answer comes of them at most."""
        if self._is_over:
            return
        try:
            payload = next(self._frames.feed(data), None)
            if payload is not None:
                self._is_over = True
                self._owner.answer(self._host, payload).addCallback(self._say)
        except WireError as error:
            self._is_over = True
            self._close(f"not esgf-feedback/1: {error}")

    def _say(self, answer: Answer) -> None:
        self._write(frame(encode_answer(answer)))
        self._close("answered")


class FeedbackDialler:
    """
    The other side: brings matches to a home node.

    Args:
        connections: of this node.
        contact_of: where a node can be dialled; None where it cannot, or is not known.
        clock: bounds a question.
    """

    def __init__(
        self, connections: Connections, contact_of: Callable[[str], Address | None], clock: IReactorTime
    ) -> None:
        self._connections: Final = connections
        self._contact_of: Final = contact_of
        self._clock: Final = clock

    def send(self, home: str, change_key: bytes, matches: Sequence[Match]) -> Deferred[Answer]:
        """Fire with what a home node answers; fails with a DeliveryError where it answers nothing that counts."""
        done: Deferred[Answer] = Deferred()
        address = self._contact_of(home)
        if address is None or address[1] == 0:
            done.errback(DeliveryError("it cannot be dialled"))
            return done
        payload = encode_question(Question(change_key, tuple(matches)))

        def failed(reason: str) -> None:
            if not done.called:
                done.errback(DeliveryError(reason))

        def out_of_time() -> None:
            failed(f"no answer within {FEEDBACK_S:g} s")
            give_up()

        deadline = self._clock.callLater(FEEDBACK_S, out_of_time)

        def told(result: Any) -> Any:
            if deadline.active():
                deadline.cancel()
            return result

        done.addBoth(told)
        give_up = self._connections.ask(address, lambda: _Asking(home, payload, done, self._clock), failed)
        return done


@implementer(IHandshakeListener)
class _Asking(Protocol):
    """One question, as its sender makes it."""

    def __init__(self, home: str, payload: bytes, done: Deferred[Answer], clock: IReactorTime) -> None:
        self._home: Final = home
        self._payload: Final = payload
        self._done: Final = done
        self._clock: Final = clock
        self._frames: Final = FrameBuffer()
        self._deadline: Any = None

    def connectionMade(self) -> None:
        """Bound the whole; nothing is said before the handshake is over."""
        self._deadline = self._clock.callLater(FEEDBACK_S, self.transport.abortConnection)

    def handshakeCompleted(self) -> None:
        """Ask, where the certificate names the home that was meant, whatever address was dialled."""
        try:
            identity = peer_identity(self.transport, ALPN_FEEDBACK)
        except TrustError as error:
            self._fail(error.text)
            return
        if identity.host != self._home:
            self._fail(f"{identity.host} answers in its place")
            return
        self.transport.write(frame(self._payload))

    def dataReceived(self, data: bytes) -> None:
        """Take the answer; what comes after it does not count."""
        if self._done.called:
            return
        try:
            payload = next(self._frames.feed(data), None)
            if payload is not None:
                self._done.callback(decode_answer(payload))
                self.transport.loseConnection()
        except WireError as error:
            self._fail(f"not esgf-feedback/1: {error}")

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 - Twisted's signature
        """Without an answer nothing counts as taken."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if not self._done.called:
            self._done.errback(DeliveryError(refusal_reason(reason.value)))

    def _fail(self, reason: str) -> None:
        if not self._done.called:
            self._done.errback(DeliveryError(reason))
        self.transport.abortConnection()
