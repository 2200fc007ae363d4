"""The databases of a node, copied together for a backup."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from esgf_gossip.storage.copying import CopyStoppedError, copy_pages
from esgf_gossip.storage.database import FILE_NAME, Database, StorageError
from esgf_gossip.storage.history_reader import FILE_NAME as HISTORY
from esgf_gossip.storage.task_journal import FILE_NAME as TASKS

# Of the room of tracking, which stands above this one.
TRACKING: Final = "tracking.db"
DOWNLOADS: Final = "downloads.db"
TRACKING_KEY: Final = "tracking.key"

# Beside the registry, where there are such.
OTHER_FILES: Final = (HISTORY, TASKS, TRACKING, DOWNLOADS)


def copy_state(state: Path, registry: Database, folder: Path, is_stopped: Callable[[], bool]) -> list[str]:
    """
    Copy the databases of a node into a folder; return their names. May be called in a thread.

    Args:
        state: the folder they lie in.
        registry: open; nobody but who holds it can read it.
        folder: of the copies.
        is_stopped: whether to give up; the registry gives up when it is closed.

    Raises:
        StorageError: one of them could not be copied; what is in the folder is worth nothing.
    """
    registry.copy_to(folder / FILE_NAME)
    copied = [FILE_NAME]
    for name in OTHER_FILES:
        source = state / name
        if not source.exists():
            continue
        try:
            with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                copy_pages(connection, folder / name, is_stopped)
        except (sqlite3.Error, OSError, CopyStoppedError) as error:
            raise StorageError(f"{source}: not copied: {error}; free some space, or ask again") from None
        copied.append(name)
    return copied
