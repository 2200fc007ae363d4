"""
The one maker of VerifiedDigest: dates, chain, profile, revocation, signature, the cheap before the dear.

Knows nothing of what a digest says beyond who, when and which certificate.
Source: docs/protocol.md, docs/trust.md.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.limits import (
    CHAIN_BYTES,
    CHAIN_CERTIFICATES,
    CLOCK_AHEAD_MS,
    DIGEST_LIFETIME_MS,
    VERDICTS_REMEMBERED,
)
from esgf_gossip.core.model import CertificateRank, Digest, Order, SignedDigest, VerifiedDigest
from esgf_gossip.trust import profile, signing
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.chain import without_root
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.names import Names
from esgf_gossip.trust.revocation import Issued, milliseconds

# A federation has a hundred nodes; 4,096 verdicts take about 8 MB and outlast any flood of one peer.
VERDICTS_KEPT: Final = 4096


@attrs.frozen
class _Verdict:
    """What is known of one chain: good for digests issued while all of its certificates were valid."""

    names: Names
    chain: tuple[bytes, ...]
    rank: CertificateRank
    public_key: ec.EllipticCurvePublicKey
    valid_from_ms: int
    valid_to_ms: int
    not_after_ms: int
    issued: tuple[Issued, ...]


class DigestVerifier:
    """Verifies digests against the trust in force; implements ``core.verification.Verifier``."""

    def __init__(self, material: TrustMaterial) -> None:
        self._material = material
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        # Certificate, digest and signature that fit together, by hash. No change of trust makes that untrue.
        self._signed: OrderedDict[bytes, None] = OrderedDict()

    def replace(self, material: TrustMaterial) -> None:
        """
        Judge by new trust from now on; of what was judged before only matching signatures count.

        Where nothing but CRLs is new, chains that they let pass need no second look either: a federation's revocations
        must not make every node check every chain again.
        """
        before, self._material = self._material, material
        if (before.roots, before.bundle) != (material.roots, material.bundle):
            self._verdicts.clear()
            return
        crls = material.anchors.crls
        for key in [key for key, verdict in self._verdicts.items() if not crls.passes(verdict.issued)]:
            del self._verdicts[key]

    def verify(
        self, signed: SignedDigest, digest: Digest, chain: Sequence[bytes], now_ms: int
    ) -> VerifiedDigest:
        """
        Check chain, profile, revocation, dates and signature of a digest.

        The chain is judged as of when the digest was issued, so that every node
        comes to the same verdict whenever it hears of it; revocation counts for all times.

        Raises:
            DigestRefused: with one line of reason; no state changed but the caches of what was good.
        """
        if digest.federation != self._material.names.federation:
            raise DigestRefused(f"of federation {digest.federation!r}, not ours")
        if not chain or len(chain) > CHAIN_CERTIFICATES or sum(map(len, chain)) > CHAIN_BYTES:
            raise DigestRefused("the chain is empty or too long")
        if hashlib.sha256(chain[0]).digest() != digest.certificate_sha256:
            raise DigestRefused("the chain is not that of the certificate the digest names")
        _check_dates(digest, now_ms)
        verdict = self._verdict(chain, digest.issued_at_ms)
        if verdict.names.host != digest.origin:
            raise DigestRefused(
                f"says it is of {digest.origin!r}, its certificate is {verdict.names.host!r}'s"
            )
        if digest.expires_at_ms > verdict.not_after_ms:
            raise DigestRefused("outlives its certificate")
        # Last, because it costs most and a relay can replay it at will.
        payload_sha256 = hashlib.sha256(signed.payload).digest()
        if not self._is_signed(verdict, digest.certificate_sha256, signed, payload_sha256):
            raise DigestRefused("the signature does not match")
        return VerifiedDigest(
            signed=signed,
            digest=digest,
            order=Order(verdict.rank, digest.epoch, digest.sequence),
            payload_sha256=payload_sha256,
            chain=verdict.chain,
            groups=frozenset(verdict.names.groups),
            roles=frozenset(verdict.names.roles),
            hosts=frozenset(name.lower() for name in (verdict.names.host, *verdict.names.dns)),
        )

    def _is_signed(
        self, verdict: _Verdict, certificate_sha256: bytes, signed: SignedDigest, payload_sha256: bytes
    ) -> bool:
        signature_sha256 = hashlib.sha256(signed.signature).digest()
        key = hashlib.sha256(certificate_sha256 + payload_sha256 + signature_sha256).digest()
        if key in self._signed:
            self._signed.move_to_end(key)
            return True
        if not signing.is_signed(verdict.public_key, signed.payload, signed.signature):
            return False  # who sends it pays for it, and remembers it: core.judging
        self._signed[key] = None
        if len(self._signed) > VERDICTS_REMEMBERED:
            self._signed.popitem(last=False)
        return True

    def _verdict(self, chain: Sequence[bytes], issued_at_ms: int) -> _Verdict:
        # Over all of the chain: a good leaf must not lend its verdict to another tail.
        key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in chain)).digest()
        known = self._verdicts.get(key)
        if known is not None and known.valid_from_ms <= issued_at_ms <= known.valid_to_ms:
            self._verdicts.move_to_end(key)
            return known
        try:
            verdict = self._judge(chain, issued_at_ms)
        except TrustError as error:
            raise DigestRefused(str(error)) from None
        self._verdicts[key] = verdict
        if len(self._verdicts) > VERDICTS_KEPT:
            self._verdicts.popitem(last=False)
        return verdict

    def _judge(self, chain: Sequence[bytes], issued_at_ms: int) -> _Verdict:
        try:
            leaf, *others = (x509.load_der_x509_certificate(part) for part in chain)
        except Exception as error:
            # Bytes of a stranger: whatever the library makes of them, they are no certificates.
            raise TrustError("E-PEM", f"the chain holds no certificates: {type(error).__name__}") from error
        names = profile.leaf_names(leaf, self._material.names.federation)
        anchors = self._material.anchors
        verified = anchors.chain_to_root(leaf, others, issued_at_ms)
        anchors.check_not_revoked(verified)
        check_issued(self._material.bundle, leaf)
        public_key = leaf.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise TrustError("E-KEYTYPE", "the key is not a P-256 key")
        return _Verdict(
            names=names,
            chain=without_root(verified),
            rank=signing.rank(leaf),
            public_key=public_key,
            valid_from_ms=max(milliseconds(one.not_valid_before_utc) for one in verified),
            valid_to_ms=min(milliseconds(one.not_valid_after_utc) for one in verified),
            not_after_ms=milliseconds(leaf.not_valid_after_utc),
            issued=tuple((one.issuer.public_bytes(), one.serial_number) for one in verified),
        )


def _check_dates(digest: Digest, now_ms: int) -> None:
    if digest.expires_at_ms <= digest.issued_at_ms:
        raise DigestRefused("expires before it was issued")
    if digest.expires_at_ms > digest.issued_at_ms + DIGEST_LIFETIME_MS:
        raise DigestRefused("is valid for longer than the protocol allows")
    if digest.issued_at_ms > now_ms + CLOCK_AHEAD_MS:
        # Clock alone decides: the same digest may be good in an hour, so it is not remembered.
        raise DigestRefused(
            f"dated {(digest.issued_at_ms - now_ms) // 1000} s ahead of this host's clock", lasting=False
        )
