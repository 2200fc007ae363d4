"""Counts of what was sent: messages and bytes (frames, without TLS and TCP) by kind and, if wanted, by link."""

from __future__ import annotations

from collections import Counter

import attrs

from esgf_gossip.core.framing import PREFIX_BYTES
from esgf_gossip.core.messages import Answer, Bodies, Message


@attrs.define
class Traffic:
    """
    What was put on the wires; ``bodies`` counts each body of each answer.

    ``by_pair`` (sender, receiver) is kept only where it is given: it costs memory per link.
    """

    messages: Counter[str] = attrs.field(factory=Counter)
    size_bytes: Counter[str] = attrs.field(factory=Counter)
    bodies: int = 0
    by_pair: Counter[tuple[str, str]] | None = None

    def note(self, sender: str, receiver: str, message: Message, payload_bytes: int) -> None:
        """Count one frame."""
        kind = type(message).__name__
        self.messages[kind] += 1
        self.size_bytes[kind] += PREFIX_BYTES + payload_bytes
        if isinstance(message, Answer | Bodies):
            self.bodies += len(message.bodies)
        if self.by_pair is not None:
            self.by_pair[sender, receiver] += PREFIX_BYTES + payload_bytes

    def clear(self) -> None:
        """Begin at zero."""
        self.messages.clear()
        self.size_bytes.clear()
        self.bodies = 0
        if self.by_pair is not None:
            self.by_pair.clear()

    @property
    def total_bytes(self) -> int:
        """All bytes of all kinds."""
        return self.size_bytes.total()
