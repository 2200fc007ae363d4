"""
Dataset events and versions as the JSON that portals, commands and the dashboard read.

Only names, types and order of fields live here. What counts, and how a version stands, is the tracking room's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from esgf_gossip.tracking.records import Record
from esgf_gossip.tracking.versions import State, VersionStatus
from esgf_gossip.views.node_json import utc_text


def event_body(one: Record) -> dict[str, Any]:
    """Return one event; ``at`` is the clock of its source, by which nothing is judged."""
    event = one.event
    return {
        "number": one.number,
        "type": event.type.value,
        "dataset": event.dataset.instance_id,
        "master_id": event.dataset.master_id,
        "version": event.dataset.version,
        "project": event.dataset.project,
        "data_node": event.data_node,
        "origin": one.origin,
        "leaf": one.first_leaf,
        "epoch": event.epoch,
        "at": utc_text(event.occurred_ms),
        "received_at": utc_text(one.received_ms),
        "supersedes": list(event.supersedes),
        "unchanged_files": len(event.unchanged),
        "reason": event.reason,
        "source": event.source,
        "change_key": one.change_key.hex(),
        "counts": one.counts,
        "quarantine": one.verdict,
    }


def told_body(one: Record) -> dict[str, Any]:
    """Return the data of the event ``dataset-event``."""
    names = ("number", "type", "dataset", "data_node", "origin", "epoch", "at", "supersedes", "reason")
    body = event_body(one)
    return {name: body[name] for name in (*names, "change_key")}


def status_body(status: VersionStatus) -> dict[str, Any]:
    """Return how one version stands."""
    return {
        "dataset": status.dataset.instance_id,
        "status": status.state.value,
        "since": None if status.since_ms is None else utc_text(status.since_ms),
        "successor": None if status.successor is None else status.successor.instance_id,
        "reason": status.reason,
        "original": {"data_node": status.data_node, "node": status.origin} if status.origin else None,
        "replicas": [{"data_node": one.data_node, "node": one.origin} for one in status.replicas],
    }


def checked_body(text: str, status: VersionStatus) -> dict[str, Any]:
    """Return how the version stands that a text names."""
    return {"asked": text, "error": "", **status_body(status)}


def unknown_body(text: str, error: str) -> dict[str, Any]:
    """Return the answer for a text that names no version."""
    return {
        "asked": text,
        "error": error,
        "dataset": None,
        "status": State.UNKNOWN.value,
        "since": None,
        "successor": None,
        "reason": "",
        "original": None,
        "replicas": [],
    }


def version_body(status: VersionStatus, history: Iterable[Record]) -> dict[str, Any]:
    """Return how one version stands, and all that is said of it, in the order seen; what does not count with its reason."""
    return {**status_body(status), "history": [event_body(one) for one in history]}
