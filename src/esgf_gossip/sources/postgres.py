"""
Download numbers, accounts and access groups from the PostgreSQL of an ESGF site.

Only reading: a transaction that cannot write, ends within a bound and waits for no lock; each look connects anew
and leaves nothing open. Columns and what their values mean: docs/formats.md, section 11.
psycopg is imported where a database is asked and nowhere else: it is an optional extra.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esgf_gossip.esgf import registration
from esgf_gossip.esgf.metrics import COUNT_MAX, Metrics
from esgf_gossip.esgf.registration import Group
from esgf_gossip.sources.connection import connect, ended_after, explained
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.metrics_files import Numbers

if TYPE_CHECKING:
    import psycopg

# A connection has that long, and a question: 1,000,000 rows take less than one second.
CONNECT_S: Final = 5
QUESTION_S: Final = 60
# A server that holds the connection and says nothing is left after both.
DEADLINE_S: Final = CONNECT_S + QUESTION_S + 5
LOCK_WAIT_MS: Final = 1000
# Enough to count some 100,000 users without a file.
WORK_MEMORY: Final = "64MB"

_SETTING: Final = "[metrics] database"
_TABLES: Final = ("esgf_node_manager.access_logging", 'esgf_security."user"', 'esgf_security."group"')
# A row is there from the first byte on. It counts once the answer was whole: 200, or as many bytes as there are; the
# two -1 of a row that never ended are not equal sizes. Who has no name is nobody, not one user.
# By user first: one pass, and hashing beats the sort of count(distinct) on long names.
_DOWNLOADS: Final = """
SELECT coalesce(sum(downloads), 0), coalesce(sum(bytes), 0), count(*) FILTER (WHERE user_id NOT IN ('', '<no-id>'))
FROM (
    SELECT user_id, count(*) AS downloads, sum(CASE WHEN xfer_size > 0 THEN xfer_size ELSE greatest(data_size, 0) END) AS bytes
    FROM esgf_node_manager.access_logging
    WHERE success OR (xfer_size = data_size AND xfer_size >= 0)
    GROUP BY user_id
) AS finished
"""
_USERS: Final = 'SELECT count(*) FROM esgf_security."user"'
_GROUPS: Final = 'SELECT name, left(description, %s) FROM esgf_security."group" ORDER BY id LIMIT %s'


def ask(address: str, password_file: Path | None) -> Numbers:
    """
    Ask the database once. Blocks for at most about a minute: not for the reactor's thread.

    Args:
        address: what libpq connects with.
        password_file: its first line is the password; None: libpq's own ways (``~/.pgpass``, peer, trust).

    Raises:
        SourceError: psycopg is missing, nobody answers, or what was asked for is not there.
    """
    with (
        contextlib.closing(connect(address, password_file, _SETTING, CONNECT_S)) as connection,
        explained(_SETTING),
    ):
        return _read(connection)


def _read(connection: psycopg.Connection[Any]) -> Numbers:
    connection.read_only = True
    with ended_after(connection, DEADLINE_S), connection.transaction():
        # In the transaction and for it alone: a pooler may hand the session to others.
        for setting, value in (
            ("statement_timeout", f"{QUESTION_S}s"),
            ("lock_timeout", f"{LOCK_WAIT_MS}ms"),
            ("work_mem", WORK_MEMORY),
        ):
            connection.execute("SELECT set_config(%s, %s, true)", [setting, value])
        row = connection.execute(
            "SELECT " + ", ".join(["to_regclass(%s) IS NOT NULL"] * 3), _TABLES
        ).fetchone()
        has_downloads, has_users, has_groups = row or (False, False, False)
        if not (has_downloads or has_users or has_groups):
            raise SourceError(
                f"[metrics] database: {connection.info.dbname} has none of the tables {', '.join(_TABLES)}; "
                "is it the site's database?"
            )
        counts = _row(connection, _DOWNLOADS) if has_downloads else (None, None, None)
        users = _row(connection, _USERS) if has_users else (None,)
        groups = _groups(connection) if has_groups else None
    return Numbers(Metrics(*counts, *users), groups)


def _row(connection: psycopg.Connection[Any], question: str) -> tuple[int, ...]:
    row = connection.execute(question.encode()).fetchone() or ()
    return tuple(min(int(number), COUNT_MAX) for number in row)


def _groups(connection: psycopg.Connection[Any]) -> tuple[Group, ...]:
    # One more of each than may be published, so that what is too much is seen as too much.
    most = registration.GROUP_DESCRIPTION_CHARACTERS + 1, registration.GROUPS + 1
    rows = connection.execute(_GROUPS, most).fetchall()
    return tuple(Group(name, description) for name, description in rows)
