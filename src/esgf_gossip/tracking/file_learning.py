"""
Hands what publishers said of their files to the store of downloads, before somebody is looked for in it.

The store may be made anew; then it learns everything once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks

from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.seen_files import new_files_after
from esgf_gossip.tracking.sightings import SeenFile

SCRIPT: Final = """
CREATE TABLE learned (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
INSERT INTO learned VALUES (1, 0)
"""
FILES_AT_ONCE: Final = 5_000


class FileLearning:
    """
    Reads on in the files that were seen.

    Args:
        database: with ``SCRIPT`` and ``seen_files.SCRIPT`` among its scripts.
        learn: takes files into the store (``Projector.learn``).
        is_new: whether the store knows of no file.
    """

    def __init__(
        self,
        database: TrackingDatabase,
        learn: Callable[[Sequence[tuple[DatasetId, SeenFile]]], Deferred[int]],
        is_new: Callable[[], bool],
    ) -> None:
        self._database: Final = database
        self._learn: Final = learn
        self._is_new: Final = is_new
        self._lock: Final = DeferredLock()
        self._has_begun = False

    def learn_new(self) -> Deferred[None]:
        """Fire when the store knows every file that was seen so far; fails as ``learn`` and the database do."""
        learned: Deferred[None] = self._lock.run(self._learn_new)
        return learned

    @inlineCallbacks
    def _learn_new(self) -> Generator[Deferred[Any], Any, None]:
        if not self._has_begun and self._is_new():
            yield self._database.run(_note, 0)
        self._has_begun = True
        while True:
            found = yield self._database.run(_next_files)
            if not found:
                return
            yield self._learn([(dataset, file) for _, dataset, file in found])
            yield self._database.run(_note, found[-1][0])


def _next_files(connection: sqlite3.Connection) -> list[tuple[int, DatasetId, SeenFile]]:
    (number,) = connection.execute("SELECT number FROM learned").fetchone()
    return new_files_after(connection, number, FILES_AT_ONCE)


def _note(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("UPDATE learned SET number = ?", (number,))
