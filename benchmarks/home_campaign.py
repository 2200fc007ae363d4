"""
Random schedules of faults among five nodes in virtual time: is every user told, and by whom?

Run: python benchmarks/home_campaign.py [--seeds 1-200]. Ends with 1 where somebody was told by nobody or by more than can be;
prints what happened and how many were told twice, in the one way that cannot be prevented (docs/adr/0022-home-nodes.md).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.home_nodes import World, random_schedule, wrong_mails


def main() -> int:
    """Run the seeds; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1-200", help="first and last seed")
    first, _, last = parser.parse_args().seeds.partition("-")
    faults: Counter[str] = Counter()
    told = twice = wrong = stood_in = 0
    for seed in range(int(first), int(last or first) + 1):
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder), seed)
            try:
                users = random_schedule(world)
                bad = wrong_mails(world, users)
                faults += world.faults
                told += len(users)
                twice += sum(len(world.sent(*one)) == 2 for one in users)
                stood_in += sum(node.fallback.counts["told"] for node in world.nodes.values())
                wrong += len(bad)
                if bad:
                    print(f"seed {seed}: {len(bad)} wrong: {sorted(bad.values())}")
            finally:
                world.close()
    print(f"{told} users and changes; {stood_in} told by a stand-in; {twice} told twice; {wrong} wrong")
    print(", ".join(f"{count} {fault}" for fault, count in sorted(faults.items())))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
