"""
What comes in on one connection: bytes into frames, a slice a turn, within the peer's budget.

Knows when to read and when to let the others have their turn; what a frame
means is the link's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from esgf_gossip.core.errors import WireError
from esgf_gossip.core.framing import PREFIX_BYTES, FrameBuffer
from esgf_gossip.net.budget import PeerBudget

# After either, the others have their turn. One frame is never cut: 1,024 heads take about 6 ms.
FRAMES_A_TURN: Final = 64
TURN_S: Final = 0.005


class Intake:
    """
    The incoming half of a connection.

    One chunk of 64 KiB can hold thousands of frames. They are dealt with in
    slices, one a turn of the reactor, so every connection has its turn; while
    frames wait, and while the peer is above its budget, the socket is not read.

    Reading never waits for writing: if both ends stopped to read because the
    other does not, neither would ever go on. What stops it is a clock alone, so
    it always ends, and a peer that does not read its answers fills its outbox
    until the link is cut.

    Args:
        clock: the reactor, or a Clock in tests.
        deliver: called with each payload; may call ``stop`` or ``hold``.
        garbled: called once when the bytes are not frames; nothing comes after it.
        drained: called once after ``end``, when all that came before has been delivered.
    """

    def __init__(
        self,
        clock: IReactorTime,
        deliver: Callable[[bytes], None],
        garbled: Callable[[WireError], None],
        drained: Callable[[], None],
    ) -> None:
        self.budget = PeerBudget()
        self._clock = clock
        self._deliver = deliver
        self._garbled = garbled
        self._drained = drained
        self._frames = FrameBuffer()
        self._transport: Any = None
        self._turn: IDelayedCall | None = None
        self._hold_s = 0.0
        self._is_slicing = False
        self._is_paused = False
        self._is_stopped = False
        self._is_lost = False

    def start(self, transport: Any) -> None:
        """Learn what to read from."""
        self._transport = transport

    def add(self, data: bytes) -> None:
        """Take bytes; deal with a first slice of them unless earlier ones wait for their turn."""
        if self._is_stopped:
            return
        # TLS hands over all of a chunk though reading was paused in the middle of it: 64 KiB at most.
        self._frames.add(data)
        if self._turn is None:
            self._slice()

    def spent(self, size_bytes: int) -> None:
        """Count bytes sent to the peer: a short question may have a long answer."""
        self.budget.take(0, size_bytes, self._clock.seconds())

    def hold(self, for_s: float) -> None:
        """Deal with nothing more for so many seconds."""
        if self._is_slicing or self._turn is not None:
            self._hold_s = max(self._hold_s, for_s)
        elif not self._is_stopped:
            self._wait(for_s)

    def stop(self) -> None:
        """Deliver nothing more; the socket is read on, so that its end is heard."""
        self._is_stopped = True
        self._cancel_turn()
        self._resume()

    def end(self) -> None:
        """Hear that the connection is gone: what came before is delivered, as fast as turns allow."""
        self._is_lost = True
        if self._turn is None:
            self._drained()
        else:
            self._wait(0.0)

    def _slice(self) -> None:
        self._turn = None
        self._is_slicing = True
        try:
            is_empty = self._deal()
        finally:
            self._is_slicing = False
        if self._is_lost and (is_empty or self._is_stopped):
            self._drained()
        elif not self._is_stopped:
            wait_s = max(self.budget.wait_s(self._clock.seconds()), self._hold_s)
            self._hold_s = 0.0
            if is_empty and wait_s == 0.0:
                self._resume()
            else:
                self._wait(0.0 if self._is_lost else wait_s)

    def _deal(self) -> bool:
        """Deliver frames until there are no more, or others should have their turn; tell which."""
        began_s = now_s = self._clock.seconds()
        frames = 0
        while frames < FRAMES_A_TURN and now_s - began_s < TURN_S and self._may_deliver():
            try:
                payload = self._frames.take()
            except WireError as error:
                self.stop()
                self._garbled(error)
                return False
            if payload is None:
                return True
            frames += 1
            self.budget.take(1, PREFIX_BYTES + len(payload), now_s)
            self._deliver(payload)
            now_s = self._clock.seconds()
        return False

    def _may_deliver(self) -> bool:
        return not self._is_stopped and (self._is_lost or self._hold_s == 0.0)

    def _wait(self, for_s: float) -> None:
        self._cancel_turn()
        self._turn = self._clock.callLater(for_s, self._slice)
        if not self._is_paused and not self._is_lost:
            self._is_paused = True
            self._transport.pauseProducing()

    def _resume(self) -> None:
        if self._is_paused and not self._is_lost:
            self._is_paused = False
            self._transport.resumeProducing()

    def _cancel_turn(self) -> None:
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None
