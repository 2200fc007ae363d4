"""
From the folder into the queue: what came, in its order, checked; what is no task is put aside.

In steps of a bounded size, whatever lies in the folder. Nothing is started here.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from esgf_gossip.sources.spool import CUR, FAILED, NEW, Spool, SpoolError
from esgf_gossip.tasks.queue import Queue, Waiting
from esgf_gossip.tasks.scan import Bite, Scan
from esgf_gossip.tasks.task import FILE_BYTES, TaskError, parse_task

# How often the folder is looked at, and how often all of it is even where nothing seems to have come.
POLL_S: Final = 1.0
LOOK_ALL_S: Final = 60.0
# Tasks in memory; the others wait in the folder.
WINDOW: Final = 4096
# Files opened, and odd ones put aside, in one step.
READS: Final = 10
# The kernel stamps folders in ticks: a name that came within this of a look may carry the stamp of before.
RACY_NS: Final = 2 * 10**9
# What is not of one file, but of the disk or the host.
TROUBLES: Final = frozenset(
    {
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
        errno.ESTALE,
    }
)


class Intake:
    """
    What brings tasks in.

    Args:
        spool: the folder.
        queue: takes them.
        arguments: by action, what it takes.
        clock: keeps time, the reactor's or a Clock in tests.
        now_ms: Unix milliseconds.
        refused: called with the name of a file that was put aside, and the reason.

    ``interrupted`` are the files that an earlier run had begun and this one has not; ``immovable`` those that cannot
    be moved, and why, until the next pass; ``beyond`` counts what waits in the folder alone.
    """

    def __init__(
        self,
        spool: Spool,
        queue: Queue,
        arguments: Mapping[str, type],
        clock: Any,
        now_ms: Callable[[], int],
        refused: Callable[[str, str], object],
    ) -> None:
        self.interrupted: Final[set[str]] = set()
        self.immovable: Final[dict[str, str]] = {}
        self.beyond = 0
        self._spool: Final = spool
        self._queue: Final = queue
        self._arguments: Final = arguments
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._refused: Final = refused
        # (folder, when written, name) of files found and not yet read.
        self._found: Final[deque[tuple[str, int, str]]] = deque()
        # Names that came again while the task before them was in hand.
        self._held_back: Final[set[str]] = set()
        self._scan: Scan | None = None
        self._is_recovered = False
        self._must_look = True
        self._looked_at_s = 0.0
        self._new_ns = 0

    @property
    def is_busy(self) -> bool:
        """Tell whether another step would find something to do."""
        return self._scan is not None or bool(self._found)

    @property
    def waiting(self) -> int:
        """Count what is found and not in the queue."""
        return len(self._found) + self.beyond

    def oldest_ns(self) -> int | None:
        """Return when the oldest file found and not in the queue was written; None where there is none."""
        return self._found[0][1] if self._found else None

    def look_now(self) -> None:
        """Begin a pass with the next step, if there is room."""
        self._must_look = True

    def poll(self) -> None:
        """
        Look whether names have come.

        Raises:
            OSError: the folder cannot be looked at.
        """
        new_ns = self._spool.changed_ns(NEW)
        is_racy = self._now_ms() * 10**6 - new_ns < RACY_NS
        if new_ns != self._new_ns or is_racy or self._clock.seconds() - self._looked_at_s >= LOOK_ALL_S:
            self._must_look = True
        self._new_ns = new_ns

    def step(self) -> None:
        """
        Look at some names, read some files.

        Raises:
            OSError: the disk says no; the next step goes on where this one ended.
        """
        self._look()
        self._read()

    def left(self, name: str) -> None:
        """Note that a task is out of the queue."""
        self.interrupted.discard(name)
        if name in self._held_back:
            self._held_back.discard(name)
            self._must_look = True

    def close(self) -> None:
        """Let go of the folder."""
        if self._scan is not None:
            self._scan.close()

    def _look(self) -> None:
        if self._scan is None:
            room = WINDOW - len(self._queue)
            if not self._must_look or self._found or room < WINDOW // 2:
                return
            self._must_look = False
            self._looked_at_s = self._clock.seconds()
            self.immovable.clear()
            folder = NEW if self._is_recovered else CUR
            self._scan = Scan(self._spool, folder, room, lambda name: self._is_at_hand(folder, name))
        scan = self._scan
        if not scan.is_over:
            try:
                scan.step()
            except OSError:
                self._scan, self._must_look = None, True
                raise
        for _ in Bite(min(READS, len(scan.odd))):
            found = scan.odd[-1]
            self._put_aside(scan.folder, found.name, f"is {found.kind}, no file; write a file")
            scan.odd.pop()
        if scan.is_over and not scan.odd:
            self._scan = None
            self._found.extend((scan.folder, written_ns, name) for written_ns, name in scan.oldest)
            self.beyond = scan.beyond
            self._must_look = self._must_look or bool(scan.beyond)
            self._note_recovered(scan.folder)

    def _note_recovered(self, folder: str) -> None:
        if folder == CUR and not self._found and not self.beyond:
            self._is_recovered = self._must_look = True

    def _read(self) -> None:
        for _ in Bite(min(READS, len(self._found))):
            folder, written_ns, name = self._found[0]
            if not self._is_at_hand(folder, name):
                self._read_one(folder, written_ns, name)
            self._found.popleft()
            self._note_recovered(folder)

    def _is_at_hand(self, folder: str, name: str) -> bool:
        if folder == NEW and self._spool.holds(CUR, name):
            self._held_back.add(name)
            return True
        return name in self._queue

    def _read_one(self, folder: str, written_ns: int, name: str) -> None:
        try:
            content = self._spool.read(folder, name, FILE_BYTES)
            task = parse_task(content, name, self._arguments)
        except FileNotFoundError:
            return
        except (SpoolError, TaskError) as fault:
            self._put_aside(folder, name, str(fault))
            return
        if folder == CUR:
            self.interrupted.add(name)
        arrival = (0 if folder == CUR else 1, written_ns, name)
        self._queue.add(Waiting(name, task.id, task.key, arrival, is_claimed=folder == CUR))

    def _put_aside(self, folder: str, name: str, reason: str) -> None:
        try:
            self._spool.put_aside(name, folder, FAILED, reason)
        except OSError as error:
            if error.errno in TROUBLES:
                raise
            self.immovable[name] = f"{reason}; {error.strerror}"
        else:
            self._refused(name, reason)
