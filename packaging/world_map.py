"""
Draw the world map of the dashboard, once: from TopoJSON of the npm package world-atlas to an SVG of one path.

    npm pack world-atlas && tar xzf world-atlas-*.tgz
    python packaging/world_map.py package/land-110m.json > src/esgf_gossip/web/dashboard/static/world.svg
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any, Final

from esgf_gossip.web.dashboard.world_map import HEIGHT, SOUTH, WIDTH, project

NEAR: Final = 0.7
Point = tuple[float, float]


def arcs_of(topology: dict[str, Any]) -> list[list[Point]]:
    """Return the arcs in degrees: they are kept as differences of whole numbers."""
    (scale_x, scale_y), (move_x, move_y) = topology["transform"]["scale"], topology["transform"]["translate"]
    decoded = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for step_x, step_y in arc:
            x, y = x + step_x, y + step_y
            points.append((x * scale_x + move_x, y * scale_y + move_y))
        decoded.append(points)
    return decoded


def ring_of(numbers: list[int], arcs: list[list[Point]]) -> list[Point]:
    """Join arcs to a ring; a negative number is an arc backwards."""
    ring: list[Point] = []
    for number in numbers:
        arc = arcs[number] if number >= 0 else arcs[~number][::-1]
        ring.extend(arc[1:] if ring else arc)
    return ring


def unwrapped(ring: list[Point]) -> list[Point]:
    """Return a ring without jumps from one side of the map to the other; it may reach beyond 180 degrees."""
    found = ring[:1]
    for lon, lat in ring[1:]:
        turns = round((found[-1][0] - lon) / 360)
        found.append((lon + 360 * turns, lat))
    return found


def clipped(ring: list[Point], edge: float, side: int) -> list[Point]:
    """Return what of a ring lies on one side of a meridian (Sutherland and Hodgman 1974)."""
    found: list[Point] = []
    for (old_lon, old_lat), (lon, lat) in zip(ring[-1:] + ring[:-1], ring, strict=True):
        was_in, is_in = side * (edge - old_lon) >= 0, side * (edge - lon) >= 0
        if was_in != is_in:
            found.append((edge, old_lat + (lat - old_lat) * (edge - old_lon) / (lon - old_lon)))
        if is_in:
            found.append((lon, lat))
    return found


def on_the_map(ring: list[Point]) -> list[list[Point]]:
    """Cut a ring where the map ends, and bring back what lies beyond."""
    whole = unwrapped(ring)
    parts = []
    for shift in (-360.0, 0.0, 360.0):
        moved = [(lon + shift, lat) for lon, lat in whole]
        part = clipped(clipped(moved, 180.0, 1), -180.0, -1) if moved else []
        if len(part) >= 3:
            parts.append(part)
    return parts


def path_of(ring: list[Point]) -> str:
    """Write a ring on the map as relative steps; points too near to the last are left out."""
    placed = [project(lon, lat) for lon, lat in ring]
    kept = placed[:1]
    for x, y in placed[1:]:
        if abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= NEAR:
            kept.append((x, y))
    if len(kept) < 4:
        return ""
    rounded = [(round(x * 10), round(y * 10)) for x, y in kept]
    steps = [f"M{rounded[0][0] / 10:g} {rounded[0][1] / 10:g}l"]
    for (old_x, old_y), (x, y) in itertools.pairwise(rounded):
        steps.append(f"{(x - old_x) / 10:g} {(y - old_y) / 10:g} ")
    return "".join(steps).rstrip().replace(" -", "-") + "z"


def line_of(points: list[Point]) -> str:
    """Write an open line on the map."""
    placed = [project(lon, lat) for lon, lat in points]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)


def main() -> None:
    """Write the SVG to stdout."""
    topology = json.loads(Path(sys.argv[1]).read_text())
    arcs = arcs_of(topology)
    shapes = topology["objects"]["land"]["geometries"]
    polygons = [polygon for shape in shapes for polygon in shape["arcs"]]
    rings = [ring_of(numbers, arcs) for polygon in polygons for numbers in polygon]
    inhabited = [ring for ring in rings if max(lat for _, lat in ring) > SOUTH]
    land = "".join(path_of(part) for ring in inhabited for part in on_the_map(ring))
    west, east = ([(side, float(lat)) for lat in range(84, -61, -2)] for side in (-180.0, 180.0))
    sea = line_of([*west, *east[::-1]]) + "z"
    lines = [[(float(lon), float(lat)) for lat in range(84, -61, -4)] for lon in range(-150, 180, 30)]
    lines += [[(float(lon), float(lat)) for lon in range(-180, 181, 6)] for lat in (-30, 0, 30, 60)]
    graticule = "".join(line_of(line) for line in lines)
    sys.stdout.write(
        "<!-- Natural Earth (public domain) by the npm package world-atlas 2.0.2 (ISC); see world.LICENSE -->\n"
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {HEIGHT}">\n'
        f'<path id="sea" d="{sea}"/>\n<path id="graticule" fill="none" d="{graticule}"/>\n'
        f'<path id="land" d="{land}"/>\n</svg>\n'
    )


if __name__ == "__main__":
    main()
