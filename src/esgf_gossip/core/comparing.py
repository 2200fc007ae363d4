"""
Anti-entropy as a part of the node: when roots are compared, and what follows where they differ.

What to send is worked out by ``reconciliation`` and ``narrowing``; here is when, to whom and how often.
Source: docs/protocol.md, "Reconciliation".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final

from esgf_gossip.core import reconciliation
from esgf_gossip.core.buckets import SALT_BYTES
from esgf_gossip.core.effects import CompareRoots, Output, Send, StartTimer
from esgf_gossip.core.forking import Forking
from esgf_gossip.core.messages import Feature, Fingerprints, Heads, Level, LineKind, Message, Roots
from esgf_gossip.core.model import Head, Link, Moment
from esgf_gossip.core.narrowing import Listener, Teller
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.trusting import Trusting

COMPARE_LEAST_S: Final = 30.0
COMPARE_MOST_S: Final = 60.0
COMPARE_AGAIN_S: Final = 2.0
# A peer may make us begin, or answer a vector, so often: half of the time after which an honest one asks again.
SERVE_EVERY_S: Final = 1.0
# Digests wait so long for trust that differs: two round trips at any distance.
TRUST_FIRST_S: Final = 0.5
# Up to so many heads all of them are sent: 50 kB, and no further questions.
VECTOR_HEADS: Final = 500


class Comparing:
    """
    The comparisons of one node; ``agreed`` names the peers that have shown our root since the start.

    ``claim`` is told of each head that a peer holds.
    """

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        random: Random,
        out: list[Output],
        claim: Callable[[Session, Head, Moment], None],
        forking: Forking,
        trusting: Trusting,
    ) -> None:
        self.agreed: set[str] = set()
        self._registry = registry
        self._sessions = sessions
        self._random = random
        self._out = out
        self._claim = claim
        self._forking = forking
        self._trusting = trusting

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

    # ------------------------------------------------------------- roots

    def compare(self, session: Session, roots: Mapping[int, bytes], at: Moment, *, begins: bool) -> None:
        """Compare a peer's roots with ours; where they differ, begin if it is our turn, else await that the peer does."""
        ours = reconciliation.roots_of(self._registry)
        differing = reconciliation.differing(ours, roots)
        if not ours.keys() & roots.keys():
            return
        if not differing:
            self._agree(session)
        elif begins:
            self._begin(session, differing, roots, at)
            self._compare_again(session)
        else:
            self._listen(session, differing)

    def heard(self, session: Session, message: Roots, at: Moment) -> None:
        """Take a peer's roots: answer a question with ours; the one that answers begins, if the peer knows that."""
        if not message.is_reply:
            self._answer(session, message.roots, at)
            return
        if not session.roots_asked:
            return  # a peer must not make us send all heads at its will
        session.roots_asked = False
        if Feature.BUCKETS not in session.features:
            self.compare(session, message.roots, at, begins=True)
        elif not message.roots:
            self._agree(session)
        else:
            self._listen(session, message.roots)
            self._compare_again(session)

    def _answer(self, session: Session, roots: Mapping[int, bytes], at: Moment) -> None:
        ours = reconciliation.roots_of(self._registry)
        differing = reconciliation.differing(ours, roots)
        begins = Feature.BUCKETS in session.features
        self._send(session, [Roots(differing if begins else ours, is_reply=True)])
        if not differing and ours.keys() & roots.keys():
            self._agree(session)
        elif begins:
            self._begin(session, differing, roots, at)

    def _agree(self, session: Session) -> None:
        self.agreed.add(session.peer)
        session.agreed_root = self._registry.table.root
        session.compare_wait_s = 0.0

    def _compare_again(self, session: Session) -> None:
        # Two nodes whose trust differs hold different tables for good: one chain of questions a link, slower
        # each time, then only the comparisons at random.
        session.compare_wait_s = max(COMPARE_AGAIN_S, 2 * session.compare_wait_s)
        if not session.compare_pending and session.compare_wait_s <= COMPARE_LEAST_S:
            session.compare_pending = True
            self._out.append(StartTimer(CompareRoots(session.link), session.compare_wait_s))

    # ------------------------------------------------------------- heads

    def _begin(
        self, session: Session, differing: Mapping[int, bytes], theirs: Mapping[int, bytes], at: Moment
    ) -> None:
        if at.mono_s - session.begun_at_s < SERVE_EVERY_S:
            return
        session.begun_at_s = at.mono_s
        if LineKind.TRUST in differing:
            self._trusting.tell_all(session)
            if self._must_wait(session, (differing[LineKind.TRUST], theirs[LineKind.TRUST])):
                return
        if LineKind.FORKS in differing:
            self._forking.tell_all(session)
        if LineKind.DIGESTS in differing:
            heads = self._registry.table.heads()
            if Feature.BUCKETS in session.features and len(heads) > VECTOR_HEADS:
                session.teller = Teller(heads, self._random.randbytes(SALT_BYTES))
                self._send(session, [session.teller.opening()])
            else:
                self._send(session, reconciliation.vector(heads))

    def _must_wait(self, session: Session, roots: tuple[bytes, bytes]) -> bool:
        # Once for each difference: where it lasts, digests must not wait for ever.
        if Feature.TRUST not in session.features or session.trust.settled == roots:
            return False
        session.trust.settled = roots
        self._out.append(StartTimer(CompareRoots(session.link), TRUST_FIRST_S))
        return True

    def trust_changed(self, *, has_refused: bool) -> None:
        """Compare with every peer at once where something was refused before: it may be good now."""
        for session in self._sessions.open() if has_refused else ():
            session.roots_asked = True
            self._send(session, [Roots(reconciliation.roots_of(self._registry), is_reply=False)])

    def _listen(self, session: Session, differing: Mapping[int, bytes]) -> None:
        if LineKind.TRUST in differing:
            session.trust.awaited_above = ""
        if LineKind.FORKS in differing:
            session.forks.awaited_above = b""
        if LineKind.DIGESTS in differing:
            session.listener = Listener()

    def page(self, session: Session, page: Heads, at: Moment) -> None:
        """Take one page of a peer's heads as claims; after the last, announce what we hold above them."""
        for head in page.heads:
            self._claim(session, head, at)
        if session.teller is not None and session.teller.is_closing:
            session.teller.note_heads(page.heads)
            if page.is_last:
                fresh, above = session.teller.close()
                session.teller = None
                self._announce(session, fresh)
                self._send(session, [] if above is None else [above])
            return
        lacking = reconciliation.note_page(session, page, self._registry)
        if page.is_last and at.mono_s - session.vector_answered_at_s >= SERVE_EVERY_S:
            session.vector_answered_at_s = at.mono_s
            self._announce(session, lacking)

    def fingerprints(self, session: Session, message: Fingerprints, at: Moment) -> None:
        """
        Take one step of a comparison by fingerprints; one that is not under way is ignored.

        Raises:
            WireError: the step does not fit the one before.
        """
        teller, listener = session.teller, session.listener
        match message.level:
            case Level.BUCKETS if listener is not None and listener.is_opening:
                heads = self._registry.table.heads()
                if len(heads) > VECTOR_HEADS:
                    self._send(session, _some(listener.open(message, heads)))
                else:
                    session.listener = None
                    self._send(session, reconciliation.vector(heads))
            case Level.SUB_BUCKETS if teller is not None:
                self._send(session, _some(teller.narrow(message)))
            case Level.HEADS if listener is not None:
                matched = listener.match(message)
                if matched is not None:
                    lacking, heads = matched
                    self._send(session, [lacking, *reconciliation.vector(heads)])
            case Level.LACKING if teller is not None:
                teller.note_lacking(message)
            case Level.ABOVE if listener is not None:
                for head in listener.above(message):
                    self._claim(session, head, at)

    def _announce(self, session: Session, heads: Iterable[Head]) -> None:
        # Told before or not: the peer's own list shows that it did not take them.
        current = [head for one in heads if (head := self._registry.table.head(one.origin)) is not None]
        session.told.update({head.origin: head for head in current})
        self._send(session, reconciliation.announcements(current))

    def _send(self, session: Session, messages: Iterable[Message]) -> None:
        self._out.extend(Send(session.link, message) for message in messages)


def _some(message: Fingerprints | None) -> list[Fingerprints]:
    return [] if message is None else [message]
