"""
MessagePack with doubt: values from outside, each type and length checked.

The only importer of msgpack in the core; what a value means is its readers' work
(digests, codec, statements). Everything that is not as it must be is a WireError.
Source: docs/protocol.md, "Encoding".
"""

from __future__ import annotations

import gc
import re
import zlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgpack

from esgf_gossip.core import limits
from esgf_gossip.core.errors import WireError

HASH_BYTES: Final = 32

HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
CONTACT: Final = re.compile(r"[0-9A-Za-z.:-]{1,253}")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,63}")

# Level 1 makes a third of typical events, at 100 MB/s; higher ones win little more.
_DEFLATE_LEVEL: Final = 1

# Kind, slash, and what the kind makes of it; sorted by bytes, "~" is above them all.
TRUST_KEY: Final = re.compile(rf"(?=.{{3,{limits.TRUST_KEY_CHARACTERS}}}\Z)[a-z]{{1,20}}/[a-z0-9._/-]+")

T = TypeVar("T")


def unpack(data: bytes) -> object:
    """Read one value; raises WireError for bytes that are none, or name a key twice."""
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


def array(value: object, least: int, what: str) -> list[Any]:
    """Return an array of at least so many fields; later versions may add some at its end."""
    if type(value) is not list or len(value) < least:
        raise WireError(f"{what}: an array of at least {least} fields was expected")
    return value


def items(value: object, read: Callable[[object], T], most: int, what: str) -> tuple[T, ...]:
    """Return what ``read`` makes of each item of an array of at most so many."""
    if type(value) is not list or len(value) > most:
        raise WireError(f"{what}: an array of at most {most} items was expected")
    return tuple(read(item) for item in value)


def mapping(value: object, most: int, what: str) -> dict[Any, Any]:
    """Return a map of at most so many keys."""
    if type(value) is not dict or len(value) > most:
        raise WireError(f"{what}: a map of at most {most} keys was expected")
    return value


def number(value: object, most: int = limits.COUNTER_MAX) -> int:
    """Return a whole number from 0 to ``most``."""
    if type(value) is not int or not 0 <= value <= most:
        raise WireError(f"a number from 0 to {most} was expected")
    return value


def time_ms(value: object) -> int:
    """Return Unix milliseconds."""
    return number(value, limits.TIME_MS_MAX)


def flag(value: object) -> bool:
    """Return true or false."""
    if type(value) is not bool:
        raise WireError("true or false was expected")
    return value


def blob(value: object, least: int, most: int) -> bytes:
    """Return bytes, so many at least and at most."""
    if type(value) is not bytes or not least <= len(value) <= most:
        raise WireError(f"{least} to {most} bytes were expected")
    return value


def sha256(value: object) -> bytes:
    """Return the 32 bytes of a hash."""
    return blob(value, HASH_BYTES, HASH_BYTES)


def text(value: object, pattern: re.Pattern[str], what: str) -> str:
    """Return a text that has the form of the pattern."""
    if type(value) is not str or pattern.fullmatch(value) is None:
        raise WireError(f"{what} was expected")
    return value


def host(value: object) -> str:
    """Return a host name."""
    return text(value, HOST, "a host name (lower case, RFC 1123)")


def is_entry_name(name: str) -> bool:
    """Tell whether every peer takes this as the name of an entry."""
    return NAME.fullmatch(name) is not None


def free_text(value: object) -> str:
    """Return a text for people, with what a terminal could take for a command replaced."""
    if type(value) is not str or len(value) > limits.TEXT_CHARACTERS:
        raise WireError(f"a text of at most {limits.TEXT_CHARACTERS} characters was expected")
    # It ends up in logs: no line breaks, no terminal control.
    return "".join(character if character.isprintable() else "?" for character in value)


def pack(value: object) -> bytes:
    """Write one value in its shortest form."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def deflated(data: bytes) -> bytes | None:
    """Return the bytes compressed (RFC 1950), None where that saves less than an eighth."""
    compressed = zlib.compress(data, _DEFLATE_LEVEL)
    return compressed if len(compressed) <= len(data) - len(data) // 8 else None


def inflated(data: bytes, most: int) -> bytes:
    """Return what was compressed, read no further than ``most`` bytes; raises WireError."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, most + 1)
    except zlib.error as error:
        raise WireError(f"not a compressed stream: {error}") from None
    if len(content) > most or not stream.eof or stream.unused_data:
        raise WireError(f"not one compressed stream of at most {most} bytes")
    return content
