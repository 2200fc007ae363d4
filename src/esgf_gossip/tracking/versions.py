"""
How a version of a dataset stands: current, superseded, retracted, unpublished; where its original and replicas are.

A function of the events that count. A retraction holds until a reinstatement of a higher epoch, wherever both stand
in the log, so a record published once more does not undo it. Source: docs/tracking.md, "Events of datasets".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import attrs

from esgf_gossip.tracking.events import CLAIMS, EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.records import Record, records, records_of_dataset

_THERE: Final = frozenset({EventType.PUBLISHED, EventType.NEW_VERSION, EventType.REINSTATED})
_REPLICA: Final = frozenset({EventType.REPLICATED, EventType.REPLICA_REMOVED})


class State(StrEnum):
    """How a version stands; the values are what JSON and command line say."""

    UNKNOWN = "unknown"
    CURRENT = "current"
    SUPERSEDED = "superseded"
    RETRACTED = "retracted"
    UNPUBLISHED = "unpublished"


@attrs.frozen
class Replica:
    """A copy that is no original: the data node that serves it, and the node that says so."""

    data_node: str
    origin: str


@attrs.frozen
class VersionStatus:
    """
    How one version stands.

    Args:
        dataset: the version.
        state: see ``State``; a retracted version is that, superseded or not.
        since_ms: when that happened by its source's clock, Unix milliseconds; None where nothing is known.
        successor: the newest version after it that is not retracted or unpublished.
        reason: why it was retracted; may be empty.
        origin: the node that holds the original; empty: nobody has it on record.
        data_node: that serves the original.
        epoch: how often it was reinstated.
        replicas: where copies are, sorted.
    """

    dataset: DatasetId
    state: State
    since_ms: int | None = None
    successor: DatasetId | None = None
    reason: str = ""
    origin: str = ""
    data_node: str = ""
    epoch: int = 0
    replicas: tuple[Replica, ...] = ()


def statuses(records: Iterable[Record], asked: Iterable[DatasetId] = ()) -> dict[DatasetId, VersionStatus]:
    """
    Return how each version of one dataset stands.

    Args:
        records: all that is said of the dataset; what does not count is passed over.
        asked: versions to answer for besides, of whom nothing may have been said.
    """
    by_version: dict[DatasetId, list[Record]] = {dataset: [] for dataset in asked}
    for one in records:
        if one.counts:
            by_version.setdefault(one.event.dataset, []).append(one)
            for version in one.event.supersedes:
                by_version.setdefault(DatasetId(one.event.dataset.master_id, version), [])
    found: dict[DatasetId, VersionStatus] = {}
    after = _After()
    for dataset in sorted(by_version, reverse=True):
        said = by_version[dataset]
        status = _alone(dataset, said)
        found[dataset] = after.applied(status)
        after.add(
            status,
            {one.origin for one in said if one.event.type is EventType.PUBLISHED},
            any(one.event.type is EventType.NEW_VERSION for one in said),
        )
    return found


class _After:
    """The versions after one, walked from the newest down: those announced to replace what was, and each node's own."""

    def __init__(self) -> None:
        # By the node that published it, empty: announced as a new version. The one just after, and the newest that lives.
        self._next: dict[str, VersionStatus] = {}
        self._newest: dict[str, VersionStatus] = {}

    def add(self, status: VersionStatus, publishers: Iterable[str], is_announced: bool) -> None:
        """Take in the version that comes before all those taken in."""
        for name in (*publishers, *([""] if is_announced else [])):
            self._next[name] = status
            if status.state is State.CURRENT:
                self._newest.setdefault(name, status)

    def applied(self, status: VersionStatus) -> VersionStatus:
        """Return how a version stands with those after it: a higher one without a word counts where one node holds both."""
        names = {"", status.origin}
        following = [self._next[name] for name in names if name in self._next]
        living = [self._newest[name].dataset for name in names if name in self._newest]
        if following and status.state in (State.CURRENT, State.UNKNOWN):
            nearest = min(following, key=lambda one: one.dataset)
            status = attrs.evolve(status, state=State.SUPERSEDED, since_ms=nearest.since_ms)
        return attrs.evolve(status, successor=max(living, default=None))


def _alone(dataset: DatasetId, said: Sequence[Record]) -> VersionStatus:
    """Return how a version stands for itself."""
    originals = [one for one in said if one.event.type in CLAIMS]
    holder = min(originals, key=lambda one: one.seen, default=None)
    retractions = [one for one in said if one.event.type is EventType.RETRACTED]
    epoch = max((one.event.epoch for one in said if one.event.type is EventType.REINSTATED), default=0)
    # Of several that say the same the earliest, by what they say: every node shows one date and reason.
    retraction = min(
        retractions,
        key=lambda one: (-one.event.epoch, one.event.occurred_ms, one.origin, one.event.data_node),
        default=None,
    )
    state, since_ms, reason = State.UNKNOWN, None, ""
    if retraction is not None and retraction.event.epoch >= epoch:
        state, since_ms, reason = State.RETRACTED, retraction.event.occurred_ms, retraction.event.reason
    elif holder is not None:
        mine = [
            one
            for one in said
            if one.origin == holder.origin
            and (one.event.type in _THERE or one.event.type is EventType.UNPUBLISHED)
        ]
        last = max(mine, key=lambda one: one.last_leaf)
        is_gone = last.event.type is EventType.UNPUBLISHED
        state, since_ms = State.UNPUBLISHED if is_gone else State.CURRENT, last.event.occurred_ms
    return VersionStatus(
        dataset,
        state,
        since_ms,
        None,
        reason,
        "" if holder is None else holder.origin,
        "" if holder is None else holder.event.data_node,
        epoch,
        replicas_of(said),
    )


def replicas_of(said: Iterable[Record]) -> tuple[Replica, ...]:
    """Return the copies of one version that are there, as the last word on each says."""
    last: dict[tuple[str, str], Record] = {}
    for one in said:
        if one.counts and one.event.type in _REPLICA:
            key = (one.event.data_node, one.origin)
            if key not in last or last[key].last_leaf < one.last_leaf:
                last[key] = one
    return tuple(Replica(*key) for key, one in sorted(last.items()) if one.event.type is EventType.REPLICATED)


def status_of(connection: sqlite3.Connection, dataset: DatasetId) -> VersionStatus:
    """Return how a version stands; ``UNKNOWN`` where nothing counts that was said of it."""
    return statuses(records_of_dataset(connection, dataset.master_id), [dataset])[dataset]


def successor_of(connection: sqlite3.Connection, dataset: DatasetId) -> DatasetId | None:
    """Return what ``status_of`` names as the successor, without reading what has no say in it: replicas, quarantine."""
    said = records(
        connection,
        "WHERE master_id = ? AND counts AND type NOT IN (?, ?) ORDER BY seen",
        (dataset.master_id, *sorted(_REPLICA)),
    )
    return statuses(said, [dataset])[dataset].successor


def versions_of(connection: sqlite3.Connection, master_id: str) -> list[VersionStatus]:
    """Return how all versions of a dataset stand, the oldest first."""
    found = statuses(records_of_dataset(connection, master_id))
    return [found[dataset] for dataset in sorted(found)]
