"""Keepers of dataset events on the nodes of a virtual network: real cores, real ledgers, no thread. No test lives here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from esgf_gossip.dataset_keeper import DatasetKeeper
from esgf_gossip.sim.network import VirtualNetwork, a_network
from esgf_gossip.storage.database import StorageError
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import ledger
from esgf_gossip.tracking.changes import changes_after
from esgf_gossip.tracking.database import FILE_NAME, TrackingDatabase
from esgf_gossip.tracking.event_lists import EventWish, events, quarantined
from esgf_gossip.tracking.events import DatasetEvent, EventType, encode_event
from esgf_gossip.tracking.hand import Word
from esgf_gossip.tracking.identity import DatasetId, parse_dataset
from esgf_gossip.tracking.versions import status_of
from esgf_gossip.tracking_room import LOG_SCRIPTS as SCRIPTS
from esgf_gossip.web.events import EventHub

A, B, C = (f"n{number:02}.example.org" for number in range(3))
MASTER = "CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.tas.gn"
V1, V2, V3 = (DatasetId(MASTER, version) for version in ("20190308", "20200101", "20210101"))


def an_event(kind: str, dataset: DatasetId | str = V1, data_node: str = A, **changes: Any) -> DatasetEvent:
    """Return an event; of epoch 0 and of no time, but for what is given."""
    named = parse_dataset(dataset) if isinstance(dataset, str) else dataset
    return DatasetEvent(EventType(kind), named, data_node, **{"epoch": 0, "occurred_ms": 1, **changes})


class Registry:
    """The keeper of one host, its ledger, and what it told."""

    def __init__(self, network: VirtualNetwork, name: str, folder: Path, clock: Clock) -> None:
        self.told: list[dict[str, Any]] = []
        self.changed = 0
        self.events = EventHub()
        self.events.subscribe(lambda event: self.told.append(dict(event.data)))
        self.is_broken = False
        self.asked: list[str] = []
        self._network, self._host, self.name = network, network.hosts[name], name
        assert self._host.node is not None
        self.database = TrackingDatabase(folder / f"{name}-{FILE_NAME}", SCRIPTS, AtOnce())
        self.keeper = DatasetKeeper(
            self._host.node,
            self._read,
            self._append,
            self.database,
            self,
            clock,
            lambda: network.wall_ms,
            AtOnce(),
        )
        self.keeper.on_changes = self._on_changes
        self.keeper.start()

    def _read(self, origin: str, log: str, start: int, end: int, most_bytes: int) -> list[bytes]:
        if self.is_broken:
            raise StorageError("registry.db: the disk cannot be read")
        self.asked.append(origin)
        kept = self._host.disk.leaves.get((origin, log), {})
        return [kept[number] for number in range(start, end) if number in kept]

    def _append(self, log: str, leaves: Any) -> None:
        self._network.append(self.name, log, leaves)

    def _on_changes(self) -> None:
        self.changed += 1

    def moved(self) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """Stop the keeper and close its file."""
        self.keeper.stop()
        self.database.close()

    def status(self, dataset: DatasetId = V1) -> Any:
        """Return how a version stands here."""
        return self.database.now(status_of, dataset)

    def counted(self) -> list[tuple[str, str, str]]:
        """Return the events that count: type, version, origin."""
        found = self.database.now(events, EventWish())
        return [(one.event.type.value, str(one.event.dataset), one.origin) for one in found]

    def quarantine(self) -> list[tuple[str, str, str]]:
        """Return what does not count: type, origin, why."""
        found = self.database.now(quarantined)
        return [(one.event.type.value, one.origin, one.verdict) for one in found]

    def changes(self) -> list[tuple[str, str]]:
        """Return the changes that users are told of: kind and first dataset."""
        return [(one.kind, str(one.datasets[0])) for _, one in self.database.now(changes_after, 0, 1000)]


class Registries:
    """A network of nodes with a keeper on each; ``say`` lets one say something by hand and waits for it."""

    def __init__(self, size: int = 3, seed: int = 1) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.network = a_network(size, seed)
        self.network.on_notice = self._notice
        self.by_name: dict[str, Registry] = {}
        assert self.network.run(60, until=self.network.converged)
        for name in self.network.hosts:
            self.open(name)
        self.settle()

    def __getitem__(self, name: str) -> Registry:
        return self.by_name[name]

    def open(self, name: str) -> Registry:
        """Put a keeper on a running node, with the file it had."""
        registry = self.by_name[name] = Registry(self.network, name, Path(self._folder.name), self.clock)
        return registry

    def close(self, name: str) -> None:
        """Take a keeper away; its file stays."""
        self.by_name.pop(name).close()

    def end(self) -> None:
        """Close everything."""
        for name in list(self.by_name):
            self.close(name)
        self._folder.cleanup()

    def _notice(self, host: Any, notice: Any) -> None:
        if host.machine in self.by_name:
            self.by_name[host.machine].keeper.notice(notice)

    def settle(self, seconds: float = 30.0) -> None:
        """Let the network and the keepers come to rest."""
        self.network.run(seconds)
        self.turn()

    def turn(self) -> None:
        """Let the keepers come to rest."""
        for _ in range(100):
            self.clock.advance(0)
        self.clock.advance(6)
        for _ in range(20):
            self.clock.advance(0)

    def come(self, deferred: Any) -> Any:
        """Return what a Deferred of a keeper comes to; raise what it failed with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.turn()
        assert results
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def say(self, name: str, kind: str, dataset: DatasetId = V1, data_node: str = "", **words: Any) -> Any:
        """Let a node say something by hand; return the types of what was written."""
        word = Word(EventType(kind), dataset, data_node or name, 1000, **words)
        written = [one.type.value for one in self.come(self[name].keeper.say(word))]
        self.settle()
        return written

    def publish(self, name: str, *events: DatasetEvent) -> None:
        """Let a node publish events."""
        self.come(self[name].keeper.publish(events))
        self.settle()

    def agree(self) -> bool:
        """Tell whether all count the same, in whatever order, and have the same in quarantine."""
        pictures = [(sorted(one.counted()), sorted(one.quarantine())) for one in self.by_name.values()]
        return all(one == pictures[0] for one in pictures)


def some_events(connection: Any, own: str, now_ms: int, said: Iterable[str]) -> None:
    """Fill a ledger: versions, replacements, retractions for each text as the reason, a stale replica here, forgeries."""
    names = [f"CMIP6.CMIP.MODEL-{number}.historical.r1i1p1f1.Amon.tas.gn" for number in range(30)]
    originals = [an_event("published", f"{name}.v20190308", occurred_ms=now_ms) for name in names]
    newer = [
        an_event("new-version", f"{name}.v20200101", supersedes=("20190308",), occurred_ms=now_ms)
        for name in names[::3]
    ]
    retracted = [
        an_event(
            "retracted",
            f"{name}.v20190308",
            occurred_ms=now_ms,
            reason=text[:200].encode("utf-8", "replace").decode(),
        )
        for name, text in zip(names, said, strict=False)
    ]
    replicas = [an_event("replicated", f"{name}.v20190308", own, occurred_ms=now_ms) for name in names[:12]]
    forged = [an_event("retracted", f"{name}.v20200101", A, occurred_ms=now_ms) for name in names[:4]]
    for origin, all_of_it in ((A, [*originals, *newer, *retracted]), (own, replicas), (B, forged)):
        place = ledger.begin(connection, origin, 1, 0, [origin])
        ledger.take(connection, place, 1, [encode_event(one) for one in all_of_it], own, now_ms)
