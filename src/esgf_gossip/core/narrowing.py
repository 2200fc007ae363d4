"""
One comparison of two tables by fingerprints, seen from either end.

The teller begins with the fingerprints of its buckets, the listener answers; after three messages
each way both know which lines differ, and each head that differs was sent once. A message that does not
continue the comparison is ignored, one that cannot be meant is a WireError; each level is taken
once, so it always ends. Source: docs/protocol.md, "Reconciliation".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from esgf_gossip.core.buckets import (
    BUCKET_PRINT_BYTES,
    BUCKETS,
    HEAD_PRINT_BYTES,
    SUB_BUCKETS,
    Summary,
    marked,
    pack_marks,
    places_of,
    split_prints,
)
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import SUMMARY_HEADS
from esgf_gossip.core.messages import Fingerprints, Level
from esgf_gossip.core.model import Head


class Teller:
    """The end that begins. ``is_closing``: only the heads that the listener has and we do not are outstanding."""

    def __init__(self, heads: Iterable[Head], salt: bytes) -> None:
        self._summary: Final = Summary(heads, salt)
        self._awaited = Level.SUB_BUCKETS
        self._told: list[Head] = []
        self._lacking: list[Head] = []
        self._seen: dict[str, Head] = {}
        self.is_closing = False

    def opening(self) -> Fingerprints:
        """Return the first message: the fingerprints of all buckets."""
        prints = b"".join(self._summary.bucket_prints())
        return Fingerprints(Level.BUCKETS, self._summary.salt, b"", prints)

    def narrow(self, message: Fingerprints) -> Fingerprints | None:
        """
        Take the sub-buckets of the buckets that differ; return the fingerprints of our heads in those that differ.

        Raises:
            WireError: a message that does not fit the one before.
        """
        if not self._continues(message, Level.SUB_BUCKETS):
            return None
        _expect(len(message.marks) == BUCKETS // 8)
        buckets = marked(message.marks, BUCKETS)
        _expect(len(message.prints) == len(buckets) * SUB_BUCKETS * BUCKET_PRINT_BYTES)
        ours = self._summary.sub_bucket_prints(buckets)
        theirs = split_prints(message.prints, BUCKET_PRINT_BYTES)
        places, marks = places_of(buckets), []
        for number, one, other in zip(places, ours, theirs, strict=True):
            heads = self._summary.heads_in((number,)) if one != other else []
            # What does not fit into a message waits for the next comparison.
            is_told = one != other and len(self._told) + len(heads) <= SUMMARY_HEADS
            self._told += heads if is_told else []
            marks.append(is_told)
        if not any(marks):
            return None
        self._awaited = Level.LACKING
        prints = b"".join(map(self._summary.head_print, self._told))
        return Fingerprints(Level.HEADS, self._summary.salt, pack_marks(marks), prints)

    def note_lacking(self, message: Fingerprints) -> None:
        """
        Take which of our heads the listener does not hold; its own that we do not hold come next, as Heads.

        Raises:
            WireError: a message that does not fit the one before.
        """
        if self._continues(message, Level.LACKING):
            _expect(len(message.marks) == -(-len(self._told) // 8))
            self._lacking = [self._told[number] for number in marked(message.marks, len(self._told))]
            self.is_closing = True

    def note_heads(self, heads: Iterable[Head]) -> None:
        """Take heads of the listener's; those of origins it lacks nothing of are of no use here."""
        lacking = {head.origin for head in self._lacking}
        self._seen.update({head.origin: head for head in heads if head.origin in lacking})

    def close(self) -> tuple[list[Head], Fingerprints | None]:
        """Return the heads to announce, and the last message: above which of the listener's heads ours are."""
        self.is_closing = False
        fresh = [head for head in self._lacking if head.origin not in self._seen]
        pairs = [(head, self._seen[head.origin]) for head in self._lacking if head.origin in self._seen]
        below = [theirs for ours, theirs in pairs if ours.is_above(theirs)]
        prints = b"".join(map(self._summary.head_print, below))
        return fresh, Fingerprints(Level.ABOVE, self._summary.salt, b"", prints) if prints else None

    def _continues(self, message: Fingerprints, level: Level) -> bool:
        if message.salt != self._summary.salt or message.level != level or self._awaited != level:
            return False
        self._awaited = Level.BUCKETS  # which nobody sends to a teller: each step is taken once
        return True


class Listener:
    """The end that was asked to listen: it awaits the first message of a teller, whose salt counts from then on."""

    def __init__(self) -> None:
        self._summary: Summary | None = None
        self._awaited = Level.BUCKETS
        self._buckets: list[int] = []
        self._told: list[Head] = []

    @property
    def is_opening(self) -> bool:
        """Tell whether the first message is still outstanding."""
        return self._awaited == Level.BUCKETS

    def open(self, message: Fingerprints, heads: Iterable[Head]) -> Fingerprints | None:
        """
        Take the fingerprints of the teller's buckets; return those of our sub-buckets where they differ.

        Raises:
            WireError: not one fingerprint for each bucket.
        """
        _expect(not message.marks and len(message.prints) == BUCKETS * BUCKET_PRINT_BYTES)
        self._summary = Summary(heads, message.salt)
        self._awaited = Level.HEADS
        theirs = split_prints(message.prints, BUCKET_PRINT_BYTES)
        marks = [one != other for one, other in zip(self._summary.bucket_prints(), theirs, strict=True)]
        self._buckets = [number for number, differs in enumerate(marks) if differs]
        if not self._buckets:
            return None
        prints = b"".join(self._summary.sub_bucket_prints(self._buckets))
        return Fingerprints(Level.SUB_BUCKETS, message.salt, pack_marks(marks), prints)

    def match(self, message: Fingerprints) -> tuple[Fingerprints, list[Head]] | None:
        """
        Take the teller's heads; return which of them we do not hold, and ours that are not among them.

        Raises:
            WireError: a message that does not fit the one before.
        """
        if not self._continues(message, Level.HEADS) or self._summary is None:
            return None
        _expect(len(message.marks) == len(self._buckets) and len(message.prints) % HEAD_PRINT_BYTES == 0)
        places = places_of(self._buckets)
        ours = self._summary.heads_in(places[number] for number in marked(message.marks, len(places)))
        theirs = split_prints(message.prints, HEAD_PRINT_BYTES)
        held, named = {self._summary.head_print(head) for head in ours}, set(theirs)
        self._told = [head for head in ours if self._summary.head_print(head) not in named]
        # Of all others nothing is asked any more.
        self._summary = Summary(self._told, message.salt)
        self._awaited = Level.ABOVE
        marks = pack_marks([fingerprint not in held for fingerprint in theirs])
        return Fingerprints(Level.LACKING, message.salt, marks, b""), self._told

    def above(self, message: Fingerprints) -> list[Head]:
        """
        Take above which of our heads the teller's are; return the least that it must hold.

        Raises:
            WireError: not whole fingerprints.
        """
        if not self._continues(message, Level.ABOVE) or self._summary is None:
            return []
        _expect(len(message.prints) % HEAD_PRINT_BYTES == 0)
        named = set(split_prints(message.prints, HEAD_PRINT_BYTES))
        return [head.least_above() for head in self._told if self._summary.head_print(head) in named]

    def _continues(self, message: Fingerprints, level: Level) -> bool:
        if self._summary is None or message.salt != self._summary.salt or self._awaited != level:
            return False
        self._awaited = Level.SUB_BUCKETS  # which nobody sends to a listener: each step is taken once
        return True


def _expect(holds: bool) -> None:
    if not holds:
        raise WireError("fingerprints that do not fit those before")
