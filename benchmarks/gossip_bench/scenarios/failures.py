"""How nodes that die, freeze or pause are found out, and that nobody else is called so."""

from __future__ import annotations

import math
from typing import Final

from gossip_bench.bench import NO_DETECTOR, Bench, Cost, Scenario
from gossip_bench.event_streams import Heard
from gossip_bench.federation import BenchError
from gossip_bench.measures import row
from gossip_bench.rows import Row

FOUND_MOST_S: Final = 30.0
BACK_MOST_S: Final = 30.0
# A false alarm of the last moments must not be missed.
AFTERMATH_S: Final = 3.0
PAUSE_S: Final = 3.0
LONG_PAUSE_S: Final = 10.0
# Silence is noticed 6.6 s after it began at the latest: listen until then.
PAUSE_AFTERMATH_S: Final = 4.0
SHARES: Final = (10, 30, 50)


def _unreachable(bench: Bench, victims: list[str], since_s: float, most_s: float) -> dict[str, float]:
    """Wait until all others have told `unreachable` of all victims; return when each of them had."""
    missing = {host: set(victims) for host in bench.others(victims)}

    def tells_the_last(heard: Heard) -> bool:
        if heard.name != "node-status" or heard.data["status"] != "unreachable":
            return False
        missing[heard.node].discard(heard.data["host"])
        return not missing[heard.node]

    return bench.federation.first_told(since_s, list(missing), tells_the_last, most_s)


def _back(bench: Bench, victims: list[str], since_s: float) -> float:
    """
    Wait until everybody calls everybody up again; return the seconds.

    Raises:
        BenchError: not in time.
    """
    bench.federation.wait_until_whole(BACK_MOST_S)
    told = [
        heard.at_s
        for heard in bench.federation.streams.statuses_told(since_s)
        if heard.data["host"] in victims and heard.data["status"] == "up"
    ]
    return max(told, default=since_s) - since_s


def _called(bench: Bench, since_s: float, statuses: set[str], but: list[str]) -> int:
    """Count the nodes that anybody called one of these statuses since then, the victims not counted."""
    return len(
        {
            heard.data["host"]
            for heard in bench.federation.streams.statuses_told(since_s)
            if heard.data["status"] in statuses and heard.data["host"] not in but
        }
    )


def _unavailable(bench: Bench, *keys: str) -> list[Row]:
    return [row(key, bench.nodes, note=NO_DETECTOR) for key in keys]


def _incomplete(bench: Bench, seen: dict[str, float]) -> BenchError:
    missing = bench.nodes - 1 - len(seen)
    return BenchError(f"{missing} of {bench.nodes - 1} did not tell unreachable in {FOUND_MOST_S:.0f} s")


def kill(bench: Bench) -> list[Row]:
    """End one node as a power failure would, but for the links: the kernel closes them."""
    if not bench.detects():
        return _unavailable(bench, "kill.last")
    last, others = [], []
    for victims in bench.victims(1):
        with bench.turns.shared():
            at_s = bench.federation.kill(victims)
            seen = _unreachable(bench, victims, at_s, FOUND_MOST_S)
            bench.federation.loop.run_for(AFTERMATH_S)
            others.append(_called(bench, at_s, {"suspect", "unreachable"}, victims))
            bench.federation.restart(victims)
        if len(seen) < bench.nodes - 1:
            raise _incomplete(bench, seen)
        last.append(max(seen.values()) - at_s)
        bench.tell(f"SIGKILL of {victims[0]}: unreachable on all after {last[-1]:.2f} s")
    return [row("kill.last", bench.nodes, last), row("kill.others", bench.nodes, others)]


def silent(bench: Bench) -> list[Row]:
    """Freeze one node for at least ten seconds: its links stay open and say nothing."""
    if not bench.detects():
        return _unavailable(bench, "silent.last", "silent.back", "silent.others")
    last, back, others = [], [], []
    for victims in bench.victims(1):
        with bench.turns.shared():
            at_s, seen, back_s, called = _frozen(bench, victims, FOUND_MOST_S)
        if len(seen) < bench.nodes - 1:
            raise _incomplete(bench, seen)
        last.append(max(seen.values()) - at_s)
        back.append(back_s)
        others.append(called)
        bench.tell(
            f"SIGSTOP of {victims[0]}: unreachable on all after {last[-1]:.2f} s, up after {back_s:.2f} s"
        )
    return [
        row("silent.last", bench.nodes, last),
        row("silent.back", bench.nodes, back),
        row("silent.others", bench.nodes, others),
    ]


def pauses(bench: Bench) -> list[Row]:
    """Freeze 5 % of the nodes (at least one) for ten seconds, all at once."""
    if not bench.detects():
        return _unavailable(bench, "pauses.others", "pauses.back")
    back, others = [], []
    count = max(1, math.ceil(bench.nodes * 0.05))
    for victims in bench.victims(count):
        with bench.turns.shared():
            _, _, back_s, called = _frozen(bench, victims, LONG_PAUSE_S)
        others.append(called)
        back.append(back_s)
        bench.tell(f"{count} paused for 10 s: {called} others called suspect or unreachable")
    return [row("pauses.others", bench.nodes, others), row("pauses.back", bench.nodes, back)]


def _frozen(bench: Bench, victims: list[str], most_s: float) -> tuple[float, dict[str, float], float, int]:
    """Freeze nodes for ten seconds or until found out; return when, who told, seconds until up, others called."""
    federation = bench.federation
    at_s = federation.freeze(victims)
    seen = _unreachable(bench, victims, at_s, most_s)
    federation.loop.run_for(max(0.0, at_s + LONG_PAUSE_S - federation.loop.now_s))
    back_s = _back(bench, victims, federation.thaw(victims))
    federation.loop.run_for(AFTERMATH_S)
    return at_s, seen, back_s, _called(bench, at_s, {"suspect", "unreachable"}, victims)


def pause(bench: Bench) -> list[Row]:
    """Freeze one node for three seconds, as a garbage collector or a busy host does."""
    if not bench.detects():
        return _unavailable(bench, "pause.unreachable")
    called = []
    federation = bench.federation
    for victims in bench.victims(1):
        with bench.turns.shared():
            at_s = federation.freeze(victims)
            federation.loop.run_for(PAUSE_S)
            federation.thaw(victims)
            federation.loop.run_for(PAUSE_AFTERMATH_S)
            called.append(_called(bench, at_s, {"unreachable"}, []))
    bench.tell(f"pauses of 3 s: nodes called unreachable: {called}")
    return [row("pause.unreachable", bench.nodes, called)]


def mass(bench: Bench) -> list[Row]:
    """Kill a tenth, a third and half of the nodes at once; of few nodes a third only."""
    shares = SHARES if bench.nodes >= 10 else SHARES[1:2]
    if not bench.detects():
        return _unavailable(bench, *(f"mass.last{share}" for share in shares))
    rows = []
    for share in shares:
        rows += _mass(bench, share)
    return rows


def _mass(bench: Bench, share: int) -> list[Row]:
    last, missing = [], []
    federation = bench.federation
    for victims in bench.victims(max(1, round(bench.nodes * share / 100))):
        with bench.turns.shared():
            at_s = federation.kill(victims)
            seen = _unreachable(bench, victims, at_s, FOUND_MOST_S)
            federation.loop.run_for(AFTERMATH_S)
            survivors = bench.others(victims)
            unfound = {
                victim
                for victim in victims
                for host in survivors
                if federation.streams.said[host].statuses.get(victim) != "unreachable"
            }
            called = _called(bench, at_s, {"unreachable"}, victims)
        with bench.turns.alone():
            federation.restart(victims, settle_s=5.0)
        missing.append(len(unfound) + called)
        if len(seen) == len(survivors):
            last.append(max(seen.values()) - at_s)
        bench.tell(f"{share} % killed: {len(seen)} of {len(survivors)} found all, {called} others called")
    return [row(f"mass.last{share}", bench.nodes, last), row(f"mass.missing{share}", bench.nodes, missing)]


KILL: Final = Scenario("kill", kill, Cost(43))
SILENT: Final = Scenario("silent", silent, Cost(73))
PAUSES: Final = Scenario("pauses", pauses, Cost(73))
PAUSE: Final = Scenario("pause", pause, Cost(40))
MASS: Final = Scenario("mass", mass, Cost(40, 7))
