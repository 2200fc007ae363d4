"""
What a source saw happen to one copy of a dataset, before it is known whether that is news.

Every source of events (index proxy, STAC, the publisher's journal, tasks) says it in this form; ``catalog`` makes
events of it. Source: docs/tracking.md, "Where events come from".
"""

from __future__ import annotations

from enum import StrEnum

import attrs

from esgf_gossip.tracking.identity import DatasetId


class Operation(StrEnum):
    """What was done to a record."""

    PUBLISH = "publish"
    # Files of a version whose own record is still to come, or has come: no event, the union is what is known.
    ADD_FILES = "add-files"
    RETRACT = "retract"
    DELETE = "delete"
    # latest=false alone: no event, for the version to follow may never come.
    SUPERSEDE = "supersede"


@attrs.frozen
class SeenFile:
    """
    One file of a record: its name without folder, where it is served, its checksum (lower-case hex, empty: unknown).

    ``urls`` are whole URLs without media type and service name; Globus ones too.
    """

    name: str
    urls: tuple[str, ...] = ()
    checksum: str = ""
    size_bytes: int | None = None
    tracking_id: str = ""


@attrs.frozen
class Sighting:
    """
    One change of one record, as its source tells it.

    Args:
        operation: what was done.
        dataset: the version.
        data_node: the host that serves the copy, lower case; empty where the source does not say (a patch of a STAC
            item names the item alone): that of the original on record is meant.
        is_replica: what the source says of it; None: it does not.
        occurred_ms: Unix milliseconds.
        source: see ``events.DatasetEvent``.
        files: those that came with it; a publisher sends files before the dataset, each in a sighting of its own
            (``ADD_FILES``) or all together: what is known of a record is the union.
        reason: for people; may be empty.
        event_id: the source's own name for it, by which it is told from a repetition; empty: it has none.
    """

    operation: Operation
    dataset: DatasetId
    data_node: str
    is_replica: bool | None
    occurred_ms: int
    source: str
    files: tuple[SeenFile, ...] = attrs.field(default=(), repr=False)
    reason: str = ""
    event_id: str = ""
