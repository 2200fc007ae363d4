"""Events from a Kafka of the library's own making: nothing is lost or passed by, whatever ends or fails in between."""

from __future__ import annotations

import json
import socket
import stat
import sys
import threading
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from esgf_gossip.sources import kafka
from esgf_gossip.sources.dead_letters import DeadLetters
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.kafka import KafkaSource
from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.stac_feed import EventReader
from helpers.daemons import eventually
from helpers.stac import ADDRESS, NOW_MS, a_post

SILENT = {"log_level": 0}
BAD = json.dumps({"email": ADDRESS}).encode()
# Who comes and goes is noticed soon.
QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 100, "fetch.wait.max.ms": 50}


class HereAtOnce(Clock):
    """Stands in for the reactor: what another thread hands over is done in that thread, one after the other."""

    def __init__(self):
        super().__init__()
        self._turn = threading.RLock()

    def callFromThread(self, work, *args):
        with self._turn:
            work(*args)


class Cluster:
    """A broker in this process; it lives as long as the producer does."""

    def __init__(self):
        self.producer = Producer({"test.mock.num.brokers": 1, **SILENT})
        (broker,) = self.producer.list_topics(timeout=10).brokers.values()
        self.port = broker.port
        self.address = f"127.0.0.1:{broker.port}"

    def send(self, topic, *messages, partition=0):
        """Write messages: events by name, or bytes."""
        for one in messages:
            value = one if isinstance(one, bytes) else json.dumps(a_post(event_id=one)).encode()
            self.producer.produce(topic, value, partition=partition)
        assert self.producer.flush(10) == 0

    def committed(self, group, topic, partition=0):
        """Return how far a group has come."""
        asker = Consumer({"bootstrap.servers": self.address, "group.id": group, **SILENT})
        try:
            return asker.committed([TopicPartition(topic, partition)], timeout=10)[0].offset
        finally:
            asker.close()


class Node:
    """A consumer and what it saw."""

    def __init__(self, path, topic, address, group, answer):
        self.seen = []
        self.answer = answer
        self.dead = path / f"{topic}.jsonl"
        self.reactor = HereAtOnce()
        reader = EventReader("kafka", lambda: NOW_MS, self.reactor)
        self.source = KafkaSource(
            [address],
            [topic],
            group,
            reader.read_one,
            self.see,
            self.dead,
            self.reactor,
            QUICK,
        )
        self.source.start()

    def see(self, events):
        found = self.answer(None)
        self.seen += [one.event_id for one in events]
        return found

    def wait_for(self, *wanted):
        """Wait until all of these were seen."""
        eventually(lambda: set(wanted) <= set(self.seen), f"{wanted} is seen; {self.source.fault}")

    def stop(self):
        """End it; waits for the thread."""
        over = []
        self.source.stop().addCallback(lambda _: over.append(True))
        self.source.stop()
        eventually(lambda: over, "the thread ends")
        assert self.source.partitions == 0


class Scene:
    """The cluster and the nodes of all tests here: each join of a group takes seconds, so all begin at once."""

    def __init__(self, path):
        self.cluster = Cluster()
        self._path = path
        self._made = []

    def node(self, topic, address=None, answer=succeed):
        """Start a node that reads a topic."""
        self._made.append(Node(self._path, topic, address or self.cluster.address, f"group.{topic}", answer))
        return self._made[-1]

    def stop(self):
        """End all that still run."""
        for one in self._made:
            one.stop()


def no_room(_):
    """Say what a full disk says."""
    return fail(TrackingError("tracking.db: no room"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Begin what all tests here need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka, "RETRY_S", 0.05)
        found = Scene(tmp_path_factory.mktemp("kafka"))
        found.cluster.send("place", "first", BAD, "second", b"")
        found.place = found.node("place")
        found.cluster.send("disk", "first", "second")
        found.disk = found.node("disk", answer=no_room)
        found.cluster.send("shared", *"0123")
        found.pair = [found.node("shared"), found.node("shared")]
        yield found
        found.stop()


def test_messages_are_taken_from_the_beginning_and_the_place_is_kept(scene):
    """A restart goes on where it ended; what is no message is noted without its content, and passed by."""
    cluster, one = scene.cluster, scene.place
    one.wait_for("first", "second")
    eventually(lambda: cluster.committed("group.place", "place") == 4, "all four are committed")
    assert (one.source.taken, one.source.refused, one.source.fault) == (2, 2, "")
    letters = [json.loads(line) for line in one.dead.read_text().splitlines()]
    assert [(letter["topic"], letter["offset"], letter["reason"]) for letter in letters] == [
        ("place", 1, "data is missing, not an object"),
        ("place", 3, "not JSON: Expecting value at character 0"),
    ]
    assert ADDRESS not in one.dead.read_text()
    one.stop()
    cluster.send("place", "third")
    other = scene.node("place")
    other.wait_for("third")
    assert other.seen == ["third"]


def test_nothing_is_committed_before_it_is_on_the_disk(scene):
    """A disk that says no, a fault of our own, an end in between: the messages come again, to the next run too."""
    cluster, one = scene.cluster, scene.disk
    eventually(lambda: len(one.seen) > 4, "they come again and again")
    assert one.source.fault == "tracking.db: no room"
    assert cluster.committed("group.disk", "disk") < 0
    one.answer = lambda _: 1 / 0
    eventually(lambda: "division" in one.source.fault, "another fault is shown")
    # The next is under way when the daemon ends.
    waiting = []
    one.answer = lambda _: waiting.append(Deferred()) or waiting[-1]
    eventually(lambda: waiting, "it is handed over")
    one.stop()
    assert cluster.committed("group.disk", "disk") < 0


def test_two_consumers_share_the_partitions_and_lose_nothing(scene):
    """When one goes, the other takes over where it ended; few messages come twice."""
    one, other = scene.pair
    eventually(lambda: one.source.partitions and other.source.partitions, "both have partitions")
    assert one.source.partitions + other.source.partitions == 4
    wanted = [*"0123"]

    def send(count):
        for number in range(count):
            wanted.append(f"more {len(wanted)}")
            scene.cluster.send("shared", wanted[-1], partition=number % 4)

    send(40)
    eventually(lambda: set(wanted) <= {*one.seen, *other.seen}, "all are seen")
    assert one.seen
    assert other.seen
    one.stop()
    send(40)
    eventually(lambda: set(wanted) <= {*one.seen, *other.seen}, "all are seen by the one that stays")
    assert other.source.partitions == 4
    assert len(one.seen) + len(other.seen) < 2 * len(wanted)


@contextmanager
def a_way_to(port, listen):
    """Hand on what comes to another port."""
    server = socket.create_server(("127.0.0.1", listen))

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            end.close()

    def serve():
        while True:
            try:
                client, _ = server.accept()
                broker = socket.create_connection(("127.0.0.1", port))
            except OSError:
                return
            for pair in ((client, broker), (broker, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        server.close()


def test_brokers_that_are_away_are_shown_and_waited_for(scene):
    """It goes on by itself when they are there; meanwhile it ends when it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    waiting = scene.node("nowhere", f"127.0.0.1:{port}")
    one = scene.node("away", f"127.0.0.1:{port}")
    scene.cluster.send("away", "first")
    eventually(lambda: "refused" in one.source.fault or "down" in one.source.fault, "the fault is shown")
    waiting.stop()
    with a_way_to(scene.cluster.port, port):
        one.wait_for("first")
        eventually(lambda: one.source.fault == "", "the fault is over")
    assert waiting.source.taken == 0


def test_the_end_is_waited_for_within_a_bound(tmp_path):
    """A thread that hangs in the client holds up no shutdown."""
    reactor = HereAtOnce()
    source = KafkaSource([], [], "g", lambda *_: [], succeed, tmp_path / "dead", reactor)
    hangs = threading.Event()
    source._thread = threading.Thread(target=hangs.wait, daemon=True)
    source._thread.start()
    over = []
    source.stop().addCallback(over.append)
    reactor.advance(kafka.STOP_S - 1)
    assert not over
    reactor.advance(1)
    assert over
    hangs.set()


def test_wrong_settings_and_a_missing_library_are_one_line(tmp_path, monkeypatch):
    """What to install, what to correct; and one that never began ends at once."""
    source = KafkaSource(
        ["x:1"], ["t"], "g", lambda *_: [], succeed, tmp_path / "dead", Clock(), {"no": "such"}
    )
    with pytest.raises(SourceError, match="No such configuration property") as caught:
        source.start()
    assert "\n" not in str(caught.value)
    assert source.stop().called
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(SourceError, match=r"pip install 'esgf-gossip\[kafka\]'"):
        source.start()


def test_dead_letters_are_bounded_and_private(tmp_path):
    """The newest stay, in two files."""
    letters = DeadLetters(tmp_path / "dead.jsonl", 200)
    for number in range(100):
        letters.add({"offset": number})
    kept = [
        json.loads(line)["offset"]
        for name in ("dead.jsonl.1", "dead.jsonl")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert kept == list(range(100 - len(kept), 100))
    assert all(path.stat().st_size <= 200 for path in tmp_path.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
