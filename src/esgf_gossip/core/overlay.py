"""
Who links to whom: K pseudo-random rings over the members' names.

Pure functions of names, so all nodes with one roster draw the same rings and
no node chooses its neighbours. Source: Rapid (Suresh et al., USENIX ATC 2018);
docs/adr/0005-overlay.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

RINGS_MIN: Final = 5


def ring_count(members: int) -> int:
    """Return K for a roster of that size: max(5, ceil(log2 N))."""
    return max(RINGS_MIN, math.ceil(math.log2(max(2, members))))


def is_mesh(members: int, *, was_mesh: bool) -> bool:
    """
    Tell whether everybody links to everybody.

    Up to 2K + 1 nodes the rings would touch nearly all anyway; mesh gives way
    at 2K + 3, so that one node coming and going does not move all links.
    """
    threshold = 2 * ring_count(members) + (2 if was_mesh else 1)
    return members <= threshold


def ring(number: int, members: Collection[str]) -> list[str]:
    """Return the members in the order of one ring."""
    return sorted(members, key=lambda name: hashlib.sha256(f"{number}/{name}".encode()).digest())


@lru_cache(maxsize=2)
def _rings(members: frozenset[str]) -> tuple[tuple[list[str], Mapping[str, int]], ...]:
    # A daemon draws again mostly for a roster it has just drawn; a simulation draws one roster for thousands.
    rings = (ring(number, members) for number in range(ring_count(len(members))))
    return tuple((order, {name: place for place, name in enumerate(order)}) for order in rings)


def neighbours(name: str, members: Collection[str], *, mesh: bool) -> frozenset[str]:
    """
    Return the members ``name`` should be linked to; symmetric: if a has b, b has a.

    Cost without a mesh: O(K N log N) hashes and comparisons for a new roster, O(N) for one of the last two.
    """
    others = frozenset(members) - {name}
    if mesh or len(others) <= 2:
        return others
    chosen: set[str] = set()
    for order, places in _rings(others | {name}):
        place = places[name]
        chosen.add(order[place - 1])
        chosen.add(order[(place + 1) % len(order)])
    return frozenset(chosen)
