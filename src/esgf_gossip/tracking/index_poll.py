"""
Looks through an index now and then, for what went past the proxy.

A retraction does not touch the time stamp of a record, so the set of all retracted records is read whole each time and
compared with what is known; new records are found by their time stamp. The first look through a data node learns what
is there quietly: nobody is told of what happened before tracking began, until something happens to it. A deletion that
went past the proxy is noticed of retracted records alone. Source: docs/tracking.md, "Where events come from".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random, SystemRandom
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.sources.index_client import IndexUnreachable
from esgf_gossip.tracking.copies import count_shown, get_copy, retracted_at
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.index_questions import OF_DATASETS, PAGE, SOURCE, Found, IndexQuestions
from esgf_gossip.tracking.sightings import Operation, Sighting
from esgf_gossip.tracking.turns import INDEX
from esgf_gossip.views.node_json import utc_text

SCRIPT: Final = """
CREATE TABLE index_look (
    data_node TEXT PRIMARY KEY, looked_ms INTEGER NOT NULL, whole_ms INTEGER NOT NULL, offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""

# What an index shows was so at that time at the latest: a commit may take minutes to be seen.
LAG_MS: Final = 15 * 60 * 1000
# Records are stamped by the publisher's clock.
OVERLAP_MS: Final = 24 * 3600 * 1000
# The whole index is read again at most so often, where it holds more than is known.
WHOLE_EVERY_MS: Final = 24 * 3600 * 1000
# Between two pages, for an index has others to serve.
PAUSE_S: Final = 0.1
AFTER_FAULT_S: Final = 300.0
JITTER: Final = 0.1

RECORDS_MOST: Final = 5_000_000
NEW_MOST: Final = 50_000
RETRACTED_MOST: Final = 200_000
# Of one look: records that are asked for singly, datasets whose files are.
SINGLY_MOST: Final = 500


class Taker(Protocol):
    """Whoever takes sightings (``event_intake.Intake``)."""

    def see(self, sightings: Sequence[Sighting], *, is_quiet: bool = False) -> Deferred[None]:
        """Take them, and fire when they are on the disk."""


@attrs.define
class PollCounts:
    """What the looks have found: ``looks`` done, ``records`` read, ``failures`` of looks."""

    looks: int = 0
    records: int = 0
    failures: int = 0


@attrs.frozen
class _Look:
    """How far the looks through one data node have come; ``offset``: of a whole reading under way, -1: none is."""

    looked_ms: int = 0
    whole_ms: int = 0
    offset: int = 0


class IndexPoll:
    """
    Looks through one index for some data nodes.

    Args:
        questions: to the index.
        taker: of what is found.
        database: with ``SCRIPT`` among its scripts.
        data_nodes: hosts, lower case.
        every_s: how often.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        random: spreads the looks of many nodes.
    """

    log = Logger()

    def __init__(
        self,
        questions: IndexQuestions,
        taker: Taker,
        database: TrackingDatabase,
        data_nodes: Collection[str],
        every_s: float,
        clock: Any,
        now_ms: Callable[[], int],
        random: Random | None = None,
    ) -> None:
        self._questions: Final = questions
        self._taker: Final = taker
        self._database: Final = database
        self._data_nodes: Final = sorted(data_nodes)
        self._every_s: Final = every_s
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._random: Final = random or SystemRandom()
        self.counts: Final = PollCounts()
        # Empty: all is well; else one line for the operator.
        self.fault = ""
        self._call: Any = None
        self._looking: Deferred[Any] | None = None
        self._waiting: list[Deferred[None]] = []
        self._is_started = False

    def start(self) -> None:
        """Look now, and then every so often."""
        self._is_started = True
        self.look()

    def stop(self) -> None:
        """Look no more; a reading that broke off goes on after the next start."""
        self._is_started = False
        if self._call is not None and self._call.active():
            self._call.cancel()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def look(self) -> Deferred[None]:
        """Look now, or join the look that is under way; fires when it is over, whatever came of it (``fault``)."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._looking is None:
            if self._call is not None and self._call.active():
                self._call.cancel()
            looking = self._looking = self._look()
            looking.addCallbacks(self._looked, self._failed)
        return waiting

    def _looked(self, _nothing: object) -> None:
        self.counts.looks += 1
        if self.fault:
            self.log.info("The index was looked through again")
        self.fault = ""
        self._next(self._every_s)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            self._over()
            return
        self.counts.failures += 1
        error = failure.value
        if not isinstance(error, IndexUnreachable | TrackingError):
            self.log.failure("The index could not be looked through", failure)
        fault = f"the index could not be looked through: {' '.join(str(error).split())[:200]}"
        if fault != self.fault:
            self.log.warn("{fault}; it is tried again", fault=fault)
        self.fault = fault
        self._next(min(self._every_s, AFTER_FAULT_S))

    def _next(self, after_s: float) -> None:
        if self._is_started:
            spread_s = after_s * JITTER * self._random.random()
            self._call = self._clock.callLater(after_s - spread_s, self.look)
        self._over()

    def _over(self) -> None:
        self._looking = None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    # ----------------------------------------------------------------- one look

    @inlineCallbacks
    def _look(self) -> Any:
        for data_node in self._data_nodes:
            state = yield self._database.run(_get_look, data_node)
            if state.offset >= 0:
                state = yield self._whole(data_node, state)
            yield self._since_last(data_node, state)

    @inlineCallbacks
    def _whole(self, data_node: str, state: _Look) -> Any:
        """Learn all records quietly, from where the last reading broke off."""
        begun_ms = self._now_ms()
        while state.offset < RECORDS_MOST:
            found = yield self._page({"data_node": data_node}, state.offset)
            yield self._taker.see(self._sightings(found, data_node, begun_ms), is_quiet=True)
            state = attrs.evolve(state, offset=state.offset + len(found.records))
            if found.is_whole or not found.records:
                break
            yield self._database.run(_put_look, data_node, state)
            yield deferLater(self._clock, PAUSE_S, lambda: None)
        # What is published from the beginning of the reading on is found by its time stamp.
        state = _Look(state.looked_ms or begun_ms, begun_ms, -1)
        yield self._database.run(_put_look, data_node, state)
        return state

    @inlineCallbacks
    def _since_last(self, data_node: str, state: _Look) -> Any:
        begun_ms = self._now_ms()
        is_whole = yield self._new(data_node, state.looked_ms, begun_ms)
        yield self._retracted(data_node, begun_ms)
        counted = yield self._questions.page({"type": "Dataset", "data_node": data_node}, "id", 0, 0)
        known = yield self._database.run(count_shown, data_node, INDEX)
        is_due = begun_ms - state.whole_ms >= WHOLE_EVERY_MS and counted.total > known
        offset = 0 if is_due or not is_whole else -1
        yield self._database.run(_put_look, data_node, _Look(begun_ms, state.whole_ms, offset))

    @inlineCallbacks
    def _new(self, data_node: str, since_ms: int, begun_ms: int) -> Any:
        """Find what was published; fire with whether that was all."""
        wanted = {"data_node": data_node, "from": utc_text(since_ms - OVERLAP_MS).partition(".")[0] + "Z"}
        read = asked = 0
        while True:
            found = yield self._page(wanted, read)
            sightings = self._sightings(found, data_node, begun_ms)
            # Their files are to be known before they are, as with a publisher.
            unknown = yield self._database.run(_unknown, sightings)
            for dataset in unknown[: max(0, SINGLY_MOST - asked)]:
                asked += 1
                yield self._taker.see((yield self._questions.files(dataset, data_node)))
            yield self._taker.see(sightings)
            read += len(found.records)
            if found.is_whole or not found.records:
                return True
            if read >= NEW_MOST:
                return False
            yield deferLater(self._clock, PAUSE_S, lambda: None)

    @inlineCallbacks
    def _retracted(self, data_node: str, begun_ms: int) -> Any:
        """Compare the set of all retracted records with what is known."""
        wanted = {"data_node": data_node, "retracted": "true"}
        shown: set[DatasetId] = set()
        read = 0
        while True:
            found = yield self._page(wanted, read)
            sightings = self._sightings(found, data_node, begun_ms)
            yield self._taker.see(sightings)
            shown |= {one.dataset for one in sightings}
            read += len(found.records)
            if found.is_whole or not found.records or read >= RETRACTED_MOST:
                break
            yield deferLater(self._clock, PAUSE_S, lambda: None)
        if not found.is_whole:
            return
        known = yield self._database.run(retracted_at, data_node, INDEX)
        gone = [dataset for dataset, at_ms in known if dataset not in shown and at_ms < begun_ms - LAG_MS]
        for dataset in gone[:SINGLY_MOST]:
            yield self._taker.see([(yield self._again(dataset, data_node, begun_ms))])

    @inlineCallbacks
    def _again(self, dataset: DatasetId, data_node: str, begun_ms: int) -> Any:
        """Ask for one record that is retracted no more."""
        record = {"type": "Dataset", "id": f"{dataset}|{data_node}"}
        found = yield self._questions.page(record, OF_DATASETS, limit=1)
        sightings = self._sightings(found, data_node, begun_ms)
        operation = sightings[0].operation if sightings else Operation.DELETE
        return Sighting(operation, dataset, data_node, None, begun_ms - LAG_MS, SOURCE)

    @inlineCallbacks
    def _page(self, wanted: Mapping[str, str], offset: int) -> Any:
        found = yield self._questions.page({"type": "Dataset", **wanted}, OF_DATASETS, offset, PAGE)
        self.counts.records += len(found.records)
        return found

    def _sightings(self, found: Found, data_node: str, begun_ms: int) -> list[Sighting]:
        seen = self._questions.sightings(found.records, begun_ms - LAG_MS)
        # An index that does not know the parameter gives everything.
        return [one for one in seen if one.data_node == data_node]


def _get_look(connection: sqlite3.Connection, data_node: str) -> _Look:
    row = connection.execute(
        "SELECT looked_ms, whole_ms, offset FROM index_look WHERE data_node = ?", (data_node,)
    ).fetchone()
    return _Look() if row is None else _Look(*row)


def _put_look(connection: sqlite3.Connection, data_node: str, look: _Look) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO index_look VALUES (?, ?, ?, ?)",
        (data_node, look.looked_ms, look.whole_ms, look.offset),
    )


def _unknown(connection: sqlite3.Connection, sightings: Sequence[Sighting]) -> list[DatasetId]:
    copies = ((one, get_copy(connection, one.dataset, one.data_node)) for one in sightings)
    return [one.dataset for one, copy in copies if copy is None or not copy.is_known]
