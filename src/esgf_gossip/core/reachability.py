"""
What a node says of the nodes it watches: the entry ``reachability`` and its bytes.

Only the statement lives here; who counts is verdicts', when to report is watching's.
Source: docs/protocol.md, "Watching".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from esgf_gossip.core import limits, packing

REACHABILITY: Final = "reachability"
_ABSTAINS: Final = 1


@attrs.frozen
class Report:
    """
    An observer's word that it hears nothing of a subject; void once the subject has another digest.

    ``epoch`` and ``sequence`` are those of the subject's digest the observer
    held; ``since_ms`` is when the silence began, by the observer's clock.
    """

    subject: str
    epoch: int
    sequence: int
    since_ms: int


@attrs.frozen
class Reachability:
    """All an observer reports, by subject; ``abstains``: it cannot tell, its silence about others means nothing."""

    reports: Mapping[str, Report] = attrs.field(factory=dict)
    abstains: bool = False

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to say."""
        return not self.reports and not self.abstains


def encode_reachability(statement: Reachability) -> bytes:
    """Return the body of the entry; equal statements give equal bytes."""
    reports = [
        [report.subject, report.epoch, report.sequence, report.since_ms]
        for _, report in sorted(statement.reports.items())
    ]
    return packing.pack([_ABSTAINS if statement.abstains else 0, reports])


def decode_reachability(body: bytes) -> Reachability:
    """
    Read the body of an entry.

    Raises:
        WireError: it is no such statement, or reports more than REPORTS_MOST subjects.
    """
    flags, reports = packing.array(packing.unpack(body), 2, "reachability")[:2]
    read = packing.items(reports, _report, limits.REPORTS_MOST, "reports")
    return Reachability({report.subject: report for report in read}, bool(packing.number(flags) & _ABSTAINS))


def _report(value: object) -> Report:
    subject, epoch, sequence, since_ms = packing.array(value, 4, "report")[:4]
    return Report(
        packing.host(subject), packing.number(epoch), packing.number(sequence), packing.time_ms(since_ms)
    )
