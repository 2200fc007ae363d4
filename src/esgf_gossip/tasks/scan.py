"""
Passes over the folders of the queue, in steps that end soon however many files there are.

A pass finds the oldest files that there is room for, counts, or throws away what is kept too long. No Twisted, no
clock: whoever calls ``step`` decides when.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Final

from esgf_gossip.sources.spool import FAILED, REASON, TMP, Found, Spool, shown
from esgf_gossip.views.task_counts import FailedTask

# Of one step: some hundred microseconds; and its end where the disk is busy, for a name may cost milliseconds then.
STEP_NAMES: Final = 100
STEP_S: Final = 0.004
# More are not looked at in one pass: their order would cost more memory than it is worth.
LOOK_MOST: Final = 1_000_000
FAILURES_SHOWN: Final = 20
# A program that takes longer between tmp/ and new/ has died; maildir's own rule.
TMP_KEEP_NS: Final = 36 * 60 * 60 * 10**9


class Bite:
    """What one step may take: so many things, and no new one after ``STEP_S``. Iterate over it."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __iter__(self) -> Generator[int, None, None]:
        """Count from 0."""
        until_s = time.perf_counter() + STEP_S
        for number in range(self._most):
            yield number
            if time.perf_counter() > until_s:
                return


class Scan:
    """
    One pass that finds the oldest files of a folder.

    Args:
        spool: the folder.
        folder: which of its parts.
        room: how many are wanted at most.
        is_at_hand: whether a name needs no finding.

    ``odd`` are those that are no files. When ``is_over``, ``oldest`` are in their order, and ``beyond`` counts
    the others.
    """

    def __init__(self, spool: Spool, folder: str, room: int, is_at_hand: Callable[[str], bool]) -> None:
        self.folder: Final = folder
        self.odd: list[Found] = []
        self.oldest: list[tuple[int, str]] = []
        self.beyond = 0
        self.is_over = False
        self._room: Final = max(room, 1)
        self._is_at_hand: Final = is_at_hand
        self._looked_at = 0
        self._names: Final = spool.look(folder)

    def step(self) -> None:
        """
        Look at some more names.

        Raises:
            OSError: the folder cannot be read.
        """
        for _ in Bite(STEP_NAMES):
            found = next(self._names, None)
            if found is None or self._looked_at >= LOOK_MOST:
                self._prune()
                self.beyond += int(found is not None)
                self.is_over = True
                self.close()
                return
            self._looked_at += 1
            if found.kind and len(self.odd) < self._room:
                self.odd.append(found)
            elif not found.kind and not self._is_at_hand(found.name):
                self.oldest.append((found.written_ns, found.name))
                if len(self.oldest) >= 2 * self._room:
                    self._prune()

    def close(self) -> None:
        """Let go of the folder."""
        self._names.close()

    def _prune(self) -> None:
        self.oldest.sort()
        self.beyond += max(len(self.oldest) - self._room, 0)
        del self.oldest[self._room :]


class Survey:
    """
    One pass over what is kept: counts the files, finds the newest, removes what is too old or too many.

    Args:
        spool: the folder.
        folder: done/ or failed/.
        keep: how many files stay.
        keep_ns: how long.
        now_ns: Unix nanoseconds.
    """

    def __init__(self, spool: Spool, folder: str, keep: int, keep_ns: int, now_ns: int) -> None:
        self.folder: Final = folder
        self.count = 0
        self.newest: tuple[FailedTask, ...] = ()
        self.is_over = False
        self._spool = spool
        self._keep = keep
        self._oldest_ns = now_ns - (TMP_KEEP_NS if folder == TMP else keep_ns)
        self._work = self._steps()

    def step(self) -> None:
        """
        Go on for a while.

        Raises:
            OSError: the folder cannot be read.
        """
        for _ in Bite(STEP_NAMES):
            if next(self._work, None) is None:
                self.is_over = True
                return

    def close(self) -> None:
        """Let go of the folder."""
        self._work.close()

    def _steps(self) -> Generator[bool, None, None]:
        kept: list[tuple[int, str]] = []
        lines: list[str] = []
        for found in self._spool.look(self.folder):
            if found.name.endswith(REASON):
                lines.append(found.name)
            else:
                # When it came here, which no program can set: a task may be written long before it is done.
                kept.append((found.moved_ns, found.name))
            yield True
        kept.sort(reverse=True)
        self.count = len(kept)
        if self.folder == FAILED:
            self.newest = tuple(
                FailedTask(shown(name), moved_ns // 10**6, self._spool.reason(FAILED, name))
                for moved_ns, name in kept[:FAILURES_SHOWN]
            )
        names = {name for _, name in kept}
        for place, (moved_ns, name) in enumerate(kept):
            if (place >= self._keep and self.folder != TMP) or moved_ns < self._oldest_ns:
                # A folder with something in it stays, and counts: it is an administrator's to remove.
                with contextlib.suppress(OSError):
                    self.count -= self._spool.discard(self.folder, name)
                yield True
        for line in lines:
            # The file may have come since, after its line.
            base = line.removesuffix(REASON)
            if base not in names and not self._spool.holds(self.folder, base):
                with contextlib.suppress(OSError):
                    self._spool.discard(self.folder, line)
                yield True
