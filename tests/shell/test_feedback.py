"""esgf-feedback/1 over real TLS on loopback: matches reach the home node that was meant, and nobody else; hostile peers."""

from __future__ import annotations

from random import Random

import pytest
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from esgf_gossip.core.framing import frame
from esgf_gossip.core.limits import FRAME_BYTES
from esgf_gossip.core.packing import pack
from esgf_gossip.net import feedback, link
from esgf_gossip.net.connections import Connections
from esgf_gossip.net.feedback import CONNECTIONS_PER_PEER, FeedbackDialler, FeedbackHost
from esgf_gossip.storage.journal_thread import JournalThread
from esgf_gossip.tracking.changes import add_change
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.feedback_messages import Answer, Question, Verdict, decode_answer, encode_question
from esgf_gossip.tracking.homes import Homes
from esgf_gossip.tracking.homeward import DeliveryError, Homeward, receive
from esgf_gossip.tracking.homeward_rows import waiting
from esgf_gossip.trust.sealed_values import SealedValues
from esgf_gossip.trust.tls import ALPN_FEEDBACK, ConnectionCreator
from helpers.home_nodes import SCRIPTS, a_change, a_match, take, user
from helpers.trust import a_federation
from helpers.turning import turned, turned_until

HOME, SENDER, OTHER = "h.example.org", "b.example.org", "x.example.org"
CHANGE = a_change()
MATCHES = tuple(a_match(CHANGE, user(name), files=3) for name in ("ann", "bob"))
QUESTION = frame(encode_question(Question(CHANGE.key, MATCHES)))


class Driver:
    """What Connections asks of a driver; hands feedback on and notes refusals."""

    def __init__(self):
        self.dial = None
        self.hears = lambda *_: None
        self.refusals = []

    def feedback(self, connection, identity):
        """Hand it on, as the real driver does."""
        return self.hears(connection, identity)

    def link_up(self, connection, identity):
        """Gossip is not spoken here."""
        raise AssertionError

    def link_refused(self, connection, reason):
        """Note who was not let in."""
        self.refusals.append(reason)

    def refused(self, remote, reason, counted_as=""):
        """Note who did not get to the door."""
        self.refusals.append(reason)


class Node:
    """One node that listens on loopback: ``taken`` are the questions it was brought, and by whom."""

    def __init__(self, federation, host):
        self.driver = Driver()
        self.creator = ConnectionCreator(federation.material(host), lambda: federation.now_ms)
        self.connections = Connections(self.driver, self.creator, reactor)
        self.connections.listen(("127.0.0.1", 0))
        self.port = self.connections._port.getHost().port
        self.taken = []
        self.answers = lambda: succeed(Answer(Verdict.TAKEN))
        self.host = FeedbackHost(self._take, reactor)
        self.driver.hears = self.host.receive
        self.contacts = {}
        self.dialler = FeedbackDialler(self.connections, self.contacts.get, reactor)

    def _take(self, from_node, question):
        self.taken.append((from_node, question))
        return self.answers()

    def knows(self, host, port):
        """Note where another is dialled."""
        self.contacts[host] = ("127.0.0.1", port)

    def send(self, home=HOME):
        """Bring the matches; return the answer."""
        return turned(self.dialler.send(home, CHANGE.key, MATCHES))

    def say(self, address, data):
        """Say bytes by esgf-feedback/1, whatever they are; return what comes back until the end."""
        talk = Talk(data)
        self.connections.ask(address, lambda: talk, talk.ended.errback)
        return talk


class Talk(Protocol):
    """A peer that says what a test wants as soon as it can."""

    def __init__(self, data):
        self.data, self.received, self.ended = data, b"", Deferred()

    def connectionMade(self):
        if self.data:
            self.transport.write(self.data)

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.ended.callback(self.received)


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """A federation of three nodes."""
    return a_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def make(federation):
    """Make nodes that are stopped in the end."""
    made = []

    def node(host, of=federation):
        made.append(Node(of, host))
        return made[-1]

    yield node
    for one in made:
        turned(one.connections.stop() or succeed(None))
    turned_until(lambda: not _ours(), "every connection ends")


def _ours():
    return [one for one in reactor.getReaders() if type(one).__name__ in ("Server", "Client")]


@pytest.fixture
def pair(make):
    """A home node and one that brings matches to it."""
    home, sender = make(HOME), make(SENDER)
    sender.knows(HOME, home.port)
    return home, sender


def test_matches_reach_the_home_and_are_answered_for(pair):
    """The home hears whose they are by the certificate; the answer comes once they are taken, not before."""
    home, sender = pair
    taking = Deferred()
    home.answers = lambda: taking
    answers = []
    sender.dialler.send(HOME, CHANGE.key, MATCHES).addCallback(answers.append)
    turned_until(lambda: home.taken, "the question arrives")
    assert answers == []
    taking.callback(Answer(Verdict.TAKEN, (1,)))
    turned_until(lambda: answers, "the answer arrives")
    assert answers == [Answer(Verdict.TAKEN, (1,))]
    assert home.taken == [(SENDER, Question(CHANGE.key, MATCHES))]
    assert home.host.questions == {"taken": 1}


def test_whoever_answers_in_the_homes_place_hears_nothing(make):
    """A member at the address of the home, with a good certificate of its own: not one byte of the question reaches it."""
    other, sender = make(OTHER), make(SENDER)
    sender.knows(HOME, other.port)
    with pytest.raises(DeliveryError, match=f"^{OTHER} answers in its place$"):
        sender.send()
    assert other.taken == []
    assert other.host.questions == {}


def test_revoked_members_neither_bring_nor_take(tmp_path, make):
    """A sender on the list is not heard; a home on the list is told nothing."""
    federation = a_federation(tmp_path)
    good, revoked = make(HOME, federation), make(SENDER, federation)
    federation.revoke([federation.serial(SENDER)], HOME)
    good.creator.replace(federation.material(HOME))
    revoked.knows(HOME, good.port)
    good.knows(SENDER, revoked.port)
    with pytest.raises(DeliveryError, match="our certificate is revoked"):
        revoked.send()
    with pytest.raises(DeliveryError, match="certificate revoked"):
        good.send(SENDER)
    assert (good.taken, revoked.taken) == ([], [])


def test_other_federations_and_strangers_are_not_heard(tmp_path, make, pair):
    """Without a member's certificate nobody brings anything, though the protocol is the right one."""
    home, _ = pair
    foreign = make(SENDER, a_federation(tmp_path, "elsewhere.example.org"))
    foreign.knows(HOME, home.port)
    with pytest.raises(DeliveryError):
        foreign.send()
    talk = Talk(QUESTION)
    foreign.creator = foreign.connections._creator = _WithoutCertificate()
    foreign.connections.ask(("127.0.0.1", home.port), lambda: talk, talk.ended.errback)
    assert turned(talk.ended) == b""
    assert home.taken == []
    assert "the peer sent no certificate" in home.driver.refusals


@implementer(IOpenSSLClientConnectionCreator)
class _WithoutCertificate:
    """A client that shows nothing and believes everything."""

    @property
    def for_feedback(self):
        return self

    def clientConnectionForTLS(self, protocol):
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_alpn_protos([ALPN_FEEDBACK])
        return SSL.Connection(context, None)


def test_a_node_that_takes_no_feedback_says_so(pair):
    """Tracking is off there: the sender keeps what it has."""
    home, sender = pair
    home.driver.hears = lambda *_: None
    with pytest.raises(DeliveryError):
        sender.send()
    assert home.driver.refusals == ["no feedback is taken here, or too much of it at once"]


def test_who_cannot_be_dialled_is_a_line(pair):
    """No contact, port 0, nobody at the port: each a reason, without a user in it."""
    _, sender = pair
    for contact, says in ((None, "cannot be dialled"), (0, "cannot be dialled"), (1, "refused")):
        sender.contacts.pop(HOME)
        if contact is not None:
            sender.knows(HOME, contact)
        with pytest.raises(DeliveryError, match=says) as caught:
            sender.send()
        assert "openid" not in str(caught.value)
        sender.contacts.setdefault(HOME, None)


BAD = {
    "garbage": b"\xff" * 64,
    "a request of the web": b"GET / HTTP/1.1\r\n\r\n",
    "a frame out of bounds": (FRAME_BYTES + 1).to_bytes(4, "big"),
    "an empty frame": b"\0\0\0\0",
    "not msgpack": frame(b"\xc1"),
    "another message": frame(pack([2, 1, []])),
    "no match": frame(pack([1, CHANGE.key, []])),
    "too many matches": frame(pack([1, CHANGE.key, [1] * 201])),
    "no key": frame(pack([1, b"short", [1]])),
    "no openid": frame(pack([1, CHANGE.key, [["<no-id>", [], 0, [], 0, 0]]])),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_question_ends_the_connection(pair, kind):
    """Nothing is taken, nothing is answered, the next one is heard."""
    home, sender = pair
    assert turned(sender.say(("127.0.0.1", home.port), BAD[kind]).ended) == b""
    assert home.taken == []
    assert sender.send() == Answer(Verdict.TAKEN)


def test_one_question_a_connection(pair):
    """What follows the first is not heard; byte by byte is as good as whole."""
    home, sender = pair
    talk = sender.say(("127.0.0.1", home.port), QUESTION + QUESTION)
    assert decode_answer(turned(talk.ended)[4:]) == Answer(Verdict.TAKEN)
    talk = sender.say(("127.0.0.1", home.port), b"")
    turned_until(lambda: talk.transport is not None, "the connection is made")
    for one in QUESTION:
        talk.transport.write(bytes([one]))
    assert decode_answer(turned(talk.ended)[4:]) == Answer(Verdict.TAKEN)
    assert len(home.taken) == 2


def test_who_says_nothing_is_left(pair, monkeypatch):
    """On both sides: half a question, and a home that never answers."""
    monkeypatch.setattr(link, "FEEDBACK_S", 0.4)
    home, sender = pair
    assert turned(sender.say(("127.0.0.1", home.port), QUESTION[:-1]).ended) == b""
    monkeypatch.setattr(link, "FEEDBACK_S", 30.0)
    monkeypatch.setattr(feedback, "FEEDBACK_S", 0.4)
    home.answers = Deferred
    with pytest.raises(DeliveryError, match="no answer within"):
        sender.send()


def test_an_answer_that_is_none_counts_for_nothing(pair, monkeypatch):
    """Garbage, an end without an answer, a verdict of a later version: the sender keeps what it has, or asks again."""
    home, sender = pair
    for answer in (b"\xff" * 8, frame(b"\xc1"), frame(pack([2, 1, [200]])), b""):
        monkeypatch.setattr(
            feedback._Ear, "_say", lambda self, _, a=answer: (self._write(a), self._close("x"))
        )
        with pytest.raises(DeliveryError):
            sender.send()
    later = frame(pack([2, 77, [], "more"]))
    monkeypatch.setattr(feedback._Ear, "_say", lambda self, _: (self._write(later), self._close("x")))
    assert sender.send() == Answer(Verdict.BUSY)
    assert len(home.taken) == 5


def test_a_home_whose_disk_fails_answers_busy(pair, log):
    """What went wrong is told to the log by its kind alone: its text could name a user."""
    home, sender = pair

    def fails():
        raise OSError("INSERT ... https://h.example.org/openid/ann")

    home.answers = fails
    assert sender.send() == Answer(Verdict.BUSY)
    assert log == []
    home.answers = lambda: succeed(Answer(Verdict.UNKNOWN_CHANGE))
    assert sender.send() == Answer(Verdict.UNKNOWN_CHANGE)


def test_one_member_holds_few_connections(pair):
    """More than its number are refused at once; those that wait still get their answers."""
    home, sender = pair
    taking = []
    home.answers = lambda: taking.append(Deferred()) or taking[-1]
    held = [sender.say(("127.0.0.1", home.port), QUESTION) for _ in range(CONNECTIONS_PER_PEER)]
    turned_until(lambda: len(home.taken) == CONNECTIONS_PER_PEER, "all wait")
    assert turned(sender.say(("127.0.0.1", home.port), QUESTION).ended) == b""
    for one in taking:
        one.callback(Answer(Verdict.TAKEN))
    assert all(turned(gatherResults([one.ended for one in held])))
    home.answers = lambda: succeed(Answer(Verdict.TAKEN))
    turned_until(lambda: not home.host._open, "they are over")
    assert sender.send() == Answer(Verdict.TAKEN)


def test_quotas_of_questions_and_users(monkeypatch):
    """Of one member so many at once and a second, so many users; beyond it is told to come again, others are not."""
    clock, taken = Clock(), []
    monkeypatch.setattr(feedback, "USERS_AT_ONCE", 150)
    host = FeedbackHost(lambda *said: taken.append(said) or succeed(Answer(Verdict.TAKEN)), clock)
    payload = QUESTION[4:]

    def verdicts(who, number):
        found = []
        for _ in range(number):
            host.answer(who, payload).addCallback(lambda answer: found.append(answer.verdict))
        return found

    first = verdicts(SENDER, feedback.QUESTIONS_AT_ONCE + 5)
    assert first == [Verdict.TAKEN] * feedback.QUESTIONS_AT_ONCE + [Verdict.BUSY] * 5
    assert verdicts(OTHER, 1) == [Verdict.TAKEN]
    clock.advance(1.0)
    assert verdicts(SENDER, 6) == [Verdict.TAKEN] * 5 + [Verdict.BUSY]
    for _ in range(20):
        clock.advance(1.0)
        verdicts(SENDER, 5)
    clock.advance(1.0)
    assert Verdict.BUSY in verdicts(SENDER, 5)
    assert 2 * len(taken) < 150 + 22 * feedback.USERS_PER_HOUR / 3600 + 20


def test_a_home_that_is_busy_takes_no_more_at_once(monkeypatch):
    """All members together: what is being written is bounded."""
    host = FeedbackHost(lambda *_: Deferred(), Clock())
    found = []
    for number in range(feedback.QUESTIONS_TAKEN + 2):
        host.answer(f"n{number}.example.org", QUESTION[4:]).addCallback(found.append)
    assert found == [Answer(Verdict.BUSY)] * 2


def test_from_the_one_disk_to_the_other(pair, tmp_path):
    """As a daemon has it: rows in the tracker's threads, deliveries by timers, TLS between; then no row is left and one notice is."""
    home, sender = pair
    databases = {
        one: TrackingDatabase(tmp_path / f"{one}.db", SCRIPTS, JournalThread(reactor))
        for one in (HOME, SENDER)
    }
    nodes = {one: one for one in (HOME, SENDER)}
    for database in databases.values():
        database.now(add_change, CHANGE, 1)

    def taker(from_node, question):
        is_ours = Homes(HOME, nodes, {}).is_ours
        return databases[HOME].run(receive, question, from_node, 1, is_ours=is_ours, take=take)

    home.host._taker = taker
    homeward = Homeward(
        databases[SENDER],
        reactor,
        SealedValues(tmp_path / "tracking.key"),
        homes=lambda: Homes(SENDER, nodes, {}),
        send=sender.dialler.send,
        take=take,
        fallback=None,
        now_ms=lambda: 1,
        max_age_ms=10,
        random=Random(1),
    )
    own = a_match(CHANGE, user("eve", "B"))
    try:
        homeward.start()
        turned(databases[SENDER].run(homeward.enqueue, CHANGE, [*MATCHES, own]))
        homeward.wake()
        turned_until(lambda: homeward.counts["taken"] == 2, "the home has taken both")
        turned_until(
            lambda: not homeward.waiting and not turned(databases[SENDER].run(waiting)), "crossed off"
        )
        question = "SELECT openid, from_node FROM notice ORDER BY openid"
        found = {
            one: turned(databases[one].run(lambda c: c.execute(question).fetchall())) for one in databases
        }
        assert found == {HOME: [(one.openid, SENDER) for one in MATCHES], SENDER: [(own.openid, SENDER)]}
    finally:
        homeward.stop()
        for database in databases.values():
            database.close()
