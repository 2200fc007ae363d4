"""How quickly all nodes agree: from nothing, and after one change."""

from __future__ import annotations

from typing import Final

from gossip_bench.bench import Bench, Cost, Scenario
from gossip_bench.federation import BenchError
from gossip_bench.measures import row
from gossip_bench.rows import Row

COLD_STARTS: Final = 5
COLD_STARTS_FULL: Final = 12
CHANGE_MOST_S: Final = 30.0
SETTLE_S: Final = 1.0


def cold(bench: Bench) -> list[Row]:
    """Start all nodes at once, with nothing remembered, again and again."""
    federation = bench.federation
    whole, held, begun, called = [], [], [], []
    for number in range(COLD_STARTS_FULL if bench.is_full else COLD_STARTS):
        with bench.turns.alone():
            start = federation.cold_start()
        whole.append(start.whole_s - start.last_listening_s)
        held.append(start.held_s - start.last_listening_s)
        begun.append(start.whole_s - start.begun_s)
        told = federation.streams.statuses_told(start.begun_s)
        called.append(
            len({one.data["host"] for one in told if one.data["status"] in {"suspect", "unreachable"}})
        )
        bench.tell(
            f"cold start {number + 1}: {whole[-1]:.2f} s after the last listened, {called[-1]} suspected"
        )
    return [
        row("cold.whole", bench.nodes, whole),
        row("cold.worst", bench.nodes, whole),
        row("cold.held", bench.nodes, held),
        row("cold.begun", bench.nodes, begun),
        row("cold.called", bench.nodes, called),
    ]


def change(bench: Bench) -> list[Row]:
    """Change a property at one node; the last other node tells when it holds the new digest."""
    federation = bench.federation
    whole, spread = [], []
    for (origin,) in bench.victims(1):
        with bench.turns.shared():
            federation.loop.run_for(SETTLE_S)
            at_s, tells = federation.change(origin)
            seen = federation.first_told(at_s, federation.running, tells, CHANGE_MOST_S)
        missing = set(federation.running) - seen.keys()
        if missing:
            raise BenchError(f"{len(missing)} nodes lack a change after {CHANGE_MOST_S:.0f} s")
        own_s = seen.pop(origin)
        whole.append(max(seen.values()) - at_s)
        spread.append(max(seen.values()) - own_s)
        bench.tell(f"change: {whole[-1]:.3f} s")
    return [row("change.last", bench.nodes, whole), row("change.spread", bench.nodes, spread)]


COLD: Final = Scenario("cold", cold, Cost(10, 2.5, 2.4))
CHANGE: Final = Scenario("change", change, Cost(8))
