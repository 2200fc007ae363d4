"""
Two tables compared over one link, without nodes: every message through the real codec, counted in bytes and flights.

``Ends`` joins two ends of ``core.comparing``; what one end claims is copied from the other afterwards,
as fetching would. No test lives here; benchmarks/reconciliation.py uses it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.comparing import Comparing
from esgf_gossip.core.forking import Forking
from esgf_gossip.core.messages import (
    Feature,
    Fingerprints,
    Fork,
    Forks,
    Heads,
    Message,
    Roots,
    TrustMessage,
    WantFork,
)
from esgf_gossip.core.model import (
    CertificateRank,
    Digest,
    Head,
    Link,
    Moment,
    Order,
    SignedDigest,
    VerifiedDigest,
)
from esgf_gossip.core.reconciliation import roots_of
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.trusting import Trusting
from esgf_gossip.sim.trust import PlainJudge, PlainVerifier

LINK = Link(1)
ALL_FEATURES = frozenset(Feature)


def a_name(number: int) -> str:
    """Return a host name of 25 characters."""
    return f"node{number:05}.dc1.example.org"


def a_verified(origin: str, sequence: int = 1, word: bytes = b"") -> VerifiedDigest:
    """Return a line whose head is as long as those of real nodes are, rightly signed by nobody."""
    content = sha256(f"{origin} {sequence} ".encode() + word)
    order = Order(
        CertificateRank(1_789_900_000, sha256(origin.encode())[:20]), 1_876_951_040_074_565, sequence
    )
    digest = Digest(
        federation="fed.example.org",
        origin=origin,
        certificate_sha256=sha256(origin.encode()),
        epoch=order.epoch,
        sequence=sequence,
        issued_at_ms=0,
        expires_at_ms=1,
        contact=(origin, 8951),
    )
    return VerifiedDigest(SignedDigest(content, b""), digest, order, content, ())


@attrs.define(eq=False)
class End:
    """One end: what it holds, what it was told that the other holds."""

    registry: Registry
    session: Session
    comparing: Comparing
    forking: Forking
    trusting: Trusting
    out: list[fx.Output]
    claims: list[Head]

    def said(self) -> list[Message]:
        """Return the messages of the other end's next flight and forget them."""
        found = [output.message for output in self.out if isinstance(output, fx.Send)]
        self.out.clear()
        return found

    def hear(self, message: Message, at: Moment) -> None:
        """Take a message as a node would."""
        match message:
            case Roots():
                self.comparing.heard(self.session, message, at)
            case Heads():
                self.comparing.page(self.session, message, at)
            case Fingerprints():
                self.comparing.fingerprints(self.session, message, at)
            case Forks():
                self.forking.claimed(self.session, message)
            case WantFork():
                self.forking.give(self.session, message, at)
            case Fork():
                self.forking.proof(self.session, message)
            case _ if isinstance(message, TrustMessage):
                self.trusting.take(self.session, message, at)
            case _:
                self.claims.extend(message.heads)


def an_end(lines: Iterable[VerifiedDigest], features: frozenset[int], seed: int) -> End:
    """Return an end that holds these lines."""
    registry, sessions = Registry(), Sessions()
    for line in lines:
        registry.accept(line, {})
    session = Session(LINK, "the other", None, 0.0, 0.0, 0.0, is_open=True, features=features)
    sessions.add(session)
    out: list[fx.Output] = []
    claims: list[Head] = []
    forking = Forking(registry, sessions, PlainVerifier(), out)
    trusting = Trusting(registry, sessions, PlainJudge(), out)
    comparing = Comparing(
        registry,
        sessions,
        Random(seed),
        out,
        lambda _session, head, _at: claims.append(head),
        forking,
        trusting,
    )
    return End(registry, session, comparing, forking, trusting, out, claims)


class Ends:
    """Two ends; ``payload_bytes`` and ``flights`` count since the last comparison began."""

    def __init__(
        self,
        one: Iterable[VerifiedDigest],
        other: Iterable[VerifiedDigest],
        *,
        features: frozenset[int] = ALL_FEATURES,
        seed: int = 1,
    ) -> None:
        self.one = an_end(one, features, seed)
        self.other = an_end(other, features, seed + 1)
        self.now_s = 0.0
        self.payload_bytes = 0
        self.flights = 0
        self.heard: list[Message] = []

    @property
    def are_equal(self) -> bool:
        return roots_of(self.one.registry) == roots_of(self.other.registry)

    @property
    def round_trips(self) -> float:
        return self.flights / 2

    def compare(self) -> None:
        """Let the first end ask for the roots, and both talk until they have no more to say."""
        self.now_s += 10.0
        self.payload_bytes = self.flights = 0
        self.heard = []
        self.one.comparing.due(LINK)
        self.talk(self.one, self.other)

    def talk(self, speaker: End, listener: End) -> None:
        """Deliver what waits, a flight of one end after one of the other."""
        while messages := speaker.said():
            self.flights += 1
            for message in messages:
                payload = encode(message)
                self.payload_bytes += len(payload)
                self.heard.append(decode(payload))
                listener.hear(self.heard[-1], Moment(self.now_s, 0))
            speaker, listener = listener, speaker

    def fetch(self) -> None:
        """Copy what either end was told that the other holds and that is above its own."""
        for end, source in ((self.one, self.other), (self.other, self.one)):
            for head in end.claims:
                line = source.registry.table.line(head.origin)
                if line is not None and head.is_above(end.registry.table.head(head.origin)):
                    assert not head.is_above(line.head), "claimed more than it holds"
                    end.registry.accept(line, {})
            end.claims.clear()
