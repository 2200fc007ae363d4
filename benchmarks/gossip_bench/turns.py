"""
Turns between benchmarks that run beside each other: who needs the processors alone, and who can share them.

Two locks, so that who waits to be alone is not overtaken for ever by those who share.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """
    The turns of one run; a path none of its jobs have in common makes all of them free.

    Args:
        folder: where the two lock files lie; made by the runner.
    """

    def __init__(self, folder: Path) -> None:
        self._gate = folder / "gate.lock"
        self._room = folder / "room.lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else measures meanwhile: for starts of many processes and for floods."""
        with self._entered(fcntl.LOCK_EX):
            yield

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Others may measure too, but nobody who needs to be alone."""
        with self._entered(fcntl.LOCK_SH):
            yield

    @contextmanager
    def _entered(self, how: int) -> Iterator[None]:
        room = os.open(self._room, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            gate = os.open(self._gate, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(gate, fcntl.LOCK_EX)
                fcntl.flock(room, how)
            finally:
                os.close(gate)
            yield
        finally:
            os.close(room)
