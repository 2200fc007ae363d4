"""
What a restored backup does not know: whom mails have reached since it was made.

Whoever puts ``tracking.db`` back marks it; the next start holds all that the backup would send again, and what
happened before that start and is heard of anew, until somebody has looked and released it. Source: docs/tracking.md,
"Holding and releasing".
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from esgf_gossip.storage.database import StorageError
from esgf_gossip.tracking import audit
from esgf_gossip.tracking.audit import Step

SCRIPT: Final = """
CREATE TABLE restored (one INTEGER PRIMARY KEY CHECK (one = 1), at_ms INTEGER NOT NULL) STRICT
"""

# In ``held_by``: any one person may release.
RESTORED: Final = "restored from a backup"
# The ``user_version`` of a file that was put back and not started with since; nothing else uses it.
MARK: Final = 1


def mark(path: Path) -> None:
    """
    Mark a database that is being put back.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {MARK}")
    except sqlite3.Error as error:
        raise StorageError(
            f"{path.name} of the backup cannot be marked as restored ({error}); nothing was put back"
        ) from None


def hold_restored(connection: sqlite3.Connection, now_ms: int, max_age_ms: int) -> int:
    """
    Hold what a database that was put back would send again, at the first start with it; return how many changes.

    Mails that wait may have gone out: they are looked for in the mail server's log where there is one.
    """
    if connection.execute("PRAGMA user_version").fetchone()[0] != MARK:
        return 0
    connection.execute("INSERT OR REPLACE INTO restored VALUES (1, ?)", (now_ms,))
    rows = connection.execute(
        "UPDATE told SET state = 'held', held_by = ?, held_ms = ?, asked_by = '', released_by = ''"
        " WHERE state IN ('open', 'released') AND occurred_ms >= ? RETURNING change_key",
        (RESTORED, now_ms, now_ms - max_age_ms),
    ).fetchall()
    for (change_key,) in rows:
        audit.note(connection, now_ms, Step.HELD, RESTORED, change_key=change_key)
    mails = connection.execute(
        "UPDATE mail SET state = 'queued', ambiguous_ms = ?, due_ms = max(due_ms, ?), changed_ms = ?"
        " WHERE state IN ('queued', 'sending') RETURNING number, person",
        (now_ms, now_ms, now_ms),
    ).fetchall()
    for number, person in mails:
        audit.note(
            connection, now_ms, Step.HELD, f"{RESTORED}: it may have arrived", person=person, mail=number
        )
    connection.execute("PRAGMA user_version = 0")
    return len(rows)


def may_be_told(connection: sqlite3.Connection, occurred_ms: int) -> bool:
    """Tell whether users may have been told of something before a backup was put back, which knows nothing of it."""
    row = connection.execute("SELECT at_ms FROM restored").fetchone()
    return row is not None and occurred_ms <= row[0]
