"""
What was measured so far, in one JSON file: rows per finished job, kept per commit.

A job is one scenario of one system at one size. What is finished is not measured
again when a run is resumed; what failed is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gossip_bench.rows import Row, from_json, to_json


def job_name(system: str, nodes: int, scenario: str) -> str:
    """Return the key of a job."""
    return f"{system}/{nodes}/{scenario}"


class Results:
    """
    The results of one run.

    Args:
        path: the file; written anew, as a whole, after each job.
        header: machine, commit, seed and mode; results of another commit, seed or mode are not resumed.
        resume: take over what the file holds of the same commit.
    """

    SAME = ("commit", "mode", "seed")

    def __init__(self, path: Path, header: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        self.header = header
        self._jobs: dict[str, dict[str, Any]] = {}
        if resume and path.exists():
            self._take_over(json.loads(path.read_text()))

    def is_done(self, job: str) -> bool:
        """Tell whether a job was finished, with or without figures, but without a fault."""
        return job in self._jobs and not self._jobs[job]["problem"]

    def add(self, job: str, rows: Iterable[Row], problem: str = "") -> None:
        """Keep the rows of a job; ``problem`` is one line where it came to nothing."""
        self._jobs[job] = {"rows": [to_json(row) for row in rows], "problem": problem}
        self._write()

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order in which their jobs were finished."""
        return [from_json(row) for job in self._jobs.values() for row in job["rows"]]

    @property
    def problems(self) -> dict[str, str]:
        """The jobs that came to nothing, and why."""
        return {job: data["problem"] for job, data in self._jobs.items() if data["problem"]}

    def _take_over(self, earlier: dict[str, Any]) -> None:
        before = earlier.get("header", {})
        if all(before.get(name) == self.header.get(name) for name in self.SAME):
            self._jobs = {name: job for name, job in earlier["jobs"].items() if not job["problem"]}

    def _write(self) -> None:
        draft = self.path.with_name(f"{self.path.name}.new")
        draft.write_text(json.dumps({"header": self.header, "jobs": self._jobs}, indent=1) + "\n")
        os.replace(draft, self.path)
