"""How much went over links: bytes and messages each way, of one link and of all of them together."""

from __future__ import annotations

import attrs


@attrs.define
class Traffic:
    """
    Four counts that only grow; TLS' own bytes are not among them.

    Args:
        of_all: what is counted here is counted there too.
    """

    of_all: Traffic | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    received_messages: int = 0
    sent_messages: int = 0

    def receive(self, size_bytes: int) -> None:
        """Count bytes that came."""
        self.received_bytes += size_bytes
        if self.of_all is not None:
            self.of_all.receive(size_bytes)

    def send(self, size_bytes: int) -> None:
        """Count a message that goes."""
        self.sent_bytes += size_bytes
        self.sent_messages += 1
        if self.of_all is not None:
            self.of_all.send(size_bytes)

    def deliver(self) -> None:
        """Count a message that was taken."""
        self.received_messages += 1
        if self.of_all is not None:
            self.of_all.deliver()

    def numbers(self) -> dict[str, int]:
        """Return the counts by name."""
        names = ("received_bytes", "sent_bytes", "received_messages", "sent_messages")
        return {name: getattr(self, name) for name in names}
