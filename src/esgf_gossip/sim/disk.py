"""
The disk of one simulated machine: exactly what was persisted, nothing else.

Copies are backups and clones. A crash is the network's work; here is what it leaves.
"""

from __future__ import annotations

from typing import Final, get_args

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core.messages import Fork
from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.core.revision import StoredLine

# Every effect that is none of these is an order to the disk.
_NO_DISK: Final = frozenset({fx.Send, fx.Disconnect, fx.PauseReading, fx.Dial, fx.StartTimer})
PERSISTS: Final[frozenset[type]] = frozenset(get_args(fx.Effect)) - _NO_DISK


@attrs.define
class Disk:
    """What a start finds: the epoch, the lines, the bodies they refer to, the proofs of forks."""

    epoch: int = 0
    lines: dict[str, VerifiedDigest] = attrs.field(factory=dict)
    bodies: dict[bytes, bytes] = attrs.field(factory=dict)
    forks: dict[bytes, Fork] = attrs.field(factory=dict)

    def apply(self, effect: object) -> None:
        """Carry out one effect; those that are no order to a disk change nothing."""
        match effect:
            case fx.PersistEpoch():
                self.epoch = effect.epoch
            case fx.PersistLine():
                self.lines[effect.line.digest.origin] = effect.line
                self.bodies.update(effect.bodies)
                self._drop(effect.dropped)
            case fx.RemoveLine():
                self.lines.pop(effect.origin, None)
                self._drop(effect.dropped)
            case fx.PersistFork():
                self.forks[effect.line.certificate_sha256] = effect.line.proof
            case fx.RemoveFork():
                self.forks.pop(effect.certificate_sha256, None)
            case fx.DropBodies():
                self._drop(effect.dropped)
            case _ if type(effect) in PERSISTS:
                raise TypeError(f"this disk cannot keep {type(effect).__name__}")

    def _drop(self, contents: frozenset[bytes]) -> None:
        for content in contents:
            self.bodies.pop(content, None)

    def stored(self) -> list[StoredLine]:
        """Return the lines as a start of the node takes them."""
        return [StoredLine(line.signed, line.chain) for line in self.lines.values()]

    def copy(self) -> Disk:
        """Return a backup: later writes to either are not seen by the other."""
        return Disk(self.epoch, dict(self.lines), dict(self.bodies), dict(self.forks))


class NoDisk(Disk):
    """Keeps nothing: for thousands of nodes that never restart."""

    def apply(self, effect: object) -> None:
        """Forget it."""
