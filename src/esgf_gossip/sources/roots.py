"""
The data folders of this site: there, readable, and not the bare mount point of a file system that has gone.

A network mount that hangs holds up whoever looks: that is a thread of its own, one at a time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError, succeed  # noqa: A004 - addTimeout's own
from twisted.python.failure import Failure

from esgf_gossip.sources.gauge import in_thread

# Their data are of no use without the folders.
SERVING: Final = frozenset({"ThreddsService", "GridFTPService"})


class DataRoots:
    """
    Looks at folders of data.

    Args:
        folders: all of them must be well.
        reactor: threads and clock.
    """

    def __init__(self, folders: Sequence[Path], reactor: Any) -> None:
        self._folders: Final = folders
        self._reactor: Final = reactor
        self._is_waiting = False

    def look(self, timeout_s: float) -> Deferred[str]:
        """Fire with an empty text where all folders are well, else with what is wrong; never fails."""
        names = ", ".join(map(str, self._folders))
        if self._is_waiting:
            return succeed(f"{names}: still no answer of a file system")
        self._is_waiting = True
        looking = in_thread(lambda: find_fault(self._folders), self._reactor)
        looking.addBoth(self._answered)
        shown: Deferred[str] = Deferred()
        looking.addCallbacks(
            lambda reason: shown.called or shown.callback(reason),
            lambda failure: shown.called or shown.callback(str(failure.value)),
        )
        # The thread cannot be ended: only the wait for it is.
        shown.addTimeout(timeout_s, self._reactor)
        shown.addErrback(lambda failure: _say_timeout(failure, names))
        return shown

    def _answered(self, result: Any) -> Any:
        self._is_waiting = False
        return result


def find_fault(folders: Sequence[Path]) -> str:
    """Return what is wrong with the first folder that is not well, empty for nothing. Blocks as long as the disk does."""
    for folder in folders:
        try:
            # The first name is enough: there may be millions.
            with os.scandir(folder) as names:
                if next(names, None) is None:
                    return f"{folder} is empty: is it mounted?"
        except OSError as error:
            return f"{folder}: {error.strerror or type(error).__name__}"
    return ""


def _say_timeout(failure: Failure, names: str) -> str:
    failure.trap(TimeoutError)
    return f"{names}: no answer of a file system"
