"""
The logs of this node itself: appending, retention, and taking back what a lost or older disk has forgotten.

Part of the node: appends to its output. A log is born again with every epoch, so whatever a disk or a clone
forgot, no two digests of one birth ever differ about it. Source: docs/adr/0008-event-logs.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from esgf_gossip.core import limits
from esgf_gossip.core.digests import decode_digest
from esgf_gossip.core.effects import DigestTurnedAway, Output
from esgf_gossip.core.errors import DigestRefused, UnknownFormatError, WireError
from esgf_gossip.core.log_effects import LeavesAccepted, LogRecovered, PersistLeaves
from esgf_gossip.core.log_fetching import Want
from esgf_gossip.core.logs import Log, Logs, ref_of
from esgf_gossip.core.merkle import Tree, block_start
from esgf_gossip.core.messages import Answer
from esgf_gossip.core.model import Link, LogRef, Moment
from esgf_gossip.core.packing import is_entry_name
from esgf_gossip.core.publication import Publication, PublicationError
from esgf_gossip.core.verification import Verifier

# Lost leaves are asked for until nobody has given any for so long.
RECOVERY_S: Final = 60.0


@attrs.define
class _Recovery:
    """Leaves of a former run that are being taken back; ``tree`` is that run's log as far as it is verified."""

    want: Want
    count: int = 0


class OwnLogs:
    """The logs this node is the origin of; ``publish`` makes their sizes known."""

    def __init__(
        self,
        logs: Logs,
        publication: Publication,
        verifier: Verifier,
        out: list[Output],
        publish: Callable[[Moment], None],
    ) -> None:
        self._logs = logs
        self._publication = publication
        self._verifier = verifier
        self._out = out
        self._publish = publish
        # What the disk gave back at the start: the only past that a former run's log can share with ours.
        self._bases: dict[str, Tree] = {}
        self._recoveries: dict[str, _Recovery] = {}
        self._waiting: dict[str, list[Want]] = {}
        self._shown_on: dict[Link, int] = {}

    @property
    def name(self) -> str:
        """The host name this node is certified for."""
        return self._publication.signer.origin

    def begin(self) -> None:
        """Publish from now on what the disk gave back."""
        self._bases = {
            name: log.tree
            for name in self._logs.names(self.name)
            if (log := self._logs.get(self.name, name)) is not None
        }
        self._state_to_publication()

    def _state_to_publication(self) -> None:
        self._publication.logs = {
            name: (log.tree.size, log.tree.root, log.tree.start)
            for name in self._logs.names(self.name)
            if (log := self._logs.get(self.name, name)) is not None
        }

    # ------------------------------------------------------------- appending

    def append(self, name: str, leaves: Sequence[bytes]) -> None:
        """
        Add leaves at the end of a log; the next digest tells of them.

        Raises:
            PublicationError: a name or a leaf that no peer would take, or this node publishes no more.
        """
        if self._publication.stopped:
            raise PublicationError(f"this node publishes no more: {self._publication.stopped}")
        if not is_entry_name(name):
            raise PublicationError(f"{name!r} is no name of a log")
        if not self._has_room(name):
            raise PublicationError(f"log {name!r} would be one more than {limits.DIGEST_LOGS}")
        for leaf in leaves:
            if not 0 < len(leaf) <= limits.LEAF_BYTES:
                raise PublicationError(
                    f"a leaf of {len(leaf)} bytes; 1 to {limits.LEAF_BYTES} are allowed in log {name!r}"
                )
        if leaves:
            self._add(name, tuple(leaves))

    def _has_room(self, name: str) -> bool:
        used = {*self._logs.names(self.name), *self._recoveries}
        return name in used or len(used) < limits.DIGEST_LOGS

    def _add(self, name: str, leaves: tuple[bytes, ...]) -> None:
        log = self._logs.get(self.name, name)
        tree = Tree() if log is None else log.tree
        self._put(name, tree.extended(leaves), tree.size, leaves)

    def _put(self, name: str, tree: Tree, first: int, leaves: tuple[bytes, ...]) -> None:
        before = self._logs.get(self.name, name)
        log = Log(self._publication.epoch, tree, None, () if before is None else before.marks).marked()
        self._logs.put((self.name, name), log)
        self._out.append(PersistLeaves(self.name, name, log, first, leaves))
        if leaves:
            self._out.append(LeavesAccepted(self.name, name, log.born, first, len(leaves)))
        self._state_to_publication()

    def retain(self, name: str, first: int) -> bool:
        """
        Keep leaves from ``first`` on, rounded down to the beginning of its block; tell whether any went.

        Raises:
            PublicationError: there is no such log, or it does not reach so far.
        """
        log = self._logs.get(self.name, name)
        if log is None or not 0 <= first <= log.tree.size:
            raise PublicationError(f"log {name!r} has no leaf {first} to begin with")
        start = block_start(first)
        if start <= log.tree.start:
            return False
        self._logs.put((self.name, name), log.without(start))
        self._put(name, log.tree.without(start), log.tree.size, ())
        return True

    # ------------------------------------------------------------- recovery

    def shown(self, link: Link, answer: Answer, at: Moment) -> list[str]:
        """
        Hear of a digest of our own whose logs the peer holds and our newest digest does not; return what to fetch.

        Raises:
            WireError: the digest is none, or not ours.
        """
        count = self._shown_on.get(link, 0)
        if answer.signed is None or count >= limits.OWN_DIGESTS_PER_LINK:
            return []
        self._shown_on[link] = count + 1
        try:
            digest = decode_digest(answer.signed.payload)
        except UnknownFormatError:
            return []  # of a later version of ourselves
        if digest.origin != self.name:
            raise WireError("a digest of another node was shown as our own")
        if not any(self._is_lacking(name, ref) for name, ref in digest.logs.items()):
            return []
        try:
            line = self._verifier.verify(
                answer.signed, digest, answer.chain, max(at.wall_ms, digest.issued_at_ms)
            )
        except DigestRefused as refusal:
            self._out.append(DigestTurnedAway(self.name, "a peer that shows it", refusal.reason))
            return []
        names = []
        for name in digest.logs:
            ref = ref_of(line, name)
            if ref is not None and self._is_lacking(name, ref):
                self._waiting.setdefault(name, []).append(
                    Want(line, ref, 0, None, frozenset([link]), at.mono_s + RECOVERY_S)
                )
                names.append(name)
        for name in names:
            self._begin_next(name, at)
        return names

    def _is_lacking(self, name: str, ref: LogRef) -> bool:
        if ref.born == self._publication.epoch or ref.size <= self._base(name).size:
            return False
        log = self._logs.get(self.name, name)
        return log is None or all(mark.root != ref.root for mark in (log.tree, *log.marks))

    def _base(self, name: str) -> Tree:
        return self._bases.get(name, Tree())

    def _begin_next(self, name: str, at: Moment) -> None:
        waiting = self._waiting.get(name, [])
        while waiting and name not in self._recoveries:
            want = waiting.pop(0)
            if self._is_lacking(name, want.ref) and self._has_room(name):
                base = self._base(name)
                if base.size < want.ref.first_retained:
                    start, tree = want.ref.first_retained, None
                else:
                    start, tree = base.size, base
                until_s = at.mono_s + RECOVERY_S
                self._recoveries[name] = _Recovery(
                    attrs.evolve(want, start=start, tree=tree, until_s=until_s)
                )
        if not waiting:
            self._waiting.pop(name, None)

    def wanted(self, name: str) -> Want | None:
        """Return what is to be taken back of a log, None for nothing."""
        recovery = self._recoveries.get(name)
        return None if recovery is None else recovery.want

    def recovered(self, name: str, want: Want, leaves: Sequence[bytes], tree: Tree, at: Moment) -> None:
        """Put leaves of a former run at the end of our log; publish when the last one is back."""
        recovery = self._recoveries.get(name)
        if recovery is None or recovery.want is not want:
            return
        log = self._logs.get(self.name, name)
        if log is None or log.tree == want.tree:
            # Nothing was appended since: what peers hold goes on as it was.
            self._put(name, tree, want.start, tuple(leaves))
        else:
            self._add(name, tuple(leaves))
        recovery.count += len(leaves)
        if tree.size < want.ref.size:
            recovery.want = attrs.evolve(want, tree=tree, start=tree.size, until_s=at.mono_s + RECOVERY_S)
            return
        self._bases[name] = tree
        self._end(name, at)

    def given_up(self, name: str, at: Moment) -> None:
        """Go on without leaves that nobody gave back."""
        self._end(name, at)

    def _end(self, name: str, at: Moment) -> None:
        recovery = self._recoveries.pop(name, None)
        if recovery is not None and recovery.count:
            self._out.append(LogRecovered(name, recovery.count))
            self._publish(at)
        self._begin_next(name, at)

    def lost(self, link: Link) -> None:
        """Forget a link."""
        self._shown_on.pop(link, None)

    # ------------------------------------------------------------- the disk

    def restored(self, states: Mapping[str, Log]) -> bool:
        """
        Hold what the disk has and nothing else, after it failed for a while; tell whether anything changed.

        Leaves that were signed and are lost must not come back as others: a new epoch has to follow.
        """
        held = {name: self._logs.get(self.name, name) for name in self._logs.names(self.name)}
        if {name: log.tree for name, log in held.items() if log} == {
            name: log.tree for name, log in states.items()
        }:
            return False
        for name in held:
            self._logs.drop((self.name, name))
        for name, log in states.items():
            self._logs.put((self.name, name), log)
        self._recoveries.clear()
        self._waiting.clear()
        self.begin()
        return True
