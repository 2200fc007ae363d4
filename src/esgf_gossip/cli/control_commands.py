"""
The commands that change what the running daemon does: reload, stop, leave.

Only question, answer and print live here; the daemon decides. No Twisted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from esgf_gossip.cli.control_client import Conversation
from esgf_gossip.cli.failures import ExitCode, printable
from esgf_gossip.cli.node_commands import daemon_of
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import print_json, text_of
from esgf_gossip.config import load

# An orderly stop says goodbye to every peer and closes the database.
STOP_TIMEOUT_S = 30.0


@click.command(epilog="Example: esgf-gossip reload")
@config_option
@json_option
@common_options
def reload(config_path: Path, *, json_output: bool) -> int:
    """
    Read properties, trust and configuration again, without a restart.

    What is wrong, and what needs a restart, is told on stderr; what was in force stays.
    kill -HUP does the same and tells it in the log. Exit code 4: something was
    wrong, and what was in force before stays.
    """
    answer = daemon_of(config_path, STOP_TIMEOUT_S).ask("reload")
    refused = answer.get("refused", [])
    code = ExitCode.REFUSED if refused else ExitCode.DONE
    if json_output:
        print_json(answer)
        return code
    changed = [text_of(item) for item in answer.get("changed", [])]
    findings = answer.get("findings", [])
    nothing = "nothing else has changed" if refused or findings else "nothing has changed"
    click.echo(f"changed: {printable(', '.join(changed))}" if changed else nothing)
    for level, lines in (("error", refused), ("attention", findings)):
        for line in lines:
            click.echo(f"esgf-gossip: {level}: {printable(text_of(line))}", err=True)
    return code


@click.command(epilog="Example: esgf-gossip stop")
@config_option
@common_options
def stop(config_path: Path) -> None:
    """Stop the daemon in good order: it tells its peers, and this command ends when its process has."""
    end_daemon(config_path, "stop")
    click.echo("stopped")


@click.command(epilog="Example: esgf-gossip leave --yes")
@click.option("--yes", is_flag=True, help="Do not ask. Without a terminal nothing is asked either.")
@config_option
@common_options
def leave(config_path: Path, *, yes: bool) -> None:
    """
    Leave the federation: every node drops this one from its lists; then the daemon stops.

    A later start joins again.
    """
    if not yes and sys.stdin.isatty():
        click.confirm(
            "Leave the federation? Every node will drop this one from its lists.", abort=True, err=True
        )
    end_daemon(config_path, "leave")
    click.echo("left the federation")


def end_daemon(config_path: Path, command: str) -> None:
    """Ask the daemon to end and wait until its process is gone, so that another may start."""
    with Conversation(load(config_path).control_socket, STOP_TIMEOUT_S) as conversation:
        conversation.ask(command)
        conversation.wait_for_exit(STOP_TIMEOUT_S)
