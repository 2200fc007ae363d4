"""
A small virtual network: nodes of the real core, virtual time, every message through the real codec.

Certificates are plain words here (PlainTrust), so a test of the protocol needs
no key. Real ones are tested in tests/shell and tests/e2e.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Sequence
from random import Random

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.framing import FrameBuffer, frame
from esgf_gossip.core.limits import LEAVES_ANSWER_BYTES
from esgf_gossip.core.log_serving import pages, proof
from esgf_gossip.core.logs import Log, LogKey, StoredLog
from esgf_gossip.core.messages import Message
from esgf_gossip.core.model import (
    Address,
    CertificateRank,
    Digest,
    Link,
    Moment,
    Order,
    SignedDigest,
    VerifiedDigest,
)
from esgf_gossip.core.node import Node, StoredLine

FEDERATION = "fed.example.org"
START_MS = 1_790_000_000_000
CERTIFICATE_LIFE_MS = 90 * 24 * 3600 * 1000


def _chain(origin: str, generation: int) -> tuple[bytes, ...]:
    return (f"certificate {generation} of {origin}".encode(), b"issuing CA")


@attrs.frozen
class PlainSigner:
    """A Signer whose signature is a hash: as good as any against bugs, worthless against people."""

    origin: str
    generation: int = 1
    federation: str = FEDERATION
    not_after_ms: int = START_MS + CERTIFICATE_LIFE_MS

    @property
    def chain(self) -> tuple[bytes, ...]:
        return _chain(self.origin, self.generation)

    @property
    def certificate_sha256(self) -> bytes:
        return hashlib.sha256(self.chain[0]).digest()

    @property
    def rank(self) -> CertificateRank:
        return CertificateRank(self.generation, self.generation.to_bytes(20, "big"))

    def sign(self, payload: bytes) -> bytes:
        return hashlib.sha256(b"signed by " + self.chain[0] + payload).digest()


@attrs.define
class PlainVerifier:
    """A Verifier for PlainSigner; ``revoked`` holds certificates by their bytes."""

    revoked: set[bytes] = attrs.field(factory=set)
    calls: int = 0

    def verify(
        self, signed: SignedDigest, digest: Digest, chain: Sequence[bytes], now_ms: int
    ) -> VerifiedDigest:
        self.calls += 1
        if not chain or hashlib.sha256(chain[0]).digest() != digest.certificate_sha256:
            raise DigestRefused("no chain for this certificate")
        words = chain[0].decode("ascii", "replace").split()
        if words[0] != "certificate" or words[-1] != digest.origin:
            raise DigestRefused("the certificate belongs to another node")
        if chain[0] in self.revoked:
            raise DigestRefused("certificate revoked")
        if digest.issued_at_ms > now_ms + 600_000:
            raise DigestRefused("dated ahead", lasting=False)
        if hashlib.sha256(b"signed by " + chain[0] + signed.payload).digest() != signed.signature:
            raise DigestRefused("bad signature")
        generation = int(words[1])
        rank = CertificateRank(generation, generation.to_bytes(20, "big"))
        return VerifiedDigest(
            signed,
            digest,
            Order(rank, digest.epoch, digest.sequence),
            hashlib.sha256(signed.payload).digest(),
            tuple(chain),
        )


@attrs.define
class Disk:
    """What a crash leaves: exactly what was persisted before it."""

    epoch: int = 0
    lines: dict[str, VerifiedDigest] = attrs.field(factory=dict)
    bodies: dict[bytes, bytes] = attrs.field(factory=dict)
    logs: dict[LogKey, Log] = attrs.field(factory=dict)
    leaves: dict[LogKey, dict[int, bytes]] = attrs.field(factory=dict)

    def copy(self) -> Disk:
        """Return what a backup made now would hold."""
        leaves = {key: dict(kept) for key, kept in self.leaves.items()}
        return Disk(self.epoch, dict(self.lines), dict(self.bodies), dict(self.logs), leaves)

    def stored_logs(self) -> list[StoredLog]:
        """Return the logs as a database gives them back."""
        return [
            StoredLog(
                *key, log.born, log.tree, log.word and log.word.signed, log.word.chain if log.word else ()
            )
            for key, log in self.logs.items()
        ]

    def carry_out(self, order: fx.SendLeaves | fx.SendProof) -> list[Message]:
        """Return the messages that an order to read leaves leads to."""
        kept = self.leaves.get((order.origin, order.log), {})
        is_proof = isinstance(order, fx.SendProof)
        low, high = (order.low, order.high) if is_proof else (order.start, order.end)
        found, size_bytes = [], 0
        while low < high and low in kept and (is_proof or size_bytes < LEAVES_ANSWER_BYTES):
            found.append(kept[low])
            size_bytes += len(kept[low])
            low += 1
        return [proof(order, found)] if isinstance(order, fx.SendProof) else list(pages(order, found))

    def apply(self, effect: object) -> None:
        match effect:
            case fx.PersistLeaves():
                key = (effect.origin, effect.log)
                kept = {} if effect.is_anew else self.leaves.get(key, {})
                kept |= dict(enumerate(effect.leaves, start=effect.first))
                start, size = effect.state.tree.start, effect.state.tree.size
                self.leaves[key] = {number: leaf for number, leaf in kept.items() if number >= start}
                assert sorted(self.leaves[key]) == list(range(start, size)), "a hole in a log"
                self.logs[key] = effect.state
            case fx.DropLeaves():
                self.logs.pop((effect.origin, effect.log), None)
                self.leaves.pop((effect.origin, effect.log), None)
            case fx.PersistEpoch():
                self.epoch = effect.epoch
            case fx.PersistLine():
                self.lines[effect.line.digest.origin] = effect.line
                self.bodies.update(effect.bodies)
                for content in effect.dropped:
                    self.bodies.pop(content, None)
            case fx.RemoveLine() | fx.DropBodies():
                if isinstance(effect, fx.RemoveLine):
                    self.lines.pop(effect.origin, None)
                for content in effect.dropped:
                    self.bodies.pop(content, None)


@attrs.define(eq=False)
class Host:
    """One machine of the virtual network: a disk that survives, a node that may not run."""

    name: str
    disk: Disk = attrs.field(factory=Disk)
    entries: dict[str, bytes] = attrs.field(factory=dict)
    node: Node | None = None
    generation: int = 1
    run: int = 0
    clock_ahead_ms: int = 0
    notices: list[object] = attrs.field(factory=list)

    @property
    def contact(self) -> Address:
        return (self.name, 8951)


class VirtualNetwork:
    """
    Nodes, links with latency and cuts, one priority queue of virtual seconds.

    Everything follows from the seed. ``dropped`` and ``delivered`` count
    messages, so that a test can assert that its fault really happened.
    """

    def __init__(self, seed: int, latency_s: Callable[[Random], float] | None = None) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.hosts: dict[str, Host] = {}
        self.verifier = PlainVerifier()
        self.latency_s = latency_s or (lambda random: random.uniform(0.001, 0.02))
        self.cut: Callable[[str, str], bool] = lambda _a, _b: False
        self.delivered = 0
        self.dropped = 0
        self.sent: list[tuple[str, str, Message]] = []
        self.record = False
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._links = itertools.count(1)
        # Each link has two ends: (host, run) and the link number of the other end.
        self._ends: dict[Link, tuple[Host, int, Link, FrameBuffer]] = {}
        self._quiet_until: dict[Link, float] = {}

    # ----------------------------------------------------------------- life

    def at(self, host: Host | None = None) -> Moment:
        """Return this instant, by the clock of a host that may be wrong."""
        ahead_ms = 0 if host is None else host.clock_ahead_ms
        return Moment(self.now_s, START_MS + int(self.now_s * 1000) + ahead_ms)

    def add(self, name: str, entries: dict[str, bytes] | None = None) -> Host:
        host = self.hosts[name] = Host(name)
        host.entries = {"registration": f"registration of {name}".encode()} if entries is None else entries
        return host

    def start(self, name: str, seeds: Sequence[str] = ()) -> Host:
        host = self.hosts[name]
        host.run += 1
        addresses = [self.hosts[seed].contact for seed in seeds]
        signer = PlainSigner(name, host.generation)
        host.node = Node(
            signer, self.verifier, host.contact, addresses, Random(f"{self.random.random()}/{name}")
        )
        lines = [StoredLine(line.signed, line.chain) for line in host.disk.lines.values()]
        disk = host.disk
        self._perform(
            host, host.node.restore(disk.epoch, lines, disk.bodies, self.at(host), disk.stored_logs())
        )
        self._perform(host, host.node.start(host.entries, self.at(host)))
        return host

    def kill(self, name: str) -> None:
        """Stop a node as kill -9 does: nothing is said, links break."""
        host = self.hosts[name]
        host.node = None
        host.run += 1
        for link, (owner, _run, other, _buffer) in list(self._ends.items()):
            if owner is host:
                self._break(link, other)

    def stop(self, name: str) -> None:
        host = self.hosts[name]
        assert host.node is not None
        self._perform(host, host.node.stop())
        # The process is gone, its goodbyes are on their way: links break behind them.
        host.node = None
        host.run += 1

    def lose_disk(self, name: str) -> None:
        """Take everything from a machine that is switched off."""
        host = self.hosts[name]
        assert host.node is None
        host.disk = Disk()

    def publish(self, name: str, entries: dict[str, bytes]) -> None:
        host = self.hosts[name]
        host.entries = entries
        assert host.node is not None
        self._perform(host, host.node.publish(entries, self.at(host)))

    def append(self, name: str, log: str, leaves: Sequence[bytes]) -> None:
        host = self.hosts[name]
        assert host.node is not None
        self._perform(host, host.node.append(log, leaves, self.at(host)))

    def leave(self, name: str) -> None:
        host = self.hosts[name]
        assert host.node is not None
        self._perform(host, host.node.leave(self.at(host)))
        self.stop(name)

    # ----------------------------------------------------------------- time

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass; stop early when ``until`` holds. Tells whether it held."""
        end = self.now_s + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
            if until is not None and until():
                return True
        self.now_s = end
        return until is None or until()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_s + seconds, next(self._order), action))

    # ----------------------------------------------------------------- state

    def running(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.node is not None]

    def roots(self) -> set[bytes]:
        return {host.node.registry.table.root for host in self.running() if host.node}

    def converged(self) -> bool:
        sizes = {len(host.node.registry.table) for host in self.running() if host.node}
        return len(self.roots()) == 1 and max(sizes, default=0) >= len(self.running())

    # ----------------------------------------------------------------- effects

    def _perform(self, host: Host, outputs: list[fx.Output]) -> None:
        run = host.run
        for output in outputs:
            host.disk.apply(output)
        for output in outputs:
            match output:
                case fx.Send():
                    self._send(host, output.link, output.message)
                case fx.SendLeaves() | fx.SendProof():
                    for message in host.disk.carry_out(output):
                        self._send(host, output.link, message)
                case fx.Disconnect():
                    self._disconnect(output.link)
                case fx.Dial():
                    self._dial(host, output.address)
                case fx.StartTimer():
                    self._timer(host, run, output)
                case _ if isinstance(output, fx.Persist):
                    pass
                case _:
                    host.notices.append(output)

    def _timer(self, host: Host, run: int, output: fx.StartTimer) -> None:
        def fire() -> None:
            if host.run == run and host.node is not None:
                self._perform(host, host.node.handle_timer(output.timer, self.at(host)))

        self.later(output.after_s, fire)

    def _dial(self, host: Host, address: Address) -> None:
        run = host.run
        target = self.hosts.get(address[0])

        def arrive() -> None:
            if host.run != run or host.node is None:
                return
            if target is None or target.node is None or self.cut(host.name, target.name):
                self._perform(host, host.node.dial_failed(address, "connection refused", self.at(host)))
                return
            ours, theirs = Link(next(self._links)), Link(next(self._links))
            self._ends[ours] = (host, host.run, theirs, FrameBuffer())
            self._ends[theirs] = (target, target.run, ours, FrameBuffer())
            self._perform(host, host.node.peer_connected(ours, target.name, address, self.at(host)))
            if target.node is not None and theirs in self._ends:
                self._perform(target, target.node.peer_connected(theirs, host.name, None, self.at(target)))

        self.later(2 * self.latency_s(self.random), arrive)

    def _send(self, host: Host, link: Link, message: Message) -> None:
        end = self._ends.get(link)
        if end is None:
            return
        other = end[2]
        if self.record:
            self.sent.append((host.name, self._ends[other][0].name if other in self._ends else "?", message))
        data = frame(encode(message))
        # TCP: in order, so never earlier than what was sent before.
        arrival = max(self.now_s + self.latency_s(self.random), self._quiet_until.get(other, 0.0))
        self._quiet_until[other] = arrival
        self.later(arrival - self.now_s, lambda: self._deliver(host.name, other, data))

    def _deliver(self, sender: str, link: Link, data: bytes) -> None:
        end = self._ends.get(link)
        if end is None:
            return
        host, run, _other, buffer = end
        if host.node is None or host.run != run:
            return
        if self.cut(sender, host.name):
            self.dropped += 1
            return
        self.delivered += 1
        for payload in buffer.feed(data):
            self._perform(host, host.node.handle_message(link, decode(payload), self.at(host)))

    def _disconnect(self, link: Link) -> None:
        end = self._ends.get(link)
        if end is not None:
            other = end[2]
            # What was sent before still arrives.
            self.later(
                max(0.0, self._quiet_until.get(other, 0.0) - self.now_s), lambda: self._break(link, other)
            )

    def _break(self, link: Link, other: Link) -> None:
        self._ends.pop(link, None)
        end = self._ends.pop(other, None)
        if end is None:
            return
        host, run, _, _ = end

        def lost() -> None:
            if host.node is not None and host.run == run:
                self._perform(host, host.node.peer_lost(other, "connection lost", self.at(host)))

        self.later(0.0, lost)


def a_network(size: int, seed: int, seeds: int = 1) -> VirtualNetwork:
    """Start a network of nodes n00, n01, ... that all know the first ones as seeds."""
    network = VirtualNetwork(seed)
    names = [f"n{number:02}.example.org" for number in range(size)]
    for name in names:
        network.add(name)
    for name in names:
        network.start(name, [seed_name for seed_name in names[:seeds] if seed_name != name])
    return network
