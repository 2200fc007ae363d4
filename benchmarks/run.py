"""
Measure federations of real processes, with HashiCorp serf beside them where it is installed.

Prints a table and writes all single values as JSON. Every scenario runs in a
network and process namespace of its own; nothing is left behind.

    benchmarks/run.py                        the short run: 7 and 25 nodes, at most ten minutes
    benchmarks/run.py --full                 the whole table: hours; goes on where it was ended
    benchmarks/run.py --only kill --nodes 50 one row
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import platform
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from gossip_bench import plan
from gossip_bench.namespace import isolation
from gossip_bench.report import header_line, notes, table, unmet
from gossip_bench.results import Results
from gossip_bench.rows import OURS
from gossip_bench.runner import Runner
from gossip_bench.scenarios import SCENARIOS
from gossip_bench.serf_agents import serf_version

ROOT = Path(__file__).resolve().parents[1]
RESERVE_S = 15.0


def main() -> int:
    """Plan, run, report; 1 where a job came to nothing."""
    options = _parser().parse_args()
    mode = plan.FULL if options.full else plan.SHORT
    sizes = options.nodes or plan.SIZES[mode]
    version = "" if options.no_serf else serf_version()
    serf = (
        f"serf {version}"
        if version
        else "serf is not installed (Debian: apt install serf): its columns are left out"
    )
    legs = plan.legs(mode, sizes, options.only, with_serf=bool(version), profiles=plan.PROFILES[mode])
    commands = plan.commands(mode, options.nodes, options.only)
    if options.plan:
        for leg in legs:
            print(
                f"{leg.system}, N = {leg.nodes}: {' '.join(leg.scenarios)}: {leg.seconds(is_full=options.full):.0f} s"
            )
        for command in commands:
            print(f"{command.name}, N = {command.nodes}: python {' '.join(command.arguments)}")
        return 0
    header = {
        "commit": _commit(),
        "cores": os.cpu_count(),
        "machine": _processor(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": options.seed,
        "mode": mode,
        "serf": "serf not asked for" if options.no_serf else serf,
    }
    path = options.json_file or Path(
        f"bench-{'full' if options.full else 'part' if options.only else 'short'}.json"
    )
    results = Results(path, header, resume=(options.full and not options.only) or options.resume)
    print(header_line(header), flush=True)
    if not isolation():
        print(
            "no namespaces here (unshare fails): bytes are not counted, everything shares the loopback device"
        )
    is_bounded = not options.full and not options.only
    end_s = time.monotonic() + plan.SHORT_S if is_bounded else math.inf
    # Also where a shell started us in the background, with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    runner = Runner(results, is_full=options.full, seed=options.seed, end_s=end_s)
    try:
        runner.run(legs, commands, lanes=len(legs) if is_bounded else 1)
    except KeyboardInterrupt:
        print("ended; what is finished is kept:", path)
        return 130
    rows = results.rows
    print(table(rows) if rows else "nothing could be measured")
    print()
    for line in notes(rows, results.problems):
        print("-", line)
    print(f"- a row again: {Path(sys.argv[0])} with what stands in its last column; all values: {path}")
    missed = unmet(rows)
    ours = [row for row in rows if row.system == OURS and row.verdict()]
    print(f"- {len(ours) - len(missed)} of {len(ours)} targets met")
    return 1 if results.problems else 0


def _commit() -> str:
    """Return the commit, with the hash of what was changed since: figures of other code are not resumed."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changes = git("diff", "HEAD", "--", "src", "benchmarks")
    return f"{commit}+{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else commit


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*SCENARIOS, *dict.fromkeys(command.name for command in plan.COMMANDS)]
    parser.add_argument("--full", action="store_true", help="7, 25 and 50 nodes, serf lan and wan; resumable")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=[], metavar="SCENARIO", help=" ".join(names)
    )
    parser.add_argument("--nodes", type=int, nargs="+", help="sizes of the federations")
    parser.add_argument("--no-serf", action="store_true", help="leave serf out")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which nodes are drawn")
    parser.add_argument(
        "--json-file", type=Path, help="where all values go; default bench-{short,full,part}.json"
    )
    parser.add_argument("--resume", action="store_true", help="take over what the file has of this commit")
    parser.add_argument("--plan", action="store_true", help="say what would be run, and roughly how long")
    return parser


if __name__ == "__main__":
    sys.exit(main())
