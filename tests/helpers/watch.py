"""A registry whose observers have spoken: lines with reachability entries, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Mapping

from esgf_gossip.core.reachability import REACHABILITY, Reachability, Report, encode_reachability
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.standing import Standing
from esgf_gossip.sim.trust import START_MS
from helpers.bench import a_line


def a_report(subject: str, epoch: int = 1, sequence: int = 1, since_ms: int = START_MS) -> Report:
    """Return an observer's word on a subject's first digest."""
    return Report(subject, epoch, sequence, since_ms)


def a_standing(
    names: list[str], statements: Mapping[str, Reachability], issued_at_ms: int = START_MS
) -> tuple[Registry, Standing]:
    """Return a judged registry of these members."""
    registry = Registry()
    standing = Standing(registry, [])
    for name in names:
        entries = {"registration": name.encode()}
        if name in statements:
            entries[REACHABILITY] = encode_reachability(statements[name])
        line = a_line(name, entries=entries, issued_at_ms=issued_at_ms)
        registry.accept(line.verified, {sha256(body): body for body in line.bodies})
        standing.line_moved(name)
    standing.roster_drawn(frozenset(names), frozenset())
    standing.judge()
    return registry, standing
