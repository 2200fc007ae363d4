"""
Download numbers of a node: as value, as bytes of the entry ``metrics``, and as the dashboard's ``data_users.metrics``.

Source: docs/formats.md, section 11.
"""

from __future__ import annotations

import re
from typing import Final

import attrs
import msgpack

from esgf_gossip.esgf.bodies import BodyError, is_number, unpacked

# The name of the entry.
METRICS: Final = "metrics"
COUNT_MAX: Final = 2**63 - 1
# The dashboard writes one line of four numbers.
FILE_BYTES: Final = 4096

# As Java reads it: any case, anywhere in the text, the last number may be missing.
_LINE: Final = re.compile(
    r"DOWNLOADCOUNT=([0-9]{1,19}),DOWNLOADSIZE=([0-9]{1,19}),DOWNLOADUSERS=([0-9]{1,19})"
    r"(?:,REGISTEREDUSERS=([0-9]{1,19}))?\s*$",
    re.IGNORECASE,
)


class MetricsError(ValueError):
    """Report a file that holds no numbers, in one line."""


@attrs.frozen
class Metrics:
    """Download numbers of a node; None where nobody counted."""

    download_count: int | None = None
    download_bytes: int | None = None
    download_users: int | None = None
    registered_users: int | None = None

    def numbers(self) -> dict[str, int]:
        """Return the numbers there are, by name."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}


def to_body(metrics: Metrics) -> bytes:
    """Encode as the body of the entry ``metrics``: equal numbers give equal bytes."""
    packed: bytes = msgpack.packb({"metrics": metrics.numbers()})
    return packed


def from_body(body: bytes) -> Metrics:
    """
    Decode a body that anyone may have made; names not known here are passed over.

    Raises:
        BodyError: the bytes are no such body, or a number is out of range.
    """
    fields = unpacked(body, METRICS)
    numbers = fields.get("metrics") if isinstance(fields, dict) else None
    if not isinstance(numbers, dict):
        raise BodyError("metrics: not a map of numbers")
    return Metrics(*(_count(numbers.get(field.name)) for field in attrs.fields(Metrics)))


def parse_data_users(content: bytes, name: str) -> Metrics:
    """
    Read the dashboard's file.

    Args:
        content: of the file.
        name: how messages call it.

    Raises:
        MetricsError: it holds no such line.
    """
    found = _LINE.search(content.decode("utf-8", "replace"))
    if found is None:
        raise MetricsError(
            f"{name}: no line DOWNLOADCOUNT=...,DOWNLOADSIZE=...,DOWNLOADUSERS=...; see [metrics] in node.toml"
        )
    numbers = [None if text is None else min(int(text), COUNT_MAX) for text in found.groups()]
    return Metrics(numbers[0] or 0, numbers[1] or 0, numbers[2] or 0, numbers[3])


def _count(value: object) -> int | None:
    if value is None:
        return None
    if not is_number(value, COUNT_MAX):
        raise BodyError(f"metrics: not a number from 0 to {COUNT_MAX}")
    return value
