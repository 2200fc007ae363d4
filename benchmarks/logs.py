"""
Measure event logs: what leaves cost beyond themselves, how fast a fresh node has them, what a million weighs.

Two real nodes with a database each in one process, on one core; every message through the real codec as a
frame. No TLS and no network: their cost is that of any bytes. Each figure comes from a process of its own, so that its
memory is its own. Prints a table, the machine and the commit; writes all figures as JSON.

    .venv/bin/python benchmarks/logs.py
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.digests import encode_digest
from esgf_gossip.core.framing import PREFIX_BYTES, frame
from esgf_gossip.core.limits import DIGEST_LIFETIME_MS, LEAF_BYTES, LEAVES_ANSWER_BYTES
from esgf_gossip.core.log_effects import PersistLeaves, SendLog, SendProof
from esgf_gossip.core.log_serving import pages, proof
from esgf_gossip.core.logs import Log
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree
from esgf_gossip.core.messages import AskLeaves, AskProof, Leaves, Proof
from esgf_gossip.core.model import Digest, Link, LogRef, Moment, SignedDigest
from esgf_gossip.core.node import Node
from esgf_gossip.sim.trust import FEDERATION, START_MS, PlainJudge, PlainSigner, PlainVerifier
from esgf_gossip.storage.database import FILE_NAME, Database
from machine import commit, machine_line

LOG = "datasets"
RUNS = 5


def event(number: int, source: random.Random) -> bytes:
    """Return an event of about 300 bytes as a site would write it."""
    return json.dumps(
        {
            "event": "published",
            "dataset_id": f"CMIP6.ScenarioMIP.MOHC.UKESM1-0-LL.ssp585.r{number % 20 + 1}i1p1f2.Amon.v{number}.gn",
            "version": 20190000 + number % 10000,
            "at": 1_790_000_000_000 + number * 977,
            "checksum": f"{source.getrandbits(256):064x}",
            "files": source.randrange(1, 500),
            "size_bytes": source.randrange(10**6, 10**11),
            "replica": False,
        }
    ).encode()


def noise(_number: int, source: random.Random) -> bytes:
    """Return an event of about 300 bytes that nothing can compress."""
    return source.randbytes(source.randrange(260, 341))


class Machine:
    """One node with its database; what it sends waits in ``out`` as frames."""

    def __init__(self, name: str, directory: Path) -> None:
        self.database = Database(directory / f"{name}-{FILE_NAME}")
        self.node = Node(
            PlainSigner(name), PlainVerifier(), (name, 8951), [], random.Random(name), PlainJudge()
        )
        self.out: deque[bytes] = deque()
        self.frames: list[tuple[str, int, int, int]] = []
        self._timers: list[tuple[float, int, fx.Timer]] = []
        self._numbers = itertools.count()
        self.now_s = 0.0

    def at(self) -> Moment:
        return Moment(self.now_s, START_MS + int(self.now_s * 1000))

    def start(self) -> None:
        stored = self.database.load()
        self.do(
            self.node.restore(stored.epoch, stored.lines, stored.bodies, self.at(), stored.forks, stored.logs)
        )
        self.do(self.node.start({"registration": b"one"}, self.at()))

    def do(self, outputs: list[fx.Output]) -> None:
        persists = [output for output in outputs if isinstance(output, fx.Persist)]
        if persists:
            self.database.apply(persists)
        for output in outputs:
            if isinstance(output, fx.Send):
                self.send(output.message)
            elif isinstance(output, SendLog):
                for message in self.read(output):
                    self.send(message)
            elif isinstance(output, fx.StartTimer):
                due_s = self.now_s + output.after_s
                heapq.heappush(self._timers, (due_s, next(self._numbers), output.timer))

    def read(self, order: SendLog):
        if isinstance(order, SendProof):
            most_bytes = LEAF_BYTES * BLOCK_LEAVES
            leaves = self.database.leaves(order.origin, order.log, order.low, order.high, most_bytes)
            return [proof(order, leaves)]
        leaves = self.database.leaves(order.origin, order.log, order.start, order.end, LEAVES_ANSWER_BYTES)
        return pages(order, leaves)

    def send(self, message) -> None:
        data = frame(encode(message))
        if isinstance(message, Leaves):
            bare = frame(encode(attrs.evolve(message, leaves=())))
            # Up to four more for the header of the leaves themselves.
            self.frames.append(("Leaves", len(data), len(bare) + 4, sum(map(len, message.leaves))))
        else:
            self.frames.append((type(message).__name__, len(data), len(data), 0))
        self.out.append(data)

    def hear(self, data: bytes) -> None:
        self.do(self.node.handle_message(Link(1), decode(data[PREFIX_BYTES:]), self.at()))

    def fire_next(self) -> None:
        due_s, _, timer = heapq.heappop(self._timers)
        self.now_s = max(self.now_s, due_s)
        self.do(self.node.handle_timer(timer, self.at()))

    def size(self, origin: str) -> int:
        log = self.node.logs.held.get(origin, LOG)
        return 0 if log is None else log.tree.size


def join(one: Machine, other: Machine, done) -> float:
    """Link two machines and let them talk until ``done``; return the seconds it took on this core."""
    begun = time.perf_counter()
    one.do(one.node.peer_connected(Link(1), other.node.name, (other.node.name, 8951), one.at()))
    other.do(other.node.peer_connected(Link(1), one.node.name, None, other.at()))
    while not done():
        if not one.out and not other.out:
            earliest = min((one, other), key=lambda machine: machine._timers[0][0])  # noqa: SLF001
            earliest.fire_next()
            one.now_s = other.now_s = max(one.now_s, other.now_s)
        while one.out or other.out:
            if one.out:
                other.hear(one.out.popleft())
            if other.out:
                one.hear(other.out.popleft())
    return time.perf_counter() - begun


def a_line(origin: str, size: int, root: bytes, sequence: int):
    """Return the line of an origin that tells of its log at this size."""
    signer = PlainSigner(origin)
    digest = Digest(
        FEDERATION,
        origin,
        signer.certificate_sha256,
        5,
        sequence,
        START_MS,
        START_MS + DIGEST_LIFETIME_MS,
        (origin, 8951),
        {},
        {LOG: LogRef(5, size, root, 0)},
    )
    payload = encode_digest(digest)
    signed = SignedDigest(payload, signer.sign(payload))
    return PlainVerifier().verify(signed, digest, signer.chain, START_MS)


def fill(machine: Machine, origin: str, make, size: int, seed: int, sequence: int) -> None:
    """Put a log of an origin on the disk of a machine, as if it had been fetched."""
    source, tree = random.Random(f"{origin}/{seed}"), Tree()
    batch: list[fx.Persist] = []
    for first in range(0, size, 20_000):
        leaves = [make(number, source) for number in range(first, min(first + 20_000, size))]
        tree = tree.extended(leaves)
        batch.append(PersistLeaves(origin, LOG, Log(5, tree, None), first, tuple(leaves)))
        machine.database.apply(batch)
        batch = []
    line = a_line(origin, size, tree.root, sequence)
    machine.database.apply(
        [PersistLeaves(origin, LOG, Log(5, tree, line), size, ()), fx.PersistLine(line, {})]
    )


def missing(directory: Path, make, seed: int) -> dict[str, float]:
    """Fetch 10,000 events that are missing of 1,000,000 from 10 origins; count all bytes of the link."""
    origins = [f"o{number}.example.org" for number in range(10)]
    full, behind = Machine("a.example.org", directory), Machine("b.example.org", directory)
    for origin in origins:
        fill(full, origin, make, 100_000, seed, 2)
        fill(behind, origin, make, 99_000, seed, 1)
    full.start()
    behind.start()
    took_s = join(behind, full, lambda: all(behind.size(origin) == 100_000 for origin in origins))
    frames = [*full.frames, *behind.frames]
    logs = [
        one for one in frames if one[0] in {kind.__name__ for kind in (AskLeaves, Leaves, AskProof, Proof)}
    ]
    events_bytes = sum(one[3] for one in logs)
    return {
        "events_bytes": events_bytes,
        "metadata_bytes": sum(one[2] for one in logs),
        "lengths_bytes": sum(3 if len_ > 255 else 2 for len_ in _lengths(behind, origins)),
        "log_messages_bytes": sum(one[1] for one in logs),
        "whole_link_bytes": sum(one[1] for one in frames),
        "beyond_events_bytes": sum(one[1] for one in logs) - events_bytes,
        "seconds": took_s,
    }


def _lengths(machine: Machine, origins: list[str]) -> list[int]:
    return [
        len(leaf)
        for origin in origins
        for leaf in machine.database.leaves(origin, LOG, 99_000, 100_000, 10**9)
    ]


def fresh(directory: Path, make, seed: int) -> dict[str, float]:
    """Let a fresh node fetch 100,000 events of one origin."""
    full, empty = Machine("a.example.org", directory), Machine("b.example.org", directory)
    fill(full, "o.example.org", make, 100_000, seed, 1)
    full.start()
    empty.start()
    took_s = join(empty, full, lambda: empty.size("o.example.org") == 100_000)
    return {
        "seconds": took_s,
        "sent_bytes": sum(one[1] for one in full.frames),
        "events_bytes": sum(one[3] for one in full.frames),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def million(directory: Path, make, seed: int) -> dict[str, float]:
    """Append a million events in batches of a thousand, then start again."""
    machine, source = Machine("a.example.org", directory), random.Random(seed)
    machine.start()
    took_s, longest_s = 0.0, 0.0
    for first in range(0, 1_000_000, 1000):
        leaves = [make(number, source) for number in range(first, first + 1000)]
        begun = time.perf_counter()
        machine.do(machine.node.append(LOG, leaves, machine.at()))
        one_s = time.perf_counter() - begun
        took_s, longest_s = took_s + one_s, max(longest_s, one_s)
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tree = machine.node.logs.held.get(machine.node.name, LOG).tree
    machine.database.close()
    begun = time.perf_counter()
    again = Machine("a.example.org", directory)
    again.start()
    restart_s = time.perf_counter() - begun
    assert again.node.logs.held.get(again.node.name, LOG).tree == tree
    return {
        "seconds": took_s,
        "batch_longest_s": longest_s,
        "events_per_s": 1_000_000 / took_s,
        "tree_bytes": 32 * (len(tree.blocks) + len(tree.frontier)),
        "file_mb": (directory / f"a.example.org-{FILE_NAME}").stat().st_size / 2**20,
        "restart_s": restart_s,
        "rss_mb": rss_mb,
    }


SCENES = {"missing": missing, "fresh": fresh, "million": million}


def measure(scene: str, kind: str, seed: int) -> dict[str, float]:
    """Run one scene in a process of its own, on one core."""
    command = [sys.executable, __file__, "--scene", scene, "--kind", kind, "--seed", str(seed)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=SCENES, help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=["json", "noise"], default="json", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="runs of each scene but the million, which runs once"
    )
    parser.add_argument("--json-file", type=Path, default=Path("bench-logs.json"))
    arguments = parser.parse_args()
    if arguments.scene:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        make = event if arguments.kind == "json" else noise
        with tempfile.TemporaryDirectory() as directory:
            print(json.dumps(SCENES[arguments.scene](Path(directory), make, arguments.seed)))
        return
    measured = commit()
    print(machine_line())
    results = []
    for scene, kind, runs in [
        ("missing", "json", 1),
        ("missing", "noise", 1),
        ("fresh", "json", arguments.runs),
        ("fresh", "noise", arguments.runs),
        ("million", "json", 1),
    ]:
        singles = [measure(scene, kind, arguments.seed + number) for number in range(runs)]
        medians = {name: statistics.median(one[name] for one in singles) for name in singles[0]}
        results.append({"scene": scene, "kind": kind, "medians": medians, "runs": singles})
        figures = ", ".join(f"{name} {value:,.2f}".replace(".00", "") for name, value in medians.items())
        print(f"{scene} ({kind}, {runs} runs): {figures}", flush=True)
    arguments.json_file.write_text(json.dumps({"commit": measured, "results": results}, indent=1))


if __name__ == "__main__":
    main()
