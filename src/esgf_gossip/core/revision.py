"""
Lines judged again: after a restart, and when trust has changed.

What trust no longer carries goes; everything else stays as it is. When it is time
is the node's to know. Source: docs/protocol.md, "Acceptance".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.effects import (
    DigestTurnedAway,
    DropBodies,
    LineWithdrawn,
    Output,
    RemoveFork,
    RemoveLine,
)
from esgf_gossip.core.errors import DigestRefused, WireError
from esgf_gossip.core.forks import prove
from esgf_gossip.core.messages import Fork
from esgf_gossip.core.model import Digest, Moment, SignedDigest, VerifiedDigest
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.verification import Verifier


@attrs.frozen
class StoredLine:
    """One line as a disk gives it back: bytes to be verified again."""

    signed: SignedDigest
    chain: tuple[bytes, ...]


class Revision:
    """The second judgement of what a node holds or held."""

    def __init__(self, registry: Registry, verifier: Verifier, out: list[Output]) -> None:
        self._registry = registry
        self._verifier = verifier
        self._out = out

    def restore(self, lines: Iterable[StoredLine], bodies: Mapping[bytes, bytes], at: Moment) -> None:
        """Take back what a disk holds, verified anew; what is refused is removed from it."""
        for stored in lines:
            try:
                digest = decode_digest(stored.signed.payload)
                line = self._verified(stored.signed, digest, stored.chain, at)
            except WireError as error:
                self._out.append(DigestTurnedAway("?", "the disk", str(error)))
            except DigestRefused as refusal:
                self._out.append(LineWithdrawn(digest.origin, refusal.reason))
                self._out.append(RemoveLine(digest.origin))
            else:
                self._registry.accept(line, bodies)
        orphans = frozenset(content for content in bodies if self._registry.body(content) is None)
        if orphans:
            self._out.append(DropBodies(orphans))

    def restore_forks(self, forks: Iterable[Fork]) -> None:
        """Take back the proofs of forks that a disk holds; what is refused is removed from it."""
        for fork in forks:
            try:
                self._registry.forks.add(prove(fork, self._verifier))
            except (DigestRefused, WireError):
                self._out.append(RemoveFork(sha256(fork.chain[0])))

    def again(self, at: Moment) -> bool:
        """Judge all lines by the trust of today; tell whether any digest went."""
        for fork in list(self._registry.forks):
            try:
                prove(fork.proof, self._verifier)
            except DigestRefused:
                self._registry.forks.remove(fork.certificate_sha256)
                self._out.append(RemoveFork(fork.certificate_sha256))
        has_withdrawn = False
        for line in list(self._registry.table):
            try:
                self._verified(line.signed, line.digest, line.chain, at)
            except DigestRefused as refusal:
                dropped = self._registry.withdraw(line.digest.origin)
                self._out.append(RemoveLine(line.digest.origin, dropped))
                self._out.append(LineWithdrawn(line.digest.origin, refusal.reason))
                has_withdrawn = True
        return has_withdrawn

    def _verified(
        self, signed: SignedDigest, digest: Digest, chain: tuple[bytes, ...], at: Moment
    ) -> VerifiedDigest:
        # It was not dated ahead when it was taken in: a clock set back since then must not empty the table.
        return self._verifier.verify(signed, digest, chain, max(at.wall_ms, digest.issued_at_ms))
