"""
What the core asks of trust: three protocols, no implementation.

``trust`` implements them; the simulator passes cheaper ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from esgf_gossip.core.model import CertificateRank, Digest, SignedDigest, TrustObject, VerifiedDigest


class Verifier(Protocol):
    """Turns a SignedDigest into a VerifiedDigest or refuses it. The only maker of VerifiedDigest."""

    def verify(
        self, signed: SignedDigest, digest: Digest, chain: Sequence[bytes], now_ms: int
    ) -> VerifiedDigest:
        """
        Check chain, profile, revocation, signature, origin and dates.

        Args:
            signed: the bytes as they came.
            digest: the codec's reading of ``signed.payload``.
            chain: DER certificates, leaf first, root left out; unchecked.
            now_ms: our wall clock, UTC.

        Raises:
            DigestRefused: with one line of reason; no state anywhere changed.
        """
        ...  # pragma: no cover


class TrustJudge(Protocol):
    """Turns bytes that claim to be a trust object into one, or refuses them."""

    def judge_object(self, key: str, body: bytes, held: bytes | None, now_ms: int) -> TrustObject:
        """
        Check what proves the object: signature, issuer, number, form.

        The clock may only refuse what is dated ahead, and says so (``lasting`` False): all nodes come to one verdict.

        Args:
            key: the line it is for, ``<kind>/...``.
            body: the bytes as they came, at most ``TRUST_BODY_BYTES``.
            held: the body held under that key, if any; the new one may have to go on from it.
            now_ms: our wall clock, UTC.

        Raises:
            ObjectRefused: with one line of reason; nothing is changed.
        """
        ...  # pragma: no cover

    def contradicts(self, key: str, one: bytes, other: bytes) -> bool:
        """
        Tell whether two different bodies of one key and number, both rightly signed, say different things.

        What is signed counts, not the signature: whoever reads an ECDSA signature can make a second one of it.
        """
        ...  # pragma: no cover


class Signer(Protocol):
    """This node's certified key, as the core may use it."""

    @property
    def origin(self) -> str:
        """The host name the certificate's node URI certifies."""
        ...  # pragma: no cover

    @property
    def federation(self) -> str:
        """The federation id of the certificate."""
        ...  # pragma: no cover

    @property
    def certificate_sha256(self) -> bytes:
        """SHA-256 of the DER leaf."""
        ...  # pragma: no cover

    @property
    def rank(self) -> CertificateRank:
        """The rank of the leaf among the certificates of this origin."""
        ...  # pragma: no cover

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER certificates, leaf first, root left out."""
        ...  # pragma: no cover

    @property
    def not_after_ms(self) -> int:
        """The end of the certificate: no digest outlives it."""
        ...  # pragma: no cover

    def sign(self, payload: bytes) -> bytes:
        """Sign the payload of a digest under the protocol's context prefix."""
        ...  # pragma: no cover
