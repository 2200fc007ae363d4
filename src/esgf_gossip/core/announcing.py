"""
Telling peers what we hold: at once after a rest, together in a burst.

Part of the node: appends to its output. A change alone is announced the moment it
is whole; what follows within a few hundredths of a second goes into one message a
peer, by when many of them have announced it themselves.
Source: docs/protocol.md, "Fetching".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from esgf_gossip.core.effects import AnnounceHeads, Output, Send, StartTimer
from esgf_gossip.core.model import Head, Moment
from esgf_gossip.core.reconciliation import announcements
from esgf_gossip.core.sessions import Sessions
from esgf_gossip.core.table import Table

# Far below what a change takes to reach everybody; at a start of fifty nodes it halves their work.
BURST_S: Final = 0.03


class Announcing:
    """The announcements of one node."""

    def __init__(self, table: Table, sessions: Sessions, out: list[Output]) -> None:
        self._table = table
        self._sessions = sessions
        self._out = out
        self._told_at_s: float | None = None
        self._waiting: dict[str, None] = {}

    def announce(self, head: Head, at: Moment) -> None:
        """Tell all who may lack it of a line that was just accepted, now or with others in a moment."""
        rests_s = BURST_S if self._told_at_s is None else at.mono_s - self._told_at_s
        if not self._waiting and not 0 <= rests_s < BURST_S:
            self._tell([head], at)
            return
        if not self._waiting:
            self._out.append(StartTimer(AnnounceHeads(), BURST_S - rests_s))
        self._waiting[head.origin] = None

    def due(self, at: Moment) -> None:
        """Tell what has come together, as it is held now."""
        waiting, self._waiting = self._waiting, {}
        heads = (self._table.head(origin) for origin in waiting)
        self._tell([head for head in heads if head is not None], at)

    def _tell(self, heads: Sequence[Head], at: Moment) -> None:
        self._told_at_s = at.mono_s
        for session in self._sessions:
            if not session.we_greeted:
                continue
            fresh = [
                head
                for head in heads
                if session.peer != head.origin
                and session.told.get(head.origin) != head
                and not session.has(head)
            ]
            session.told.update((head.origin, head) for head in fresh)
            self._out.extend(Send(session.link, page) for page in announcements(fresh))
