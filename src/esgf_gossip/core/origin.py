"""
This node as an origin: it takes an epoch, makes its digest, pushes it to its neighbours.

Part of the node: appends to its output. How a digest is made is publication's
work; what others say is fetching's. Source: docs/adr/0003-order-of-digests.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from esgf_gossip.core.answering import answer_parts
from esgf_gossip.core.effects import (
    DigestAccepted,
    EpochTaken,
    Output,
    PersistEpoch,
    PersistLine,
    PublishingStopped,
    Send,
    SignAnew,
    StartTimer,
)
from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.model import Moment, VerifiedDigest
from esgf_gossip.core.publication import EPOCH_HONEST_MAX, Publication, next_epoch
from esgf_gossip.core.registry import Change, Registry
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.verification import Verifier

# A second unknown digest of our own within this time is a clone or a thief, not a lost disk.
OWN_HEAD_ONCE_PER_S: Final = 3600.0


def notes_of(change: Change) -> Iterator[PersistLine | DigestAccepted]:
    """Return what a change of the registry means for the disk and for those who watch."""
    line = change.line
    yield PersistLine(line, change.added, change.dropped)
    yield DigestAccepted(
        line.digest.origin, line.order.epoch, line.order.sequence, change.changed, line.digest.leaving
    )


class Origin:
    """The publishing side of a node. ``publication.stopped`` says why it publishes no more, empty while it does."""

    def __init__(
        self,
        publication: Publication,
        registry: Registry,
        sessions: Sessions,
        verifier: Verifier,
        random: Random,
        out: list[Output],
    ) -> None:
        self.publication: Final = publication
        self._registry = registry
        self._sessions = sessions
        self._verifier = verifier
        self._random = random
        self._out = out
        self._renewal_token = 0
        self._own_head_seen_at_s: float | None = None
        self._was_linked = False
        # False while the disk fails: a new epoch must be durable, so none is taken that is not needed.
        self.can_persist = True

    @property
    def name(self) -> str:
        """The host name this node is certified for."""
        return self.publication.signer.origin

    def begin(self, stored_epoch: int, at: Moment) -> None:
        """Take the epoch of a new start, above the one on disk and above our own remembered digest."""
        remembered = self._registry.table.line(self.name)
        shown = 0
        if remembered is not None and remembered.order.certificate == self.publication.signer.rank:
            # An epoch that a thief burned is not followed: it ends with the certificate, and ours would with it.
            shown = min(remembered.order.epoch, EPOCH_HONEST_MAX)
        self._take_epoch(next_epoch(stored_epoch, shown, at.wall_ms, self._random), remembered)

    def _take_epoch(self, epoch: int, remembered: VerifiedDigest | None) -> None:
        self._out.append(PersistEpoch(epoch))
        self.publication.begin(epoch, remembered)

    def publish(self, at: Moment) -> None:
        """
        Sign the next digest, hold it ourselves, push it to every peer we have greeted.

        It passes the same Verifier as everybody's: what others would refuse is never sent.
        """
        if self.publication.stopped:
            return
        signed, digest = self.publication.sign(at)
        try:
            line = self._verifier.verify(signed, digest, self.publication.signer.chain, at.wall_ms)
        except DigestRefused as refusal:
            self._stop(f"our own digest would be refused: {refusal.reason}", by_trust=True)
            return
        before = self._registry.table.line(self.name)
        change = self._registry.accept(line, self.publication.bodies)
        if change is None:
            self._stop("a digest of this node that is above this one is in use; it needs a new certificate")
            return
        self._out.extend(notes_of(change))
        for session in self._sessions:
            if session.we_greeted:
                self._push(session, line, before)
        self._renewal_token += 1
        after_s = self.publication.renewal_after_s(digest, self._random)
        self._out.append(StartTimer(SignAnew(self._renewal_token), after_s))

    def linked(self, at: Moment) -> None:
        """
        Take a new epoch before the first link after all were lost is greeted.

        A resumed snapshot of this machine finds its links dead, and does not know what the run it
        is a copy of signed since: its next numbers may be used. What it signed before it lost
        its links reached nobody.
        """
        is_back = self._was_linked and not self._sessions.open()
        if is_back and self.can_persist and not self.publication.stopped:
            self._was_linked = False
            self._take_epoch(next_epoch(self.publication.epoch, 0, at.wall_ms, self._random), None)
            self.publish(at)

    def joined(self) -> None:
        """Note that a peer has said hello: what is signed from now on may be known to others."""
        self._was_linked = True

    def renew(self, token: int, at: Moment) -> None:
        """Sign again before the digest expires, unless a newer one was made since the timer was set."""
        if token == self._renewal_token and not self.publication.leaving:
            self.publish(at)

    def _push(self, session: Session, line: VerifiedDigest, before: VerifiedDigest | None) -> None:
        # A peer that has not heard of the digest before gets everything, others what changed since.
        if before is None or not session.has_been_told(before.head):
            after, with_chain = (0, 0), True
        else:
            after = (before.order.epoch, before.order.sequence)
            with_chain = before.digest.certificate_sha256 != line.digest.certificate_sha256
        session.told[self.name] = line.head
        self._out.extend(
            Send(session.link, part)
            for part in answer_parts(0, line, self._registry, after=after, with_chain=with_chain)
        )

    def _stop(self, reason: str, *, by_trust: bool = False) -> None:
        self.publication.stop(reason, by_trust=by_trust)
        self._out.append(PublishingStopped(reason))

    def own_head_shown(self, line: VerifiedDigest, at: Moment) -> None:
        """Meet a digest with our own valid signature that we do not remember: a lost disk, a clone, a thief."""
        change = self._registry.accept(line, {})
        if change is None:
            return
        self._out.append(PersistLine(line, change.added, change.dropped))
        if line.order.certificate > self.publication.signer.rank:
            self._stop("a newer certificate of this node is in use elsewhere")
            return
        if line.order.epoch > EPOCH_HONEST_MAX:
            self._stop("a thief of this node's key has used up its epochs; it needs a new certificate")
            return
        seen = self._own_head_seen_at_s
        self._own_head_seen_at_s = at.mono_s
        if seen is not None and at.mono_s - seen < OWN_HEAD_ONCE_PER_S:
            self._stop("another process publishes with this node's key: a clone or a thief")
            return
        self.begin_again(line.order.epoch, at)

    def begin_again(self, shown: int, at: Moment) -> None:
        """Go on with an epoch above ours and above one that was shown, and publish under it."""
        self._take_epoch(next_epoch(self.publication.epoch, shown, at.wall_ms, self._random), None)
        self._out.append(EpochTaken(self.publication.epoch))
        self.publish(at)
