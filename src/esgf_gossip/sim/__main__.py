"""The command line of the simulator: ``python -m esgf_gossip.sim``. Thin: parses, plays, prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from esgf_gossip.core.limits import ENTRY_BYTES
from esgf_gossip.sim import campaign, schedules, spread

EXAMPLES = """examples:
  python -m esgf_gossip.sim spread --nodes 1000 --changes 20 --seeds 1-5
  python -m esgf_gossip.sim spread --nodes 1000 --byzantine 0.2
  python -m esgf_gossip.sim schedules 1-10000 --jobs 2 --state schedules.jsonl
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0: all held, 1: something did not, 2: usage."""
    parser = argparse.ArgumentParser(
        prog="python -m esgf_gossip.sim",
        description="Federations of the real protocol in virtual time. Everything follows from the seeds.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("spread", help="how fast and at what cost a change reaches all nodes")
    one.add_argument("--nodes", type=_count(2, 10_000), default=50)
    one.add_argument("--seeds", type=campaign.seeds_of, default=range(1, 2), metavar="A-B")
    one.add_argument("--changes", type=_count(1, 10_000), default=20, help="of each seed")
    one.add_argument("--loss", type=_share, default=0.01, help="share of messages whose first copy is lost")
    one.add_argument("--body-bytes", type=_count(1, ENTRY_BYTES), default=4096)
    one.add_argument("--byzantine", type=_share, default=0.0, help="share of nodes that lie")
    one.add_argument(
        "--latency", choices=("random", "regions"), default="random", help="5 to 150 ms, one way"
    )
    one.set_defaults(command=_spread)
    one = commands.add_parser("schedules", help="random histories; invariants at the end of each")
    one.add_argument("seeds", type=campaign.seeds_of, metavar="A-B")
    one.add_argument("--state", type=Path, help="file of outcomes; seeds in it are not played again")
    one.set_defaults(command=_schedules)
    for sub in commands.choices.values():
        sub.add_argument("--jobs", type=_count(1, 64), default=1, help="processes")
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument("--results", type=Path, help="JSON file to which the result is appended")
    options = parser.parse_args(arguments)
    return int(options.command(options))


def _count(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return int(text)

    return number


def _share(text: str) -> float:
    # Where half of all messages, or of all nodes, are bad nothing need ever arrive.
    if not 0 <= float(text) <= 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.5")
    return float(text)


def _spread(options: argparse.Namespace) -> int:
    shared = {
        name: getattr(options, name)
        for name in ("nodes", "changes", "loss", "body_bytes", "byzantine", "latency")
    }
    progress = campaign.Progress("spread, seeds", len(options.seeds))
    spreads = []
    for _, outcome in campaign.outcomes(partial(_measure, shared), options.seeds, options.jobs):
        spreads.append(_spread_again(outcome))
        progress.step()
    failures = [failure for one in spreads for failure in one.failures]
    faults: Counter[str] = Counter()
    for one in spreads:
        faults.update(one.faults)
    result = {**shared, **spread.summary(spreads), "faults": dict(faults), "failures": failures}
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in shared.items())
    _report("spread", result, options, f"spread {words} --seeds SEED")
    return 1 if failures else 0


def _measure(shared: dict[str, Any], seed: int) -> spread.Spread:
    return spread.measure(spread.Plan(seed=seed, **shared))


def _spread_again(outcome: dict[str, Any]) -> spread.Spread:
    return spread.Spread(
        spread.Plan(**outcome["plan"]),
        tuple(spread.Change(**change) for change in outcome["changes"]),
        outcome["faults"],
    )


def _schedules(options: argparse.Namespace) -> int:
    state = campaign.State(options.state)
    todo = [seed for seed in options.seeds if seed not in state.outcomes]
    progress = campaign.Progress("schedules, seeds", len(todo))
    for seed, outcome in campaign.outcomes(schedules.play, todo, options.jobs):
        state.add(outcome)
        for failure in outcome["failures"]:
            print(f"seed {seed}: {failure}; replay: {_REPLAY} schedules {seed}", file=sys.stderr, flush=True)
        progress.step()
    found = [state.outcomes[seed] for seed in options.seeds]
    done: Counter[str] = Counter()
    for one in found:
        done.update(one["done"])
    result = {
        "seeds": f"{options.seeds[0]}-{options.seeds[-1]}",
        "seeds_done": len(found),
        "seeds_per_s": round(progress.rate, 2),
        "resurrections": sum(one["resurrections"] for one in found),
        "lasting_splits": sum(one["is_split"] for one in found),
        "seeds_failed": sum(bool(one["failures"]) for one in found),
        "virtual_days": round(sum(one["virtual_days"] for one in found), 1),
        "events": sum(one["events"] for one in found),
        "faults": dict(done.most_common()),
        "failures": [f"seed {one['seed']}: {failure}" for one in found for failure in one["failures"]],
    }
    _report("schedules", result, options, "schedules SEED")
    return 1 if result["failures"] else 0


_REPLAY = "python -m esgf_gossip.sim"


def _report(what: str, result: dict[str, Any], options: argparse.Namespace, replay: str) -> None:
    if options.results is not None:
        campaign.append_result(options.results, {"campaign": what, **result})
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if name == "faults":
            print("faults that happened:")
            for fault, count in sorted(value.items()):
                print(f"  {count:9}  {fault}")
        elif name == "failures":
            for failure in value:
                print(f"FAILED {failure}; replay: {_REPLAY} {replay}")
        else:
            print(f"{name:18} {round(value, 3) if isinstance(value, float) else value}")


if __name__ == "__main__":
    sys.exit(main())
