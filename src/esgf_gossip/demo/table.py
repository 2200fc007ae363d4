"""
The picture of a demo on a terminal: a live table, or lines where stdout is not one.

Only drawing lives here; the facts are ``demo.watching``'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from esgf_gossip.cli.failures import printable
from esgf_gossip.demo.watching import NodeRow, Watching, way_out

# Drawn at most so often, however many events come.
REDRAW_S: Final = 0.1
LINES_KEPT: Final = 6

_STYLES: Final = {"up": "green", "suspect": "yellow", "unreachable": "bold red", "maintenance": "cyan"}


class Display(Protocol):
    """Where a demo is shown: lines of what happens, and the picture of now."""

    def say(self, line: str) -> None:
        """Tell a line."""
        ...  # pragma: no cover

    def draw(self, watching: Watching) -> None:
        """Show the picture of now, if it is time."""
        ...  # pragma: no cover

    def close(self) -> None:
        """Leave the last picture and end."""
        ...  # pragma: no cover


class Lines:
    """A display without a terminal: what happens, a line each, with the seconds since the start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, to_stderr: bool = False) -> None:
        self._clock = clock
        self._began_at_s = clock()
        self._to_stderr = to_stderr

    def say(self, line: str) -> None:
        """Print a line at once."""
        click.echo(f"{self._clock() - self._began_at_s:8.2f} s  {printable(line)}", err=self._to_stderr)

    def draw(self, watching: Watching) -> None:
        """Show nothing: every change was told as a line."""

    def close(self) -> None:
        """Leave the lines."""


class LiveTable:
    """A display on a terminal: the table, redrawn in its place, and the last lines below it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: list[str] = []
        self._drawn_at_s = float("-inf")
        self._live = Live(console=Console(), auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def say(self, line: str) -> None:
        """Keep a line below the table; the oldest goes."""
        self._lines = [*self._lines, printable(line)][-LINES_KEPT:]

    def draw(self, watching: Watching) -> None:
        """Draw the table anew, unless that was done a moment ago."""
        if self._clock() - self._drawn_at_s < REDRAW_S:
            return
        self._drawn_at_s = self._clock()
        self._live.update(
            Group(summary(watching), table(watching), *(Text(line) for line in self._lines)), refresh=True
        )

    def close(self) -> None:
        """Leave the last picture on the terminal."""
        self._live.stop()


def table(watching: Watching) -> Table:
    """Make the table of all nodes."""
    drawn = Table(header_style="bold", expand=False)
    # A host that is cut cannot be asked about.
    drawn.add_column("host", no_wrap=True, overflow="fold")
    for column in ("types", "status as seen"):
        drawn.add_column(column)
    for column in ("nodes", "root", "epoch age / seq", "links"):
        drawn.add_column(column, justify="right", no_wrap=True)
    drawn.add_column("HTTP", no_wrap=True)
    for row in watching.rows.values():
        drawn.add_row(*_cells(row, watching.status_seen(row.host)), style="" if row.is_running else "dim")
    return drawn


def summary(watching: Watching) -> Text:
    """Say in one line whether the federation has converged, and how fast."""
    running = [row for row in watching.rows.values() if row.is_running]
    answering = sum(row.ready_at_s is not None for row in running)
    if watching.converge_s is None:
        roots = len({row.root for row in running if row.root})
        return Text(
            f"{answering} of {len(watching.rows)} nodes answer, {roots} different roots", style="yellow"
        )
    text = f"converged {watching.converge_s:.2f} s after the start, {watching.converge_after_start_s:.2f} s after the last node answered"
    return Text(f"{text}; {len(running)} of {len(watching.rows)} nodes run", style="green")


def _cells(row: NodeRow, seen: str) -> tuple[Text, ...]:
    if row.is_running:
        status = Text(seen or ("starting" if row.ready_at_s is None else "-"), style=_STYLES.get(seen, ""))
    else:
        status = Text(f"{seen or '-'} ({way_out(row.exit_code)})", style="bold red")
    return (
        Text(row.host),
        Text(" ".join(row.types)),
        status,
        Text(str(row.nodes_known or "-")),
        Text(row.root[:8] or "-"),
        Text(f"{_age(row)} / {row.own.get('sequence', '-')}"),
        Text(str(row.own.get("links", "-"))),
        Text(row.http_url),
    )


def _age(row: NodeRow) -> str:
    """Say how long the present epoch lasts: every start begins one."""
    try:
        began = datetime.fromisoformat(str(row.own["started_at"]))
    except (KeyError, ValueError):
        return "-"
    seconds = max(0, int((datetime.now(UTC) - began).total_seconds()))
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
