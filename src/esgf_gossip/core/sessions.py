"""
The state of each link and who is at its other end.

Only bookkeeping: what was heard, claimed and told. Reactions are the node's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Final

import attrs

from esgf_gossip.core.limits import UNKNOWN_CLAIMS_PER_PEER, WASTED_CHECKS_PER_S
from esgf_gossip.core.model import Address, Head, Link, TrustHead
from esgf_gossip.core.narrowing import Listener, Teller
from esgf_gossip.core.quota import TokenBucket
from esgf_gossip.core.table import Table

# Half a round trip and so much for what makes a message late; a slow or silent origin holds nobody up for longer.
PUSH_LATE_S: Final = 0.02
PUSH_WAIT_MOST_S: Final = 0.2


@attrs.define
class ForkTalk:
    """
    What was said of fork lines on one link, by the SHA-256 of their certificates.

    ``claimed`` by the peer; ``asked`` of it and not given yet; ``refused``: its proof was none;
    ``given_at_s``: when ours was sent.
    ``awaited_above``: where the next page of all the peer holds begins, None where none was asked for.
    """

    claimed: set[bytes] = attrs.field(factory=set)
    asked: set[bytes] = attrs.field(factory=set)
    refused: set[bytes] = attrs.field(factory=set)
    given_at_s: dict[bytes, float] = attrs.field(factory=dict)
    awaited_above: bytes | None = None


@attrs.define
class TrustTalk:
    """
    What was said of trust objects on one link, by their keys.

    ``claimed`` by the peer; ``asked`` of it and not given yet; ``refused``: what it gave was no such object;
    ``given_at_s``: hash of what we sent last, and when.
    ``awaited_above``: where the next page of all the peer holds begins, None where none was asked for.
    ``settled``: the two roots for which digests have waited already.
    """

    claimed: dict[str, TrustHead] = attrs.field(factory=dict)
    asked: set[str] = attrs.field(factory=set)
    refused: set[str] = attrs.field(factory=set)
    given_at_s: dict[str, tuple[bytes, float]] = attrs.field(factory=dict)
    awaited_above: str | None = None
    settled: tuple[bytes, bytes] | None = None


@attrs.define
class Session:
    """
    One link. ``dialled`` is the address we dialled, None where the peer dialled us.

    ``is_open``: the peer's hello was heard. ``we_greeted``: ours was sent, so
    what changes from now on is announced. ``known`` holds the highest head
    the peer claimed per origin, ``told`` what we claimed to it. ``teller`` and
    ``listener`` are our ends of the comparisons by fingerprints under way, one of each at most.
    ``agreed_root`` is the root over digests that both ends last showed each other as equal.
    """

    link: Link
    peer: str
    dialled: Address | None
    connected_at_s: float
    heard_at_s: float
    wanted_at_s: float
    is_open: bool = False
    we_greeted: bool = False
    instance: bytes = b""
    version: int = 0
    features: frozenset[int] = frozenset()
    round_trip_s: float | None = None
    clock_offset_ms: int | None = None
    ping_token: int = 0
    ping_sent_at_s: float | None = None
    known: dict[str, Head] = attrs.field(factory=dict)
    told: dict[str, Head] = attrs.field(factory=dict)
    vector: dict[str, Head] = attrs.field(factory=dict)
    unknown_claims: int = 0
    counted_at_size: int = -1
    roots_asked: bool = False
    compare_pending: bool = False
    compare_wait_s: float = 0.0
    wasted_checks: TokenBucket = attrs.field(
        factory=lambda: TokenBucket(WASTED_CHECKS_PER_S, WASTED_CHECKS_PER_S)
    )
    begun_at_s: float = -math.inf
    vector_answered_at_s: float = -math.inf
    teller: Teller | None = None
    listener: Listener | None = None
    agreed_root: bytes = b""

    @cached_property
    def forks(self) -> ForkTalk:
        """What was said of fork lines; made when something is, which is rare."""
        return ForkTalk()

    @cached_property
    def trust(self) -> TrustTalk:
        """What was said of trust objects; made when something is."""
        return TrustTalk()

    def note_claim(self, head: Head, table: Table) -> bool:
        """
        Remember what the peer claims to hold; False where it claims too many origins we have never seen.

        Memory stays bounded by our own lines plus a constant, whatever a peer says.
        """
        before = self.known.get(head.origin)
        if before is None and head.origin not in table:
            if self.unknown_claims >= UNKNOWN_CLAIMS_PER_PEER and self.counted_at_size != len(table):
                # Many of them may have become lines since they were counted; a flood must not pay for counting.
                self.counted_at_size = len(table)
                self.unknown_claims = sum(origin not in table for origin in self.known)
            if self.unknown_claims >= UNKNOWN_CLAIMS_PER_PEER:
                return False
            self.unknown_claims += 1
        if head.is_above(before):
            self.known[head.origin] = head
        return True

    def forget_claim(self, origin: str, table: Table) -> None:
        """Drop a claim that the peer itself did not confirm."""
        if self.known.pop(origin, None) is not None and origin not in table and self.unknown_claims:
            self.unknown_claims -= 1

    def has(self, head: Head) -> bool:
        """Tell whether the peer claimed this head or a higher one."""
        known = self.known.get(head.origin)
        return known is not None and not head.is_above(known)

    def has_been_told(self, head: Head) -> bool:
        """Tell whether the peer has this head, from us or by its own word."""
        return self.told.get(head.origin) == head or self.has(head)


class Sessions:
    """All links, by number; an index by peer lives as long as the link."""

    def __init__(self) -> None:
        self._sessions: dict[Link, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def add(self, session: Session) -> None:
        """Take in a new link."""
        self._sessions[session.link] = session

    def get(self, link: Link) -> Session | None:
        """Return the session of a link, or None where it is already closed."""
        return self._sessions.get(link)

    def remove(self, link: Link) -> Session | None:
        """Forget a link and return what was known of it, None where it was forgotten before."""
        return self._sessions.pop(link, None)

    def open(self) -> list[Session]:
        """Return the sessions whose peer has said hello, in the order of their links."""
        return [session for session in self._sessions.values() if session.is_open]

    @property
    def is_any_open(self) -> bool:
        """Tell whether any peer has said hello."""
        return any(session.is_open for session in self._sessions.values())

    def push_wait_s(self, origin: str, announcer: Session) -> float:
        """
        Return how long the origin's own copy of its change may still be on its way here, 0.0 for not at all.

        It goes to all peers of the origin at once, so it left before anybody could announce the change.
        """
        trips = [one.round_trip_s for one in self.of(origin) if one.round_trip_s is not None]
        if not trips or announcer.peer == origin:
            return 0.0
        return min(PUSH_WAIT_MOST_S, min(trips) / 2 + PUSH_LATE_S)

    def of(self, peer: str) -> list[Session]:
        """Return the open sessions with one peer: more than one only until the duplicate is closed."""
        return [one for one in self._sessions.values() if one.peer == peer and one.is_open]
