"""
The words of the protocol as immutable values.

Only data and their order live here, and the bytes of a head, which are kept with it;
all other bytes are the codec's, doubt is the Verifier's.
Source: docs/protocol.md, docs/adr/0003-order-of-digests.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Final, NewType

import attrs

from esgf_gossip.core import packing

Link = NewType("Link", int)
"""One connection to one peer, numbered by the shell, never used twice."""

Address = tuple[str, int]
"""A place to dial: host name or IP address, and port. Never an identity."""

SERIAL_BYTES: Final = 20


@attrs.frozen
class Moment:
    """One instant on both clocks: ``mono_s`` for timers, ``wall_ms`` (UTC) for stamps and expiry."""

    mono_s: float
    wall_ms: int


@attrs.frozen(order=True)
class CertificateRank:
    """
    The place of a certificate among those of one origin: the CA's word, not a clock of the origin's.

    ``not_before_s`` is Unix seconds; ``serial`` is big-endian, padded to 20 bytes (RFC 5280, 4.1.2.2).
    """

    not_before_s: int
    serial: bytes


@attrs.frozen(order=True)
class Order:
    """The order of the digests of one origin: certificate, then epoch, then sequence."""

    certificate: CertificateRank
    epoch: int
    sequence: int


@attrs.frozen
class EntryRef:
    """
    What a digest says of one entry: SHA-256, size in bytes, and when it last changed.

    ``changed_at`` is the (epoch, sequence) of that digest, ``changed_at_ms``
    its issued_at: the stamp that ESGF's documents show, the same on all nodes.
    """

    sha256: bytes
    size_bytes: int
    changed_at: tuple[int, int]
    changed_at_ms: int


@attrs.frozen
class LogRef:
    """What a digest says of one log: when it was born, leaves, Merkle root, first leaf retained."""

    born: int
    size: int
    root: bytes
    first_retained: int


@attrs.frozen
class Digest:
    """An origin's statement of all it publishes, decoded. The signed bytes are the truth, this is a reading."""

    federation: str
    origin: str
    certificate_sha256: bytes
    epoch: int
    sequence: int
    issued_at_ms: int
    expires_at_ms: int
    contact: Address
    entries: Mapping[str, EntryRef] = attrs.field(factory=dict)
    logs: Mapping[str, LogRef] = attrs.field(factory=dict)
    leaving: bool = False


@attrs.frozen
class SignedDigest:
    """The opaque bytes of a digest and the signature over them. Nothing is known to be true yet."""

    payload: bytes
    signature: bytes


@attrs.frozen
class VerifiedDigest:
    """
    A digest whose signature, chain and revocation state were checked.

    Only a Verifier makes one: the type is the proof. ``chain`` holds the DER
    certificates, leaf first, root left out; ``payload_sha256`` names the digest
    (never the signature, which is malleable). ``groups`` and ``roles`` are those the
    certificate grants: what an entry claims beyond them is not shown, what a log says beyond them does not count.
    ``hosts`` are the names it certifies, the node's own among them, in lower case: what the origin may speak for.
    """

    signed: SignedDigest
    digest: Digest
    order: Order
    payload_sha256: bytes
    chain: tuple[bytes, ...]
    groups: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()

    @cached_property
    def head(self) -> Head:
        """The short form of this line."""
        return Head(self.digest.origin, self.order, self.payload_sha256)


@attrs.frozen
class RewriteEvidence:
    """
    Two digests of one origin that cannot both be true of one log: it shrank, or its past was changed.

    ``hashes`` is the consistency proof between the two sizes, under the newer root; empty where the newer
    size is not the greater one. ``logs.check_rewrite`` judges it, once the signatures are known to be right.
    """

    older: SignedDigest
    newer: SignedDigest
    log: str
    hashes: tuple[bytes, ...]


@attrs.frozen
class Head:
    """The short form of a line: key, order, hash."""

    origin: str
    order: Order
    payload_sha256: bytes

    def as_array(self) -> list[object]:
        """Return the fields in the order in which they stand in messages and under the root."""
        rank = self.order.certificate
        return [
            self.origin,
            rank.not_before_s,
            rank.serial,
            self.order.epoch,
            self.order.sequence,
            self.payload_sha256,
        ]

    @cached_property
    def encoded(self) -> bytes:
        """The bytes of this head, the leaf of the root hash."""
        return packing.pack(self.as_array())

    def least_above(self) -> Head:
        """Return the least head that is above this one: what is known of a line that is said to be above."""
        number = int.from_bytes(self.payload_sha256, "big")
        if number:
            return attrs.evolve(self, payload_sha256=(number - 1).to_bytes(packing.HASH_BYTES, "big"))
        order = attrs.evolve(self.order, sequence=self.order.sequence + 1)
        return attrs.evolve(self, order=order, payload_sha256=b"\xff" * packing.HASH_BYTES)

    def is_above(self, other: Head | None) -> bool:
        """
        Tell whether this head wins over another of the same origin.

        Total on distinct heads: of two digests with one number the smaller hash
        counts, so replicas agree even while an origin equivocates.
        """
        if other is None:
            return True
        if self.order != other.order:
            return self.order > other.order
        return self.payload_sha256 < other.payload_sha256


@attrs.frozen
class TrustHead:
    """The short form of a trust object: its key, the issuer's rising number, a date in Unix seconds, SHA-256."""

    key: str
    number: int
    stamp_s: int
    sha256: bytes

    def as_array(self) -> list[object]:
        """Return the fields in the order in which they stand in messages and under the root."""
        return [self.key, self.number, self.stamp_s, self.sha256]

    def is_above(self, other: TrustHead | None) -> bool:
        """Tell whether this one wins over another of the same key; of two with one stand the smaller hash does."""
        if other is None:
            return True
        if (self.number, self.stamp_s) != (other.number, other.stamp_s):
            return (self.number, self.stamp_s) > (other.number, other.stamp_s)
        return self.sha256 < other.sha256


@attrs.frozen
class TrustObject:
    """
    A CRL, a bundle, a sealed secret, ...: bytes that prove themselves, judged by a TrustJudge.

    Only a judge makes one: the type is the proof (and the core itself, for two that contradict each other).
    """

    key: str
    number: int
    stamp_s: int
    body: bytes = attrs.field(repr=False)

    @cached_property
    def head(self) -> TrustHead:
        """The short form of this object."""
        return TrustHead(self.key, self.number, self.stamp_s, hashlib.sha256(self.body).digest())
