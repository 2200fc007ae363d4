"""
Download numbers of a node, and numbers of its own: as value, as bytes of the entry ``metrics``, and as files hold them.

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
DATA_USERS_BYTES: Final = 4096
# A site's own: so many, of such names, in files of that size.
OWN_NAMES: Final = 64
OWN_BYTES: Final = 64 * 1024
_OWN_NAME: Final = re.compile("[a-z][a-z0-9_]{0,63}")
_OWN_LINE: Final = re.compile(r"([^\s=]+)(?:\s*=\s*|\s+)(\S+)")

Number = int | float

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
    """Numbers of a node; None where nobody counted. ``own`` are the site's, sorted by name."""

    download_count: int | None = None
    download_bytes: int | None = None
    download_users: int | None = None
    registered_users: int | None = None
    own: tuple[tuple[str, Number], ...] = ()

    def numbers(self) -> dict[str, Number]:
        """Return the numbers there are, by name."""
        known = {name: getattr(self, name) for name in _KNOWN}
        return {**{name: value for name, value in known.items() if value is not None}, **dict(self.own)}


_KNOWN: Final = tuple(field.name for field in attrs.fields(Metrics) if field.name != "own")


def to_body(metrics: Metrics) -> bytes:
    """Encode as the body of the entry ``metrics``: equal numbers give equal bytes."""
    packed: bytes = msgpack.packb({"metrics": metrics.numbers()})
    return packed


def from_body(body: bytes) -> Metrics:
    """
    Decode a body that anyone may have made.

    What is no number of a site's own, or beyond their count, is passed over: a later version may say it.

    Raises:
        BodyError: the bytes are no such body, or a download number is out of range.
    """
    fields = unpacked(body, METRICS)
    numbers = fields.get("metrics") if isinstance(fields, dict) else None
    if not isinstance(numbers, dict):
        raise BodyError("metrics: not a map of numbers")
    own = sorted(
        (name, number)
        for name, number in numbers.items()
        if name not in _KNOWN and isinstance(name, str) and _OWN_NAME.fullmatch(name) and _is_own(number)
    )
    counted = {name: _count(numbers.get(name)) for name in _KNOWN}
    return Metrics(
        counted["download_count"],
        counted["download_bytes"],
        counted["download_users"],
        counted["registered_users"],
        tuple(own[:OWN_NAMES]),
    )


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
        raise MetricsError(f"{name}: no line DOWNLOADCOUNT=...,DOWNLOADSIZE=...,DOWNLOADUSERS=...")
    numbers = [None if text is None else min(int(text), COUNT_MAX) for text in found.groups()]
    return Metrics(numbers[0] or 0, numbers[1] or 0, numbers[2] or 0, numbers[3])


def parse_own(content: bytes, name: str) -> dict[str, Number]:
    """
    Read a site's own metrics: one a line, name and number, with ``=`` or blanks between; ``#`` begins a comment line.

    Prometheus' text format without labels is such a file.

    Args:
        content: of the file.
        name: how messages call it.

    Raises:
        MetricsError: a line is none of these, a name is twice there or is one of ours.
    """
    found: dict[str, Number] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = _OWN_LINE.fullmatch(line)
        value = None if parts is None else _parsed(parts[2])
        if parts is None or value is None:
            raise MetricsError(f"{name}:{number}: {line[:80]!r} is not a name and a number")
        if not _OWN_NAME.fullmatch(parts[1]):
            raise MetricsError(
                f"{name}:{number}: {parts[1][:80]!r} is no name: up to 64 of a to z, 0 to 9 and _, a letter first"
            )
        if parts[1] in _KNOWN or parts[1] in found:
            raise MetricsError(f"{name}:{number}: {parts[1]} is told already")
        found[parts[1]] = value
    return found


def _parsed(text: str) -> Number | None:
    try:
        value: Number = int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else float(text)
    except ValueError:
        return None
    return value if _is_own(value) else None


def _is_own(value: object) -> bool:
    """Tell whether JSON can say it: a number, neither infinite nor beyond 2^63."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= COUNT_MAX


def _count(value: object) -> int | None:
    if value is None:
        return None
    if not is_number(value, COUNT_MAX):
        raise BodyError(f"metrics: not a number from 0 to {COUNT_MAX}")
    return value
