"""
A connection to a site's PostgreSQL that only reads: a transaction that cannot write, ends in time, waits for no lock.

psycopg is imported where a database is asked and nowhere else: it is an optional extra.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from esgf_gossip.files import read_file
from esgf_gossip.sources.gauge import SourceError

if TYPE_CHECKING:
    import psycopg

CONNECT_S: Final = 5
# A server that holds the connection and says nothing is left so long after its questions should have ended.
SLACK_S: Final = 5
LOCK_WAIT_MS: Final = 1000
PASSWORD_BYTES: Final = 4096


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
    try:
        import psycopg  # noqa: PLC0415 - the optional extra
    except ImportError:
        raise SourceError(
            f"{who} {key} needs psycopg, which is not installed; pip install 'esgf-gossip[postgres]'"
        ) from None
    options: dict[str, Any] = {}
    if password_file is not None:
        options["password"] = _password(password_file, f"{who} {key.removesuffix('database')}password_file")
    try:
        with contextlib.closing(
            psycopg.connect(
                address,
                connect_timeout=CONNECT_S,
                application_name="esgf-gossip",
                client_encoding="UTF8",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                **options,
            )
        ) as connection:
            connection.read_only = True
            with _ended_after(connection, CONNECT_S + question_s + SLACK_S), connection.transaction():
                # In the transaction and for it alone: a pooler may hand the session to others.
                for setting, value in (
                    ("statement_timeout", f"{question_s}s"),
                    ("lock_timeout", f"{LOCK_WAIT_MS}ms"),
                ):
                    connection.execute("SELECT set_config(%s, %s, true)", [setting, value])
                yield connection
    except (psycopg.Error, UnicodeError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{who} {key}: {text[:400]}") from None


@contextlib.contextmanager
def _ended_after(connection: psycopg.Connection[Any], deadline_s: float) -> Iterator[None]:
    # A second name for the connection, so that another thread can end it: a server that holds it and says nothing
    # would hold us too; who waits sees an error at once.
    link = socket.socket(fileno=os.dup(connection.fileno()))
    deadline = threading.Timer(deadline_s, _end, [link])
    deadline.daemon = True
    deadline.start()
    try:
        with link:
            yield
    finally:
        deadline.cancel()


def _end(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


def _password(path: Path, key: str) -> str:
    try:
        content = read_file(path, PASSWORD_BYTES)
    except OSError as error:
        raise SourceError(f"{key} {path}: {error.strerror}; correct node.toml") from None
    lines = content.decode("utf-8", "replace").splitlines()
    if not lines or not lines[0]:
        raise SourceError(f"{key} {path}: is empty; write the password in its first line")
    return lines[0]
