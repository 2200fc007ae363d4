"""
Where on the world map a node stands, and which nodes share one mark.

The map is ``static/world.svg``, drawn once by ``packaging/world_map.py`` with the projection of this module: Equal
Earth (Savric, Patterson, Jenny 2018), which keeps areas and looks like a globe.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

import attrs

from esgf_gossip.views.federation import SEVERITY, NodeStatus, NodeView

WIDTH: Final = 1000.0
_A: Final = (1.340264, -0.081106, 0.000893, 0.003796)
_M: Final = math.sqrt(3) / 2
_SCALE: Final = WIDTH / 2 / (math.pi / (_M * _A[0]))
# Nobody lives at the pole: the frame ends a little north of Greenland and south of Cape Horn.
NORTH: Final = 84.0
SOUTH: Final = -58.0
# Marks nearer than that would cover each other.
NEAR: Final = 13.0


def project(lon: float, lat: float) -> tuple[float, float]:
    """Return the point of the map for a place in degrees: x to the right, y down, NORTH at 0."""
    x, y = _equal_earth(lon, lat)
    return x, y - _equal_earth(0.0, NORTH)[1]


def _equal_earth(lon: float, lat: float) -> tuple[float, float]:
    theta = math.asin(_M * math.sin(math.radians(lat)))
    two, six = theta**2, theta**6
    x = (
        math.radians(lon)
        * math.cos(theta)
        / (_M * (_A[0] + 3 * _A[1] * two + six * (7 * _A[2] + 9 * _A[3] * two)))
    )
    y = theta * (_A[0] + _A[1] * two + six * (_A[2] + _A[3] * two))
    return WIDTH / 2 + x * _SCALE, -y * _SCALE


HEIGHT: Final = math.ceil(project(0.0, SOUTH)[1])


@attrs.frozen
class Mark:
    """One mark: its place on the map and the nodes it stands for, the worst first."""

    x: float
    y: float
    nodes: tuple[NodeView, ...]

    @property
    def status(self) -> NodeStatus:
        """The worst status of its nodes."""
        return self.nodes[0].status

    @property
    def counts(self) -> list[tuple[NodeStatus, int]]:
        """How many of its nodes have each status, the worst first: the first number is the one on the mark."""
        return list(Counter(node.status for node in self.nodes).items())


def marks(nodes: Iterable[NodeView]) -> list[Mark]:
    """
    Place nodes on the map; those too near to each other share a mark, where the first of them stands.

    Nodes that have left, or say no place, are not on it. Cost: nodes times marks, and marks are bounded by the map.
    """
    order = {status: place for place, status in enumerate(SEVERITY)}
    found: list[tuple[float, float, list[NodeView]]] = []
    for node in nodes:
        registration = node.registration
        if registration is None or node.status is NodeStatus.LEFT:
            continue
        place = registration.location
        if (
            place.lat is None
            or place.lon is None
            or not (math.isfinite(place.lat) and math.isfinite(place.lon))
        ):
            continue
        x, y = project(place.lon, min(max(place.lat, SOUTH), NORTH))
        for other_x, other_y, together in found:
            if math.hypot(x - other_x, y - other_y) < NEAR:
                together.append(node)
                break
        else:
            found.append((x, y, [node]))
    return [
        Mark(
            round(x, 1),
            round(y, 1),
            tuple(sorted(together, key=lambda node: (order[node.status], node.host))),
        )
        for x, y, together in found
    ]
