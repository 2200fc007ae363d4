"""
Who links to whom: K pseudo-random rings over the members' names.

Pure functions of names, so all nodes with one roster draw the same rings and
no node chooses its neighbours. Source: Rapid (Suresh et al., USENIX ATC 2018);
docs/adr/0005-overlay.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
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


def neighbours(name: str, members: Collection[str], *, mesh: bool) -> frozenset[str]:
    """
    Return the members ``name`` should be linked to; symmetric: if a has b, b has a.

    Cost: O(K N log N) hashes and comparisons without a mesh.
    """
    others = frozenset(members) - {name}
    if mesh or len(others) <= 2:
        return others
    chosen: set[str] = set()
    everybody = others | {name}
    for number in range(ring_count(len(everybody))):
        order = ring(number, everybody)
        place = order.index(name)
        chosen.add(order[place - 1])
        chosen.add(order[(place + 1) % len(order)])
    return frozenset(chosen)
