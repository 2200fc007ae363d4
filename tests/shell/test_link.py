"""One connection as a stream of messages: deadlines, back-pressure, the way up and the way down (net.link)."""

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.framing import FrameBuffer, frame
from esgf_gossip.core.limits import HANDSHAKE_S, SEND_QUEUE_BYTES
from esgf_gossip.core.messages import Announce, Bodies, Goodbye, Ping, Pong
from esgf_gossip.core.model import Link
from esgf_gossip.net import link as link_module
from esgf_gossip.net.intake import FRAMES_A_TURN
from esgf_gossip.net.link import CLOSE_S, LinkConnection
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.tls import PeerIdentity
from helpers.bench import a_line

PEER = PeerIdentity("b.example.org", "fed.example.org", (), (), b"", 0)
# What a socket takes before it asks its producer to pause, as Twisted's own does.
SOCKET_BYTES = 64 * 1024


class Tls(StringTransport):
    """TLS over a socket whose other end reads only when told to."""

    aborting = False
    negotiatedProtocol = b"esgf-gossip/1"

    def abortConnection(self):
        """Note it."""
        self.aborting = True

    def resumeProducing(self):
        """Read again; as a real one, bear it on the way down."""
        if not self.disconnecting:
            super().resumeProducing()

    def __init__(self):
        super().__init__()
        self.unread_bytes = 0

    def write(self, data):
        """Take bytes; ask the producer to pause once the socket is full."""
        super().write(data)
        self.unread_bytes += len(data)
        if self.producer is not None and self.unread_bytes > SOCKET_BYTES:
            self.producer.pauseProducing()

    def read_all(self):
        """Let the peer read."""
        self.unread_bytes = 0
        if self.producer is not None:
            self.producer.resumeProducing()


class Owner:
    """A LinkOwner that notes what it is told."""

    def __init__(self):
        self.story = []
        self.when_told = lambda: None

    def link_up(self, connection, identity):
        """Note a link."""
        self.story.append(("up", identity.host))
        return Link(1)

    def link_message(self, link, message):
        """Note a message."""
        self.story.append(("message", message))
        self.when_told()

    def link_garbled(self, link, error):
        """Note garbage."""
        self.story.append(("garbled", str(error)))

    def link_down(self, link, reason):
        """Note an end."""
        self.story.append(("down", reason))

    def link_refused(self, connection, reason):
        """Note a refusal."""
        self.story.append(("refused", reason))


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """Who TLS says is at the other end; a test puts a TrustError here."""
    answer = {"is": PEER}

    def peer_identity(_transport):
        if isinstance(answer["is"], Exception):
            raise answer["is"]
        return answer["is"]

    monkeypatch.setattr(link_module, "peer_identity", peer_identity)
    return answer


def _connection(dialled=None):
    owner, clock, tls = Owner(), Clock(), Tls()
    connection = LinkConnection(owner, clock, dialled)
    connection.makeConnection(tls)
    return connection, owner, clock, tls


def _linked():
    connection, owner, clock, tls = _connection()
    connection.handshakeCompleted()
    owner.story.clear()
    return connection, owner, clock, tls


def _messages(tls):
    return [decode(payload) for payload in FrameBuffer().feed(tls.value())]


def test_a_server_is_up_when_the_handshake_is_done():
    """TLS has judged the client by then; no deadline is left over."""
    connection, owner, clock, _ = _connection()
    connection.handshakeCompleted()
    assert owner.story == [("up", "b.example.org")]
    assert clock.getDelayedCalls() == []


def test_a_client_is_up_with_the_first_byte_of_the_server():
    """In TLS 1.3 a client's own handshake is done before the server has judged its certificate."""
    connection, owner, clock, _ = _connection(("b.example.org", 1))
    connection.handshakeCompleted()
    assert owner.story == []
    connection.dataReceived(frame(encode(Ping(1, 2))))
    assert owner.story == [("up", "b.example.org"), ("message", Ping(1, 2))]
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("dialled", "reason"), [(None, "no TLS handshake in time"), (("b", 1), "no admission in time")]
)
def test_a_peer_that_stalls_is_dropped_at_the_deadline(dialled, reason):
    """Half a handshake, or an admission that never comes, holds a connection no longer than the deadline."""
    connection, owner, clock, tls = _connection(dialled)
    clock.advance(HANDSHAKE_S)
    assert tls.aborting
    connection.connectionLost(Failure(ConnectionLost()))
    assert owner.story == [("refused", reason)]


def test_a_certificate_without_a_name_never_comes_up(identity):
    """What trust cannot read is refused with trust's own words, whatever comes after."""
    identity["is"] = TrustError("E-PEER", "the peer sent no certificate")
    connection, owner, clock, tls = _connection()
    connection.handshakeCompleted()
    connection.dataReceived(frame(encode(Ping(1, 2))))
    connection.connectionLost(Failure(ConnectionLost()))
    assert tls.aborting
    assert owner.story == [("refused", "E-PEER: the peer sent no certificate")]
    assert clock.getDelayedCalls() == []


def test_messages_are_cut_out_of_any_pieces():
    """One byte at a time or all at once, the owner hears the same."""
    data = frame(encode(Ping(1, 2))) + frame(encode(Pong(3, 4)))
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        connection, owner, _, _ = _linked()
        for piece in pieces:
            connection.dataReceived(piece)
        assert owner.story == [("message", Ping(1, 2)), ("message", Pong(3, 4))]


def test_garbage_is_told_after_what_was_good():
    """The messages before it count; the stream is lost with it."""
    connection, owner, _, _ = _linked()
    connection.dataReceived(frame(encode(Ping(1, 2))) + b"\xff\xff\xff\xff")
    assert owner.story[0] == ("message", Ping(1, 2))
    assert owner.story[1:] == [("garbled", "a frame of 4294967295 bytes is out of bounds (1 to 131072)")]


def test_nothing_is_delivered_once_the_owner_has_closed():
    """Messages that came in the same packet as the one that ended the link mean nothing."""
    connection, owner, _, _ = _linked()
    owner.when_told = lambda: connection.close("enough")
    connection.dataReceived(frame(encode(Ping(1, 2))) * 3)
    assert owner.story == [("message", Ping(1, 2))]


def test_what_the_peer_does_not_read_waits_and_keeps_its_order():
    """The queue begins where the socket is full and empties as the peer reads."""
    connection, _, _, tls = _linked()
    for number in range(8):
        connection.send(Bodies(number, (b"x" * 50_000,), is_last=True))
    assert len(_messages(tls)) == 2
    for _ in range(4):
        tls.read_all()
    assert [message.request for message in _messages(tls)] == list(range(8))


def test_a_peer_that_never_reads_is_dropped_at_the_bound():
    """Memory for one peer is bounded, and the log says why the link ended."""
    connection, owner, _, tls = _linked()
    sent_bytes = 0
    while not tls.aborting:
        assert sent_bytes < SEND_QUEUE_BYTES + 4 * SOCKET_BYTES
        connection.send(Bodies(1, (b"x" * 60_000,), is_last=True))
        sent_bytes += 60_000
    connection.send(Ping(1, 2))
    connection.connectionLost(Failure(ConnectionLost()))
    ((kind, reason),) = owner.story
    assert kind == "down"
    assert reason.startswith("the peer reads too slowly (")


def test_a_goodbye_reaches_a_slow_reader_after_all_that_waited():
    """Closing cuts nothing off: a socket that is full must not swallow the reason of the end."""
    connection, _, _, tls = _linked()
    for number in range(8):
        connection.send(Bodies(number, (b"x" * 50_000,), is_last=True))
    connection.send(Goodbye(1, 30, "this node stops"))
    connection.close("this node stops")
    assert _messages(tls)[-1] == Goodbye(1, 30, "this node stops")
    assert tls.disconnecting
    assert not tls.aborting


def test_a_peer_that_does_not_answer_the_close_is_cut_off():
    """A close waits for the peer so long and no longer; the owner hears its own reason."""
    connection, owner, clock, tls = _linked()
    connection.close("not needed any more")
    connection.close("again")
    clock.advance(CLOSE_S)
    assert tls.aborting
    ended = connection.closed()
    connection.connectionLost(Failure(ConnectionLost()))
    assert owner.story == [("down", "not needed any more")]
    assert ended.called
    assert clock.getDelayedCalls() == []


def test_a_connection_is_unsettled_on_its_way_up_and_down():
    """It counts as a stranger until its first message, and again from the close until it is aborted or over."""
    connection, _, _, _ = _connection()
    seen = [connection.is_unsettled]
    connection.handshakeCompleted()
    seen.append(connection.is_unsettled)
    connection.dataReceived(frame(encode(Ping(1, 2))))
    seen.append(connection.is_unsettled)
    connection.close("enough")
    seen.append(connection.is_unsettled)
    connection.abort("at once")
    seen.append(connection.is_unsettled)
    assert seen == [True, True, False, True, False]


def test_an_abort_after_the_end_is_nothing():
    """Who cleans up need not know whether the connection was faster."""
    connection, owner, _, tls = _linked()
    connection.connectionLost(Failure(ConnectionLost()))
    connection.abort("at once")
    assert not tls.aborting
    assert owner.story == [("down", "the connection was lost")]
    assert connection.closed().called


# ----------------------------------------------------------------- a flood, a sleeper, a fault

FLOOD = frame(encode(Ping(1, 2))) * (2 * FRAMES_A_TURN)


def test_a_flood_is_dealt_with_in_turns():
    """One chunk of thousands of messages does not hold up the others; none is lost, and reading goes on."""
    connection, owner, clock, tls = _linked()
    connection.dataReceived(FLOOD)
    assert len(owner.story) == FRAMES_A_TURN
    assert tls.producerState == "paused"
    clock.advance(0)
    assert len(owner.story) == 2 * FRAMES_A_TURN
    assert tls.producerState == "producing"
    assert clock.getDelayedCalls() == []


def test_an_end_is_told_after_what_came_before_it():
    """The goodbye behind a burst is heard though the connection is gone by then."""
    connection, owner, clock, _ = _linked()
    connection.dataReceived(FLOOD + frame(encode(Goodbye(1, 30, "bye"))))
    connection.connectionLost(Failure(ConnectionLost()))
    ended = connection.closed()
    assert connection.is_over
    assert not ended.called
    connection.send(Ping(3, 4))
    clock.advance(0)
    assert owner.story[-2:] == [("message", Goodbye(1, 30, "bye")), ("down", "the connection was lost")]
    assert ended.called


def test_a_close_after_the_end_is_the_end():
    """What is left of a connection that is gone is not delivered once the owner has closed it."""
    connection, owner, clock, _ = _linked()
    connection.dataReceived(FLOOD)
    connection.connectionLost(Failure(ConnectionLost()))
    connection.close("enough")
    clock.advance(0)
    assert len(owner.story) == FRAMES_A_TURN + 1
    assert owner.story[-1] == ("down", "the connection was lost")
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("later", [False, True])
def test_a_fault_of_the_owner_ends_the_link_and_is_raised(later):
    """In whatever turn it happens, a connection whose owner fails does not stay behind mute."""
    connection, owner, clock, tls = _linked()

    def fail():
        if len(owner.story) == (FRAMES_A_TURN + 1 if later else 1):
            raise ZeroDivisionError

    owner.when_told = fail
    if later:
        connection.dataReceived(FLOOD)
        with pytest.raises(ZeroDivisionError):
            clock.advance(0)
    else:
        with pytest.raises(ZeroDivisionError):
            connection.dataReceived(FLOOD)
    assert tls.aborting
    connection.connectionLost(Failure(ConnectionLost()))
    assert owner.story[-1] == ("down", "a fault of this daemon, see its log")
    assert clock.getDelayedCalls() == []


def test_a_peer_that_sleeps_costs_heads_and_hears_the_newest():
    """Ten thousand announcements to a peer that does not read are one when it does."""
    connection, _, _, tls = _linked()
    connection.send(Bodies(1, (b"x" * SOCKET_BYTES,), is_last=True))
    for number in range(1, 10_001):
        connection.send(Announce((a_line("x.example.org").head,)))
        connection.send(Ping(number, 1))
    assert not tls.aborting
    tls.read_all()
    assert _messages(tls)[1:] == [Announce((a_line("x.example.org").head,)), Ping(10_000, 1)]


def test_reading_goes_on_while_nothing_can_be_written():
    """Two ends that each wait for the other to read would wait for ever: a full outbox stops no reading."""
    connection, owner, _, tls = _linked()
    connection.send(Bodies(1, (b"x" * SOCKET_BYTES,), is_last=True))
    connection.send(Bodies(2, (b"x" * SOCKET_BYTES,), is_last=True))
    connection.dataReceived(frame(encode(Ping(1, 2))))
    assert owner.story == [("message", Ping(1, 2))]
    assert tls.producerState == "producing"


def test_a_pause_ends_by_itself():
    """The core may have a link read later, never not at all."""
    connection, owner, clock, tls = _linked()
    connection.pause_reading(0.5)
    assert tls.producerState == "paused"
    connection.dataReceived(frame(encode(Ping(1, 2))))
    assert owner.story == []
    clock.advance(0.5)
    assert owner.story == [("message", Ping(1, 2))]
    assert tls.producerState == "producing"
