"""
The command ``watch``: what happens, in a table kept in step or a line each.

Only question and lines live here; the table is ``live``'s. No Twisted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from esgf_gossip.cli.control_client import Conversation
from esgf_gossip.cli.failures import ExitCode, printable
from esgf_gossip.cli.live import watch_in_place, words_of
from esgf_gossip.cli.node_commands import daemon_of, list_of_nodes
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import local_text, print_json_line, text_of, worst_first


@click.command(epilog="Example: esgf-gossip watch --json")
@config_option
@json_option
@common_options
def watch(config_path: Path, *, json_output: bool) -> int:
    """
    Follow what happens until Ctrl-C: a table that is kept in step on a terminal, a line per event in a pipe.

    With --json every line is one JSON object: first {"status": ..., "nodes": [...]},
    then {"event": ..., "id": ..., "data": {...}}.
    """
    daemon = daemon_of(config_path)
    picture, conversation = daemon.watch()
    with conversation:
        try:
            if json_output:
                print_json_line(picture)
            elif sys.stdout.isatty():
                watch_in_place(daemon, conversation, picture)
            else:
                _say_picture(picture)
            _follow(conversation, json_output=json_output)
        except KeyboardInterrupt:
            return ExitCode.DONE


def _follow(conversation: Conversation, *, json_output: bool) -> NoReturn:
    while True:
        event = conversation.next_line()
        if json_output:
            print_json_line(event)
        else:
            _say_event(event)


def _say_picture(picture: Mapping[str, Any]) -> None:
    for node in worst_first(list_of_nodes(picture.get("nodes"))):
        since = local_text(node.get("since"))
        _say(f"{text_of(node.get('host'))} is {text_of(node.get('status'))} since {since}")
    _say(_own(picture.get("status", {})))


def _say_event(event: Mapping[str, Any]) -> None:
    data = event.get("data") or {}
    name = text_of(event.get("event"))
    _say(_own(data) if name == "status" else words_of(name, data))


def _own(status: Mapping[str, Any]) -> str:
    return (
        f"{text_of(status.get('host'))}: root {text_of(status.get('root'))[:8]}, {text_of(status.get('nodes'))}, "
        f"{text_of(status.get('links'))} links"
    )


def _say(line: str) -> None:
    click.echo(printable(f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}  {line}"))
    sys.stdout.flush()
