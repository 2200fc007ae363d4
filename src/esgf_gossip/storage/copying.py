"""A database copied while it is written: page by page, so that nobody waits for more than a few of them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from esgf_gossip.files import sync

# Of a step, in which writers wait: a quarter of a megabyte, a fraction of a millisecond.
STEP_PAGES: Final = 64
# After a step that met a transaction.
AGAIN_S: Final = 0.005


class CopyStoppedError(Exception):
    """Report that a copy was given up before it was whole."""


def copy_pages(source: sqlite3.Connection, target: Path, is_stopped: Callable[[], bool]) -> None:
    """
    Copy a database into a new, private file, as it is when the last page is copied.

    What is written over the same connection meanwhile is in the copy. Source: https://www.sqlite.org/backup.html.

    Raises:
        FileExistsError: the target exists, and is untouched.
        OSError: it cannot be made.
        sqlite3.Error: it cannot be written.
        CopyStoppedError: ``is_stopped`` said so between two steps.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))

    def look(_status: int, _remaining: int, _total: int) -> None:
        if is_stopped():
            raise CopyStoppedError("the database is being closed")

    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        # Synced once, below, instead of at each step.
        copy.execute("PRAGMA synchronous = OFF")
        source.backup(copy, pages=STEP_PAGES, progress=look, sleep=AGAIN_S)
        # One file, without a second that somebody forgets to take along.
        copy.execute("PRAGMA journal_mode = DELETE")
    sync(target)
