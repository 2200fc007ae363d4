"""
Who downloaded what changed: a change as users are told of it, and a user's own files of it.

These are the values between the three stages: downloads find matches, the home node of a user takes them, the mail
says them. Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from esgf_gossip.tracking.identity import DatasetId

# Files of one user that are named to him for one change; the others are counted.
FILES_NAMED: Final = 20
# Datasets of one change (an erratum names thousands) that are carried with a match; the others are counted.
DATASETS_NAMED: Final = 100


@attrs.frozen
class Change:
    """
    What users are told of.

    Args:
        key: of the change, ``events.change_key``.
        kind: a value of ``EventType`` in ``TOLD``, or ``ERRATUM``.
        datasets: the versions it happened to: one, or those of an erratum.
        occurred_ms: Unix milliseconds.
        successor: of ``NEW_VERSION``: the new version (it is also the only one in ``datasets``, and users are those
            who hold one in ``supersedes``). Which is to be taken now the ledger says when the mail is made.
        supersedes: versions (digits) replaced.
        unchanged: keys of files whose content did not change (``events.file_key``).
        reason: why, one line; may be empty.
        title: of an erratum.
        severity: of an erratum: low, medium, high, critical; else empty.
        link: where to read more; may be empty.
        origin: the node that said it; empty: found at an errata service.
    """

    key: bytes
    kind: str
    datasets: tuple[DatasetId, ...]
    occurred_ms: int
    successor: DatasetId | None = None
    supersedes: tuple[str, ...] = ()
    unchanged: frozenset[bytes] = attrs.field(default=frozenset(), repr=False)
    reason: str = ""
    title: str = ""
    severity: str = ""
    link: str = ""
    origin: str = ""


@attrs.frozen
class FetchedFile:
    """One file a user fetched: of which version, its name, the host it came from, when last (Unix milliseconds)."""

    dataset: DatasetId
    name: str
    host: str
    fetched_ms: int
    is_unchanged: bool = False


@attrs.frozen
class Match:
    """
    One user who holds what changed, as one node's download history knows it.

    Args:
        change_key: of the change.
        openid: of the user, as logged.
        files: the newest of them, at most ``FILES_NAMED``.
        file_count: how many there are in all.
        datasets: the versions held, at most ``DATASETS_NAMED``.
        dataset_count: how many there are in all.
        last_fetched_ms: of the newest file, Unix milliseconds.
    """

    change_key: bytes
    openid: str = attrs.field(repr=False)
    files: tuple[FetchedFile, ...] = attrs.field(repr=False)
    file_count: int
    datasets: tuple[DatasetId, ...]
    dataset_count: int
    last_fetched_ms: int


def change_to_json(change: Change) -> dict[str, Any]:
    """Return a change as JSON values, for a database or a message."""
    body = attrs.asdict(change, recurse=False)
    body["key"] = change.key.hex()
    body["datasets"] = [str(one) for one in change.datasets]
    body["successor"] = None if change.successor is None else str(change.successor)
    body["supersedes"] = list(change.supersedes)
    body["unchanged"] = sorted(one.hex() for one in change.unchanged)
    return body


def match_to_json(match: Match) -> Mapping[str, Any]:
    """Return a match as JSON values, for a database or a message to the user's home node."""
    return {
        "change_key": match.change_key.hex(),
        "openid": match.openid,
        "files": [[str(f.dataset), f.name, f.host, f.fetched_ms, f.is_unchanged] for f in match.files],
        "file_count": match.file_count,
        "datasets": [str(one) for one in match.datasets],
        "dataset_count": match.dataset_count,
        "last_fetched_ms": match.last_fetched_ms,
    }
