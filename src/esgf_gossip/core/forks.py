"""
Fork lines: proofs that one certificate signed what contradicts itself, one for each certificate, for ever.

Which of several proofs is kept does not matter, so the root is over the certificates alone.
What makes a proof is decided here, signatures by the Verifier; how proofs spread is forking's work.
Source: docs/protocol.md, "Order".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import attrs

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.logs import check_rewrite
from esgf_gossip.core.messages import Fork
from esgf_gossip.core.model import Digest, RewriteEvidence
from esgf_gossip.core.verification import Verifier


@attrs.frozen
class ForkLine:
    """A proof whose chain and both signatures were checked: only ``prove`` and who verified both digests make one."""

    origin: str
    certificate_sha256: bytes
    proof: Fork


class ForkTable:
    """The fork lines of one node; ``root`` is the SHA-256 over the hashes of their certificates, sorted."""

    def __init__(self) -> None:
        self._lines: dict[bytes, ForkLine] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, certificate_sha256: bytes) -> bool:
        return certificate_sha256 in self._lines

    def __iter__(self) -> Iterator[ForkLine]:
        return iter(self._lines.values())

    def line(self, certificate_sha256: bytes) -> ForkLine | None:
        """Return the fork line of a certificate, or None."""
        return self._lines.get(certificate_sha256)

    def add(self, line: ForkLine) -> bool:
        """Keep a proof; False where one of this certificate is held: the first stays."""
        return self._lines.setdefault(line.certificate_sha256, line) is line

    def remove(self, certificate_sha256: bytes) -> None:
        """Forget a proof whose certificate trust no longer carries."""
        self._lines.pop(certificate_sha256, None)

    def certificates(self) -> list[bytes]:
        """Return the hashes of all certificates, sorted."""
        return sorted(self._lines)

    @property
    def root(self) -> bytes:
        """32 bytes, equal where the same certificates are proven."""
        return hashlib.sha256(b"".join(self.certificates())).digest()


def prove(fork: Fork, verifier: Verifier) -> ForkLine:
    """
    Check a proof, the cheap things first: at most two signatures.

    No clock takes part: each digest is judged as of when it was issued, so that
    every node comes to the same verdict.

    Raises:
        DigestRefused: it proves nothing, or not to us.
        WireError: it holds what is no digest.
    """
    older, newer = decode_digest(fork.older.payload), decode_digest(fork.newer.payload)
    if older.certificate_sha256 != newer.certificate_sha256:
        raise DigestRefused("the two digests are of two certificates")
    if not _contradict(fork, older, newer):
        raise DigestRefused("the two digests do not contradict each other")
    for signed, digest in ((fork.older, older), (fork.newer, newer)):
        verifier.verify(signed, digest, fork.chain, digest.issued_at_ms)
    return ForkLine(older.origin, older.certificate_sha256, fork)


def _contradict(fork: Fork, older: Digest, newer: Digest) -> bool:
    if fork.log:
        return check_rewrite(RewriteEvidence(fork.older, fork.newer, fork.log, fork.hashes))
    numbers = {(digest.epoch, digest.sequence) for digest in (older, newer)}
    return len(numbers) == 1 and fork.older.payload != fork.newer.payload
