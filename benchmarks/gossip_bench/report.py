"""The table of results: rows to Markdown, which is also what a terminal shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gossip_bench.measures import MEASURES
from gossip_bench.rows import OURS, Row

HEAD = ("what", "N", "value", "min - max", "runs", "target", "met", "serf lan", "ratio", "serf wan", "again")


def header_line(header: Mapping[str, Any]) -> str:
    """Return machine, commit, date and seed in one line."""
    return (
        f"commit {header['commit']}; {header['cores']} cores, {header['machine']}; Python {header['python']}; "
        f"{header['date']}; seed {header['seed']}; {header['mode']}; {header['serf']}"
    )


def table(rows: Sequence[Row]) -> str:
    """
    Return the table: a line per measure and size, serf's medians beside ours.

    The order is that of ``MEASURES``; rows of other programs come after it in their own order.
    """
    others = {(row.system, row.key, row.nodes): row for row in rows if row.system != OURS}
    ours = [row for row in rows if row.system == OURS]
    ours += [row for row in others.values() if not row.system.startswith("serf")]
    known = list(MEASURES)
    ours.sort(key=lambda row: known.index(row.key) if row.key in MEASURES else len(known))
    lines = [HEAD]
    for row in ours:
        lan = others.get(("serf lan", row.key, row.nodes))
        wan = others.get(("serf wan", row.key, row.nodes))
        lines.append(_cells(row, None if lan is None else lan.median, None if wan is None else wan.median))
    return _drawn(_without_empty(lines))


def notes(rows: Iterable[Row], problems: Mapping[str, str]) -> list[str]:
    """Return what must be said beside the numbers, once each: notes of rows, and jobs that came to nothing."""
    said = dict.fromkeys(f"{row.key}, {row.system}: {row.note}" for row in rows if row.note)
    return [*said, *(f"{job}: {problem}" for job, problem in problems.items())]


def unmet(rows: Iterable[Row]) -> list[Row]:
    """Return our rows that miss their target."""
    rows = list(rows)
    lan = {(row.key, row.nodes): row.median for row in rows if row.system == "serf lan"}
    return [row for row in rows if row.verdict(lan.get((row.key, row.nodes))) == "NO"]


def _cells(row: Row, lan: float | None, wan: float | None) -> tuple[str, ...]:
    median = row.median
    worst = " worst" if row.judge_worst and row.most else ""
    return (
        row.title,
        str(row.nodes),
        "not available" if median is None else f"{row.judged:.{row.digits}f} {row.unit}{worst}",
        "" if median is None else f"{min(row.values):.{row.digits}f} - {max(row.values):.{row.digits}f}",
        str(len(row.values)),
        _target(row),
        row.verdict(lan),
        "" if lan is None else f"{lan:.{row.digits}f}",
        "" if lan is None or median is None or not lan else f"{median / lan:.2f}",
        "" if wan is None else f"{wan:.{row.digits}f}",
        row.repeat or f"--only {row.scenario} --nodes {row.nodes}",
    )


def _target(row: Row) -> str:
    parts = []
    if row.most is not None:
        parts.append(f"at most {row.most:g}" if row.most else "none")
    if row.most_of_serf is not None:
        parts.append(f"{row.most_of_serf:g} x serf")
    return ", ".join(parts)


def _without_empty(lines: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out the columns that say nothing in this table: serf's where it was not measured."""
    filled = [place for place in range(len(HEAD)) if any(line[place] for line in lines[1:])]
    return [tuple(line[place] for place in filled) for line in lines]


def _drawn(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([drawn[0], rule, *drawn[1:]])
