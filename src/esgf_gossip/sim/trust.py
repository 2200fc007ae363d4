"""
Plain trust: certificates that are words, signatures that are hashes, verified once for all nodes.

As good as any against bugs, worthless against people. Real certificates are
``trust``'s, which the simulator does not import.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs

from esgf_gossip.core.errors import DigestRefused, ObjectRefused
from esgf_gossip.core.limits import CLOCK_AHEAD_MS
from esgf_gossip.core.model import CertificateRank, Digest, Order, SignedDigest, TrustObject, VerifiedDigest

FEDERATION = "fed.example.org"
START_MS = 1_790_000_000_000
CERTIFICATE_LIFE_MS = 90 * 24 * 3600 * 1000


def _rank(generation: int) -> CertificateRank:
    return CertificateRank(generation, generation.to_bytes(20, "big"))


@attrs.frozen
class PlainSigner:
    """A Signer for one certificate of an origin; a higher ``generation`` is a newer certificate."""

    origin: str
    generation: int = 1
    federation: str = FEDERATION
    not_after_ms: int = START_MS + CERTIFICATE_LIFE_MS

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificate and the CA's, in words."""
        return (f"certificate {self.generation} of {self.origin}".encode(), b"issuing CA")

    @property
    def certificate_sha256(self) -> bytes:
        """SHA-256 of the certificate."""
        return hashlib.sha256(self.chain[0]).digest()

    @property
    def rank(self) -> CertificateRank:
        """The place of the certificate among those of its origin."""
        return _rank(self.generation)

    def sign(self, payload: bytes) -> bytes:
        """Return what only knowledge of the recipe can forge."""
        return hashlib.sha256(b"signed by " + self.chain[0] + payload).digest()


@attrs.define
class PlainVerifier:
    """
    A Verifier for PlainSigner; ``revoked`` holds certificates by their bytes.

    One may serve all nodes of a simulation: what was verified once is the same
    object for all of them. ``calls`` counts questions, ``checks`` signatures.
    ``forks`` names the origins that signed two digests of one number; ``roles`` are those of an origin's certificates,
    ``hosts`` the names in them beside its own.
    """

    revoked: set[bytes] = attrs.field(factory=set)
    calls: int = 0
    checks: int = 0
    forks: set[str] = attrs.field(factory=set)
    roles: dict[str, frozenset[str]] = attrs.field(factory=dict)
    hosts: dict[str, frozenset[str]] = attrs.field(factory=dict)
    _verified: dict[tuple[bytes, bytes, tuple[bytes, ...]], VerifiedDigest] = attrs.field(factory=dict)
    _numbers: dict[tuple[str, Order], bytes] = attrs.field(factory=dict)

    def verify(
        self, signed: SignedDigest, digest: Digest, chain: Sequence[bytes], now_ms: int
    ) -> VerifiedDigest:
        """
        Check chain, revocation, date and signature.

        Raises:
            DigestRefused: with one line of reason; only the counts changed.
        """
        self.calls += 1
        if chain and chain[0] in self.revoked:
            raise DigestRefused("certificate revoked")
        if digest.issued_at_ms > now_ms + CLOCK_AHEAD_MS:
            raise DigestRefused("dated ahead", lasting=False)
        key = (signed.payload, signed.signature, tuple(chain))
        line = self._verified.get(key)
        if line is None:
            line = self._verified[key] = self._check(signed, digest, tuple(chain))
        return line

    def _check(self, signed: SignedDigest, digest: Digest, chain: tuple[bytes, ...]) -> VerifiedDigest:
        self.checks += 1
        if not chain or hashlib.sha256(chain[0]).digest() != digest.certificate_sha256:
            raise DigestRefused("no chain for this certificate")
        words = chain[0].decode("ascii", "replace").split()
        if words[0] != "certificate" or words[-1] != digest.origin:
            raise DigestRefused("the certificate belongs to another node")
        if hashlib.sha256(b"signed by " + chain[0] + signed.payload).digest() != signed.signature:
            raise DigestRefused("bad signature")
        order = Order(_rank(int(words[1])), digest.epoch, digest.sequence)
        name = hashlib.sha256(signed.payload).digest()
        if self._numbers.setdefault((digest.origin, order), name) != name:
            self.forks.add(digest.origin)
        roles = self.roles.get(digest.origin, frozenset())
        hosts = self.hosts.get(digest.origin, frozenset()) | {digest.origin}
        return VerifiedDigest(signed, digest, order, name, chain, roles=roles, hosts=hosts)


def an_object(key: str, number: int, words: str = "", stamp_s: int = 0) -> bytes:
    """Return the body of a plain trust object."""
    return _sealed(key, f"{number} {stamp_s} {words}".encode())


def _sealed(key: str, said: bytes) -> bytes:
    return hashlib.sha256(b"issued as " + key.encode() + said).hexdigest().encode() + b" " + said


@attrs.define
class PlainJudge:
    """
    A TrustJudge for ``an_object``; ``retired`` holds beginnings of keys that are trusted no more.

    ``checks`` counts questions.
    """

    retired: set[str] = attrs.field(factory=set)
    checks: int = 0

    def judge_object(self, key: str, body: bytes, held: bytes | None, now_ms: int) -> TrustObject:
        """
        Check issuer and seal.

        Raises:
            ObjectRefused: with one line of reason; only the count changed.
        """
        self.checks += 1
        if key.startswith(tuple(self.retired)):
            raise ObjectRefused("its issuer is trusted no more")
        said = body[65:]
        if body != _sealed(key, said):
            raise ObjectRefused("bad seal")
        number, stamp_s = (int(word) for word in said.split(b" ", 2)[:2])
        if stamp_s * 1000 > now_ms + CLOCK_AHEAD_MS:
            raise ObjectRefused("dated ahead", lasting=False)
        if held is not None and number < int(held[65:].split(b" ", 1)[0]):
            raise ObjectRefused(f"{number} is older than what is held")
        return TrustObject(key, number, stamp_s, body)

    def contradicts(self, key: str, one: bytes, other: bytes) -> bool:
        """Compare what is said; what follows a ``~`` is only how it is signed."""
        del key
        return one[65:].partition(b"~")[0] != other[65:].partition(b"~")[0]
