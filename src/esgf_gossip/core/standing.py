"""
The verdicts on all nodes, kept in step with the registry.

Reads the entries of all lines, counts by verdicts' rule, tells what changed. Knows
no link and makes no report. Source: docs/protocol.md, "Watching".
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from esgf_gossip.core.effects import Output, VerdictChanged
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.model import Digest
from esgf_gossip.core.observers import Observers, observers_of
from esgf_gossip.core.reachability import REACHABILITY, Reachability, Report, decode_reachability
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.verdicts import Tally, Verdict, judge, tally


class Standing:
    """
    Who is suspect or unreachable, as the registry has it.

    ``tallies`` holds those that are not clear; ``unreachable`` their names.
    """

    def __init__(self, registry: Registry, out: list[Output]) -> None:
        self.tallies: Mapping[str, Tally] = {}
        self.unreachable: frozenset[str] = frozenset()
        self.observers = Observers(frozenset())
        self._registry = registry
        self._out = out
        self._statements: dict[str, Reachability] = {}
        self._is_moved = False

    @property
    def needs_judging(self) -> bool:
        """Tell whether lines moved that a verdict may depend on."""
        return self._is_moved and bool(self._statements or self.tallies)

    def line_moved(self, origin: str) -> None:
        """Note that a line came, was replaced or withdrawn."""
        self._is_moved = True
        body = self._registry.entry(origin, REACHABILITY)
        statement = Reachability()
        if body is not None:
            # Words nobody understands count as none; the registry keeps and relays them all the same.
            with contextlib.suppress(WireError):
                statement = decode_reachability(body)
        if statement.is_empty:
            self._statements.pop(origin, None)
        else:
            self._statements[origin] = statement

    def roster_drawn(self, members: frozenset[str], mute: frozenset[str]) -> None:
        """Take the members and who of them cannot be dialled; the observers follow from them."""
        self._is_moved = True
        self.observers = observers_of(members, mute)

    def judge(self) -> bool:
        """Count again, tell each verdict that changed; return whether the set of unreachable nodes did."""
        self._is_moved = False
        before = self.tallies
        self.tallies = judge(self.observers, self._reported(), self._statements)
        for subject in sorted(before.keys() | self.tallies.keys()):
            verdict = _verdict(self.tallies, subject)
            if verdict is not _verdict(before, subject):
                self._out.append(VerdictChanged(subject, verdict))
        unreachable = frozenset(
            subject for subject, one in self.tallies.items() if one.verdict is Verdict.UNREACHABLE
        )
        has_changed = unreachable != self.unreachable
        self.unreachable = unreachable
        return has_changed

    def verdict(self, subject: str) -> Verdict:
        """Return the verdict on one node."""
        return _verdict(self.tallies, subject)

    def must_answer(self, subject: str) -> bool:
        """Tell whether a node that lives should say so: unreachable, or reported by none who could take it back."""
        found = self.tallies.get(subject)
        return found is not None and (
            found.verdict is Verdict.UNREACHABLE or found.reports.keys() <= self.unreachable
        )

    def tally(self, subject: str) -> Tally:
        """Return the count on one node, clear or not, as it was last made."""
        found = self.tallies.get(subject)
        if found is None:
            found = tally(subject, self.observers, {}, self._statements, self.unreachable)
        return found

    def statement(self, observer: str) -> Reachability:
        """Return what an observer says, empty for nothing."""
        return self._statements.get(observer, Reachability())

    def _reported(self) -> dict[str, dict[str, Report]]:
        reported: dict[str, dict[str, Report]] = {}
        for observer, statement in self._statements.items():
            for subject, report in statement.reports.items():
                line = self._registry.table.line(subject)
                if line is not None and is_about(report, line.digest):
                    reported.setdefault(subject, {})[observer] = report
        return reported


def is_about(report: Report, digest: Digest) -> bool:
    """Tell whether a report is about this digest of its subject; about any other it is void."""
    return (report.epoch, report.sequence) == (digest.epoch, digest.sequence) and not digest.leaving


def _verdict(tallies: Mapping[str, Tally], subject: str) -> Verdict:
    found = tallies.get(subject)
    return Verdict.CLEAR if found is None else found.verdict
