"""
Matches of one user and one change, from several nodes, made one.

What each node said is kept by itself, and joined when it is read; in whatever order and however often they come,
the result is the same. Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from esgf_gossip.tracking.identity import parse_dataset
from esgf_gossip.tracking.matches import (
    DATASETS_NAMED,
    FILES_NAMED,
    FetchedFile,
    Match,
    match_to_json,
)

# Nodes from which matches of one user and change are kept; a federation has some dozens.
NODES: Final = 64


def add_match(said: Mapping[str, Match], node: str, match: Match) -> dict[str, Match]:
    """Return what the nodes said with one more word of a node; the first ``NODES`` by name are kept."""
    before = said.get(node)
    joined = {**said, node: _bounded(match) if before is None else _joined((before, match), same_node=True)}
    return dict(sorted(joined.items())[:NODES])


def unite(matches: Iterable[Match]) -> Match:
    """Return the one match of several of a user and a change: files newest first, at most ``FILES_NAMED``."""
    return _joined(tuple(matches), same_node=False)


def said_to_bytes(said: Mapping[str, Match]) -> bytes:
    """Write what the nodes said."""
    return json.dumps({node: match_to_json(match) for node, match in said.items()}).encode()


def said_from_bytes(content: bytes) -> dict[str, Match]:
    """Read what ``said_to_bytes`` wrote."""
    return {node: _match(body) for node, body in json.loads(content).items()}


def _match(body: Mapping[str, Any]) -> Match:
    files = tuple(
        FetchedFile(parse_dataset(dataset), name, host, fetched_ms, unchanged)
        for dataset, name, host, fetched_ms, unchanged in body["files"]
    )
    return Match(
        change_key=bytes.fromhex(body["change_key"]),
        openid=body["openid"],
        files=files,
        file_count=body["file_count"],
        datasets=tuple(parse_dataset(one) for one in body["datasets"]),
        dataset_count=body["dataset_count"],
        last_fetched_ms=body["last_fetched_ms"],
    )


def _bounded(match: Match) -> Match:
    return _joined((match,), same_node=True)


def _joined(matches: tuple[Match, ...], *, same_node: bool) -> Match:
    # Counted after the cut: what was cut before must not count differently from what is cut now.
    files = _newest(file for match in matches for file in match.files)[:FILES_NAMED]
    datasets = sorted({one for match in matches for one in match.datasets})[:DATASETS_NAMED]
    # Two nodes count different downloads; one node that says it twice counts the same ones.
    count = (max if same_node else sum)(match.file_count for match in matches)
    return attrs.evolve(
        matches[0],
        openid=min(match.openid for match in matches),
        files=tuple(files),
        file_count=max(count, len(files)),
        datasets=tuple(datasets),
        dataset_count=max(len(datasets), *(match.dataset_count for match in matches)),
        last_fetched_ms=max(match.last_fetched_ms for match in matches),
    )


def _newest(files: Iterable[FetchedFile]) -> list[FetchedFile]:
    best: dict[tuple[Any, str, str], FetchedFile] = {}
    for file in files:
        key = (file.dataset, file.name, file.host)
        before = best.get(key)
        if before is None or _rank(before) < _rank(file):
            best[key] = file
    return sorted(best.values(), key=lambda file: (-file.fetched_ms, str(file.dataset), file.name, file.host))


def _rank(file: FetchedFile) -> tuple[int, bool]:
    return file.fetched_ms, not file.is_unchanged
