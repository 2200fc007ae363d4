"""
Planned downtime: what a node announces of itself, as value and as bytes of the entry ``maintenance``.

Within the window its services leave the lists and nobody is alarmed. Source: docs/formats.md, section 15.
"""

from __future__ import annotations

from typing import Final

import attrs
import msgpack

from esgf_gossip.core import limits
from esgf_gossip.esgf.bodies import BodyError, is_number, unpacked
from esgf_gossip.esgf.health import REASON_CHARACTERS, SERVICES_MOST

# The name of the entry.
MAINTENANCE: Final = "maintenance"
_DAY_MS: Final = 24 * 60 * 60 * 1000
# A node that is away for longer should leave.
LONGEST_MS: Final = 30 * _DAY_MS


class MaintenanceError(ValueError):
    """Report a window that cannot be announced: what is wrong and what would be right, in one line."""


@attrs.frozen
class Maintenance:
    """
    One window of planned downtime.

    Args:
        begins_ms: Unix milliseconds.
        ends_ms: later, by at most ``LONGEST_MS``.
        reason: for people, may be empty.
        types: of the services meant; empty: all, and the node itself.

    Raises:
        MaintenanceError: the times are no window, or a text is too long.
    """

    begins_ms: int
    ends_ms: int
    reason: str = ""
    types: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.begins_ms < self.ends_ms <= limits.TIME_MS_MAX:
            raise MaintenanceError("the window ends before it begins; give a later end")
        if self.ends_ms - self.begins_ms > LONGEST_MS:
            raise MaintenanceError(
                f"the window is longer than {LONGEST_MS // _DAY_MS} days; let the node leave"
            )
        if len(self.reason) > REASON_CHARACTERS or not self.reason.isprintable():
            raise MaintenanceError(f"the reason is one line of at most {REASON_CHARACTERS} characters")
        if len(self.types) > SERVICES_MOST or any(len(one) > limits.NAME_CHARACTERS for one in self.types):
            raise MaintenanceError(f"at most {SERVICES_MOST} types of services can be named")

    def holds(self, at_ms: int) -> bool:
        """Tell whether a time lies within it."""
        return self.begins_ms <= at_ms < self.ends_ms

    @property
    def is_of_node(self) -> bool:
        """Tell whether the whole node is away, not some of its services alone."""
        return not self.types

    def covers(self, service_type: str) -> bool:
        """Tell whether it means a service."""
        return not self.types or service_type in self.types


def to_body(window: Maintenance) -> bytes:
    """Encode as the body of the entry ``maintenance``: equal windows give equal bytes."""
    packed: bytes = msgpack.packb(
        {MAINTENANCE: [window.begins_ms, window.ends_ms, window.reason, sorted(window.types)]}
    )
    return packed


def from_body(body: bytes) -> Maintenance:
    """
    Decode a body that anyone may have made; further keys and fields are passed over.

    Raises:
        BodyError: the bytes are no such body, or no window that could be announced.
    """
    fields = unpacked(body, MAINTENANCE)
    row = fields.get(MAINTENANCE) if isinstance(fields, dict) else None
    if not isinstance(row, list) or len(row) < 4:
        raise BodyError("maintenance: not a list of four")
    begins_ms, ends_ms, reason, types = row[:4]
    if not is_number(begins_ms, limits.TIME_MS_MAX) or not is_number(ends_ms, limits.TIME_MS_MAX):
        raise BodyError("maintenance: its times are no times")
    if (
        not isinstance(reason, str)
        or not isinstance(types, list)
        or not all(isinstance(one, str) for one in types)
    ):
        raise BodyError("maintenance: a text is none")
    try:
        return Maintenance(begins_ms, ends_ms, reason, tuple(types))
    except MaintenanceError as error:
        raise BodyError(f"maintenance: {error}") from None
