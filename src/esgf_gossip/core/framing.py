"""
Frames on a byte stream: four bytes of length, big-endian, then the payload.

Only lengths are judged here; what a payload means is the codec's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import FRAME_BYTES

PREFIX_BYTES: Final = 4


def frame(payload: bytes) -> bytes:
    """
    Return the payload as one frame.

    Raises:
        ValueError: the payload is empty or above the bound: our bug, never a peer's.
    """
    if not 0 < len(payload) <= FRAME_BYTES:
        raise ValueError(f"a frame of {len(payload)} bytes is out of bounds")
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


class FrameBuffer:
    """Collect bytes as they come and give back whole frames; holds at most one frame and the last chunk."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0

    def add(self, data: bytes) -> None:
        """Take bytes; ``take`` gives back what they complete."""
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += data

    def take(self) -> bytes | None:
        """
        Return the payload of the next frame, None where it is not complete yet.

        Raises:
            WireError: a length of zero or above FRAME_BYTES; the stream is lost.
        """
        begin = self._start + PREFIX_BYTES
        if len(self._buffer) < begin:
            return None
        length = int.from_bytes(self._buffer[self._start : begin], "big")
        if not 0 < length <= FRAME_BYTES:
            # Text protocols announce themselves here: "GET " reads as a length of 1.2 GB.
            raise WireError(f"a frame of {length} bytes is out of bounds (1 to {FRAME_BYTES})")
        end = begin + length
        if len(self._buffer) < end:
            return None
        self._start = end
        return bytes(self._buffer[begin:end])

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Take bytes, yield the payload of each frame that is now complete.

        Raises:
            WireError: as ``take``.
        """
        self.add(data)
        while (payload := self.take()) is not None:
            yield payload
