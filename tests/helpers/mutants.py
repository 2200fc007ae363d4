"""
Digests that must not be accepted, in named classes.

A class of ``CLASSES`` makes one mutant of what a stage knows; ``run_batch`` offers
many of one class to one node. No test lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import attrs
import msgpack
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from esgf_gossip.core.codec import encode
from esgf_gossip.core.limits import DIGEST_LIFETIME_MS
from esgf_gossip.core.messages import Answer
from esgf_gossip.core.model import SignedDigest
from esgf_gossip.core.registry import sha256
from helpers.stage import ACCEPTED, GARBLED, PAST, Origin, Said, Stage

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _repacked(said: Said, random: Random, *places: tuple[int, Callable[[object], object]]) -> Answer:
    """Change fields of the payload by their place, keep the signature."""
    fields = msgpack.unpackb(said.signed.payload)
    for place, change in places:
        fields[place] = change(fields[place])
    payload = msgpack.packb(fields, use_bin_type=True)
    origin = fields[2] if isinstance(fields[2], str) else said.digest.origin
    return said.answer(origin=origin, signed=SignedDigest(payload, said.signed.signature))


def _fresh(stage: Stage, origin: Origin | None = None) -> Said:
    """Return a digest above the one held, rightly signed, that nobody has heard; nobody must hear it whole."""
    origin = origin or stage.random.choice(stage.origins)
    return origin.say(sequence=PAST + 1 + stage.random.getrandbits(40))


def _any(stage: Stage) -> tuple[Origin, Said]:
    origin = stage.random.choice(stage.origins)
    return origin, stage.random.choice((_fresh(stage, origin), stage.random.choice(origin.past)))


def _two(stage: Stage) -> tuple[Origin, Origin]:
    one, other = stage.random.sample(stage.origins, 2)
    return one, other


def _payload_bit(stage: Stage) -> Answer:
    said = _any(stage)[1]
    return said.answer(signed=attrs.evolve(said.signed, payload=_flipped(said.signed.payload, stage.random)))


def _signature_bit(stage: Stage) -> Answer:
    said = _fresh(stage)
    return said.answer(
        signed=attrs.evolve(said.signed, signature=_flipped(said.signed.signature, stage.random))
    )


def _other_encoding(stage: Stage) -> Answer:
    """Encode the same fields otherwise: numbers in more bytes, maps in another order, fields at the end."""
    said = _fresh(stage)
    fields = msgpack.unpackb(said.signed.payload)
    items = list(fields[9].items())
    stage.random.shuffle(items)
    fields[9] = dict(items)
    fields.append(stage.random.getrandbits(60))
    payload = msgpack.packb(fields, use_bin_type=True)
    return said.answer(signed=SignedDigest(payload, said.signed.signature))


def _signature_of_another(stage: Stage) -> Answer:
    origin = stage.random.choice(stage.origins)
    said, other = _fresh(stage, origin), stage.random.choice((_fresh(stage, origin), *origin.past))
    return said.answer(signed=attrs.evolve(said.signed, signature=other.signed.signature))


def _chain_of_another(stage: Stage) -> Answer:
    one, other = _two(stage)
    return _fresh(stage, one).answer(chain=other.signer.chain)


def _leaf_swapped(stage: Stage) -> Answer:
    one, other = _two(stage)
    leaf = stage.random.choice((one.older, one.foreign, one.revoked, other.signer)).chain[0]
    return _fresh(stage, one).answer(chain=(leaf, *one.next.chain[1:]))


def _chain_bit(stage: Stage) -> Answer:
    said = _fresh(stage)
    chain = list(said.chain)
    place = stage.random.randrange(len(chain))
    chain[place] = _flipped(chain[place], stage.random)
    return said.answer(chain=tuple(chain))


def _chain_cut(stage: Stage) -> Answer:
    said = _fresh(stage)
    chain = list(said.chain)
    which = stage.random.randrange(3)
    if which == 0:
        return said.answer(chain=tuple(chain[1:]))
    if which == 1:
        return said.answer(chain=tuple(reversed(chain)))
    return said.answer(chain=(stage.random.randbytes(stage.random.randint(1, 900)), *chain))


def _origin_rewritten(stage: Stage) -> Answer:
    one, other = _two(stage)
    said = _fresh(stage, one)
    return attrs.evolve(_repacked(said, stage.random, (2, lambda _: other.host)), chain=said.chain)


def _origin_and_certificate_rewritten(stage: Stage) -> Answer:
    one, other = _two(stage)
    said = _fresh(stage, one)
    answer = _repacked(
        said, stage.random, (2, lambda _: other.host), (3, lambda _: other.signer.certificate_sha256)
    )
    return attrs.evolve(answer, chain=other.signer.chain)


def _replayed(stage: Stage) -> Answer:
    """Bring an old digest, true to the last byte."""
    origin = stage.random.choice(stage.origins)
    return stage.random.choice(origin.past).answer()


def _number_raised(stage: Stage) -> Answer:
    """Give an old digest a number above the one held."""
    said = _any(stage)[1]
    place = stage.random.choice((4, 5))
    return _repacked(said, stage.random, (place, lambda value: value + stage.random.randint(1, 2**40)))


def _entry_rewritten(stage: Stage) -> Answer:
    """Put one's own body into another's digest."""
    said = _fresh(stage)
    body = stage.random.randbytes(60)
    name = stage.random.choice(sorted(said.digest.entries))

    def put(entries: dict[str, list[object]]) -> dict[str, list[object]]:
        return {**entries, name: [sha256(body), len(body), *entries[name][2:]]}

    return attrs.evolve(_repacked(said, stage.random, (9, put)), bodies=(*said.bodies, body))


def _date_changed(stage: Stage) -> Answer:
    said = _any(stage)[1]
    shift_ms = stage.random.randint(1, 2 * DIGEST_LIFETIME_MS)
    places = stage.random.choice(((7,), (6, 7)))
    return _repacked(said, stage.random, *((place, lambda value: value + shift_ms) for place in places))


def _federation_changed(stage: Stage) -> Answer:
    said = _fresh(stage)
    other = f"f{stage.random.randrange(10**9)}.example.org"
    return _repacked(said, stage.random, (1, lambda _: other))


def _certificate_changed(stage: Stage) -> Answer:
    """Name another certificate in the digest and bring it: of an older, a foreign, a revoked, a stranger's key."""
    one, other = _two(stage)
    signer = stage.random.choice((one.older, one.foreign, one.revoked, other.signer))
    said = _fresh(stage, one)
    answer = _repacked(said, stage.random, (3, lambda _: signer.certificate_sha256))
    return attrs.evolve(answer, chain=signer.chain)


def _signature_twin(stage: Stage) -> Answer:
    """Bring what is held or older with the other signature that the curve allows: (r, n - s)."""
    said = stage.random.choice(stage.random.choice(stage.origins).past)
    r, s = decode_dss_signature(said.signed.signature)
    twin = encode_dss_signature(r, P256_ORDER - s)
    return said.answer(signed=attrs.evolve(said.signed, signature=twin))


def _bodies_swapped(stage: Stage) -> Answer:
    """Bring a newer digest with bodies of which one, always the same, is not its own."""
    one, other = _two(stage)
    registration, *more = one.next.bodies
    wrong = stage.random.choice(
        (stage.random.choice(other.next.bodies), _flipped(registration, stage.random))
    )
    return _fresh(stage, one).answer(bodies=(wrong, *more))


def _size_misstated(stage: Stage) -> Answer:
    """Let the origin itself sign a size that is not its body's."""
    origin = stage.random.choice(stage.origins)
    off = stage.random.choice((-1, 1)) * stage.random.randint(1, 50)
    return origin.say(sizes_off=off, sequence=PAST + 1 + stage.random.randrange(10**6)).answer()


def _mixed(stage: Stage) -> Answer:
    """Put fields of one digest of an origin into another, under either signature."""
    origin = stage.random.choice(stage.origins)
    one, other = stage.random.sample((*origin.past, _fresh(stage, origin)), 2)
    fields, more = msgpack.unpackb(one.signed.payload), msgpack.unpackb(other.signed.payload)
    places = stage.random.sample((5, 6, 7, 9), stage.random.randint(1, 3))
    for place in places:
        fields[place] = more[place]
    names = sorted(fields[9])
    name = stage.random.choice(names)
    fields[9][name] = more[9][name]
    signature = stage.random.choice((one, other)).signed.signature
    payload = msgpack.packb(fields, use_bin_type=True)
    return one.answer(signed=SignedDigest(payload, signature), bodies=(*one.bodies, *other.bodies))


def _older_certificate(stage: Stage) -> Answer:
    """Let a key whose certificate was replaced sign with the highest numbers."""
    origin = stage.random.choice(stage.origins)
    return origin.say(origin.older, epoch=2**62 + stage.random.getrandbits(60)).answer()


def _foreign_certificate(stage: Stage) -> Answer:
    """Sign rightly under a root nobody trusts, or with a revoked certificate."""
    origin = stage.random.choice(stage.origins)
    signer = stage.random.choice((origin.foreign, origin.revoked))
    return origin.say(signer, epoch=2**62 + stage.random.getrandbits(60)).answer()


def _dates_out_of_bounds(stage: Stage) -> Answer:
    """Let the origin itself sign dates that the protocol does not allow."""
    origin, random = stage.random.choice(stage.origins), stage.random
    issued_ms, day_ms = stage.now_ms, 24 * 3600 * 1000
    dates = random.choice(
        (
            (issued_ms, issued_ms + DIGEST_LIFETIME_MS + random.randint(1, 100 * day_ms)),
            (issued_ms + random.randint(11 * 60_000, day_ms), issued_ms + 2 * day_ms),
            (issued_ms, issued_ms - random.randint(0, day_ms)),
        )
    )
    changes = {"issued_at_ms": dates[0], "expires_at_ms": dates[1], "sequence": PAST + 1}
    return origin.say(**changes).answer()


CLASSES: Mapping[str, Callable[[Stage], Answer]] = {
    "bit of the payload flipped": _payload_bit,
    "bit of the signature flipped": _signature_bit,
    "same fields encoded otherwise": _other_encoding,
    "signature of another digest of the origin": _signature_of_another,
    "chain of another node": _chain_of_another,
    "leaf of the chain swapped": _leaf_swapped,
    "bit of the chain flipped": _chain_bit,
    "chain cut, turned or grown": _chain_cut,
    "origin rewritten": _origin_rewritten,
    "origin and certificate rewritten": _origin_and_certificate_rewritten,
    "old digest replayed": _replayed,
    "epoch or sequence raised": _number_raised,
    "hash of an entry rewritten": _entry_rewritten,
    "dates moved": _date_changed,
    "federation changed": _federation_changed,
    "certificate hash changed": _certificate_changed,
    "signature malleated": _signature_twin,
    "bodies swapped": _bodies_swapped,
    "size misstated by the origin": _size_misstated,
    "fields of two digests mixed": _mixed,
    "older certificate, higher number": _older_certificate,
    "foreign or revoked certificate": _foreign_certificate,
    "dates out of bounds, rightly signed": _dates_out_of_bounds,
}


@attrs.define
class Batch:
    """Mutants of one class offered to one node; ``accepted`` holds those that got in, in hex."""

    seed: int
    name: str
    made: int = 0
    outcomes: dict[str, int] = attrs.field(factory=dict)
    accepted: list[str] = attrs.field(factory=list)

    @property
    def parsed(self) -> int:
        """How many passed the parser."""
        return self.made - self.outcomes.get(GARBLED, 0)


def run_batch(name: str, seed: int, parsed: int) -> Batch:
    """Offer a fresh node mutants of a class until so many have passed the parser."""
    stage = Stage(seed)
    batch = Batch(seed, name)
    while batch.parsed < parsed:
        answer = CLASSES[name](stage)
        outcome = stage.offer(answer.origin, answer)
        batch.made += 1
        batch.outcomes[outcome] = batch.outcomes.get(outcome, 0) + 1
        if outcome == ACCEPTED:
            batch.accepted.append(encode(answer).hex())
            break
    if not stage.is_untouched() and not batch.accepted:
        batch.accepted.append("the table changed without a notice")
    return batch
