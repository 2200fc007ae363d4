"""
How a change spreads: seconds until the last node has it, copies and bytes it costs.

One run is one seed: a federation that starts in step, changes of random origins
one after the other, each waited for. Figures are of the honest nodes.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Sequence

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.sim.byzantine import LIES, corrupt
from esgf_gossip.sim.host import Host
from esgf_gossip.sim.latency import AtRandom, Latency, Regions
from esgf_gossip.sim.network import VirtualNetwork
from esgf_gossip.sim.preload import start_in_step
from esgf_gossip.sim.traffic import Traffic

WAIT_S = 60.0
# What is on its way when the last node has the change: late copies count too.
STRAGGLERS_S = 1.0
# Not all changes at the same phase of the beats.
PAUSE_LEAST_S, PAUSE_MOST_S = 0.5, 6.0
SPREADING = ("Announce", "Ask", "Answer", "Want", "Bodies")


@attrs.frozen
class Plan:
    """What to measure. ``loss`` and ``byzantine`` are shares; ``latency`` is "random" or "regions"."""

    nodes: int
    seed: int = 1
    changes: int = 20
    loss: float = 0.01
    body_bytes: int = 4096
    byzantine: float = 0.0
    latency: str = "random"


@attrs.frozen
class Change:
    """One change: seconds to the median and to the last node, bodies a node, bytes a node over the least possible."""

    median_s: float
    last_s: float
    copies: float
    bytes_ratio: float
    reached: int


@attrs.frozen
class Spread:
    """The changes of one seed."""

    plan: Plan
    changes: tuple[Change, ...]
    faults: dict[str, int]

    @property
    def failures(self) -> list[str]:
        """Changes that did not reach all honest nodes in time."""
        return [
            f"seed {self.plan.seed}, change {number}: not everywhere after {WAIT_S:.0f} s"
            for number, change in enumerate(self.changes)
            if math.isinf(change.last_s)
        ]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class _Measurement:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.liars: frozenset[str] = frozenset()
        self._origin = ""
        self._arrivals: dict[str, float] = {}
        latency: Latency = Regions() if plan.latency == "regions" else AtRandom(0.005, 0.150)
        self.network = VirtualNetwork(plan.seed, latency)
        self.network.on_notice = self._told
        self.names = [f"n{number:05}.example.org" for number in range(plan.nodes)]
        start_in_step(self.network, self.names)
        self.network.faults.loss = plan.loss
        self.liars = self._corrupt(round(plan.byzantine * plan.nodes))
        self.honest = [name for name in self.names if name not in self.liars]

    def _corrupt(self, count: int) -> frozenset[str]:
        liars = self.network.random.sample(self.names, count)
        for number, name in enumerate(liars):
            corrupt(self.network, name, tuple(LIES)[number % len(LIES)])
        return frozenset(liars)

    def _told(self, host: Host, notice: fx.Output) -> None:
        if (
            isinstance(notice, fx.DigestAccepted)
            and notice.origin == self._origin
            and host.machine not in self.liars
        ):
            self._arrivals.setdefault(host.machine, self.network.now_s)

    def change(self, number: int) -> Change:
        network, plan = self.network, self.plan
        network.run(network.random.uniform(PAUSE_LEAST_S, PAUSE_MOST_S))
        self._origin = network.random.choice(self.honest)
        self._arrivals = {}
        traffic = network.traffic = Traffic()
        body = number.to_bytes(4, "big") + network.random.randbytes(plan.body_bytes - 4)
        start_s = network.now_s
        network.publish(self._origin, {"registration": body})
        done = network.run(WAIT_S, until=lambda: len(self._arrivals) == len(self.honest))
        network.run(STRAGGLERS_S)
        line = network.hosts[self._origin].node.registry.table.line(self._origin)  # type: ignore[union-attr]
        assert line is not None
        least_bytes = len(line.signed.payload) + len(line.signed.signature) + len(body)
        receivers = plan.nodes - 1
        times = [at_s - start_s for name, at_s in self._arrivals.items() if name != self._origin]
        return Change(
            median_s=percentile(times, 0.5),
            last_s=max(times) if done else math.inf,
            copies=traffic.bodies / receivers,
            bytes_ratio=sum(traffic.size_bytes[kind] for kind in SPREADING) / receivers / least_bytes,
            reached=len(times),
        )


def measure(plan: Plan) -> Spread:
    """Run one seed."""
    try:
        measurement = _Measurement(plan)
        changes = tuple(measurement.change(number) for number in range(plan.changes))
        return Spread(plan, changes, dict(measurement.network.faults.counts))
    finally:
        gc.unfreeze()


def summary(spreads: Sequence[Spread]) -> dict[str, float]:
    """Return the figures over all changes of all seeds."""
    changes = [change for spread in spreads for change in spread.changes]
    lasts = [change.last_s for change in changes]
    return {
        "changes": len(changes),
        "median_s": percentile((change.median_s for change in changes), 0.5),
        "last_p50_s": percentile(lasts, 0.5),
        "last_p99_s": percentile(lasts, 0.99),
        "last_max_s": max(lasts),
        "copies_mean": sum(change.copies for change in changes) / len(changes),
        "copies_max": max(change.copies for change in changes),
        "bytes_ratio_mean": sum(change.bytes_ratio for change in changes) / len(changes),
    }
