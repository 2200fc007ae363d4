"""
One real node on a bench: its peers are puppets, its time is virtual, its outputs are kept.

``Author`` makes signed lines of other origins, ``Bench`` feeds one node by hand,
``NodePair`` joins two nodes by links whose messages move only when told. No test lives here.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.digests import encode_digest
from esgf_gossip.core.limits import DIGEST_LIFETIME_MS, FRAME_BYTES
from esgf_gossip.core.messages import Answer, Fork, Hello, Message
from esgf_gossip.core.model import (
    Address,
    Digest,
    EntryRef,
    Head,
    Link,
    LogRef,
    Moment,
    Order,
    SignedDigest,
    VerifiedDigest,
)
from esgf_gossip.core.node import Node
from esgf_gossip.core.registry import sha256
from esgf_gossip.core.revision import StoredLine
from esgf_gossip.sim.disk import Disk
from esgf_gossip.sim.trust import FEDERATION, START_MS, PlainJudge, PlainSigner, PlainVerifier

OWN = "m.example.org"


@attrs.frozen
class Line:
    """A signed digest of a puppet, with everything that belongs to it."""

    signed: SignedDigest
    digest: Digest
    chain: tuple[bytes, ...]
    bodies: tuple[bytes, ...]
    verified: VerifiedDigest

    @property
    def head(self) -> Head:
        return self.verified.head

    def answer(self, request: int, **changes: Any) -> Answer:
        """Return the whole line as one message."""
        fields: dict[str, Any] = {
            "request": request,
            "origin": self.digest.origin,
            "signed": self.signed,
            "chain": self.chain,
            "bodies": self.bodies,
            "is_last": True,
        }
        return Answer(**{**fields, **changes})


def a_line(
    origin: str,
    epoch: int = 1,
    sequence: int = 1,
    entries: Mapping[str, bytes] | None = None,
    *,
    generation: int = 1,
    issued_at_ms: int = START_MS,
    lifetime_ms: int = DIGEST_LIFETIME_MS,
    contact: Address | None = None,
    leaving: bool = False,
    logs: Mapping[str, LogRef] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Line:
    """Return a line rightly signed; ``sizes`` lets the origin lie about its bodies."""
    signer = PlainSigner(origin, generation)
    bodies = {"registration": f"registration of {origin}".encode()} if entries is None else dict(entries)
    refs = {
        name: EntryRef(
            sha256(body), (sizes or {}).get(name, len(body)), (epoch, sequence), max(0, issued_at_ms)
        )
        for name, body in bodies.items()
    }
    digest = Digest(
        federation=FEDERATION,
        origin=origin,
        certificate_sha256=signer.certificate_sha256,
        epoch=epoch,
        sequence=sequence,
        issued_at_ms=issued_at_ms,
        expires_at_ms=issued_at_ms + lifetime_ms,
        contact=(origin, 8951) if contact is None else contact,
        entries=refs,
        logs=logs or {},
        leaving=leaving,
    )
    payload = encode_digest(digest)
    signed = SignedDigest(payload, signer.sign(payload))
    verified = VerifiedDigest(
        signed,
        digest,
        Order(signer.rank, epoch, sequence),
        sha256(payload),
        signer.chain,
        hosts=frozenset({origin}),
    )
    return Line(signed, digest, signer.chain, tuple(dict.fromkeys(bodies.values())), verified)


def a_fork(origin: str, generation: int = 1, number: int = 1) -> Fork:
    """Return the proof that a certificate signed two digests of one number."""
    one, other = (
        a_line(origin, number, number, {"registration": word}, generation=generation) for word in (b"1", b"2")
    )
    return Fork(one.chain, one.signed, other.signed, "", ())


def a_hello(**changes: Any) -> Hello:
    """Return the hello of a puppet."""
    fields: dict[str, Any] = {
        "version_min": 1,
        "version_max": 1,
        "features": (),
        "federation": FEDERATION,
        "instance": b"puppet instance."[:16],
        "clock_ms": START_MS,
        "roots": {},
        "head_of_you": None,
    }
    return Hello(**{**fields, **changes})


class Bench:
    """A started node, its disk, its timers, and what it has sent and told since last asked."""

    def __init__(
        self,
        own: str = OWN,
        *,
        seeds: tuple[Address, ...] = (),
        entries: Mapping[str, bytes] | None = None,
        disk: Disk | None = None,
        seed: int = 1,
        generation: int = 1,
        wall_ahead_ms: int = 0,
    ) -> None:
        self.disk = disk or Disk()
        self.verifier = PlainVerifier()
        self.judge = PlainJudge()
        self.now_s = 0.0
        self.wall_ahead_ms = wall_ahead_ms
        self.outputs: list[fx.Output] = []
        self.sent: list[fx.Send] = []
        self.closed: dict[Link, str] = {}
        self.notices: list[object] = []
        self.dials: list[Address] = []
        self.pauses: list[fx.PauseReading] = []
        self._timers: list[tuple[float, int, fx.Timer]] = []
        self._order = itertools.count()
        self._links = itertools.count(1)
        self.node = Node(
            PlainSigner(own, generation), self.verifier, (own, 8951), seeds, Random(seed), self.judge
        )
        stored = [StoredLine(line.signed, line.chain) for line in self.disk.lines.values()]
        forks, logs = list(self.disk.forks.values()), self.disk.stored_logs()
        trust = list(self.disk.trust.values())
        self.do(self.node.restore(self.disk.epoch, stored, self.disk.bodies, self.at(), forks, logs, trust))
        self.do(self.node.start({"registration": b"own"} if entries is None else entries, self.at()))

    def at(self) -> Moment:
        return Moment(self.now_s, START_MS + int(self.now_s * 1000) + self.wall_ahead_ms)

    def do(self, outputs: list[fx.Output]) -> list[fx.Output]:
        """Carry out a batch as the driver does and keep it."""
        self.outputs = outputs
        for output in outputs:
            self.disk.apply(output)
        for output in outputs:
            match output:
                case fx.Send():
                    assert output.link not in self.closed, "sent on a link already disconnected"
                    assert len(encode(output.message)) <= FRAME_BYTES
                    self.sent.append(output)
                case fx.Disconnect():
                    assert output.link not in self.closed, "disconnected twice"
                    self.closed[output.link] = output.reason
                case fx.Dial():
                    self.dials.append(output.address)
                case fx.PauseReading():
                    self.pauses.append(output)
                case fx.StartTimer():
                    due_s = self.now_s + output.after_s
                    heapq.heappush(self._timers, (due_s, next(self._order), output.timer))
                case lx.SendLeaves() | lx.SendProof():
                    for message in self.disk.read(output):
                        assert len(encode(message)) <= FRAME_BYTES
                        self.sent.append(fx.Send(output.link, message))
                case _ if isinstance(output, fx.Persist):
                    pass
                case _:
                    self.notices.append(output)
        return outputs

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass and timers fire."""
        end_s = self.now_s + seconds
        while self._timers and self._timers[0][0] <= end_s:
            due_s, _, timer = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, due_s)
            self.do(self.node.handle_timer(timer, self.at()))
        self.now_s = end_s

    def timers(self, kind: type) -> list[fx.Timer]:
        """Return the timers of a kind that are set."""
        return [timer for _, _, timer in self._timers if isinstance(timer, kind)]

    def connect(self, peer: str, dialled: Address | None = None) -> Link:
        """Show the node a link whose peer has not said hello."""
        link = Link(next(self._links))
        self.do(self.node.peer_connected(link, peer, dialled, self.at()))
        return link

    def open(self, peer: str, dialled: Address | None = None, **hello: Any) -> Link:
        """Show the node a link and say hello; the roots are equal unless given."""
        link = self.connect(peer, dialled)
        fields = {
            "roots": {1: self.node.registry.table.root},
            "instance": sha256(peer.encode())[:16],
            "clock_ms": self.at().wall_ms,
        }
        self.hear(link, a_hello(**{**fields, **hello}))
        return link

    def hear(self, link: Link, message: Message) -> list[fx.Output]:
        """Give the node a message as a peer's bytes would."""
        return self.do(self.node.handle_message(link, decode(encode(message)), self.at()))

    def said(self, link: Link | None = None, kind: type | None = None) -> list[Any]:
        """Return the messages sent over a link since last asked, and forget all others of it."""
        found = [send.message for send in self.sent if link in (None, send.link)]
        self.sent = [send for send in self.sent if link not in (None, send.link)]
        return [message for message in found if kind is None or isinstance(message, kind)]

    def told(self, kind: type) -> list[Any]:
        """Return the notices of a kind since the start."""
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def head(self, origin: str) -> Head | None:
        return self.node.registry.table.head(origin)


@attrs.define(eq=False)
class _Wire:
    ends: dict[str, Link]
    waiting: dict[str, deque[bytes]] = attrs.field(factory=dict)


class NodePair:
    """Two nodes, any number of links between them, each message delivered only when told."""

    def __init__(self, first: str = "a.example.org", second: str = "b.example.org") -> None:
        self.nodes = {
            name: Node(PlainSigner(name), PlainVerifier(), (name, 8951), (), Random(name), PlainJudge())
            for name in (first, second)
        }
        self.now_s = 0.0
        self.wires: list[_Wire] = []
        self.notices: dict[str, list[object]] = {first: [], second: []}
        self._numbers = {first: itertools.count(1), second: itertools.count(1)}
        for name, node in self.nodes.items():
            self._do(name, node.restore(0, (), {}, self.at()))
            self._do(name, node.start({"registration": name.encode()}, self.at()))

    def at(self) -> Moment:
        return Moment(self.now_s, START_MS + int(self.now_s * 1000))

    def restart(self, name: str, seed: str = "again") -> None:
        """Replace a node by a new process that remembers nothing; the other side hears nothing of it."""
        node = self.nodes[name] = Node(
            PlainSigner(name), PlainVerifier(), (name, 8951), (), Random(seed), PlainJudge()
        )
        for wire in self.wires:
            wire.ends.pop(name, None)
        self._do(name, node.restore(0, (), {}, self.at()))
        self._do(name, node.start({"registration": name.encode()}, self.at()))

    def dial(self, dialler: str, *, address: Address | None = None) -> _Wire:
        """Join the two by a link; the dialler hears of it before the other."""
        other = next(name for name in self.nodes if name != dialler)
        return self.join(dialler, (dialler, other), address)

    def join(self, dialler: str, order: tuple[str, str], address: Address | None = None) -> _Wire:
        """Number both ends of a new link, then show them to the nodes in this order."""
        other = next(name for name in self.nodes if name != dialler)
        wire = _Wire({name: Link(next(self._numbers[name])) for name in order})
        wire.waiting = {name: deque() for name in order}
        self.wires.append(wire)
        for name in order:
            dialled = (address or (other, 8951)) if name == dialler else None
            peer = other if name == dialler else dialler
            self._do(name, self.nodes[name].peer_connected(wire.ends[name], peer, dialled, self.at()))
        return wire

    def _do(self, name: str, outputs: list[fx.Output]) -> None:
        for output in outputs:
            match output:
                case fx.Send():
                    for wire in self.wires:
                        if wire.ends.get(name) == output.link:
                            for other in wire.ends:
                                if other != name:
                                    wire.waiting[other].append(encode(output.message))
                case fx.Disconnect():
                    for wire in self.wires:
                        if wire.ends.get(name) == output.link:
                            del wire.ends[name]
                case _:
                    self.notices[name].append(output)

    def deliver(self) -> int:
        """Deliver what waits until nothing does; then break the links one side has closed."""
        count = 0
        moved = True
        while moved:
            moved = False
            for wire in list(self.wires):
                for name in list(wire.ends):
                    if wire.waiting[name]:
                        payload = wire.waiting[name].popleft()
                        moved, count = True, count + 1
                        link = wire.ends[name]
                        self._do(name, self.nodes[name].handle_message(link, decode(payload), self.at()))
        for wire in list(self.wires):
            if len(wire.ends) < 2:
                self.wires.remove(wire)
                for name, link in list(wire.ends.items()):
                    self._do(name, self.nodes[name].peer_lost(link, "connection lost", self.at()))
        return count

    def links(self, name: str) -> list[_Wire]:
        """Return the wires on which a node counts an open link."""
        open_links = {session.link for session in self.nodes[name].links.sessions.open()}
        return [wire for wire in self.wires if wire.ends.get(name) in open_links]
