"""
How answers look on a terminal, in a pipe and as JSON.

Only text is made here. Everything another node chose is shown character by
character, never obeyed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from esgf_gossip.cli.failures import printable
from esgf_gossip.views.federation import SEVERITY


def print_json(data: Any) -> None:
    """Print one JSON document; ASCII, so that no terminal and no locale can trip over it."""
    click.echo(json.dumps(data, indent=2))


def print_json_line(data: Any) -> None:
    """Print one JSON document on one line, at once."""
    click.echo(json.dumps(data, separators=(", ", ": ")))
    sys.stdout.flush()


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names and values in two columns, times and sizes as people write them."""
    said = {_plain(name): printable(_said(name, value)) for name, value in pairs.items()}
    width = max((len(name) for name in said), default=0)
    for name, text in said.items():
        click.echo(f"{name:<{width}}  {text or '-'}")


def _plain(name: str) -> str:
    """Return the name of a field without its unit: the value says it."""
    return name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")


def _said(name: str, value: Any) -> str:
    match value:
        case Mapping():
            return ", ".join(f"{_plain(key)} {_said(key, item)}" for key, item in value.items())
        case str() if name.endswith(_TIMES):
            return local_text(value) or value
        case int() if name.endswith("_bytes"):
            return size_text(value)
        case int() if name.endswith("_s"):
            return span_text(value)
        case _:
            return text_of(value)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    *,
    least: Sequence[str] = (),
    none: str = "",
) -> None:
    """
    Print a table: drawn on a terminal, plain aligned columns with whole texts elsewhere.

    Args:
        columns: their heads.
        rows: their values.
        title: above a drawn table.
        least: columns that a narrow terminal goes without, the first to go first; no other text is ever cut.
        none: told on stderr where there is no row.
    """
    cells = [[printable(text_of(value)) for value in row] for row in rows]
    if not cells and none:
        click.echo(none, err=True)
    if sys.stdout.isatty():
        _draw(columns, cells, title, least)
        return
    lines = [[column.upper() for column in columns], *([cell or "-" for cell in row] for row in cells)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def text_of(value: Any) -> str:
    """Say a JSON value as people write it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case Mapping():
            return ", ".join(f"{name} {text_of(item)}" for name, item in value.items())
        case list() | tuple():
            return ", ".join(text_of(item) for item in value)
        case _:
            return str(value)


def local_text(stamp: Any) -> str:
    """Write a time stamp of the daemon in the host's own zone, to the second."""
    try:
        moment = datetime.fromisoformat(text_of(stamp))
    except ValueError:
        return ""
    return (
        (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        .astimezone()
        .strftime("%Y-%m-%d %H:%M:%S %Z")
    )


def worst_first(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return nodes in the order in which they need somebody's eye, as the dashboard has them, then by host."""
    places = {status.value: place for place, status in enumerate(SEVERITY)}
    return sorted(
        nodes,
        key=lambda node: (places.get(text_of(node.get("status")), len(places)), text_of(node.get("host"))),
    )


def size_text(size_bytes: Any) -> str:
    """Say a size as people write it, with two digits or more; what is no number is empty."""
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool):
        return ""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if size < 10 and unit else f"{size:.0f} {_UNITS[unit]}"


def span_text(seconds: int) -> str:
    """Say a span in its largest unit."""
    for size_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{int(seconds // size_s)} {unit}"
    return f"{int(seconds)} s"


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str, least: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - only where a table is drawn
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    widths = [max([len(head), *(len(row[place]) for row in cells)]) for place, head in enumerate(columns)]
    left_out = [
        place
        for place, head in enumerate(columns)
        if head in left_out_of(columns, widths, least, console.width)
    ]
    table = Table(
        title=Text(title) if title else None, title_justify="left", header_style="bold", box=SIMPLE_HEAD
    )
    for place, head in enumerate(columns):
        if place not in left_out:
            # What identifies stays on its line, so that it can be copied; the rest goes over several, nothing is cut.
            table.add_column(head, overflow="fold", no_wrap=head in _WHOLE)
    for row in cells:
        # Text, not str: rich would read [markup] in names that other nodes chose.
        table.add_row(
            *(
                Text(cell, style=STYLES.get(cell, ""))
                for place, cell in enumerate(row)
                if place not in left_out
            )
        )
    console.print(table)


def left_out_of(columns: Sequence[str], widths: Sequence[int], least: Sequence[str], room: int) -> list[str]:
    """Return the columns to go without, in their order, so that what stays fits into so many characters, if it can."""
    gone: list[str] = []
    for name in least:
        stays = [width + 2 for head, width in zip(columns, widths, strict=True) if head not in gone]
        if sum(stays) + 2 <= room:
            break
        gone.append(name)
    return gone


_TIMES = ("_at", "since", "not_after")
_WHOLE = ("host", "observer", "status", "health", "vote", "kind", "cores free")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
STYLES = {
    "up": "green",
    "suspect": "yellow",
    "unreachable": "bold red",
    "maintenance": "cyan",
    "stale": "dim",
    "left": "dim",
    "down": "bold red",
}
