"""
The command esgf-gossip: its list of commands, and the one place where failures become a line and a code.

No command lives here. Their modules are imported when they are named, so that
``status`` costs no import of what ``run`` needs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from esgf_gossip import __version__
from esgf_gossip.cli.failures import EXIT_CODES_HELP, CommandError, ExitCode, error_line, usage_line
from esgf_gossip.config import ConfigError

# command: (module, attribute, what the list of commands says of it), in the order of the list.
_COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "demo": ("demo", "demo", "Run a throw-away federation of real processes on this machine."),
    "init": ("init", "init", "Make the folder of a new node: node.toml, key and request."),
    "check": ("check", "check", "Read everything, start nothing, say what is wrong."),
    "run": ("run", "run", "Run the daemon in the foreground."),
    "start": ("background", "start", "Start the daemon in the background, where there is no systemd."),
    "status": ("node_commands", "status", "Show the state of this node."),
    "nodes": ("node_commands", "nodes", "Show the federation table."),
    "services": ("node_commands", "services", "Show the services of the federation and their health."),
    "show": ("node_commands", "show", "Show one node of the federation."),
    "explain": ("node_commands", "explain", "Show why a node has its status, and who said so."),
    "history": ("history", "history", "Show what changed and when, or the federation as it was."),
    "doc": ("documents", "doc", "Read and write metadata documents that nodes share."),
    "dataset": ("datasets", "dataset", "Say and see what happened to datasets."),
    "watch": ("watch", "watch", "Follow what happens, live."),
    "reload": ("control_commands", "reload", "Read properties, trust and configuration again."),
    "maintenance": ("maintenance", "maintenance", "Announce planned downtime, or show what is announced."),
    "backup": ("backup", "backup", "Write a backup of this node into one file."),
    "restore": ("backup", "restore", "Put a node back as it was in a backup."),
    "spotcheck": ("spotcheck", "spotcheck", "Say which reader breaks on a registration.xml."),
    "task": ("tasks", "task", "Hand in tasks for the daemon, and see how they stand."),
    "notify": ("notify", "notify", "See, hold and release mails to users, and what was done."),
    "stop": ("control_commands", "stop", "Stop the daemon in good order."),
    "restart": ("background", "restart", "Stop the daemon and start it in the background."),
    "leave": ("control_commands", "leave", "Leave the federation and stop."),
}


class ReaderGoneError(Exception):
    """Report that nobody reads our output any more."""


@contextlib.contextmanager
def _reader() -> Iterator[None]:
    """Take it upon us to tell that the reader of our output has gone: click would call it an internal error."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None


class Program(click.Group):
    """The group of all commands: loads them when named, and ends every failure in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which a user meets them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"esgf_gossip.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in _COMMANDS.items()])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments; ``--help`` prints here."""
        with _reader():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _reader():
            code = super().invoke(ctx)
            sys.stdout.flush()
        return code

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:
        """Run a command and exit the process with its code."""
        args = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        try:
            code = super().main(args, prog_name or "esgf-gossip", standalone_mode=False, **extra)
        except Exception as error:  # noqa: BLE001 - the last door: whatever comes here becomes one line
            code = _report(error, debug="--debug" in args)
        sys.exit(code or 0)


def _report(error: Exception, *, debug: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return ExitCode.USAGE
    if isinstance(error, ReaderGoneError):
        # ``| head``: nothing to say, and nobody to say it to.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    if debug:
        traceback.print_exception(error)
    line, code = _verdict(error)
    click.echo(line, err=True)
    return code


def _verdict(error: Exception) -> tuple[str, int]:
    program = "esgf-gossip"
    match error:
        case click.UsageError():
            return usage_line(error), ExitCode.USAGE
        case click.Abort():
            return error_line(program, _why_aborted(error)), ExitCode.INTERRUPTED
        case ConfigError():
            return error_line(program, str(error)), ExitCode.USAGE
        case CommandError():
            return error_line(program, str(error)), error.code
        case click.ClickException():
            return error_line(program, error.format_message()), error.exit_code
        case OSError(filename=str() | bytes() | os.PathLike()):
            where = os.fsdecode(error.filename)
            text = f"{error.strerror or type(error).__name__}; {where}; see that this user may read and write there"
            return error_line(program, text), ExitCode.FILES
        case _:
            text = f"{type(error).__name__}: {error}; a fault of this program; run again with --debug and report it"
            return error_line(program, text), ExitCode.INTERNAL


def _why_aborted(error: click.Abort) -> str:
    # The end of the input at a terminal is somebody who went away; without one there was nobody to ask.
    is_unanswered = isinstance(error.__context__, EOFError)
    if is_unanswered and (sys.stdin is None or not sys.stdin.isatty()):
        return "there is no terminal to ask on; add --yes if it is meant"
    return "interrupted"


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES_HELP)
@click.version_option(__version__, prog_name="esgf-gossip", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of a failure.")
def program() -> None:
    """
    Take part in an Earth System Grid Federation: signed digests, gossiped over mutual TLS.

    Certificates are the business of the command trust-admin.

    Example, a federation of five nodes on this machine: esgf-gossip demo
    """


def main() -> None:
    """Run esgf-gossip; never returns."""
    program.main()


if __name__ == "__main__":
    main()
