"""
Bodies of entries that anyone may have made: from bytes to plain values, bounded.

What the values mean is judged by whoever reads the entry.
"""

from __future__ import annotations

from typing import TypeGuard

import msgpack

from esgf_gossip.core import limits


class BodyError(ValueError):
    """Report bytes that are no body of an entry, in one line. Nothing was changed."""


def unpacked(body: bytes, what: str) -> object:
    """
    Decode a msgpack body.

    Args:
        body: the bytes.
        what: how messages call the entry.

    Raises:
        BodyError: too long, not msgpack, an extension type, or a key that stands twice in one map.
    """
    if len(body) > limits.ENTRY_BYTES:
        raise BodyError(f"{what} of {len(body)} bytes, at most {limits.ENTRY_BYTES} are allowed")

    def pairs_once(pairs: list[tuple[object, object]]) -> dict[object, object]:
        mapping = dict(pairs)
        # Two readers that keep different ones of two equal keys would see two entries.
        if len(mapping) != len(pairs):
            raise BodyError(f"{what}: a key occurs twice in one map")
        return mapping

    def no_extension(code: int, _data: bytes) -> object:
        raise BodyError(f"{what}: msgpack extension {code}")

    try:
        value: object = msgpack.unpackb(
            body,
            object_pairs_hook=pairs_once,
            ext_hook=no_extension,
            max_str_len=limits.ENTRY_BYTES,
            max_bin_len=limits.ENTRY_BYTES,
            max_array_len=limits.ENTRY_BYTES,
            max_map_len=limits.ENTRY_BYTES,
            max_ext_len=0,
        )
    except BodyError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException):
        # The parser's own texts may quote bytes of a stranger: they stay here.
        raise BodyError(f"{what}: not a msgpack map of text keys") from None
    return value


def is_number(value: object, largest: int) -> TypeGuard[int]:
    """Tell whether a value is a whole number from 0 to ``largest``; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest
