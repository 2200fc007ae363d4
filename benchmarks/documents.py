"""
Measure metadata documents: how long a fresh node needs for all of them, and how long a change takes to be everywhere.

Real daemons on loopback, mutual TLS and all. One node writes documents of random bytes, so nothing can be compressed; then
a second one starts for the first time: from the start of its process until it has the last of them, and a look at all.
Prints a table, the machine and the commit; the last line is one JSON object.

    .venv/bin/python benchmarks/documents.py --documents 1000 --bytes 10000 --runs 5
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

from esgf_gossip.cli.failures import CommandError
from esgf_gossip.demo.processes import DemoFederation
from machine import machine_line

DEADLINE_S = 120.0
_pause = threading.Event()


def name_of(number: int) -> str:
    return f"CMIP6/benchmark/document-{number}"


def put(federation: DemoFederation, host: str, name: str, body: bytes) -> None:
    federation.control(host).ask("document-put", document=name, base64=base64.b64encode(body).decode())


def has(federation: DemoFederation, host: str, name: str, body: bytes) -> bool:
    """Tell whether a node shows this as the document."""
    try:
        answer = federation.control(host).ask("document-content", document=name)
    except (CommandError, OSError):
        return False
    return base64.b64decode(answer["base64"]) == body


def wait_for(check: object, what: str) -> float:
    began_s = time.perf_counter()
    while not check():  # type: ignore[operator]
        if time.perf_counter() - began_s > DEADLINE_S:
            raise SystemExit(f"not within {DEADLINE_S:.0f} s: {what}")
        _pause.wait(0.01)
    return time.perf_counter() - began_s


def one_run(count: int, size_bytes: int, seed: int) -> dict[str, float]:
    """Return the figures of one federation of two."""
    source = random.Random(seed)
    bodies = [source.randbytes(size_bytes) for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder, DemoFederation(Path(folder), 2) as federation:
        federation.prepare()
        writer, fresh = federation.hosts
        federation.start(writer)
        wait_for(lambda: has_started(federation, writer), "the writer runs")
        began_s = time.perf_counter()
        for number, body in enumerate(bodies):
            put(federation, writer, name_of(number), body)
        written_s = time.perf_counter() - began_s
        federation.start(fresh)
        started_s = wait_for(lambda: has_started(federation, fresh), "the fresh node runs")
        # One author's log is read in order: whoever has the last has all.
        fetched_s = wait_for(lambda: has(federation, fresh, name_of(count - 1), bodies[-1]), "the documents")
        listed = {
            one["document"]: one["heads"][0]["sha256"] for one in federation.control(fresh).ask("documents")
        }
        assert listed == {
            name_of(number): hashlib.sha256(body).hexdigest() for number, body in enumerate(bodies)
        }
        changed = source.randbytes(size_bytes)
        put(federation, writer, name_of(0), changed)
        change_s = wait_for(lambda: has(federation, fresh, name_of(0), changed), "a change")
        status = Path(f"/proc/{federation.process_id(fresh)}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return {
            "puts_per_s": count / written_s,
            "start_s": started_s,
            "fresh_node_s": started_s + fetched_s,
            "change_s": change_s,
            "resident_mb": resident / 1024,
        }


def has_started(federation: DemoFederation, host: str) -> bool:
    """Tell whether a daemon answers."""
    try:
        return bool(federation.control(host).ask("status"))
    except (CommandError, OSError):
        return False


def main() -> None:
    """Measure, print medians with the worst, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    runs = [one_run(asked.documents, asked.bytes, seed) for seed in range(asked.runs)]
    print(machine_line(), f"{asked.documents} documents of {asked.bytes} bytes, {asked.runs} runs", sep="; ")
    figures = {}
    for what in runs[0]:
        values = [run[what] for run in runs]
        figures[what] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        print(
            f"{what:>14}  median {statistics.median(values):8.2f}  least {min(values):8.2f}  most {max(values):8.2f}"
        )
    print(json.dumps({"documents": asked.documents, "bytes": asked.bytes, "figures": figures}))


if __name__ == "__main__":
    main()
