"""
The command for dataset events: dataset publish, new-version, retract, reinstate, list, show, and what operators need.

Only question, answer and print live here; the daemon decides. No Twisted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.failures import printable
from esgf_gossip.cli.history import INSTANT
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import local_text, print_json, print_pairs, print_table, text_of
from esgf_gossip.config import load
from esgf_gossip.core.packing import HOST
from esgf_gossip.tracking.event_lists import EVENTS_MOST
from esgf_gossip.tracking.events import REASON_CHARACTERS, EventType
from esgf_gossip.tracking.identity import IdentityError, parse_dataset, parse_record

TYPES: Final = [kind.value for kind in EventType]
LISTED: Final = 100
# Of a change key in a table; enough to name it by.
SHORT: Final = 12


class DatasetArgument(click.ParamType):
    """``DATASET.vVERSION``, ``DATASET#VERSION``, either with ``|DATA_NODE``."""

    name = "dataset"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the version's name, and the data node; empty: none is named."""
        try:
            if "|" in str(value):
                dataset, data_node = parse_record(str(value))
                return str(dataset), data_node
            return str(parse_dataset(str(value))), ""
        except IdentityError as error:
            self.fail(str(error), param, ctx)


class HostOption(click.ParamType):
    """The name of a host."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check a name; capitals are folded."""
        host = str(value).lower()
        if not HOST.fullmatch(host):
            self.fail(f"{value!r} is no name of a host", param, ctx)
        return host


def dataset_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the name of a version; the command gets ``named``."""
    return click.argument("named", type=DatasetArgument(), metavar="DATASET.vVERSION[|DATA_NODE]")(command)


def saying_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the name of a version and where its copy is."""
    data_node = click.option(
        "--data-node",
        type=HostOption(),
        metavar="HOST",
        help="Who serves the copy. Default: what is named after the bar, else the first of [tracking] data_nodes.",
    )
    return dataset_argument(data_node(config_option(json_option(common_options(command)))))


def _say(
    kind: EventType, named: tuple[str, str], data_node: str | None, config_path: Path, **words: Any
) -> Any:
    dataset, its_data_node = named
    daemon = ControlClient(load(config_path).control_socket)
    return daemon.ask(
        "dataset-say", type=kind.value, dataset=dataset, data_node=data_node or its_data_node, **words
    )


def _tell_said(answer: Mapping[str, Any], *, json_output: bool) -> None:
    if json_output:
        print_json(answer)
    else:
        click.echo(f"{printable(text_of(answer.get('dataset')))}: {printable(text_of(answer.get('status')))}")
    if not answer.get("written"):
        click.echo("esgf-gossip: that is said already; nothing was written", err=True)


@click.group(
    epilog="Example: esgf-gossip dataset retract CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.tas.gn.v20190308 "
    '--reason "wrong units" --config /etc/esgf-gossip/node.toml'
)
@common_options
def dataset() -> None:
    """
    Say and see what happened to datasets: new versions, retractions, replicas.

    What is said here stands in this node's log and is known to all nodes. Each judges it: the data node must be named in this
    node's certificate, and only the holder of the original may replace or retract it.
    """


@dataset.command("publish", epilog="Example: esgf-gossip dataset publish CMIP6.CMIP.X.Y.v20190308")
@saying_options
def publish(named: tuple[str, str], data_node: str | None, config_path: Path, *, json_output: bool) -> None:
    """Say that the original of a version is published here."""
    _tell_said(_say(EventType.PUBLISHED, named, data_node, config_path), json_output=json_output)


@dataset.command(
    "new-version",
    epilog="Example: esgf-gossip dataset new-version CMIP6.CMIP.X.Y.v20200101 --supersedes 20190308",
)
@click.option(
    "--supersedes",
    multiple=True,
    metavar="VERSION",
    help="A version that it replaces; repeatable. Default: all before it that are on record here.",
)
@saying_options
def new_version(
    named: tuple[str, str],
    data_node: str | None,
    supersedes: Sequence[str],
    config_path: Path,
    *,
    json_output: bool,
) -> None:
    """Say that a version is published here and replaces earlier ones. Who downloaded one of those is told."""
    answer = _say(EventType.NEW_VERSION, named, data_node, config_path, supersedes=list(supersedes))
    _tell_said(answer, json_output=json_output)


@dataset.command(
    "retract", epilog='Example: esgf-gossip dataset retract CMIP6.CMIP.X.Y.v20190308 --reason "wrong units"'
)
@click.option(
    "--reason", default="", metavar="TEXT", help=f"Why; one line of at most {REASON_CHARACTERS} characters."
)
@saying_options
def retract(
    named: tuple[str, str], data_node: str | None, reason: str, config_path: Path, *, json_output: bool
) -> None:
    """
    Say that a version is retracted. Who downloaded it is told, with the reason.

    Where this node holds a replica, and nobody has the original on record, it is one voice: most holders must say it.
    """
    answer = _say(EventType.RETRACTED, named, data_node, config_path, reason=reason)
    _tell_said(answer, json_output=json_output)


@dataset.command("reinstate", epilog="Example: esgf-gossip dataset reinstate CMIP6.CMIP.X.Y.v20190308")
@click.option("--reason", default="", metavar="TEXT", help="Why; one line.")
@saying_options
def reinstate(
    named: tuple[str, str], data_node: str | None, reason: str, config_path: Path, *, json_output: bool
) -> None:
    """Say that a retracted version is good again. Who downloaded it is told."""
    answer = _say(EventType.REINSTATED, named, data_node, config_path, reason=reason)
    _tell_said(answer, json_output=json_output)


@dataset.command("unpublish", epilog="Example: esgf-gossip dataset unpublish CMIP6.CMIP.X.Y.v20190308")
@saying_options
def unpublish(named: tuple[str, str], data_node: str | None, config_path: Path, *, json_output: bool) -> None:
    """Say that the original is served no more, without any fault of it. Nobody is told."""
    _tell_said(_say(EventType.UNPUBLISHED, named, data_node, config_path), json_output=json_output)


@dataset.command("replicated", epilog="Example: esgf-gossip dataset replicated CMIP6.CMIP.X.Y.v20190308")
@saying_options
def replicated(
    named: tuple[str, str], data_node: str | None, config_path: Path, *, json_output: bool
) -> None:
    """Say that this node serves a copy of another's version. It is warned when the original is retracted."""
    _tell_said(_say(EventType.REPLICATED, named, data_node, config_path), json_output=json_output)


@dataset.command(
    "replica-removed", epilog="Example: esgf-gossip dataset replica-removed CMIP6.CMIP.X.Y.v20190308"
)
@saying_options
def replica_removed(
    named: tuple[str, str], data_node: str | None, config_path: Path, *, json_output: bool
) -> None:
    """Say that this node serves its copy no more."""
    _tell_said(_say(EventType.REPLICA_REMOVED, named, data_node, config_path), json_output=json_output)


@dataset.command(
    "list", epilog="Example: esgf-gossip dataset list --project CMIP6 --type retracted --since yesterday"
)
@click.option("--project", default="", metavar="P", help="Only of this project.")
@click.option("--type", "kind", type=click.Choice(TYPES), default=None, help="Only of this type.")
@click.option("--since", type=INSTANT, metavar="TIME", help="Only what came to count from then on.")
@click.option("--quarantined", is_flag=True, help="Show in their place what does not count, and why.")
@click.option(
    "--limit", type=click.IntRange(1, EVENTS_MOST), default=LISTED, show_default=True, help="At most so many."
)
@config_option
@json_option
@common_options
def list_events(
    project: str,
    kind: str | None,
    since: str | None,
    limit: int,
    config_path: Path,
    *,
    quarantined: bool,
    json_output: bool,
) -> None:
    """List events that count, in the order in which they came to: the newest, or the first since a time."""
    daemon = ControlClient(load(config_path).control_socket)
    if quarantined:
        _tell_quarantined(daemon.ask("dataset-quarantine"), json_output=json_output)
        return
    wish = {"project": project, "type": kind or "", "since": since or "", "limit": str(limit)}
    answer = daemon.ask("dataset-events", **{name: text for name, text in wish.items() if text})
    if json_output:
        print_json(answer)
        return
    rows = [
        (
            one.get("number"),
            local_text(one.get("at")),
            one.get("type"),
            one.get("dataset"),
            one.get("data_node"),
        )
        for one in answer.get("events") or []
    ]
    columns = ("number", "happened", "event", "dataset", "data node")
    print_table(columns, rows, least=("number", "happened"), none="no event of a dataset")


@dataset.command("quarantine", epilog="Example: esgf-gossip dataset quarantine")
@config_option
@json_option
@common_options
def quarantine(config_path: Path, *, json_output: bool) -> None:
    """List events that do not count here, the latest first, with their keys and why; accept KEY lets one count."""
    daemon = ControlClient(load(config_path).control_socket)
    _tell_quarantined(daemon.ask("dataset-quarantine"), json_output=json_output)


def _tell_quarantined(answer: Sequence[Mapping[str, Any]], *, json_output: bool) -> None:
    if json_output:
        print_json(answer)
        return
    rows = [
        (
            text_of(one.get("change_key"))[:SHORT],
            one.get("origin"),
            one.get("type"),
            one.get("dataset"),
            one.get("quarantine"),
        )
        for one in answer
    ]
    print_table(("key", "said by", "event", "dataset", "why not"), rows, none="nothing is in quarantine")


@dataset.command("show", epilog="Example: esgf-gossip dataset show CMIP6.CMIP.X.Y.v20190308")
@dataset_argument
@config_option
@json_option
@common_options
def show(named: tuple[str, str], config_path: Path, *, json_output: bool) -> None:
    """Show how a version stands, where copies are, and all that was said of it, what does not count too."""
    daemon = ControlClient(load(config_path).control_socket)
    answer = daemon.ask("dataset", dataset=named[0])
    if json_output:
        print_json(answer)
        return
    original = answer.get("original") or {}
    replicas = [text_of(one.get("data_node")) for one in answer.get("replicas") or []]
    print_pairs(
        {
            "dataset": answer.get("dataset"),
            "status": answer.get("status"),
            "since": local_text(answer.get("since")),
            "reason": answer.get("reason"),
            "successor": answer.get("successor"),
            "original": f"{text_of(original.get('data_node'))}, says {text_of(original.get('node'))}"
            if original
            else "not on record",
            "replicas": ", ".join(replicas),
        }
    )
    rows = [
        (
            local_text(one.get("at")),
            one.get("type"),
            one.get("data_node"),
            f"{text_of(one.get('origin'))} leaf {text_of(one.get('leaf'))}",
            text_of(one.get("change_key"))[:SHORT],
            "counts" if one.get("counts") else one.get("quarantine"),
        )
        for one in answer.get("history") or []
    ]
    click.echo()
    columns = ("happened", "event", "data node", "evidence", "key", "verdict")
    print_table(columns, rows, least=("key", "happened"), none="nothing was said of it")


@dataset.command("accept", epilog="Example: esgf-gossip dataset accept 5f0c11d2a3b4")
@click.argument("key")
@config_option
@json_option
@common_options
def accept(key: str, config_path: Path, *, json_output: bool) -> None:
    """
    Let an event in quarantine count, on this node alone, whatever speaks against it. Users of it are told.

    KEY is the beginning of its change key, 8 digits or more, as dataset quarantine shows it.
    """
    daemon = ControlClient(load(config_path).control_socket)
    answer = daemon.ask("dataset-accept", key=key)
    if json_output:
        print_json(answer)
        return
    for one in answer:
        words = (one.get("dataset"), one.get("type"), "said by", one.get("origin"))
        state = "counts" if one.get("counts") else f"does not count: {text_of(one.get('quarantine'))}"
        click.echo(printable(f"{' '.join(map(text_of, words))}: {state}"))
