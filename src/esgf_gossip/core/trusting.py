"""
How trust objects come in and go out: claimed by their heads, asked of one claimant at a time, judged, told on.

Part of the node: appends to its output. Trust goes before digests: a comparison that
finds both different settles trust first. Source: docs/protocol.md, "Trust objects".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from esgf_gossip.core.effects import (
    Output,
    PersistTrust,
    RemoveTrust,
    RetryTrust,
    Send,
    StartTimer,
    TrustAccepted,
    TrustConflict,
    TrustTurnedAway,
)
from esgf_gossip.core.errors import ObjectRefused
from esgf_gossip.core.limits import (
    MESSAGE_TRUST,
    TRUST_CLAIMS_PER_LINK,
    TRUST_OBJECTS,
    TRUST_PER_LINK,
    TRUST_REFUSALS_PER_LINK,
    VERDICTS_REMEMBERED,
)
from esgf_gossip.core.messages import Feature, GiveTrust, TrustHeads, TrustMessage, WantTrust
from esgf_gossip.core.model import Link, Moment, TrustHead, TrustObject
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.trust_lines import contradiction, in_order
from esgf_gossip.core.verification import TrustJudge

# Without an answer the next claimant is asked; the same object is given to a peer no sooner again.
TRUST_WAIT_S: Final = 1.0
# The end of the last page of all keys.
LAST: Final = "~"


class Trusting:
    """The trust objects of one node, as it learns and tells them."""

    def __init__(self, registry: Registry, sessions: Sessions, judge: TrustJudge, out: list[Output]) -> None:
        self._table = registry.trust
        self._sessions = sessions
        self._judge = judge
        self._out = out
        # Searches under way: which link is asked for the object under this key.
        self._asked: dict[str, Link] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()

    # ------------------------------------------------------------- life

    def restore(self, objects: Iterable[TrustObject], at: Moment) -> None:
        """Take back what a disk holds, judged anew."""
        self._table.adopt(objects)
        self._judge_held(at)

    def again(self, at: Moment) -> None:
        """Judge everything by the trust of today: what is held, and what was refused before."""
        self._refused.clear()
        for session in self._sessions:
            session.trust.refused.clear()
        self._judge_held(at)
        self._search_on()

    def _judge_held(self, at: Moment) -> None:
        for held in list(self._table):
            try:
                self._judge.judge_object(held.key, held.body, None, at.wall_ms)
            except ObjectRefused as refusal:
                # A clock set back must not lower what was reached.
                if refusal.lasting:
                    self._table.remove(held.key)
                    self._out.append(RemoveTrust(held.key))
                    self._out.append(TrustTurnedAway(held.key, "", refusal.reason))

    def offer(self, objects: Sequence[tuple[str, bytes]], at: Moment) -> None:
        """Take what this node's own files hold; what is refused is told once, until trust changes."""
        for key, body in sorted(objects, key=lambda one: in_order(one[0])):
            self._take(key, body, "", at)

    # ------------------------------------------------------------- claims

    def take(self, session: Session, message: TrustMessage, at: Moment) -> None:
        """Take one message about trust objects; without the feature on both sides it means nothing."""
        if Feature.TRUST not in session.features:
            return
        match message:
            case TrustHeads():
                self._claimed(session, message)
            case WantTrust():
                self._give(session, message.key, at)
            case GiveTrust():
                self._given(session, message, at)

    def tell_all(self, session: Session) -> None:
        """Send the heads of all objects: one page of every stretch of keys, the last to the end."""
        if Feature.TRUST not in session.features:
            return
        heads = self._table.heads()
        above = ""
        for start in range(0, max(1, len(heads)), MESSAGE_TRUST):
            page = tuple(heads[start : start + MESSAGE_TRUST])
            up_to = LAST if start + MESSAGE_TRUST >= len(heads) else page[-1].key
            self._out.append(Send(session.link, TrustHeads(page, above, up_to)))
            above = up_to

    def _tell(self, session: Session, heads: Sequence[TrustHead]) -> None:
        for start in range(0, len(heads), MESSAGE_TRUST):
            page = tuple(heads[start : start + MESSAGE_TRUST])
            self._out.append(Send(session.link, TrustHeads(page, "", "")))

    def _claimed(self, session: Session, message: TrustHeads) -> None:
        talk = session.trust
        for head in message.heads:
            if head.key in talk.claimed or len(talk.claimed) < TRUST_CLAIMS_PER_LINK:
                talk.claimed[head.key] = head
        if message.up_to and message.above == talk.awaited_above:
            # Answered only as a part of the page by page answer to our own question.
            talk.awaited_above = None if message.up_to == LAST else message.up_to
            page = {head.key: head for head in message.heads}
            lacking = [
                head
                for head in self._table.heads()
                if message.above < head.key <= message.up_to and head.is_above(page.get(head.key))
            ]
            self._tell(session, lacking)
        self._search(session)

    def _search(self, session: Session) -> None:
        talk = session.trust
        slots = TRUST_PER_LINK - sum(link == session.link for link in self._asked.values())
        if len(talk.refused) >= TRUST_REFUSALS_PER_LINK or not talk.claimed:
            return
        for key in sorted(talk.claimed, key=in_order):
            if slots <= 0:
                return
            head = talk.claimed[key]
            is_wanted = head.is_above(self._table.head(key)) and head.sha256 not in self._refused
            if is_wanted and key not in self._asked and key not in talk.refused:
                slots -= 1
                talk.asked.add(key)
                self._asked[key] = session.link
                self._out.append(Send(session.link, WantTrust(key)))
                self._out.append(StartTimer(RetryTrust(key, session.link), TRUST_WAIT_S))

    def retry(self, timer: RetryTrust) -> None:
        """Ask the next claimant, unless the object came or another is asked by now."""
        if self._asked.get(timer.key) == timer.link:
            del self._asked[timer.key]
            silent = self._sessions.get(timer.link)
            if silent is not None:
                # A claim that is not backed is none, until it is raised again; a late object still counts.
                silent.trust.claimed.pop(timer.key, None)
            self._search_on()

    def lost(self, link: Link) -> None:
        """Forget a link; what was asked of it is asked of the next claimant."""
        for key in [key for key, asked in self._asked.items() if asked == link]:
            del self._asked[key]
        self._search_on()

    def _search_on(self) -> None:
        for session in self._sessions:
            if session.is_open:
                self._search(session)

    # ------------------------------------------------------------- objects

    def _give(self, session: Session, key: str, at: Moment) -> None:
        held = self._table.get(key)
        given = session.trust.given_at_s
        if held is None:
            return
        before = given.get(key)
        if before is None or before[0] != held.head.sha256 or at.mono_s - before[1] >= TRUST_WAIT_S:
            given[key] = (held.head.sha256, at.mono_s)
            self._out.append(Send(session.link, GiveTrust(key, held.body)))

    def _given(self, session: Session, message: GiveTrust, at: Moment) -> None:
        key = message.key
        if key not in session.trust.asked:
            return
        session.trust.asked.discard(key)
        if self._asked.get(key) == session.link:
            del self._asked[key]
        claimed = session.trust.claimed.get(key)
        self._take(key, message.body, session.peer, at)
        if claimed is not None and claimed.is_above(self._table.head(key)):
            # Not what it claimed, or refused: no second question, unless the claim is raised again later.
            del session.trust.claimed[key]
            if sha256(message.body) in self._refused:
                session.trust.refused.add(key)
        self._search_on()

    def _take(self, key: str, body: bytes, peer: str, at: Moment) -> None:
        content = sha256(body)
        held = self._table.get(key)
        if content in self._refused or (held and held.head.sha256 == content):
            return
        try:
            if held is None and len(self._table) >= TRUST_OBJECTS:
                raise ObjectRefused(f"{TRUST_OBJECTS} trust objects are held, no more are taken")
            offered = self._judge.judge_object(key, body, None if held is None else held.body, at.wall_ms)
        except ObjectRefused as refusal:
            if refusal.lasting:
                self._refuse(content)
            if refusal.contradicts and held is not None:
                self._contradict(held, body)
            self._out.append(TrustTurnedAway(key, peer, refusal.reason, refusal.lasting))
            return
        if held is not None and held.number == offered.number:
            self._contradict(held, body)
        if self._table.merge(offered):
            self._accepted(offered)
        else:
            self._refuse(content)

    def _refuse(self, content: bytes) -> None:
        self._refused[content] = None
        if len(self._refused) > VERDICTS_REMEMBERED:
            self._refused.popitem(last=False)

    def _contradict(self, held: TrustObject, body: bytes) -> None:
        if not self._judge.contradicts(held.key, held.body, body):
            return
        proof = contradiction(held.key, held.number, held.body, body)
        if proof is not None and proof.key not in self._table:
            self._out.append(TrustConflict(held.key, held.number))
        if proof is not None and self._table.merge(proof):
            self._accepted(proof)

    def _accepted(self, held: TrustObject) -> None:
        self._out.append(PersistTrust(held))
        self._out.append(TrustAccepted(held))
        for session in self._sessions:
            known = session.trust.claimed.get(held.key)
            if session.is_open and Feature.TRUST in session.features and held.head.is_above(known):
                self._tell(session, [held.head])
