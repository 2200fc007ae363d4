"""
Which links there are and should be: greeting, beats, duplicates, rings, dialling.

Part of the node: appends to its output, never sees a socket.
Source: docs/protocol.md, "Links"; docs/adr/0005-overlay.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Final

from esgf_gossip.core import overlay
from esgf_gossip.core.dialling import Dialling
from esgf_gossip.core.effects import (
    CheckLinks,
    Dial,
    DialFailed,
    DialNext,
    Disconnect,
    DrawPartner,
    DrawRings,
    Output,
    PeerParted,
    Send,
    StartTimer,
)
from esgf_gossip.core.limits import HANDSHAKE_S, LINKS_PER_PEER, TEXT_CHARACTERS
from esgf_gossip.core.membership import draw_partner, mute_of, roster, wanted_addresses
from esgf_gossip.core.messages import Farewell, Goodbye, Ping, Pong
from esgf_gossip.core.model import Address, Link, Moment
from esgf_gossip.core.sessions import Session, Sessions
from esgf_gossip.core.table import Table

CHECK_S: Final = 5.0
# Watched links hear a beat every few seconds (watching); these are for the others, and to end a dead one.
# A link is cheap to keep: a peer that stood still for a while answers on it at once.
PING_AFTER_S: Final = 20.0
SILENT_S: Final = 40.0
# A check this late means that our own loop stood still: the silence is ours, not the peers'.
STALL_S: Final = 2.0
RINGS_STILL_S: Final = 0.5
RINGS_LATEST_S: Final = 2.0
# While a federation starts, each set of rings would cost a set of handshakes; who has links can wait for the last.
RINGS_LATEST_LINKED_S: Final = 10.0
NOT_NEEDED_AFTER_S: Final = 60.0
# So many links to neighbours must be up before a link to others is let go.
REPLACEMENTS: Final = 3
PARTNER_S: Final = 300.0
# A link that ends sooner counts as a failed dial, so that a peer in a crash loop is not hammered.
SHORT_LINK_S: Final = 5.0
UNWELCOME_S: Final = 60.0
CLOCK_OFF_MS: Final = 5 * 60 * 1000


class Links:
    """
    The links of one node. ``neighbours`` are the members it should be linked to.

    ``members`` are the roster last drawn, ``mute`` those of them that could not be dialled then.
    """

    def __init__(
        self,
        own: str,
        contact: Address,
        seeds: Sequence[Address],
        table: Table,
        random: Random,
        out: list[Output],
    ) -> None:
        self.sessions = Sessions()
        self.neighbours: frozenset[str] = frozenset()
        self._own = own
        self._table = table
        self._random = random
        self._out = out
        self._dialling = Dialling(random)
        # Who last answered at a seed's address, "" for nobody yet, and when that was.
        self._seeds: dict[Address, str] = dict.fromkeys(seeds, "")
        self._seed_reached_at_s: dict[Address, float] = {}
        self._own_addresses: set[Address] = {contact}
        self._partner: Address | None = None
        self.members: frozenset[str] = frozenset()
        self.mute: frozenset[str] = frozenset()
        self._next_expiry_ms = 0
        self._ring_neighbours: frozenset[str] = frozenset()
        self._watch_partners: frozenset[str] = frozenset()
        self._mesh = True
        self._rings_token = 0
        self._rings_pending_since_s: float | None = None
        self._dial_token = 0
        self._checked_at_s: float | None = None
        self._confirmed_ms = 0

    def start(self, at: Moment) -> None:
        """Begin to dial and to watch links."""
        self._checked_at_s = at.mono_s
        self._out.append(StartTimer(CheckLinks(), CHECK_S))
        self._out.append(StartTimer(DrawPartner(), self._partner_s()))
        self.draw(at)

    # ------------------------------------------------------------- time

    def expiry_ms(self, at: Moment) -> int:
        """
        Return the time by which lines expire: our clock while peers confirm it, else the last time they did.

        Nothing expires while no peer is linked or our clock is more than five
        minutes off the median of theirs: a wrong clock never empties a list.
        """
        offset_ms = self.clock_offset_ms
        if offset_ms is not None and abs(offset_ms) <= CLOCK_OFF_MS:
            self._confirmed_ms = max(self._confirmed_ms, at.wall_ms)
        return self._confirmed_ms

    @property
    def clock_offset_ms(self) -> float | None:
        """How far the median of the linked peers' clocks is ahead of ours; None while none is linked."""
        offsets = [one.clock_offset_ms for one in self.sessions.open() if one.clock_offset_ms is not None]
        return median(offsets) if offsets else None

    # ------------------------------------------------------------- rings

    def roster_moved(self, at: Moment) -> None:
        """Draw the rings when the roster has been still for half a second, at the latest after a while."""
        since = self._rings_pending_since_s
        latest_s = RINGS_LATEST_S if len(self.sessions.open()) < REPLACEMENTS else RINGS_LATEST_LINKED_S
        if since is None:
            since = self._rings_pending_since_s = at.mono_s
        elif at.mono_s + RINGS_STILL_S - since > latest_s:
            return
        self._rings_token += 1
        self._out.append(StartTimer(DrawRings(self._rings_token), RINGS_STILL_S))

    def rings_due(self, token: int, at: Moment) -> None:
        """Draw the rings unless the roster moved again."""
        if token == self._rings_token and self._rings_pending_since_s is not None:
            self.draw(at)

    def draw(self, at: Moment) -> None:
        """Compute the neighbours from the roster and dial those without a link."""
        self._rings_pending_since_s = None
        members, self._next_expiry_ms = roster(self._table, self.expiry_ms(at))
        members |= {self._own}
        mute = mute_of(self._table, members)
        # The same sets as long as they are equal: who keeps them sees at a glance that nothing moved.
        self.members = self.members if members == self.members else members
        self.mute = self.mute if mute == self.mute else mute
        self._mesh = overlay.is_mesh(len(self.members), was_mesh=self._mesh)
        self._ring_neighbours = overlay.neighbours(self._own, self.members, mesh=self._mesh)
        self.neighbours = self._ring_neighbours | self._watch_partners
        self.plan(at)

    def link_to_watch(self, partners: frozenset[str], at: Moment) -> None:
        """Want links to those we watch and to those who watch us, rings or not: who stands in is no neighbour."""
        if partners != self._watch_partners:
            self._watch_partners = partners
            self.neighbours = self._ring_neighbours | partners
            self.plan(at)

    # ------------------------------------------------------------- dialling

    def plan(self, at: Moment) -> None:
        """Dial what is due and set the timer for the rest."""
        linked = {session.peer for session in self.sessions}
        targets = wanted_addresses(self._own, self.neighbours, linked, self._table, self._random)
        targets.update(dict.fromkeys(self._seeds_due(linked, at), 0.0))
        if self._partner is not None:
            targets[self._partner] = 0.0
        for address in self._own_addresses:
            targets.pop(address, None)
        due, soonest_s = self._dialling.plan(targets, at.mono_s)
        self._out.extend(Dial(address) for address in due)
        self._dial_token += 1
        if soonest_s is not None:
            self._out.append(StartTimer(DialNext(self._dial_token), soonest_s))

    def dial_due(self, token: int, at: Moment) -> None:
        """Dial what is due unless a newer plan was made."""
        if token == self._dial_token:
            self.plan(at)

    def hasten(self, address: Address, at: Moment) -> None:
        """Dial an address now, whatever its turn was."""
        self._dialling.hasten(address, at.mono_s)
        self.plan(at)

    def dial_failed(self, address: Address, reason: str, at: Moment) -> None:
        """Note that nobody, or nobody of us, answered; try again later, for ever."""
        attempts = self._dialling.failed(address, at.mono_s)
        if address == self._partner:
            self._partner = None  # one draw, one try: the next draw comes in five minutes
        self._out.append(DialFailed(address, reason, attempts))
        self.plan(at)

    def draw_partner(self, at: Moment) -> None:
        """Dial one of all nodes ever known, or a seed: islands heal by this."""
        linked = {session.peer for session in self.sessions}
        self._partner = draw_partner(self._own, linked, self._table, self._seeds, self._random)
        self._out.append(StartTimer(DrawPartner(), self._partner_s()))
        self.plan(at)

    def _partner_s(self) -> float:
        return PARTNER_S * self._random.uniform(0.8, 1.2)

    def _seeds_due(self, linked: set[str], at: Moment) -> list[Address]:
        due = []
        for address, host in self._seeds.items():
            reached = self._seed_reached_at_s.get(address)
            # A seed that answered lately is known by name and dialled as a neighbour where it is one.
            lately = reached is not None and at.mono_s - reached < PARTNER_S
            if host in linked or (lately and linked):
                continue
            due.append(address)
        return due

    # ------------------------------------------------------------- links

    def connected(self, link: Link, peer: str, dialled: Address | None, at: Moment) -> Session | None:
        """Take in a new link, or refuse one to ourselves."""
        if dialled is not None:
            if peer == self._own:
                self._own_addresses.add(dialled)
                self._out.append(Disconnect(link, f"{dialled[0]}:{dialled[1]} is this node itself"))
                self.plan(at)
                return None
            self._dialling.succeeded(dialled)
            if dialled == self._partner:
                self._partner = None
            if dialled in self._seeds:
                self._seeds[dialled] = peer
                self._seed_reached_at_s[dialled] = at.mono_s
        elif peer == self._own:
            self._out.append(Disconnect(link, "the peer uses this node's own name"))
            return None
        mute = [one for one in self.sessions if one.peer == peer and not one.is_open]
        if len(mute) >= LINKS_PER_PEER:
            self._give_up(mute[0], "too many links without a hello")
        session = Session(link, peer, dialled, at.mono_s, at.mono_s, at.mono_s)
        self.sessions.add(session)
        return session

    def drop_duplicates(self, session: Session, at: Moment) -> list[Session]:
        """
        Close all but one link to a peer; return the sessions that were closed, ``session`` itself perhaps.

        Both ends come to the same answer: after a restart the new instance
        counts; of two crossing dials that of the smaller name. Of two dialled by
        one side that side keeps the older: the other end may number them
        otherwise, so it waits, and closes only what is above a bound.
        """
        closed: list[Session] = []
        for other in self.sessions.of(session.peer):
            if other.link == session.link or session in closed:
                continue
            if other.instance != session.instance:
                loser = other
            elif (other.dialled is None) != (session.dialled is None):
                smaller = min(self._own, session.peer)
                by_smaller = [one for one in (other, session) if self._dialler(one) == smaller]
                loser = other if by_smaller[0] is session else session
            elif session.dialled is not None:
                loser = session
            elif len(self.sessions.of(session.peer)) > LINKS_PER_PEER:
                loser = other
            else:
                continue
            if loser.dialled is not None:
                # Two addresses lead to one node, perhaps because a liar says so: ever more rarely.
                self._dialling.failed(loser.dialled, at.mono_s)
            self.close(loser, Farewell.DUPLICATE, "a second link to the same peer")
            closed.append(loser)
        return closed

    def _dialler(self, session: Session) -> str:
        return session.peer if session.dialled is None else self._own

    def close(self, session: Session, farewell: Farewell, reason: str, away_s: int = 0) -> None:
        """Say goodbye and close a link."""
        self._out.append(Send(session.link, Goodbye(farewell, away_s, reason[:TEXT_CHARACTERS])))
        self._out.append(Disconnect(session.link, reason))
        self._forget(session, reason)

    def lost(self, link: Link, reason: str, at: Moment) -> Session | None:
        """Note that a link is down."""
        session = self.sessions.get(link)
        if session is None:
            return None
        self._forget(session, reason)
        if session.dialled is not None:
            if at.mono_s - session.connected_at_s < SHORT_LINK_S:
                self._dialling.failed(session.dialled, at.mono_s)
            else:
                self._dialling.settled(session.dialled)
                self._dialling.postpone(session.dialled, at.mono_s, self._random.uniform(0.1, 0.5))
        self.plan(at)
        return session

    def _forget(self, session: Session, reason: str) -> None:
        self.sessions.remove(session.link)
        if session.is_open:
            self._out.append(PeerParted(session.peer, reason))

    def goodbye(self, session: Session, goodbye: Goodbye, at: Moment) -> None:
        """Hear why the peer closes the link, and leave it alone for as long as that calls for."""
        if goodbye.farewell in (Farewell.STOPPING, Farewell.LEAVING, Farewell.DUPLICATE):
            pause_s = self._random.uniform(0.5, 1.5)
        else:
            pause_s = UNWELCOME_S
        addresses = set() if session.dialled is None else {session.dialled}
        # A contact that two nodes name is nobody's to close: one of them may want the other cut off.
        named = [line for line in self._table if line.digest.contact == self._contact_of(session.peer)]
        if len(named) == 1:
            addresses.add(named[0].digest.contact)
        for address in addresses:
            self._dialling.postpone(address, at.mono_s, pause_s)
        words = f": {goodbye.text}" if goodbye.text else ""
        reason = f"the peer said goodbye{words}"
        self._out.append(Disconnect(session.link, reason))
        self._forget(session, reason)
        self.plan(at)

    def _contact_of(self, peer: str) -> Address | None:
        line = self._table.line(peer)
        return None if line is None else line.digest.contact

    # ------------------------------------------------------------- beats

    def check(self, at: Moment) -> list[Session]:
        """Ping silent peers, close dead and unneeded links; return the sessions that were closed."""
        self._out.append(StartTimer(CheckLinks(), CHECK_S))
        stalled = self._checked_at_s is not None and at.mono_s - self._checked_at_s > CHECK_S + STALL_S
        self._checked_at_s = at.mono_s
        if stalled:
            self.forgive_silence(at)
        before = list(self.sessions)
        linked = {session.peer for session in self.sessions.open()} & self.neighbours
        has_replacements = len(linked) >= min(len(self.neighbours), REPLACEMENTS)
        for session in before:
            if session.peer in self.neighbours or not has_replacements:
                session.wanted_at_s = at.mono_s
            if not stalled:
                self._check_one(session, at)
        if self.expiry_ms(at) >= self._next_expiry_ms:
            self.draw(at)  # somebody expired, or would have, had he not signed again
        else:
            self.plan(at)
        return [session for session in before if self.sessions.get(session.link) is None]

    def forgive_silence(self, at: Moment) -> None:
        """Begin to count the silence of all peers anew: our own loop stood still."""
        for session in self.sessions:
            session.heard_at_s = at.mono_s
            session.ping_sent_at_s = None

    def _check_one(self, session: Session, at: Moment) -> None:
        silent_s = at.mono_s - session.heard_at_s
        if session.dialled is not None and at.mono_s - session.connected_at_s > SHORT_LINK_S:
            self._dialling.settled(session.dialled)
        if not session.is_open:
            if at.mono_s - session.connected_at_s > HANDSHAKE_S:
                self._give_up(session, "no hello in time")
        elif session.ping_sent_at_s is not None and session.heard_at_s > session.ping_sent_at_s:
            session.ping_sent_at_s = None
        elif silent_s > SILENT_S:
            self._give_up(session, f"silent for {silent_s:.0f} s")
        elif session.dialled is not None and at.mono_s - session.wanted_at_s > NOT_NEEDED_AFTER_S:
            # Only who dialled knows what the link is for: to a node behind a wall it may be the only one.
            self.close(session, Farewell.NOT_NEEDED, "not needed any more")
        elif session.dialled is not None and silent_s > PING_AFTER_S and session.ping_sent_at_s is None:
            self.ping(session, at)

    def ping(self, session: Session, at: Moment) -> None:
        """Ask for a sign of life; its answer measures the round trip."""
        session.ping_token += 1
        session.ping_sent_at_s = at.mono_s
        self._out.append(Send(session.link, Ping(session.ping_token, at.wall_ms)))

    def pong(self, session: Session, pong: Pong, at: Moment) -> None:
        """Take the answer to a ping: it measures the round trip and the peer's clock."""
        if pong.token == session.ping_token and session.ping_sent_at_s is not None:
            session.round_trip_s = at.mono_s - session.ping_sent_at_s
            session.ping_sent_at_s = None
            # The peer looked at its clock half a round trip ago.
            session.clock_offset_ms = pong.clock_ms + int(500 * session.round_trip_s) - at.wall_ms

    def _give_up(self, session: Session, reason: str) -> None:
        self._out.append(Disconnect(session.link, reason))
        self._forget(session, reason)

    def punish(self, session: Session, at: Moment) -> None:
        """Leave a peer that broke the protocol alone for a while, where we are the ones who dial."""
        if session.dialled is not None:
            self._dialling.postpone(session.dialled, at.mono_s, UNWELCOME_S)
        self.plan(at)
