"""
The federation as it was: from the digests of a time to a view of that time.

Pure. The verdicts follow from the registry alone, so those of the past are found again from what was kept;
policy is that of today. Source: docs/adr/0016.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from esgf_gossip.core.membership import mute_of, roster
from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.standing import Standing
from esgf_gossip.views.federation import FederationView, OwnState
from esgf_gossip.views.judgement import Judge, Policy


def past_view(
    lines: Iterable[VerifiedDigest],
    bodies: Mapping[bytes, bytes],
    own: OwnState,
    at_ms: int,
    policy: Callable[[], Policy] = Policy,
) -> FederationView:
    """
    Return the picture of an earlier instant, judged by the clock of that instant.

    Args:
        lines: the newest digest of each origin at that time.
        bodies: those their entries refer to, by SHA-256; one that is missing is as if not held.
        own: what the daemon says of itself; the past of that is not kept.
        at_ms: the instant, Unix milliseconds.
        policy: of this site.
    """
    registry = Registry()
    for line in lines:
        registry.accept(line, bodies)
    standing = Standing(registry, [])
    for line in registry.table:
        standing.line_moved(line.digest.origin)
    members, _ = roster(registry.table, at_ms)
    standing.roster_drawn(members, mute_of(registry.table, members))
    standing.judge()
    return Judge(registry, standing, policy).view(own, at_ms, at_ms)
