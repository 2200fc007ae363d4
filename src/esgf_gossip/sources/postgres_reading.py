"""A look into a site's PostgreSQL that only reads: a transaction that cannot write, ends in time, waits for no lock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esgf_gossip.sources.connection import connect, ended_after, explained

if TYPE_CHECKING:
    import psycopg

CONNECT_S: Final = 5
# A server that holds the connection and says nothing is left so long after its questions should have ended.
SLACK_S: Final = 5
LOCK_WAIT_MS: Final = 1000


@contextlib.contextmanager
def reading(
    address: str, password_file: Path | None, who: str, question_s: int, key: str = "database"
) -> Iterator[psycopg.Connection[Any]]:
    """
    Connect, give the connection inside one transaction, and close it. Blocks: not for the reactor's thread.

    Args:
        address: what libpq connects with.
        password_file: its first line is the password; None: libpq's own ways (``~/.pgpass``, peer, trust).
        who: the table of node.toml that names the address, for messages: ``[metrics]``.
        question_s: each question has that long; the whole a little more.
        key: the key of that table.

    Raises:
        SourceError: psycopg is missing, nobody answers, or what was asked for is not there.
    """
    setting, file_key = f"{who} {key}", f"{key.removesuffix('database')}password_file"
    with (
        contextlib.closing(connect(address, password_file, setting, CONNECT_S, file_key)) as connection,
        explained(setting),
    ):
        connection.read_only = True
        with ended_after(connection, CONNECT_S + question_s + SLACK_S), connection.transaction():
            # In the transaction and for it alone: a pooler may hand the session to others.
            for name, value in (
                ("statement_timeout", f"{question_s}s"),
                ("lock_timeout", f"{LOCK_WAIT_MS}ms"),
            ):
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            yield connection
