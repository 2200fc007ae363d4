"""
Members that lie: certified nodes whose every word may be bent on its way out.

A wire cannot change what TLS protects, but a member may send what it likes.
Each lie counts itself in ``faults.counts`` under its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import Random
from typing import Final

import attrs

from esgf_gossip.core.codec import encode
from esgf_gossip.core.messages import Announce, Answer, Bodies, Goodbye, Heads, Hello, Message, Ping
from esgf_gossip.core.model import Head, Moment, Order
from esgf_gossip.core.reachability import REACHABILITY, Reachability, Report, encode_reachability
from esgf_gossip.sim.host import End
from esgf_gossip.sim.network import VirtualNetwork
from esgf_gossip.sim.trust import PlainSigner

REMEMBERED: Final = 200
FLOOD_MESSAGES: Final = 5


@attrs.define(eq=False)
class Liar:
    """What one lying host remembers, to bring it up again."""

    network: VirtualNetwork
    random: Random
    answers: list[tuple[Answer, bytes]] = attrs.field(factory=list)
    frames: list[bytes] = attrs.field(factory=list)

    def note(self, message: Message, payload: bytes) -> None:
        """Remember what was said."""
        if isinstance(message, Answer) and message.signed is not None and len(self.answers) < REMEMBERED:
            self.answers.append((message, payload))
        if not isinstance(message, Hello | Goodbye) and len(self.frames) < REMEMBERED:
            self.frames.append(payload)

    def withhold(self, _end: End, message: Message, payload: bytes) -> list[bytes]:
        """Announce everything, answer nothing."""
        return [] if isinstance(message, Answer | Bodies) else [payload]

    def mutate(self, _end: End, message: Message, payload: bytes) -> list[bytes]:
        """Flip one bit of every answer."""
        if not isinstance(message, Answer | Bodies):
            return [payload]
        changed = bytearray(payload)
        changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        return [bytes(changed)]

    def replay(self, _end: End, message: Message, payload: bytes) -> list[bytes]:
        """Say again, after most messages, something said before: doubled and out of order."""
        if isinstance(message, Hello | Goodbye):
            return [payload]
        return [payload, *self.random.sample(self.frames, min(len(self.frames), 2))]

    def roll_back(self, _end: End, message: Message, payload: bytes) -> list[bytes]:
        """Answer with the oldest digest of the origin it knows."""
        if isinstance(message, Answer):
            for old, _ in self.answers:
                if old.origin == message.origin and old.signed != message.signed:
                    return [encode(attrs.evolve(message, signed=old.signed, chain=old.chain))]
        return [payload]

    def mix(self, _end: End, message: Message, payload: bytes) -> list[bytes]:
        """Answer with the bodies, or under the chain, of another origin."""
        if isinstance(message, Answer):
            for other, _ in self.answers:
                if other.origin != message.origin:
                    if self.random.random() < 0.5:
                        return [encode(attrs.evolve(message, bodies=other.bodies))]
                    return [encode(attrs.evolve(message, chain=other.chain))]
        return [payload]

    def flood(self, _end: End, message: Message, payload: bytes) -> list[bytes]:
        """Add to each claim many false ones: of invented origins, and of heads nobody signed."""
        if not isinstance(message, Announce | Heads | Ping):
            return [payload]
        more = []
        for _ in range(FLOOD_MESSAGES):
            heads = [self._invented() for _ in range(20)]
            more.append(encode(Announce(tuple(heads))))
        return [payload, *more]

    def _invented(self) -> Head:
        name = self.random.choice((*self.network.hosts, f"x{self.random.randrange(10**6)}.example.org"))
        return Head(
            name, Order(PlainSigner(name).rank, 2**62, self.random.randrange(1000)), self.random.randbytes(32)
        )


LIES: Final[dict[str, Callable[[Liar, End, Message, bytes], list[bytes]]]] = {
    "withhold": Liar.withhold,
    "mutate": Liar.mutate,
    "replay": Liar.replay,
    "roll back": Liar.roll_back,
    "mix": Liar.mix,
    "flood": Liar.flood,
}


def corrupt(network: VirtualNetwork, machine: str, lie: str) -> None:
    """Let a host lie in one way from now on."""
    liar, tell = Liar(network, Random(f"{network.seed}/liar/{machine}")), LIES[lie]

    def tamper(end: End, message: Message, payload: bytes) -> list[bytes]:
        liar.note(message, payload)
        told = tell(liar, end, message, payload)
        if told != [payload]:
            network.faults.counts[f"lie: {lie}"] += 1
        return told

    network.hosts[machine].tamper = tamper


def slander(network: VirtualNetwork, machine: str, subjects: Collection[str], every_s: float = 1.0) -> None:
    """Let a host report these nodes for ever, each newest digest of theirs, whatever it hears of them."""
    host = network.hosts[machine]
    node, run = host.node, host.run
    assert node is not None
    speak_truly = node.origin.publication.say

    def say(name: str, _body: bytes | None, at: Moment) -> None:
        heads = [head for head in map(node.registry.table.head, subjects) if head is not None]
        reports = {
            head.origin: Report(head.origin, head.order.epoch, head.order.sequence, at.wall_ms)
            for head in heads
        }
        speak_truly(name, encode_reachability(Reachability(reports)), at)

    def again() -> None:
        if host.run == run:
            network.faults.counts["lie: slander"] += 1
            say(REACHABILITY, None, network.at(host))
            network.publish(machine, {**host.entries, "registration": f"{network.now_s}".encode()})
            network.timeline.later(every_s, again)

    node.origin.publication.say = say  # type: ignore[method-assign]
    again()
