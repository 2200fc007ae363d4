"""What the driver does for event logs: it reads leaves for peers, and goes back to the disk when the disk failed."""

from contextlib import closing
from random import Random

import pytest
from twisted.internet.task import Clock

from esgf_gossip.core.log_effects import SendProof
from esgf_gossip.core.messages import AskLeaves, AskProof, Leaves, Proof
from esgf_gossip.core.node import Node
from esgf_gossip.core.publication import PublicationError
from esgf_gossip.net.driver import LEAVES_QUEUE_BYTES, PERSIST_AGAIN_S, Driver
from esgf_gossip.net.traffic import Traffic
from esgf_gossip.sim.trust import START_MS, PlainJudge, PlainSigner, PlainVerifier
from esgf_gossip.storage.database import FILE_NAME, Database, StorageError
from esgf_gossip.trust.tls import PeerIdentity
from helpers.bench import a_hello
from helpers.library import LOG, LOGS, events

OWN, PEER = "a.example.org", "b.example.org"


class FailingDatabase(Database):
    """A database that fails when told to."""

    fails = False

    def apply(self, effects):
        """Write, or fail as a full disk does."""
        if self.fails:
            raise StorageError("registry.db: the disk is full; free some space")
        super().apply(effects)

    def leaves(self, *arguments):
        """Read, or fail as a bad disk does."""
        if self.fails:
            raise StorageError("registry.db: the disk cannot be read")
        return super().leaves(*arguments)


class Connection:
    """The end of a link that keeps what it is told to send."""

    remote, remote_host, dialled, link, budget = "192.0.2.1:4711", "192.0.2.1", None, None, None
    traffic = Traffic()
    waiting_bytes = 0

    def __init__(self):
        self.sent = []

    def send(self, message):
        """Keep a message."""
        self.sent.append(message)

    def close(self, reason):
        """Keep the end."""
        self.sent.append(reason)


@pytest.fixture
def driver(tmp_path):
    """A driver that has started, with a real database and virtual time."""
    clock = Clock()
    with closing(FailingDatabase(tmp_path / FILE_NAME)) as database:
        node = Node(PlainSigner(OWN), PlainVerifier(), (OWN, 1), [], Random(1), PlainJudge())
        made = Driver(node, database, clock, lambda _: None, lambda: START_MS + int(clock.seconds() * 1000))
        made.clock, made.database = clock, database
        made.perform(node.restore(0, (), {}, made.at()))
        made.perform(node.start({"registration": b"one"}, made.at()))
        yield made


@pytest.fixture
def peer(driver):
    """A peer that is linked and has agreed on logs."""
    connection = Connection()
    identity = PeerIdentity(PEER, "fed.example.org", frozenset(), frozenset(), b"", 0)
    driver.link_up(connection, identity)
    driver.link_message(connection.link, a_hello(features=LOGS))
    connection.sent.clear()
    return connection


def own_ref(driver):
    """Return what the node's newest digest says of its log."""
    return driver.node.registry.table.line(OWN).digest.logs.get(LOG)


def ask(driver, peer, kind, *fields):
    """Let the peer ask something about the node's log, and return the answers."""
    peer.sent.clear()
    driver.link_message(peer.link, kind(1, OWN, LOG, own_ref(driver).born, *fields))
    return peer.sent


def test_leaves_are_on_the_disk_when_append_returns_and_are_read_for_peers(driver, peer):
    """The core keeps none of them: what a peer gets comes from the file."""
    driver.append(LOG, events(0, 30))
    assert driver.database.leaves(OWN, LOG, 0, 30, 10**6) == events(0, 30)
    assert ask(driver, peer, AskLeaves, 10, 30) == [Leaves(1, 10, tuple(events(10, 30)), (), (), True)]
    (proof,) = ask(driver, peer, AskProof, 30, 30)
    assert proof == Proof(1, ())
    driver.append(LOG, events(30, 31))
    (proof,) = ask(driver, peer, AskProof, 30, 31)
    assert len(proof.hashes) == 5


def test_what_no_peer_would_take_is_the_callers_fault(driver):
    """A wrong name is told and leaves nothing behind."""
    with pytest.raises(PublicationError):
        driver.append("Bad Name", [b"x"])
    assert driver.database.logs() == ()


def test_a_peer_that_does_not_keep_up_gets_no_more_leaves(driver, peer):
    """It is told that they are not at hand, and asks again later."""
    driver.append(LOG, events(0, 30))
    peer.waiting_bytes = LEAVES_QUEUE_BYTES + 1
    assert ask(driver, peer, AskLeaves, 0, 30) == [Leaves(1, 0, (), (), (), True)]
    peer.waiting_bytes = LEAVES_QUEUE_BYTES
    assert len(ask(driver, peer, AskLeaves, 0, 30)[0].leaves) == 30


def test_a_disk_that_cannot_be_read_gives_nothing_and_is_told(driver, peer):
    """The peer asks somebody else; the operator reads why."""
    driver.append(LOG, events(0, 30))
    driver.database.fails = True
    assert ask(driver, peer, AskLeaves, 0, 30) == [Leaves(1, 0, (), (), (), True)]
    assert "cannot be read" in driver.storage_error
    assert isinstance(ask(driver, peer, AskProof, 5, 30)[0], Proof)
    driver.database.fails = False
    driver.clock.advance(PERSIST_AGAIN_S)
    assert driver.storage_error == ""


def test_events_that_the_disk_did_not_take_are_not_appended(driver, peer):
    """The caller hears it; when the disk works again the log goes on from what is there, under a new birth."""
    driver.append(LOG, events(0, 5))
    born = own_ref(driver).born
    driver.database.fails = True
    with pytest.raises(StorageError, match="disk is full"):
        driver.append(LOG, events(5, 9))
    with pytest.raises(StorageError, match="disk is full"):
        driver.append(LOG, events(5, 9))
    driver.database.fails = False
    driver.clock.advance(PERSIST_AGAIN_S)
    assert (driver.storage_error, own_ref(driver).size) == ("", 5)
    assert own_ref(driver).born > born
    assert driver.database.fact("epoch") == own_ref(driver).born
    driver.append(LOG, events(5, 9))
    assert driver.database.leaves(OWN, LOG, 0, 9, 10**6) == events(0, 9)
    assert ask(driver, peer, AskLeaves, 5, 9)[0].leaves == tuple(events(5, 9))


def test_a_proof_reads_its_block_whole(driver, peer, monkeypatch):
    """Whatever its leaves weigh: a proof of large leaves is as small as another."""
    driver.append(LOG, [bytes([1 + number % 250]) * 4096 for number in range(700)])
    orders = []
    read = driver._read
    monkeypatch.setattr(driver, "_read", lambda order, to: orders.append(order) or read(order, to))
    driver.append(LOG, [b"x"])
    (proof,) = ask(driver, peer, AskProof, 700, 701)
    assert isinstance(orders[0], SendProof)
    assert proof.hashes != ()
