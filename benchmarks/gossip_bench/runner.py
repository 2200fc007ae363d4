"""
Runs a plan: a process per leg, some of them at once; what each prints goes to the results.

Whatever ends the run, its processes are killed first and its folder is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from gossip_bench.bench import tell
from gossip_bench.namespace import isolation
from gossip_bench.plan import PATIENCE, Command, Leg
from gossip_bench.processes import die_with_parent
from gossip_bench.results import Results, job_name
from gossip_bench.rows import OURS, from_json

HERE = Path(__file__).resolve().parent
STOP_S = 20.0


class Runner:
    """
    One run.

    Args:
        results: where rows go.
        is_full: repeat as often as the full run does.
        seed: of all choices.
        end_s: monotonic seconds after which nothing more is begun, infinite for none.
    """

    def __init__(self, results: Results, *, is_full: bool, seed: int, end_s: float) -> None:
        self._results = results
        self._is_full = is_full
        self._seed = seed
        self._end_s = end_s
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._is_stopping = False

    def run(self, legs: Sequence[Leg], commands: Sequence[Command], lanes: int) -> None:
        """Run the commands one by one, then all legs, ``lanes`` of them at once; Ctrl-C ends all of them."""
        # Short, for the paths of control sockets.
        with tempfile.TemporaryDirectory(prefix="gossip-bench-") as folder:
            work: SimpleQueue[tuple[int, Leg]] = SimpleQueue()
            for numbered in enumerate(legs):
                work.put(numbered)
            threads = [
                threading.Thread(target=self._run_lane, args=(work, Path(folder))) for _ in range(lanes)
            ]
            try:
                for command in commands:
                    self._run_command(command)
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.5)
            finally:
                self._stop()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()

    def _run_lane(self, work: SimpleQueue[tuple[int, Leg]], folder: Path) -> None:
        while not self._is_stopping:
            try:
                number, leg = work.get_nowait()
            except Empty:
                return
            self._run_leg(leg, folder, folder / f"{number}")

    def _run_leg(self, leg: Leg, turns: Path, directory: Path) -> None:
        missing = [
            name for name in leg.scenarios if not self._results.is_done(job_name(leg.system, leg.nodes, name))
        ]
        if not missing:
            tell(f"N = {leg.nodes}: {leg.system}: all done before")
            return
        directory.mkdir()
        left_s = self._end_s - time.monotonic()
        arguments = ["-m", "gossip_bench.worker", "--system", leg.system, "--nodes", str(leg.nodes)]
        arguments += ["--directory", str(directory), "--turns", str(turns), "--seed", str(self._seed)]
        arguments += ["--seconds", str(min(left_s, 1e9)), *(["--full"] if self._is_full else [])]
        arguments += ["--scenarios", *missing]
        patience_s = min(PATIENCE * leg.seconds(is_full=self._is_full), left_s + STOP_S)
        said: set[str] = set()
        for answer in self._lines([*isolation(), sys.executable, *arguments], patience_s):
            said.add(answer["scenario"])
            self._keep(job_name(leg.system, leg.nodes, answer["scenario"]), answer)
        if self._is_stopping:
            return
        for name in missing:
            if name not in said:
                self._keep(
                    job_name(leg.system, leg.nodes, name),
                    {"rows": [], "problem": "ended without a word; see the lines above"},
                )

    def _run_command(self, command: Command) -> None:
        job = job_name(OURS, command.nodes, command.name)
        if self._results.is_done(job):
            return
        tell(f"N = {command.nodes}: {command.name}")
        answers = list(self._lines([sys.executable, *command.arguments], command.seconds))
        rows = [row for answer in answers for row in answer.get("rows", [])]
        self._keep(job, {"rows": rows, "problem": "" if rows else "printed no rows"})

    def _keep(self, job: str, answer: dict[str, Any]) -> None:
        with self._lock:
            self._results.add(job, map(from_json, answer["rows"]), answer.get("problem", ""))

    def _lines(self, command: Sequence[str], patience_s: float) -> Iterable[dict[str, Any]]:
        """Yield what a program prints, one object a line; kill it when it takes too long."""
        path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            # Ctrl-C is for us; we end them.
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl
        )
        with self._lock:
            self._processes.add(process)
        guard = threading.Timer(patience_s, self._end, [process])
        guard.start()
        try:
            if self._is_stopping:
                self._end(process)
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            guard.cancel()
            self._end(process)
            process.stdout.close()
            with self._lock:
                self._processes.discard(process)

    def _stop(self) -> None:
        self._is_stopping = True
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            self._end(process)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        """End a program and all it started: the namespace dies with it; without one it cleans up by itself."""
        if not isolation():
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        process.kill()
        process.wait()
