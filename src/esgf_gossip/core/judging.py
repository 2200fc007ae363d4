"""
What a node thinks of digests that come in: cheap checks first, each distinct bytes once.

Stands between fetching and the Verifier. Remembers by hash what needs no
second look; what is done with a verdict is fetching's.
Source: docs/protocol.md, "Acceptance".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from esgf_gossip.core import limits
from esgf_gossip.core.effects import DigestTurnedAway, Output, PauseReading
from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.model import Digest, Head, Link, Moment, Order, SignedDigest, VerifiedDigest
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.sessions import Session
from esgf_gossip.core.verification import Verifier


class Judging:
    """The verdicts of one node, until trust changes."""

    def __init__(self, registry: Registry, verifier: Verifier, out: list[Output]) -> None:
        self._registry = registry
        self._verifier = verifier
        self._out = out
        # Digests by hash; evidence (digest, signature, chain) by hash; digests of one link, whatever came with them.
        self._settled: OrderedDict[bytes | tuple[Link, bytes], None] = OrderedDict()
        self._has_refused = False

    def forget(self) -> bool:
        """Judge everything anew: trust changed. Tell whether anything was refused, so might be good now."""
        has_refused, self._has_refused = self._has_refused, False
        self._settled.clear()
        return has_refused

    def settle(self, payload_sha256: bytes, link: Link | None = None) -> None:
        """Look at this digest no more, whoever brings it, or only where this link does."""
        self._remember(payload_sha256 if link is None else (link, payload_sha256))

    def is_settled(self, head: Head, link: Link) -> bool:
        """Tell whether asking this peer for this head could only bring what was judged already."""
        return head.payload_sha256 in self._settled or (link, head.payload_sha256) in self._settled

    def stated_head(self, digest: Digest, payload_sha256: bytes) -> Head | None:
        """Return the head a digest will have if it is genuine; None where only its chain could tell."""
        held = self._registry.table.line(digest.origin)
        if held is None or held.digest.certificate_sha256 != digest.certificate_sha256:
            return None
        order = Order(held.order.certificate, digest.epoch, digest.sequence)
        return Head(digest.origin, order, payload_sha256)

    def judge(
        self,
        session: Session,
        signed: SignedDigest,
        digest: Digest,
        chain: Sequence[bytes],
        at: Moment,
    ) -> VerifiedDigest | None:
        """
        Verify a digest that a peer brought, or return None where it is refused or below our line.

        Args:
            session: who brought it, and pays for what is refused.
            signed: the bytes as they came.
            digest: the codec's reading of them.
            chain: what came with it; empty where the peer knew that we have it.
            at: now.
        """
        name = sha256(signed.payload)
        if name in self._settled:
            return None
        held = self._registry.table.line(digest.origin)
        stated = self.stated_head(digest, name)
        if held is not None and stated is not None and stated.order < held.order:
            return None  # genuine or not, it changes nothing
        known_chain = chain
        if not chain and held is not None and stated is not None:
            known_chain = held.chain
        # The verdict belongs to everything that came: a relay that mangles a signature or a chain
        # must not make us refuse the good copy of the next one.
        # Each part is hashed by itself: bytes moved from one to the next must not look the same.
        evidence = sha256(b"".join(map(sha256, (signed.payload, signed.signature, *known_chain))))
        if evidence in self._settled:
            return None
        try:
            return self._verifier.verify(signed, digest, known_chain, at.wall_ms)
        except DigestRefused as refusal:
            if refusal.lasting:
                self._has_refused = True
                self._remember(evidence)
                if known_chain:  # without one it was our question that fell short
                    self.settle(name, session.link)
            self._out.append(DigestTurnedAway(digest.origin, session.peer, refusal.reason))
            self.waste(session, at)
            return None

    def waste(self, session: Session, at: Moment) -> None:
        """Count a check that brought nothing; beyond its budget the peer is read more slowly."""
        session.wasted_checks.take(1.0, at.mono_s)
        wait_s = session.wasted_checks.wait_s(at.mono_s)
        if wait_s > 0.0:
            self._out.append(PauseReading(session.link, wait_s))

    def _remember(self, key: bytes | tuple[Link, bytes]) -> None:
        self._settled[key] = None
        while len(self._settled) > limits.VERDICTS_REMEMBERED:
            self._settled.popitem(last=False)
