"""
Tell the whole story of tracking with real daemons, and break it: who is told how often, and what leaves a node.

Prints a line for each check and appends them to a JSON file. Exit code 1: a claim does not hold. Each check has a
federation of its own on loopback, with an index stub and a mail server that hands nothing on. ``partition`` needs
network namespaces and nft; ``home-down`` takes a quarter of an hour, for the turns of stand-ins are long.

    .venv/bin/python benchmarks/tracking_campaign.py --only forged
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import tracking_checks
import tracking_faults
import tracking_publisher
from tracking_stage import QUIET_S

CHECKS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "story": tracking_checks.story,
    "forged": tracking_checks.forged,
    "squatted": tracking_checks.squatted,
    "partition": tracking_faults.partition,
    "home-down": tracking_faults.home_down,
    "late-joiner": tracking_checks.late_joiner,
    "sources": tracking_checks.sources,
    "kill": tracking_faults.kill,
    "publisher": tracking_publisher.publisher,
    "privacy": tracking_checks.privacy,
}


def main() -> int:
    """Play the checks; 0: every claim holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[*CHECKS], action="append", help="only this one; repeatable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20, help="at least so many, of the check kill")
    parser.add_argument("--datasets", type=int, default=30, help="of the check kill")
    parser.add_argument("--users", type=int, default=20, help="of the check kill")
    parser.add_argument(
        "--users-of-each", type=int, default=8, help="who fetch each dataset, of the check kill"
    )
    parser.add_argument("--partition-s", type=float, default=60.0, help="how long the node is cut off")
    parser.add_argument(
        "--settle-s",
        type=float,
        help="of the check home-down: how long claims settle, in place of ten minutes",
    )
    parser.add_argument("--home-quiet-minutes", type=int, default=1, help="of the home that comes back")
    parser.add_argument("--quiet-s", type=float, default=QUIET_S, help="so long no more mail may come")
    parser.add_argument("--keep", type=Path, help="copy the folders of the nodes to here, to look at them")
    parser.add_argument("--results", type=Path, help="JSON file to which the results are appended")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(tracking_faults.partition_inside(options.inside, options)))
        return 0
    holds = True
    for name, play in CHECKS.items():
        if options.only and name not in options.only:
            continue
        begun_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="tracking-") as folder:
            try:
                outcome = play(Path(folder), options)
            except AssertionError as error:
                outcome = {"error": str(error), "holds": False}
        outcome["seconds"] = round(time.monotonic() - begun_s, 1)
        holds = holds and outcome["holds"]
        print(f"{name}: {json.dumps(outcome)}", flush=True)
        if options.results:
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a") as file:
                file.write(json.dumps({"check": name, **outcome}) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
