"""
Fingerprints of a set of heads: of 512 buckets, of the 8 in each, of single heads.

A bucket belongs to an origin for ever, a fingerprint to one comparison: it is salted, so that
nobody can make two lines in advance that look the same, and what one comparison misses the next finds.
Pure; who sends what when is narrowing's work. Source: docs/protocol.md, "Reconciliation".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from esgf_gossip.core.model import Head

BUCKETS: Final = 512
SUB_BUCKETS: Final = 8
SALT_BYTES: Final = 8
# One difference in 65,536 looks like none, and is found by the next comparison.
BUCKET_PRINT_BYTES: Final = 2
# Each is looked for among all heads of the buckets that differ, so they are longer.
HEAD_PRINT_BYTES: Final = 4


def place(origin: str) -> int:
    """Return the sub-bucket of an origin, 0 to 4095: the first 12 bits of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(origin.encode()).digest()[:2], "big") >> 4


class Summary:
    """
    Heads sorted into their buckets, as they were when a comparison began.

    ``salt`` is the comparison's own, 8 random bytes. O(N) to make, and to hash once.
    """

    def __init__(self, heads: Iterable[Head], salt: bytes) -> None:
        self.salt: Final = salt
        self._places: dict[int, list[Head]] = {}
        for head in heads:
            self._places.setdefault(place(head.origin), []).append(head)

    def heads_in(self, places: Iterable[int]) -> list[Head]:
        """Return the heads of these sub-buckets, in their order, within each sorted by origin."""
        return [head for number in places for head in self._places.get(number, ())]

    def bucket_prints(self) -> list[bytes]:
        """Return the fingerprints of all buckets."""
        return [self._print(_sub_buckets(bucket)) for bucket in range(BUCKETS)]

    def sub_bucket_prints(self, buckets: Iterable[int]) -> list[bytes]:
        """Return the fingerprints of the sub-buckets of these buckets, in their order."""
        return [self._print((number,)) for bucket in buckets for number in _sub_buckets(bucket)]

    def _print(self, places: Iterable[int]) -> bytes:
        leaves = b"".join(head.encoded for head in self.heads_in(places))
        return hashlib.sha256(self.salt + leaves).digest()[:BUCKET_PRINT_BYTES]

    def head_print(self, head: Head) -> bytes:
        """Return the fingerprint of one head."""
        return hashlib.sha256(self.salt + head.encoded).digest()[:HEAD_PRINT_BYTES]


def places_of(buckets: Iterable[int]) -> list[int]:
    """Return the sub-buckets of these buckets, in their order."""
    return [number for bucket in buckets for number in _sub_buckets(bucket)]


def _sub_buckets(bucket: int) -> range:
    return range(bucket * SUB_BUCKETS, (bucket + 1) * SUB_BUCKETS)


def pack_marks(marks: Sequence[bool]) -> bytes:
    """Return a bitmap: eight marks a byte, the first in the highest bit, zeros at the end."""
    padded = [*marks, *[False] * (-len(marks) % 8)]
    return bytes(
        sum(bit << (7 - place) for place, bit in enumerate(padded[start : start + 8]))
        for start in range(0, len(padded), 8)
    )


def marked(marks: bytes, count: int) -> list[int]:
    """Return the places below ``count`` that are marked in a bitmap."""
    return [number for number in range(count) if marks[number >> 3] >> (7 - (number & 7)) & 1]


def split_prints(prints: bytes, size_bytes: int) -> list[bytes]:
    """Return fingerprints of that size one by one."""
    return [prints[start : start + size_bytes] for start in range(0, len(prints), size_bytes)]
