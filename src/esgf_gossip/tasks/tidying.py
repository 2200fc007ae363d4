"""What is kept of tasks that have ended: looked through in steps, when something came and once an hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from esgf_gossip.sources.spool import DONE, FAILED, TMP, Spool
from esgf_gossip.tasks.scan import Survey
from esgf_gossip.views.task_counts import FailedTask

# What has become too old goes although nothing comes.
ALL_EVERY_S: Final = 3600.0


@attrs.frozen
class Limits:
    """
    What the queue keeps and bears.

    Args:
        attempts: how often a task is tried.
        keep: files that stay in done/, and in failed/.
        keep_ms: how long.
        interruptions: how often a task may be in hand when the daemon ends without order: then it is taken for the cause.
    """

    attempts: int = 5
    keep: int = 1000
    keep_ms: int = 30 * 24 * 60 * 60 * 1000
    interruptions: int = 10


class Tidying:
    """
    Keeps done/, failed/ and tmp/ small.

    Args:
        spool: the folder.
        limits: what is kept.
        clock: keeps time, the reactor's or a Clock in tests.
        now_ms: Unix milliseconds.
        trim: forgets what is too old in the record.

    ``failed`` counts the files in failed/, ``failures`` are the newest of them.
    """

    def __init__(
        self, spool: Spool, limits: Limits, clock: Any, now_ms: Callable[[], int], trim: Callable[[], object]
    ) -> None:
        self.failed = 0
        self.failures: tuple[FailedTask, ...] = ()
        self._spool: Final = spool
        self._limits: Final = limits
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._trim: Final = trim
        self._survey: Survey | None = None
        self._due: Final[deque[str]] = deque()
        self._all_at_s = float("-inf")
        self._failed_ns = 0
        self._ended = 0

    @property
    def is_busy(self) -> bool:
        """Tell whether another step would find something to do."""
        return self._survey is not None or bool(self._due)

    def poll(self) -> None:
        """
        Look whether something is to be done.

        Raises:
            OSError: the folder cannot be looked at.
        """
        now_s = self._clock.seconds()
        if now_s - self._all_at_s >= ALL_EVERY_S:
            self._all_at_s = now_s
            self._ask(FAILED, DONE, TMP)
        failed_ns = self._spool.changed_ns(FAILED)
        if failed_ns != self._failed_ns:
            self._ask(FAILED)
        self._failed_ns = failed_ns

    def ended(self) -> None:
        """Note that a task came into done/ or failed/."""
        self._ended += 1
        if self._ended >= max(self._limits.keep // 4, 1):
            self._ended = 0
            self._ask(DONE)

    def step(self) -> None:
        """
        Go on for a while.

        Raises:
            OSError: the disk says no; the next step begins anew.
        """
        if self._survey is None:
            if not self._due:
                return
            now_ns = self._now_ms() * 10**6
            keep_ns = self._limits.keep_ms * 10**6
            self._survey = Survey(self._spool, self._due.popleft(), self._limits.keep, keep_ns, now_ns)
        survey = self._survey
        try:
            survey.step()
        except OSError:
            self._survey = None
            self._ask(survey.folder)
            raise
        if survey.is_over:
            self._survey = None
            if survey.folder == FAILED:
                self.failed, self.failures = survey.count, survey.newest
            elif survey.folder == DONE:
                self._trim()

    def close(self) -> None:
        """Let go of the folder."""
        if self._survey is not None:
            self._survey.close()

    def _ask(self, *folders: str) -> None:
        self._due.extend(folder for folder in folders if folder not in self._due)
