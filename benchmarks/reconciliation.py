"""
Count what a comparison of two tables costs: bytes of payload, round trips, CPU time of both ends.

In memory, through the real codec; the fetch of what differs is not counted. Host names have 25 characters,
half of the changes are newer at either end. The figures are medians over the seeds. Prints the
machine, the commit and a table; all figures go to a JSON file.

    .venv/bin/python benchmarks/reconciliation.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from random import Random

from machine import commit, machine, machine_line

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.comparison import ALL_FEATURES, Ends, a_name, a_verified

CASES = (
    *((count, 0) for count in (7, 50, 1000, 5000)),
    *((5000, changed) for changed in (1, 10, 100, 1000)),
    (15_000, 100),
)


def measure(count: int, changed: int, seed: int, features: frozenset[int]) -> dict[str, float]:
    """Compare two tables of which so many lines differ, fetch, and return the cost of the comparison."""
    random = Random(seed)
    one = [a_verified(a_name(number)) for number in range(count)]
    other = list(one)
    for number in random.sample(range(count), changed):
        random.choice((one, other))[number] = a_verified(a_name(number), 2)
    ends = Ends(one, other, features=features, seed=seed)
    for end in (ends.one, ends.other):
        # The first root of a process is made once; a later one is what a change costs.
        end.registry.table.root  # noqa: B018
        end.registry.table.merge(a_verified(a_name(0), 3))
    begun_s = time.process_time()
    ends.compare()
    cpu_s = time.process_time() - begun_s
    cost = {
        "payload_bytes": ends.payload_bytes,
        "round_trips": ends.round_trips,
        "cpu_ms": round(1000 * cpu_s, 1),
    }
    ends.fetch()
    if not ends.are_equal:
        raise SystemExit(f"{count} heads, {changed} changed, seed {seed}: still different")
    return cost


def main() -> int:
    """Measure each case and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds each figure is the median of")
    parser.add_argument("--json-file", type=Path, default=Path("bench-reconciliation.json"))
    options = parser.parse_args()
    measured = commit()
    print(machine_line(f"medians of {options.seeds} seeds"))
    print("heads | changed | bytes | round trips | CPU ms | bytes with the full vector")
    rows = []
    for count, changed in CASES:
        by_prints = [measure(count, changed, seed, ALL_FEATURES) for seed in range(options.seeds)]
        row: dict[str, float] = {"heads": count, "changed": changed}
        for name in by_prints[0]:
            row[name] = statistics.median(cost[name] for cost in by_prints)
        row["payload_bytes_most"] = max(cost["payload_bytes"] for cost in by_prints)
        row["vector_payload_bytes"] = measure(count, changed, 0, frozenset())["payload_bytes"]
        rows.append(row)
        cells = (count, changed, row["payload_bytes"], row["round_trips"], row["cpu_ms"])
        print(" | ".join(map(str, (*cells, row["vector_payload_bytes"]))), flush=True)
    options.json_file.write_text(
        json.dumps({"commit": measured, "machine": machine(), "rows": rows}, indent=1)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
