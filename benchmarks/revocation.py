"""
Measure a revocation: from the return of ``trust-admin crl import`` on one node until every node has the list in force.

Real daemons, one process a node, mutual TLS, all on this machine. Nothing is asked of them meanwhile: the moment is read
from the list each has written into its trust folder, and from its registration.xml. Prints machine, commit and seed.

    .venv/bin/python benchmarks/revocation.py --nodes 13 50
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from esgf_gossip.demo.processes import DemoFederation
from machine import machine_line

REST_S = 20.0
LIMIT_S = 60.0


def trust_admin(*words: object) -> dict[str, object]:
    """Run a command of trust-admin, and return what it says."""
    command = [sys.executable, "-m", "esgf_gossip.cli.trust_admin", *map(str, words), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr)
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def wait_for_links(federation: DemoFederation) -> None:
    """Wait until every node holds all, then let them come to rest."""
    end = time.monotonic() + 3 * LIMIT_S
    for host in federation.hosts:
        while True:
            try:
                if federation.control(host).ask("status")["nodes"]["total"] == len(federation.hosts):
                    break
            except Exception:  # noqa: BLE001 - it does not answer yet
                time.sleep(0.2)
            if time.monotonic() > end:
                sys.exit(f"{host} does not hold all nodes")
    time.sleep(REST_S)


def written_at(federation: DemoFederation, host: str) -> tuple[float, float]:
    """Return when a node's newest list and its document were written."""
    folder = federation.config_path(host).parent
    lists = [path.stat().st_mtime for path in (folder / "trust" / "crl").iterdir()]
    return max(lists), max(path.stat().st_mtime for path in folder.glob("**/registration.xml"))


def measure(nodes: int, runs: int, source: random.Random) -> None:
    """Revoke one node after the other, and print a row."""
    with (
        tempfile.TemporaryDirectory() as folder,
        DemoFederation(Path(folder) / "federation", nodes) as federation,
    ):
        federation.prepare()
        federation.start_all()
        wait_for_links(federation)
        living = list(federation.hosts)
        trust = federation.directory / "trust"
        places = ("--dir", trust, "--private", trust / "private")
        lists, documents = [], []
        for _ in range(runs):
            gone, carrier = source.sample(living, 2)
            living.remove(gone)
            said = trust_admin("cert", "revoke", gone, "--reason", "keyCompromise", *places)
            trust_admin("crl", "import", said["file"], "--config", federation.config_path(carrier))
            returned = time.time()
            time.sleep(min(LIMIT_S, 5 + nodes / 4))
            moments = [written_at(federation, host) for host in living]
            if any(
                f'hostname="{gone}"' in path.read_text()
                for host in living
                for path in _documents(federation, host)
            ):
                sys.exit(f"{gone} is still in a document")
            lists.append(max(0.0, *(list_at - returned for list_at, _ in moments)))
            documents.append(max(0.0, *(document_at - returned for _, document_at in moments)))
        print(f"| {nodes} | {_row(lists)} | {_row(documents)} | {runs} |", flush=True)


def _documents(federation: DemoFederation, host: str) -> Sequence[Path]:
    return list(federation.config_path(host).parent.glob("**/registration.xml"))


def _row(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} - {max(values):.2f})"


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[13])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if any(nodes < given.runs + 3 for nodes in given.nodes):
        parser.error("each run takes a node away: give more nodes, or fewer runs")
    print(machine_line(f"seed {given.seed}"))
    print("| nodes | list in force on all | document written on all | runs |\n|---|---|---|---|")
    for nodes in given.nodes:
        measure(nodes, given.runs, random.Random(given.seed))


if __name__ == "__main__":
    main()
