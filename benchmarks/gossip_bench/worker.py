"""
One federation in its own namespace: runs scenarios, prints one line of JSON for each that is finished.

Started by the runner as a process of its own; stdout is for the runner,
progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gossip_bench.bench import Bench, tell
from gossip_bench.federation import BenchError, Federation
from gossip_bench.loop import Loop
from gossip_bench.namespace import bring_loopback_up
from gossip_bench.rows import OURS, Row, to_json
from gossip_bench.scenarios import SCENARIOS
from gossip_bench.scenarios.serf import SERF_SCENARIOS, SerfBench
from gossip_bench.serf_agents import SerfFederation
from gossip_bench.turns import Turns

Measure = Callable[[], list[Row]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios that are named, in their order, until time is over."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if os.getpid() == 1:
        bring_loopback_up()
    end_s = time.monotonic() + options.seconds
    loop = Loop()
    turns = Turns(options.turns)
    if options.system == OURS:
        federation = Federation(options.directory, options.nodes, options.seed, loop)
        try:
            bench = Bench(federation, turns, options.full)
            if "cold" not in options.scenarios:
                with turns.alone():
                    federation.cold_start()
            jobs = {name: _bound(SCENARIOS[name].run, bench) for name in options.scenarios}
            return _run(jobs, federation.cold_start, options, end_s)
        finally:
            federation.close()
    profile = options.system.removeprefix("serf ")
    with SerfFederation(options.directory, options.nodes, profile, loop) as serf:
        serf_bench = SerfBench(serf, turns, options.full, options.seed)
        if "cold" not in options.scenarios:
            with turns.alone():
                serf.cold_start()
        jobs = {name: _bound(SERF_SCENARIOS[name].run, serf_bench) for name in options.scenarios}
        return _run(jobs, serf.cold_start, options, end_s)


def _bound(run: Callable[..., list[Row]], bench: object) -> Measure:
    return lambda: run(bench)


def _run(
    jobs: dict[str, Measure], start_anew: Callable[[], object], options: argparse.Namespace, end_s: float
) -> int:
    scenarios = SCENARIOS if options.system == OURS else SERF_SCENARIOS
    failures = 0
    for name, measure in jobs.items():
        needed_s = scenarios[name].cost.seconds(options.nodes, is_full=options.full)
        if time.monotonic() + needed_s > end_s:
            tell(f"N = {options.nodes}: {options.system}: {name} left out, it needs {needed_s:.0f} s")
            _print(name, [], "left out: no time left")
            continue
        begun_s = time.monotonic()
        try:
            rows = measure()
        except Exception as error:  # noqa: BLE001 - the other scenarios must not go with this one
            if not isinstance(error, BenchError):
                traceback.print_exc()
            reason = str(error) or type(error).__name__
            tell(f"N = {options.nodes}: {options.system}: {name} failed: {reason}")
            _print(name, [], f"failed: {reason}")
            failures += 1
            # Whatever state it left: the next one begins with a whole federation.
            start_anew()
        else:
            _print(name, rows, "")
            tell(f"N = {options.nodes}: {options.system}: {name} took {time.monotonic() - begun_s:.0f} s")
    return 1 if failures else 0


def _print(scenario: str, rows: Iterable[Row], problem: str) -> None:
    print(
        json.dumps({"scenario": scenario, "rows": [to_json(row) for row in rows], "problem": problem}),
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", default=OURS)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--scenarios", nargs="+", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--turns", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--full", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
