"""
A connection to a site's PostgreSQL that ends within a bound, and errors in one line.

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

PASSWORD_BYTES: Final = 4096
_ERROR_CHARACTERS: Final = 400
# By table of node.toml, where the rights stand that its roles need.
_GRANTS: Final = {"[metrics]": "docs/operations.md", "[tracking]": "docs/tracking.md"}


def connect(
    address: str,
    password_file: Path | None,
    setting: str,
    connect_s: int,
    file_setting: str = "password_file",
) -> psycopg.Connection[Any]:
    """
    Connect; the caller closes it.

    Args:
        address: what libpq connects with.
        password_file: its first line is the password; None: libpq's own ways (``~/.pgpass``, peer, trust).
        setting: how errors call the address, such as ``[metrics] database``.
        connect_s: to wait for the server.
        file_setting: how errors call the file, in the same table.

    Raises:
        SourceError: psycopg is missing, the file gives no password, or nobody answers.
    """
    try:
        import psycopg  # noqa: PLC0415 - the optional extra
    except ImportError:
        raise SourceError(
            f"{setting} needs psycopg, which is not installed; pip install 'esgf-gossip[postgres]'"
        ) from None
    where = f"{setting.partition(' ')[0]} {file_setting}"
    options: dict[str, Any] = {} if password_file is None else {"password": _password(password_file, where)}
    with explained(setting, f"; see {where}"):
        return psycopg.connect(
            address,
            connect_timeout=connect_s,
            application_name="esgf-gossip",
            client_encoding="UTF8",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            **options,
        )


def spare_compiler(connection: psycopg.Connection[Any], *, is_local: bool) -> None:
    """Have questions not compiled, of the connection or of its transaction: that takes longer (300 ms) than ours do."""
    # The setting came with PostgreSQL 11.
    if connection.info.server_version >= 110_000:
        connection.execute("SELECT set_config('jit', 'off', %s)", [is_local])


@contextlib.contextmanager
def explained(setting: str, password: str = "") -> Iterator[None]:
    """
    Make one line of what psycopg raises within; only after ``connect``, which knows that it is installed.

    Args:
        setting: how the line calls the database.
        password: what it ends with where a password is refused or missing.

    Raises:
        SourceError: instead.
    """
    import psycopg  # noqa: PLC0415 - the optional extra

    try:
        yield
    except (psycopg.Error, UnicodeError) as error:
        # The server's own sentence, without its details: those quote rows, and rows name users.
        said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        text = " ".join((said or str(error)).split()) or type(error).__name__
        hint = ""
        if isinstance(error, _errors_of_rights()):
            page = _GRANTS[setting.partition(" ")[0]]
            hint = f"; is it the right database, and has the role the rights that {page} names?"
        elif "password" in text:
            hint = password
        raise SourceError(f"{setting}: {text[:_ERROR_CHARACTERS]}{hint}") from None


def _errors_of_rights() -> tuple[type[Exception], ...]:
    from psycopg import errors  # noqa: PLC0415 - the optional extra

    return (
        errors.UndefinedTable,
        errors.UndefinedColumn,
        errors.InsufficientPrivilege,
        errors.InvalidSchemaName,
    )


@contextlib.contextmanager
def ended_after(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """End the connection when what is done within takes longer: who waits for a silent server sees an error then."""
    # A second name for the connection, so that another thread can end it.
    link = socket.socket(fileno=os.dup(connection.fileno()))
    deadline = threading.Timer(seconds, _end, [link])
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


def _password(path: Path, where: str) -> str:
    try:
        content = read_file(path, PASSWORD_BYTES)
    except OSError as error:
        raise SourceError(f"{where} {path}: {error.strerror}; correct node.toml") from None
    lines = content.decode("utf-8", "replace").splitlines()
    if not lines or not lines[0]:
        raise SourceError(f"{where} {path}: is empty; write the password in its first line")
    return lines[0]
