"""The command check of trust-admin: one line per finding, 10 for attention, 11 for critical."""

from __future__ import annotations

from typing import Final

import click

from esgf_gossip.cli.control_client import ControlClient, NoDaemonError
from esgf_gossip.cli.failures import CommandError
from esgf_gossip.cli.trust_options import node_place, options, print_result, settings
from esgf_gossip.config import ConfigError, load
from esgf_gossip.trust.checkup import check_administration, check_node
from esgf_gossip.trust.findings import ATTENTION, CRITICAL, Finding

EXIT_ATTENTION: Final = 10
EXIT_CRITICAL: Final = 11


class _Days(click.ParamType):
    """A number of days, with or without a d."""

    name = "days"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read 20 or 20d."""
        text = str(value).removesuffix("d")
        if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 3650:
            self.fail(f"{value!r} is no number of days, such as 20d", param, ctx)
        return int(text)


@click.command(
    epilog="Example: trust-admin check --config node.toml; or: trust-admin check --dir trust --private keys"
)
@click.option(
    "--expires-in",
    "days",
    type=_Days(),
    default="20d",
    show_default=True,
    metavar="DAYS",
    help="What ends within that is a finding.",
)
@options("dir", "config", "json")
def check(days: int) -> None:
    """Look at keys, certificates, CRLs, bundle, log and clock: of a node, or of the administration."""
    given = settings()
    if given.config is not None:
        place = node_place(given.config)
        found = list(check_node(place.trust_directory, place.host, place.federation, given.now_ms, days))
        found.extend(_of_daemon())
    else:
        found = list(check_administration(given.authority(), given.now_ms, days))
    lines = [f"{one.level:9}  {one.text}" for one in found] or ["OK"]
    print_result(lines, [{"level": one.level, "text": one.text} for one in found])
    levels = {one.level for one in found}
    if levels:
        click.get_current_context().exit(EXIT_CRITICAL if CRITICAL in levels else EXIT_ATTENTION)


def _of_daemon() -> list[Finding]:
    config = settings().config
    assert config is not None
    try:
        said = ControlClient(load(config).control_socket).ask("trust")
    except NoDaemonError:
        return []  # nothing runs, nothing is wrong with it
    except (CommandError, ConfigError) as error:
        return [Finding(ATTENTION, f"the daemon could not be asked: {error}")]
    found = [Finding(CRITICAL, text) for text in (said["error"], said["hook_error"]) if text]
    found.extend(Finding(ATTENTION, text) for text in said["alarms"])
    found.extend(_laggards(said["nodes"]))
    return found


def _laggards(nodes: list[dict[str, object]]) -> list[Finding]:
    newest = max((int(str(one["bundle"])) for one in nodes), default=0)
    late = [
        str(one["host"]) for one in nodes if one["not_after"] is not None and int(str(one["bundle"])) < newest
    ]
    return [Finding(ATTENTION, f"still without bundle {newest}: {', '.join(late)}")] if late else []
