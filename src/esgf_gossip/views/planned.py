"""Planned downtime as it shows: the health of the services it means, and the words that say until when and why."""

from __future__ import annotations

from collections.abc import Iterable

from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.esgf.maintenance import Maintenance
from esgf_gossip.views.node_json import plain_utc


def planned_health(window: Maintenance, types: Iterable[str]) -> dict[str, ServiceHealth]:
    """Return the health of those services that a window means, within it."""
    health = ServiceHealth(Health.MAINTENANCE, window.begins_ms, window_words(window))
    return {one: health for one in types if window.covers(one)}


def window_words(window: Maintenance) -> str:
    """Say until when and why."""
    until = f"until {plain_utc(window.ends_ms)}"
    return f"{until}: {window.reason}" if window.reason else until
