"""Events by HTTP: who may hand them in, what comes of each body, and that 202 means on the disk."""

from __future__ import annotations

import json
import os

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.server import Site

from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.stac_feed import DOCUMENT_BYTES, EventReader
from esgf_gossip.web import event_post
from esgf_gossip.web.bearer_tokens import BearerTokens, TokensError
from esgf_gossip.web.event_post import EventPost
from helpers.stac import NOW_MS, RETRACT, a_patch, a_post
from helpers.web import parsed

TOKEN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
POST = json.dumps(a_post()).encode()
PATCH = json.dumps(a_patch(RETRACT)).encode()


class Door:
    """The page in a site of its own, with what it hands on."""

    def __init__(self, path):
        self.clock = Clock()
        self.seen = []
        self.answer = succeed
        self.tokens = path / "tokens"
        self.write(f"# of the publisher\n{TOKEN}\n\n{OTHER}\n")
        reader = EventReader("stac", lambda: NOW_MS, self.clock)
        self.page = EventPost(BearerTokens(self.tokens), reader.read, self.see)
        self.site = Site(self.page, reactor=self.clock)

    def see(self, sightings):
        self.seen.append(list(sightings))
        return self.answer(None)

    def write(self, content, mode=0o600):
        """Replace the file of tokens."""
        self.tokens.unlink(missing_ok=True)
        self.tokens.write_text(content)
        self.tokens.chmod(mode)

    def open(self, body=POST, method="POST", **fields):
        """Send a request; return the connection."""
        named = {"Host": "x", "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        named |= {"Content-Length": str(len(body))}
        named |= {name.replace("_", "-"): text for name, text in fields.items()}
        lines = [f"{name}: {text}\r\n" for name, text in named.items() if text is not None]
        protocol, transport = self.site.buildProtocol(None), StringTransportWithDisconnection()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        protocol.dataReceived(f"{method} /events HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body)
        for _ in range(5000):
            self.clock.advance(0)
        return transport

    def ask(self, *args, **kwargs):
        """Send a request; return the answer."""
        return parsed(self.open(*args, **kwargs).value())


@pytest.fixture
def door(tmp_path):
    """A node that takes events from two tokens."""
    return Door(tmp_path)


@pytest.mark.parametrize(
    ("body", "fields", "operations"),
    [
        (POST, {}, ["publish"]),
        (POST, {"Authorization": f"bearer  {OTHER}"}, ["publish"]),
        (b"[" + POST + b"," + PATCH + b"]", {}, ["publish", "retract"]),
        (
            POST + b"\n" + PATCH + b"\n",
            {"Content_Type": "application/x-ndjson; charset=utf-8"},
            ["publish", "retract"],
        ),
    ],
)
def test_events_are_taken(door, body, fields, operations):
    """One, a list, one on each line, in their order, together."""
    answer = door.ask(body, **fields)
    assert (answer.status, answer.json) == (202, {"sightings": len(operations)})
    assert [[one.operation.value for one in batch] for batch in door.seen] == [operations]
    assert door.page.taken == len(operations)


def test_a_message_without_news_is_taken_and_bothers_nobody(door):
    """A change of a title is a good message."""
    body = json.dumps(a_patch([{"op": "replace", "path": "/properties/title", "value": "x"}])).encode()
    assert door.ask(body).status == 202
    assert door.seen == []


def test_202_comes_when_it_is_on_the_disk_and_not_before(door):
    """Whoever hears 202 may forget the event."""
    written = Deferred()
    door.answer = lambda _: written
    transport = door.open()
    assert len(door.seen) == 1
    assert transport.value() == b""
    written.callback(None)
    assert parsed(transport.value()).status == 202


def test_what_is_wrong_is_named_and_nothing_is_taken(door):
    """The third of four is no message."""
    answer = door.ask(b"\n".join([POST, PATCH, b'{"data": 1}', POST]))
    assert answer.status == 400
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.json["detail"] == "message 3: data is a number, not an object; nothing was taken"
    assert (door.seen, door.page.refused) == ([], {400: 1})


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer " + "x" * 2000}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 403),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 403),
        ({"Authorization": "Bearer # of the publisher"}, 403),
        ({"Content_Type": None}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"method": "GET"}, 405),
        ({"method": "PUT"}, 405),
    ],
)
def test_whoever_may_not_is_told_what_is_missing(door, fields, status):
    """No token, a wrong one, something else than messages, another method: a problem document each."""
    answer = door.ask(**fields)
    assert (answer.status, answer.json["status"]) == (status, status)
    assert ("www-authenticate" in answer.fields) == (status == 401)
    assert door.seen == []
    assert TOKEN not in answer.body.decode()


def test_a_body_that_is_too_large_is_413(door):
    """Eight MiB, and not one byte more."""
    assert door.ask(b" " * (DOCUMENT_BYTES + 1)).status == 413
    assert door.ask(POST + b" " * (DOCUMENT_BYTES - len(POST))).status == 202


def test_a_disk_that_says_no_is_503(door, log):
    """The sender keeps the event; the operator reads why."""
    door.answer = lambda _: fail(TrackingError("tracking.db: No space left on device; make room"))
    answer = door.ask()
    assert (answer.status, answer.fields["retry-after"]) == (503, "5")
    assert door.page.taken == 0
    assert "No space left" in log[0]["reason"]
    door.answer = succeed
    assert door.ask().status == 202


def test_a_fault_of_our_own_says_nothing_of_itself(door, log):
    """What went wrong stands in the log."""
    door.answer = lambda _: fail(ValueError("inner secret"))
    answer = door.ask()
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert len(log) == 1


def test_many_at_once_are_asked_to_come_again(door):
    """What waits for the disk is bounded."""
    waiting = []
    door.answer = lambda _: waiting.append(Deferred()) or waiting[-1]
    assert door.page.refuses("192.0.2.1") is None
    transports = [door.open() for _ in range(event_post.AT_ONCE)]
    assert door.ask().status == 503
    assert door.page.refuses("192.0.2.1").status == 503
    for one in waiting:
        one.callback(None)
    assert {parsed(one.value()).status for one in transports} == {202}
    door.answer = succeed
    assert door.ask().status == 202


def test_whoever_hangs_up_disturbs_nobody(door, log):
    """What was read is written all the same, answered to nobody."""
    written = Deferred()
    door.answer = lambda _: written
    door.open().loseConnection()
    written.callback(None)
    assert door.page.taken == 1
    written = Deferred()
    door.answer = lambda _: written
    door.open().loseConnection()
    written.errback(TrackingError("no"))
    assert door.page.refused == {503: 1}
    assert [event["log_format"] for event in log] == ["Events by HTTP were not taken: {reason}"]


def test_a_token_counts_as_long_as_it_stands_in_the_file(door):
    """The file is read anew when it changes, also within the tick of a clock."""
    for _ in range(20):
        door.write(f"{OTHER}\n")
        assert door.ask().status == 403
        door.write(f"{TOKEN}\n")
        assert door.ask().status == 202


def test_a_file_at_rest_is_not_read_again(tmp_path):
    """A look at its stamp is enough."""
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    path.chmod(0o600)
    tokens = BearerTokens(path, lambda: path.stat().st_ctime_ns + 10**10)
    assert tokens.accepts(TOKEN)
    tokens._read = None
    assert tokens.accepts(TOKEN)
    assert not tokens.accepts(OTHER)


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (f"{TOKEN}\n", 0o640, "chmod 600"),
        (f"{TOKEN}\n", 0o604, "chmod 600"),
        (f"{TOKEN}\nshort\n", 0o600, "line 2 is no token"),
        (f"{TOKEN} with a word\n", 0o600, "line 1 is no token"),
        ("#" * 70000, 0o600, "longer than"),
    ],
)
def test_a_file_that_cannot_be_trusted_lets_nobody_in(door, log, content, mode, reason):
    """Also those who were let in before; the log says what to do, once."""
    assert door.ask().status == 202
    door.write(content, mode)
    assert [door.ask().status for _ in range(3)] == [503] * 3
    assert door.page.refuses("192.0.2.1").status == 503
    assert reason in door.page.fault
    assert len(log) == 1
    assert TOKEN not in repr(log) + door.page.fault
    door.write(f"{TOKEN}\n")
    assert door.ask().status == 202
    assert door.page.fault == ""


def test_no_file_and_what_is_none(tmp_path):
    """A name that leads nowhere, a FIFO, a folder."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path, reason in (
        (tmp_path / "no", "No such file"),
        (tmp_path / "fifo", "no file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(TokensError, match=reason):
            BearerTokens(path).check()


def test_an_empty_file_lets_nobody_in(door):
    """There is no token that everybody knows."""
    door.write("# nobody\n")
    assert door.ask().status == 403
    assert door.ask(Authorization="Bearer #").status == 403


def test_what_was_answered_with_202_is_in_the_database(door, tmp_path):
    """With the tracker's own database behind it."""
    script = "CREATE TABLE seen (name TEXT) STRICT"
    database = TrackingDatabase(tmp_path / "tracking.db", {"seen": script}, AtOnce())
    insert = "INSERT INTO seen VALUES (?)"
    names = lambda connection: [row[0] for row in connection.execute("SELECT name FROM seen")]
    door.page._see = lambda found: database.run(
        lambda connection: connection.executemany(insert, [(str(one.dataset),) for one in found])
    )
    assert door.ask().status == 202
    assert len(database.now(names)) == 1
    database.close()
    assert door.ask().status == 503
