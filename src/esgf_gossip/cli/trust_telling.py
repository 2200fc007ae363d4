"""How a command of a node's side tells the daemon that runs there: by its control socket, if one answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from esgf_gossip.cli.control_client import ControlClient, NoDaemonError
from esgf_gossip.cli.failures import CommandError
from esgf_gossip.cli.trust_options import settings
from esgf_gossip.config import ConfigError, load
from esgf_gossip.trust.errors import TrustError

no_reload = click.option(
    "--no-reload",
    is_flag=True,
    help="Do not tell a running daemon; it looks at its files every second anyway.",
)


def tell_daemon(config: Path) -> tuple[str, str]:
    """
    Let a running daemon take in what was just written.

    Returns:
        One word (``reloaded``, ``refused``, ``not running``, ``unknown``), and one line for the administrator.
    """
    try:
        answer = ControlClient(load(config).control_socket).ask("reload")
    except NoDaemonError:
        return "not running", "no daemon runs here; it takes this in when it starts"
    except (CommandError, ConfigError) as error:
        return "unknown", f"the daemon could not be told ({error}); esgf-gossip reload --config {config}"
    if answer["refused"]:
        return "refused", f"the daemon does not take it: {'; '.join(answer['refused'])}"
    return "reloaded", "the running daemon has taken it, and tells the others"


def nodes_report() -> list[dict[str, Any]]:
    """
    Return what each node says of its trust, as the daemon of --config heard it.

    Raises:
        TrustError: E-USAGE without --config; E-NOTFOUND: it cannot be asked.
    """
    config = settings().config
    if config is None:
        raise TrustError("E-USAGE", "which node's daemon?", remedy="give --config node.toml of any node")
    try:
        return list(ControlClient(load(config).control_socket).ask("trust")["nodes"])
    except (CommandError, ConfigError) as error:
        raise TrustError("E-NOTFOUND", f"the daemon cannot be asked: {error}") from None
