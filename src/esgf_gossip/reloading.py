"""What a reload came to, and what it cannot do without a restart."""

from __future__ import annotations

import attrs

from esgf_gossip.config import Config


@attrs.frozen
class Reload:
    """What a reload came to: parts now in force, what was wrong, what to look at; one line each."""

    changed: list[str] = attrs.field(factory=list)
    refused: list[str] = attrs.field(factory=list)
    findings: list[str] = attrs.field(factory=list)


def need_restart(before: Config, after: Config) -> list[str]:
    """Name the settings whose new value counts from the next start only."""
    parts = {
        "[node]": (before.node, after.node),
        "[gossip]": (before.gossip, after.gossip),
        "[http]": (before.http, after.http),
        "[outputs]": (before.outputs, after.outputs),
        "[tasks]": (before.tasks, after.tasks),
    }
    return [f"{name} changed; restart the daemon for it" for name, (old, new) in parts.items() if old != new]
