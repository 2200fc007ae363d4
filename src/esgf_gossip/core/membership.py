"""
Who counts as a member, judged from lines and the clock; and which addresses to dial.

Pure functions. A line is never forgotten; leaving and expiry only end
membership. Unreachability is no part of it: nothing here deletes a node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from random import Random
from typing import Final

from esgf_gossip.core.model import Address, VerifiedDigest
from esgf_gossip.core.table import Table

# Of two nodes that want each other the one with the smaller name dials first.
SECOND_DIALLER_DELAY_S: Final = 2.0


def is_member(line: VerifiedDigest, now_ms: int) -> bool:
    """Tell whether a node takes part: it has neither left nor expired."""
    return not line.digest.leaving and line.digest.expires_at_ms > now_ms


def mute_of(table: Table, members: Collection[str]) -> frozenset[str]:
    """Return the members that cannot be dialled: their contact has port 0."""
    lines = (table.line(name) for name in members)
    return frozenset(line.digest.origin for line in lines if line is not None and line.digest.contact[1] == 0)


def roster(table: Table, now_ms: int) -> tuple[frozenset[str], int]:
    """Return the names of all members, and when the first of them expires; 0 where there are none."""
    members = [line.digest for line in table if is_member(line, now_ms)]
    return (
        frozenset(digest.origin for digest in members),
        min((digest.expires_at_ms for digest in members), default=0),
    )


def wanted_addresses(
    own: str, neighbours: Collection[str], linked: Collection[str], table: Table, random: Random
) -> dict[Address, float]:
    """Return the contacts of neighbours without a link, each with the delay before a first dial."""
    wanted: dict[Address, float] = {}
    for name in sorted(set(neighbours) - set(linked)):
        line = table.line(name)
        if line is None or line.digest.contact[1] == 0:
            continue  # it dials us
        delay_s = 0.0 if own < name else SECOND_DIALLER_DELAY_S * random.uniform(1.0, 2.0)
        wanted[line.digest.contact] = delay_s
    return wanted


def draw_partner(
    own: str, linked: Collection[str], table: Table, seeds: Mapping[Address, str], random: Random
) -> Address | None:
    """
    Return one address drawn from all lines ever held and the seeds, expired and left ones too.

    Islands heal by this, however long they were apart.
    """
    known = {
        line.digest.contact
        for line in table
        if line.digest.origin != own and line.digest.origin not in linked and line.digest.contact[1] != 0
    }
    known.update(address for address, host in seeds.items() if host != own and host not in linked)
    return random.choice(sorted(known)) if known else None
