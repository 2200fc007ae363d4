"""
Who counts as suspect or unreachable: the rule by which reports are counted.

A function of lines and entries alone, so every node with one root gives one
answer; no clock, no link of our own. Source: docs/protocol.md, "Watching".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from statistics import median_low

import attrs

from esgf_gossip.core.observers import Observers
from esgf_gossip.core.reachability import Reachability, Report


class Verdict(Enum):
    """What the reports on a node come to."""

    CLEAR = "clear"
    SUSPECT = "suspect"
    UNREACHABLE = "unreachable"


class Vote(Enum):
    """What one holder of a seat contributes."""

    REPORTS = "reports"
    HEARS = "does not report"
    ABSTAINS = "abstains"
    UNREACHABLE = "is unreachable itself"


@attrs.frozen
class Tally:
    """
    The count on one node: the votes of its seats' holders, by seat.

    ``reports`` are those counted, by observer; ``against`` how many seats no report
    came from and whose holder could have heard the node.
    """

    subject: str
    verdict: Verdict
    reports: Mapping[str, Report]
    against: int
    seats: int
    votes: tuple[tuple[int, str, Vote], ...]

    @property
    def since_ms(self) -> int:
        """The middle of the times at which the silence began, so that one wrong clock does not decide; 0 for none."""
        return median_low(report.since_ms for report in self.reports.values()) if self.reports else 0


Reported = Mapping[str, Mapping[str, Report]]
"""Reports that are not void, by subject, then by observer."""


def tally(
    subject: str,
    observers: Observers,
    reported: Reported,
    statements: Mapping[str, Reachability],
    unreachable: Collection[str],
) -> Tally:
    """
    Count the reports on one node, given who is unreachable already.

    A node is unreachable with R > S and R >= min(2, seats): R observers report, S seats have a holder who
    could and does not, and none who abstains. A report counts even if its observer is unreachable by now; a
    seat whose observer is unreachable passes to a stand-in, whose report counts too. One report alone is
    enough only where nobody else can watch the node.
    """
    on_subject = reported.get(subject, {})
    counted: dict[str, Report] = {}
    against = 0
    votes: list[tuple[int, str, Vote]] = []
    seats = observers.seats(subject, unreachable)
    for number, seat in enumerate(seats):
        # A seat that abstained never counts against again: a stand-in's doubt must not undo a verdict it rests on.
        has_spoken = False
        for holder in seat:
            report = on_subject.get(holder)
            if report is not None:
                vote, has_spoken = Vote.REPORTS, True
                counted[holder] = report
            elif holder in statements and statements[holder].abstains:
                vote, has_spoken = Vote.ABSTAINS, True
            elif holder in unreachable:
                vote = Vote.UNREACHABLE
            else:
                vote = Vote.HEARS
            votes.append((number, holder, vote))
        against += not has_spoken and seat[-1] not in unreachable
    for_it = len(counted)
    verdict = Verdict.SUSPECT if for_it else Verdict.CLEAR
    if for_it > against and for_it >= min(2, len(seats)):
        verdict = Verdict.UNREACHABLE
    return Tally(subject, verdict, counted, against, len(seats), tuple(votes))


def judge(
    observers: Observers, reported: Reported, statements: Mapping[str, Reachability]
) -> dict[str, Tally]:
    """
    Count the reports on all nodes that any are on; return the tallies of those that are not clear.

    The least fixpoint: nobody is unreachable at first, and who becomes so makes others so, never the reverse.
    """
    unreachable: set[str] = set()
    while True:
        found = {
            subject
            for subject in reported
            if subject not in unreachable
            and tally(subject, observers, reported, statements, unreachable).verdict is Verdict.UNREACHABLE
        }
        if not found:
            break
        unreachable |= found
    tallies = (tally(subject, observers, reported, statements, unreachable) for subject in sorted(reported))
    return {one.subject: one for one in tallies if one.verdict is not Verdict.CLEAR}
