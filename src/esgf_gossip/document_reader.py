"""
The reader of documents: follows the log of every author on the disk into the library, a slice a turn.

Which leaves are there is the core's to say, what they mean the documents room's. What a certificate grants is
judged anew with every digest: where roles change, the author's log is read again. Source: docs/adr/0018-documents.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.logger import Logger

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.limits import LEAF_BYTES
from esgf_gossip.core.node import Node
from esgf_gossip.documents.leaves import LOG
from esgf_gossip.documents.library import Library
from esgf_gossip.documents.writings import Writings
from esgf_gossip.storage.database import StorageError

# Leaves a turn: some milliseconds, then the others have theirs.
READ_LEAVES: Final = 256
# A disk that could not be read is asked again after so long.
AGAIN_S: Final = 5.0

Read = Callable[[str, str, int, int, int], list[bytes]]
"""Origin, log, first leaf, end, most bytes: leaves from the first on without a gap; may raise StorageError."""


@attrs.define
class _Place:
    """How far one author's log was read; ``is_shown``: the library holds these writings, not those before."""

    writings: Writings
    start: int
    next: int
    is_shown: bool


class DocumentReader:
    """
    Keeps a library in step with the logs a node holds.

    Args:
        node: whose logs and lines are followed.
        read: reads leaves from the disk.
        settled: called after each turn once everything that was there at the start has been read.
        clock: the reactor, or a Clock in tests.
    """

    log = Logger()

    def __init__(self, node: Node, read: Read, settled: Callable[[], None], clock: Any) -> None:
        self.library: Final = Library()
        self.projects: frozenset[str] = frozenset()
        self.has_read = False
        self._node = node
        self._read = read
        self._settled = settled
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._turn: Any = None
        self._is_running = False

    def start(self, projects: frozenset[str]) -> None:
        """Read what is held, of these projects only (none: of all), and follow it from now on."""
        self.projects = projects
        self._is_running = True
        for origin, name in self._node.logs.held:
            if name == LOG:
                self._look(origin)
        self._wake()

    def want(self, projects: frozenset[str]) -> None:
        """Read everything again, of these projects only."""
        if projects != self.projects:
            self.projects = projects
            for origin in list(self._places):
                self._look(origin)

    def stop(self) -> None:
        """Read no more."""
        self._is_running = False
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None

    def notice(self, notice: fx.Notice) -> None:
        """Hear a notice of the core."""
        if not self._is_running:
            return
        match notice:
            case lx.LeavesAccepted(log=name) if name == LOG:
                place = self._places.get(notice.origin)
                if place is not None and notice.first < place.next:
                    self._forget(notice.origin)
                self._look(notice.origin)
            case lx.LogRestarted(log=name) if name == LOG:
                self._forget(notice.origin)
                self._look(notice.origin)
            case fx.DigestAccepted() | fx.LineWithdrawn():
                self._look(notice.origin)
            case lx.LogRecovered() | fx.EpochTaken():
                self._look(self._node.name)
            case _:
                pass

    def catch_up(self, origin: str) -> bool:
        """Read an author's log to its end, now; tell whether that could be done."""
        while (place := self._places.get(origin)) is not None and self._is_behind(origin, place):
            if not self._read_some(origin, place):
                return False
        return True

    def roles(self, origin: str) -> frozenset[str]:
        """Return the roles that the certificate of a node grants."""
        line = self._node.registry.table.line(origin)
        return frozenset() if line is None else line.roles

    def _look(self, origin: str) -> None:
        """Bring what is read of an author in line with what is held of it and with what its certificate grants."""
        log, place = self._node.logs.held.get(origin, LOG), self._places.get(origin)
        if log is None:
            if place is not None:
                self._forget(origin)
            return
        roles = self.roles(origin)
        if (
            place is None
            or (place.writings.roles, place.writings.projects) != (roles, self.projects)
            or log.tree.size < place.next
            or log.tree.start != place.start
        ):
            # Where something is shown already it stays until the new reading has come as far.
            is_first = self.library.writings(origin) is None
            writings = Writings(origin, roles, self.projects)
            place = _Place(writings, log.tree.start, log.tree.start, is_first)
            self._places[origin] = place
            if is_first:
                self.library.put(writings)
        if self._is_behind(origin, place):
            self._wake()

    def _forget(self, origin: str) -> None:
        self._places.pop(origin, None)
        self.library.forget(origin)
        self._wake()

    def _size(self, origin: str) -> int:
        log = self._node.logs.held.get(origin, LOG)
        return 0 if log is None else log.tree.size

    def _is_behind(self, origin: str, place: _Place) -> bool:
        return place.next < self._size(origin) or not place.is_shown

    def _wake(self, after_s: float = 0.0) -> None:
        if self._is_running and self._turn is None:
            self._turn = self._clock.callLater(after_s, self._turn_due)

    def _turn_due(self) -> None:
        self._turn = None
        behind = [origin for origin, place in self._places.items() if self._is_behind(origin, place)]
        if behind:
            # To the end of the row: a long log must not hold up the short ones.
            place = self._places[behind[0]] = self._places.pop(behind[0])
            if not self._read_some(behind[0], place):
                self._wake(AGAIN_S)
                return
            if len(behind) > 1 or self._is_behind(behind[0], place):
                self._wake()
        self.has_read = self.has_read or self._turn is None
        if self.has_read:
            self._settled()

    def _read_some(self, origin: str, place: _Place) -> bool:
        """Read a slice; False where the disk does not give it."""
        end = min(self._size(origin), place.next + READ_LEAVES)
        if place.next < end:
            try:
                leaves = self._read(origin, LOG, place.next, end, READ_LEAVES * LEAF_BYTES)
            except StorageError as error:
                self.log.warn("documents of {origin}: {error}", origin=origin, error=str(error))
                return False
            for number, leaf in enumerate(leaves, place.next):
                if place.is_shown:
                    self.library.add(origin, number, leaf)
                else:
                    place.writings.add(number, leaf)
            place.next += len(leaves)
            if not leaves:
                return False
        if not place.is_shown and place.next >= self._size(origin):
            place.is_shown = True
            self.library.put(place.writings)
        return True
