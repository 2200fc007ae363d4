"""
Rows of what needs no federation: comparisons of two tables and event logs of two nodes.

    python -m gossip_bench.costs reconciliation|logs
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gossip_bench.rows import Row, to_json

BENCHMARKS = Path(__file__).resolve().parents[1]


def _figures(program: str) -> dict[str, Any]:
    """Run a benchmark of its own and return what it writes; its table goes to stderr."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figures.json"
        command = [sys.executable, str(BENCHMARKS / program), "--json-file", str(file)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return json.loads(file.read_text())


def reconciliation() -> list[Row]:
    """Return the bytes and round trips of comparisons."""
    cases = {(one["heads"], one["changed"]): one for one in _figures("reconciliation.py")["rows"]}
    again = "benchmarks/reconciliation.py"
    hundred = cases[5000, 100]
    return [
        Row(
            "reconciliation.in_sync",
            "comparison of equal tables, payload",
            5000,
            "B",
            (max(one["payload_bytes_most"] for (_, changed), one in cases.items() if not changed),),
            most=200,
            digits=0,
            repeat=again,
        ),
        Row(
            "reconciliation.hundred",
            "100 changed of 5,000 heads: payload until both know which",
            5000,
            "B",
            (hundred["payload_bytes"],),
            most=15_000,
            digits=0,
            repeat=again,
        ),
        Row(
            "reconciliation.trips",
            "the same: round trips",
            5000,
            "",
            (hundred["round_trips"],),
            most=3,
            digits=1,
            repeat=again,
        ),
    ]


def logs() -> list[Row]:
    """Return what event logs cost."""
    scenes = {(one["scene"], one["kind"]): one for one in _figures("logs.py")["results"]}
    again = "benchmarks/logs.py"

    def values(scene: str, kind: str, name: str) -> tuple[float, ...]:
        return tuple(run[name] for run in scenes[scene, kind]["runs"])

    return [
        Row(
            "logs.metadata",
            "10,000 missing of 1,000,000 events, 10 origins: bytes beside events and their lengths",
            2,
            "B",
            values("missing", "noise", "metadata_bytes"),
            most=4000,
            digits=0,
            repeat=again,
        ),
        Row(
            "logs.fresh",
            "fresh node: 100,000 events in sync, one core",
            2,
            "s",
            values("fresh", "json", "seconds"),
            most=5.0,
            repeat=again,
        ),
        Row(
            "logs.fresh_rss",
            "the same: memory of both nodes in one process",
            2,
            "MB",
            values("fresh", "json", "rss_mb"),
            most=256,
            digits=0,
            repeat=again,
        ),
        Row(
            "logs.million",
            "a million events: hashes kept in memory",
            1,
            "B",
            values("million", "json", "tree_bytes"),
            digits=0,
            repeat=again,
        ),
    ]


PROGRAMS: dict[str, Callable[[], list[Row]]] = {"reconciliation": reconciliation, "logs": logs}


def main() -> int:
    """Measure one kind of cost and print its rows."""
    print(json.dumps({"rows": [to_json(row) for row in PROGRAMS[sys.argv[1]]()]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
