"""
What a node says next of its own copies: what it has not said yet, and what people mean by a word.

Each function reads what the ledger holds of this node's own log, which must have been read to its end, and returns the
events to be added to it. Source: docs/tracking.md, "Events of datasets".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from esgf_gossip.tracking.events import CLAIMS, VERSIONS, DatasetEvent, EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.records import Record, records, records_of, records_of_dataset
from esgf_gossip.tracking.versions import State, VersionStatus, replicas_of, status_of, versions_of

# What makes it news that something is said once more: a copy came, went and comes again.
UNDOES: Final[Mapping[EventType, frozenset[EventType]]] = {
    EventType.PUBLISHED: frozenset({EventType.UNPUBLISHED}),
    EventType.NEW_VERSION: frozenset({EventType.UNPUBLISHED}),
    EventType.RETRACTED: frozenset(),
    EventType.REINSTATED: frozenset({EventType.UNPUBLISHED}),
    EventType.UNPUBLISHED: frozenset({EventType.PUBLISHED, EventType.NEW_VERSION, EventType.REINSTATED}),
    EventType.REPLICATED: frozenset({EventType.REPLICA_REMOVED}),
    EventType.REPLICA_REMOVED: frozenset({EventType.REPLICATED}),
}


class RefusedError(ValueError):
    """Refuse what is to be said, in one line: why, and what to do. ``is_missing``: there is no such version."""

    def __init__(self, text: str, *, is_missing: bool = False) -> None:
        super().__init__(text)
        self.is_missing: Final = is_missing


@attrs.frozen
class Word:
    """
    What a person or a task says of a copy.

    Args:
        type: what happened.
        dataset: the version.
        data_node: that serves the copy; empty: the node's usual one, which its keeper knows.
        occurred_ms: Unix milliseconds.
        reason: for people; may be empty.
        supersedes: of a new version: those replaced; empty: those on record here.
        source: ``hand`` or ``task``.
    """

    type: EventType
    dataset: DatasetId
    data_node: str
    occurred_ms: int
    reason: str = ""
    supersedes: tuple[str, ...] = ()
    source: str = "hand"


def unsaid(connection: sqlite3.Connection, own: str, events: Sequence[DatasetEvent]) -> list[DatasetEvent]:
    """Return the events that this node's log does not say yet, or took back since; each once."""
    last: dict[tuple[bytes, str], int] = {}
    found = []
    # Where a list says something and takes it back, what it says itself stands after the log.
    place = 0
    said: dict[tuple[DatasetId, str], list[tuple[EventType, int]]] = {}
    for event in events:
        copy = (event.dataset, event.data_node)
        if copy not in said:
            said[copy] = []
            for one in records(
                connection,
                "WHERE master_id = ? AND origin = ? AND version = ? AND data_node = ?",
                (event.dataset.master_id, own, event.dataset.version, event.data_node),
            ):
                said[copy].append((one.event.type, one.last_leaf))
                last[one.change_key, event.data_node] = one.last_leaf
                place = max(place, one.last_leaf)
        before = last.get((event.change_key, event.data_node))
        if before is not None and not any(
            leaf > before for kind, leaf in said[copy] if kind in UNDOES[event.type]
        ):
            continue
        place += 1
        last[event.change_key, event.data_node] = place
        said[copy].append((event.type, place))
        found.append(event)
    return found


def events_of(connection: sqlite3.Connection, own: str, word: Word) -> list[DatasetEvent]:
    """
    Return the events that a word comes to; none where everything is so already.

    Raises:
        RefusedError: it would count nowhere, or contradicts what is on record.
    """
    said = [one for one in records_of(connection, str(word.dataset)) if one.origin == own]
    here = [one for one in said if one.event.data_node == word.data_node]
    status = status_of(connection, word.dataset)
    event = DatasetEvent(
        word.type,
        word.dataset,
        word.data_node,
        status.epoch,
        word.occurred_ms,
        reason=word.reason,
        source=word.source,
    )
    return _BY_TYPE[word.type](connection, own, word, _Known(status, here, event))


@attrs.frozen
class _Known:
    """How the version stands, what this node's log says of its copy, and the event as it would be said."""

    status: VersionStatus
    here: Sequence[Record]
    event: DatasetEvent

    @property
    def has_original(self) -> bool:
        return any(one.counts and one.event.type in CLAIMS for one in self.here)

    @property
    def is_gone(self) -> bool:
        """Whether the original was unpublished, by the version's holder or by this node as a further one."""
        last = max(self.here, key=lambda one: one.last_leaf, default=None)
        is_ours_gone = last is not None and last.event.type is EventType.UNPUBLISHED
        return is_ours_gone or self.status.state is State.UNPUBLISHED

    def counts_already(self, kind: EventType) -> bool:
        """Tell whether this was said of the copy and counts, so that it counts when said once more."""
        return any(one.counts and one.event.type is kind for one in self.here)

    @property
    def has_replica(self) -> bool:
        return bool(replicas_of(self.here))


def _refuse_of_another(own: str, known: _Known, *, is_holder: bool) -> None:
    """Refuse what another says, unless this node is a holder too: the first one seen is not the only one that counts."""
    status = known.status
    if status.origin not in ("", own) and not is_holder:
        raise RefusedError(
            f"the original of {status.dataset} is {status.origin}'s, on {status.data_node}: only that node may say this"
        )


def _original(known: _Known) -> list[DatasetEvent]:
    """Return what makes this node the holder of the original, where it is none yet."""
    if known.has_original:
        return []
    return [attrs.evolve(known.event, type=EventType.PUBLISHED, epoch=0, reason="")]


def _publish(_connection: sqlite3.Connection, own: str, word: Word, known: _Known) -> list[DatasetEvent]:
    # An operator's word is for one claim: another of the same copy would count nowhere.
    _refuse_of_another(own, known, is_holder=known.counts_already(word.type))
    if known.status.state is State.RETRACTED:
        raise RefusedError(f"{word.dataset} is retracted; say reinstate in its place")
    if known.has_original and not known.is_gone:
        return []
    return [attrs.evolve(known.event, epoch=0)]


def _new_version(connection: sqlite3.Connection, own: str, word: Word, known: _Known) -> list[DatasetEvent]:
    is_said = known.counts_already(word.type)
    _refuse_of_another(own, known, is_holder=is_said)
    owner = min(
        (
            one
            for one in records_of_dataset(connection, word.dataset.master_id)
            if one.counts and one.event.type in CLAIMS
        ),
        key=lambda one: one.seen,
        default=None,
    )
    if owner is not None and owner.origin != own and not is_said:
        raise RefusedError(
            f"the originals of {word.dataset.master_id} are {owner.origin}'s: only that node may say this"
        )
    if is_said and not known.is_gone:
        return []
    supersedes = word.supersedes
    if not supersedes:
        before = [
            one
            for one in versions_of(connection, word.dataset.master_id)
            if one.dataset < word.dataset and one.origin in ("", own) and one.state is not State.RETRACTED
        ]
        supersedes = tuple(one.dataset.version for one in reversed(before))[:VERSIONS]
    if not supersedes:
        raise RefusedError(
            f"no earlier version of {word.dataset.master_id} is on record here; name those it replaces with --supersedes",
            is_missing=True,
        )
    late = [one for one in supersedes if int(one) >= int(word.dataset.version)]
    if late:
        raise RefusedError(f"{word.dataset} cannot replace version {late[0]}: that is not before it")
    return [attrs.evolve(known.event, epoch=0, supersedes=supersedes)]


def _retract(_connection: sqlite3.Connection, own: str, _word: Word, known: _Known) -> list[DatasetEvent]:
    _refuse_of_another(own, known, is_holder=known.has_original)
    if known.status.state is State.RETRACTED:
        return []
    if known.has_replica and not known.status.origin:
        # Its holder is gone: this is one vote, which counts with those of the other holders of replicas.
        return [known.event]
    return [*_original(known), known.event]


def _reinstate(_connection: sqlite3.Connection, own: str, word: Word, known: _Known) -> list[DatasetEvent]:
    _refuse_of_another(own, known, is_holder=known.has_original)
    if known.status.state is State.UNKNOWN:
        raise RefusedError(f"{word.dataset} is not on record here, so it was not retracted", is_missing=True)
    if known.status.state is not State.RETRACTED:
        return []
    return [*_original(known), attrs.evolve(known.event, epoch=known.status.epoch + 1)]


def _unpublish(_connection: sqlite3.Connection, own: str, word: Word, known: _Known) -> list[DatasetEvent]:
    _refuse_of_another(own, known, is_holder=known.has_original)
    if not known.has_original:
        raise RefusedError(
            f"no original of {word.dataset} on {word.data_node} is on record here", is_missing=True
        )
    return [known.event]


def _replicated(_connection: sqlite3.Connection, _own: str, word: Word, known: _Known) -> list[DatasetEvent]:
    if known.has_original:
        raise RefusedError(f"{word.data_node} has the original of {word.dataset}, so it holds no replica")
    return [] if known.has_replica else [known.event]


def _replica_removed(
    _connection: sqlite3.Connection, _own: str, word: Word, known: _Known
) -> list[DatasetEvent]:
    replicated = [one.event.epoch for one in known.here if one.event.type is EventType.REPLICATED]
    if not replicated:
        raise RefusedError(
            f"no replica of {word.dataset} on {word.data_node} is on record here", is_missing=True
        )
    return [attrs.evolve(known.event, epoch=max(replicated))] if known.has_replica else []


_BY_TYPE: Final = {
    EventType.PUBLISHED: _publish,
    EventType.NEW_VERSION: _new_version,
    EventType.RETRACTED: _retract,
    EventType.REINSTATED: _reinstate,
    EventType.UNPUBLISHED: _unpublish,
    EventType.REPLICATED: _replicated,
    EventType.REPLICA_REMOVED: _replica_removed,
}
