"""
Many seeds on several processes, with progress, and resumed where it was left.

The one place of the simulator, beside its command line, that knows processes,
files and real time. A state file holds one JSON object a line: one outcome.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import attrs

PROGRESS_S = 2.0


def seeds_of(text: str) -> range:
    """
    Return the seeds of "a-b" or "a".

    Raises:
        ValueError: it is neither.
    """
    first, _, last = text.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds or seeds[0] < 0:
        raise ValueError(f"{text!r} names no seeds; write a-b, 1-100 for example")
    return seeds


class State:
    """The outcomes so far, by seed; kept in a file where there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.outcomes: dict[int, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                # The last line is cut short where the machine was switched off.
                if line.endswith("}"):
                    outcome = json.loads(line)
                    self.outcomes[outcome["seed"]] = outcome

    def add(self, outcome: dict[str, Any]) -> None:
        """Keep an outcome."""
        self.outcomes[outcome["seed"]] = outcome
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(outcome) + "\n")


class Progress:
    """A line on stderr now and then, never more than one in two seconds."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._began_s = self._told_s = time.monotonic()
        self._done = 0

    def step(self, words: str = "", count: int = 1) -> None:
        """Count what is done and tell it when it is time to."""
        self._done += count
        now_s = time.monotonic()
        if now_s - self._told_s >= PROGRESS_S:
            self._told_s = now_s
            print(
                f"{self._what}: {self._done} of {self._total}, {self.rate:.1f}/s {words}",
                file=sys.stderr,
                flush=True,
            )

    @property
    def rate(self) -> float:
        """How many a second since the beginning."""
        return self._done / max(1e-9, time.monotonic() - self._began_s)


def outcomes(
    play: Callable[[int], Any], seeds: Iterable[int], jobs: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (seed, outcome as a plain dict) of each seed, as they end; ``play`` must be importable."""
    if jobs == 1:
        for seed in seeds:
            yield seed, attrs.asdict(play(seed))
        return
    todo = iter(seeds)
    with ProcessPoolExecutor(jobs) as pool:
        running: dict[Future[Any], int] = {}
        while True:
            for seed in itertools.islice(todo, 2 * jobs - len(running)):
                running[pool.submit(play, seed)] = seed
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), attrs.asdict(future.result())


def append_result(path: Path, result: dict[str, Any]) -> None:
    """Add one result to a JSON file that holds a list."""
    held: Sequence[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*held, result], indent=1) + "\n")
