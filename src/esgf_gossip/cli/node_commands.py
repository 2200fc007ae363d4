"""
The commands that ask the running daemon: status, nodes, services, show, explain.

Only question, answer and print live here; the daemon decides. No Twisted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.failures import CommandError, ExitCode
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import (
    local_text,
    print_json,
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

# Somebody has pressed a key and waits.
COMPLETION_TIMEOUT_S = 1.0

NODE_COLUMNS = ("host", "status", "since", "types", "short name", "peer group")
NODE_LEAST = ("peer group", "short name", "types", "since")


def daemon_of(config_path: Path, timeout_s: float = 10.0) -> ControlClient:
    """Return a client of the daemon that a node.toml describes."""
    return ControlClient(load(config_path).control_socket, timeout_s)


def complete_hosts(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the hosts that begin so, for the completion of shells; where no daemon answers, none."""
    try:
        answer = daemon_of(context.params["config_path"], COMPLETION_TIMEOUT_S).ask("nodes")
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
    answer = daemon_of(config_path).ask("status")
    if json_output:
        print_json(answer)
    else:
        tracking = answer.pop("tracking", None)
        print_pairs({**answer, **({} if tracking is None else {"tracking": of_tracking(tracking)})})


def of_tracking(state: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is wrong with tracking, then what its parts have done, as far as they did anything."""
    parts: dict[Any, list[str]] = {}
    for part, text in state.get("faults", {}).items():
        parts.setdefault(text, []).append(part)
    # Parts that ask one database meet the same fault.
    faults = [f"{', '.join(names)}: {text}" for text, names in parts.items()]
    done = [
        f"{part} ({', '.join(f'{name} {value}' for name, value in figures.items() if value)})".replace(
            "_", " "
        )
        for part, figures in state.items()
        if part != "faults" and any(figures.values())
    ]
    return "; ".join([*faults, *done]) or "nothing yet"


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
    daemon = daemon_of(config_path)
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
        _show_list(daemon_of(config_path).ask("list", name=list_name), json_output=json_output)
        return
    asked = {
        "type": service_type or "",
        "health": health or "",
        "min_cores_free": "" if min_cores_free is None else str(min_cores_free),
    }
    answer = daemon_of(config_path).ask("resources" if resources else "services", **asked)
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
    answer = ask_about(daemon_of(config_path), host, "node")
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
    answer = ask_about(daemon_of(config_path), host, "explain")
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


def list_of_nodes(answer: Any) -> list[Mapping[str, Any]]:
    """Take the list of nodes, bare or under its name."""
    found = answer.get("nodes", []) if isinstance(answer, Mapping) else answer
    return [node for node in found or [] if isinstance(node, Mapping)]
