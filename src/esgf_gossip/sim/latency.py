"""
How long a message travels: by region, or at random.

One latency per link, one way, the same both ways; what loss adds is the wire's.
"""

from __future__ import annotations

import hashlib
import math
from random import Random
from typing import Protocol

import attrs

LEAST_S = 0.005
MOST_S = 0.150


class Latency(Protocol):
    """Gives each new link its one-way latency."""

    def between(self, one: str, other: str, random: Random) -> float:
        """Return seconds, one way, for a link between two hosts."""
        ...  # pragma: no cover


@attrs.frozen
class AtRandom:
    """Every link its own latency, evenly spread."""

    least_s: float = 0.001
    most_s: float = 0.020

    def between(self, one: str, other: str, random: Random) -> float:  # noqa: ARG002 - a Latency
        """Return seconds drawn for this link."""
        return random.uniform(self.least_s, self.most_s)


@attrs.frozen
class Regions:
    """
    Hosts live in regions scattered over a square; latency grows with the distance.

    Two hosts of one place are ``least_s`` apart, two at opposite corners ``most_s``.
    Where a host lives follows from its name alone.
    """

    count: int = 8
    least_s: float = LEAST_S
    most_s: float = MOST_S
    _places: dict[str, tuple[float, float]] = attrs.field(factory=dict, eq=False)

    def place(self, name: str) -> tuple[float, float]:
        """Return where a host lives, in a square of side 1."""
        found = self._places.get(name)
        if found is None:
            bits = hashlib.sha256(f"place/{name}".encode()).digest()
            region = hashlib.sha256(f"region/{bits[0] % self.count}".encode()).digest()
            # A region is a twentieth of the square around its centre.
            found = self._places[name] = (
                0.95 * region[0] / 255 + 0.05 * bits[1] / 255,
                0.95 * region[1] / 255 + 0.05 * bits[2] / 255,
            )
        return found

    def between(self, one: str, other: str, random: Random) -> float:  # noqa: ARG002 - a Latency
        """Return seconds by the distance of the two."""
        (x1, y1), (x2, y2) = self.place(one), self.place(other)
        return self.least_s + (self.most_s - self.least_s) * math.hypot(x1 - x2, y1 - y2) / math.sqrt(2)
