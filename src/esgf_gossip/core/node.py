"""
The node: the whole protocol of one daemon as a state machine.

Messages, timers and local changes go in with a Moment; effects and notices
come out. No socket, no disk, no clock, no global random source: the same node
runs in the daemon and in a simulation. Parts: origin (what we say), fetching
(what we take in), comparing (what we missed), event_logs (leaves), links (to whom). Source: docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Final

from esgf_gossip.core import effects as fx
from esgf_gossip.core import messages as msg
from esgf_gossip.core.announcing import Announcing
from esgf_gossip.core.answering import answer_to, bodies_for
from esgf_gossip.core.comparing import Comparing
from esgf_gossip.core.errors import VersionMismatchError, WireError
from esgf_gossip.core.event_logs import EventLogs
from esgf_gossip.core.fetching import Fetching
from esgf_gossip.core.forking import Forking
from esgf_gossip.core.greeting import Greeting
from esgf_gossip.core.links import Links
from esgf_gossip.core.log_effects import LogTimer
from esgf_gossip.core.logs import StoredLog
from esgf_gossip.core.model import Address, Link, Moment, TrustObject, VerifiedDigest
from esgf_gossip.core.origin import Origin, notes_of
from esgf_gossip.core.publication import Publication
from esgf_gossip.core.reachability import REACHABILITY, Reachability, encode_reachability
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.revision import Revision, StoredLine
from esgf_gossip.core.sessions import Session
from esgf_gossip.core.standing import Standing
from esgf_gossip.core.trusting import Trusting
from esgf_gossip.core.verification import Signer, TrustJudge, Verifier
from esgf_gossip.core.watching import Watching

AWAY_S: Final = 30


class Node:
    """
    One member of the federation.

    Every method that takes a Moment returns what is to be done and to tell, in order. ``registry`` may be read at any time.
    """

    def __init__(
        self,
        signer: Signer,
        verifier: Verifier,
        contact: Address,
        seeds: Sequence[Address],
        random: Random,
        judge: TrustJudge,
    ) -> None:
        self.registry: Final = Registry()
        self._out: list[fx.Output] = []
        self.links: Final = Links(signer.origin, contact, seeds, self.registry.table, random, self._out)
        self.origin: Final = Origin(
            Publication(signer, contact), self.registry, self.links.sessions, verifier, random, self._out
        )
        self._announcing = Announcing(self.registry.table, self.links.sessions, self._out)
        self._revision = Revision(self.registry, verifier, self._out)
        self._forking = Forking(self.registry, self.links.sessions, verifier, self._out)
        self._trusting = Trusting(self.registry, self.links.sessions, judge, self._out)
        self._fetching = Fetching(
            self.registry,
            self.links.sessions,
            verifier,
            self._out,
            self._line_is_whole,
            self._needs_bodies,
            self._forking.equivocated,
        )
        self.logs: Final = EventLogs(
            self.origin,
            self.registry,
            self.links.sessions,
            verifier,
            random,
            self._out,
            self._forking.rewritten,
        )
        self._greeting = Greeting(self.registry, self.origin.publication, random.randbytes(16), self._out)
        self._comparing = Comparing(
            self.registry,
            self.links.sessions,
            random,
            self._out,
            self._fetching.claim,
            self._forking,
            self._trusting,
        )
        self.standing: Final = Standing(self.registry, self._out)
        self._watching = Watching(self.registry.table, self.links, self._out, self._say)
        self._drawn: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self._stored_epoch = 0

    @property
    def name(self) -> str:
        """The host name this node is certified for."""
        return self.origin.publication.signer.origin

    @property
    def peers_compared(self) -> int:
        """How many peers have shown a root equal to ours since the start."""
        return len(self._comparing.agreed)

    def _finish(self, at: Moment) -> list[fx.Output]:
        """Bring verdicts and watching in step with what happened, and return all there is to do and tell."""
        for origin in self.registry.take_moved():
            self.standing.line_moved(origin)
            self._watching.line_moved(origin, at)
        self._watching.links_changed(at)
        # A set is compared name by name, even with itself: not at every message.
        members, mute = self.links.members, self.links.mute
        is_redrawn = members is not self._drawn[0] or mute is not self._drawn[1]
        if is_redrawn:
            self._drawn = (members, mute)
            self.standing.roster_drawn(members, mute)
        has_judged = self.standing.needs_judging and self.standing.judge()
        if is_redrawn or has_judged:
            self._assign(at)
        if self.standing.must_answer(self.name):
            self._watching.answer(at)
        return self._drain()

    def _assign(self, at: Moment) -> None:
        observers, unreachable = self.standing.observers, self.standing.unreachable
        duties = observers.duties(self.name, unreachable)
        watchers = {holder for seat in observers.seats(self.name, unreachable) for holder in seat}
        self.links.link_to_watch(frozenset(duties) | watchers, at)
        self._watching.assign(duties, at)

    def _say(self, statement: Reachability, at: Moment) -> None:
        self.origin.publication.say(REACHABILITY, _body_of(statement), at)
        self.origin.publish(at)

    def _drain(self) -> list[fx.Output]:
        # The list itself is shared with the parts, so it is emptied, never replaced.
        out = list(self._out)
        self._out.clear()
        return out

    # ------------------------------------------------------------- life

    def restore(
        self,
        epoch: int,
        lines: Iterable[StoredLine],
        bodies: Mapping[bytes, bytes],
        at: Moment,
        forks: Iterable[msg.Fork] = (),
        logs: Iterable[StoredLog] = (),
        trust: Iterable[TrustObject] = (),
    ) -> list[fx.Output]:
        """Take back what a disk holds, verified anew: what trust no longer carries stays out."""
        self._stored_epoch = epoch
        self._trusting.restore(trust, at)
        self._revision.restore(lines, bodies, at)
        self._revision.restore_forks(forks)
        self.logs.restore(logs, at)
        return self._finish(at)

    def restore_logs(self, logs: Iterable[StoredLog], at: Moment) -> list[fx.Output]:
        """Go on with the logs that the disk holds, after it took none for a while."""
        self.logs.restored_again(logs, at)
        return self._finish(at)

    def start(self, entries: Mapping[str, bytes], at: Moment) -> list[fx.Output]:
        """
        Take a new epoch, publish, begin to dial.

        Raises:
            PublicationError: the entries are out of bounds; nothing was begun.
        """
        self.origin.publication.check(entries)
        remembered = self.standing.statement(self.name)
        self.origin.begin(self._stored_epoch, at)
        kept = Reachability(remembered.reports)
        self._watching.begin(kept, at)
        self.origin.publication.keep_saying(REACHABILITY, _body_of(kept))
        self.origin.publication.set_entries(entries, at)
        self.origin.publish(at)
        self.links.start(at)
        self._comparing.start()
        self.logs.start(at)
        return self._finish(at)

    def publish(self, entries: Mapping[str, bytes], at: Moment) -> list[fx.Output]:
        """
        Publish these entries in place of the ones before; nothing happens where they are the same.

        Raises:
            PublicationError: out of bounds; the old entries stay.
        """
        if not self.origin.publication.has_entries(entries):
            self.origin.publication.set_entries(entries, at)
            self.origin.publish(at)
        return self._finish(at)

    def append(self, log: str, leaves: Sequence[bytes], at: Moment) -> list[fx.Output]:
        """Add events to a log of this node, under one new digest; raises PublicationError, then none was added."""
        self.logs.append(log, leaves, at)
        return self._finish(at)

    def retain(self, log: str, first: int, at: Moment) -> list[fx.Output]:
        """Let all nodes drop the events of a log before the block of ``first``; raises PublicationError."""
        self.logs.retain(log, first, at)
        return self._finish(at)

    def leave(self, at: Moment) -> list[fx.Output]:
        """Tell the federation that this node leaves it for good; ``stop`` comes next."""
        self.origin.publication.leaving = True
        self.origin.publication.say(REACHABILITY, None, at)
        self.origin.publication.set_entries({}, at)
        self.origin.publish(at)
        return self._finish(at)

    def stop(self, away_s: int = AWAY_S) -> list[fx.Output]:
        """Say goodbye on every link and close it; ``away_s`` is how long we expect to be away."""
        leaving = self.origin.publication.leaving
        for session in self.links.sessions:
            if leaving:
                self.links.close(session, msg.Farewell.LEAVING, "this node leaves the federation")
            else:
                self.links.close(session, msg.Farewell.STOPPING, "this node stops", away_s)
        return self._drain()

    def offer_trust(self, objects: Sequence[tuple[str, bytes]], at: Moment) -> list[fx.Output]:
        """Take trust objects, key and body, that this node's own files hold; what is new spreads."""
        self._trusting.offer(objects, at)
        return self._finish(at)

    def trust_changed(self, signer: Signer, at: Moment) -> list[fx.Output]:
        """
        Go on with new trust: lines it does not carry end, a new certificate is published at once.

        Verifier and TrustJudge have been told already; links are re-judged by the shell.
        """
        self._trusting.again(at)
        has_refused = self._fetching.forget_refusals()
        self._forking.forget_refusals()
        renewed = signer.certificate_sha256 != self.origin.publication.signer.certificate_sha256
        self.origin.publication.signer = signer
        if self._revision.again(at):
            self.links.roster_moved(at)
            self.logs.lines_gone()
        # Other reasons to stop, a clone above all, are not cured by new roots.
        resumes = renewed or self.origin.publication.stopped_by_trust
        if resumes:
            self.origin.publication.resume()
        if resumes or self.name not in self.registry.table:
            self.origin.publish(at)
        self._comparing.trust_changed(has_refused=has_refused)
        return self._finish(at)

    # ------------------------------------------------------------- lines

    def _needs_bodies(self, line: VerifiedDigest, at: Moment) -> bool:
        return line.digest.origin != self.name and line.digest.expires_at_ms > self.links.expiry_ms(at)

    def _line_is_whole(self, line: VerifiedDigest, bodies: dict[bytes, bytes], at: Moment) -> None:
        if line.digest.origin == self.name:
            self.origin.own_head_shown(line, at)
            return
        before = self.registry.table.line(line.digest.origin)
        change = self.registry.accept(line, bodies)
        if change is None:
            return
        self._out.extend(notes_of(change))
        self.logs.line_moved(before, line, at)
        if (
            before is None
            or before.digest.leaving != line.digest.leaving
            or before.digest.contact != line.digest.contact
            or before.digest.expires_at_ms <= self.links.expiry_ms(at)
        ):
            self.links.roster_moved(at)
        self._announcing.announce(line.head, at)

    # ------------------------------------------------------------- links

    def peer_connected(self, link: Link, peer: str, dialled: Address | None, at: Moment) -> list[fx.Output]:
        """
        Take in a link to a peer whose certificate was verified.

        The server greets first: its hello admits the client, which in TLS 1.3
        cannot know before whether its certificate was accepted.
        """
        self.origin.linked(at)
        session = self.links.connected(link, peer, dialled, at)
        if session is not None and dialled is None:
            self._greeting.greet(session, at)
        return self._finish(at)

    def peer_lost(self, link: Link, reason: str, at: Moment) -> list[fx.Output]:
        """Note that a link is down; what it owed us is asked of others."""
        session = self.links.lost(link, reason, at)
        if session is not None:
            self._link_gone(link, at)
            self._watching.link_lost(session.peer, at)
        return self._finish(at)

    def _link_gone(self, link: Link, at: Moment) -> None:
        self._trusting.lost(link)
        self._fetching.lost(link, at)
        self.logs.lost(link, at)

    def dial_failed(self, address: Address, reason: str, at: Moment) -> list[fx.Output]:
        """Note that a dial came to nothing."""
        self.links.dial_failed(address, reason, at)
        self._watching.dial_failed(address, at)
        return self._finish(at)

    # ------------------------------------------------------------- messages

    def handle_message(self, link: Link, message: msg.Message, at: Moment) -> list[fx.Output]:
        """Take one message. A breach of the protocol closes that link and changes nothing else."""
        session = self.links.sessions.get(link)
        if session is None:
            return []  # closed by us a moment ago
        session.heard_at_s = at.mono_s
        self._watching.heard(session.peer, at)
        try:
            self._take(session, message, at)
        except VersionMismatchError as error:
            self._part(session, msg.Farewell.VERSION, str(error), at)
        except WireError as error:
            self._part(session, msg.Farewell.MISBEHAVIOUR, f"protocol error: {error}", at)
        return self._finish(at)

    def wire_error(self, link: Link, error: WireError, at: Moment) -> list[fx.Output]:
        """Close a link whose bytes were not our protocol."""
        session = self.links.sessions.get(link)
        if session is not None:
            self._part(session, msg.Farewell.MISBEHAVIOUR, f"protocol error: {error}", at)
        return self._finish(at)

    def _part(self, session: Session, farewell: msg.Farewell, reason: str, at: Moment) -> None:
        self.links.close(session, farewell, reason)
        self._link_gone(session.link, at)
        self.links.punish(session, at)

    def _take(self, session: Session, message: msg.Message, at: Moment) -> None:
        if not session.is_open and not isinstance(message, msg.Hello | msg.Goodbye):
            raise WireError("the first message is not a hello")
        match message:
            case msg.Hello():
                self._hello(session, message, at)
            case msg.Announce():
                for head in message.heads:
                    self._fetching.claim(session, head, at)
            case msg.Answer(request=0, origin=self.name) if msg.Feature.LOGS in session.features:
                self.logs.own_digest_shown(session, message, at)
            case msg.Answer():
                self._fetching.answer(session, message, at)
            case msg.Bodies():
                self._fetching.bodies(session, message, at)
            case msg.Ask():
                self._send(session, answer_to(message, self.registry))
            case msg.Want():
                self._send(session, bodies_for(message, self.registry))
            case msg.Roots():
                self._comparing.heard(session, message, at)
            case msg.Heads():
                self._comparing.page(session, message, at)
            case msg.Fingerprints():
                self._comparing.fingerprints(session, message, at)
            case msg.Forks():
                self._forking.claimed(session, message)
            case msg.WantFork():
                self._forking.give(session, message, at)
            case msg.Fork():
                self._forking.proof(session, message)
            case msg.Ping():
                self._out.append(fx.Send(session.link, msg.Pong(message.token, at.wall_ms)))
            case msg.Pong():
                self.links.pong(session, message, at)
            case msg.Goodbye():
                if message.farewell == msg.Farewell.STOPPING:
                    self._watching.excuse(session.peer, message.away_s, at)
                self.links.goodbye(session, message, at)
                self._link_gone(session.link, at)
            case _ if isinstance(message, msg.TrustMessage):
                self._trusting.take(session, message, at)
            case _ if isinstance(message, msg.LogMessage):
                self.logs.take(session, message, at)
            case msg.Unknown():
                pass  # a newer peer's: it costs nothing and means nothing here

    def _send(self, session: Session, messages: Iterable[msg.Message]) -> None:
        self._out.extend(fx.Send(session.link, message) for message in messages)

    def _hello(self, session: Session, hello: msg.Hello, at: Moment) -> None:
        self._greeting.hear(session, hello, at)
        self._out.append(fx.PeerJoined(session.peer))
        self.origin.joined()
        closed = self.links.drop_duplicates(session, at)
        for duplicate in closed:
            self._link_gone(duplicate.link, at)
        if session in closed:
            return
        self.links.ping(session, at)
        if hello.head_of_you is not None and hello.head_of_you.origin == self.name:
            self._fetching.claim(session, hello.head_of_you, at)
        self._comparing.compare(session, hello.roots, at, begins=session.dialled is not None)
        self.logs.opened(session, at)

    # ------------------------------------------------------------- timers

    def handle_timer(self, timer: fx.Timer, at: Moment) -> list[fx.Output]:
        """Take one timer; a stale one does nothing."""
        match timer:
            case fx.RetryFetch():
                self._fetching.retry(timer.origin, timer.request, at)
            case fx.AnnounceHeads():
                self._announcing.due(at)
            case fx.FetchDue():
                self._fetching.due(timer.origin, at)
            case fx.RetryFork():
                self._forking.retry(timer)
            case fx.RetryTrust():
                self._trusting.retry(timer)
            case fx.CompareRoots():
                self._comparing.due(timer.link)
            case fx.CheckLinks():
                for session in self.links.check(at):
                    self._link_gone(session.link, at)
            case fx.DrawRings():
                self.links.rings_due(timer.token, at)
            case fx.DialNext():
                self.links.dial_due(timer.token, at)
            case fx.DrawPartner():
                self.links.draw_partner(at)
            case fx.SignAnew():
                self.origin.renew(timer.token, at)
            case _ if isinstance(timer, fx.WatchTimer):
                self._watching.due(timer, at)
            case _ if isinstance(timer, LogTimer):
                self.logs.due(timer, at)
        return self._finish(at)


def _body_of(statement: Reachability) -> bytes | None:
    return None if statement.is_empty else encode_reachability(statement)
