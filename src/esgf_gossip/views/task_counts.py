"""The task queue in numbers, and what an administrator must see of it."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class FailedTask:
    """A file in failed/: its name, when it came there, and why."""

    name: str
    at_ms: int
    reason: str


@attrs.frozen
class TaskCounts:
    """
    The queue at one instant.

    Args:
        waiting: tasks that wait for their turn, or to be tried again.
        running: tasks that run.
        done: tasks ever done, as far as the record goes back.
        failed: files in failed/.
        oldest_age_s: for how long the oldest task at hand has waited; 0 where there is none.
        error: what keeps the queue from going on, in one line; "" while nothing does.
        alarms: what to look at.
        failures: the newest of failed/, the newest first.
    """

    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    oldest_age_s: int = 0
    error: str = ""
    alarms: tuple[str, ...] = ()
    failures: tuple[FailedTask, ...] = ()

    def body(self) -> dict[str, Any]:
        """Return what ``status`` says of it."""
        return {
            "waiting": self.waiting,
            "running": self.running,
            "done": self.done,
            "failed": self.failed,
            "oldest_age_s": self.oldest_age_s,
            "error": self.error,
            "alarms": list(self.alarms),
        }
