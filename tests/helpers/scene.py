"""
A bench with puppets that answer every ping, until they are told to be silent.

Each has a line, a clock of its own and at most one link. No test lives here.
"""

from __future__ import annotations

from typing import Any

from esgf_gossip.core import effects as fx
from esgf_gossip.core.limits import CLOCK_AHEAD_MS
from esgf_gossip.core.messages import Announce, Ask, Ping, Pong
from esgf_gossip.core.model import Address, Link
from esgf_gossip.core.reachability import Reachability, Report, encode_reachability
from esgf_gossip.core.sessions import PUSH_WAIT_MOST_S
from helpers.bench import OWN, Bench, Line, a_line

STEP_S = 0.05


class Scene:
    """
    A node among linked puppets that live.

    ``silent`` hold their links and say nothing; ``ahead_ms`` are their clocks;
    ``pings`` are the times of all pings, by peer.
    """

    def __init__(self, *peers: str, ahead_ms: dict[str, int] | None = None, **bench: Any) -> None:
        self.bench = Bench(**bench)
        self.ahead_ms = ahead_ms or {}
        self.links: dict[str, Link] = {}
        self.silent: set[str] = set()
        self.pings: dict[str, list[float]] = {}
        self.lines: dict[str, Line] = {}
        for peer in peers:
            self.link(peer)
            self.publish(peer)
        self.pass_time(3.0)
        self.pings.clear()

    def link(self, peer: str, dialled: Address | None = None) -> None:
        """Open a link to a puppet."""
        self.links[peer] = self.bench.open(peer, dialled, clock_ms=self._clock_ms(peer))
        self.silent.discard(peer)

    def publish(self, peer: str, sequence: int = 1, via: str | None = None, **changes: Any) -> Line:
        """Let a puppet publish; ``via`` brings its line when it has no link itself."""
        # What is dated far ahead by the clock of the node it would refuse for that alone.
        issued_at_ms = min(self._clock_ms(peer), self.bench.at().wall_ms + CLOCK_AHEAD_MS)
        fields = {"issued_at_ms": issued_at_ms, **changes}
        line = self.lines[peer] = a_line(peer, 1, sequence, **fields)
        if via is None:
            self.bench.hear(self.links[peer], line.answer(0))
        else:
            link = self.links[via]
            self.bench.hear(link, Announce((line.head,)))
            self.bench.pass_time(PUSH_WAIT_MOST_S)  # the node gives the origin's own push its time first
            asked = [send for send in self.bench.sent if send.link == link and isinstance(send.message, Ask)]
            self.bench.hear(link, line.answer(asked[-1].message.request))
            self.bench.sent = [send for send in self.bench.sent if send not in asked]
        return line

    def report(self, observer: str, *reports: Report, sequence: int, abstains: bool = False) -> None:
        """Let a puppet report."""
        body = encode_reachability(Reachability({one.subject: one for one in reports}, abstains))
        self.publish(observer, sequence, entries={"reachability": body})

    def cut(self, peer: str, *, dials_fail: bool = True) -> None:
        """End the link to a puppet without a word; dials are refused."""
        self.bench.do(self.bench.node.peer_lost(self.links.pop(peer), "connection lost", self.bench.at()))
        if dials_fail:
            self.refuse(peer)

    def refuse(self, peer: str) -> None:
        """Let a dial to a puppet fail."""
        contact = self.lines[peer].digest.contact
        self.bench.do(self.bench.node.dial_failed(contact, "connection refused", self.bench.at()))

    def pass_time(self, seconds: float) -> None:
        """Let time pass while the living answer."""
        end_s = self.bench.now_s + seconds
        while self.bench.now_s < end_s - 1e-9:
            self.bench.pass_time(min(STEP_S, end_s - self.bench.now_s))
            for peer, link in list(self.links.items()):
                for ping in self.bench.said(link, Ping):
                    self.pings.setdefault(peer, []).append(self.bench.now_s)
                    if peer not in self.silent:
                        self.bench.hear(link, Pong(ping.token, self._clock_ms(peer)))

    def stall(self, seconds: float) -> None:
        """Let the loop of the node stand still: what was due comes late, then what was heard."""
        self.bench.now_s += seconds
        self.pass_time(STEP_S)

    def _clock_ms(self, peer: str) -> int:
        return self.bench.at().wall_ms - self.bench.wall_ahead_ms + self.ahead_ms.get(peer, 0)

    @property
    def statement(self) -> Reachability:
        """What the node has published of others."""
        return self.bench.node.standing.statement(OWN)

    @property
    def reports(self) -> dict[str, Report]:
        """The reports it has published."""
        return dict(self.statement.reports)

    @property
    def sequence(self) -> int:
        """How many digests it has published since its start."""
        head = self.bench.head(OWN)
        assert head is not None
        return head.order.sequence

    def verdicts(self) -> list[tuple[str, str]]:
        """Return all changes of verdicts told so far."""
        return [(one.host, one.verdict.value) for one in self.bench.told(fx.VerdictChanged)]
