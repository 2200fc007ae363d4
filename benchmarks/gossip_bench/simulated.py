"""
Rows of the simulator: how fast and at what cost a change reaches all nodes, in virtual time.

    python -m gossip_bench.simulated NODES CHANGES [SEEDS]
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from gossip_bench.rows import Row, to_json

# Key of the simulator's answer, title, unit, target.
MEASURES = {
    "last": ("last_p99_s", "simulated, links of 5-150 ms, 1 % loss: change -> last node, p99", "s", 1.0),
    "copies": ("copies_mean", "simulated: copies of a body received per node and change", "x", 1.1),
    "ratio": ("bytes_ratio_mean", "simulated: bytes per change, x (digest + changed entries)", "x", 1.6),
}


def rows(nodes: int, answers: list[dict[str, Any]], repeat: str = "") -> list[Row]:
    """Return the rows of the simulator's answers, one value per seed."""
    return [
        Row(
            f"simulated.{name}",
            title,
            nodes,
            unit,
            tuple(one[key] for one in answers),
            most=most,
            repeat=repeat,
        )
        for name, (key, title, unit, most) in MEASURES.items()
    ]


def main() -> int:
    """Play each seed in a process of its own and print the rows; 1 where the simulator failed."""
    nodes, changes, *seeds = map(int, sys.argv[1:])
    answers = []
    arguments = ["-m", "esgf_gossip.sim", "spread", "--nodes", str(nodes), "--changes", str(changes)]
    for seed in range(1, (seeds or [5])[0] + 1):
        command = [sys.executable, *arguments, "--seeds", f"{seed}-{seed}", "--json"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if answer.returncode != 0:
            return 1
        answers.append(json.loads(answer.stdout))
    repeat = f"--only simulated --nodes {nodes} --full"
    print(json.dumps({"rows": [to_json(row) for row in rows(nodes, answers, repeat)]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
