"""
A bounded way out to a client that may read slowly: the push producer behind live streams.

Only queueing lives here; what is written, and what follows an overflow, is the
owner's. While the transport is congested, chunks wait here; beyond the bound
the client is given up, so that no reader can fill our memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

# Without the 64 KiB that a transport buffers before it says stop.
UNSENT_BYTES: Final = 1024 * 1024


@implementer(IPushProducer)
class Outlet:
    """
    Pass chunks on while the transport takes them, keep them in order while it does not.

    Args:
        write: takes one chunk, at once.
        give_up: called once when more than ``most_bytes`` wait; nothing is written after.
        drained: called whenever everything that waited was written.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        give_up: Callable[[], object],
        drained: Callable[[], object] = lambda: None,
        most_bytes: int = UNSENT_BYTES,
    ) -> None:
        self._most_bytes = most_bytes
        self._write = write
        self._give_up = give_up
        self._drained = drained
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_open = True
        self.is_congested = False

    def send(self, chunk: bytes) -> None:
        """Write a chunk, or keep it until the transport takes more."""
        if not self._is_open:
            return
        if not self.is_congested:
            self._write(chunk)
            return
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes > self._most_bytes:
            self.close()
            self._give_up()

    def close(self) -> None:
        """Drop what waits and take nothing more."""
        self._is_open = False
        self._waiting.clear()
        self._waiting_bytes = 0

    def pauseProducing(self) -> None:
        """Keep chunks from now on: the transport's buffer is full."""
        self.is_congested = True

    def resumeProducing(self) -> None:
        """Write what waits; the transport may say stop again in between."""
        self.is_congested = False
        while self._waiting and not self.is_congested:
            chunk = self._waiting.popleft()
            self._waiting_bytes -= len(chunk)
            self._write(chunk)
        if self._is_open and not self.is_congested:
            self._drained()

    def stopProducing(self) -> None:
        """Forget everything: the connection is gone."""
        self.close()
