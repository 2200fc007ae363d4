"""
The commands that ask the running daemon: status, nodes, services, show, explain, watch, reload, stop, leave.

Only question, answer and print live here; the daemon decides. No Twisted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from esgf_gossip.cli.control_client import ControlClient, Conversation
from esgf_gossip.cli.failures import CommandError, ExitCode, printable
from esgf_gossip.cli.live import watch_in_place, words_of
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import (
    local_text,
    print_json,
    print_json_line,
    print_pairs,
    print_table,
    size_text,
    text_of,
    worst_first,
)
from esgf_gossip.config import ConfigError, load
from esgf_gossip.esgf.health import Health
from esgf_gossip.esgf.reader_rules import is_host_name
from esgf_gossip.esgf.resources import CORES_MOST
from esgf_gossip.esgf.services import RULES
from esgf_gossip.views.explanation import by_observer
from esgf_gossip.views.node_json import utc_text
from esgf_gossip.web.dashboard.trust import certificate_body, trust_rows

# An orderly stop says goodbye to every peer and closes the database.
STOP_TIMEOUT_S = 30.0
# Somebody has pressed a key and waits.
COMPLETION_TIMEOUT_S = 1.0

NODE_COLUMNS = ("host", "status", "since", "types", "short name", "peer group")
NODE_LEAST = ("peer group", "short name", "types", "since")


def _daemon(config_path: Path, timeout_s: float = 10.0) -> ControlClient:
    return ControlClient(load(config_path).control_socket, timeout_s)


def complete_hosts(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the hosts that begin so, for the completion of shells; where no daemon answers, none."""
    try:
        answer = _daemon(context.params["config_path"], COMPLETION_TIMEOUT_S).ask("nodes")
    except (CommandError, ConfigError, OSError, KeyError):
        return []
    names = (text_of(node.get("host")) for node in list_of_nodes(answer))
    # A shell gets them: nothing but a host name may be among them.
    return [name for name in names if is_host_name(name) and name.startswith(begun.lower())]


@click.command(epilog="Example: esgf-gossip status --config /etc/esgf-gossip/node.toml --json")
@config_option
@json_option
@common_options
def status(config_path: Path, *, json_output: bool) -> None:
    """
    Show the state of this node: what it holds, its links, its certificate.

    The root is equal on all nodes that hold the same set.
    """
    answer = _daemon(config_path).ask("status")
    if json_output:
        print_json(answer)
    else:
        print_pairs(answer)


@click.command(epilog="Example: esgf-gossip nodes --certificates")
@click.option(
    "--certificates", is_flag=True, help="Show when each node's certificate ends, the next to end first."
)
@config_option
@json_option
@common_options
def nodes(config_path: Path, *, certificates: bool, json_output: bool) -> None:
    """
    Show the federation table: one line per node, this node included; those that are not up come first.

    Times are those of this host. With --json each node has its epoch and sequence too.
    """
    daemon = _daemon(config_path)
    if certificates:
        _show_certificates(daemon.ask("trust"), json_output=json_output)
        return
    answer = daemon.ask("nodes")
    if json_output:
        print_json(answer)
        return
    rows = [node_row(node) for node in worst_first(list_of_nodes(answer))]
    print_table(NODE_COLUMNS, rows, least=NODE_LEAST)


def _show_certificates(report: Mapping[str, Any], *, json_output: bool) -> None:
    rows = trust_rows(report)
    if json_output:
        print_json([certificate_body(row) for row in rows])
        return
    now_ms = int(time.time() * 1000)
    columns = ("host", "ends", "days left", "issued by", "bundle", "CRLs behind")
    print_table(
        columns,
        [
            (
                row.host,
                "" if row.not_after_ms is None else local_text(utc_text(row.not_after_ms)),
                row.days_left(now_ms),
                row.issuer,
                f"{row.bundle or ''}{' (old)' if row.is_behind_bundle else ''}",
                row.crls_behind or "",
            )
            for row in rows
        ],
        least=("issued by", "CRLs behind", "bundle", "days left"),
    )


def node_row(node: Mapping[str, Any]) -> list[Any]:
    """Return one line of the federation table, in the order of ``NODE_COLUMNS``."""
    return [
        text_of(node.get("host")) + (" (forked)" if node.get("forked") else ""),
        node.get("status"),
        local_text(node.get("since")),
        *(node.get(key) for key in ("node_types", "short_name", "peer_group")),
    ]


@click.command(epilog="Example: esgf-gossip services --type IndexService --health down")
@click.option(
    "--type",
    "service_type",
    type=click.Choice([rule.type for rule in RULES], case_sensitive=False),
    metavar="TYPE",
    help="Only services of this type, such as IndexService.",
)
@click.option(
    "--health", type=click.Choice([one.value for one in Health]), help="Only services of this health."
)
@click.option(
    "--list",
    "list_name",
    metavar="FILE",
    help="Show who is in a list and who was left out and why: esgf_shards.xml (search), esgf_idp.xml, esgf_ats.xml, ...",
)
@click.option(
    "--resources", is_flag=True, help="Show who has room: one line per node that tells its resources."
)
@click.option(
    "--min-cores-free",
    type=click.IntRange(0, CORES_MOST),
    metavar="N",
    help="Only nodes that say that they have so many cores free.",
)
@config_option
@json_option
@common_options
def services(
    service_type: str | None,
    health: str | None,
    list_name: str | None,
    min_cores_free: int | None,
    config_path: Path,
    *,
    resources: bool,
    json_output: bool,
) -> None:
    """
    Show the services of the federation, one line each, with their health.

    unknown: nobody looked; such a service stays in every list. With --resources the
    nodes that have such services, those with the most free cores first.
    """
    if list_name is not None:
        if service_type or health or resources or min_cores_free is not None:
            raise click.UsageError(
                "--list goes without the other options: it shows all who are in and who are not"
            )
        _show_list(_daemon(config_path).ask("list", name=list_name), json_output=json_output)
        return
    asked = {
        "type": service_type or "",
        "health": health or "",
        "min_cores_free": "" if min_cores_free is None else str(min_cores_free),
    }
    answer = _daemon(config_path).ask("resources" if resources else "services", **asked)
    if json_output:
        print_json(answer)
        return
    if resources:
        columns = ("host", "status", "cores free", "of", "memory free", "of", "storage free", "of", "compute")
        print_table(
            columns,
            [_room_row(one) for one in answer],
            least=("compute", "of", "storage free", "memory free"),
            none="no node has such room",
        )
        return
    columns = ("type", "host", "health", "since", "endpoint", "reason")
    print_table(
        columns,
        [
            [local_text(one.get(column)) if column == "since" else one.get(column) for column in columns]
            for one in answer
        ],
        least=("reason", "since"),
        none="no service is like that",
    )


def _show_list(answer: Mapping[str, Any], *, json_output: bool) -> None:
    if json_output:
        print_json(answer)
        return
    rows = [
        (state, place.get("host"), place.get("reason"))
        for state, name in (("left out", "left_out"), ("in use", "listed"))
        for place in answer.get(name) or []
    ]
    print_table(("list", "host", "why"), rows, f"{answer.get('name')}, of every {answer.get('service')}")


def _room_row(node: Mapping[str, Any]) -> list[Any]:
    room = node.get("resources") or {}
    return [
        node.get("host"),
        node.get("status"),
        room.get("cores_free"),
        room.get("cores"),
        *(
            size_text(room.get(name))
            for name in ("memory_free_bytes", "memory_bytes", "storage_free_bytes", "storage_bytes")
        ),
        room.get("compute_endpoints"),
    ]


@click.command(epilog="Example: esgf-gossip show esgf-data.dkrz.de")
@click.argument("host", shell_complete=complete_hosts)
@config_option
@json_option
@common_options
def show(host: str, config_path: Path, *, json_output: bool) -> None:
    """Show one node of the federation."""
    answer = ask_about(_daemon(config_path), host, "node")
    if json_output:
        print_json(answer)
        return
    print_pairs({name: value for name, value in answer.items() if name != "services"})
    services = answer.get("services") or []
    if services:
        click.echo()
        columns = ("type", "endpoint", "health", "since", "reason")
        rows = [
            [local_text(one.get(column)) if column == "since" else one.get(column) for column in columns]
            for one in services
        ]
        print_table(columns, rows, least=("reason", "since"))


@click.command(epilog="Example: esgf-gossip explain esgf-data.dkrz.de")
@click.argument("host", shell_complete=complete_hosts)
@config_option
@json_option
@common_options
def explain(host: str, config_path: Path, *, json_output: bool) -> None:
    """
    Show why a node has its status: who watches it and what each of them says.

    With --json the signed digests of all observers come with it, in base64, as the evidence.
    """
    answer = ask_about(_daemon(config_path), host, "explain")
    if json_output:
        print_json(answer)
        return
    shown = {name: answer.get(name) for name in ("host", "status", "since", "reason")}
    print_pairs({**shown, "since": local_text(answer.get("since"))})
    observers = by_observer(answer.get("observers") or [])
    if observers:
        click.echo()
        columns = ("observer", "vote", "hears nothing since", "signed at", "stands in for")
        rows = [_vote_row(observer) for observer in observers]
        least = ("stands in for", "signed at", "hears nothing since")
        print_table(columns, rows, least=least if any(row[-1] for row in rows) else least[1:])


def _vote_row(observer: Mapping[str, Any]) -> list[Any]:
    report, evidence = observer.get("report") or {}, observer.get("evidence") or {}
    return [
        *(observer.get(name) for name in ("host", "vote")),
        local_text(report.get("since")),
        local_text(evidence.get("issued_at")),
        observer.get("stands_in_for"),
    ]


def ask_about(daemon: ControlClient, host: str, command: str) -> Any:
    """
    Ask for something of one node.

    Raises:
        CommandError: NOT_FOUND where the daemon knows no such node.
    """
    try:
        return daemon.ask(command, host=host)
    except CommandError as error:
        if error.code is not ExitCode.REFUSED:
            raise
        # The one thing a daemon refuses here is a name it does not hold; it says where to look.
        raise CommandError(str(error), "", "", ExitCode.NOT_FOUND) from None


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
    daemon = _daemon(config_path)
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
    answer = _daemon(config_path, STOP_TIMEOUT_S).ask("reload")
    refused = answer.get("refused", [])
    code = ExitCode.REFUSED if refused else ExitCode.DONE
    if json_output:
        print_json(answer)
        return code
    changed = [text_of(item) for item in answer.get("changed", [])]
    click.echo(f"changed: {printable(', '.join(changed))}" if changed else "nothing has changed")
    for level, lines in (("error", refused), ("attention", answer.get("findings", []))):
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


def list_of_nodes(answer: Any) -> list[Mapping[str, Any]]:
    """Take the list of nodes, bare or under its name."""
    found = answer.get("nodes", []) if isinstance(answer, Mapping) else answer
    return [node for node in found or [] if isinstance(node, Mapping)]
