"""
This node as an observer: beats to those it watches, and what it says of them.

Part of the node: appends to its output. Facts about silence become reports here;
how reports count is verdicts'. Source: docs/protocol.md, "Watching"; Lifeguard
(Dadgar et al. 2018) for the observer that doubts itself first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from esgf_gossip.core.effects import (
    CountAgain,
    MissAnswer,
    Output,
    RepeatReport,
    SayReachability,
    SendBeat,
    StartTimer,
    WatchTimer,
)
from esgf_gossip.core.limits import REPORTS_MOST
from esgf_gossip.core.links import Links
from esgf_gossip.core.model import Address, Moment
from esgf_gossip.core.observers import Duty
from esgf_gossip.core.reachability import Reachability, Report
from esgf_gossip.core.standing import is_about
from esgf_gossip.core.table import Table

BEAT_S: Final = 4.0
ANSWER_S: Final = 2.0
# A timer this late means that our own loop stood still: the silence is ours, not the others'.
LOOP_STALL_S: Final = 1.0
ABSTAIN_S: Final = 10.0
# Longer than a dial may hang: after a cut has healed each observer is linked again before it would repeat.
REPEAT_FIRST_S: Final = 12.0
REPEAT_MOST_S: Final = 600.0
# A stop for longer is no restart: whoever says more is believed this much.
AWAY_MOST_S: Final = 3600.0
# Who starts may be one of many that do: whom it has not heard yet it does not miss so soon.
# Standing in is another matter: somebody died since.
START_GRACE_S: Final = 30.0
# In doubt whether it is we who hear nothing, all others are asked; so long their answer may take.
OTHERS_ANSWER_S: Final = 0.5
# So long may a link take: hands are shaken over 150 ms and a lost segment or a full table of dials (dialling).
LINK_WAIT_S: Final = 2.0
# What happens in one moment, many links ending say, is said in one digest.
SAY_AFTER_S: Final = 0.05
# Digests about others: so many at once, then one a second; the federation's quota for an origin is twice that.
SAY_BURST: Final = 5
SAY_EVERY_S: Final = 1.0


@attrs.define
class _Watched:
    """One node we watch; ``silent_since_ms`` is None while it is heard, or never tried."""

    duty: Duty
    token: int
    silent_since_ms: int | None = None
    # Until then it is not missed: it said how long it is away, or we have just started.
    excused_until_s: float = 0.0
    # Until then its answer keeps us from reporting it again.
    held_until_s: float = 0.0
    answers: int = 0


class Watching:
    """
    The observer's side of a node.

    ``reports`` are those it makes now. ``say`` publishes its statement, None for nothing to say.
    """

    def __init__(
        self, table: Table, links: Links, out: list[Output], say: Callable[[Reachability, Moment], None]
    ) -> None:
        self.reports: dict[str, Report] = {}
        self._table = table
        self._links = links
        self._out = out
        self._say = say
        self._watched: dict[str, _Watched] = {}
        self._tokens = 0
        self._abstains_until_s = 0.0
        self._grace_until_s = 0.0
        # At a start nobody is linked, and nothing can be told yet; that is not worth a digest.
        self._is_alone, self._was_linked = True, False
        # Links stand and nobody is heard on any.
        self._is_deaf = False
        self._said = Reachability()
        self._say_pending = False
        self._said_at_s: deque[float] = deque(maxlen=SAY_BURST)
        self._must_answer = False

    def begin(self, remembered: Reachability, at: Moment) -> None:
        """Start, and keep what we reported before a restart until the subject is heard or answers."""
        self.reports = dict(remembered.reports)
        self._said = remembered
        self._grace_until_s = at.mono_s + START_GRACE_S

    # ------------------------------------------------------------- whom

    def assign(self, duties: Mapping[str, Duty], at: Moment) -> None:
        """Watch these nodes from now on, by subject."""
        for gone in self._watched.keys() - duties.keys():
            del self._watched[gone]
        for subject, duty in sorted(duties.items()):
            watched = self._watched.get(subject)
            if watched is not None:
                watched.duty = duty
                continue
            self._tokens += 1
            watched = self._watched[subject] = _Watched(duty, self._tokens)
            kept = self.reports.get(subject)
            if kept is not None:
                watched.silent_since_ms = kept.since_ms
            elif at.mono_s < self._grace_until_s and not duty.stands_in:
                self._excuse(subject, watched, self._grace_until_s - at.mono_s, at)
            # At once: who stands in for another should know soon.
            self._beat(subject, watched, at)
            if duty.stands_in and not self._links.sessions.of(subject):
                self._expect_link(subject, watched, at)
                self._dial(subject, at)
        self._settle(at)

    def due(self, timer: WatchTimer, at: Moment) -> None:
        """Take one timer of ours; a stale one does nothing."""
        match timer:
            case SendBeat():
                self._beat_due(timer, at)
            case MissAnswer():
                self._answer_due(timer, at)
            case RepeatReport():
                self._repeat_due(timer, at)
            case CountAgain():
                self._settle(at)  # unless a later stall keeps us out
            case SayReachability():
                self._say_due(at)

    # ------------------------------------------------------------- beats

    def _beat_due(self, timer: SendBeat, at: Moment) -> None:
        """Ask for a sign of life, unless the subject is not ours any more."""
        watched = self._watched.get(timer.subject)
        if watched is None or watched.token != timer.token:
            return
        self.timer_came(timer.due_s, at)
        if not self._links.sessions.of(timer.subject):
            self._expect_link(timer.subject, watched, at)
        self._beat(timer.subject, watched, at)

    def _beat(self, subject: str, watched: _Watched, at: Moment) -> None:
        sessions = self._links.sessions.of(subject)
        if sessions:
            self._links.ping(sessions[0], at)
            timer = MissAnswer(subject, watched.token, at.mono_s, at.mono_s + ANSWER_S)
            self._out.append(StartTimer(timer, ANSWER_S))
        after_s = self._until_beat_s(watched, sessions[0].clock_offset_ms if sessions else None, at)
        self._out.append(StartTimer(SendBeat(subject, watched.token, at.mono_s + after_s), after_s))

    def _until_beat_s(self, watched: _Watched, offset_ms: int | None, at: Moment) -> float:
        # The observers of one node take turns by its own clock: a silence is noticed by three of five within
        # 2.4 s and the wait for an answer, and a pause of 3 s by two at most, which are no majority.
        phase_s = watched.duty.seat * BEAT_S / watched.duty.seats
        now_s = (at.wall_ms + (offset_ms or 0)) / 1000
        after_s = (phase_s - now_s) % BEAT_S
        return after_s if after_s >= BEAT_S / 2 else after_s + BEAT_S

    def _answer_due(self, timer: MissAnswer, at: Moment) -> None:
        """Miss a node of which nothing at all was heard in time."""
        watched = self._watched.get(timer.subject)
        if watched is None or watched.token != timer.token or self.timer_came(timer.due_s, at):
            return
        sessions = self._links.sessions.of(timer.subject)
        if timer.by_link:
            if not sessions:
                self._missed(watched, at.mono_s - timer.since_s, at)
        elif sessions and all(session.heard_at_s <= timer.since_s for session in sessions):
            silent_s = at.mono_s - max(session.heard_at_s for session in sessions)
            if watched.silent_since_ms is not None:
                return
            if any(other.heard_at_s > timer.since_s for other in self._links.sessions.open()):
                self._missed(watched, silent_s, at)
            elif timer.others_asked:
                self._is_deaf = True
                self._settle(at)
            else:
                self._ask_others(timer, at)

    def _ask_others(self, timer: MissAnswer, at: Moment) -> None:
        # Nobody at all was heard meanwhile: cut off with our links half open, or only few that speak seldom.
        for other in self._links.sessions.open():
            if other.peer != timer.subject:
                self._links.ping(other, at)
        again = attrs.evolve(timer, due_s=at.mono_s + OTHERS_ANSWER_S, others_asked=True)
        self._out.append(StartTimer(again, OTHERS_ANSWER_S))

    def _missed(self, watched: _Watched, silent_s: float, at: Moment) -> None:
        if watched.silent_since_ms is None and at.mono_s >= watched.excused_until_s:
            watched.silent_since_ms = max(0, at.wall_ms - int(1000 * silent_s))
        self._settle(at)

    def heard(self, peer: str, at: Moment) -> None:
        """Note any frame of a peer: it lives, whatever was reported, and we hear."""
        if self._is_deaf:
            # One link speaks again, the others may need a while longer.
            self._is_deaf = False
            self._doubt(at)
        watched = self._watched.get(peer)
        if watched is None:
            return
        watched.answers = 0
        watched.excused_until_s = watched.held_until_s = 0.0
        if watched.silent_since_ms is not None:
            watched.silent_since_ms = None
            self._settle(at)

    # ------------------------------------------------------------- links

    def links_changed(self, at: Moment) -> None:
        """Note that a link came up or went: with none left we cannot tell who is silent, they or we."""
        is_alone = not self._links.sessions.is_any_open
        if self._is_alone != is_alone:
            self._is_alone = is_alone
            self._was_linked = True
            self._settle(at)

    def link_lost(self, peer: str, at: Moment) -> None:
        """Dial a node we watch at once when its last link is gone; a failure makes it missing."""
        watched = self._watched.get(peer)
        if watched is None or self._links.sessions.of(peer):
            return
        self._expect_link(peer, watched, at)
        if at.mono_s >= watched.excused_until_s:
            self._dial(peer, at)

    def _expect_link(self, subject: str, watched: _Watched, at: Moment) -> None:
        # A failed dial tells sooner, but a host that is gone answers no dial, another may have taken its address,
        # and a node that cannot be dialled has to dial us.
        timer = MissAnswer(subject, watched.token, at.mono_s, at.mono_s + LINK_WAIT_S, by_link=True)
        self._out.append(StartTimer(timer, LINK_WAIT_S))

    def _dial(self, subject: str, at: Moment) -> None:
        line = self._table.line(subject)
        if line is not None and not self._links.sessions.of(subject):
            self._links.hasten(line.digest.contact, at)

    def dial_failed(self, address: Address, at: Moment) -> None:
        """Miss the watched nodes that should answer at this address and have no link to us."""
        for subject, watched in self._watched.items():
            line = self._table.line(subject)
            is_there = line is not None and line.digest.contact == address
            if is_there and not self._links.sessions.of(subject):
                self._missed(watched, 0.0, at)
        self._settle(at)

    def excuse(self, peer: str, away_s: int, at: Moment) -> None:
        """Give a node that stops in good order the time it asked for."""
        watched = self._watched.get(peer)
        if watched is not None and away_s > 0:
            self._excuse(peer, watched, min(float(away_s), AWAY_MOST_S), at)

    def _excuse(self, subject: str, watched: _Watched, wait_s: float, at: Moment) -> None:
        watched.excused_until_s = at.mono_s + wait_s
        self._out.append(StartTimer(RepeatReport(subject, watched.token), wait_s))

    # ------------------------------------------------------------- doubt

    def timer_came(self, due_s: float, at: Moment) -> bool:
        """Abstain for a while if this timer is so late that our own loop stood still; tell whether it is."""
        if at.mono_s - due_s <= LOOP_STALL_S:
            return False
        self._doubt(at)
        return True

    def _doubt(self, at: Moment) -> None:
        self._links.forgive_silence(at)
        for subject, watched in self._watched.items():
            if subject not in self._said.reports:
                watched.silent_since_ms = None
        self._abstains_until_s = at.mono_s + ABSTAIN_S
        self._out.append(StartTimer(CountAgain(), ABSTAIN_S))
        self._settle(at)

    def _repeat_due(self, timer: RepeatReport, at: Moment) -> None:
        """Say again what was answered, if the node is still not heard."""
        watched = self._watched.get(timer.subject)
        if watched is not None and watched.token == timer.token:
            if watched.silent_since_ms is None:
                self.link_lost(timer.subject, at)
            self._settle(at)

    def line_moved(self, origin: str, at: Moment) -> None:
        """Take note of a newer digest of a node we report: that is its answer."""
        if origin in self.reports:
            self._settle(at)
        watched = self._watched.get(origin)
        if watched is not None and watched.silent_since_ms is not None:
            # It lives, and an observer that cannot be dialled would wait for its own turn.
            self._dial(origin, at)

    def answer(self, at: Moment) -> None:
        """Publish a newer digest soon: enough observers report us, and we live."""
        self._must_answer = True
        self._say_soon(at)

    # ------------------------------------------------------------- reports

    def _settle(self, at: Moment) -> None:
        """Bring the reports in step with the facts, and say what changed."""
        can_tell = not self._is_alone and not self._is_deaf and at.mono_s >= self._abstains_until_s
        for subject in list(self.reports):
            self._review(subject, at)
        for subject, watched in self._watched.items():
            line = self._table.line(subject)
            if (
                can_tell
                and watched.silent_since_ms is not None
                and subject not in self.reports
                and at.mono_s >= watched.held_until_s
                and line is not None
                and not line.digest.leaving
                and len(self.reports) < REPORTS_MOST
            ):
                self.reports[subject] = Report(
                    subject, line.digest.epoch, line.digest.sequence, watched.silent_since_ms
                )
        if self._statement(at) != self._said:
            self._say_soon(at)

    def _review(self, subject: str, at: Moment) -> None:
        """Withdraw a report on a node that is heard, has answered, or is not ours to watch."""
        watched, line = self._watched.get(subject), self._table.line(subject)
        if watched is None or watched.silent_since_ms is None or line is None:
            del self.reports[subject]
        elif not is_about(self.reports[subject], line.digest):
            report = self.reports.pop(subject)
            watched.answers += 1
            if watched.answers == 1 and line.digest.issued_at_ms <= report.since_ms:
                return  # its last words before the silence, late; only once: two clocks are compared
            # It says it lives and we do not hear it: a quarrel, carried on ever more rarely.
            hold_s = min(REPEAT_MOST_S, REPEAT_FIRST_S * 2.0 ** min(watched.answers - 1, 10))
            watched.held_until_s = at.mono_s + hold_s
            self._out.append(StartTimer(RepeatReport(subject, watched.token), hold_s))

    def _statement(self, at: Moment) -> Reachability:
        is_cut_off = self._is_alone and self._was_linked
        return Reachability(
            dict(self.reports), is_cut_off or self._is_deaf or at.mono_s < self._abstains_until_s
        )

    def _say_soon(self, at: Moment) -> None:
        if self._say_pending:
            return
        self._say_pending = True
        after_s = SAY_AFTER_S
        if len(self._said_at_s) == SAY_BURST:
            after_s = max(after_s, self._said_at_s[0] + SAY_BURST * SAY_EVERY_S - at.mono_s)
        self._out.append(StartTimer(SayReachability(), after_s))

    def _say_due(self, at: Moment) -> None:
        """Publish what we have to say now, if it is news or an answer."""
        self._say_pending = False
        statement = self._statement(at)
        if statement == self._said and not self._must_answer:
            return
        self._must_answer = False
        self._said = statement
        self._said_at_s.append(at.mono_s)
        self._say(statement, at)
