"""
Offer a node with real certificates digests that it must not accept, in named classes, by the million.

Prints what came of each class and appends it to a JSON file. Resumable with a
state file. Every batch is a federation of its own; its seed decides what is
changed, its keys are new, so what gets in is kept as bytes.

    .venv/bin/python benchmarks/mutations.py --each 50000 --jobs 2 --state mutations.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from esgf_gossip.sim import campaign
from helpers.mutants import CLASSES, Batch, run_batch
from helpers.stage import ACCEPTED, GARBLED, INCOMPLETE, NOTHING_NEW, PARTED, REFUSED

BATCH = 2500
NAMES = tuple(CLASSES)
COLUMNS = (GARBLED, REFUSED, NOTHING_NEW, INCOMPLETE, PARTED, ACCEPTED)


def play(parsed: int, seed: int) -> Batch:
    """Run one batch; the seed says which class."""
    return run_batch(NAMES[seed % len(NAMES)], seed, parsed)


def main() -> int:
    """Run the campaign; 0: nothing accepted, 1: something was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=50_000, help="of each class that pass the parser")
    parser.add_argument("--classes", default="", help="only classes whose name holds this")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--state", type=Path, help="file of batches done; they are not run again")
    parser.add_argument("--results", type=Path, help="JSON file to which the result is appended")
    options = parser.parse_args()
    size = min(BATCH, options.each)
    batches = -(-options.each // size)
    if not any(options.classes in name for name in NAMES):
        parser.error(f"no class has {options.classes!r} in its name; there are: {', '.join(NAMES)}")
    seeds = [seed for seed in range(batches * len(NAMES)) if options.classes in NAMES[seed % len(NAMES)]]
    state = campaign.State(options.state)
    todo = [seed for seed in seeds if seed not in state.outcomes]
    progress = campaign.Progress("mutants", len(todo) * size)
    for _, outcome in campaign.outcomes(partial(play, size), todo, options.jobs):
        state.add(outcome)
        for payload in outcome["accepted"]:
            print(f"ACCEPTED, class {outcome['name']}, batch {outcome['seed']}: {payload}", file=sys.stderr)
        progress.step(count=size)
    return report([state.outcomes[seed] for seed in seeds], options.results)


def report(batches: list[dict], results: Path | None) -> int:
    """Print a table of classes; return the exit code."""
    rows = {}
    for batch in batches:
        row = rows.setdefault(batch["name"], Counter())
        row["made"] += batch["made"]
        row.update(batch["outcomes"])
    for row in rows.values():
        row["parsed"] = row["made"] - row[GARBLED]
    columns = ("made", "parsed", *COLUMNS)
    print(f"{'class':44}", *(f"{column[:14]:>14}" for column in columns))
    total: Counter[str] = Counter()
    for name, row in rows.items():
        total.update(row)
        print(f"{name:44}", *(f"{row[column]:14}" for column in columns))
    print(f"{f'{len(rows)} classes':44}", *(f"{total[column]:14}" for column in columns))
    if results is not None:
        campaign.append_result(
            results, {"campaign": "mutations", "classes": {name: dict(row) for name, row in rows.items()}}
        )
    return 1 if total[ACCEPTED] or any(batch["accepted"] for batch in batches) else 0


if __name__ == "__main__":
    sys.exit(main())
