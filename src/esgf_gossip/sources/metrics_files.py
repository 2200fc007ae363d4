"""
Files with numbers that other programs write: the dashboard's ``data_users.metrics``, and a site's own.

A file is read whole and small; what it may hold is ``esgf.metrics``' judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.esgf.metrics import (
    DATA_USERS_BYTES,
    OWN_BYTES,
    OWN_NAMES,
    Metrics,
    MetricsError,
    Number,
    parse_data_users,
    parse_own,
)
from esgf_gossip.esgf.registration import Group
from esgf_gossip.files import read_file
from esgf_gossip.sources.gauge import SourceError

SEE: Final = "see [metrics] in node.toml"


@attrs.frozen
class Numbers:
    """What a source says: download numbers, access groups; None for what it does not hold."""

    metrics: Metrics | None = None
    groups: tuple[Group, ...] | None = None


def read_data_users(path: Path) -> Numbers:
    """
    Read the dashboard's ``data_users.metrics``.

    Raises:
        SourceError: it cannot be read, or holds no such numbers.
    """
    try:
        return Numbers(parse_data_users(_content(path, DATA_USERS_BYTES), str(path)))
    except MetricsError as error:
        raise SourceError(f"{error}; {SEE}") from None


def read_own(paths: Sequence[Path]) -> tuple[tuple[str, Number], ...]:
    """
    Read a site's own metrics, sorted by name.

    Raises:
        SourceError: a file cannot be read or understood, a name stands in two of them, or there are too many.
    """
    found: dict[str, Number] = {}
    for path in paths:
        try:
            read = parse_own(_content(path, OWN_BYTES), str(path))
        except MetricsError as error:
            raise SourceError(f"{error}; {SEE}") from None
        twice = sorted(found.keys() & read.keys())
        if twice:
            raise SourceError(f"{path}: {twice[0]} stands in another file too; {SEE}")
        found.update(read)
    if len(found) > OWN_NAMES:
        raise SourceError(f"{len(found)} metrics in the files, at most {OWN_NAMES} are told; {SEE}")
    return tuple(sorted(found.items()))


def _content(path: Path, largest: int) -> bytes:
    try:
        content = read_file(path, largest + 1)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or type(error).__name__}; {SEE}") from None
    if len(content) > largest:
        raise SourceError(f"{path}: more than {largest} bytes; {SEE}")
    return content
