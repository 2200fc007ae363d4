"""
The command ``check``: reads everything, starts nothing, one line per finding.

Only printing and the exit code live here; what is looked at: ``esgf_gossip.cli.findings``.
"""

from __future__ import annotations

from pathlib import Path

import click

from esgf_gossip.cli.failures import printable
from esgf_gossip.cli.findings import Finding, Level, all_findings, as_json
from esgf_gossip.cli.options import common_options, config_option, json_option
from esgf_gossip.cli.tables import print_json
from esgf_gossip.config import Config, ConfigError, load, to_toml

_VERDICTS = {Level.GOOD: "good", Level.ATTENTION: "attention", Level.CRITICAL: "cannot run"}


@click.command(epilog="Example: esgf-gossip check --config /etc/esgf-gossip/node.toml --show")
@click.option("--show", is_flag=True, help="Print the effective configuration, with all defaults, first.")
@config_option
@json_option
@common_options
def check(config_path: Path, *, show: bool, json_output: bool) -> int:
    """
    Read everything, start nothing: configuration, trust, site data, folders, ports.

    Prints one line per finding. Exit code: 0 good, 10 attention, 11 cannot run.
    """
    config: Config | None = None
    try:
        config = load(config_path)
        findings = list(all_findings(config))
    except ConfigError as error:
        findings = [Finding(Level.CRITICAL, "configuration", str(error))]
    worst = max((finding.level for finding in findings), default=Level.GOOD)
    if json_output:
        shown = {"configuration": to_toml(config)} if show and config else {}
        print_json({"verdict": _VERDICTS[worst], "findings": [as_json(item) for item in findings], **shown})
        return worst
    if show and config:
        click.echo(to_toml(config))
    for finding in findings:
        click.echo(printable(f"{finding.level.name.lower()}: {finding.part}: {finding.text}"))
    if worst is Level.GOOD:
        click.echo("good")
    return worst
