"""
Break the task queue of a real daemon: kill it, fill its disk, flood its folder; count what took effect.

Prints a line for each part and appends them to a JSON file. Exit code 1: a claim does not hold.

    .venv/bin/python benchmarks/task_campaign.py --tasks 10000 --kills 50 --bomb 100000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from esgf_gossip.sources.spool import FAILED, NEW, REASON
from helpers.daemons import eventually
from helpers.task_daemon import Latency, TaskDaemon, fill

FULL_DISK_BYTES = 24 * 1024 * 1024
LONG_S = 1800.0


def kills(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Kill the daemon at random points while tasks come and are done."""
    random = Random(options.seed)
    with TaskDaemon(directory) as daemon:
        daemon.start()
        begun_s = time.monotonic()
        each = options.tasks // (options.kills + 1)
        for number in range(options.kills):
            before = len(daemon.notes())
            daemon.hand_in(each, random)
            # Somewhere in the work on these; each eighth time while it starts.
            wanted = before if number % 8 == 7 else before + random.randrange(1, max(each - 1, 2))
            eventually(lambda wanted=wanted: len(daemon.notes()) >= wanted, "some tasks are done", LONG_S)
            time.sleep(random.random() * 0.1)
            daemon.federation.kill(daemon.host)
            daemon.start()
        daemon.hand_in(options.tasks - len(daemon.ids), random)
        eventually(daemon.is_idle, "everything is done", LONG_S)
        found = daemon.verdict()
    return {
        **found,
        "kills": options.kills,
        "seconds": round(time.monotonic() - begun_s, 1),
        "holds": (found["once"], found["twice"], found["files_lost"], found["keys_out_of_order"])
        == (options.tasks, 0, 0, 0),
    }


def full_disk(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fill the disk while tasks wait; this runs where a small file system is mounted under the state folder."""
    random = Random(options.seed)
    with TaskDaemon(directory) as daemon:
        daemon.state.mkdir(exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK_BYTES},mode=700", "tmpfs", str(daemon.state)],
            check=True,
        )
        daemon.start()
        daemon.answers()
        daemon.hand_in(100, random)
        eventually(daemon.is_idle, "the first are done")
        stop = subprocess.Popen(["kill", "-STOP", str(daemon.federation.process_id(daemon.host))])
        stop.wait()
        daemon.hand_in(options.full_disk_tasks, random)
        filler = daemon.state / "filler"
        fill(filler)
        subprocess.run(["kill", "-CONT", str(daemon.federation.process_id(daemon.host))], check=True)
        eventually(lambda: daemon.status().get("error"), "an alarm")
        alarm = daemon.status()["error"]
        while_full = len(daemon.notes())
        filler.unlink()
        freed_s = time.monotonic()
        eventually(daemon.is_idle, "it goes on", LONG_S)
        eventually(lambda: daemon.status().get("error") == "", "the alarm ends")
        found = daemon.verdict()
    return {
        **found,
        "done_while_full": while_full - 100,
        "alarm": alarm.replace(str(daemon.state), "<state>"),
        "seconds_to_go_on": round(time.monotonic() - freed_s, 1),
        "holds": (found["once"], found["twice"], found["files_lost"], found["keys_out_of_order"])
        == (len(daemon.ids), 0, 0, 0),
    }


def in_a_namespace(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run ``full_disk`` where a mount is nobody else's."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command += [sys.executable, __file__, "--part", "full-disk-inside", "--directory", str(directory)]
    done = subprocess.run(
        [*command, "--seed", str(options.seed), "--full-disk-tasks", str(options.full_disk_tasks)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1) or not done.stdout:
        return {"holds": False, "error": done.stderr.strip()[-500:]}
    return json.loads(done.stdout.splitlines()[-1])


def wrong_files(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Hand in what is no task, between tasks that are."""
    with TaskDaemon(directory) as daemon:
        daemon.start()
        new = daemon.folder / NEW
        wrong = {
            "no-json": b"reload",
            "half": b'{"action": "rel',
            "binary": bytes(range(256)),
            "list": b"[]",
            "deep": b'{"action": "note", "text": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
            "large": b" " * (64 * 1024 + 1),
            "unknown-action": b'{"action": "relaod"}',
            "unknown-field": b'{"action": "reload", "force": true}',
            "twins": b'{"action": "reload", "action": "note"}',
            "no-text": b'{"action": "note", "text": 5}',
            "number": b'{"action": "note", "text": ' + b"9" * 5000 + b"}",
            "empty": b"",
        }
        for name, content in wrong.items():
            daemon.rush(name, content)
        os.mkfifo(new / "fifo")
        (new / "folder").mkdir()
        (new / "folder" / "inside").write_text("x")
        (new / "link").symlink_to("/etc/hostname")
        (new / "loop").symlink_to("loop")
        odd = ["fifo", "folder", "link", "loop"]
        if os.geteuid() == 0:
            (new / "strange-owner").write_bytes(b'{"action": "reload"}')
            os.chown(new / "strange-owner", 12345, 12345)
            odd.append("strange-owner")
        daemon.hand_in(100, Random(options.seed))
        count = len(wrong) + len(odd)
        eventually(lambda: daemon.is_idle() and daemon.status().get("failed") == count, "all are judged")
        reasons = {
            name: (daemon.folder / FAILED / f"{name}{REASON}").read_text().strip() for name in (*wrong, *odd)
        }
        daemon.files += len(odd)
        found = daemon.verdict()
        for name, reason in reasons.items():
            print(f"    {name}: {reason}", file=sys.stderr)
    return {**found, "wrong": count, "holds": found["failed"] == count and found["once"] == 100}


def bomb(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Drop very many files at once, half of them no tasks, while somebody asks the daemon for its health."""
    random = Random(options.seed)
    with TaskDaemon(directory, "keep = 1000") as daemon:
        daemon.start()
        daemon.answers()
        url = daemon.federation.http_url(daemon.host)
        with Latency(url) as quiet:
            time.sleep(5)
        subprocess.run(["kill", "-STOP", str(daemon.federation.process_id(daemon.host))], check=True)
        daemon.hand_in(options.bomb // 2, random)
        for number in range(options.bomb - options.bomb // 2):
            daemon.rush(f"wrong-{number:07}.json", b'{"action": "boom"}')
        subprocess.run(["kill", "-CONT", str(daemon.federation.process_id(daemon.host))], check=True)
        begun_s = time.monotonic()
        with Latency(url) as flooded:
            eventually(daemon.has_taken_all, "the flood is gone", LONG_S)
        seconds = time.monotonic() - begun_s
        eventually(daemon.is_idle, "all is done")
        eventually(
            lambda: max(len(daemon.names("done")), len(daemon.names(FAILED))) <= 1250,
            "the folders are kept small",
        )
        found = daemon.verdict()
        memory = (Path("/proc") / str(daemon.federation.process_id(daemon.host)) / "status").read_text()
    peak = next(line.split()[1] for line in memory.splitlines() if line.startswith("VmHWM"))
    return {
        **{name: found[name] for name in ("tasks", "files", "once", "twice", "never", "keys_out_of_order")},
        "seconds": round(seconds, 1),
        "files_a_second": round(options.bomb / seconds),
        "quiet": quiet.figures(),
        "flooded": flooded.figures(),
        "peak_memory_mb": int(peak) // 1024,
        "holds": (found["once"], found["twice"], found["keys_out_of_order"]) == (len(daemon.ids), 0, 0),
    }


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "kills": kills,
    "full-disk": in_a_namespace,
    "wrong-files": wrong_files,
    "bomb": bomb,
}


def main() -> int:
    """Play the parts; 0: every claim holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000, help="of the part kills")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--bomb", type=int, default=100_000, help="files of the part bomb")
    parser.add_argument("--full-disk-tasks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", choices=[*PARTS, "full-disk-inside"], help="only this one")
    parser.add_argument(
        "--directory", type=Path, help="where to work; a temporary folder where it is left out"
    )
    parser.add_argument("--results", type=Path, help="JSON file to which the results are appended")
    options = parser.parse_args()
    if options.part == "full-disk-inside":
        print(json.dumps(full_disk(options.directory, options)))
        return 0
    holds = True
    for name, play in PARTS.items():
        if options.part in (None, name):
            with tempfile.TemporaryDirectory(prefix="tasks-", dir=options.directory) as folder:
                outcome = play(Path(folder), options)
            holds = holds and outcome["holds"]
            print(f"{name}: {json.dumps(outcome)}", flush=True)
            if options.results:
                options.results.parent.mkdir(parents=True, exist_ok=True)
                with options.results.open("a") as file:
                    file.write(json.dumps({"part": name, **outcome}) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
