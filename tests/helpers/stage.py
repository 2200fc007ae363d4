"""
A federation with real keys, and one node with real trust that holds the newest digest but one of each origin.

What the node makes of an answer is told in one word. What to offer it is mutants'. No test lives here.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.digests import decode_digest, encode_digest
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import DIGEST_LIFETIME_MS
from esgf_gossip.core.messages import Answer
from esgf_gossip.core.model import Digest, EntryRef, Link, Moment, SignedDigest
from esgf_gossip.core.node import Node
from esgf_gossip.core.registry import sha256
from esgf_gossip.sim.trust import PlainJudge
from esgf_gossip.trust.names import Names
from esgf_gossip.trust.signing import NodeSigner
from esgf_gossip.trust.verifier import DigestVerifier
from helpers.bench import a_hello
from helpers.trust import FEDERATION, Credentials, a_draft, a_federation, foreign_issuer, signed_draft

OWN = "target.example.org"
HOSTS = tuple(f"n{number}.example.org" for number in range(5))
PAST = 12

# What came of a mutant.
GARBLED = "refused by the parser"
REFUSED = "refused by trust"
NOTHING_NEW = "nothing new"
INCOMPLETE = "bodies still wanted"
PARTED = "link closed"
ACCEPTED = "accepted"


@attrs.frozen
class Said:
    """One digest an origin signed, with its bodies."""

    signed: SignedDigest
    digest: Digest
    bodies: tuple[bytes, ...]
    chain: tuple[bytes, ...]

    def answer(self, **changes: object) -> Answer:
        """Return it as the origin itself would push it."""
        whole = Answer(0, self.digest.origin, self.signed, self.chain, self.bodies, is_last=True)
        return attrs.evolve(whole, **changes)


@attrs.frozen
class Origin:
    """What one host said: ``past`` ends with what the node holds, ``next`` it has not heard."""

    host: str
    signer: NodeSigner
    older: NodeSigner
    foreign: NodeSigner
    revoked: NodeSigner
    past: tuple[Said, ...]
    next: Said

    def say(self, signer: NodeSigner | None = None, sizes_off: int = 0, **changes: object) -> Said:
        """Sign what comes next with changes: with another certificate, or with wrong sizes."""
        signer = signer or self.signer
        entries = {
            name: attrs.evolve(ref, size_bytes=ref.size_bytes + sizes_off)
            for name, ref in self.next.digest.entries.items()
        }
        fields = {"entries": entries, "certificate_sha256": signer.certificate_sha256, **changes}
        return _said(signer, attrs.evolve(self.next.digest, **fields), self.next.bodies)


def _said(signer: NodeSigner, digest: Digest, bodies: tuple[bytes, ...]) -> Said:
    payload = encode_digest(digest)
    return Said(SignedDigest(payload, signer.sign(payload)), digest, bodies, signer.chain)


def _signer(host: str, credentials: Credentials) -> NodeSigner:
    names = Names(FEDERATION, host, (host,), ("member",), ())
    return NodeSigner.make(credentials.key, credentials.leaf, names, credentials.chain)


class Stage:
    """A federation of five origins, and one node that holds the newest digest but one of each."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.counts: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._links: dict[str, Link] = {}
        self._now_s = 0.0
        with tempfile.TemporaryDirectory() as folder:
            self._federation = a_federation(Path(folder))
            self.now_ms = self._federation.now_ms
            self.origins = tuple(map(self._origin, HOSTS))
            revoked = [one.revoked.rank.serial for one in self.origins]
            self._federation.node(OWN)
            self._federation.revoke([int.from_bytes(serial, "big") for serial in revoked], OWN)
            material = self._federation.material(OWN)
        self.node = Node(material.signer, DigestVerifier(material), (OWN, 1), (), Random(seed), PlainJudge())
        self.node.restore(0, (), {}, self.at())
        self.node.start({}, self.at())
        for origin in self.origins:
            for said in origin.past:
                assert self.offer(origin.host, said.answer()) == ACCEPTED
        self.heads = self._heads()

    def at(self) -> Moment:
        """Return this instant; time moves little and no timer fires."""
        return Moment(self._now_s, self.now_ms)

    def _heads(self) -> dict[str, object]:
        return {line.digest.origin: line.head for line in self.node.registry.table}

    def _origin(self, host: str) -> Origin:
        drafts = [a_draft(self._federation, host) for _ in range(4)]
        drafts[1].start -= timedelta(days=5)
        drafts[2].issuer = foreign_issuer(FEDERATION, self.now_ms)
        current, older, foreign, revoked = (_signer(host, signed_draft(draft)) for draft in drafts)
        epoch = self.random.getrandbits(40)
        said = [self._say(current, host, epoch, number + 1) for number in range(PAST + 1)]
        return Origin(host, current, older, foreign, revoked, tuple(said[:-1]), said[-1])

    def _say(self, signer: NodeSigner, host: str, epoch: int, sequence: int) -> Said:
        bodies = {name: self.random.randbytes(60) for name in ("registration", "metrics", "services")}
        refs = {
            name: EntryRef(sha256(body), len(body), (epoch, sequence), self.now_ms)
            for name, body in bodies.items()
        }
        digest = Digest(
            federation=FEDERATION,
            origin=host,
            certificate_sha256=signer.certificate_sha256,
            epoch=epoch,
            sequence=sequence,
            issued_at_ms=self.now_ms - 1000 * (PAST - sequence),
            expires_at_ms=self.now_ms - 1000 * (PAST - sequence) + DIGEST_LIFETIME_MS,
            contact=(host, 8951),
            entries=refs,
        )
        return _said(signer, digest, tuple(bodies.values()))

    # ----------------------------------------------------------------- offering

    def offer(self, peer: str, answer: Answer) -> str:
        """Give the node an answer over the link of a peer, as bytes; tell what came of it."""
        try:
            message = decode(encode(answer))
            assert isinstance(message, Answer)
            assert message.signed is not None
            if decode_digest(message.signed.payload).origin != answer.origin:
                return GARBLED
        except WireError:
            return GARBLED
        self._now_s += 2.0  # nobody is over its quota: what is refused is refused for what it is
        link = self._links.get(peer) or self._open(peer)
        outputs = self.node.handle_message(link, message, self.at())
        kinds = {type(output) for output in outputs}
        if fx.Disconnect in kinds:
            del self._links[peer]
        if kinds & {fx.DigestAccepted, fx.PersistLine, fx.RemoveLine, fx.PersistEpoch}:
            return ACCEPTED
        if fx.Disconnect in kinds:
            return PARTED
        if fx.DigestTurnedAway in kinds:
            return REFUSED
        return INCOMPLETE if fx.Send in kinds else NOTHING_NEW

    def _open(self, peer: str) -> Link:
        link = self._links[peer] = Link(next(self._numbers))
        self.node.peer_connected(link, peer, None, self.at())
        hello = a_hello(federation=FEDERATION, instance=self.random.randbytes(16), clock_ms=self.now_ms)
        self.node.handle_message(link, decode(encode(hello)), self.at())
        return link

    def is_untouched(self) -> bool:
        """Tell whether the table is what it was before any mutant came."""
        return self._heads() == self.heads
