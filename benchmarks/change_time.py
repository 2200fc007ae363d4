"""
Time a change through a federation of real processes, and what an idle node costs.

Measures from the event at the origin to the event at the last other node, by
the same clock; RSS and CPU of idle daemons from /proc. Prints a table, the
machine and the commit; writes all figures as JSON. Seeded: the order in which
nodes change is the same in every run.

    .venv/bin/python benchmarks/change_time.py --nodes 50 --changes 10
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from esgf_gossip.demo.processes import DemoFederation

CHANGE_DEADLINE_S = 60.0
IDLE_S = 20.0


class EventStreams:
    """One server-sent event stream a node, read as the bytes come."""

    def __init__(self, federation: DemoFederation) -> None:
        self._selector = selectors.DefaultSelector()
        for host in federation.hosts:
            address = federation.http_url(host).removeprefix("http://").split(":")
            stream = socket.create_connection((address[0], int(address[1])), timeout=10)
            stream.sendall(
                f"GET /api/v1/events HTTP/1.1\r\nHost: {address[0]}\r\nAccept: text/event-stream\r\n\r\n".encode()
            )
            self._selector.register(stream, selectors.EVENT_READ, [host, b""])

    def wait_for(self, origin: str, sequence_above: int, hosts: set[str]) -> dict[str, float]:
        """Return when (monotonic seconds) each node told a newer digest of the origin."""
        seen: dict[str, float] = {}
        end = time.monotonic() + CHANGE_DEADLINE_S
        while seen.keys() != hosts:
            if time.monotonic() > end:
                raise SystemExit(
                    f"after {CHANGE_DEADLINE_S:.0f} s still missing: {sorted(hosts - seen.keys())}"
                )
            for key, _ in self._selector.select(1.0):
                now = time.monotonic()
                host, rest = key.data
                data = rest + key.fileobj.recv(65536)
                *lines, key.data[1] = data.split(b"\n")
                for line in lines:
                    if not line.startswith(b"data: {"):
                        continue
                    event = json.loads(line[6:])
                    if event.get("origin") == origin and event.get("sequence", 0) > sequence_above:
                        seen.setdefault(host, now)
        return seen


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


def converge(federation: DemoFederation, count: int) -> float:
    """Start all nodes and return the seconds from the last one listening until all hold one set."""
    federation.start_all()
    ready: set[str] = set()
    last_ready = 0.0
    pause = selectors.DefaultSelector()
    while True:
        states = {}
        for host in federation.hosts:
            try:
                states[host] = federation.control(host).ask("status")
            except Exception:  # noqa: BLE001 - not up yet
                continue
            if host not in ready:
                ready.add(host)
                last_ready = time.monotonic()
        complete = len(states) == count and all(state["nodes"]["total"] == count for state in states.values())
        if complete and len({state["root"] for state in states.values()}) == 1:
            return time.monotonic() - last_ready
        pause.select(0.1)


def measure(count: int, changes: int, seed: int) -> dict[str, object]:
    """Run one federation and return its figures."""
    order = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory, DemoFederation(Path(directory), count) as federation:
        federation.prepare()
        begun = time.monotonic()
        after_last_s = converge(federation, count)
        whole_s = time.monotonic() - begun
        streams = EventStreams(federation)
        pids = {host: federation.process_id(host) for host in federation.hosts}
        last_node_ms: list[float] = []
        for number in range(changes):
            origin = order.choice(federation.hosts)
            before = federation.control(origin).ask("status")["sequence"]
            path = federation.config_path(origin).parent / "esgf.properties"
            path.write_text(
                re.sub(r"(?m)^node\.long\.name=.*$", f"node.long.name=change {number}", path.read_text())
            )
            federation.control(origin).ask("reload")
            seen = streams.wait_for(origin, before, set(federation.hosts))
            last_node_ms.append(1000 * (max(seen.values()) - seen[origin]))
        time.sleep(5)  # the links of the start that nobody needs are closing; let the machine come to rest
        used = {host: cpu_s(pid) for host, pid in pids.items()}
        time.sleep(IDLE_S)
        idle = [100 * (cpu_s(pid) - used[host]) / IDLE_S for host, pid in pids.items()]
        return {
            "nodes": count,
            "cold_start_s": round(whole_s, 2),
            "converged_after_last_up_s": round(after_last_s, 2),
            "change_to_last_node_ms": [round(value, 1) for value in last_node_ms],
            "change_median_ms": round(statistics.median(last_node_ms), 1),
            "rss_mb_median": round(statistics.median(rss_mb(pid) for pid in pids.values()), 1),
            "idle_cpu_percent_median": round(statistics.median(idle), 3),
        }


def main() -> int:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[7, 25], help="sizes of the federations")
    parser.add_argument("--changes", type=int, default=10, help="changes timed in each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json-file", type=Path, default=Path("bench.json"), help="where all figures go")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"commit {commit or 'unknown'}; {machine}; seed {options.seed}")
    header = (
        "nodes",
        "cold start s",
        "after last up s",
        "change ms: median",
        "min",
        "max",
        "RSS MB",
        "idle CPU %",
    )
    print(" | ".join(header))
    rows = []
    for count in options.nodes:
        row = measure(count, options.changes, options.seed)
        rows.append(row)
        times = row["change_to_last_node_ms"]
        cells = (
            row["nodes"],
            row["cold_start_s"],
            row["converged_after_last_up_s"],
            row["change_median_ms"],
            min(times),
            max(times),
            row["rss_mb_median"],
            row["idle_cpu_percent_median"],
        )
        print(" | ".join(str(cell) for cell in cells), flush=True)
    options.json_file.write_text(json.dumps({"commit": commit, "machine": machine, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
