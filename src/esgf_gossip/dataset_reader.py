"""
The reader of dataset events: follows the log of every origin on the disk into the ledger, a slice at a time.

Which leaves are there is the core's to say, what they mean the tracking room's. The ledger works in the thread of the
tracker's database; one step is under way at a time, and what is to be done next is read off the places it keeps.
Source: docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.limits import LEAF_BYTES
from esgf_gossip.core.node import Node
from esgf_gossip.document_reader import Read
from esgf_gossip.storage.database import StorageError
from esgf_gossip.tracking import ledger
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.events import LOG
from esgf_gossip.tracking.ledger import Place, Taken

# A step: a sixth of a second of the tracker's thread, some milliseconds of the reactor. Smaller ones wait for the disk
# more than they work.
READ_LEAVES: Final = 1024
# A disk that failed is asked again after so long.
AGAIN_S: Final = 5.0


class DatasetReader:
    """
    Keeps the ledger in step with the logs a node holds.

    ``fault``: one line while the tracker's database or the disk fails, else empty. ``has_read``: all that was there at
    the start has been read once.

    Args:
        node: whose logs and lines are followed.
        read: reads leaves from the disk.
        database: of the tracker; it has the ledger's tables.
        taken: hears what each step came to.
        settled: called whenever nothing is left to be read, and when a fault comes or goes.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
    """

    log = Logger()

    def __init__(
        self,
        node: Node,
        read: Read,
        database: TrackingDatabase,
        taken: Callable[[Taken], None],
        settled: Callable[[], None],
        clock: Any,
        now_ms: Callable[[], int],
    ) -> None:
        self.fault = ""
        self.has_read = False
        self._node = node
        self._read = read
        self._database = database
        self._taken = taken
        self._settled = settled
        self._clock = clock
        self._now_ms = now_ms
        self._places: dict[str, Place] = {}
        # Origins to be looked at, in turn; logs that must be read from their start; logs compared with the ledger in this run.
        self._waiting: dict[str, None] = {}
        self._anew: set[str] = set()
        self._compared: set[str] = set()
        self._reading: tuple[str, int] = ("", 0)
        self._awaiting: list[tuple[str, Deferred[None]]] = []
        self._turn: Any = None
        self._is_running = False
        self._is_loaded = False
        self._is_busy = False

    def start(self) -> None:
        """Read what is held and not in the ledger yet, and follow it from now on."""
        self._is_running = True
        for origin, name in self._node.logs.held:
            if name == LOG:
                self._look(origin)
        self._wake()

    def stop(self) -> None:
        """Read no more."""
        self._is_running = False
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None
        self._fail_all(CancelledError("the daemon stops"))

    def notice(self, notice: fx.Notice) -> None:
        """Hear a notice of the core."""
        match notice:
            case lx.LeavesAccepted(log=name) if name == LOG:
                self._heard(notice.origin, notice.first)
            case lx.LogRestarted(log=name) if name == LOG:
                self._heard(notice.origin, 0)
            case fx.DigestAccepted() | fx.LineWithdrawn():
                self._look(notice.origin)
            case lx.LogRecovered() | fx.EpochTaken():
                self._look(self._node.name)
            case _:
                pass

    def hosts(self, origin: str) -> frozenset[str]:
        """Return the names that the certificate of a node grants; none of a node that is not known."""
        line = self._node.registry.table.line(origin)
        return frozenset() if line is None else line.hosts

    def caught_up(self, origin: str) -> Deferred[None]:
        """Fire when the log of an origin has been read as far as it goes; fail with a TrackingError while a disk fails."""
        if not self._is_running:
            return fail(CancelledError("the daemon stops"))
        waits: Deferred[None] = Deferred()
        self._awaiting.append((origin, waits))
        self._look(origin)
        self._wake()
        return waits

    # ----------------------------------------------------------------- turns

    def _heard(self, origin: str, first: int) -> None:
        """Note that leaves of an origin are others from ``first`` on."""
        place = self._places.get(origin)
        read_to = 0 if place is None else place.next
        if self._reading[0] == origin:
            read_to = max(read_to, self._reading[1])
        if first < read_to:
            self._anew.add(origin)
        self._look(origin)

    def _look(self, origin: str) -> None:
        if self._is_running:
            self._waiting[origin] = None
            self._wake()

    def _wake(self, after_s: float = 0.0) -> None:
        if self._is_running and self._turn is None and not self._is_busy:
            self._turn = self._clock.callLater(after_s, self._turn_due)

    def _turn_due(self) -> None:
        self._turn = None
        if not self._is_loaded:
            self._run(self._database.run(ledger.places), self._loaded, "")
            return
        while self._waiting:
            # From the end again while there is more: a long log must not hold up the short ones.
            wanted = (origin for origin, _ in self._awaiting if origin in self._waiting)
            origin = next(wanted, next(iter(self._waiting)))
            del self._waiting[origin]
            try:
                step = self._step(origin)
            except StorageError as error:
                self._failed(Failure(error), origin)
                return
            if step is not None:
                self._waiting[origin] = None
                self._run(step, self._took, origin)
                return
            self._release(origin)
        self.has_read = True
        self._settled()

    def _run(self, step: Deferred[Any], done: Callable[[str, Any], None], origin: str) -> None:
        self._is_busy = True

        def over(result: Any) -> None:
            self._is_busy = False
            self._reading = ("", 0)
            if not self._is_running:
                return
            if isinstance(result, Failure):
                self._failed(result, origin)
                return
            if self.fault:
                self.fault = ""
                self._settled()
            done(origin, result)
            self._wake()

        step.addBoth(over)

    def _loaded(self, _origin: str, places: list[Place]) -> None:
        self._is_loaded = True
        self._places = {place.origin: place for place in places}
        # Logs that went while the daemon did not run.
        self._waiting.update(dict.fromkeys(self._places))

    def _took(self, origin: str, taken: Taken) -> None:
        if taken.place is None:
            self._places.pop(origin, None)
        else:
            self._places[origin] = taken.place
        self._taken(taken)

    def _failed(self, failure: Failure, origin: str) -> None:
        if failure.check(CancelledError):
            return
        is_known = failure.check(TrackingError, StorageError) is not None
        self.fault = (
            failure.getErrorMessage() if is_known else f"dataset events of {origin or 'all'}: internal error"
        )
        if is_known:
            self.log.warn("dataset events: {error}", error=self.fault)
            self._waiting[origin] = None
        else:
            # Not asked again before something is heard of it: one log must not hold up the others.
            self._waiting.pop(origin, None)
            self.log.failure("dataset events of {origin} cannot be taken", failure, origin=origin)
        self._waiting.pop("", None)
        self._fail_all(TrackingError(self.fault))
        self._settled()
        self._wake(AGAIN_S)

    # ----------------------------------------------------------------- steps

    def _step(self, origin: str) -> Deferred[Taken] | None:
        """Begin what is to be done next for one origin, None for nothing; a StorageError where its leaves cannot be read."""
        log, place = self._node.logs.held.get(origin, LOG), self._places.get(origin)
        if log is None:
            self._anew.discard(origin)
            if place is None:
                return None
            return self._begin(origin, 0, 0, is_gone=True) if not place.is_gone else self._sweep(place)
        hosts = self.hosts(origin)
        if (
            place is None
            or place.is_gone
            or origin in self._anew
            or place.hosts != hosts
            or place.start != log.tree.start
            or place.next > log.tree.size
            or not self._is_same(place)
        ):
            self._anew.discard(origin)
            self._compared.add(origin)
            return self._begin(origin, log.born, log.tree.start)
        end = min(log.tree.size, place.next + READ_LEAVES)
        if place.next < end:
            leaves = self._read(origin, LOG, place.next, end, READ_LEAVES * LEAF_BYTES)
            if not leaves:
                raise StorageError(f"the disk does not give the events of {origin} from leaf {place.next} on")
            self._reading = (origin, place.next + len(leaves))
            return self._database.run(ledger.take, place, log.born, leaves, self._node.name, self._now_ms())
        # While more of a log is on its way, what it said before stays.
        return self._sweep(place) if not place.is_whole and self._is_complete(origin, log.tree.size) else None

    def _begin(self, origin: str, born: int, start: int, *, is_gone: bool = False) -> Deferred[Taken]:
        hosts = frozenset() if is_gone else self.hosts(origin)
        begun: Deferred[Any] = self._database.run(ledger.begin, origin, born, start, hosts, is_gone=is_gone)
        return begun.addCallback(Taken)

    def _sweep(self, place: Place) -> Deferred[Taken]:
        return self._database.run(ledger.sweep, place, self._node.name, self._now_ms())

    def _is_same(self, place: Place) -> bool:
        """Tell whether the log goes on as the ledger has it: looked at once a run, for either file may come from a backup."""
        if place.origin in self._compared or place.next <= place.start:
            return True
        leaves = self._read(place.origin, LOG, place.next - 1, place.next, LEAF_BYTES)
        self._compared.add(place.origin)
        return bool(leaves) and hashlib.sha256(leaves[0]).digest() == place.last

    def _is_complete(self, origin: str, size: int) -> bool:
        line = self._node.registry.table.line(origin)
        ref = None if line is None else line.digest.logs.get(LOG)
        return ref is None or size >= ref.size

    # ----------------------------------------------------------------- waiting

    def _release(self, origin: str) -> None:
        done = [waits for wanted, waits in self._awaiting if wanted == origin]
        self._awaiting = [one for one in self._awaiting if one[0] != origin]
        for waits in done:
            waits.callback(None)

    def _fail_all(self, error: Exception) -> None:
        awaiting, self._awaiting = self._awaiting, []
        for _, waits in awaiting:
            waits.errback(error)
