"""
The copy of a running node's databases, for a backup.

Made in a thread beside the databases, where whoever asked takes it away; what is left of an earlier one goes.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, fail

from esgf_gossip.sources.gauge import in_thread
from esgf_gossip.storage.database import Database, StorageError
from esgf_gossip.storage.state_files import copy_state
from esgf_gossip.web.control_answers import CommandError

PREFIX: Final = "backup-"


class StateCopy:
    """
    Copies the state of one daemon, once at a time.

    Args:
        state: the folder of the databases.
        database: the registry.
        reactor: gives the thread back.
        run: does a piece of work elsewhere; by default in a thread.
    """

    def __init__(
        self,
        state: Path,
        database: Database,
        reactor: Any,
        run: Callable[[Callable[[], Any], Any], Deferred[Any]] = in_thread,
    ) -> None:
        self._state: Final = state
        self._database: Final = database
        self._reactor: Final = reactor
        self._run: Final = run
        self._is_busy = False
        self._is_stopped = False

    def make(self) -> Deferred[dict[str, Any]]:
        """
        Copy registry, history and the journal of tasks; fires with ``directory`` and the ``files`` in it.

        Fails with:
            CommandError: another copy is being made, or the disk says no; nothing of it is left.
        """
        if self._is_busy:
            return fail(CommandError("another backup is being made; ask again when it is done"))
        self._is_busy = True
        answer: Deferred[dict[str, Any]] = self._run(self._make, self._reactor)
        return answer.addBoth(self._done)

    def stop(self) -> None:
        """Give up a copy that is being made."""
        self._is_stopped = True

    def _done(self, result: Any) -> Any:
        self._is_busy = False
        return result

    def _make(self) -> dict[str, Any]:
        for left in self._state.glob(f"{PREFIX}*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        folder = self._state / f"{PREFIX}{secrets.token_hex(6)}.tmp"
        try:
            folder.mkdir(mode=0o700)
            files = copy_state(self._state, self._database, folder, lambda: self._is_stopped)
        except (OSError, StorageError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise CommandError(f"no backup: {error}") from None
        return {"directory": str(folder), "files": files}
