"""
esgf-trust/1, both ends: public trust objects for anybody, who proves nothing and believes nothing.

A visitor tells by TrustHeads what it holds; the host gives what is above that, bundles first, and hangs up. Nobody
takes anything on the other's word: every object is judged. So a node whose list or root has run out finds the way
back. Source: docs/protocol.md, "Trust objects".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.framing import FrameBuffer, frame
from esgf_gossip.core.limits import MESSAGE_TRUST, VISIT_BYTES, VISIT_OBJECTS, VISIT_PAGES, VISITS_PER_MINUTE
from esgf_gossip.core.messages import GiveTrust, TrustHeads
from esgf_gossip.core.model import TrustHead
from esgf_gossip.core.quota import TokenBucket
from esgf_gossip.core.trust_lines import TrustTable
from esgf_gossip.core.trusting import LAST

# What anybody may have; of certificates only the one that is asked for by name.
PUBLIC: Final = ("roots/", "crl/")
CERTIFICATE: Final = "certificate/"
# Addresses whose visits are counted; the one that has not come for longest is forgotten.
ADDRESSES_COUNTED: Final = 1024
VISIT_S: Final = 10.0


def claims(table: TrustTable, host: str) -> list[TrustHeads]:
    """Return what a visitor says: the public objects it holds, and which certificate it asks for."""
    asked = CERTIFICATE + host
    heads = [head for head in table.heads() if head.key.startswith(PUBLIC) or head.key == asked]
    if asked not in table:
        heads.append(TrustHead(asked, 0, 0, b"\xff" * 32))
    pages = [heads[start : start + MESSAGE_TRUST] for start in range(0, len(heads), MESSAGE_TRUST)]
    return [
        TrustHeads(tuple(page), "", LAST if number == len(pages) - 1 else "")
        for number, page in enumerate(pages)
    ]


def answers(table: TrustTable, claimed: dict[str, TrustHead]) -> Iterator[GiveTrust]:
    """Yield what a visitor lacks of the public objects, within the bounds of one visit."""
    size_bytes = count = 0
    for held in table:
        is_meant = held.key.startswith(PUBLIC) or (held.key.startswith(CERTIFICATE) and held.key in claimed)
        if is_meant and held.head.is_above(claimed.get(held.key)):
            size_bytes += len(held.body)
            count += 1
            if size_bytes > VISIT_BYTES or count > VISIT_OBJECTS:
                return  # the rest at the next visit
            yield GiveTrust(held.key, held.body)


class Host:
    """The host's side: how often each address may come, and one ``Visitor`` for each visit."""

    def __init__(self, table: TrustTable, clock: IReactorTime) -> None:
        self._table = table
        self._clock = clock
        self._visits: OrderedDict[str, TokenBucket] = OrderedDict()

    def admit(self, address: str) -> bool:
        """Tell whether an address may come once more now."""
        bucket = self._visits.setdefault(address, TokenBucket(VISITS_PER_MINUTE / 60, VISITS_PER_MINUTE - 1))
        self._visits.move_to_end(address)
        if len(self._visits) > ADDRESSES_COUNTED:
            self._visits.popitem(last=False)
        now_s = self._clock.seconds()
        if bucket.wait_s(now_s) > 0.0:
            return False
        bucket.take(1.0, now_s)
        return True

    def receive(self, write: Callable[[bytes], None], close: Callable[[str], None]) -> Visitor:
        """Return the ear for one visit."""
        return Visitor(self._table, write, close)


class Visitor:
    """One visit, as the host hears it: pages of heads in, objects out, then the end."""

    def __init__(
        self, table: TrustTable, write: Callable[[bytes], None], close: Callable[[str], None]
    ) -> None:
        self._table = table
        self._write = write
        self._close = close
        self._frames = FrameBuffer()
        self._claimed: dict[str, TrustHead] = {}
        self._pages = 0
        self._is_over = False

    def take(self, data: bytes) -> None:
        """Take bytes; whatever they are, the visit ends within its bounds."""
        if self._is_over:
            return
        try:
            for payload in self._frames.feed(data):
                self._page(payload)
                if self._is_over:
                    return
        except WireError as error:
            self._end(f"not esgf-trust/1: {error}")

    def _page(self, payload: bytes) -> None:
        message = decode(payload)
        self._pages += 1
        if not isinstance(message, TrustHeads) or self._pages > VISIT_PAGES:
            raise WireError("pages of heads were expected, and an end")
        self._claimed.update({head.key: head for head in message.heads})
        if message.up_to == LAST:
            for answer in answers(self._table, self._claimed):
                self._write(frame(encode(answer)))
            self._end("told all")

    def _end(self, reason: str) -> None:
        self._is_over = True
        self._close(reason)


class Visit(Protocol):
    """One visit, as the visitor makes it: says what it holds, collects what comes, tells all of it at the end."""

    log = Logger()

    def __init__(
        self,
        said: Iterable[TrustHeads],
        clock: IReactorTime,
        done: Callable[[list[tuple[str, bytes]]], None],
    ) -> None:
        self._said = said
        self._clock = clock
        self._done = done
        self._frames = FrameBuffer()
        self._found: list[tuple[str, bytes]] = []
        self._size_bytes = 0
        self._deadline: Any = None

    def connectionMade(self) -> None:
        """Say what we hold; TLS keeps it until the handshake is over."""
        self._deadline = self._clock.callLater(VISIT_S, self.transport.abortConnection)
        for page in self._said:
            self.transport.write(frame(encode(page)))

    def dataReceived(self, data: bytes) -> None:
        """Take objects, not more than one visit may bring."""
        try:
            for payload in self._frames.feed(data):
                message = decode(payload)
                self._size_bytes += len(payload)
                if not isinstance(message, GiveTrust) or self._size_bytes > 2 * VISIT_BYTES:
                    raise WireError("no trust object")
                self._found.append((message.key, message.body))
        except WireError as error:
            self.log.info("visit for trust: {error}", error=str(error))
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Tell what was found; how the connection ended proves nothing either way."""
        del reason
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._done(self._found)
