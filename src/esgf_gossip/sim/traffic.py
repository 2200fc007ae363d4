"""Counts of what was sent: messages and bytes (frames, without TLS and TCP) by kind and, if wanted, by link."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define
class Traffic:
    """What was put on the wires. ``by_pair`` is kept only where it is given: it costs memory per link."""

    messages: Counter[str] = attrs.field(factory=Counter)
    size_bytes: Counter[str] = attrs.field(factory=Counter)
    by_pair: Counter[tuple[str, str]] | None = None

    def note(self, sender: str, receiver: str, kind: str, frame_bytes: int) -> None:
        """Count one frame."""
        self.messages[kind] += 1
        self.size_bytes[kind] += frame_bytes
        if self.by_pair is not None:
            self.by_pair[sender, receiver] += frame_bytes

    def clear(self) -> None:
        """Begin at zero."""
        self.messages.clear()
        self.size_bytes.clear()
        if self.by_pair is not None:
            self.by_pair.clear()

    @property
    def total_bytes(self) -> int:
        """All bytes of all kinds."""
        return self.size_bytes.total()
