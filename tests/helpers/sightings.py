"""Sightings for tests, and a catalog in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import attrs

from esgf_gossip.tracking import copies, seen_files
from esgf_gossip.tracking.catalog import see
from esgf_gossip.tracking.events import DatasetEvent
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.sightings import Operation, SeenFile, Sighting

MASTER = "CMIP6.VolMIP.NASA-GISS.GISS-E2-1-G.volc-pinatubo-full.r6i10p1f1.Amon.zg.gn"
NODE = "esgf-data.example.org"
OTHER = "replica.example.net"
NOON_MS = 1_800_000_000_000


def version(number: int | str) -> DatasetId:
    """Name a version of the dataset that tests speak of."""
    return DatasetId(MASTER, str(number))


def a_sighting(
    operation: str, number: int | str, at: int = 0, source: str = "proxy", **fields: object
) -> Sighting:
    """Make a sighting, ``at`` seconds after noon; a replica where ``is_replica`` says so, an original at first."""
    whole = {"is_replica": None if operation in ("retract", "delete") else False, "data_node": NODE, **fields}
    return Sighting(
        Operation(operation), version(number), occurred_ms=NOON_MS + at * 1000, source=source, **whole
    )


def a_file(name: str = "zg_Amon.nc", checksum: str = "", node: str = NODE, number: int | str = 1) -> SeenFile:
    """Make a file of a version."""
    return SeenFile(name, (f"https://{node}/thredds/fileServer/v{number}/{name}",), checksum)


class Catalog:
    """A catalog in memory, whose clock goes on with the sightings."""

    def __init__(self, data_nodes: Sequence[str] = (NODE,)) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(f"{copies.SCRIPT};{seen_files.SCRIPT}")
        self.data_nodes = data_nodes
        self.said: list[DatasetEvent] = []
        self._now_ms = 0

    def see(self, sighting: Sighting, now: int | None = None, *, is_quiet: bool = False) -> list[str]:
        """Take a sighting, ``now`` seconds after noon (at once where not given); return the types of its events."""
        now_ms = max(self._now_ms, sighting.occurred_ms) if now is None else NOON_MS + now * 1000
        self._now_ms = now_ms
        events = see(self.connection, sighting, self.data_nodes, now_ms, is_quiet=is_quiet)
        self.said += events
        return [event.type.value for event in events]

    def see_all(self, sightings: Iterable[Sighting]) -> list[str]:
        """Take many; return the types of all events with their versions and epochs."""
        for sighting in sightings:
            self.see(sighting)
        return self.story()

    def story(self) -> list[str]:
        """Tell all that was said, in order."""
        return [f"{one.type.value} {one.dataset.version} {one.epoch}" for one in self.said]


def moved(sighting: Sighting, **changes: object) -> Sighting:
    """Change a sighting."""
    return attrs.evolve(sighting, **changes)
