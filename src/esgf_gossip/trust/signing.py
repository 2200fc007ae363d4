"""
Signatures over digests: one context prefix, deterministic ECDSA P-256 with SHA-256.

The TLS key signs digests too; TLS 1.3 puts its own prefix before what it signs,
so neither signature can be taken for the other. Source: docs/trust.md, RFC 6979.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from esgf_gossip.core.model import SERIAL_BYTES, CertificateRank
from esgf_gossip.trust.names import Names
from esgf_gossip.trust.pem import certificate_der
from esgf_gossip.trust.revocation import milliseconds

# protocol: what every digest signature begins with; a new meaning takes a new prefix.
DIGEST_CONTEXT: Final = b"esgf-gossip/digest/1\0"

_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
# Deterministic: no bad random number ever gives the key away, and equal digests are equal bytes.
_SIGNING: Final = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def is_signed(public_key: ec.EllipticCurvePublicKey, payload: bytes, signature: bytes) -> bool:
    """
    Tell whether a signature over a digest is the key's.

    ECDSA signatures are malleable: (r, n-s) passes too, so never name a digest by its signature.
    """
    try:
        public_key.verify(signature, DIGEST_CONTEXT + payload, _ALGORITHM)
    except InvalidSignature:
        return False
    return True


def rank(certificate: x509.Certificate) -> CertificateRank:
    """Return the place of a certificate among those of its origin."""
    return CertificateRank(
        milliseconds(certificate.not_valid_before_utc) // 1000,
        certificate.serial_number.to_bytes(SERIAL_BYTES, "big"),
    )


@attrs.frozen
class NodeSigner:
    """This node's certified key, as the core may use it; implements ``core.verification.Signer``."""

    names: Names
    rank: CertificateRank
    certificate_sha256: bytes
    chain: tuple[bytes, ...]
    not_after_ms: int
    _key: ec.EllipticCurvePrivateKey = attrs.field(eq=False, repr=False)

    @classmethod
    def make(
        cls, key: ec.EllipticCurvePrivateKey, leaf: x509.Certificate, names: Names, chain: tuple[bytes, ...]
    ) -> NodeSigner:
        """Make a signer of a key and its leaf, both checked before."""
        return cls(
            names=names,
            rank=rank(leaf),
            certificate_sha256=hashlib.sha256(certificate_der(leaf)).digest(),
            chain=chain,
            not_after_ms=milliseconds(leaf.not_valid_after_utc),
            key=key,
        )

    @property
    def origin(self) -> str:
        """The host name the certificate's node URI certifies."""
        return self.names.host

    @property
    def federation(self) -> str:
        """The federation id of the certificate."""
        return self.names.federation

    def sign(self, payload: bytes) -> bytes:
        """Sign the payload of a digest under the protocol's context prefix."""
        return self._key.sign(DIGEST_CONTEXT + payload, _SIGNING)
