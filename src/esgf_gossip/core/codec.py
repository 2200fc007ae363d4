"""
Messages to payloads and back; digests to their bytes and back.

The only importer of msgpack in the core. Every length and type from outside is
checked here, so that any bytes give a message or a WireError. An array may be
longer than we know: it only ever grows at its end. Source: docs/protocol.md.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgpack

from esgf_gossip.core import limits
from esgf_gossip.core.errors import UnknownFormatError, WireError
from esgf_gossip.core.messages import (
    Announce,
    Answer,
    Ask,
    Bodies,
    Goodbye,
    Heads,
    Hello,
    Message,
    Ping,
    Pong,
    Roots,
    Unknown,
    Want,
)
from esgf_gossip.core.model import (
    SERIAL_BYTES,
    CertificateRank,
    Digest,
    EntryRef,
    Head,
    LogRef,
    Order,
    SignedDigest,
)

DIGEST_FORMAT: Final = 1
HASH_BYTES: Final = 32
INSTANCE_BYTES: Final = 16

T = TypeVar("T")

# ----------------------------------------------------------------- reading


def _unpack(data: bytes) -> object:
    # A frame of empty arrays makes 130,000 objects: the collector would look through the whole heap again and
    # again (65 ms in a daemon, 4 ms without). They hold no cycles, so nothing is left for it to find.
    collects = gc.isenabled()
    gc.disable()
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_ext_len=0,
            max_array_len=limits.ARRAY_ITEMS,
            max_map_len=limits.ARRAY_ITEMS,
            object_pairs_hook=_pairs,
        )
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"not msgpack: {error}") from None
    finally:
        if collects:
            gc.enable()


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    # Two readers must never read one signed map differently.
    result = dict(pairs)
    if len(result) != len(pairs):
        raise WireError("a map names one key twice")
    return result


def _array(value: object, least: int, what: str) -> list[Any]:
    if type(value) is not list or len(value) < least:
        raise WireError(f"{what}: an array of at least {least} fields was expected")
    return value


def _items(value: object, read: Callable[[object], T], most: int, what: str) -> tuple[T, ...]:
    if type(value) is not list or len(value) > most:
        raise WireError(f"{what}: an array of at most {most} items was expected")
    return tuple(read(item) for item in value)


def _mapping(value: object, most: int, what: str) -> dict[Any, Any]:
    if type(value) is not dict or len(value) > most:
        raise WireError(f"{what}: a map of at most {most} keys was expected")
    return value


def _number(value: object, most: int = limits.COUNTER_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise WireError(f"a number from 0 to {most} was expected")
    return value


def _time_ms(value: object) -> int:
    return _number(value, limits.TIME_MS_MAX)


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise WireError("true or false was expected")
    return value


def _blob(value: object, least: int, most: int) -> bytes:
    if type(value) is not bytes or not least <= len(value) <= most:
        raise WireError(f"{least} to {most} bytes were expected")
    return value


def _hash(value: object) -> bytes:
    return _blob(value, HASH_BYTES, HASH_BYTES)


def _body(value: object) -> bytes:
    return _blob(value, 0, limits.ENTRY_BYTES)


def _certificate(value: object) -> bytes:
    return _blob(value, 1, limits.CHAIN_BYTES)


_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_CONTACT: Final = re.compile(r"[0-9A-Za-z.:-]{1,253}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,63}")


def _text(value: object, pattern: re.Pattern[str], what: str) -> str:
    if type(value) is not str or pattern.fullmatch(value) is None:
        raise WireError(f"{what} was expected")
    return value


def _host(value: object) -> str:
    return _text(value, _HOST, "a host name (lower case, RFC 1123)")


def is_entry_name(name: str) -> bool:
    """Tell whether every peer takes this as the name of an entry."""
    return _NAME.fullmatch(name) is not None


def _free_text(value: object) -> str:
    if type(value) is not str or len(value) > limits.TEXT_CHARACTERS:
        raise WireError(f"a text of at most {limits.TEXT_CHARACTERS} characters was expected")
    # It ends up in logs: no line breaks, no terminal control.
    return "".join(character if character.isprintable() else "?" for character in value)


def _head(value: object) -> Head:
    origin, not_before_s, serial, epoch, sequence, payload_sha256 = _array(value, 6, "head")[:6]
    rank = CertificateRank(_number(not_before_s), _blob(serial, SERIAL_BYTES, SERIAL_BYTES))
    return Head(_host(origin), Order(rank, _number(epoch), _number(sequence)), _hash(payload_sha256))


def _head_or_none(value: object) -> Head | None:
    return None if value is None else _head(value)


def _roots(value: object) -> dict[int, bytes]:
    pairs = _items(value, lambda item: _array(item, 2, "root"), limits.MESSAGE_KINDS, "roots")
    return {_number(pair[0], 255): _hash(pair[1]) for pair in pairs}


def _signed(value: object) -> SignedDigest | None:
    if value is None:
        return None
    payload, signature = _array(value, 2, "signed digest")[:2]
    return SignedDigest(_blob(payload, 1, limits.DIGEST_BYTES), _blob(signature, 1, limits.SIGNATURE_BYTES))


def _chain(value: object) -> tuple[bytes, ...]:
    chain = _items(value, _certificate, limits.CHAIN_CERTIFICATES, "chain")
    if sum(map(len, chain)) > limits.CHAIN_BYTES:
        raise WireError(f"a chain above {limits.CHAIN_BYTES} bytes")
    return chain


def _read_hello(f: list[Any]) -> Hello:
    return Hello(
        version_min=_number(f[0], 65535),
        version_max=_number(f[1], 65535),
        features=_items(f[2], lambda item: _number(item, 65535), limits.MESSAGE_FEATURES, "features"),
        federation=_host(f[3]),
        instance=_blob(f[4], INSTANCE_BYTES, INSTANCE_BYTES),
        clock_ms=_time_ms(f[5]),
        roots=_roots(f[6]),
        head_of_you=_head_or_none(f[7]),
    )


def _read_answer(f: list[Any]) -> Answer:
    return Answer(
        request=_number(f[0]),
        origin=_host(f[1]),
        signed=_signed(f[2]),
        chain=_chain(f[3]),
        bodies=_items(f[4], _body, limits.MESSAGE_BODIES, "bodies"),
        is_last=_flag(f[5]),
    )


def _heads(value: object) -> tuple[Head, ...]:
    return _items(value, _head, limits.MESSAGE_HEADS, "heads")


# Number, least fields after it, reader. Append only.
_READERS: Final[dict[int, tuple[int, Callable[[list[Any]], Message]]]] = {
    1: (8, _read_hello),
    2: (2, lambda f: Roots(_roots(f[0]), _flag(f[1]))),
    3: (2, lambda f: Heads(_heads(f[0]), _flag(f[1]))),
    4: (1, lambda f: Announce(_heads(f[0]))),
    5: (4, lambda f: Ask(_number(f[0]), _host(f[1]), _head_or_none(f[2]), _blob(f[3], 0, HASH_BYTES))),
    6: (6, _read_answer),
    7: (2, lambda f: Want(_number(f[0]), _items(f[1], _hash, limits.MESSAGE_HASHES, "hashes"))),
    8: (
        3,
        lambda f: Bodies(_number(f[0]), _items(f[1], _body, limits.MESSAGE_BODIES, "bodies"), _flag(f[2])),
    ),
    9: (2, lambda f: Ping(_number(f[0]), _time_ms(f[1]))),
    10: (2, lambda f: Pong(_number(f[0]), _time_ms(f[1]))),
    11: (3, lambda f: Goodbye(_number(f[0], 255), _number(f[1], 10**9), _free_text(f[2]))),
}


def decode(payload: bytes) -> Message:
    """
    Read one payload.

    Raises:
        WireError: the bytes are not a message; nothing else ever escapes.
    """
    fields = _array(_unpack(payload), 1, "message")
    kind = _number(fields[0], 65535)
    if kind not in _READERS:
        return Unknown(kind)
    least, read = _READERS[kind]
    return read(_array(fields[1:], least, f"message of kind {kind}"))


def decode_digest(payload: bytes) -> Digest:
    """
    Read the bytes of a digest; they stay the truth, this is a reading of them.

    Raises:
        WireError: malformed or out of bounds.
    """
    if len(payload) > limits.DIGEST_BYTES:
        raise WireError(f"a digest of {len(payload)} bytes is above {limits.DIGEST_BYTES}")
    f = _array(_unpack(payload), 12, "digest")
    if _number(f[0], 255) != DIGEST_FORMAT:
        raise UnknownFormatError(f"digest format {f[0]} is not known here")
    contact = _array(f[8], 2, "contact")
    entries = {
        _text(name, _NAME, "an entry name"): _entry(ref)
        for name, ref in _mapping(f[9], limits.DIGEST_ENTRIES, "entries").items()
    }
    if sum(ref.size_bytes for ref in entries.values()) > limits.ENTRIES_TOTAL_BYTES:
        raise WireError(f"the entries together are above {limits.ENTRIES_TOTAL_BYTES} bytes")
    logs = {
        _text(name, _NAME, "a log name"): _log(ref)
        for name, ref in _mapping(f[10], limits.DIGEST_LOGS, "logs").items()
    }
    return Digest(
        federation=_host(f[1]),
        origin=_host(f[2]),
        certificate_sha256=_hash(f[3]),
        epoch=_number(f[4]),
        sequence=_number(f[5]),
        issued_at_ms=_time_ms(f[6]),
        expires_at_ms=_time_ms(f[7]),
        contact=(_text(contact[0], _CONTACT, "a host name or IP address"), _number(contact[1], 65535)),
        entries=entries,
        logs=logs,
        leaving=bool(_number(f[11]) & 1),
    )


def _entry(value: object) -> EntryRef:
    sha256, size_bytes, changed, changed_at_ms = _array(value, 4, "entry")[:4]
    epoch, sequence = _array(changed, 2, "changed at")[:2]
    return EntryRef(
        _hash(sha256),
        _number(size_bytes, limits.ENTRY_BYTES),
        (_number(epoch), _number(sequence)),
        _time_ms(changed_at_ms),
    )


def _log(value: object) -> LogRef:
    born, size, root, first_retained = _array(value, 4, "log")[:4]
    return LogRef(_number(born), _number(size), _hash(root), _number(first_retained))


# ----------------------------------------------------------------- writing


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def pack_head(head: Head) -> list[object]:
    """Return a head as the array that stands in messages and under the root."""
    rank = head.order.certificate
    return [
        head.origin,
        rank.not_before_s,
        rank.serial,
        head.order.epoch,
        head.order.sequence,
        head.payload_sha256,
    ]


def encode_head(head: Head) -> bytes:
    """Return the bytes of a head, the leaf of the root hash."""
    return _pack(pack_head(head))


def _packed_roots(message: Hello | Roots) -> list[list[object]]:
    return [[int(kind), root] for kind, root in sorted(message.roots.items())]


def _packed_head(head: Head | None) -> list[object] | None:
    return None if head is None else pack_head(head)


def _packed_signed(signed: SignedDigest | None) -> list[bytes] | None:
    return None if signed is None else [signed.payload, signed.signature]


_WRITERS: Final[dict[type[Any], Callable[[Any], list[object]]]] = {
    Hello: lambda m: [
        1,
        m.version_min,
        m.version_max,
        list(m.features),
        m.federation,
        m.instance,
        m.clock_ms,
        _packed_roots(m),
        _packed_head(m.head_of_you),
    ],
    Roots: lambda m: [2, _packed_roots(m), m.is_reply],
    Heads: lambda m: [3, [pack_head(head) for head in m.heads], m.is_last],
    Announce: lambda m: [4, [pack_head(head) for head in m.heads]],
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
}


def encode(message: Message) -> bytes:
    """Return the payload of a message; Unknown has none (KeyError, our bug)."""
    return _pack(_WRITERS[type(message)](message))


def encode_digest(digest: Digest) -> bytes:
    """Return the bytes to sign. Only an origin calls this, and only for itself."""
    return _pack(
        [
            DIGEST_FORMAT,
            digest.federation,
            digest.origin,
            digest.certificate_sha256,
            digest.epoch,
            digest.sequence,
            digest.issued_at_ms,
            digest.expires_at_ms,
            list(digest.contact),
            {
                name: [ref.sha256, ref.size_bytes, list(ref.changed_at), ref.changed_at_ms]
                for name, ref in sorted(digest.entries.items())
            },
            {
                name: [ref.born, ref.size, ref.root, ref.first_retained]
                for name, ref in sorted(digest.logs.items())
            },
            int(digest.leaving),
        ]
    )
