"""The same measures of serf: rows with the same keys, so that the table can print the ratio."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from gossip_bench.bench import Cost, tell
from gossip_bench.federation import BenchError
from gossip_bench.measures import row
from gossip_bench.namespace import isolation, link_header_bytes
from gossip_bench.processes import sent_on_loopback
from gossip_bench.rows import Row
from gossip_bench.serf_agents import TAGS, SerfFederation, SerfHeard
from gossip_bench.turns import Turns

COLD_STARTS: Final = 5
COLD_STARTS_FULL: Final = 12
CHANGE_MOST_S: Final = 60.0
FOUND_MOST_S: Final = 180.0
SETTLE_S: Final = 4.0
PAUSE_S: Final = 10.0
REST_S: Final = 10.0
WINDOW_S: Final = 30.0
WINDOWS_FULL: Final = 3
WINDOW_FULL_S: Final = 60.0


@attrs.frozen
class SerfBench:
    """One federation of serf and how it is to be measured."""

    serf: SerfFederation
    turns: Turns
    is_full: bool
    seed: int
    repetitions: int = 5

    @property
    def nodes(self) -> int:
        """The size of the federation."""
        return len(self.serf.agents)

    def victims(self) -> list[str]:
        """Draw one agent per repetition; never the first, by which the others join."""
        names = list(self.serf.agents)[1:]
        return [Random(self.seed + number).choice(names) for number in range(self.repetitions)]

    def others(self, victim: str) -> list[str]:
        """Return the running agents but one."""
        return [name for name in self.serf.running if name != victim]

    def tell(self, line: str) -> None:
        """Say how far it has come."""
        tell(f"N = {self.nodes}: {self.serf.system}: {line}")

    def row(self, key: str, values: list[float], note: str = "") -> Row:
        """Return a row of this system."""
        return row(key, self.nodes, values, system=self.serf.system, note=note)

    def last(self, at_s: float, victim: str, kinds: set[str], most_s: float) -> float:
        """
        Wait until all others have told one of these events of an agent; return the seconds.

        Raises:
            BenchError: not in time.
        """
        others = self.others(victim)

        def tells(heard: SerfHeard) -> bool:
            return heard.about == victim and heard.kind in kinds

        seen = self.serf.first_told(at_s, others, tells, most_s)
        if len(seen) < len(others):
            raise BenchError(f"{len(others) - len(seen)} agents did not tell {kinds} in {most_s:.0f} s")
        return max(seen.values()) - at_s


@attrs.frozen
class SerfScenario:
    """As ``bench.Scenario``."""

    name: str
    run: Callable[[SerfBench], list[Row]]
    cost: Cost


def cold(bench: SerfBench) -> list[Row]:
    """Start all agents at once, again and again."""
    whole, begun = [], []
    for number in range(COLD_STARTS_FULL if bench.is_full else COLD_STARTS):
        with bench.turns.alone():
            start = bench.serf.cold_start()
        whole.append(start.whole_s - start.last_listening_s)
        begun.append(start.whole_s - start.begun_s)
        bench.tell(f"cold start {number + 1}: whole {whole[-1]:.2f} s after the last listened")
    return [bench.row("cold.whole", whole), bench.row("cold.worst", whole), bench.row("cold.begun", begun)]


def change(bench: SerfBench) -> list[Row]:
    """Change a tag at one agent."""
    times = []
    for number, agent in enumerate(bench.victims()):
        with bench.turns.shared():
            bench.serf.loop.run_for(1.0)
            at_s, call = bench.serf.agents[agent].call("tags", {"Tags": TAGS | {"change": str(number)}})
            with call:
                times.append(bench.last(at_s, agent, {"Update"}, CHANGE_MOST_S))
        bench.tell(f"change: {times[-1]:.3f} s")
    return [bench.row("change.last", times, "a tag of 160 bytes in all")]


def idle(bench: SerfBench) -> list[Row]:
    """Let all agents be; count what they send and compute."""
    serf, nodes = bench.serf, bench.nodes
    header_bytes = link_header_bytes()
    sent_s, packets_s, cpu = [], [], []
    with bench.turns.shared():
        serf.loop.run_for(REST_S)
    for _ in range(WINDOWS_FULL if bench.is_full else 1):
        with bench.turns.shared():
            before, cpu_before_s = sent_on_loopback(), serf.cpu_s()
            seconds = WINDOW_FULL_S if bench.is_full else WINDOW_S
            serf.loop.run_for(seconds)
            sent, cpu_s = sent_on_loopback() - before, serf.cpu_s() - cpu_before_s
        sent_s.append((sent.bytes - header_bytes * sent.packets) / seconds / nodes)
        packets_s.append(sent.packets / seconds / nodes)
        cpu.append(100 * cpu_s / seconds / nodes)
        bench.tell(f"idle: {sent_s[-1]:.0f} B/s a node")
    rows = [
        bench.row("idle.cpu", cpu),
        bench.row("idle.rss", [serf.rss_mb(name) for name in serf.running], "values: the agents"),
    ]
    if isolation():
        rows += [bench.row("idle.bytes", sent_s), bench.row("idle.packets", packets_s)]
    return rows


def leave(bench: SerfBench) -> list[Row]:
    """Have one agent leave."""
    times = []
    for agent in bench.victims():
        with bench.turns.shared():
            at_s, call = bench.serf.agents[agent].call("leave")
            with call:
                times.append(bench.last(at_s, agent, {"Leave", "Failed"}, FOUND_MOST_S))
            bench.serf.agents[agent].wait()
            bench.serf.restart(agent, SETTLE_S)
        bench.tell(f"leave: {times[-1]:.2f} s")
    return [bench.row("leave.last", times)]


def kill(bench: SerfBench) -> list[Row]:
    """Kill one agent."""
    times = []
    for agent in bench.victims():
        with bench.turns.shared():
            at_s = time.monotonic()
            bench.serf.agents[agent].kill()
            times.append(bench.last(at_s, agent, {"Failed"}, FOUND_MOST_S))
            bench.serf.restart(agent, SETTLE_S)
        bench.tell(f"SIGKILL: failed on all after {times[-1]:.2f} s")
    return [bench.row("kill.last", times)]


def silent(bench: SerfBench) -> list[Row]:
    """Freeze one agent until all have found out, at least ten seconds; then let it go on."""
    last, back = [], []
    for agent in bench.victims():
        with bench.turns.shared():
            at_s = bench.serf.agents[agent].signal(signal.SIGSTOP)
            last.append(bench.last(at_s, agent, {"Failed"}, FOUND_MOST_S))
            bench.serf.loop.run_for(max(0.0, at_s + PAUSE_S - bench.serf.loop.now_s))
            at_s = bench.serf.agents[agent].signal(signal.SIGCONT)
            back.append(bench.last(at_s, agent, {"Join"}, FOUND_MOST_S))
            bench.serf.loop.run_until(bench.serf.is_whole, FOUND_MOST_S)
            bench.serf.loop.run_for(SETTLE_S)
        bench.tell(f"SIGSTOP: failed on all after {last[-1]:.2f} s, alive after {back[-1]:.2f} s")
    return [bench.row("silent.last", last), bench.row("silent.back", back)]


SERF_SCENARIOS: Final[dict[str, SerfScenario]] = {
    one.name: one
    for one in (
        SerfScenario("cold", cold, Cost(5, 0.5, 10)),
        SerfScenario("change", change, Cost(10)),
        SerfScenario("idle", idle, Cost(40, 0, 4.8)),
        SerfScenario("leave", leave, Cost(50)),
        SerfScenario("kill", kill, Cost(80, 0, 5)),
        SerfScenario("silent", silent, Cost(100, 0, 4)),
    )
}
