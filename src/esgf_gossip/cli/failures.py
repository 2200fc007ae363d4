"""
How a command fails: exit codes, and the one line it leaves on stderr.

Only the words and numbers of failure live here; who fails is the commands' affair.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import click


class ExitCode(IntEnum):
    """The exit codes of esgf-gossip; they are public. Those up to 7 mean the same in trust-admin, but for 3."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    NO_DAEMON = 3
    REFUSED = 4
    NOT_FOUND = 5
    EXISTS = 6
    FILES = 7
    ATTENTION = 10
    CANNOT_RUN = 11
    BROKEN_PIPE = 141
    INTERRUPTED = 130


EXIT_CODES_HELP: Final = (
    "Exit codes: 0 done; 1 internal error, or a demo that did not converge; 2 wrong usage or node.toml; "
    "3 no daemon is running; 4 the daemon refused; 5 no such node, task, document, change or person; 6 exists already; 7 files or permissions; "
    "10 attention, 11 cannot run (check); 10 of spotcheck: a reader would break."
)


class CommandError(Exception):
    """Report a failure of a command: what, where, what to do; and with which code it exits."""

    def __init__(self, what: str, where: str, remedy: str, code: ExitCode) -> None:
        super().__init__("; ".join(part for part in (what, where, remedy) if part))
        self.code: Final = code


def error_line(program: str, text: str) -> str:
    """Make the one line of a failure; nothing in it can start a second line or move the cursor."""
    return f"{program}: error: {printable(' '.join(text.split()))}"


def usage_line(error: click.UsageError) -> str:
    """Say what click says on several lines in one."""
    path = error.ctx.command_path if error.ctx else "esgf-gossip"
    what = error.format_message().rstrip(".")
    return error_line("esgf-gossip", f"{what}; {path}; see {path} --help")


def printable(text: str) -> str:
    """Replace what a terminal would obey instead of show: other nodes choose many of the texts we print."""
    return "".join(character if character.isprintable() else "?" for character in text)
