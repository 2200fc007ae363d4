"""
The command ``maintenance``: planned downtime, announced to the whole federation.

Only question, answer and print live here; the daemon announces. No Twisted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.history import INSTANT
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import print_json, print_pairs
from esgf_gossip.config import load
from esgf_gossip.esgf.services import RULES
from esgf_gossip.views.node_json import stamp_ms, utc_text

_SPAN: Final = re.compile(r"([0-9]{1,6}) *(s|min|m|h|d)")
_UNITS_S: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


class Span(click.ParamType):
    """A length of time such as 90min, 2h or 1d; becomes milliseconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a text."""
        found = _SPAN.fullmatch(str(value).strip().lower())
        if found is None or int(found[1]) == 0:
            self.fail(f"{str(value)[:40]!r} is no length of time; write such as 90min, 2h or 1d", param, ctx)
        return int(found[1]) * _UNITS_S[found[2]] * 1000


@click.command(epilog='Example: esgf-gossip maintenance --for 2h --reason "new disks"')
@click.option("--for", "span_ms", type=Span(), metavar="SPAN", help="Announce so long: 90min, 2h, 1d.")
@click.option("--until", type=INSTANT, metavar="TIME", help="Announce up to then, in place of --for.")
@click.option(
    "--from", "begins_at", type=INSTANT, metavar="TIME", help="From then on; by default from now on."
)
@click.option("--reason", default="", help="One line for people.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice([rule.type for rule in RULES], case_sensitive=False),
    metavar="TYPE",
    help="Only services of this type; can be given again. By default all, and the node itself.",
)
@click.option("--end", is_flag=True, help="Announce that it is over.")
@config_option
@json_option
@common_options
def maintenance(
    span_ms: int | None,
    until: str | None,
    begins_at: str | None,
    reason: str,
    types: tuple[str, ...],
    config_path: Path,
    *,
    end: bool,
    json_output: bool,
) -> None:
    """
    Announce planned downtime, or show what is announced.

    While it lasts the node has the status maintenance on all nodes and its services are out of the lists, without an
    alarm, whether the daemon runs or not. It ends by itself. At most 30 days; a new window replaces the one before.
    """
    asked: dict[str, Any] = {}
    if end:
        if span_ms or until or begins_at or reason or types:
            raise click.UsageError("--end goes alone")
        asked = {"end": True}
    elif span_ms or until:
        if span_ms and until:
            raise click.UsageError("--for and --until exclude each other")
        begins_ms = int(time.time() * 1000) if begins_at is None else stamp_ms(begins_at)
        ends_at = until or utc_text(begins_ms + (span_ms or 0))
        asked = {"ends_at": ends_at, "begins_at": begins_at or "", "reason": reason, "types": list(types)}
    elif begins_at or reason or types:
        raise click.UsageError("say for how long: --for SPAN or --until TIME")
    answer = ControlClient(load(config_path).control_socket).ask("maintenance", **asked)
    if json_output:
        print_json(answer)
    else:
        _show(answer.get("maintenance"))


def _show(window: Mapping[str, Any] | None) -> None:
    if window is None:
        click.echo("no maintenance is announced")
    else:
        print_pairs({**window, "types": window.get("types") or "all, and the node itself"})
