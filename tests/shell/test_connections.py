"""Listening and dialling without a network: who is let to the door, what becomes of a dial (net.connections)."""

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.test import iosim

from esgf_gossip.core.limits import HANDSHAKE_CROWDED_S, HANDSHAKE_S, PENDING_HANDSHAKES
from esgf_gossip.core.messages import Ping
from esgf_gossip.core.model import Link
from esgf_gossip.net.connections import TOO_MANY, Connections
from esgf_gossip.trust.tls import ConnectionCreator
from helpers.trust import a_federation

SERVER = ("127.0.0.1", 8951)


class Socket(StringTransport):
    """A TCP connection from an address of choice."""

    aborting = False

    def abortConnection(self):
        """Note it."""
        self.aborting = True


class Driver:
    """What Connections asks of a driver; notes what it is told."""

    def __init__(self):
        self.story = []
        self.links = []
        self.dial = None

    def link_up(self, connection, identity):
        """Note a link; a server speaks first."""
        self.story.append(("up", identity.host))
        self.links.append(connection)
        connection.link = Link(len(self.links))
        if connection.dialled is None:
            connection.send(Ping(1, 2))
        return connection.link

    def link_message(self, link, message):
        """Note a message."""
        self.story.append(("message", message))

    def link_down(self, link, reason):
        """Note an end."""
        self.story.append(("down", reason))

    def link_refused(self, connection, reason):
        """Note a refusal."""
        self.story.append(("refused", connection.remote_host, reason))

    def refused(self, remote, reason):
        """Note somebody who did not get as far as a connection."""
        self.story.append(("turned away", remote, reason))

    def dial_failed(self, address, reason):
        """Note a dial."""
        self.story.append(("dial failed", address, reason))


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A federation of two nodes."""
    return a_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def make(federation):
    """Make the Connections of a node, its driver and its reactor."""

    def made(host="server.example.org"):
        reactor, driver = MemoryReactorClock(), Driver()
        creator = ConnectionCreator(federation.material(host), lambda: federation.now_ms)
        connections = Connections(driver, creator, reactor)
        connections.listen(SERVER)
        return connections, driver, reactor

    return made


def _knock(reactor, host, number=1):
    """Connect as Twisted's port does; None where nobody opened."""
    address = IPv4Address("TCP", host, number)
    protocol = reactor.tcpServers[0][1].buildProtocol(address)
    if protocol is None:
        return None
    transport = Socket(peerAddress=address)
    protocol.makeConnection(transport)
    return transport


def test_an_address_that_stalls_makes_room_itself(make):
    """Of too many strangers the oldest of the most crowded address goes; others are not kept out."""
    _, _, reactor = make()
    flood = [_knock(reactor, "192.0.2.1", number) for number in range(PENDING_HANDSHAKES)]
    assert not any(transport.aborting for transport in flood)
    honest = _knock(reactor, "192.0.2.2")
    assert [transport.aborting for transport in flood[:2]] == [True, False]
    more = [_knock(reactor, "192.0.2.1", number) for number in range(100)]
    assert not honest.aborting
    held = [transport for transport in (*flood, *more) if not transport.aborting]
    assert len(held) == PENDING_HANDSHAKES - 1


def test_a_crowd_of_distinct_addresses_finishes_before_others_begin(make):
    """Where everybody comes at once, the newcomer waits: turning out the oldest would let nobody in."""
    _, driver, reactor = make()
    crowd = [_knock(reactor, f"192.0.2.{number}") for number in range(PENDING_HANDSHAKES)]
    assert _knock(reactor, "198.51.100.1") is None
    assert not any(transport.aborting for transport in crowd)
    assert driver.story == [("turned away", "198.51.100.1", TOO_MANY)]


def test_a_crowd_that_stalls_makes_room_one_by_one(make):
    """Whoever has had time enough for a handshake gives way to the next, the oldest first."""
    _, driver, reactor = make()
    crowd = [_knock(reactor, f"192.0.2.{number}") for number in range(PENDING_HANDSHAKES)]
    reactor.advance(HANDSHAKE_CROWDED_S - 0.01)
    assert _knock(reactor, "198.51.100.1") is None
    reactor.advance(0.01)
    assert _knock(reactor, "198.51.100.2") is not None
    assert _knock(reactor, "198.51.100.3") is not None
    assert [transport.aborting for transport in crowd] == [True, True] + [False] * (len(crowd) - 2)
    assert driver.story == [("turned away", "198.51.100.1", TOO_MANY)]


def test_the_door_opens_again_after_the_deadline(make):
    """Stalled strangers are gone after the handshake's time, and leave no timer behind."""
    _, driver, reactor = make()
    for number in range(PENDING_HANDSHAKES):
        _knock(reactor, f"192.0.2.{number}")
    reactor.advance(HANDSHAKE_S)
    assert _knock(reactor, "198.51.100.1") is not None
    assert [delayed.getTime() - reactor.seconds() for delayed in reactor.getDelayedCalls()] == [HANDSHAKE_S]
    assert driver.story == []


def test_a_link_is_a_stranger_until_it_has_spoken(make):
    """Over real TLS: the server is up after the handshake and settled with the first message of its peer."""
    _, driver, reactor = make()
    client_side, client_driver, client_reactor = _dialled(make, "client.example.org")
    server_side = reactor.tcpServers[0][1].buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
    pump = _connect(server_side, client_side)
    _talk(pump, reactor, client_reactor)
    assert (driver.story, client_driver.story) == (
        [("up", "client.example.org")],
        [("up", "server.example.org"), ("message", Ping(1, 2))],
    )
    (server_link,), (client_link,) = driver.links, client_driver.links
    assert server_link.is_unsettled
    client_link.send(Ping(3, 4))
    _talk(pump, reactor, client_reactor)
    assert driver.story[1:] == [("message", Ping(3, 4))]
    assert not server_link.is_unsettled
    server_link.close("enough")
    _talk(pump, reactor, client_reactor)
    assert (driver.story[-1], client_driver.story[-1]) == (
        ("down", "enough"),
        ("down", "the peer closed the connection"),
    )
    assert reactor.getDelayedCalls() == []


def _dialled(make, host):
    connections, driver, reactor = make(host)
    connections.dial(("127.0.0.1", 1))
    (_, _, factory, *_), *_ = reactor.tcpClients
    return factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)), driver, reactor


def _connect(server_side, client_side):
    return iosim.connect(
        server_side,
        iosim.FakeTransport(server_side, isServer=True),
        client_side,
        iosim.FakeTransport(client_side, isServer=False),
    )


def _talk(pump, *reactors):
    # Twisted holds small writes back until the next turn of a reactor.
    for _ in range(4):
        pump.flush()
        for reactor in reactors:
            reactor.advance(0)


def test_a_dial_that_is_refused_is_told_with_its_reason(make):
    """The driver hears of every dial, one way or the other."""
    connections, driver, reactor = make()
    connections.dial(("127.0.0.1", 1))
    factory = reactor.tcpClients[0][2]
    factory.clientConnectionFailed(None, Failure(RefusedError()))
    reactor.advance(1)
    assert driver.story == [("dial failed", ("127.0.0.1", 1), "Connection was refused by other side")]
    assert driver.dial == connections.dial


def test_stopping_ends_dials_and_strangers(make):
    """A stop waits for nobody who is not up, and closes the port."""
    connections, driver, reactor = make()
    stranger = _knock(reactor, "192.0.2.1")
    connections.dial(("127.0.0.1", 1))
    connections.stop()
    assert stranger.aborting
    assert driver.story == [("dial failed", ("127.0.0.1", 1), "cancelled")]
