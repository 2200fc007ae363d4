"""
Announce, then fetch: how lines come in.

An announcement is a claim; the newest digest is asked of one announcer, then of
the next, and taken with all its bodies or not at all. Only a verified digest
makes another old. An origin that publishes too much is fetched later, never
refused. Source: docs/protocol.md, "Fetching".
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from esgf_gossip.core import limits
from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.effects import (
    DigestTurnedAway,
    FetchDue,
    Output,
    RetryFetch,
    Send,
    StartTimer,
)
from esgf_gossip.core.errors import UnknownFormatError, WireError
from esgf_gossip.core.judging import Judging
from esgf_gossip.core.messages import Answer, Ask, Bodies, Want
from esgf_gossip.core.model import Digest, Head, Link, Moment, SignedDigest, VerifiedDigest
from esgf_gossip.core.quota import Quotas
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.verification import Verifier

ANSWER_WAIT_UNKNOWN_S: Final = 0.4
ANSWER_WAIT_MOST_S: Final = 10.0
# After so many questions without a useful answer the claim is dropped; anti-entropy raises it again.
QUESTIONS_PER_FETCH: Final = 12
ANSWER_BYTES: Final = limits.DIGEST_BYTES + limits.CHAIN_BYTES + limits.ENTRIES_TOTAL_BYTES + 4096


@attrs.define
class _Assembly:
    """The parts of one answer, until the last has come."""

    origin: str
    signed: SignedDigest | None = None
    chain: tuple[bytes, ...] = ()
    bodies: dict[bytes, bytes] = attrs.field(factory=dict)
    size_bytes: int = 0

    def add(self, bodies: tuple[bytes, ...]) -> None:
        self.size_bytes += sum(len(body) for body in bodies)
        if self.size_bytes > ANSWER_BYTES:
            raise WireError(f"an answer above {ANSWER_BYTES} bytes")
        for body in bodies:
            self.bodies[sha256(body)] = body


@attrs.define
class _Fetch:
    """The search for one origin's newest line."""

    head: Head
    candidates: deque[Link]
    request: int = 0
    asked: Link | None = None
    questions: int = 0
    line: VerifiedDigest | None = None
    bodies: dict[bytes, bytes] = attrs.field(factory=dict)
    # Every question of this search and whom it was put to: late answers are welcome, strange ones are not.
    asked_of: dict[int, Link] = attrs.field(factory=dict)

    def take(self, bodies: Iterable[tuple[bytes, bytes]]) -> int:
        """Keep the bodies, with their hashes, that the line names, no junk; return how many bytes are new."""
        assert self.line is not None
        named = {ref.sha256 for ref in self.line.digest.entries.values()}
        self.bodies = {content: body for content, body in self.bodies.items() if content in named}
        new = {content: body for content, body in bodies if content in named and content not in self.bodies}
        self.bodies.update(new)
        return sum(map(len, new.values()))


class Fetching:
    """
    All searches of a node.

    ``accept`` is called with a line that is whole; ``needs_bodies`` tells
    which lines must be; ``equivocated`` takes two verified digests of one number. ``out`` collects effects and notices in the order in
    which they arise.
    """

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        verifier: Verifier,
        out: list[Output],
        accept: Callable[[VerifiedDigest, dict[bytes, bytes], Moment], None],
        needs_bodies: Callable[[VerifiedDigest, Moment], bool],
        equivocated: Callable[[VerifiedDigest, VerifiedDigest], None],
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._out = out
        self._accept = accept
        self._needs_bodies = needs_bodies
        self._equivocated = equivocated
        self._fetches: dict[str, _Fetch] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        # Origins above their quota: searches that rest, and timers that are set, at most one an origin.
        self._quotas = Quotas()
        self._resting: set[str] = set()
        self._due: set[str] = set()
        self._assemblies: dict[tuple[Link, int, str], _Assembly] = {}
        self._judging = Judging(registry, verifier, out)
        self._questions_to: Counter[Link] = Counter()
        self._request = 0
        self._draining = False

    def forget_refusals(self) -> bool:
        """Judge everything anew: trust changed. Tell whether anything was refused before."""
        return self._judging.forget()

    # ------------------------------------------------------------- claims

    def claim(self, session: Session, head: Head, at: Moment) -> None:
        """Hear that a peer holds a line; ask for it if ours is below."""
        if not session.note_claim(head, self._registry.table):
            return
        if not head.is_above(self._registry.table.head(head.origin)):
            return
        if self._judging.is_settled(head, session.link):
            return  # it would be the same answer again
        fetch = self._fetches.get(head.origin)
        if fetch is None:
            fetch = self._fetches[head.origin] = _Fetch(head, deque())
            push_s = self._sessions.push_wait_s(head.origin, session)
            if push_s > 0.0:
                self._rest(head.origin, push_s)
        if head.is_above(fetch.head):
            fetch.head = head
        if session.link not in fetch.candidates:
            fetch.candidates.append(session.link)
        if head.origin in self._resting:
            return
        if fetch.asked is None and (head.origin not in self._waiting or self._is_askable(fetch)):
            self._ask_next(head.origin, fetch, at)

    def retry(self, origin: str, request: int, at: Moment) -> None:
        """Ask the next announcer if this request is still the current one."""
        fetch = self._fetches.get(origin)
        if fetch is not None and fetch.request == request and fetch.asked is not None:
            self._ask_next(origin, fetch, at)

    def due(self, origin: str, at: Moment) -> None:
        """Ask for the newest line of an origin whose search rests, if it has its turn by now."""
        self._due.discard(origin)
        fetch = self._fetches.get(origin)
        if fetch is None or origin not in self._resting:
            return
        # Each costs the origin one turn, so the newest is asked for first.
        for link in list(fetch.candidates):
            session = self._sessions.get(link)
            if session is not None and session.has(fetch.head):
                fetch.candidates.remove(link)
                fetch.candidates.appendleft(link)
        self._ask_next(origin, fetch, at)

    def _rest(self, origin: str, for_s: float) -> None:
        self._resting.add(origin)
        if origin not in self._due:
            self._due.add(origin)
            self._out.append(StartTimer(FetchDue(origin), for_s))

    def lost(self, link: Link, at: Moment) -> None:
        """Forget a link; what was asked of it is asked of the next announcer."""
        for key in [key for key in self._assemblies if key[0] == link]:
            del self._assemblies[key]
        for origin, fetch in list(self._fetches.items()):
            if link in fetch.candidates:
                fetch.candidates.remove(link)
            if fetch.asked == link:
                self._ask_next(origin, fetch, at)
            elif origin in self._resting and not fetch.candidates:
                self._drop(origin, at)
        self._ask_waiting(at)

    def _ask_next(self, origin: str, fetch: _Fetch, at: Moment) -> None:
        asked_before = fetch.asked
        self._set_asked(fetch, None)
        self._waiting.pop(origin, None)
        self._resting.discard(origin)
        for link in list(fetch.candidates):
            session = self._sessions.get(link)
            # A peer whose own announcement is by now below what we hold has nothing for us.
            if session is None or not self._may_help(session, fetch):
                fetch.candidates.remove(link)
        if not fetch.candidates or fetch.questions >= QUESTIONS_PER_FETCH:
            self._drop(origin, at)
            return
        wait_s = self._quotas.wait_s(origin, at.mono_s)
        if asked_before is None and fetch.line is None and wait_s > 0.0:
            self._rest(origin, wait_s)
            return
        if len(fetch.candidates) > 1 and fetch.candidates[0] == asked_before:
            fetch.candidates.rotate(-1)
        with_room = next((one for one in fetch.candidates if self._has_room(one)), None)
        if with_room is None or (asked_before is None and self._asking() > limits.FETCHES_AT_ONCE):
            self._waiting[origin] = None
            return
        fetch.candidates.remove(with_room)
        fetch.candidates.append(with_room)
        self._put_question(origin, fetch, with_room)

    def _put_question(self, origin: str, fetch: _Fetch, link: Link) -> None:
        session = self._sessions.get(link)
        assert session is not None
        self._set_asked(fetch, link)
        fetch.questions += 1
        self._request += 1
        fetch.request = self._request
        fetch.asked_of[fetch.request] = link
        self._out.append(Send(link, self._question(origin, fetch)))
        patience = 2.0 ** min(fetch.questions - 1, 4) if len(fetch.candidates) == 1 else 1.0
        wait_s = min(ANSWER_WAIT_MOST_S, self._answer_wait_s(session) * patience)
        self._out.append(StartTimer(RetryFetch(origin, fetch.request), wait_s))

    def _set_asked(self, fetch: _Fetch, link: Link | None) -> None:
        if fetch.asked is not None:
            self._questions_to[fetch.asked] -= 1
            if self._questions_to[fetch.asked] <= 0:
                del self._questions_to[fetch.asked]
        fetch.asked = link
        if link is not None:
            self._questions_to[link] += 1

    def _has_room(self, link: Link) -> bool:
        # One silent liar with thousands of claims must not hold up what others announce.
        return self._questions_to[link] < limits.FETCHES_PER_LINK

    def _may_help(self, session: Session, fetch: _Fetch) -> bool:
        known = session.known.get(fetch.head.origin)
        return fetch.line is not None or (
            known is not None and known.is_above(self._registry.table.head(fetch.head.origin))
        )

    def _question(self, origin: str, fetch: _Fetch) -> Ask | Want:
        if fetch.line is not None:
            missing = self._registry.missing(fetch.line.digest, fetch.bodies)
            return Want(fetch.request, tuple(missing[: limits.MESSAGE_HASHES]))
        held = self._registry.table.line(origin)
        if held is None:
            return Ask(fetch.request, origin, None, b"")
        return Ask(fetch.request, origin, held.head, held.digest.certificate_sha256)

    def _answer_wait_s(self, session: Session) -> float:
        if session.round_trip_s is None:
            return ANSWER_WAIT_UNKNOWN_S
        return 1.1 * session.round_trip_s + 0.05

    def _asking(self) -> int:
        return len(self._fetches) - len(self._waiting) - len(self._resting)

    def _drop(self, origin: str, at: Moment) -> None:
        fetch = self._fetches.pop(origin, None)
        if fetch is not None:
            self._set_asked(fetch, None)
        self._waiting.pop(origin, None)
        self._resting.discard(origin)
        self._ask_waiting(at)

    def _ask_waiting(self, at: Moment) -> None:
        if self._draining:
            return
        self._draining = True
        try:
            for origin in list(self._waiting):
                if self._asking() >= limits.FETCHES_AT_ONCE:
                    break
                fetch = self._fetches.get(origin)
                if fetch is not None and self._is_askable(fetch):
                    self._ask_next(origin, fetch, at)
        finally:
            self._draining = False

    def _is_askable(self, fetch: _Fetch) -> bool:
        return not fetch.candidates or any(self._has_room(link) for link in fetch.candidates)

    # ------------------------------------------------------------- answers

    def answer(self, session: Session, answer: Answer, at: Moment) -> None:
        """
        Take one part of an answer, or of an origin's own change sent unasked.

        Raises:
            WireError: the peer broke the protocol; the table is unchanged.
        """
        if answer.request == 0 and answer.origin != session.peer:
            raise WireError("only an origin sends its change unasked")
        key = (session.link, answer.request, answer.origin)
        assembly = self._assemblies.get(key)
        if assembly is None:
            fetch = self._fetches.get(answer.origin)
            if answer.request != 0 and (fetch is None or fetch.asked_of.get(answer.request) != session.link):
                return  # late: found elsewhere by now; or never asked
            assembly = _Assembly(answer.origin, answer.signed, answer.chain)
            if not answer.is_last:
                if (
                    sum(1 for held in self._assemblies if held[0] == session.link)
                    >= limits.ANSWERS_BEGUN_PER_PEER
                ):
                    raise WireError("too many answers begun and not ended")
                self._assemblies[key] = assembly
        assembly.add(answer.bodies)
        if answer.is_last:
            self._assemblies.pop(key, None)
            self._judge(session, assembly, at, unasked=answer.request == 0)

    def _judge(self, session: Session, assembly: _Assembly, at: Moment, *, unasked: bool) -> None:
        origin = assembly.origin
        fetch = self._fetches.get(origin)
        if assembly.signed is None:
            session.forget_claim(origin, self._registry.table)
            self._next_or_nothing(origin, fetch, session.link, at)
            return
        try:
            digest = decode_digest(assembly.signed.payload)
        except UnknownFormatError as error:
            self._judging.settle(sha256(assembly.signed.payload), session.link)
            self._out.append(DigestTurnedAway(origin, session.peer, str(error)))
            self._next_or_nothing(origin, fetch, session.link, at)
            return
        if digest.origin != origin:
            raise WireError(f"asked about {origin}, answered about {digest.origin}")
        too_soon = unasked and self._quotas.wait_s(origin, at.mono_s) > 0.0
        stated = self._judging.stated_head(digest, sha256(assembly.signed.payload))
        held = self._registry.table.head(origin)
        is_fork = held is not None and stated is not None and stated.order == held.order
        if too_soon and stated is not None and not is_fork:
            self.claim(session, stated, at)  # not even verified: its turn comes
            return
        line = self._line(session, assembly, digest, fetch, at)
        if line is None:
            self._next_or_nothing(origin, fetch, session.link, at)
            return
        session.note_claim(line.head, self._registry.table)
        if not line.head.is_above(held):
            if fetch is not None and not fetch.head.is_above(held):
                self._drop(origin, at)
            else:
                self._next_or_nothing(origin, fetch, session.link, at)
            return
        if too_soon:
            self.claim(session, line.head, at)
            return
        if fetch is None:
            fetch = self._fetches[origin] = _Fetch(line.head, deque([session.link]))
        if fetch.line is None or line.head.is_above(fetch.line.head):
            fetch.line = line
            self._quotas.take_digest(origin, at.mono_s)
        if line.head.is_above(fetch.head):
            fetch.head = line.head
        self._take_bodies(origin, fetch, assembly.bodies.items(), at)
        self._complete_or_ask(origin, fetch, session.link, at)

    def _line(
        self, session: Session, assembly: _Assembly, digest: Digest, fetch: _Fetch | None, at: Moment
    ) -> VerifiedDigest | None:
        """Return the digest verified, looking at no signature twice; notice a fork."""
        signed = assembly.signed
        assert signed is not None
        held = self._registry.table.line(digest.origin)
        for known in (held, None if fetch is None else fetch.line):
            if known is not None and known.signed.payload == signed.payload:
                return known
        line = self._judging.judge(session, signed, digest, assembly.chain, at)
        if line is None:
            return None
        if held is not None and held.order == line.order:
            self._equivocated(held, line)
        if not line.head.is_above(None if held is None else held.head):
            # The peer's waste, not the origin's turn: a relay could use that up with what was said long ago.
            self._judging.settle(line.payload_sha256)
            self._judging.waste(session, at)
        return line

    def _take_bodies(
        self, origin: str, fetch: _Fetch, bodies: Iterable[tuple[bytes, bytes]], at: Moment
    ) -> None:
        unheld = ((content, body) for content, body in bodies if self._registry.body(content) is None)
        self._quotas.take_bodies(origin, fetch.take(unheld), at.mono_s)

    def bodies(self, session: Session, bodies: Bodies, at: Moment) -> None:
        """Take bodies that were wanted, late ones too; those nobody asked for are left out."""
        mine = (
            (origin, fetch)
            for origin, fetch in self._fetches.items()
            if fetch.line is not None and fetch.asked_of.get(bodies.request) == session.link
        )
        origin, fetch = next(mine, ("", None))
        if fetch is None:
            return
        self._take_bodies(origin, fetch, ((sha256(body), body) for body in bodies.bodies), at)
        if bodies.is_last:
            self._complete_or_ask(origin, fetch, session.link, at)

    def _complete_or_ask(self, origin: str, fetch: _Fetch, answerer: Link, at: Moment) -> None:
        line = fetch.line
        assert line is not None
        if self._needs_bodies(line, at):
            misstated = self._registry.misstated(line.digest, fetch.bodies)
            if misstated:
                self._refuse(line, answerer, f"the size of entry {misstated!r} is not as stated")
                self._drop(origin, at)
                return
            if self._registry.missing(line.digest, fetch.bodies):
                if answerer not in fetch.candidates:
                    fetch.candidates.append(answerer)
                if fetch.asked is None or fetch.asked == answerer:
                    self._ask_next(origin, fetch, at)
                return
        sought, candidates = fetch.head, fetch.candidates
        self._drop(origin, at)
        self._accept(line, fetch.bodies, at)
        if sought.is_above(line.head):
            for link in candidates:
                session = self._sessions.get(link)
                known = None if session is None else session.known.get(origin)
                if session is not None and known is not None:
                    self.claim(session, known, at)

    def _refuse(self, line: VerifiedDigest, answerer: Link, reason: str) -> None:
        # The origin signed it, so the verdict belongs to the digest, whoever brings it.
        self._judging.settle(line.payload_sha256)
        session = self._sessions.get(answerer)
        self._out.append(
            DigestTurnedAway(line.digest.origin, "" if session is None else session.peer, reason)
        )

    def _next_or_nothing(self, origin: str, fetch: _Fetch | None, link: Link, at: Moment) -> None:
        if fetch is None:
            return
        if link in fetch.candidates:
            fetch.candidates.remove(link)
        if fetch.asked == link:
            self._ask_next(origin, fetch, at)
