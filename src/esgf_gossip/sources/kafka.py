"""
Events from Kafka: a consumer in a thread of its own.

The place in a topic is committed only when what came before is on the disk; what comes twice is told apart by its id.
What is no message is noted and passed by. confluent-kafka is imported where it is used and nowhere else: it is an
optional extra.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.sources.dead_letters import DeadLetters
from esgf_gossip.sources.gauge import SourceError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

# Messages taken together; one transaction of the tracker.
BATCH: Final = 200
POLL_S: Final = 0.5
# After a failure of the disk or of the client.
RETRY_S: Final = 5.0
# While brokers are away: how often they are looked for, and how long.
LOOK_S: Final = 2.0
# The thread has that long to end; then it is left to the end of the process.
STOP_S: Final = 10.0
FAULT_CHARACTERS: Final = 400

# What the client holds for us, however much there is.
_SETTINGS: Final = {
    "client.id": "esgf-gossip",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "queued.max.messages.kbytes": 16 * 1024,
    "topic.metadata.refresh.interval.ms": 60_000,
}

T = TypeVar("T")


class KafkaSource(Generic[T]):
    """
    The consumer, from ``start`` to ``stop``.

    Args:
        brokers: ``host:port`` of each.
        topics: that are read, from their beginning where the group never was.
        group: of consumers that share the work; one node is one group.
        read: makes events of a message and of a name for its place; raises a ValueError of one line where it is none.
            Called in the thread.
        see: takes them; fires when they are on the disk. Called in the reactor's thread.
        dead_letters: file that says which messages were none.
        reactor: of ``see``.
        options: further settings of librdkafka (``security.protocol``, ...).

    ``taken`` counts events, ``refused`` messages that were none; ``fault`` says what an operator must mend, or "".
    """

    log = Logger()

    def __init__(
        self,
        brokers: Sequence[str],
        topics: Sequence[str],
        group: str,
        read: Callable[[bytes, str], Sequence[T]],
        see: Callable[[Sequence[T]], Deferred[None]],
        dead_letters: Path,
        reactor: Any,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.taken = 0
        self.refused = 0
        self._brokers: Final = ",".join(brokers)
        self._topics: Final = list(topics)
        self._group: Final = group
        self._read: Final = read
        self._see: Final = see
        self._dead_letters: Final = DeadLetters(dead_letters)
        self._reactor: Final = reactor
        self._options: Final = dict(options or {})
        self._thread: threading.Thread | None = None
        self._is_stopping: Final = threading.Event()
        self._ended: Deferred[None] | None = None
        self._assigned: Final[set[tuple[str, int]]] = set()
        # Of the brokers, and of what takes the events: one may be over while the other lasts.
        self._broker_fault = ""
        self._own_fault = ""
        self._looked_s = 0.0

    @property
    def fault(self) -> str:
        """What went wrong last, or ""."""
        return self._own_fault or self._broker_fault

    @property
    def partitions(self) -> int:
        """How many partitions this consumer reads now."""
        return len(self._assigned)

    def start(self) -> None:
        """
        Begin to read; once.

        Raises:
            SourceError: confluent-kafka is not installed, or does not take the settings.
        """
        consumer = self._made()
        self._thread = threading.Thread(target=self._run, args=(consumer,), name="kafka", daemon=True)
        self._thread.start()

    def stop(self) -> Deferred[None]:
        """Read no more; fires when the thread has ended, after ``STOP_S`` at the latest. Twice does no harm."""
        self._is_stopping.set()
        if self._thread is None or not self._thread.is_alive():
            return succeed(None)
        if self._ended is None:
            self._ended = Deferred()
            late = self._reactor.callLater(STOP_S, self._end)
            self._ended.addCallback(lambda _: late.cancel() if late.active() else None)
            # It may have ended since.
            if not self._thread.is_alive():
                self._end()
        # Each caller has one of its own.
        waiting: Deferred[None] = Deferred()
        self._ended.addCallback(lambda _: waiting.callback(None))
        return waiting

    def _end(self) -> None:
        if self._ended is not None and not self._ended.called:
            self._ended.callback(None)

    def _made(self) -> Consumer:
        try:
            import confluent_kafka  # noqa: PLC0415 - the optional extra
        except ImportError:
            raise SourceError(
                "[tracking] kafka needs confluent-kafka, which is not installed; pip install 'esgf-gossip[kafka]'"
            ) from None
        # What the client says of itself comes as errors too; its own log would go to stderr.
        silent = logging.getLogger("esgf_gossip.kafka")
        silent.propagate = False
        silent.addHandler(logging.NullHandler())
        settings = {
            **_SETTINGS,
            "bootstrap.servers": self._brokers,
            "group.id": self._group,
            "error_cb": self._heard_error,
            "logger": silent,
            **self._options,
        }
        try:
            consumer = confluent_kafka.Consumer(settings)
            consumer.subscribe(
                self._topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke
            )
        except (confluent_kafka.KafkaException, ValueError, TypeError) as error:
            raise SourceError(f"[tracking] kafka: {_line(error)}") from None
        return consumer

    def _run(self, consumer: Consumer) -> None:
        from confluent_kafka import KafkaException  # noqa: PLC0415 - the optional extra

        try:
            while not self._is_stopping.is_set():
                try:
                    is_well = self._turn(consumer)
                except (KafkaException, RuntimeError, OSError) as error:
                    self._note_own(_line(error))
                    is_well = False
                except Exception:  # noqa: BLE001 - a thread that ends reads nothing any more
                    self._say(self.log.failure, "Events from Kafka were not taken", Failure())
                    self._note_own("internal error; the daemon's log says more")
                    is_well = False
                if not is_well:
                    self._is_stopping.wait(RETRY_S)
        finally:
            with contextlib.suppress(Exception):
                consumer.close()
            self._assigned.clear()
            self._reactor.callFromThread(self._end)

    def _turn(self, consumer: Consumer) -> bool:
        """Take what has come; tell whether all went well."""
        self._look_for_brokers(consumer)
        messages = consumer.consume(BATCH, POLL_S)
        events: list[T] = []
        first: dict[tuple[str, int], int] = {}
        after: dict[tuple[str, int], int] = {}
        letters = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._heard_error(error)
                continue
            place = (message.topic(), message.partition())
            first.setdefault(place, message.offset())
            after[place] = message.offset() + 1
            try:
                events += self._read(message.value() or b"", "/".join(map(str, (*place, message.offset()))))
            except ValueError as fault:
                letters.append(_letter(message, str(fault)))
            except Exception:  # noqa: BLE001 - one message must not hold up all behind it
                self._say(self.log.failure, "A message from Kafka was not understood", Failure())
                letters.append(_letter(message, "internal error; the daemon's log says more"))
        if not after:
            return True
        if not self._kept(events, letters):
            self._back_to(consumer, first)
            return False
        self._commit(consumer, after)
        self.taken += len(events)
        self.refused += len(letters)
        self._note_own("")
        return True

    def _kept(self, events: list[T], letters: list[dict[str, Any]]) -> bool:
        """Have all of it on the disk; tell whether it is."""
        try:
            for letter in letters:
                self._dead_letters.add(letter)
        except OSError as error:
            self._note_own(f"{self._dead_letters.path}: {error.strerror}; make room, or mend the disk")
            return False
        return not events or self._handed_over(events)

    def _handed_over(self, events: list[T]) -> bool:
        done = threading.Event()
        outcome: list[Failure | None] = []

        def hand_over() -> None:
            def over(result: Any) -> None:
                outcome.append(result if isinstance(result, Failure) else None)
                done.set()

            maybeDeferred(self._see, events).addBoth(over)

        self._reactor.callFromThread(hand_over)
        while not done.wait(POLL_S):
            if self._is_stopping.is_set():
                # Not committed: it comes again with the next start.
                return False
        failure = outcome[0]
        if failure is not None:
            self._note_own(_line(failure.value))
        return failure is None

    def _commit(self, consumer: Consumer, after: Mapping[tuple[str, int], int]) -> None:
        # What another reads by now is the other's to commit.
        places = self._places({place: offset for place, offset in after.items() if place in self._assigned})
        if places:
            consumer.commit(offsets=places, asynchronous=False)

    def _back_to(self, consumer: Consumer, first: Mapping[tuple[str, int], int]) -> None:
        from confluent_kafka import KafkaException  # noqa: PLC0415 - the optional extra

        for place in self._places(first):
            # Another reads it by now, from the same place.
            with contextlib.suppress(KafkaException):
                consumer.seek(place)

    @staticmethod
    def _places(offsets: Mapping[tuple[str, int], int]) -> list[TopicPartition]:
        from confluent_kafka import TopicPartition  # noqa: PLC0415 - the optional extra

        return [TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]

    def _look_for_brokers(self, consumer: Consumer) -> None:
        """The client never says that brokers are back: ask, while they are away."""
        from confluent_kafka import KafkaException  # noqa: PLC0415 - the optional extra

        if self._broker_fault and time.monotonic() - self._looked_s >= LOOK_S:
            self._looked_s = time.monotonic()
            with contextlib.suppress(KafkaException):
                known = consumer.list_topics(timeout=LOOK_S).topics
                missing = [name for name in self._topics if name not in known or known[name].error]
                if not missing:
                    self._note_brokers("")

    def _assign(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._assigned.update((one.topic, one.partition) for one in partitions)

    def _revoke(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        # What was read of them is committed: that is done before the next is read.
        self._assigned.difference_update((one.topic, one.partition) for one in partitions)

    def _heard_error(self, error: KafkaError) -> None:
        self._note_brokers(f"Kafka at {self._brokers}: {error.str()}")
        self._looked_s = time.monotonic()

    def _note_brokers(self, fault: str) -> None:
        fault = _line(fault)
        if bool(fault) != bool(self._broker_fault):
            self._tell(fault, "Kafka answers again")
        self._broker_fault = fault

    def _note_own(self, fault: str) -> None:
        if fault != self._own_fault:
            self._tell(fault, "events from Kafka are taken again")
        self._own_fault = fault

    def _tell(self, fault: str, over: str) -> None:
        if fault:
            self._say(self.log.warn, "{fault}; trying again", fault=fault)
        else:
            self._say(self.log.info, over)

    def _say(self, say: Callable[..., None], text: str, *args: Any, **fields: Any) -> None:
        self._reactor.callFromThread(lambda: say(text, *args, **fields))


def _letter(message: Message, reason: str) -> dict[str, Any]:
    """Say where a message is to be found; what stands in it may name people."""
    value = message.value() or b""
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "size_bytes": len(value),
        "sha256": hashlib.sha256(value).hexdigest(),
        "reason": _line(reason),
    }


def _line(error: object) -> str:
    return " ".join(str(error).split())[:FAULT_CHARACTERS]
