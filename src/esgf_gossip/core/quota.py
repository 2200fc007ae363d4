"""
Token buckets, and what one origin may make us take in.

Pure: time comes in as seconds of any monotonic clock. A bucket only tells how
long to wait; it refuses nothing, so load delays and never decides.
Source: docs/protocol.md, "Fetching".
"""

from __future__ import annotations

import attrs

from esgf_gossip.core import limits

# Less than this is rounding: nobody waits for a millionth of a token.
_NOTHING = 1e-6


@attrs.define
class TokenBucket:
    """
    So much a second, and so much at once after a rest. Full at first.

    What is taken may exceed what is there: the bucket is in debt then, and
    whoever took from it waits until the debt is paid. So the cost of a thing
    need not be known before it is done, and the rate holds all the same.
    """

    per_s: float
    at_once: float
    _tokens: float = attrs.field(init=False)
    _counted_at_s: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._tokens = self.at_once

    def take(self, amount: float, at_s: float) -> None:
        """Take an amount, into debt where it must be."""
        self._count(at_s)
        self._tokens -= amount

    def wait_s(self, at_s: float, least: float = 0.0) -> float:
        """Return the seconds until ``least`` tokens are there, 0.0 where they are; ``least`` <= ``at_once``."""
        self._count(at_s)
        lacking = least - self._tokens
        return lacking / self.per_s if lacking > _NOTHING else 0.0

    def _count(self, at_s: float) -> None:
        # A clock that steps back earns nothing and owes nothing: what counts is the time from then on.
        if self._counted_at_s is not None and at_s > self._counted_at_s:
            self._tokens = min(self.at_once, self._tokens + (at_s - self._counted_at_s) * self.per_s)
        self._counted_at_s = at_s


class OriginQuota:
    """What one origin may still publish at this moment: digests, and bytes of bodies."""

    def __init__(self) -> None:
        self._digests = TokenBucket(limits.ORIGIN_DIGESTS_PER_S, limits.ORIGIN_DIGESTS_AT_ONCE)
        self._body_bytes = TokenBucket(
            limits.ORIGIN_BODY_BYTES_PER_MINUTE / 60, limits.ORIGIN_BODY_BYTES_AT_ONCE
        )

    def wait_s(self, at_s: float) -> float:
        """Return the seconds until the next digest of this origin may be dealt with, 0.0 for now."""
        return max(self._digests.wait_s(at_s, 1.0), self._body_bytes.wait_s(at_s))

    def take_digest(self, at_s: float) -> None:
        """Count one digest."""
        self._digests.take(1.0, at_s)

    def take_bodies(self, size_bytes: int, at_s: float) -> None:
        """Count bytes of bodies that are new."""
        self._body_bytes.take(size_bytes, at_s)


class Quotas:
    """
    The quota of each origin.

    Only what a certified key signed is counted, so there are not more of them
    than certified origins, as there are lines.
    """

    def __init__(self) -> None:
        self._quotas: dict[str, OriginQuota] = {}

    def wait_s(self, origin: str, at_s: float) -> float:
        """Return the seconds until an origin has its turn, 0.0 for now."""
        quota = self._quotas.get(origin)
        return 0.0 if quota is None else quota.wait_s(at_s)

    def take_digest(self, origin: str, at_s: float) -> None:
        """Count one digest of an origin."""
        self._of(origin).take_digest(at_s)

    def take_bodies(self, origin: str, size_bytes: int, at_s: float) -> None:
        """Count bytes of bodies of an origin."""
        self._of(origin).take_bodies(size_bytes, at_s)

    def _of(self, origin: str) -> OriginQuota:
        quota = self._quotas.get(origin)
        if quota is None:
            quota = self._quotas[origin] = OriginQuota()
        return quota
