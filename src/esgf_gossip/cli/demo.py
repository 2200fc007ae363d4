"""
The command ``demo``: a throw-away federation of real processes on this machine.

Only the course of a demo lives here: prepare, start, show, stop, say where to look.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from esgf_gossip.cli.failures import CommandError, ExitCode
from esgf_gossip.cli.options import common_options
from esgf_gossip.cli.tables import print_json_line

if TYPE_CHECKING:
    from esgf_gossip.demo.processes import DemoFederation
    from esgf_gossip.demo.story import Story
    from esgf_gossip.demo.table import Display
    from esgf_gossip.demo.watching import Watching

# A machine with two processors starts some two nodes a second.
_START_DEADLINE_S: Final = 60.0
# A busy machine is given more time than was asked for before a demo is called a failure.
_CONVERGE_GRACE_S: Final = 30.0
_PROGRESS_AFTER_S: Final = 2.0
# The ages in the table grow even while nothing happens.
_TICK_S: Final = 0.5


@click.command(epilog="Example: esgf-gossip demo --nodes 13 --seconds 20 --json")
@click.option(
    "--nodes", "count", type=click.IntRange(1, 500), default=5, show_default=True, help="How many nodes."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    help="Stop so long after all nodes answer, or once they agree if that is later. Default: at Ctrl-C.",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, 65535),
    help="First of 2 x N ports in a row, 3 x N + 3 with --tracking; default: free ones.",
)
@click.option(
    "--tracking",
    "is_tracking",
    is_flag=True,
    help="Play a story too: a dataset is published, replicated, downloaded, retracted; who has it gets one mail, "
    "to be read at a local page. Needs five nodes.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Where to put it; kept. Default: a temporary folder, removed at the end.",
)
@click.option(
    "--json",
    "json_output",
    is_flag=True,
    help="Print one JSON object as the last line of stdout; the rest goes to stderr.",
)
@common_options
def demo(
    count: int,
    seconds: float | None,
    base_port: int | None,
    directory: Path | None,
    *,
    is_tracking: bool,
    json_output: bool,
) -> int:
    """
    Run a throw-away federation on this machine, in real processes with mutual TLS, and show it live.

    The sites are those of real ESGF nodes; nothing leaves this machine. A node
    that dies stays down and is shown. Ends with 0 if all nodes once held the same
    set (and the story of --tracking came true), else with 1.
    """
    from esgf_gossip.demo.plan import DemoError  # noqa: PLC0415 - the other commands need none of it
    from esgf_gossip.demo.processes import DemoFederation  # noqa: PLC0415
    from esgf_gossip.demo.story import NODES, StoryError  # noqa: PLC0415
    from esgf_gossip.demo.watching import Watching  # noqa: PLC0415

    if is_tracking and count < NODES:
        raise CommandError(
            f"the story of --tracking needs {NODES} nodes",
            "--nodes",
            f"give at least {NODES}",
            ExitCode.USAGE,
        )
    folder = directory or Path(tempfile.mkdtemp(prefix="esgf-gossip-demo-"))
    try:
        with DemoFederation(folder, count, base_port, is_tracking=is_tracking) as federation:
            display = _display(json_output=json_output)
            watching = Watching(federation, display.say)
            try:
                with watching.stopping_on_signals():
                    federation.prepare(_progress(watching, display, count))
                    display.say(f"prepared {count} nodes in {federation.directory / 'nodes'}")
                    config = shlex.quote(str(federation.config_path(federation.hosts[0])))
                    display.say(f"ask one: esgf-gossip nodes --config {config}")
                    story = _story(federation, display)
                    _run(federation, watching, display, seconds, story)
                    display.say("stopping")
                    display.draw(watching)
                    federation.stop_all()
            finally:
                watching.close()
                display.close()
            return _conclude(federation, watching, story, kept=directory is not None, json_output=json_output)
    except StoryError as error:
        kept = "" if directory is None else f"{folder / 'nodes'}/*/daemon.log"
        raise CommandError(
            str(error), kept, "run again with --dir DIR and read daemon.log", ExitCode.INTERNAL
        ) from None
    except DemoError as error:
        raise CommandError(
            str(error), "", "", ExitCode.EXISTS if "already" in str(error) else ExitCode.USAGE
        ) from None
    finally:
        if directory is None:
            shutil.rmtree(folder, ignore_errors=True)


def _display(*, json_output: bool) -> Display:
    from esgf_gossip.demo.table import Lines, LiveTable  # noqa: PLC0415 - brings rich

    if json_output or not sys.stdout.isatty():
        return Lines(to_stderr=json_output)
    return LiveTable()


def _progress(watching: Watching, display: Display, count: int) -> Any:
    told_at_s = time.monotonic()

    def tell(number: int) -> None:
        nonlocal told_at_s
        if watching.is_stopped:
            raise click.Abort
        if time.monotonic() - told_at_s > _PROGRESS_AFTER_S:
            told_at_s = time.monotonic()
            display.say(f"prepared {number} of {count} nodes")

    return tell


def _story(federation: DemoFederation, display: Display) -> Story | None:
    """Make the story of a federation that tracks, and what it needs beside the daemons."""
    from esgf_gossip.demo.site_calls import Place  # noqa: PLC0415
    from esgf_gossip.demo.story import Story, write_users  # noqa: PLC0415

    services = federation.services
    if services is None:
        return None
    nodes = [federation.node(host) for host in federation.hosts]
    places = [
        Place(node.host, node.tracking.own, node.http_port, node.folder) for node in nodes if node.tracking
    ]
    write_users(places)
    federation.start_services()
    return Story(places, services.mailbox_url, services.recipients, display.say)


def _run(
    federation: DemoFederation,
    watching: Watching,
    display: Display,
    seconds: float | None,
    story: Story | None,
) -> None:
    """Start all nodes, then follow what they say until the time is over or a signal comes."""
    for host in federation.hosts:
        if watching.is_stopped:
            return
        federation.start(host)
        watching.follow(host)
    give_up_s = time.monotonic() + _START_DEADLINE_S
    until_s: float | None = None
    while not watching.is_stopped:
        now_s = time.monotonic()
        if story is not None and watching.converged_at_s is not None:
            story.step()
        # A story ends by itself, or with an error; without convergence it never begins.
        is_told = story is None or story.is_over or (now_s > give_up_s and watching.converged_at_s is None)
        if until_s is None and seconds is not None and is_told and (watching.is_settled or now_s > give_up_s):
            until_s = now_s + seconds
        if until_s is not None and now_s >= until_s and _is_over(watching, now_s - until_s):
            return
        left_s = _TICK_S if until_s is None or now_s >= until_s else until_s - now_s
        watching.step(min(_TICK_S, left_s))
        display.draw(watching)


def _is_over(watching: Watching, late_s: float) -> bool:
    """Say whether waiting longer than was asked for is of no use: all agree, a node has ended, or patience has."""
    all_run = all(row.is_running for row in watching.rows.values())
    return watching.converged_at_s is not None or not all_run or late_s >= _CONVERGE_GRACE_S


def _conclude(
    federation: DemoFederation, watching: Watching, story: Story | None, *, kept: bool, json_output: bool
) -> int:
    converged = watching.converged_at_s is not None
    if json_output:
        told = {} if story is None else {"tracking": story.report()}
        print_json_line(
            {
                **told,
                "nodes": len(federation.hosts),
                "converged": converged,
                "root": watching.root,
                "converge_seconds": _rounded(watching.converge_s),
                "converge_after_start_seconds": _rounded(watching.converge_after_start_s),
                "http": [federation.http_url(host) for host in federation.hosts],
                "directory": str(federation.directory),
            }
        )
    elif kept:
        click.echo(
            f"Look at {federation.directory / 'nodes'}: node.toml, daemon.log and state/ of every node."
        )
        config = shlex.quote(str(federation.config_path(federation.hosts[0])))
        click.echo(f"Start one again: esgf-gossip run --config {config}")
    else:
        click.echo(
            "Everything is removed; give --dir DIR to keep configuration, logs and files of the nodes."
        )
    if not converged:
        raise CommandError(_why_not(federation, watching, kept=kept), "", "", ExitCode.INTERNAL)
    return ExitCode.DONE


def _why_not(federation: DemoFederation, watching: Watching, *, kept: bool) -> str:
    rows = list(watching.rows.values())
    dead = [row.host for row in rows if not row.is_running]
    silent = [row.host for row in rows if row.is_running and row.ready_at_s is None]
    short = [
        f"{row.host} knows {row.nodes_known}"
        for row in rows
        if row.is_running and row.nodes_known != len(rows)
    ]
    what = (
        (dead and f"{', '.join(dead[:3])} ended: {_last_words(federation, dead[0])}")
        or (silent and f"{', '.join(silent[:3])} did not answer in time")
        or (short and f"of {len(rows)} nodes {', '.join(short[:3])}")
        or "the roots differ"
    )
    remedy = (
        f"read {federation.directory / 'nodes'}/*/daemon.log"
        if kept
        else "run again with --dir DIR and read daemon.log"
    )
    return f"the demo did not converge: {what}; {federation.directory}; {remedy}"


def _last_words(federation: DemoFederation, host: str) -> str:
    try:
        lines = federation.node(host).log_path.read_text(errors="replace").split("\n")
    except OSError:
        return "no log"
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "nothing in its log")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
