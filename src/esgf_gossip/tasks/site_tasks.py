"""The task queue of one daemon, as its configuration wants it; or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.logger import Logger

from esgf_gossip.config import Config
from esgf_gossip.sources.spool import Spool, user_number
from esgf_gossip.storage.journal_thread import JournalThread
from esgf_gossip.storage.task_journal import FILE_NAME, TaskJournal
from esgf_gossip.tasks.actions import Daemon
from esgf_gossip.tasks.runner import TaskRunner
from esgf_gossip.tasks.tidying import Limits
from esgf_gossip.views.task_counts import TaskCounts

DAY_MS: Final = 24 * 60 * 60 * 1000


class SiteTasks:
    """
    The queue, from ``start`` to ``stop``.

    Args:
        config: of the node.
        daemon: what tasks may have done.
        reactor: keeps time.
        now_ms: Unix milliseconds.
    """

    log = Logger()

    def __init__(self, config: Config, daemon: Daemon, reactor: Any, now_ms: Callable[[], int]) -> None:
        tasks = config.tasks
        self._runner: TaskRunner | None = None
        if tasks.directory is not None:
            self._runner = TaskRunner(
                Spool(tasks.directory, self._numbers(tasks.users)),
                lambda: TaskJournal(config.node.state / FILE_NAME),
                daemon,
                Limits(tasks.attempts, tasks.keep, tasks.keep_days * DAY_MS),
                JournalThread(reactor),
                reactor,
                now_ms,
            )

    def start(self) -> None:
        """Begin, if there is a queue."""
        if self._runner is not None:
            self._runner.start()

    def stop(self) -> None:
        """Start nothing more; twice does no harm."""
        if self._runner is not None:
            self._runner.stop()

    def wake(self) -> None:
        """Look at the folder now."""
        if self._runner is not None:
            self._runner.wake()

    def counts(self) -> TaskCounts | None:
        """Return the queue in numbers; None where there is none."""
        return None if self._runner is None else self._runner.counts()

    def _numbers(self, users: Iterable[str]) -> list[int]:
        numbers = []
        for user in users:
            try:
                numbers.append(user_number(user))
            except KeyError:
                self.log.warn("[tasks] users: this host has no user {user}; its files are refused", user=user)
        return numbers
