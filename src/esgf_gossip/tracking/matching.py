"""
Who is to be told of a change: which versions count as holding it, and rows of downloads as one match a user.

Pure; the stores ask their databases what ``plan`` says and hand the rows to ``matches_of``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final

import attrs

from esgf_gossip.tracking.events import EventType, file_key
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import DATASETS_NAMED, FILES_NAMED, Change, FetchedFile, Match

BATCH_MATCHES: Final = 1_000

# Number of the user, OpenID, number of the version, file, host, last fetched (Unix milliseconds).
Row = tuple[int, str, int, str, str, int]


@attrs.frozen
class Plan:
    """
    What to ask for.

    Args:
        held: versions that are concerned, by the store's number.
        newer: versions whose holders need not be told.
        compared: the number of the version that ``Change.unchanged`` was compared with.
    """

    held: Mapping[int, DatasetId]
    newer: frozenset[int] = frozenset()
    compared: int | None = None


def plan(change: Change, versions: Mapping[int, DatasetId]) -> Plan:
    """
    Return what to ask for.

    Args:
        change: that happened.
        versions: by number: of a new version all that are known of its dataset; else those in ``change.datasets``.
    """
    successor = change.successor
    if change.kind != EventType.NEW_VERSION or successor is None:
        return Plan(versions)
    replaced = frozenset(change.supersedes)
    held, newer = {}, set()
    for number, dataset in versions.items():
        if dataset != successor and (dataset.version in replaced or dataset < successor):
            held[number] = dataset
        else:
            newer.add(number)
    # Newest first. What is in older versions was not compared: it may have changed in between.
    first = change.supersedes[0] if change.supersedes else None
    compared = next((number for number, dataset in held.items() if dataset.version == first), None)
    return Plan(held, frozenset(newer), compared)


def matches_of(change: Change, wanted: Plan, rows: Iterable[Row]) -> Iterator[list[Match]]:
    """
    Return the matches of one change, at most ``BATCH_MATCHES`` at once.

    Args:
        change: that happened.
        wanted: what was asked for.
        rows: the downloads, those of a user together, the newest of them first.
    """
    batch: list[Match] = []
    for (_, openid), of_user in itertools.groupby(rows, key=itemgetter(0, 1)):
        match = _match(change, wanted, openid, of_user)
        if match is not None:
            batch.append(match)
            if len(batch) == BATCH_MATCHES:
                yield batch
                batch = []
    if batch:
        yield batch


def _match(change: Change, wanted: Plan, openid: str, rows: Iterable[Row]) -> Match | None:
    changed: list[FetchedFile] = []
    unchanged: list[FetchedFile] = []
    numbers: dict[int, None] = {}
    count = last_ms = 0
    has_changed = False
    for _, _, number, name, host, fetched_ms in rows:
        is_unchanged = number == wanted.compared and file_key(name) in change.unchanged
        has_changed = has_changed or not is_unchanged
        count += 1
        last_ms = max(last_ms, fetched_ms)
        numbers.setdefault(number)
        named = unchanged if is_unchanged else changed
        if len(named) < FILES_NAMED:
            named.append(FetchedFile(wanted.held[number], name, host, fetched_ms, is_unchanged))
    if not has_changed:
        return None
    return Match(
        change.key,
        openid,
        tuple([*changed, *unchanged][:FILES_NAMED]),
        count,
        tuple(wanted.held[number] for number in itertools.islice(numbers, DATASETS_NAMED)),
        len(numbers),
        last_ms,
    )
