"""
The command ``run``: the daemon in the foreground.

Only the way into the daemon lives here; the daemon is ``esgf_gossip.service``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from esgf_gossip.cli.failures import CommandError, ExitCode
from esgf_gossip.cli.options import common_options, config_option
from esgf_gossip.config import load


@click.command(epilog="Example: esgf-gossip run --config /etc/esgf-gossip/node.toml")
@config_option
@common_options
def run(config_path: Path) -> int:
    """
    Run the daemon in the foreground until SIGTERM or Ctrl-C; the log goes to stdout.

    SIGHUP reads properties, trust and configuration again. Exit code 11: it cannot run, and says why.
    """
    # Until the daemon listens to it, a SIGHUP of an eager service manager must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    path = config_path.absolute()
    # Read first: a fault is told before the process is replaced.
    config = load(path)
    if not _names(sys.argv, path):
        # Whoever looks at the list of processes must see which node this is.
        replace_process(daemon_command(path))
    from esgf_gossip.foreground import run_in_foreground  # noqa: PLC0415 - brings Twisted and OpenSSL

    return run_in_foreground(config, path)


def daemon_command(path: Path) -> list[str]:
    """Give the command line of a daemon, with the absolute path of its node.toml in it."""
    # -P: with -m alone Python would import from the working directory, whoever may write there.
    return [sys.executable, "-P", "-m", "esgf_gossip.cli.main", "run", "--config", str(path.absolute())]


def replace_process(command: Sequence[str]) -> None:
    """Become another program, with our process id; does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(command[0], list(command))  # noqa: S606 - our own interpreter, no shell
    except OSError as error:
        raise CommandError(
            f"cannot run Python ({error.strerror})",
            command[0],
            "see that this user may execute it and read the folders above it",
            ExitCode.FILES,
        ) from None


def _names(arguments: Sequence[str], path: Path) -> bool:
    return any(argument in (str(path), f"--config={path}") for argument in arguments)
