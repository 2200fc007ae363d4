"""One real daemon with a task queue, programs that hand in tasks by the thousand, and the judge of what came of it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.sources.spool import CUR, DONE, FAILED, NEW, REASON, TMP
from helpers.daemons import eventually, fetch, status_of

KEYS = 20


class TaskDaemon:
    """
    A federation of one node, and its folder of tasks.

    ``rush`` writes files as a program does that is in a hurry: whole, but without fsync.
    """

    def __init__(self, directory: Path, settings: str = "keep = 100000") -> None:
        self.federation = DemoFederation(directory, 1)
        self.federation.prepare()
        (self.host,) = self.federation.hosts
        self.config = self.federation.config_path(self.host)
        with self.config.open("a") as file:
            file.write(f"\n[tasks]\n{settings}\n")
        self.state = self.config.parent / "state"
        self.folder = self.state / "tasks"
        self.ids: dict[str, str] = {}
        self.files = 0

    def __enter__(self) -> TaskDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.federation.close()

    def start(self) -> None:
        """Start the daemon; its folder is there when this returns."""
        self.federation.start(self.host)
        eventually((self.folder / FAILED).is_dir, "the folder of tasks")

    def answers(self) -> None:
        """Wait until the daemon answers."""
        eventually(self.status, "an answer of the daemon")

    def status(self) -> dict[str, Any]:
        """Return what the daemon says of its tasks; empty where it says nothing."""
        return status_of(self.federation, self.host).get("tasks", {})

    def rush(self, name: str, content: bytes, *, after_ns: int = 0) -> None:
        """Hand in a file; of two the one handed in later is younger."""
        written = self.folder / TMP / name
        written.write_bytes(content)
        if after_ns:
            os.utime(written, ns=(after_ns, after_ns))
        written.rename(self.folder / NEW / name)
        self.files += 1

    def hand_in(self, count: int, random: Random) -> None:
        """Hand in so many notes, three in four with a key, one in a hundred twice."""
        begin_ns = time.time_ns()
        for number in range(count):
            task_id = f"t{len(self.ids):07}"
            key = f"key-{random.randrange(KEYS)}" if random.random() < 0.75 else ""
            self.ids[task_id] = key
            content = json.dumps({"id": task_id, "key": key, "action": "note", "text": task_id}).encode()
            self.rush(f"{task_id}.json", content, after_ns=begin_ns + number)
            if random.random() < 0.01:
                self.rush(f"{task_id}.again.json", content, after_ns=begin_ns + number)

    def names(self, folder: str) -> list[str]:
        """Name the task files in a folder."""
        return [name for name in os.listdir(self.folder / folder) if not name.endswith(REASON)]

    def has_taken_all(self) -> bool:
        """Tell whether nothing waits, however much does."""
        with os.scandir(self.folder / NEW) as names:
            return next(names, None) is None

    def is_idle(self) -> bool:
        """Tell whether nothing waits and nothing runs."""
        return self.has_taken_all() and not self.names(CUR)

    def notes(self) -> list[str]:
        """Return the ids of the tasks that took effect, in order."""
        path = self.state / "tasks.db"
        if not path.exists():
            return []
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5) as found:
            (version,) = found.execute("PRAGMA user_version").fetchone()
            rows = found.execute("SELECT id FROM notes ORDER BY number").fetchall() if version else []
        found.close()
        return [one for (one,) in rows]

    def verdict(self) -> dict[str, int]:
        """Judge: how many were handed in, took effect once, twice, never; files lost; keys out of order."""
        notes = self.notes()
        times = Counter(notes)
        by_key: dict[str, list[str]] = {}
        for one in notes:
            if self.ids.get(one):
                by_key.setdefault(self.ids[one], []).append(one)
        found = sum(len(self.names(folder)) for folder in (NEW, CUR, DONE, FAILED))
        return {
            "tasks": len(self.ids),
            "files": self.files,
            "once": sum(times[one] == 1 for one in self.ids),
            "twice": sum(count > 1 for count in times.values()),
            "never": sum(times[one] == 0 for one in self.ids),
            "files_lost": self.files - found,
            "failed": len(self.names(FAILED)),
            "keys_out_of_order": sum(order != sorted(order) for order in by_key.values()),
        }


class Latency:
    """Asks the daemon for ``/healthz`` again and again, from a thread; ``waits_ms`` are the times it took."""

    def __init__(self, url: str) -> None:
        self.waits_ms: list[float] = []
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Latency:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(0.02):
            begun = time.perf_counter()
            fetch(self._url, "/healthz")
            self.waits_ms.append((time.perf_counter() - begun) * 1000)

    def figures(self) -> dict[str, float]:
        """Return median, 99th percentile and the longest."""
        waits = sorted(self.waits_ms)
        return {
            "asked": len(waits),
            "p50_ms": round(waits[len(waits) // 2], 1),
            "p99_ms": round(waits[len(waits) * 99 // 100], 1),
            "max_ms": round(waits[-1], 1),
        }


def fill(path: Path) -> None:
    """Write a file until its disk is full to the last byte."""
    chunk = 1024 * 1024
    with path.open("wb", buffering=0) as file:
        while chunk:
            try:
                file.write(b"\0" * chunk)
            except OSError:
                chunk //= 2


def room_bytes(path: Path) -> int:
    """Return what is free there."""
    return shutil.disk_usage(path).free
