"""
What a run consists of: legs (one federation each, with its scenarios) and commands of other programs.

Further rows come from commands: anything that prints a line ``{"rows": [...]}``
(fields of ``rows.Row``; ``key`` is ``NAME.measure``) can be put into ``COMMANDS``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import attrs

from gossip_bench.rows import OURS
from gossip_bench.scenarios import SCENARIOS
from gossip_bench.scenarios.serf import SERF_SCENARIOS

SHORT: Final = "short"
FULL: Final = "full"
SIZES: Final = {SHORT: (25, 7), FULL: (7, 25, 50)}
PROFILES: Final = {SHORT: ("lan",), FULL: ("lan", "wan")}
# Ten minutes hold each of the long ones once. 5 % of 7 nodes are one node, which ``silent`` has.
LEFT_OUT_OF_SHORT: Final = {7: {"pauses"}, 25: {"mass", "flood"}}
SHORT_S: Final = 570.0
# A job that takes so much longer than planned is stuck.
PATIENCE: Final = 4.0


@attrs.frozen
class Leg:
    """One federation of one system and what is measured of it."""

    system: str
    nodes: int
    scenarios: tuple[str, ...]

    def seconds(self, *, is_full: bool) -> float:
        """Return roughly how long it takes, the first start included."""
        table = SCENARIOS if self.system == OURS else SERF_SCENARIOS
        start_s = 5 + self.nodes * 0.7
        return start_s + sum(table[name].cost.seconds(self.nodes, is_full=is_full) for name in self.scenarios)


@attrs.frozen
class Command:
    """
    Another program that measures.

    Args:
        name: as in ``--only``, and the first part of the keys of its rows.
        nodes: size of the federation it is about.
        arguments: after the Python interpreter.
        modes: in which runs it takes part.
        seconds: the longest it may take.
    """

    name: str
    nodes: int
    arguments: tuple[str, ...]
    modes: tuple[str, ...] = (SHORT, FULL)
    seconds: float = 120.0


_SIMULATED: Final = ("-m", "gossip_bench.simulated")
_COSTS: Final = ("-m", "gossip_bench.costs")
COMMANDS: Final[tuple[Command, ...]] = (
    Command("reconciliation", 5000, (*_COSTS, "reconciliation"), seconds=60),
    Command("logs", 2, (*_COSTS, "logs"), (FULL,), seconds=300),
    Command("simulated", 50, (*_SIMULATED, "50", "20"), seconds=120),
    Command("simulated", 1000, (*_SIMULATED, "1000", "20"), (FULL,), seconds=3600),
    Command("simulated", 5000, (*_SIMULATED, "5000", "5"), (FULL,), seconds=3 * 3600),
)


def legs(
    mode: str, sizes: Sequence[int], only: Collection[str], *, with_serf: bool, profiles: Sequence[str]
) -> list[Leg]:
    """
    Return the legs of a run, in order.

    Args:
        mode: SHORT or FULL.
        sizes: numbers of nodes.
        only: names of scenarios; empty: those of the mode.
        with_serf: measure serf beside us.
        profiles: of serf.
    """
    plan = []
    for nodes in sizes:
        left_out = LEFT_OUT_OF_SHORT.get(nodes, set()) if mode == SHORT and not only else set()
        wanted = [name for name in SCENARIOS if (name in only or not only) and name not in left_out]
        plan.append(Leg(OURS, nodes, tuple(wanted)))
        if with_serf:
            beside = tuple(name for name in SERF_SCENARIOS if name in wanted)
            plan += [Leg(f"serf {profile}", nodes, beside) for profile in profiles]
    return [leg for leg in plan if leg.scenarios]


def commands(mode: str, sizes: Sequence[int] | None, only: Collection[str]) -> list[Command]:
    """Return the commands of a run; ``sizes`` None: of all sizes."""
    return [
        command
        for command in COMMANDS
        if (command.name in only if only else mode in command.modes)
        and (sizes is None or command.nodes in sizes)
    ]
