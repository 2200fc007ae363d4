"""
The command that asks the running daemon about the past: history.

Only question, answer and print live here; the daemon finds what was. No Twisted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.node_commands import NODE_COLUMNS, NODE_LEAST, ask_about, complete_hosts, node_row
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import local_text, print_json, print_table, worst_first
from esgf_gossip.config import load
from esgf_gossip.views.history_json import KINDS
from esgf_gossip.views.node_json import utc_text
from esgf_gossip.web.instants import EXAMPLES, InstantError, instant_ms
from esgf_gossip.web.questions import CHANGES_MOST, CHANGES_USUAL

# The past is read from the disk, perhaps a long one.
TIMEOUT_S = 60.0


class Instant(click.ParamType):
    """A point in time, in the host's own zone where it names none; becomes RFC 3339 in UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read a text."""
        try:
            return utc_text(instant_ms(str(value), int(time.time() * 1000), None))
        except InstantError as error:
            self.fail(str(error), param, ctx)


INSTANT = Instant()


@click.command(epilog='Example: esgf-gossip history --since "yesterday 13:50" --until "yesterday 14:10"')
@click.argument("host", required=False, default="", shell_complete=complete_hosts)
@click.option("--since", type=INSTANT, metavar="TIME", help=f"Only what happened from then on: {EXAMPLES}.")
@click.option("--until", type=INSTANT, metavar="TIME", help="Only what happened up to then.")
@click.option("--kind", type=click.Choice(KINDS), help="Only changes of this kind.")
@click.option(
    "--limit",
    type=click.IntRange(1, CHANGES_MOST),
    default=CHANGES_USUAL,
    show_default=True,
    help="At most so many, the newest.",
)
@click.option(
    "--at", type=INSTANT, metavar="TIME", help="Show the federation as it was then, in place of changes."
)
@click.option("--xml", is_flag=True, help="With --at: print registration.xml as it was then.")
@click.option(
    "--between",
    nargs=2,
    type=INSTANT,
    metavar="TIME TIME",
    help="Show what differs between two times, in place of changes.",
)
@config_option
@json_option
@common_options
def history(
    host: str,
    since: str | None,
    until: str | None,
    kind: str | None,
    limit: int,
    at: str | None,
    between: tuple[str, str] | None,
    config_path: Path,
    *,
    xml: bool,
    json_output: bool,
) -> None:
    """
    Show what changed and when, oldest first: digests, verdicts, the health of services.

    With --at the federation, or one node, as it was; with --between what differs
    between two times. Times without a zone are those of this host.
    """
    if (at and between) or ((at or between) and (since or until or kind)):
        raise click.UsageError("--at, --between and --since/--until/--kind exclude each other")
    if xml and (not at or host):
        raise click.UsageError("--xml goes with --at and without a host")
    # RFC 3339 in UTC, all of one length: their order is that of time.
    if since and until and since > until:
        raise click.UsageError("--since is later than --until: nothing can lie between them")
    if since and since > utc_text(int(time.time() * 1000)):
        raise click.UsageError("--since has not come yet")
    daemon = ControlClient(load(config_path).control_socket, TIMEOUT_S)
    if at is not None:
        _show_then(daemon, host, at, xml=xml, json_output=json_output)
    elif between is not None:
        _show_differences(daemon, host, between, json_output=json_output)
    else:
        asked = {"host": host, "since": since, "until": until, "kind": kind, "limit": str(limit)}
        answer = daemon.ask("history", **{name: text for name, text in asked.items() if text})
        if host and not answer.get("changes"):
            # Of a node that is there nothing may have happened in that time; of one that never was, nothing can.
            ask_about(daemon, host, "node")
        if json_output:
            print_json(answer)
        else:
            _show_changes(answer)


def _show_then(daemon: ControlClient, host: str, at: str, *, xml: bool, json_output: bool) -> None:
    if xml:
        document = daemon.ask("registration", at=at)["xml"]
        if json_output:
            print_json({"xml": document})
        else:
            click.echo(document, nl=False)
        return
    answer = [daemon.ask("node", host=host, at=at)] if host else daemon.ask("nodes", at=at)
    if json_output:
        print_json(answer)
    else:
        print_table(NODE_COLUMNS, [node_row(node) for node in worst_first(answer)], least=NODE_LEAST)


def _show_differences(
    daemon: ControlClient, host: str, between: tuple[str, str], *, json_output: bool
) -> None:
    answer = daemon.ask("differences", **dict(zip(("from", "to"), between, strict=True)))
    if host:
        answer["nodes"] = [node for node in answer["nodes"] if node.get("host") == host.lower()]
    if json_output:
        print_json(answer)
        return
    rows: list[Sequence[Any]] = []
    for node in answer["nodes"]:
        name = node.get("host")
        if node.get("before") != node.get("after"):
            rows.append((name, "status", node.get("before") or "not known", node.get("after") or "not known"))
        rows.extend((name, *_difference(change)) for change in node.get("changes") or [])
    if rows:
        print_table(("host", "what", "before", "after"), rows)
    else:
        click.echo("nothing differs")


def _difference(change: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return change.get("name"), change.get("before"), change.get("after")


def _show_changes(answer: Mapping[str, Any]) -> None:
    changes = list(reversed(answer.get("changes") or []))
    if changes:
        columns = ("when", "host", "kind", "what")
        print_table(
            columns,
            [
                (local_text(one.get("at")), one.get("host"), one.get("kind"), one.get("summary"))
                for one in changes
            ],
            least=("kind",),
        )
    else:
        click.echo("nothing happened in that time")
    begins_at = answer.get("begins_at")
    if answer.get("next_before") is not None:
        click.echo("esgf-gossip: there is more; narrow the time, or raise --limit", err=True)
    elif begins_at is not None and not changes:
        click.echo(f"esgf-gossip: the history begins at {local_text(begins_at)}", err=True)
