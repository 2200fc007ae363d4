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
    # How the log is written changes at once.
    node = attrs.evolve(after.node, log_format=before.node.log_format, log_levels=before.node.log_levels)
    parts = {
        "[node]": (before.node, node),
        "[gossip]": (before.gossip, after.gossip),
        "[http]": (before.http, after.http),
        "[outputs]": (before.outputs, after.outputs),
    }
    return [f"{name} changed; restart the daemon for it" for name, (old, new) in parts.items() if old != new]
