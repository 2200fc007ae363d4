"""
Which task comes next: order by key, some side by side, pauses after failures.

Pure: no file, no clock, no effect. Tasks stand in lanes; a lane is one key, or one id where there is no key. Only the
first of a lane runs or rests, the others wait behind it.
"""

from __future__ import annotations

import bisect
import heapq
from random import Random
from typing import Final

import attrs

SIDE_BY_SIDE: Final = 4
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MOST_S: Final = 300.0
# Another file of the same id runs in another lane: both look whether it is done, but one after the other.
TWIN_REST_S: Final = 1.0


@attrs.frozen
class Waiting:
    """
    A task in the queue.

    Args:
        name: of its file; no two have one name.
        id: of the task.
        key: of the task, or "".
        arrival: what orders tasks, the least first.
        is_claimed: whether its file was taken out of new/ already, perhaps by a run that ended in its midst.
    """

    name: str
    id: str
    key: str
    arrival: tuple[int, int, str]
    is_claimed: bool = False

    @property
    def lane(self) -> tuple[str, str]:
        """What it has its order with."""
        return ("key", self.key) if self.key else ("id", self.id)


@attrs.define
class _Lane:
    tasks: list[Waiting] = attrs.field(factory=list)
    is_running: bool = False
    rests_until_s: float | None = None


def backoff_s(failures: int, random: Random) -> float:
    """Return how long to rest after so many failures: doubled each time, between a half and the whole of it."""
    longest_s = min(BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 32), BACKOFF_MOST_S)
    return longest_s * random.uniform(0.5, 1.0)


class Queue:
    """The tasks at hand; every method takes the time, in seconds of any clock that does not fall."""

    def __init__(self, side_by_side: int = SIDE_BY_SIDE) -> None:
        self._side_by_side = side_by_side
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._names: dict[str, Waiting] = {}
        self._running: dict[str, Waiting] = {}
        self._running_ids: set[str] = set()
        # Lanes that may have something to start: (arrival of the first, lane); stale ones are passed over.
        self._ready: list[tuple[tuple[int, int, str], tuple[str, str]]] = []
        self._resting: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        """Count the tasks at hand, those that run too."""
        return len(self._names)

    def __contains__(self, name: str) -> bool:
        """Tell whether a file's task is at hand."""
        return name in self._names

    @property
    def running(self) -> int:
        """Count the tasks that run."""
        return len(self._running)

    def add(self, task: Waiting) -> None:
        """Take in a task whose name is not at hand; one that has begun, or rests, stays before it."""
        lane = self._lanes.setdefault(task.lane, _Lane())
        has_begun = lane.is_running or lane.rests_until_s is not None
        bisect.insort(lane.tasks, task, lo=int(has_begun), key=lambda one: one.arrival)
        self._names[task.name] = task
        if not has_begun:
            self._offer(task.lane)

    def next(self, now_s: float) -> Waiting | None:
        """Return the next task to start, now running; None where all slots are taken or nothing may start."""
        while self._resting and self._resting[0][0] <= now_s:
            self._wake(heapq.heappop(self._resting)[1], now_s)
        while self._ready and self.running < self._side_by_side:
            arrival, name = heapq.heappop(self._ready)
            lane = self._lanes.get(name)
            if (
                lane is None
                or lane.is_running
                or lane.rests_until_s is not None
                or lane.tasks[0].arrival != arrival
            ):
                continue
            task = lane.tasks[0]
            if task.id in self._running_ids:
                self._rest(task.lane, now_s + TWIN_REST_S)
                continue
            lane.is_running = True
            self._running[task.name] = task
            self._running_ids.add(task.id)
            return task
        return None

    def finish(self, name: str) -> None:
        """Let go of a task that has run, or has gone."""
        task = self._names.pop(name)
        lane = self._lanes[task.lane]
        if self._running.pop(name, None) is not None:
            self._running_ids.discard(task.id)
            lane.is_running = False
        lane.tasks.remove(task)
        if lane.tasks:
            self._offer(task.lane)
        else:
            del self._lanes[task.lane]

    def rest(self, name: str, now_s: float, after_s: float, *, is_claimed: bool = True) -> None:
        """Put a running task back to the head of its lane for a while."""
        task = self._running.pop(name)
        self._running_ids.discard(task.id)
        lane = self._lanes[task.lane]
        lane.is_running = False
        lane.tasks[0] = self._names[name] = attrs.evolve(task, is_claimed=is_claimed)
        self._rest(task.lane, now_s + after_s)

    def wait_s(self, now_s: float) -> float | None:
        """Return after how long ``next`` may give something that it does not give now; None: when something happens."""
        if self.running >= self._side_by_side:
            return None
        if self._ready:
            return 0.0
        return max(self._resting[0][0] - now_s, 0.0) if self._resting else None

    def is_running(self, name: str) -> bool:
        """Tell whether the task of a file runs."""
        return name in self._running

    def resting_claimed(self) -> list[str]:
        """Name the files that are claimed and whose tasks do not run."""
        return [name for name, task in self._names.items() if task.is_claimed and name not in self._running]

    def oldest_ns(self) -> int | None:
        """Return when the oldest task at hand was written, in Unix nanoseconds; None where there is none."""
        return min((lane.tasks[0].arrival[1] for lane in self._lanes.values()), default=None)

    def _offer(self, lane: tuple[str, str]) -> None:
        heapq.heappush(self._ready, (self._lanes[lane].tasks[0].arrival, lane))

    def _rest(self, name: tuple[str, str], until_s: float) -> None:
        self._lanes[name].rests_until_s = until_s
        heapq.heappush(self._resting, (until_s, name))

    def _wake(self, name: tuple[str, str], now_s: float) -> None:
        lane = self._lanes.get(name)
        # The lane may have gone and come again since, or rest once more.
        if lane is not None and lane.rests_until_s is not None and lane.rests_until_s <= now_s:
            lane.rests_until_s = None
            self._offer(name)
