"""
What sources saw, made into events: what is news, to whom of it, and what is none.

The catalog remembers every copy it was told of (``copies``) with its files (``seen_files``), and says of each change
once what happened. Only copies at this node's own data nodes give events; of others it learns. Rules, in order:

- ``latest=false`` alone is nothing: the version to follow may never come.
- An original that is published for the first time is a new version where a lower one is known, else published. Where a
  lower one becomes known afterwards, the higher one that stands is said to be its new version then.
- A retraction of the original is one, also after it was deleted; a deletion without a retraction says no fault.
- What comes back after a retraction is reinstated, in a new epoch; a second retraction of it is told again.
- A replica's coming and going is for operators alone.
- Whether a copy is the original, where a source does not say: as its record says, else what the index said, else it is
  one unless another copy of the version is known to be.
- What a first look through the index found is known quietly: it is said when something happens to it.

Source: docs/tracking.md, "Where events come from".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import attrs

from esgf_gossip.core.limits import TIME_MS_MAX
from esgf_gossip.core.packing import free_text
from esgf_gossip.tracking.copies import (
    NEVER_MS,
    AsSeen,
    Copy,
    End,
    Said,
    copies_of,
    get_as_seen,
    get_copy,
    put_as_seen,
    put_copy,
)
from esgf_gossip.tracking.events import (
    OF_ORIGINALS,
    REASON_CHARACTERS,
    UNCHANGED_FILES,
    VERSIONS,
    DatasetEvent,
    EventType,
    file_key,
)
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.seen_files import add_files, files_of
from esgf_gossip.tracking.sightings import Operation, Sighting
from esgf_gossip.tracking.turns import HAND, Turn, clock_of, judge

_ENDS: Final = {Operation.RETRACT: End.RETRACTED, Operation.DELETE: End.DELETED}
_END_OF: Final = {
    EventType.RETRACTED: End.RETRACTED,
    EventType.UNPUBLISHED: End.DELETED,
    EventType.REPLICA_REMOVED: End.DELETED,
}
_TOLD_BY: Final = {
    EventType.PUBLISHED: Said.PUBLISHED,
    EventType.NEW_VERSION: Said.PUBLISHED | Said.NEW_VERSION,
    EventType.REINSTATED: Said.PUBLISHED,
    EventType.RETRACTED: Said.RETRACTED | Said.ENDED,
    EventType.UNPUBLISHED: Said.ENDED,
    EventType.REPLICATED: Said.PUBLISHED,
    EventType.REPLICA_REMOVED: Said.ENDED,
}
_OF_THE_RECORD: Final = Said.PUBLISHED | Said.NEW_VERSION


def see(
    connection: sqlite3.Connection,
    sighting: Sighting,
    data_nodes: Collection[str],
    now_ms: int,
    *,
    is_quiet: bool = False,
) -> list[DatasetEvent]:
    """
    Learn from a sighting; return what is news of it, in the order in which it is to be said.

    Args:
        connection: in a transaction; the events must be kept in the same one.
        sighting: what a source saw.
        data_nodes: hosts, lower case, for which this node speaks.
        now_ms: Unix milliseconds, by this node's clock.
        is_quiet: a copy that was not known is learned without an event.
    """
    if sighting.operation is Operation.SUPERSEDE:
        return []
    copy = get_copy(connection, sighting.dataset, sighting.data_node) or Copy(
        0, sighting.dataset, sighting.data_node
    )
    others = copies_of(connection, sighting.dataset.master_id)
    if not copy.number:
        put_copy(connection, copy)
    add_files(connection, copy, sighting.files)
    _settle_replica(copy, sighting, others)
    events: list[DatasetEvent] = []
    if sighting.operation is not Operation.ADD_FILES:
        sighting = attrs.evolve(sighting, occurred_ms=min(max(sighting.occurred_ms, 0), TIME_MS_MAX))
        turn = _take_turn(connection, copy, sighting, now_ms, is_quiet=is_quiet)
        if sighting.data_node in data_nodes and not copy.is_quiet:
            if copy.is_replica:
                events = list(_of_replica(copy, sighting))
            else:
                others = [one for one in others if one.number != copy.number]
                events = list(_of_original(connection, copy, turn, sighting, others, data_nodes))
    put_copy(connection, copy)
    return events


def is_empty(connection: sqlite3.Connection) -> bool:
    """Tell whether nothing is known of any copy: the file is new, or was lost."""
    return connection.execute("SELECT 1 FROM copy LIMIT 1").fetchone() is None


def recall(connection: sqlite3.Connection, event: DatasetEvent) -> None:
    """
    Learn from an event of this node's own log, in its order: one said by hand, or before the catalog was lost.

    Without it a second retraction would be taken for the first, whose key receivers know already. What the catalog said
    itself comes back too, perhaps after it has gone on: that must change nothing.
    """
    copy = get_copy(connection, event.dataset, event.data_node) or Copy(0, event.dataset, event.data_node)
    is_end = event.type in _END_OF
    turn = 2 * event.epoch + 1 + is_end
    is_new = turn > copy.turn
    if is_new or copy.is_replica is None or (turn == copy.turn and clock_of(event.source) == HAND):
        copy.is_replica = event.type not in OF_ORIGINALS
    told = _TOLD_BY[event.type]
    if turn < copy.turn:
        # Only that an original was announced holds in every epoch.
        told &= Said.NOTHING if copy.is_replica else _OF_THE_RECORD
    elif copy.is_replica:
        copy.told = Said.NOTHING
    elif event.epoch > copy.epoch or event.type is EventType.REINSTATED:
        copy.told &= _OF_THE_RECORD
    copy.told |= told
    if is_new:
        copy.turn, copy.epoch = turn, event.epoch
        copy.turned_ms = copy.noticed_ms = event.occurred_ms
        copy.turned_by = clock_of(event.source)
        if is_end:
            copy.ended_as = _END_OF[event.type]
        else:
            copy.published_ms = event.occurred_ms
    elif turn == copy.turn and is_end:
        copy.ended_as |= _END_OF[event.type]
    put_copy(connection, copy)
    if is_new:
        seen = AsSeen(turn, copy.published_ms, event.occurred_ms if is_end else NEVER_MS)
        put_as_seen(connection, copy, copy.turned_by, seen)


def missing(connection: sqlite3.Connection, sightings: Sequence[Sighting]) -> list[Sighting]:
    """
    Return those of which the index should be asked before it is told: afterwards it has forgotten.

    Of what is about to end, where the copy or its files are not known; of a new version, where the one before is not
    known, or not its files.
    """
    return [one for one in sightings if _is_missing(connection, one)]


def _is_missing(connection: sqlite3.Connection, sighting: Sighting) -> bool:
    copies = copies_of(connection, sighting.dataset.master_id)
    if sighting.operation in _ENDS:
        known = [
            one for one in copies if one.dataset == sighting.dataset and one.data_node == sighting.data_node
        ]
        return not (known and known[0].is_known) or not files_of(connection, sighting.dataset)
    if sighting.operation is Operation.PUBLISH and not sighting.is_replica:
        lower = [one for one in copies if one.is_known and one.dataset < sighting.dataset]
        return not lower or not files_of(connection, lower[-1].dataset)
    return False


def _settle_replica(copy: Copy, sighting: Sighting, others: Sequence[Copy]) -> None:
    """Take over what a source says of original and replica; where nobody says it, guess (see the module)."""
    is_end = sighting.operation in _ENDS
    if sighting.is_replica is not None and (copy.is_replica is None or not is_end):
        copy.is_replica = sighting.is_replica
    elif copy.is_replica is None and sighting.operation is not Operation.ADD_FILES:
        copy.is_replica = any(
            one.is_original and one.dataset == copy.dataset and one.number != copy.number for one in others
        )


def _take_turn(
    connection: sqlite3.Connection, copy: Copy, sighting: Sighting, now_ms: int, *, is_quiet: bool
) -> Turn:
    clock = clock_of(sighting.source)
    end = _ENDS.get(sighting.operation, End.NOT)
    seen = get_as_seen(connection, copy, clock)
    turn = judge(copy, seen, sighting.source, sighting.occurred_ms, now_ms, is_end=end is not End.NOT)
    put_as_seen(connection, copy, clock, seen)
    if turn is Turn.NEW:
        copy.is_quiet = is_quiet and copy.turn == 0
        if end is End.NOT:
            # It came back, if it was there; how it had ended is asked below, and forgotten with the next end.
            copy.epoch += copy.turn > 0
            copy.published_ms = sighting.occurred_ms
            copy.told &= _OF_THE_RECORD
        else:
            copy.ended_as = end
        copy.turn = seen.turn
        copy.turned_ms, copy.turned_by, copy.noticed_ms = sighting.occurred_ms, clock, now_ms
    elif turn is Turn.CURRENT and end is not End.NOT:
        copy.ended_as |= end
        # What was retracted before tracking began is told when somebody says so by hand.
        copy.is_quiet = copy.is_quiet and clock != HAND
    return turn


def _of_replica(copy: Copy, sighting: Sighting) -> Iterator[DatasetEvent]:
    wanted = Said.PUBLISHED if copy.is_published else Said.ENDED
    if wanted in copy.told or (sighting.operation in _ENDS) == copy.is_published:
        return
    # Each time it comes it may be said anew, and when it goes too.
    copy.told = wanted
    yield _event(EventType.REPLICATED if copy.is_published else EventType.REPLICA_REMOVED, copy, sighting)


def _of_original(
    connection: sqlite3.Connection,
    copy: Copy,
    turn: Turn,
    sighting: Sighting,
    others: Sequence[Copy],
    data_nodes: Collection[str],
) -> Iterator[DatasetEvent]:
    is_first = not copy.told & _OF_THE_RECORD and turn is not Turn.OLD
    if is_first:
        yield _announced(connection, copy, sighting, others)
        yield from _overtaken(connection, copy, sighting, others, data_nodes)
    if turn is Turn.NEW and copy.is_published and copy.epoch:
        was_retracted = End.RETRACTED in copy.ended_as
        if was_retracted or not is_first:
            yield _event(EventType.REINSTATED if was_retracted else EventType.PUBLISHED, copy, sighting)
    if copy.is_published or turn is Turn.OLD or sighting.operation not in _ENDS:
        return
    if End.RETRACTED in copy.ended_as:
        if Said.RETRACTED not in copy.told:
            copy.told |= Said.RETRACTED | Said.ENDED
            yield _event(EventType.RETRACTED, copy, sighting)
    elif Said.ENDED not in copy.told:
        copy.told |= Said.ENDED
        yield _event(EventType.UNPUBLISHED, copy, sighting)


def _announced(
    connection: sqlite3.Connection, copy: Copy, sighting: Sighting, others: Sequence[Copy]
) -> DatasetEvent:
    """Say that there is this original: as a new version, where it stands and is the highest of several."""
    at_ms = copy.published_ms or sighting.occurred_ms
    is_highest = not any(one.is_known and one.is_original and one.dataset > copy.dataset for one in others)
    lower = _lower(copy, others)
    copy.told |= Said.PUBLISHED
    # A version that has ended when it is first heard of is recommended to nobody.
    if lower and is_highest and copy.is_published and not copy.epoch:
        copy.told |= Said.NEW_VERSION
        return _new_version(connection, copy, sighting, lower, at_ms)
    return attrs.evolve(_event(EventType.PUBLISHED, copy, sighting), epoch=0, occurred_ms=at_ms, reason="")


def _overtaken(
    connection: sqlite3.Connection,
    copy: Copy,
    sighting: Sighting,
    others: Sequence[Copy],
    data_nodes: Collection[str],
) -> Iterator[DatasetEvent]:
    """Say that the highest version is new, where it was said as published because no lower one was known yet."""
    higher = [one for one in others if one.is_known and one.is_original and one.dataset > copy.dataset]
    if not higher:
        return
    highest = higher[-1]
    if (
        highest.data_node in data_nodes
        and highest.is_published
        and not highest.is_quiet
        and not highest.epoch
        and highest.told & _OF_THE_RECORD == Said.PUBLISHED
    ):
        highest.told |= Said.NEW_VERSION
        put_copy(connection, highest)
        lower = _lower(highest, [*others, copy])
        yield _new_version(connection, highest, sighting, lower, highest.published_ms)


def _lower(copy: Copy, others: Sequence[Copy]) -> list[DatasetId]:
    found = {one.dataset for one in others if one.is_known and one.dataset < copy.dataset}
    return sorted(found, reverse=True)[:VERSIONS]


def _new_version(
    connection: sqlite3.Connection, copy: Copy, sighting: Sighting, lower: Sequence[DatasetId], at_ms: int
) -> DatasetEvent:
    return attrs.evolve(
        _event(EventType.NEW_VERSION, copy, sighting),
        occurred_ms=at_ms,
        supersedes=tuple(one.version for one in lower),
        unchanged=_unchanged(connection, copy.dataset, lower),
        reason="" if copy.dataset != sighting.dataset else _reason(sighting),
    )


def _unchanged(
    connection: sqlite3.Connection, dataset: DatasetId, lower: Sequence[DatasetId]
) -> tuple[bytes, ...]:
    """Return the keys of files of the version before whose checksum stands in this one too."""
    now = {file.checksum for file in files_of(connection, dataset) if file.checksum}
    before = next((files for files in (files_of(connection, one) for one in lower) if files), [])
    keys = {file_key(file.name) for file in before if file.checksum in now}
    return tuple(sorted(keys)[:UNCHANGED_FILES])


def _reason(sighting: Sighting) -> str:
    return free_text(sighting.reason[:REASON_CHARACTERS])


def _event(kind: EventType, copy: Copy, sighting: Sighting) -> DatasetEvent:
    return DatasetEvent(
        kind,
        copy.dataset,
        copy.data_node,
        copy.epoch,
        sighting.occurred_ms,
        reason=_reason(sighting),
        source=sighting.source,
    )
