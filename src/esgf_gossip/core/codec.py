"""
Messages to payloads and back.

Each kind has its number, its reader and its writer here; every length and type from
outside is checked, so that any bytes give a message or a WireError. An array may be
longer than we know: it only ever grows at its end. Source: docs/protocol.md, "Messages".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from esgf_gossip.core import limits, packing
from esgf_gossip.core.buckets import HEAD_PRINT_BYTES, SALT_BYTES
from esgf_gossip.core.digests import read_head, read_head_or_none
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.messages import (
    Announce,
    Answer,
    Ask,
    AskLeaves,
    AskProof,
    Bodies,
    Fingerprints,
    Fork,
    Forks,
    GiveTrust,
    Goodbye,
    Heads,
    Hello,
    Leaves,
    Message,
    Ping,
    Pong,
    Proof,
    Roots,
    TrustHeads,
    Unknown,
    Want,
    WantFork,
    WantTrust,
)
from esgf_gossip.core.model import Head, SignedDigest, TrustHead

INSTANCE_BYTES: Final = 16

_LOG_OR_NONE: Final = re.compile(f"({packing.NAME.pattern})?")
_TRUST_MARK: Final = re.compile(f"({packing.TRUST_KEY.pattern}|~)?")

# ----------------------------------------------------------------- reading


def _body(value: object) -> bytes:
    return packing.blob(value, 0, limits.ENTRY_BYTES)


def _certificate(value: object) -> bytes:
    return packing.blob(value, 1, limits.CHAIN_BYTES)


def _roots(value: object) -> dict[int, bytes]:
    pairs = packing.items(value, lambda item: packing.array(item, 2, "root"), limits.MESSAGE_KINDS, "roots")
    return {packing.number(pair[0], 255): packing.sha256(pair[1]) for pair in pairs}


def _signed(value: object) -> SignedDigest | None:
    return None if value is None else _signed_digest(value)


def _chain(value: object) -> tuple[bytes, ...]:
    chain = packing.items(value, _certificate, limits.CHAIN_CERTIFICATES, "chain")
    if sum(map(len, chain)) > limits.CHAIN_BYTES:
        raise WireError(f"a chain above {limits.CHAIN_BYTES} bytes")
    return chain


def _signed_digest(value: object) -> SignedDigest:
    payload, signature = packing.array(value, 2, "signed digest")[:2]
    return SignedDigest(
        packing.blob(payload, 1, limits.DIGEST_BYTES), packing.blob(signature, 1, limits.SIGNATURE_BYTES)
    )


def _read_fork(f: list[Any]) -> Fork:
    return Fork(
        chain=_chain(f[0]),
        older=_signed_digest(f[1]),
        newer=_signed_digest(f[2]),
        log=packing.text(f[3], _LOG_OR_NONE, "the name of a log, or none"),
        hashes=packing.items(f[4], packing.sha256, limits.FORK_HASHES, "hashes"),
    )


def _read_hello(f: list[Any]) -> Hello:
    return Hello(
        version_min=packing.number(f[0], 65535),
        version_max=packing.number(f[1], 65535),
        features=packing.items(
            f[2], lambda item: packing.number(item, 65535), limits.MESSAGE_FEATURES, "features"
        ),
        federation=packing.host(f[3]),
        instance=packing.blob(f[4], INSTANCE_BYTES, INSTANCE_BYTES),
        clock_ms=packing.time_ms(f[5]),
        roots=_roots(f[6]),
        head_of_you=read_head_or_none(f[7]),
    )


def _read_answer(f: list[Any]) -> Answer:
    return Answer(
        request=packing.number(f[0]),
        origin=packing.host(f[1]),
        signed=_signed(f[2]),
        chain=_chain(f[3]),
        bodies=packing.items(f[4], _body, limits.MESSAGE_BODIES, "bodies"),
        is_last=packing.flag(f[5]),
    )


def _heads(value: object) -> tuple[Head, ...]:
    return packing.items(value, read_head, limits.MESSAGE_HEADS, "heads")


def _leaves(value: object) -> tuple[bytes, ...]:
    if type(value) is bytes:
        value = packing.unpack(packing.inflated(value, limits.LEAVES_PACKED_BYTES))
    return packing.items(
        value, lambda leaf: packing.blob(leaf, 1, limits.LEAF_BYTES), limits.MESSAGE_LEAVES, "leaves"
    )


def _log_hashes(value: object) -> tuple[bytes, ...]:
    return packing.items(value, packing.sha256, limits.LOG_HASHES, "hashes")


def _read_leaves(f: list[Any]) -> Leaves:
    return Leaves(
        request=packing.number(f[0]),
        start=packing.number(f[1]),
        leaves=_leaves(f[2]),
        left=_log_hashes(f[3]),
        right=_log_hashes(f[4]),
        is_last=packing.flag(f[5]),
    )


def _read_log_question(kind: type[AskLeaves | AskProof]) -> Callable[[list[Any]], Message]:
    return lambda f: kind(
        packing.number(f[0]),
        packing.host(f[1]),
        packing.text(f[2], packing.NAME, "a log name"),
        *map(packing.number, f[3:6]),
    )


def _trust_key(value: object) -> str:
    return packing.text(value, packing.TRUST_KEY, "the key of a trust object")


def _trust_head(value: object) -> TrustHead:
    key, number, stamp_s, content = packing.array(value, 4, "the head of a trust object")[:4]
    return TrustHead(
        _trust_key(key), packing.number(number), packing.number(stamp_s), packing.sha256(content)
    )


def _read_trust_heads(f: list[Any]) -> TrustHeads:
    return TrustHeads(
        packing.items(f[0], _trust_head, limits.MESSAGE_TRUST, "heads of trust objects"),
        packing.text(f[1], _TRUST_MARK, "the key of a trust object, or none"),
        packing.text(f[2], _TRUST_MARK, "the key of a trust object, or none"),
    )


# Number, least fields after it, reader. Append only.
_READERS: Final[dict[int, tuple[int, Callable[[list[Any]], Message]]]] = {
    1: (8, _read_hello),
    2: (2, lambda f: Roots(_roots(f[0]), packing.flag(f[1]))),
    3: (2, lambda f: Heads(_heads(f[0]), packing.flag(f[1]))),
    4: (1, lambda f: Announce(_heads(f[0]))),
    5: (
        4,
        lambda f: Ask(
            packing.number(f[0]),
            packing.host(f[1]),
            read_head_or_none(f[2]),
            packing.blob(f[3], 0, packing.HASH_BYTES),
        ),
    ),
    6: (6, _read_answer),
    7: (
        2,
        lambda f: Want(
            packing.number(f[0]), packing.items(f[1], packing.sha256, limits.MESSAGE_HASHES, "hashes")
        ),
    ),
    8: (
        3,
        lambda f: Bodies(
            packing.number(f[0]),
            packing.items(f[1], _body, limits.MESSAGE_BODIES, "bodies"),
            packing.flag(f[2]),
        ),
    ),
    9: (2, lambda f: Ping(packing.number(f[0]), packing.time_ms(f[1]))),
    10: (2, lambda f: Pong(packing.number(f[0]), packing.time_ms(f[1]))),
    11: (
        3,
        lambda f: Goodbye(packing.number(f[0], 255), packing.number(f[1], 10**9), packing.free_text(f[2])),
    ),
    12: (
        4,
        lambda f: Fingerprints(
            packing.number(f[0], 255),
            packing.blob(f[1], SALT_BYTES, SALT_BYTES),
            packing.blob(f[2], 0, limits.SUMMARY_HEADS // 8),
            packing.blob(f[3], 0, limits.SUMMARY_HEADS * HEAD_PRINT_BYTES),
        ),
    ),
    13: (
        3,
        lambda f: Forks(
            packing.items(f[0], packing.sha256, limits.MESSAGE_FORKS, "certificates"),
            packing.blob(f[1], 0, packing.HASH_BYTES),
            packing.blob(f[2], 0, packing.HASH_BYTES),
        ),
    ),
    14: (1, lambda f: WantFork(packing.sha256(f[0]))),
    15: (5, _read_fork),
    16: (6, _read_log_question(AskLeaves)),
    17: (6, _read_leaves),
    18: (6, _read_log_question(AskProof)),
    19: (2, lambda f: Proof(packing.number(f[0]), _log_hashes(f[1]))),
    20: (3, _read_trust_heads),
    21: (1, lambda f: WantTrust(_trust_key(f[0]))),
    22: (2, lambda f: GiveTrust(_trust_key(f[0]), packing.blob(f[1], 1, limits.TRUST_BODY_BYTES))),
}


def decode(payload: bytes) -> Message:
    """
    Read one payload.

    Raises:
        WireError: the bytes are not a message; nothing else ever escapes.
    """
    fields = packing.array(packing.unpack(payload), 1, "message")
    kind = packing.number(fields[0], 65535)
    if kind not in _READERS:
        return Unknown(kind)
    least, read = _READERS[kind]
    return read(packing.array(fields[1:], least, f"message of kind {kind}"))


# ----------------------------------------------------------------- writing


def _packed_roots(message: Hello | Roots) -> list[list[object]]:
    return [[int(kind), root] for kind, root in sorted(message.roots.items())]


def _packed_head(head: Head | None) -> list[object] | None:
    return None if head is None else head.as_array()


def _packed_signed(signed: SignedDigest | None) -> list[bytes] | None:
    return None if signed is None else [signed.payload, signed.signature]


def _packed_leaves(leaves: tuple[bytes, ...]) -> list[bytes] | bytes:
    return packing.deflated(packing.pack(leaves)) or list(leaves)


_WRITERS: Final[dict[type[Any], Callable[[Any], list[object]]]] = {
    Hello: lambda m: [
        1,
        m.version_min,
        m.version_max,
        list(map(int, m.features)),
        m.federation,
        m.instance,
        m.clock_ms,
        _packed_roots(m),
        _packed_head(m.head_of_you),
    ],
    Roots: lambda m: [2, _packed_roots(m), m.is_reply],
    Heads: lambda m: [3, [head.as_array() for head in m.heads], m.is_last],
    Announce: lambda m: [4, [head.as_array() for head in m.heads]],
    Ask: lambda m: [5, m.request, m.origin, _packed_head(m.held), m.certificate_sha256],
    Answer: lambda m: [
        6,
        m.request,
        m.origin,
        _packed_signed(m.signed),
        list(m.chain),
        list(m.bodies),
        m.is_last,
    ],
    Want: lambda m: [7, m.request, list(m.hashes)],
    Bodies: lambda m: [8, m.request, list(m.bodies), m.is_last],
    Ping: lambda m: [9, m.token, m.clock_ms],
    Pong: lambda m: [10, m.token, m.clock_ms],
    Goodbye: lambda m: [11, int(m.farewell), m.away_s, m.text],
    Fingerprints: lambda m: [12, int(m.level), m.salt, m.marks, m.prints],
    Forks: lambda m: [13, list(m.certificates), m.above, m.up_to],
    WantFork: lambda m: [14, m.certificate_sha256],
    Fork: lambda m: [
        15,
        list(m.chain),
        _packed_signed(m.older),
        _packed_signed(m.newer),
        m.log,
        list(m.hashes),
    ],
    AskLeaves: lambda m: [16, m.request, m.origin, m.log, m.born, m.start, m.size],
    Leaves: lambda m: [
        17,
        m.request,
        m.start,
        _packed_leaves(m.leaves),
        list(m.left),
        list(m.right),
        m.is_last,
    ],
    AskProof: lambda m: [18, m.request, m.origin, m.log, m.born, m.first_size, m.second_size],
    Proof: lambda m: [19, m.request, list(m.hashes)],
    TrustHeads: lambda m: [20, [head.as_array() for head in m.heads], m.above, m.up_to],
    WantTrust: lambda m: [21, m.key],
    GiveTrust: lambda m: [22, m.key, m.body],
}


def encode(message: Message) -> bytes:
    """Return the payload of a message; Unknown has none (KeyError, our bug)."""
    return packing.pack(_WRITERS[type(message)](message))
