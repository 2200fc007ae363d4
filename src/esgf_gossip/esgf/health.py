"""
The health of services: what a node says of its own, as value and as bytes of the entry ``services``.

How it is found out is ``sources.probing``'s work. Source: docs/formats.md, section 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

import attrs
import msgpack

from esgf_gossip.core import limits
from esgf_gossip.esgf.bodies import BodyError, is_number, unpacked

# The name of the entry.
SERVICES: Final = "services"
# Of one body; thirteen types are known.
SERVICES_MOST: Final = 64
REASON_CHARACTERS: Final = 200


class Health(Enum):
    """The health of a service as every list and page names it; unknown: nobody looked."""

    UP = "up"
    DOWN = "down"
    MAINTENANCE = "maintenance"
    UNKNOWN = "unknown"


@attrs.frozen
class ServiceHealth:
    """One service: its health, since when (Unix ms; None while unknown), what the last failed probe saw."""

    health: Health = Health.UNKNOWN
    since_ms: int | None = None
    reason: str = ""


NEVER_PROBED: Final = ServiceHealth()
HealthByType = Mapping[str, ServiceHealth]
NOTHING_KNOWN: Final[HealthByType] = MappingProxyType({})


def to_body(services: HealthByType) -> bytes:
    """Encode as the body of the entry ``services``: equal healths give equal bytes."""
    rows = {
        name: [one.health.value, one.since_ms, one.reason[:REASON_CHARACTERS]]
        for name, one in sorted(services.items())
        if one.health is not Health.UNKNOWN and one.since_ms is not None
    }
    packed: bytes = msgpack.packb({"services": rows})
    return packed


def from_body(body: bytes) -> HealthByType:
    """
    Decode a body that anyone may have made.

    What a later version may add is passed over: keys, further fields of a row, rows with a health not known here.

    Raises:
        BodyError: the bytes are no such body, or beyond a bound.
    """
    fields = unpacked(body, SERVICES)
    rows = fields.get("services") if isinstance(fields, dict) else None
    if not isinstance(rows, dict) or len(rows) > SERVICES_MOST:
        raise BodyError(f"services: not a map of at most {SERVICES_MOST} services")
    read = {}
    for name, row in rows.items():
        if not isinstance(name, str) or len(name) > limits.NAME_CHARACTERS:
            raise BodyError("services: a type is no short text")
        if not isinstance(row, list) or len(row) < 3:
            raise BodyError("services: a row is not a list of three")
        health, since_ms, reason = row[:3]
        if not is_number(since_ms, limits.TIME_MS_MAX):
            raise BodyError("services: since is no time in milliseconds")
        if not isinstance(reason, str) or len(reason) > REASON_CHARACTERS:
            raise BodyError("services: a reason is no short text")
        if isinstance(health, str) and health in _KNOWN:
            read[name] = ServiceHealth(_KNOWN[health], since_ms, reason)
    return MappingProxyType(read)


_KNOWN: Final[Mapping[str, Health]] = {one.value: one for one in Health if one is not Health.UNKNOWN}
