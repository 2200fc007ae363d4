"""
Which services are down as others see them: what several nodes observe of one service comes to one answer.

A function of entries and of who observes whom, so all nodes with one root agree. Source: docs/formats.md, section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from statistics import median_low
from typing import Final

from esgf_gossip.esgf.health import REASON_CHARACTERS, Health, HealthByType, ServiceHealth
from esgf_gossip.esgf.observations import Observations

# One liar, and one with a broken network, takes nobody out.
REPORTS_LEAST: Final = 2


def seen_down(
    said: Mapping[str, Observations], observers_of: Callable[[str], Collection[str]]
) -> dict[str, HealthByType]:
    """
    Return the services that a quorum saw to be down, by host and type.

    Those asked are the observers of the node that look at all; more than half of them, and two at least, must have seen it.

    Args:
        said: by observer, what it sees; those that are unreachable or no members are left out by the caller.
        observers_of: who is to look at a node.
    """
    reports: dict[str, dict[str, dict[str, ServiceHealth]]] = {}
    for observer, observations in said.items():
        for host, services in observations.items():
            for name, one in services.items():
                reports.setdefault(host, {}).setdefault(name, {})[observer] = one
    found: dict[str, HealthByType] = {}
    for host, by_type in reports.items():
        looking = [observer for observer in observers_of(host) if observer in said]
        down = {}
        for name, by_observer in by_type.items():
            counted = {observer: by_observer[observer] for observer in looking if observer in by_observer}
            if len(counted) >= REPORTS_LEAST and len(counted) * 2 > len(looking):
                down[name] = _joined(counted)
        if down:
            found[host] = down
    return found


def _joined(counted: Mapping[str, ServiceHealth]) -> ServiceHealth:
    names = sorted(counted)
    reason = f"seen from {', '.join(names)}: {counted[names[0]].reason}"
    # The middle of the times, so that one wrong clock does not decide.
    since_ms = median_low(one.since_ms or 0 for one in counted.values())
    return ServiceHealth(Health.DOWN, since_ms, reason[:REASON_CHARACTERS])
