"""
The keeper of dataset events: follows all logs, says what happened here, tells what came to count.

What counts is the tracking room's to say. A fault of the tracker's database is shown, and never stops the daemon.
Source: docs/tracking.md; docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Sequence
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.core.effects import Notice
from esgf_gossip.core.node import Node
from esgf_gossip.core.publication import PublicationError
from esgf_gossip.dataset_errors import CONFLICT, FAULTY, FORBIDDEN, MISSING, DatasetError
from esgf_gossip.dataset_reader import DatasetReader
from esgf_gossip.document_reader import Read
from esgf_gossip.net.sparing import Sparing
from esgf_gossip.storage.database import StorageError
from esgf_gossip.storage.journal_thread import AtOnce, JournalThread
from esgf_gossip.tracking import event_lists, foreign_claims
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.events import LOG, Claim, DatasetEvent, encode_claim, encode_event
from esgf_gossip.tracking.hand import RefusedError, Word, events_of, unsaid
from esgf_gossip.tracking.ledger import Taken
from esgf_gossip.tracking.records import Record
from esgf_gossip.views.federation import DatasetCounts
from esgf_gossip.web.dataset_bodies import told_body
from esgf_gossip.web.events import EventHub

# Leaves that go to the disk together.
APPEND_LEAVES: Final = 512
# Questions that wait for the thread that reads; more are turned away.
WAITING_QUESTIONS: Final = 32

P = ParamSpec("P")
T = TypeVar("T")


class Stage(Protocol):
    """What the daemon shows of itself, as far as datasets move it."""

    events: EventHub

    def moved(self) -> None:
        """Note that something changed."""


class DatasetKeeper:
    """
    The dataset events of one node.

    ``on_changes`` is called in the reactor's thread after there are new rows in ``tracking.changes``,
    ``on_own_events`` after events of this node came to count, those of earlier runs too.

    Args:
        node: whose logs are read.
        read: reads leaves of a log from the disk.
        append: adds leaves to a log of this node; raises PublicationError, StorageError.
        database: of the tracker, with the scripts of ``ledger`` and ``changes``; a text: why there is none.
        stage: where events are told.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        questions: the thread in which questions are answered, beside the one that writes.
        data_node: what is meant where people name none; empty: this node's own name.
    """

    log = Logger()

    def __init__(
        self,
        node: Node,
        read: Read,
        append: Callable[[str, Sequence[bytes]], None],
        database: TrackingDatabase | str,
        stage: Stage,
        clock: Any,
        now_ms: Callable[[], int],
        questions: JournalThread | AtOnce,
        data_node: str = "",
    ) -> None:
        self.on_changes: Callable[[], None] = lambda: None
        self.on_own_events: Callable[[Sequence[DatasetEvent]], None] = lambda _events: None
        self._node: Final = node
        self._host: Final = node.name
        self._data_node: Final = data_node or node.name
        self._append = append
        self._stage = stage
        self._now_ms = now_ms
        self._database = None if isinstance(database, str) else database
        self._missing = database if isinstance(database, str) else ""
        self._reader: DatasetReader | None = None
        if self._database is not None:
            self._reader = DatasetReader(
                node, read, self._database, self._taken, self._settled, clock, now_ms
            )
        self._questions = questions
        self._waiting = 0
        self._reading: sqlite3.Connection | None = None
        self._saying = DeferredLock()
        self._sparing = Sparing(clock, self._tell_left_out)
        self._counts = DatasetCounts()
        self._is_stopped = False
        self._is_counting = False
        self._counts_owed = False
        self._contested: set[DatasetEvent] = set()

    @property
    def fault(self) -> str:
        """One line while dataset events cannot be followed, else empty."""
        return self._missing or (self._reader.fault if self._reader else "")

    @property
    def has_read(self) -> bool:
        """Whether all that the disk held at the start is in force."""
        return self._reader is not None and self._reader.has_read

    @property
    def hosts(self) -> frozenset[str]:
        """The names that this node's certificate grants: the data nodes it may speak for."""
        line = self._node.registry.table.line(self._host)
        return frozenset() if line is None else line.hosts

    def start(self) -> None:
        """Read what the disk holds, in slices, and follow the logs from now on."""
        if self._reader is not None:
            self._count()
            self._reader.start()

    def stop(self) -> None:
        """Follow no more and answer no more; the database is its owner's to close."""
        self._is_stopped = True
        if self._reader is not None:
            self._reader.stop()
        self._sparing.stop()
        self._questions.stop()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    def notice(self, notice: Notice) -> None:
        """Hear a notice of the core."""
        if self._reader is not None:
            self._reader.notice(notice)

    def counts(self) -> DatasetCounts:
        """Return the events in numbers, as last counted."""
        return self._counts

    # ----------------------------------------------------------------- saying

    def publish(self, events: Sequence[DatasetEvent]) -> Deferred[None]:
        """
        Add events to this node's log; those that it says already are passed over. Fires when they are in the ledger.

        Fails with:
            DatasetError: the certificate of this node does not name a data node, or nothing can be written now.
        """
        return self._say(lambda _connection: events).addCallback(lambda _written: None)

    def say(self, word: Word) -> Deferred[list[DatasetEvent]]:
        """
        Add what a person or a task says; fires with the events written, none where it was so already.

        Fails with:
            DatasetError: refused; nothing was written.
        """
        word = attrs.evolve(word, data_node=word.data_node or self._data_node)
        try:
            self._check_hosts([word.data_node])
        except DatasetError as error:
            return fail(error)
        return self._say(lambda connection: events_of(connection, self._host, word))

    def publish_claims(self, claims: Sequence[Claim]) -> Deferred[None]:
        """
        Add claims to this node's log. A claim said once more changes nothing.

        Fails with:
            DatasetError: nothing can be written now.
        """
        said: Deferred[None] = self._saying.run(self._write, [encode_claim(one) for one in claims])
        return said

    def _say(
        self, compose: Callable[[sqlite3.Connection], Sequence[DatasetEvent]]
    ) -> Deferred[list[DatasetEvent]]:
        said: Deferred[list[DatasetEvent]] = self._saying.run(self._say_alone, compose)
        return said

    @inlineCallbacks
    def _say_alone(
        self, compose: Callable[[sqlite3.Connection], Sequence[DatasetEvent]]
    ) -> Generator[Deferred[Any], Any, list[DatasetEvent]]:
        if self._database is None or self._reader is None:
            raise DatasetError(self._missing, FAULTY)

        def composed(connection: sqlite3.Connection) -> list[DatasetEvent]:
            return unsaid(connection, self._host, compose(connection))

        try:
            yield self._reader.caught_up(self._host)
            events = yield self._database.run(composed)
        except RefusedError as error:
            raise DatasetError(str(error), MISSING if error.is_missing else CONFLICT) from None
        except (TrackingError, CancelledError) as error:
            raise DatasetError(str(error) or "the daemon stops", FAULTY) from None
        self._check_hosts([event.data_node for event in events])
        yield self._write([encode_event(event) for event in events])
        return list(events)

    @inlineCallbacks
    def _write(self, leaves: Sequence[bytes]) -> Generator[Deferred[Any], Any, None]:
        try:
            for start in range(0, len(leaves), APPEND_LEAVES):
                self._append(LOG, leaves[start : start + APPEND_LEAVES])
        except (PublicationError, StorageError) as error:
            raise DatasetError(f"nothing can be said of datasets now: {error}", FAULTY) from None
        if leaves and self._reader is not None:
            try:
                yield self._reader.caught_up(self._host)
            except (TrackingError, CancelledError) as error:
                raise DatasetError(
                    f"it is said, but not in force here yet: {str(error) or 'the daemon stops'}", FAULTY
                ) from None

    def _check_hosts(self, data_nodes: Sequence[str]) -> None:
        for name in dict.fromkeys(data_nodes):
            if name not in self.hosts:
                raise DatasetError(
                    f"the certificate of this node does not name {name}, so no node would take its events; ask for one "
                    f"with trust-admin cert request --same-key --dns {self._host} --dns {name}",
                    FORBIDDEN,
                )

    @inlineCallbacks
    def accept(self, key_prefix: str) -> Generator[Deferred[Any], Any, list[Record]]:
        """
        Let events in quarantine count on this node; fires with them.

        Fails with:
            DatasetError: there are none of that key, or the database is at fault.
        """
        if self._database is None:
            raise DatasetError(self._missing, FAULTY)
        try:
            accepted, taken = yield self._database.run(
                event_lists.accept, key_prefix, self._host, self._now_ms()
            )
        except (TrackingError, CancelledError) as error:
            raise DatasetError(str(error) or "the daemon stops", FAULTY) from None
        if not accepted:
            raise DatasetError(
                f"{key_prefix} is the beginning of no key, or of several, in quarantine; "
                "esgf-gossip dataset quarantine lists them",
                MISSING,
            )
        self._taken(taken)
        return list(accepted)

    # ----------------------------------------------------------------- asking

    def ask(
        self, work: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """
        Answer a question beside whoever writes: ``work(connection, ...)`` in a thread of its own, on one state of the file.

        Fails with:
            DatasetError: there is no database, it is at fault, or too many ask.
        """
        if self._database is None or self._is_stopped:
            return fail(DatasetError(self._missing or "the daemon stops", FAULTY))
        if self._waiting >= WAITING_QUESTIONS:
            return fail(DatasetError("too many questions about datasets wait; ask again in a moment", FAULTY))
        self._waiting += 1

        def over(result: Any) -> Any:
            self._waiting -= 1
            if isinstance(result, Failure) and result.check(sqlite3.Error, CancelledError):
                return Failure(DatasetError(f"{self._file}: {result.getErrorMessage()}", FAULTY))
            return result

        answer: Deferred[T] = self._questions.write(self._answer, work, *args, **kwargs)
        return answer.addBoth(over)

    @property
    def _file(self) -> str:
        return "" if self._database is None else str(self._database.path)

    def _answer(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert self._database is not None
        if self._reading is None:
            self._reading = self._database.reader()
        try:
            self._reading.execute("BEGIN")
            try:
                return work(self._reading, *args, **kwargs)
            finally:
                self._reading.execute("ROLLBACK")
        except sqlite3.Error:
            reading, self._reading = self._reading, None
            reading.close()
            raise

    # ----------------------------------------------------------------- telling

    def _taken(self, taken: Taken) -> None:
        # What was there before this start is no news.
        if self._reader is not None and self._reader.has_read:
            for one in taken.counted:
                self._stage.events.publish("dataset-event", told_body(one))
        for one in taken.refused:
            if self._sparing.allows(f"dataset events of {one.origin}"):
                self.log.warn(
                    "{origin}: {type} of {dataset} is in quarantine: {reason}",
                    origin=one.origin,
                    type=one.event.type.value,
                    dataset=str(one.event.dataset),
                    reason=one.verdict,
                )
        self._count()
        own = [one.event for one in taken.counted if one.origin == self._host]
        if own:
            self.on_own_events(own)
        if taken.changes:
            self.on_changes()

    def _settled(self) -> None:
        self._stage.moved()

    def _tell_left_out(self, subject: str, count: int) -> None:
        self.log.warn("{count} more lines on {subject} within a minute", count=count, subject=subject)

    def _count(self) -> None:
        """Count anew, once at a time."""
        self._counts_owed = self._is_counting
        if not self._is_counting and not self._is_stopped:
            self._is_counting = True
            self.ask(event_lists.counts).addCallbacks(self._counted, self._uncounted)

    def _counted(self, counts: DatasetCounts) -> None:
        self._is_counting = False
        if counts != self._counts:
            self._counts = counts
            self._stage.moved()
            if counts.foreign_claims:
                self._contest()
        if self._counts_owed:
            self._count()

    def _contest(self) -> None:
        """Say once in a run that an original is this node's where another claims it: all shall see both."""

        def compose(connection: sqlite3.Connection) -> list[DatasetEvent]:
            claims = foreign_claims.owed(connection)
            return [one for one in claims if one not in self._contested and one.data_node in self.hosts]

        def said(events: list[DatasetEvent]) -> None:
            self._contested.update(events)
            for one in events:
                if self._sparing.allows("claims of others to originals of this node"):
                    self.log.warn(
                        "another node claims the original of {dataset}, which {data_node} serves; this node claims it "
                        "too; see esgf-gossip dataset quarantine and dataset accept",
                        dataset=str(one.dataset),
                        data_node=one.data_node,
                    )

        def failed(failure: Failure) -> None:
            failure.trap(DatasetError)
            if self._sparing.allows("what others claim that cannot be contested"):
                self.log.warn(
                    "What others claim cannot be contested now: {reason}", reason=str(failure.value)
                )

        self._say(compose).addCallbacks(said, failed)

    def _uncounted(self, failure: Failure) -> None:
        self._is_counting = False
        failure.trap(DatasetError)
