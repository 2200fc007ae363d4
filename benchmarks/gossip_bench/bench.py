"""What a scenario gets: the federation, how often to repeat, whom to tell, whose turn it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

import attrs

from gossip_bench.federation import Federation
from gossip_bench.rows import Row
from gossip_bench.turns import Turns

DETECT_MOST_S: Final = 20.0
NO_DETECTOR: Final = (
    f"not available: no node told node-status unreachable {DETECT_MOST_S:.0f} s after a SIGKILL"
)


@attrs.frozen
class Bench:
    """One federation and how it is to be measured."""

    federation: Federation
    turns: Turns
    is_full: bool
    repetitions: int = 5
    _detects: list[bool] = attrs.field(factory=list, init=False)

    @property
    def nodes(self) -> int:
        """The size of the federation."""
        return len(self.federation.hosts)

    def victims(self, count: int) -> list[list[str]]:
        """
        Draw ``count`` different victims for each repetition.

        A deck that is dealt to its end: no node is drawn again before all were, as far as that goes.
        """
        deck: list[str] = []
        dealt = []
        for _ in range(self.repetitions):
            hand: list[str] = []
            while len(hand) < count:
                if not deck:
                    deck = [host for host in self.federation.hosts if host not in hand]
                    self.federation.random.shuffle(deck)
                hand.append(deck.pop())
            dealt.append(hand)
        return dealt

    def others(self, victims: list[str]) -> list[str]:
        """Return the running nodes that are no victims."""
        return [host for host in self.federation.running if host not in victims]

    def detects(self) -> bool:
        """
        Tell whether these daemons find out the death of a node at all; tried once, with a node that is killed.

        Without that proof "nobody was called unreachable" would be worth nothing.
        """
        if not self._detects:
            federation = self.federation
            victim = federation.hosts[-1]
            with self.turns.shared():
                at_s = federation.kill([victim])
                self._detects.append(
                    federation.loop.run_until(
                        lambda: any(
                            heard.data["status"] == "unreachable"
                            for heard in federation.streams.statuses_told(at_s)
                        ),
                        DETECT_MOST_S,
                    )
                )
                federation.restart([victim])
        return self._detects[0]

    def tell(self, line: str) -> None:
        """Say how far it has come."""
        tell(f"N = {self.nodes}: {line}")


@attrs.frozen
class Cost:
    """Roughly how many seconds something takes on two cores; a budget is kept by it."""

    base_s: float
    per_node_s: float = 0.0
    full_times: float = 1.0

    def seconds(self, nodes: int, *, is_full: bool) -> float:
        """Return the seconds at one size."""
        return (self.base_s + self.per_node_s * nodes) * (self.full_times if is_full else 1)


@attrs.frozen
class Scenario:
    """
    One thing to measure.

    Args:
        name: as in ``--only``.
        run: measures, returns the rows.
        cost: how long that takes.
    """

    name: str
    run: Callable[[Bench], list[Row]]
    cost: Cost


def tell(line: str) -> None:
    """Write a line of progress to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
