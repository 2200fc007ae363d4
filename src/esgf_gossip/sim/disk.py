"""
The disk of one simulated machine: exactly what was persisted, nothing else.

Copies are backups and clones. A crash is the network's work; here is what it leaves.
"""

from __future__ import annotations

from typing import Final, get_args

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.limits import LEAVES_ANSWER_BYTES
from esgf_gossip.core.log_serving import no_leaves, pages, proof
from esgf_gossip.core.logs import Log, LogKey, StoredLog
from esgf_gossip.core.messages import Fork, Message
from esgf_gossip.core.model import TrustObject, VerifiedDigest
from esgf_gossip.core.revision import StoredLine

# Every effect that is none of these is an order to the disk.
_NO_DISK: Final = frozenset(
    {fx.Send, lx.SendLeaves, lx.SendProof, fx.Disconnect, fx.PauseReading, fx.Dial, fx.StartTimer}
)
PERSISTS: Final[frozenset[type]] = frozenset(get_args(fx.Effect)) - _NO_DISK


@attrs.define
class Disk:
    """What a start finds: the epoch, the lines, the bodies they refer to, the proofs of forks, the logs and their leaves."""

    epoch: int = 0
    lines: dict[str, VerifiedDigest] = attrs.field(factory=dict)
    bodies: dict[bytes, bytes] = attrs.field(factory=dict)
    forks: dict[bytes, Fork] = attrs.field(factory=dict)
    logs: dict[LogKey, Log] = attrs.field(factory=dict)
    leaves: dict[LogKey, dict[int, bytes]] = attrs.field(factory=dict)
    trust: dict[str, TrustObject] = attrs.field(factory=dict)

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
            case fx.PersistTrust():
                self.trust[effect.held.key] = effect.held
            case fx.RemoveTrust():
                self.trust.pop(effect.key, None)
            case fx.DropBodies():
                self._drop(effect.dropped)
            case lx.PersistLeaves():
                self._keep_leaves(effect)
            case lx.DropLeaves():
                self.logs.pop((effect.origin, effect.log), None)
                self.leaves.pop((effect.origin, effect.log), None)
            case _ if type(effect) in PERSISTS:
                raise TypeError(f"this disk cannot keep {type(effect).__name__}")

    def _drop(self, contents: frozenset[bytes]) -> None:
        for content in contents:
            self.bodies.pop(content, None)

    def _keep_leaves(self, effect: lx.PersistLeaves) -> None:
        key, tree = (effect.origin, effect.log), effect.state.tree
        kept = {} if effect.is_anew else self.leaves.get(key, {})
        kept.update(enumerate(effect.leaves, start=effect.first))
        self.leaves[key] = {number: leaf for number, leaf in kept.items() if number >= tree.start}
        assert len(self.leaves[key]) == tree.size - tree.start, "a hole in a log"
        self.logs[key] = effect.state

    def read(self, order: lx.SendLog) -> list[Message]:
        """Return the messages that an order to read leaves leads to, as the daemon's driver does."""
        kept = self.leaves.get((order.origin, order.log), {})
        is_proof = isinstance(order, lx.SendProof)
        low, high = (order.low, order.high) if isinstance(order, lx.SendProof) else (order.start, order.end)
        found: list[bytes] = []
        size_bytes = 0
        while low < high and low in kept and (is_proof or size_bytes < LEAVES_ANSWER_BYTES):
            found.append(kept[low])
            size_bytes += len(kept[low])
            low += 1
        if isinstance(order, lx.SendProof):
            return [proof(order, found)]
        return list(pages(order, found)) if found else [no_leaves(order.request, order.start)]

    def stored(self) -> list[StoredLine]:
        """Return the lines as a start of the node takes them."""
        return [StoredLine(line.signed, line.chain) for line in self.lines.values()]

    def stored_logs(self) -> list[StoredLog]:
        """Return the logs as a start of the node takes them."""
        return [
            StoredLog(
                *key, log.born, log.tree, log.word and log.word.signed, log.word.chain if log.word else ()
            )
            for key, log in self.logs.items()
        ]

    def copy(self) -> Disk:
        """Return a backup: later writes to either are not seen by the other."""
        leaves = {key: dict(kept) for key, kept in self.leaves.items()}
        forks, trust, logs = dict(self.forks), dict(self.trust), dict(self.logs)
        return Disk(self.epoch, dict(self.lines), dict(self.bodies), forks, logs, leaves, trust)


class NoDisk(Disk):
    """Keeps nothing: for thousands of nodes that never restart."""

    def apply(self, effect: object) -> None:
        """Forget it."""
