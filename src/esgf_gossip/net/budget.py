"""
What one peer may make this node work: frames it sends, and bytes in both directions.

Counting only, over all links of a peer and from one to the next, so that
nobody gets a new budget by dialling again. Beyond it a link is read more
slowly; nothing is refused.
"""

from __future__ import annotations

from typing import Final

from esgf_gossip.core import limits
from esgf_gossip.core.quota import TokenBucket

# Budgets are looked through for those that are full again when so many have come since the last time.
SWEEP_AFTER: Final = 64


class PeerBudget:
    """The budget of one peer."""

    def __init__(self) -> None:
        self._frames = TokenBucket(limits.PEER_FRAMES_PER_S, limits.PEER_FRAMES_AT_ONCE)
        self._bytes = TokenBucket(limits.PEER_BYTES_PER_S, limits.PEER_BYTES_AT_ONCE)

    def take(self, frames: int, size_bytes: int, at_s: float) -> None:
        """Count work that was done for the peer."""
        self._frames.take(frames, at_s)
        self._bytes.take(size_bytes, at_s)

    def wait_s(self, at_s: float) -> float:
        """Return the seconds until more work may be done for the peer, 0.0 for now."""
        return max(self._frames.wait_s(at_s), self._bytes.wait_s(at_s))

    def is_full(self, at_s: float) -> bool:
        """Tell whether the peer might as well be a stranger."""
        return (
            self._frames.wait_s(at_s, limits.PEER_FRAMES_AT_ONCE) == 0.0
            and self._bytes.wait_s(at_s, limits.PEER_BYTES_AT_ONCE) == 0.0
        )


class PeerBudgets:
    """The budgets of all peers, by name. Only who has a certificate gets one."""

    def __init__(self) -> None:
        self._budgets: dict[str, PeerBudget] = {}
        self._sweep_at = SWEEP_AFTER

    def __len__(self) -> int:
        return len(self._budgets)

    def of(self, peer: str, at_s: float) -> PeerBudget:
        """Return the budget of a peer, the same for all its links."""
        budget = self._budgets.get(peer)
        if budget is None:
            if len(self._budgets) >= self._sweep_at:
                # A link that keeps one forgotten here goes on with a full one: as good as new.
                self._budgets = {name: kept for name, kept in self._budgets.items() if not kept.is_full(at_s)}
                self._sweep_at = len(self._budgets) + SWEEP_AFTER
            budget = self._budgets[peer] = PeerBudget()
        return budget
