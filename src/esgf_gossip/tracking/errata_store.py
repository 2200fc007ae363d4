"""
The issues this node knows, and what users were told of them; a table each, and one of the last look.

A reason is looked up here and never at the service: no mail waits for it. Source: docs/tracking.md, "Errata".
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from typing import Final

from esgf_gossip.sources.errata_service import SEVERITIES
from esgf_gossip.tracking.changes import add_change
from esgf_gossip.tracking.errata import Erratum, Issue, change_of
from esgf_gossip.tracking.identity import DatasetId, parse_dataset

SCRIPT: Final = """
CREATE TABLE errata (
    uid TEXT PRIMARY KEY, title TEXT NOT NULL, severity TEXT NOT NULL, link TEXT NOT NULL, status TEXT NOT NULL,
    moderation TEXT NOT NULL, is_listed INTEGER NOT NULL, epoch INTEGER NOT NULL, mark TEXT NOT NULL,
    read_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE errata_dataset (
    instance_id TEXT NOT NULL, uid TEXT NOT NULL REFERENCES errata (uid), is_named INTEGER NOT NULL,
    is_told INTEGER NOT NULL, PRIMARY KEY (instance_id, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX errata_dataset_by_issue ON errata_dataset (uid, is_told);
CREATE TABLE errata_look (id INTEGER PRIMARY KEY CHECK (id = 1), done_ms INTEGER NOT NULL) STRICT
"""
# Reasons of one dataset that are given, the worst first.
ISSUES_EACH: Final = 10

_REASONS: Final = """
SELECT d.instance_id, e.uid, e.title, e.severity, e.link, e.status
FROM errata_dataset d JOIN errata e USING (uid)
WHERE d.instance_id IN (SELECT value FROM json_each(?)) AND d.is_named AND e.is_listed
    AND e.moderation IN ('accepted', 'not-required')
"""


def last_look_ms(connection: sqlite3.Connection) -> int | None:
    """Return when the service was last looked through whole, Unix milliseconds; None: never."""
    row = connection.execute("SELECT done_ms FROM errata_look").fetchone()
    return None if row is None else int(row[0])


def known_marks(connection: sqlite3.Connection) -> dict[str, tuple[str, int]]:
    """Return by uid what the list of the service said of an issue when it was read, and when that was."""
    rows = connection.execute("SELECT uid, mark, read_ms FROM errata")
    return {uid: (mark, read_ms) for uid, mark, read_ms in rows}


def note_erratum(
    connection: sqlite3.Connection,
    erratum: Erratum,
    mark: str,
    last_ms: int | None,
    now_ms: int,
    max_age_ms: int,
) -> int | None:
    """
    Note an issue as it is now; return the number of the change users are to be told of, None where there is none.

    Args:
        connection: to the tracker's database.
        erratum: the issue.
        mark: what the list says of it.
        last_ms: when the service was last looked through, as ``last_look_ms`` gives it.
        now_ms: Unix milliseconds.
        max_age_ms: nobody is told of what is older; it is noted as if all had been told.
    """
    issue = erratum.issue
    row = connection.execute("SELECT epoch FROM errata WHERE uid = ?", (issue.uid,)).fetchone()
    epoch = 0 if row is None else int(row[0])
    connection.execute(
        "INSERT INTO errata VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (uid) DO UPDATE SET"
        " title = excluded.title, severity = excluded.severity, link = excluded.link, status = excluded.status,"
        " moderation = excluded.moderation, is_listed = 1, mark = excluded.mark, read_ms = excluded.read_ms",
        (
            issue.uid,
            issue.title,
            issue.severity,
            issue.link,
            issue.status,
            erratum.moderation,
            epoch,
            mark,
            now_ms,
        ),
    )
    connection.execute("UPDATE errata_dataset SET is_named = 0 WHERE uid = ?", (issue.uid,))
    connection.executemany(
        "INSERT INTO errata_dataset VALUES (?, ?, 1, 0)"
        " ON CONFLICT (instance_id, uid) DO UPDATE SET is_named = 1",
        [(dataset.instance_id, issue.uid) for dataset in erratum.datasets],
    )
    if not erratum.is_told:
        return None
    rows = connection.execute(
        "SELECT instance_id FROM errata_dataset WHERE uid = ? AND is_told = 0 AND is_named = 1", (issue.uid,)
    )
    untold = sorted(parse_dataset(name) for (name,) in rows)
    if not untold:
        return None
    connection.execute("UPDATE errata_dataset SET is_told = 1 WHERE uid = ? AND is_named = 1", (issue.uid,))
    occurred_ms = _occurred_ms(erratum, last_ms, now_ms, max_age_ms, is_new=row is None)
    if now_ms - occurred_ms > max_age_ms:
        return None
    connection.execute("UPDATE errata SET epoch = epoch + 1 WHERE uid = ?", (issue.uid,))
    return add_change(connection, change_of(issue, untold, epoch, occurred_ms), now_ms)


def note_look(connection: sqlite3.Connection, uids: Collection[str], now_ms: int) -> None:
    """Note that the service was looked through whole, and which issues it lists; others are no reason any more."""
    connection.execute("UPDATE errata SET is_listed = 0")
    connection.executemany("UPDATE errata SET is_listed = 1 WHERE uid = ?", [(uid,) for uid in uids])
    connection.execute(
        "INSERT INTO errata_look VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET done_ms = excluded.done_ms",
        (now_ms,),
    )


def issues_of(connection: sqlite3.Connection, datasets: Iterable[DatasetId]) -> dict[DatasetId, list[Issue]]:
    """Return the public issues of those datasets that have any, the worst first, at most ``ISSUES_EACH`` each."""
    asked = {dataset.instance_id: dataset for dataset in datasets}
    found: dict[DatasetId, list[Issue]] = {}
    for name, *fields in connection.execute(_REASONS, (json.dumps(list(asked)),)):
        found.setdefault(asked[name], []).append(Issue(*fields))
    for issues in found.values():
        issues.sort(key=_worst_first)
        del issues[ISSUES_EACH:]
    return found


def reasons_of(connection: sqlite3.Connection, datasets: Iterable[DatasetId]) -> list[tuple[str, str, str]]:
    """Return title, severity and link of the public issues of any of the datasets, each once, the worst first."""
    found = {issue.uid: issue for issues in issues_of(connection, datasets).values() for issue in issues}
    ordered = sorted(found.values(), key=_worst_first)[:ISSUES_EACH]
    return [(issue.title, issue.severity, issue.link) for issue in ordered]


def _worst_first(issue: Issue) -> tuple[int, str, str]:
    return -SEVERITIES.index(issue.severity), issue.title, issue.uid


def _occurred_ms(erratum: Erratum, last_ms: int | None, now_ms: int, max_age_ms: int, *, is_new: bool) -> int:
    if last_ms is not None and now_ms - last_ms <= max_age_ms:
        # It was not there at the last look, whenever it was written: an issue may wait for its moderators for weeks.
        return min(max(erratum.updated_ms, last_ms), now_ms)
    # Nobody knows what changed since: an old issue may have been updated for any reason.
    return min(erratum.created_ms if is_new else erratum.updated_ms, now_ms)
