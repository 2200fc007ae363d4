"""
Whose record a sighting means that names no data node: that of the original on record.

One STAC item stands for all copies of a version, so a patch of it names none; an event needs the node, for only who is
certified for it may speak of its copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.sightings import Operation, Sighting


def with_nodes(
    sightings: Iterable[Sighting], original_of: Callable[[DatasetId], str | None]
) -> tuple[list[Sighting], list[Sighting]]:
    """
    Name the data node where it is not named; return the sightings, and those whose original nobody knows.

    Args:
        sightings: in their order: a publication among them counts for what follows.
        original_of: returns the data node of the original on record; called in the transaction that takes them in.
    """
    named: list[Sighting] = []
    unknown: list[Sighting] = []
    published: dict[DatasetId, str] = {}
    for one in sightings:
        if one.data_node:
            if one.operation is Operation.PUBLISH and one.is_replica is False:
                published[one.dataset] = one.data_node
            named.append(one)
            continue
        node = published.get(one.dataset) or original_of(one.dataset)
        if node:
            named.append(attrs.evolve(one, data_node=node))
        else:
            unknown.append(one)
    return named, unknown
