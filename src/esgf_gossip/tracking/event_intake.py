"""
Sightings in, events out: on the disk before anybody is told that they were taken, said until the log has them.

What is learned and what is to be said of it are one transaction. Then the events are published, oldest first, and
crossed off; after a crash, or while publishing fails, they wait. Where those of one data node are refused, as those of
one that the certificate does not name, they wait alone. Publishing must bear repetition: between the log's disk and
ours lies an instant (docs/adr/0021-tracking.md).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from random import Random, SystemRandom
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.tracking import catalog, copies, foreign_claims, seen_files
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.events import DatasetEvent, decode_leaf, encode_event
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.sightings import Sighting
from esgf_gossip.tracking.whereabouts import with_nodes

SCRIPT: Final = f"""
{copies.SCRIPT};
{seen_files.SCRIPT};
{foreign_claims.NODES_SCRIPT};
CREATE TABLE event_to_say (
    number INTEGER PRIMARY KEY AUTOINCREMENT, data_node TEXT NOT NULL, leaf BLOB NOT NULL
) STRICT
"""

# Events of one call of ``publish``.
SAID_AT_ONCE: Final = 200
# Sightings of one transaction; other steps have their turn between two of them.
TAKEN_AT_ONCE: Final = 500
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 300.0

Publish = Callable[[Sequence[DatasetEvent]], "Deferred[None]"]
_Row = tuple[int, str, bytes]


@attrs.define
class IntakeCounts:
    """
    What the intake has done since it started.

    ``taken``: sightings; ``nowhere``: of them those that name no data node, and whose original is not on record;
    ``events``: made of them; ``said``: events published; ``waiting``: events that are not yet.
    """

    taken: int = 0
    nowhere: int = 0
    events: int = 0
    said: int = 0
    waiting: int = 0


class Intake:
    """
    The one way in for sightings of all sources.

    Args:
        database: with ``SCRIPT`` among its scripts.
        data_nodes: hosts, lower case, for which this node speaks.
        publish: writes events into this node's own log, in the reactor's thread; fires when they are there, or are
            there already. What it refuses of several data nodes is handed in again for each of them alone.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        random: spreads the pauses.
    """

    log = Logger()

    def __init__(
        self,
        database: TrackingDatabase,
        data_nodes: Collection[str],
        publish: Publish,
        clock: Any,
        now_ms: Callable[[], int],
        random: Random | None = None,
    ) -> None:
        self._database: Final = database
        self._data_nodes: Final = frozenset(data_nodes)
        self._publish: Final = publish
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._random: Final = random or SystemRandom()
        self.counts: Final = IntakeCounts()
        # Empty: all is well; else one line for the operator.
        self.fault = ""
        self._is_started = self._is_saying = False
        self._failures = 0
        # Data nodes whose events were refused since the last pause, and why.
        self._held: dict[str, str] = {}
        self._call: Any = None
        self._saying: Deferred[Any] | None = None

    def start(self) -> None:
        """Say what was not said before the last stop, and from now on what comes."""
        self._is_started = True
        putting = maybeDeferred(self._database.run, foreign_claims.put_data_nodes, self._data_nodes)
        # Where the disk says no, that is said below.
        putting.addErrback(lambda failure: failure.trap(TrackingError, CancelledError))
        self._say()

    def stop(self) -> None:
        """Say nothing more; what waits is said by the next run."""
        self._is_started = False
        if self._call is not None and self._call.active():
            self._call.cancel()
        saying, self._saying = self._saying, None
        if saying is not None:
            saying.cancel()

    def see(self, sightings: Sequence[Sighting], *, is_quiet: bool = False) -> Deferred[None]:
        """
        Take sightings, in their order; fires when they and their events are on the disk, said or not.

        ``is_quiet``: copies that were not known are learned without an event.

        Fails with a TrackingError; nothing of the part that failed, and of what follows it, was taken then: the
        source hands them in again. Who cancels it waits no more; what was handed in is taken all the same.
        """
        parts = [sightings[at : at + TAKEN_AT_ONCE] for at in range(0, len(sightings), TAKEN_AT_ONCE)]
        waiting: Deferred[None] = Deferred()

        def told(result: Any) -> None:
            if not waiting.called:
                waiting.callback(result)
            elif isinstance(result, Failure):
                self.log.error("Sightings were not taken: {reason}", reason=str(result.value))

        self._see_parts(parts, is_quiet=is_quiet).addBoth(told)
        return waiting

    def missing(self, sightings: Sequence[Sighting]) -> Deferred[list[Sighting]]:
        """Fire with those of which the index should be asked before it is told (``catalog.missing``)."""
        return self._database.run(catalog.missing, sightings)

    def _see_parts(self, parts: list[Sequence[Sighting]], *, is_quiet: bool) -> Deferred[None]:
        if not parts:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        first, *rest = parts
        taking = self._database.run(self._take, first, self._now_ms(), is_quiet=is_quiet)

        def taken(events: int) -> Deferred[None]:
            self.counts.taken += len(first)
            self.counts.events += events
            if events:
                self.counts.waiting += events
                self._say()
            return self._see_parts(rest, is_quiet=is_quiet)

        return taking.addCallback(taken)

    def _take(
        self, connection: sqlite3.Connection, sightings: Sequence[Sighting], now_ms: int, *, is_quiet: bool
    ) -> int:
        named, unknown = with_nodes(sightings, partial(_original_of, connection))
        self.counts.nowhere += len(unknown)
        leaves = [
            (event.data_node, encode_event(event))
            for sighting in named
            for event in self._news_of(connection, sighting, now_ms, is_quiet=is_quiet)
        ]
        connection.executemany("INSERT INTO event_to_say (data_node, leaf) VALUES (?, ?)", leaves)
        return len(leaves)

    def _news_of(
        self, connection: sqlite3.Connection, sighting: Sighting, now_ms: int, *, is_quiet: bool
    ) -> list[DatasetEvent]:
        events = catalog.see(connection, sighting, self._data_nodes, now_ms, is_quiet=is_quiet)
        if is_quiet and not events and sighting.data_node in self._data_nodes:
            return foreign_claims.owed_after(connection, sighting)
        return events

    # ----------------------------------------------------------------- saying

    def _say(self) -> None:
        is_resting = self._call is not None and self._call.active() and not self._held
        if not self._is_started or self._is_saying or is_resting:
            return
        self._is_saying = True
        saying = self._saying = maybeDeferred(self._database.run, _next, list(self._held))
        saying.addCallback(self._say_these)
        saying.addCallbacks(self._said, self._failed)

    @inlineCallbacks
    def _say_these(self, found: tuple[int, list[_Row]]) -> Generator[Deferred[Any], Any, tuple[int, bool]]:
        """Publish these; fires with how many were, and whether there were any."""
        self.counts.waiting, rows = found
        nodes = list(dict.fromkeys(node for _, node, _ in rows))
        # All at once, in order; only where that is refused each data node for itself.
        parts = [rows]
        said = 0
        while parts:
            part = parts.pop(0)
            refusal = yield self._publish_these(part)
            if not refusal:
                said += len(part)
            elif len(part) == len(rows) and len(nodes) > 1:
                parts = [[row for row in rows if row[1] == node] for node in nodes]
            else:
                self._held[part[0][1]] = refusal
        return said, bool(rows)

    @inlineCallbacks
    def _publish_these(self, rows: Sequence[_Row]) -> Generator[Deferred[Any], Any, str]:
        """Publish and cross off; fires with one line why they cannot be published, empty: they are."""
        if rows:
            events = [
                one for one in (decode_leaf(leaf) for *_, leaf in rows) if isinstance(one, DatasetEvent)
            ]
            try:
                yield maybeDeferred(self._publish, events)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the events wait
                return _line(error)
            yield self._database.run(_cross_off, [number for number, *_ in rows])
        return ""

    def _said(self, result: tuple[int, bool]) -> None:
        count, were_any = result
        self._is_saying = False
        self.counts.said += count
        self.counts.waiting = max(0, self.counts.waiting - count)
        if self._held:
            self._show(
                "; ".join(f"events of {node} cannot be published: {why}" for node, why in self._held.items())
            )
        else:
            if self.fault:
                self.log.info("Events are published again")
            self.fault, self._failures = "", 0
        if self.counts.waiting and were_any:
            self._say()

    def _failed(self, failure: Failure) -> None:
        self._is_saying = False
        if self._is_started and not failure.check(CancelledError):
            self._show(f"events cannot be published: {_line(failure.value)}")

    def _show(self, fault: str) -> None:
        """Show why events wait, and try again later."""
        if fault != self.fault:
            self.log.error("{fault}; they wait on the disk and are tried again", fault=fault)
        self.fault = fault
        if self._call is None or not self._call.active():
            self._failures += 1
            longest_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 32), LONGEST_PAUSE_S)
            self._call = self._clock.callLater(longest_s * self._random.uniform(0.5, 1.0), self._try_again)

    def _try_again(self) -> None:
        self._held.clear()
        self._say()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _next(connection: sqlite3.Connection, held: Sequence[str]) -> tuple[int, list[_Row]]:
    count = connection.execute("SELECT count(*) FROM event_to_say").fetchone()[0]
    marks = ", ".join("?" * len(held))
    rows = connection.execute(
        f"SELECT number, data_node, leaf FROM event_to_say WHERE data_node NOT IN ({marks}) ORDER BY number LIMIT ?",  # noqa: S608 - our own text
        (*held, SAID_AT_ONCE),
    )
    return int(count), rows.fetchall()


def _cross_off(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    connection.executemany("DELETE FROM event_to_say WHERE number = ?", [(number,) for number in numbers])


def _original_of(connection: sqlite3.Connection, dataset: DatasetId) -> str | None:
    """Return the data node of the original on record."""
    known = copies.copies_of(connection, dataset.master_id)
    return next((one.data_node for one in known if one.dataset == dataset and one.is_original), None)
