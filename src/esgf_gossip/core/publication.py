"""
What this node publishes: its epoch, its sequence, its signed digest.

The one place that makes digests. An epoch is durable before its first use, so
that no crash, lost disk or resumed snapshot ever makes two digests of one
number (docs/adr/0003-order-of-digests.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from esgf_gossip.core.digests import encode_digest
from esgf_gossip.core.limits import (
    COUNTER_MAX,
    DIGEST_BYTES,
    DIGEST_ENTRIES,
    DIGEST_LIFETIME_MS,
    ENTRIES_TOTAL_BYTES,
    ENTRY_BYTES,
)
from esgf_gossip.core.model import (
    Address,
    Digest,
    EntryRef,
    LogRef,
    Moment,
    SignedDigest,
    VerifiedDigest,
)
from esgf_gossip.core.packing import is_entry_name
from esgf_gossip.core.reachability import REACHABILITY
from esgf_gossip.core.registry import sha256
from esgf_gossip.core.verification import Signer

EPOCH_RANDOM_BITS: Final = 20
# The clock of the year 2514: above it an epoch was burned by a thief, and nobody follows it.
EPOCH_HONEST_MAX: Final = 2**34 << EPOCH_RANDOM_BITS

# What the protocol itself says keeps its place beside whatever a site publishes.
PROTOCOL_ENTRIES: Final = frozenset({REACHABILITY})
GIVEN_ENTRIES: Final = DIGEST_ENTRIES - len(PROTOCOL_ENTRIES)
GIVEN_BYTES: Final = ENTRIES_TOTAL_BYTES - len(PROTOCOL_ENTRIES) * ENTRY_BYTES


class PublicationError(ValueError):
    """Report entries that no peer would accept: too many, too large. Nothing was published."""


def next_epoch(last: int, shown: int, wall_ms: int, random: Random) -> int:
    """
    Return the epoch of a new start: above every one used or shown, and never one that a clone could draw.

    Args:
        last: the highest epoch on our disk, 0 for none.
        shown: the highest epoch in a digest of ours, with our valid signature, that anybody showed us.
        wall_ms: Unix milliseconds; only makes collisions unlikely, never decides an order on its own.
        random: the source of the bits that are added whatever is greatest: a clock that is behind leaves
            ``last`` to decide, and two starts from one backup would draw one epoch.
    """
    by_clock = max(0, wall_ms // 1000) << EPOCH_RANDOM_BITS
    return min(COUNTER_MAX, max(last + 1, shown + 1, by_clock) + random.getrandbits(EPOCH_RANDOM_BITS))


class Publication:
    """
    The state from which the own digest is made.

    ``epoch`` and ``sequence`` are those of the newest digest made; both 0 before ``begin``.
    """

    def __init__(self, signer: Signer, contact: Address) -> None:
        self.signer = signer
        self.contact = contact
        self.epoch = 0
        self.sequence = 0
        self.leaving = False
        self.stopped = ""
        self.stopped_by_trust = False
        self.bodies: dict[bytes, bytes] = {}
        # By name: size, root, first leaf retained.
        self.logs: dict[str, tuple[int, bytes, int]] = {}
        self._given: dict[str, bytes] = {}
        self._said: dict[str, bytes] = {}
        self._refs: dict[str, EntryRef] = {}

    def begin(self, epoch: int, remembered: VerifiedDigest | None) -> None:
        """
        Start or restart with an epoch that is durable already.

        What the remembered own digest says of unchanged entries is kept, so
        that peers do not fetch them again after our restart.
        """
        self.epoch = epoch
        self.sequence = 0
        if remembered is not None and not self._refs:
            self._refs = dict(remembered.digest.entries)

    def stop(self, reason: str, *, by_trust: bool) -> None:
        """Publish no more; ``by_trust``: new trust may cure it."""
        self.stopped, self.stopped_by_trust = reason, by_trust

    def resume(self) -> None:
        """Publish again."""
        self.stopped, self.stopped_by_trust = "", False

    def has_entries(self, entries: Mapping[str, bytes]) -> bool:
        """Tell whether exactly these entries were given already."""
        return self._given == entries

    def check(self, entries: Mapping[str, bytes]) -> None:
        """
        Tell entries that could be published from others.

        Raises:
            PublicationError: a name, an entry or their sum is out of the protocol's bounds.
        """
        if len(entries) > GIVEN_ENTRIES:
            raise PublicationError(f"{len(entries)} entries are more than {GIVEN_ENTRIES}")
        for name, body in entries.items():
            if not is_entry_name(name) or name in PROTOCOL_ENTRIES:
                raise PublicationError(f"{name!r} is no name of an entry")
            if len(body) > ENTRY_BYTES:
                raise PublicationError(f"entry {name!r} has {len(body)} bytes, {ENTRY_BYTES} are allowed")
        total = sum(len(body) for body in entries.values())
        if total > GIVEN_BYTES:
            raise PublicationError(f"the entries together have {total} bytes, {GIVEN_BYTES} are allowed")

    def set_entries(self, entries: Mapping[str, bytes], at: Moment) -> None:
        """
        Take the bodies that the next digest, signed at this same Moment, will list.

        Raises:
            PublicationError: out of the protocol's bounds; the old entries stay.
        """
        self.check(entries)
        self._given = dict(entries)
        self._list_entries(at)

    def keep_saying(self, name: str, body: bytes | None) -> None:
        """Go on with an entry of the protocol itself from before a restart; ``set_entries`` lists it with the others."""
        if body is not None:
            self._said[name] = body

    def say(self, name: str, body: bytes | None, at: Moment) -> None:
        """Take the body of an entry of the protocol itself, None for none; the next digest lists it."""
        if body is None:
            self._said.pop(name, None)
        else:
            self._said[name] = body
        self._list_entries(at)

    def _list_entries(self, at: Moment) -> None:
        entries = self._given | self._said
        number = (self.epoch, self.sequence + 1)
        refs = {}
        for name, body in entries.items():
            content = sha256(body)
            before = self._refs.get(name)
            unchanged = before is not None and before.sha256 == content
            refs[name] = before if before and unchanged else EntryRef(content, len(body), number, at.wall_ms)
        self._refs = refs
        self.bodies = {sha256(body): body for body in entries.values()}

    def sign(self, at: Moment) -> tuple[SignedDigest, Digest]:
        """
        Make the next digest: one sequence higher, dated now, never beyond the certificate.

        Raises:
            PublicationError: the digest is above its bound.
        """
        self.sequence += 1
        digest = Digest(
            federation=self.signer.federation,
            origin=self.signer.origin,
            certificate_sha256=self.signer.certificate_sha256,
            epoch=self.epoch,
            sequence=self.sequence,
            issued_at_ms=at.wall_ms,
            expires_at_ms=min(at.wall_ms + DIGEST_LIFETIME_MS, self.signer.not_after_ms),
            contact=self.contact,
            entries=self._refs,
            # Every epoch is a birth: what another run may have said of a log binds nobody (docs/adr/0008).
            logs={
                name: LogRef(self.epoch, size, root, first_retained)
                for name, (size, root, first_retained) in self.logs.items()
            },
            leaving=self.leaving,
        )
        payload = encode_digest(digest)
        if len(payload) > DIGEST_BYTES:
            raise PublicationError(f"the digest has {len(payload)} bytes, {DIGEST_BYTES} are allowed")
        return SignedDigest(payload, self.signer.sign(payload)), digest

    def renewal_after_s(self, digest: Digest, random: Random) -> float:
        """Return the seconds after which to sign anew: a third of the life, with jitter, at least a minute."""
        life_s = (digest.expires_at_ms - digest.issued_at_ms) / 1000
        return max(60.0, life_s / 3 * random.uniform(0.8, 1.0))
