"""The order in which effects are carried out, and what happens when the disk fails: net.driver."""

from random import Random

import pytest
from twisted.internet.task import Clock

from esgf_gossip.core import effects as fx
from esgf_gossip.core.messages import Goodbye, Hello
from esgf_gossip.core.node import Node
from esgf_gossip.net.driver import PERSIST_AGAIN_S, Driver
from esgf_gossip.net.traffic import Traffic
from esgf_gossip.sim.trust import START_MS, PlainJudge, PlainSigner, PlainVerifier
from esgf_gossip.storage.database import FILE_NAME, Database, StorageError
from esgf_gossip.trust.tls import PeerIdentity


class RecordingDatabase:
    """A Database that notes when it writes, and fails when told to."""

    def __init__(self, story, real):
        self.story = story
        self.real = real
        self.fails = False

    def apply(self, effects):
        """Write, or fail as a full disk does."""
        if self.fails:
            raise StorageError("registry.db: the disk is full; free some space")
        self.story.append(("persist", [type(effect).__name__ for effect in effects]))
        self.real.apply(effects)


class RecordingConnection:
    """The end of a link that notes what it is told."""

    remote = "192.0.2.1:4711"
    remote_host = "192.0.2.1"

    def __init__(self, story, dialled=None):
        self.story = story
        self.dialled = dialled
        self.link = None
        self.traffic = Traffic()

    def send(self, message):
        """Note a message."""
        self.story.append(("send", type(message).__name__))

    def pause_reading(self, for_s):
        """Note a pause."""
        self.story.append(("pause", for_s))

    def close(self, reason):
        """Note the end."""
        self.story.append(("close", reason))


@pytest.fixture
def story():
    """What happened, in order."""
    return []


@pytest.fixture
def driver(story, tmp_path):
    """A driver with a real database, virtual time and no network."""
    clock = Clock()
    database = RecordingDatabase(story, Database(tmp_path / FILE_NAME))
    node = Node(
        PlainSigner("a.example.org"), PlainVerifier(), ("a.example.org", 1), [], Random(1), PlainJudge()
    )
    made = Driver(
        node,
        database,
        clock,
        lambda notice: story.append(("notice", type(notice).__name__)),
        lambda: START_MS + int(clock.seconds() * 1000),
    )
    made.clock, made.database = clock, database
    yield made
    database.real.close()


def _identity(host):
    return PeerIdentity(
        host=host,
        federation="fed.example.org",
        groups=frozenset(),
        roles=frozenset(),
        certificate_sha256=b"",
        not_after_ms=0,
    )


def test_a_batch_is_persisted_before_it_is_sent_and_told_last(driver, story):
    """Persist, send, notices: whatever order the core produced them in."""
    driver.perform(driver.node.start({"registration": b"one"}, driver.at()))
    driver.link_up(RecordingConnection(story), _identity("b.example.org"))
    story.clear()
    driver.perform(driver.node.publish({"registration": b"two"}, driver.at()))
    assert story == [("persist", ["PersistLine"]), ("send", "Answer"), ("notice", "DigestAccepted")]


def test_an_epoch_is_on_the_disk_before_it_is_used(driver, story):
    """The start itself fails where its epoch cannot be made durable; nothing was sent or told."""
    driver.database.fails = True
    with pytest.raises(StorageError):
        driver.perform(driver.node.start({"registration": b"one"}, driver.at()))
    assert story == []


def test_a_full_disk_stops_no_exchange_and_is_made_good(driver, story):
    """While the disk is full the node goes on in memory; what is owed is written as soon as it can be."""
    driver.perform(driver.node.start({"registration": b"one"}, driver.at()))
    driver.database.fails = True
    driver.perform(driver.node.publish({"registration": b"two"}, driver.at()))
    assert "the disk is full" in driver.storage_error
    assert story[-1] == ("notice", "DigestAccepted")
    driver.database.fails = False
    driver.clock.advance(PERSIST_AGAIN_S)
    assert driver.storage_error == ""
    (stored,) = driver.database.real.load().lines
    assert driver.node.registry.table.line("a.example.org").signed == stored.signed


def test_a_goodbye_is_sent_before_the_link_is_closed(driver, story):
    """An orderly stop says so to every peer, then closes."""
    driver.perform(driver.node.start({"registration": b"one"}, driver.at()))
    connection = RecordingConnection(story)
    link = driver.link_up(connection, _identity("b.example.org"))
    driver.link_message(link, Hello(1, 1, (), "fed.example.org", b"i" * 16, START_MS, {}, None))
    story.clear()
    driver.stop()
    assert [one for one in story if one[0] != "notice"] == [("send", "Goodbye"), ("close", "this node stops")]
    assert driver.clock.getDelayedCalls() == []


def test_messages_after_a_close_are_not_delivered(driver, story):
    """Once the core has ended a link, what still comes from it means nothing."""
    driver.perform(driver.node.start({"registration": b"one"}, driver.at()))
    connection = RecordingConnection(story)
    link = driver.link_up(connection, _identity("b.example.org"))
    driver.link_message(link, Goodbye(1, 0, ""))
    story.clear()
    driver.link_message(link, Hello(1, 1, (), "fed.example.org", b"i" * 16, START_MS, {}, None))
    driver.link_down(link, "gone")
    assert story == []


def test_what_an_effect_causes_is_carried_out_after_its_batch(driver, story):
    """A dial that fails at once does not cut into the batch that ordered it."""
    seed = ("seed.example.org", 8951)
    node = Node(
        PlainSigner("a.example.org"), PlainVerifier(), ("a.example.org", 1), [seed], Random(1), PlainJudge()
    )
    again = Driver(node, driver.database, driver.clock, driver._on_notice, driver._now_ms)
    again.dial = lambda address: again.dial_failed(address, "refused")
    again.perform(node.start({"registration": b"one"}, again.at()))
    assert story[0][1] == ["PersistEpoch", "PersistLine"]
    assert [one for one in story if one[0] == "notice"] == [
        ("notice", "DigestAccepted"),
        ("notice", "DialFailed"),
    ]


def test_timers_reach_the_core_at_their_time(driver):
    """A started timer comes back with the Moment at which it fires."""
    fired = []
    driver.node.handle_timer = lambda timer, at: fired.append((timer, at.mono_s)) or []
    driver.perform([fx.StartTimer(fx.CheckLinks(), 5.0)])
    driver.clock.advance(4.9)
    assert fired == []
    driver.clock.advance(0.2)
    assert [(fx.CheckLinks(), 5.1)] == [(timer, round(at, 1)) for timer, at in fired]


def test_what_is_owed_does_not_grow_with_the_fault(driver, story):
    """A fault of any length owes the registry as it is, not everything that happened meanwhile."""
    driver.perform(driver.node.start({"registration": b"one"}, driver.at()))
    driver.database.fails = True
    for number in range(50):
        driver.perform(driver.node.publish({"registration": b"%d" % number}, driver.at()))
    driver.perform([fx.RemoveLine("gone.example.org")])
    driver.database.fails = False
    story.clear()
    driver.clock.advance(PERSIST_AGAIN_S)
    assert story == [("persist", ["RemoveLine", "PersistLine"])]
    stored = driver.database.real.load()
    assert driver.node.registry.table.line("a.example.org").signed == stored.lines[0].signed
    assert b"49" in stored.bodies.values()


def test_a_pause_reaches_its_link(driver, story):
    """What the core wants read later is read later; a link that is gone by then has no part in it."""
    driver.perform(driver.node.start({"registration": b"one"}, driver.at()))
    link = driver.link_up(RecordingConnection(story), _identity("b.example.org"))
    story.clear()
    driver.perform([fx.PauseReading(link, 0.25), fx.PauseReading(link + 1, 9.0)])
    assert story == [("pause", 0.25)]


def test_all_links_of_a_peer_have_one_budget(driver, story):
    """A peer that dials again goes on with what it has left; others have their own."""
    connections = [RecordingConnection(story) for _ in range(3)]
    for connection, host in zip(
        connections, ("b.example.org", "b.example.org", "c.example.org"), strict=True
    ):
        driver.link_up(connection, _identity(host))
    first, again, other = (connection.budget for connection in connections)
    assert first is again
    assert first is not other


def test_feedback_is_heard_by_who_takes_it_and_by_nobody_after_the_end(driver):
    """Where tracking is off nobody hears it; a driver that stops lets nobody bring more."""
    connection = RecordingConnection([])
    assert driver.feedback(connection, _identity("b.example.org")) is None
    driver.on_feedback = lambda one, identity: (one, identity.host)
    assert driver.feedback(connection, _identity("b.example.org")) == (connection, "b.example.org")
    driver.stop()
    assert driver.feedback(connection, _identity("b.example.org")) is None
