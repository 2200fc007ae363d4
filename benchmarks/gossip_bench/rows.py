"""
One row of the table: what was measured, on how many nodes, of which system, with which target.

Rows are plain data and travel as JSON: every job is a command that prints lines
``{"rows": [...]}``, so further programs can add rows without knowing this one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import attrs
import cattrs

OURS = "esgf-gossip"


@attrs.frozen
class Row:
    """
    One measured thing.

    Args:
        key: ``scenario.measure``; rows of two systems with one key and one number of nodes are compared.
        title: the thing in words.
        nodes: size of the federation.
        unit: of all values.
        values: one per repetition; none: it could not be measured, ``note`` says why.
        system: who was measured.
        most: target for the judged value, in ``unit``; None: there is none.
        most_of_serf: target as a multiple of serf's median on the lan profile in the same run; None: there is none.
        judge_worst: the target holds for the largest value, not for the median.
        digits: decimals shown.
        note: what a reader must know.
        repeat: how to measure this row alone, if not by ``--only SCENARIO --nodes N``.
    """

    key: str
    title: str
    nodes: int
    unit: str
    values: tuple[float, ...] = ()
    system: str = OURS
    most: float | None = None
    most_of_serf: float | None = None
    judge_worst: bool = False
    digits: int = 2
    note: str = ""
    repeat: str = ""

    @property
    def scenario(self) -> str:
        """The scenario that measures it."""
        return self.key.partition(".")[0]

    @property
    def median(self) -> float | None:
        """The median; None without values."""
        return statistics.median(self.values) if self.values else None

    @property
    def judged(self) -> float | None:
        """The value that the target is about; None without values."""
        if not self.values:
            return None
        return max(self.values) if self.judge_worst else self.median

    def verdict(self, serf_median: float | None = None) -> str:
        """Say "yes" or "NO" to the targets; "" where there is none or nothing to judge."""
        bounds = [self.most]
        if self.most_of_serf is not None and serf_median is not None:
            bounds.append(self.most_of_serf * serf_median)
        held = [self.judged <= bound for bound in bounds if bound is not None and self.judged is not None]
        if not held:
            return ""
        return "yes" if all(held) else "NO"


def percentile(values: Sequence[float], percent: float) -> float:
    """
    Return the smallest value that at least so many per cent of all do not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values have no percentile")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def to_json(row: Row) -> dict[str, Any]:
    """Return a row as JSON takes it."""
    return attrs.asdict(row) | {"values": [round(value, 6) for value in row.values]}


def from_json(data: dict[str, Any]) -> Row:
    """
    Read a row that some program printed; unknown keys are left out.

    Raises:
        ValueError: a field is missing or of another type.
    """
    try:
        return cattrs.structure(data, Row)
    except cattrs.BaseValidationError as error:
        raise ValueError(f"no row of a benchmark: {cattrs.transform_error(error)}") from None
