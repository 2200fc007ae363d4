"""
What all commands of trust-admin share: global options, where things are, output, the passphrase.

No command lives here. A global option may stand before or after the command's name.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import click

from esgf_gossip import __version__
from esgf_gossip.trust import names, pem
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.checkup import CLOCK_BEHIND_MS, clock_behind_ms
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.issue import CertificateAuthority

PROGRAM: Final = "trust-admin"
_PASSPHRASE_BYTES: Final = 1024


@attrs.define
class Settings:
    """The values of the global options, filled in as they are met."""

    directory: Path | None = None
    private: Path | None = None
    config: Path | None = None
    json_output: bool = False
    assume_yes: bool = False
    passphrase_file: Path | None = None
    passphrase_fd: int | None = None
    now: datetime | None = None
    _passphrase: bytes | None = attrs.field(default=None, repr=False)

    @property
    def now_ms(self) -> int:
        """The time commands act at."""
        return int(time.time() * 1000) if self.now is None else int(self.now.timestamp() * 1000)

    @property
    def admin_directory(self) -> Path:
        """The administration's public folder: --dir, $TRUST_ADMIN_DIR, else certs/ where it exists."""
        if self.directory is not None:
            return self.directory
        given = os.environ.get("TRUST_ADMIN_DIR")
        if given:
            return Path(given)
        if Path("certs").is_dir():
            return Path("certs")
        raise TrustError(
            "E-USAGE", "which trust administration?", remedy="give --dir DIR or set TRUST_ADMIN_DIR"
        )

    @property
    def private_directory(self) -> Path:
        """The folder of the CA keys: --private, else private/ in the administration's folder."""
        return self.private or self.admin_directory / "private"

    def authority(self) -> Authority:
        """Open the administration, without its keys."""
        return Authority.open(self.admin_directory, self.private_directory)

    def passphrase(self) -> bytes | None:
        """
        Return the passphrase given by file or descriptor, if any; read once, a pipe has it only once.

        Raises:
            TrustError: E-PASSPHRASE: unreadable, empty; E-MODE: a file that others can read.
        """
        if self._passphrase is None:
            self._passphrase = self._read_passphrase()
        return self._passphrase

    def _read_passphrase(self) -> bytes | None:
        try:
            if self.passphrase_fd is not None:
                with os.fdopen(self.passphrase_fd, "rb", closefd=False) as stream:
                    return _first_line(stream.read(_PASSPHRASE_BYTES))
            if self.passphrase_file is not None:
                mode = stat.S_IMODE(self.passphrase_file.stat().st_mode)
                if mode & 0o077:
                    raise TrustError(
                        "E-MODE",
                        f"{self.passphrase_file} is {mode:04o}, must be 0600",
                        remedy=f"chmod 600 {self.passphrase_file}",
                    )
                return _first_line(self.passphrase_file.read_bytes()[:_PASSPHRASE_BYTES])
        except OSError as error:
            raise TrustError("E-PASSPHRASE", f"the passphrase cannot be read: {error.strerror}") from None
        return None


@attrs.frozen
class NodePlace:
    """What the node's side needs of its node.toml."""

    trust_directory: Path
    host: str
    federation: str


def node_place(path: Path) -> NodePlace:
    """
    Read [node] host, [node] federation and [trust] directory of a node.toml.

    Raises:
        TrustError: E-CONFIG with file and key, E-NOTFOUND, E-NAME.
    """
    try:
        document = tomllib.loads(pem.read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrustError("E-CONFIG", f"{path} is not TOML: {error}") from None
    node = _table(document, "node", path)
    trust = _table(document, "trust", path)
    values = {key: node.get(key) for key in ("host", "federation")}
    for key, value in values.items():
        if not isinstance(value, str):
            raise TrustError(
                "E-CONFIG", f"{path}: [node] {key} is missing", remedy=f'write {key} = "..." there'
            )
        names.check_dns(value)
    directory = trust.get("directory", "trust")
    if not isinstance(directory, str):
        raise TrustError("E-CONFIG", f"{path}: [trust] directory must be a text")
    return NodePlace(path.absolute().parent / directory, str(values["host"]), str(values["federation"]))


def _table(document: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise TrustError("E-CONFIG", f"{path}: [{key}] must be a table")
    return table


def settings() -> Settings:
    """Return the settings of the running command."""
    context = click.get_current_context()
    found = context.find_root().meta.setdefault("esgf_gossip.trust", Settings())
    assert isinstance(found, Settings)
    return found


def options(*wanted: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add global options to a command: dir, config, json, yes, passphrase; version, debug and now always."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed((*wanted, "always")):
            for make in reversed(_OPTIONS[name]):
                command = make(command)
        return click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(command)

    return decorate


def _keep(field: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> Any:
        found = context.find_root().meta.setdefault("esgf_gossip.trust", Settings())
        if value is not None and value is not False:
            setattr(found, field, value)
        return value

    return callback


def _option(
    field: str, *declarations: str, **attributes: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(*declarations, callback=_keep(field), expose_value=False, **attributes)


_PATH: Final = click.Path(path_type=Path)
_OPTIONS: Final[dict[str, Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]]]] = {
    "dir": (
        _option(
            "directory",
            "--dir",
            type=_PATH,
            metavar="DIR",
            help="The trust administration. Default: $TRUST_ADMIN_DIR, else certs/ where it exists.",
        ),
        _option("private", "--private", type=_PATH, metavar="DIR", help="The CA keys. Default: DIR/private."),
    ),
    "config": (_option("config", "--config", type=_PATH, metavar="FILE", help="The node.toml of a node."),),
    "json": (_option("json_output", "--json", is_flag=True, help="Print JSON."),),
    "yes": (_option("assume_yes", "--yes", is_flag=True, help="Do not ask. Never trusts a new root."),),
    "passphrase": (
        _option(
            "passphrase_file",
            "--passphrase-file",
            type=_PATH,
            metavar="F",
            help="The CA keys' passphrase, first line.",
        ),
        _option(
            "passphrase_fd",
            "--passphrase-fd",
            type=int,
            metavar="N",
            help="The same, from a file descriptor.",
        ),
    ),
    "always": (
        click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of a failure."),
        _option("now", "--now", hidden=True, type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"])),
    ),
}


def ask_passphrase(what: str, *, confirm: bool) -> bytes:
    """
    Ask for a passphrase on the terminal.

    Raises:
        TrustError: E-PASSPHRASE where there is no terminal.
    """
    if not sys.stdin.isatty():
        raise TrustError(
            "E-PASSPHRASE", f"no passphrase for {what}", remedy="give --passphrase-file or --passphrase-fd"
        )
    typed: str = click.prompt(f"Passphrase of {what}", hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()


def unlocked(authority: Authority) -> Authority:
    """
    Unlock the issuing CA: by the passphrase given, without one, or asking for it on a terminal.

    Raises:
        TrustError: E-CLOCK: what was signed last is dated after our clock; E-PASSPHRASE.
    """
    behind_ms = clock_behind_ms(authority, settings().now_ms)
    if behind_ms > CLOCK_BEHIND_MS:
        raise TrustError(
            "E-CLOCK",
            f"this host's clock is {behind_ms // 1000} s behind the last line of the audit log",
            str(authority.log.path),
            "set the clock; nothing is signed before",
        )
    given = settings().passphrase()
    try:
        return authority.unlocked(given)
    except TrustError as error:
        if error.code != "E-PASSPHRASE" or given is not None or not sys.stdin.isatty():
            raise
    return authority.unlocked(ask_passphrase("the issuing CA's key", confirm=False))


def unlocked_root(authority: Authority, name: str = "") -> CertificateAuthority:
    """Unlock a root in the same way; on a terminal its passphrase may be another than the issuing CA's."""
    given = settings().passphrase()
    try:
        return authority.root(given, name)
    except TrustError as error:
        if error.code != "E-PASSPHRASE" or given is not None or not sys.stdin.isatty():
            raise
    return authority.root(ask_passphrase("the root's key", confirm=False), name)


def print_result(lines: Sequence[str], data: Any) -> None:
    """Print a result: lines for people, or one JSON value."""
    if settings().json_output:
        click.echo(json.dumps(data, indent=2, ensure_ascii=True))
        return
    for line in lines:
        click.echo(printable(line))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def printable(text: str) -> str:
    """Replace what a terminal would obey instead of show: strangers write the names in requests."""
    return "".join(character if character.isprintable() else "?" for character in text)


def rfc3339(moment: datetime) -> str:
    """Write a time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(text: str) -> timedelta:
    """
    Read a duration: 30d or 12h.

    Raises:
        TrustError: E-USAGE.
    """
    units = {"d": timedelta(days=1), "h": timedelta(hours=1)}
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and unit in units and len(number) < 7):
        raise TrustError("E-USAGE", f"{text!r} is not a duration", remedy="write 30d or 12h")
    return int(number) * units[unit]


def _first_line(content: bytes) -> bytes:
    line = content.split(b"\n", maxsplit=1)[0].rstrip(b"\r")
    if not line:
        raise TrustError("E-PASSPHRASE", "the passphrase is empty")
    return line
