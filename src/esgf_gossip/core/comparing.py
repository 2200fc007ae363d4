"""
Anti-entropy as a part of the node: when roots are compared, and what follows where they differ.

What to send is worked out by ``reconciliation``; here is when, to whom and how often.
Source: docs/protocol.md, "Reconciliation".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from esgf_gossip.core import reconciliation
from esgf_gossip.core.effects import CompareRoots, Output, Send, StartTimer
from esgf_gossip.core.messages import Announce, Heads, Roots
from esgf_gossip.core.model import Link
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.sessions import Session, Sessions

COMPARE_LEAST_S: Final = 30.0
COMPARE_MOST_S: Final = 60.0
COMPARE_AGAIN_S: Final = 2.0


class Comparing:
    """The comparisons of one node; ``agreed`` names the peers that have shown our root since the start."""

    def __init__(self, registry: Registry, sessions: Sessions, random: Random, out: list[Output]) -> None:
        self.agreed: set[str] = set()
        self._registry = registry
        self._sessions = sessions
        self._random = random
        self._out = out

    def start(self) -> None:
        """Begin the comparisons with random peers."""
        wait_s = self._random.uniform(COMPARE_LEAST_S, COMPARE_MOST_S)
        self._out.append(StartTimer(CompareRoots(), wait_s))

    def due(self, link: Link | None) -> None:
        """Compare with a random peer, or once more with the one whose roots differed."""
        if link is None:
            self.start()
            candidates = self._sessions.open()
            session = self._random.choice(candidates) if candidates else None
        else:
            session = self._sessions.get(link)
            if session is not None:
                session.compare_pending = False
        if session is not None:
            session.roots_asked = True
            self._send(session, [Roots(reconciliation.roots_of(self._registry), is_reply=False)])

    def heard(self, session: Session, message: Roots) -> None:
        """Take a peer's roots and answer a question with ours."""
        if not message.is_reply:
            self._send(session, [Roots(reconciliation.roots_of(self._registry), is_reply=True)])
        elif not session.roots_asked:
            return  # a peer must not make us send all heads at its will
        else:
            session.roots_asked = False
        # One of the two sends the vector: the one that asked, when it hears that the roots differ.
        self.compare(session, message.roots, may_send_vector=message.is_reply)

    def compare(self, session: Session, roots: Mapping[int, bytes], *, may_send_vector: bool) -> None:
        """Compare a peer's roots with ours; where they differ, send all our heads if it is our turn."""
        ours = reconciliation.roots_of(self._registry)
        if not ours.keys() & roots.keys():
            return
        if not reconciliation.differ(ours, roots):
            self.agreed.add(session.peer)
            session.compare_wait_s = 0.0
        elif may_send_vector:
            self._send(session, reconciliation.vector(self._registry))
            self._compare_again(session)

    def page(self, session: Session, heads: Heads) -> None:
        """Take one page of a peer's heads; after the last, announce what we hold above them."""
        self._send(session, reconciliation.note_page(session, heads, self._registry))

    def _compare_again(self, session: Session) -> None:
        # Two nodes whose trust differs hold different tables for good: one chain of questions a link, slower
        # each time, then only the comparisons at random.
        session.compare_wait_s = max(COMPARE_AGAIN_S, 2 * session.compare_wait_s)
        if not session.compare_pending and session.compare_wait_s <= COMPARE_LEAST_S:
            session.compare_pending = True
            self._out.append(StartTimer(CompareRoots(session.link), session.compare_wait_s))

    def _send(self, session: Session, messages: Iterable[Roots | Heads | Announce]) -> None:
        self._out.extend(Send(session.link, message) for message in messages)
