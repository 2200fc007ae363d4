"""
The trust objects of one node: under each key the highest that came, for ever, until its issuer is trusted no more.

What an object means, and whether it is true, is the TrustJudge's; how objects spread is trusting's work.
Source: docs/protocol.md, "Trust objects"; docs/adr/0011-trust-objects.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from esgf_gossip.core import packing
from esgf_gossip.core.limits import TRUST_BODY_BYTES, TRUST_KEY_CHARACTERS
from esgf_gossip.core.model import TrustHead, TrustObject

CONFLICT: Final = "conflict/"
# What others are judged by goes first: an older bundle before a newer, all of them before the CRLs.
_FIRST: Final = ("roots/", "crl/")


class TrustTable:
    """Trust objects by key; ``root`` is the SHA-256 over their heads, sorted by key."""

    def __init__(self) -> None:
        self._held: dict[str, TrustObject] = {}
        self._root: bytes | None = None

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: str) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[TrustObject]:
        return iter(sorted(self._held.values(), key=lambda one: in_order(one.key)))

    def get(self, key: str) -> TrustObject | None:
        """Return the object under a key, or None."""
        return self._held.get(key)

    def head(self, key: str) -> TrustHead | None:
        """Return the head of the object under a key, or None."""
        held = self._held.get(key)
        return None if held is None else held.head

    def heads(self) -> list[TrustHead]:
        """Return the heads of all objects, sorted by key."""
        return [self._held[key].head for key in sorted(self._held)]

    def merge(self, offered: TrustObject) -> bool:
        """Take an object in place of a lower one of its key; False where the one held stays."""
        if not offered.head.is_above(self.head(offered.key)):
            return False
        self._held[offered.key] = offered
        self._root = None
        return True

    def remove(self, key: str) -> None:
        """Forget the object under a key."""
        if self._held.pop(key, None) is not None:
            self._root = None

    def adopt(self, others: Iterable[TrustObject]) -> None:
        """Hold these objects and no others."""
        self._held = {one.key: one for one in others}
        self._root = None

    @property
    def root(self) -> bytes:
        """32 bytes, equal where the same objects are held."""
        if self._root is None:
            packed = packing.pack([head.as_array() for head in self.heads()])
            self._root = hashlib.sha256(packed).digest()
        return self._root


def in_order(key: str) -> tuple[int, str]:
    """Return what sorts keys in the order in which objects are to be judged."""
    first = next((number for number, kind in enumerate(_FIRST) if key.startswith(kind)), len(_FIRST))
    return first, key


def contradiction(key: str, number: int, one: bytes, other: bytes) -> TrustObject | None:
    """
    Return the object that shows two bodies of one number beside each other; None where they are too large for one.

    Of several such pairs one is kept, by hash; a contradiction of contradictions is none.
    """
    name = f"{CONFLICT}{key}/{number}"
    body = packing.pack(sorted((one, other)))
    if key.startswith(CONFLICT) or len(name) > TRUST_KEY_CHARACTERS or len(body) > TRUST_BODY_BYTES:
        return None
    return TrustObject(name, 0, 0, body)
