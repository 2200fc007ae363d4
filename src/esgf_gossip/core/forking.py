"""
How fork lines come in and go out: claimed by their certificate, asked of one claimant at a time, proven, told on.

Part of the node: appends to its output. What makes a proof is decided in ``forks``.
Source: docs/protocol.md, "Order".
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.effects import (
    DigestTurnedAway,
    ForkProven,
    Output,
    PersistFork,
    RetryFork,
    Send,
    StartTimer,
)
from esgf_gossip.core.errors import DigestRefused, UnknownFormatError
from esgf_gossip.core.forks import ForkLine, prove
from esgf_gossip.core.limits import (
    FORK_CLAIMS_PER_LINK,
    FORK_REFUSALS_PER_LINK,
    FORKS_PER_LINK,
    MESSAGE_FORKS,
    VERDICTS_REMEMBERED,
)
from esgf_gossip.core.messages import Feature, Fork, Forks, WantFork
from esgf_gossip.core.model import Link, Moment, RewriteEvidence, VerifiedDigest
from esgf_gossip.core.packing import HASH_BYTES
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.verification import Verifier

# Without an answer the next claimant is asked; the same proof is given to a peer no sooner again.
FORK_WAIT_S: Final = 1.0
# The end of the last page of all certificates.
LAST: Final = b"\xff" * HASH_BYTES


class Forking:
    """The fork lines of one node, as it learns and tells them."""

    def __init__(self, registry: Registry, sessions: Sessions, verifier: Verifier, out: list[Output]) -> None:
        self._forks = registry.forks
        self._sessions = sessions
        self._verifier = verifier
        self._out = out
        # Searches under way: which link is asked for the proof about a certificate.
        self._asked: dict[bytes, Link] = {}
        self._refused: OrderedDict[bytes, None] = OrderedDict()

    def forget_refusals(self) -> None:
        """Judge everything anew: trust changed."""
        self._refused.clear()
        for session in self._sessions:
            session.forks.refused.clear()
        self._search_on()

    def equivocated(self, one: VerifiedDigest, other: VerifiedDigest) -> None:
        """Take two verified digests of one number for the proof they are."""
        certificate = one.digest.certificate_sha256
        if certificate == other.digest.certificate_sha256:
            fork = Fork(one.chain, one.signed, other.signed, "", ())
            self._accept(ForkLine(one.digest.origin, certificate, fork))

    def rewritten(self, chain: tuple[bytes, ...], evidence: RewriteEvidence) -> None:
        """Take two verified digests that prove a log rewritten, where one certificate signed both."""
        older, newer = decode_digest(evidence.older.payload), decode_digest(evidence.newer.payload)
        if older.certificate_sha256 == newer.certificate_sha256:
            fork = Fork(chain, evidence.older, evidence.newer, evidence.log, evidence.hashes)
            self._accept(ForkLine(newer.origin, newer.certificate_sha256, fork))

    def _accept(self, line: ForkLine) -> None:
        if not self._forks.add(line):
            return
        self._asked.pop(line.certificate_sha256, None)
        self._out.append(PersistFork(line))
        self._out.append(ForkProven(line.origin, line.certificate_sha256))
        for session in self._sessions:
            if session.is_open and line.certificate_sha256 not in session.forks.claimed:
                self._tell(session, Forks((line.certificate_sha256,), b"", b""))

    def _tell(self, session: Session, message: Forks) -> None:
        if Feature.FORKS in session.features:
            self._out.append(Send(session.link, message))

    # ------------------------------------------------------------- claims

    def tell_all(self, session: Session) -> None:
        """Send the certificates of all fork lines: one page of every stretch, the last to the end."""
        certificates = self._forks.certificates()
        above = b""
        for start in range(0, max(1, len(certificates)), MESSAGE_FORKS):
            page = tuple(certificates[start : start + MESSAGE_FORKS])
            up_to = LAST if start + MESSAGE_FORKS >= len(certificates) else page[-1]
            self._tell(session, Forks(page, above, up_to))
            above = up_to

    def claimed(self, session: Session, message: Forks) -> None:
        """Hear which certificates a peer holds proofs about: ask for those we lack, tell what it lacks of a page."""
        if Feature.FORKS not in session.features:
            return
        talk = session.forks
        for certificate in message.certificates:
            if certificate in self._forks or len(talk.claimed) < FORK_CLAIMS_PER_LINK:
                talk.claimed.add(certificate)
        if message.up_to and message.above == talk.awaited_above:
            # Answered only as a part of the page by page answer to our own question.
            talk.awaited_above = None if message.up_to == LAST else message.up_to
            page = set(message.certificates)
            self._tell_lacking(
                session,
                [
                    one
                    for one in self._forks.certificates()
                    if message.above < one <= message.up_to and one not in page
                ],
            )
        self._search(session)

    def _tell_lacking(self, session: Session, lacking: list[bytes]) -> None:
        for start in range(0, len(lacking), MESSAGE_FORKS):
            self._tell(session, Forks(tuple(lacking[start : start + MESSAGE_FORKS]), b"", b""))

    def _search(self, session: Session) -> None:
        talk = session.forks
        slots = FORKS_PER_LINK - sum(link == session.link for link in self._asked.values())
        if len(talk.refused) >= FORK_REFUSALS_PER_LINK:
            return
        for certificate in sorted(talk.claimed - talk.refused):
            if slots <= 0 or len(talk.asked) >= FORK_CLAIMS_PER_LINK:
                return
            if certificate not in self._forks and certificate not in self._asked:
                slots -= 1
                talk.asked.add(certificate)
                self._asked[certificate] = session.link
                self._out.append(Send(session.link, WantFork(certificate)))
                self._out.append(StartTimer(RetryFork(certificate, session.link), FORK_WAIT_S))

    def retry(self, timer: RetryFork) -> None:
        """Ask the next claimant, unless the proof came or another is asked by now."""
        if self._asked.get(timer.certificate_sha256) == timer.link:
            del self._asked[timer.certificate_sha256]
            silent = self._sessions.get(timer.link)
            if silent is not None:
                # A claim that is not backed is none, until it is raised again; a late proof still counts.
                silent.forks.claimed.discard(timer.certificate_sha256)
            self._search_on()

    def _search_on(self) -> None:
        for session in self._sessions:
            self._search(session)

    # ------------------------------------------------------------- proofs

    def give(self, session: Session, message: WantFork, at: Moment) -> None:
        """Send the proof that a peer asks for; the same not twice within a second."""
        if Feature.FORKS not in session.features:
            return
        line = self._forks.line(message.certificate_sha256)
        given = session.forks.given_at_s
        if line is not None and at.mono_s - given.get(line.certificate_sha256, -FORK_WAIT_S) >= FORK_WAIT_S:
            given[line.certificate_sha256] = at.mono_s
            self._out.append(Send(session.link, line.proof))

    def proof(self, session: Session, fork: Fork) -> None:
        """
        Take a proof that was asked of this peer; any other is ignored.

        Raises:
            WireError: it holds what is no digest.
        """
        certificate = sha256(fork.chain[0]) if fork.chain else b""
        if certificate not in session.forks.asked:
            return
        session.forks.asked.discard(certificate)
        if self._asked.get(certificate) == session.link:
            del self._asked[certificate]
        if certificate not in self._forks:
            self._judge(session, fork, certificate)
        self._search_on()

    def _judge(self, session: Session, fork: Fork, certificate: bytes) -> None:
        parts = (fork.older.payload, fork.older.signature, fork.newer.payload, fork.newer.signature)
        evidence = sha256(b"".join(map(sha256, (*parts, *fork.chain, fork.log.encode(), *fork.hashes))))
        try:
            if evidence in self._refused:
                raise DigestRefused("refused before")
            self._accept(prove(fork, self._verifier))
        except (DigestRefused, UnknownFormatError) as error:
            self._refused[evidence] = None
            if len(self._refused) > VERDICTS_REMEMBERED:
                self._refused.popitem(last=False)
            session.forks.refused.add(certificate)
            self._out.append(DigestTurnedAway("?", session.peer, f"no proof of a fork: {error}"))
