"""
What a node sees of others' services: exceptions only, as value and as bytes of the entry ``observations``.

Whoever publishes the entry looks; what is not in it was seen to answer, or not seen. Source: docs/formats.md, section 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgpack

from esgf_gossip.core import limits
from esgf_gossip.esgf.bodies import BodyError, is_number, unpacked
from esgf_gossip.esgf.health import REASON_CHARACTERS, SERVICES_MOST, Health, HealthByType, ServiceHealth

# The name of the entry.
OBSERVATIONS: Final = "observations"
# A node looks at about five others.
HOSTS_MOST: Final = 64

Observations = Mapping[str, HealthByType]


def to_body(observations: Observations) -> bytes:
    """Encode as the body of the entry ``observations``: equal observations give equal bytes; what is not down is left out."""
    rows = {
        host: {
            name: [one.since_ms, one.reason[:REASON_CHARACTERS]]
            for name, one in sorted(services.items())
            if one.health is Health.DOWN
        }
        for host, services in sorted(observations.items())
    }
    packed: bytes = msgpack.packb({"observations": {host: down for host, down in rows.items() if down}})
    return packed


def from_body(body: bytes) -> Observations:
    """
    Decode a body that anyone may have made; further fields of a row are passed over.

    Raises:
        BodyError: the bytes are no such body, or beyond a bound.
    """
    fields = unpacked(body, OBSERVATIONS)
    hosts = fields.get("observations") if isinstance(fields, dict) else None
    if not isinstance(hosts, dict) or len(hosts) > HOSTS_MOST:
        raise BodyError(f"observations: not a map of at most {HOSTS_MOST} hosts")
    return MappingProxyType(
        {_text(host, limits.HOST_CHARACTERS): _services(rows) for host, rows in hosts.items()}
    )


def _services(rows: object) -> HealthByType:
    if not isinstance(rows, dict) or len(rows) > SERVICES_MOST:
        raise BodyError(f"observations: not a map of at most {SERVICES_MOST} services")
    read = {}
    for name, row in rows.items():
        if not isinstance(row, list) or len(row) < 2:
            raise BodyError("observations: a row is not a list of two")
        since_ms, reason = row[:2]
        if not is_number(since_ms, limits.TIME_MS_MAX):
            raise BodyError("observations: since is no time in milliseconds")
        if not isinstance(reason, str) or len(reason) > REASON_CHARACTERS:
            raise BodyError("observations: a reason is no short text")
        read[_text(name, limits.NAME_CHARACTERS)] = ServiceHealth(Health.DOWN, since_ms, reason)
    return MappingProxyType(read)


def _text(name: object, most: int) -> str:
    if not isinstance(name, str) or len(name) > most:
        raise BodyError("observations: a name is no short text")
    return name
