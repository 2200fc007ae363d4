"""Bounds of HTTP connections: bad, large, slow and many."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from esgf_gossip.web.connection import FIELDS, HEAD_BYTES, IDLE_S, LINE_BYTES
from esgf_gossip.web.site import CONNECTIONS
from helpers.web import HOST, Client, StubDaemon, a_site, parsed, request

HOST_LINE = f"Host: {HOST}\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def clock():
    """Time that a test moves."""
    return Clock()


@pytest.fixture
def client(clock):
    """A connected client."""
    return Client(a_site(StubDaemon(), clock))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n" + HOST_LINE + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + b"X: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + b"Content-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\n" + HOST_LINE + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + b"Content-Length: 999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\n" + HOST_LINE + b"Content-Length: 65537\r\n\r\nhello", 413),
        (b"PUT / HTTP/1.1\r\n" + HOST_LINE + CHUNKED + b"10001\r\n" + b"a" * 65537 + b"\r\n0\r\n\r\n", 413),
        (b"PUT / HTTP/1.1\r\n" + HOST_LINE + CHUNKED + b"five\r\nhello\r\n", 400),
        (b"GET /" + b"a" * LINE_BYTES + b" HTTP/1.1\r\n" + HOST_LINE + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + b"X: " + b"a" * LINE_BYTES + b"\r\n\r\n", 431),
        (b"a" * (LINE_BYTES + 3), 431),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + b"X: 1\r\n" * FIELDS + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST_LINE + (b"X: " + b"a" * 4000 + b"\r\n") * 5 + b"\r\n", 431),
    ],
)
@pytest.mark.parametrize("is_dripping", [False, True])
def test_bad_input_is_a_problem_and_ends_the_connection(client, data, expected, is_dripping):
    """Whatever is no request of ours is answered once, with a reason, and nothing after it counts."""
    data += request("/healthz")
    if is_dripping:
        for start in range(0, len(data), 7):
            if client.transport.connected:
                client.protocol.dataReceived(data[start : start + 7])
        received = client.received
    else:
        received = client.send(data)
    answer = parsed(received)
    assert (expected, "application/problem+json") == (answer.status, answer.fields["content-type"])
    assert expected == answer.json["status"]
    assert not client.transport.connected


@pytest.mark.parametrize(("method", "expected"), [(b"POST", 405), (b"GET", 413), (b"HEAD", 413)])
@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 65536\r\n\r\n" + b"a" * 65536, CHUNKED + b"5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\n\r\n"],
)
def test_small_body_is_read_away_and_refused(client, method, expected, body):
    """Who sends a body gets the answer on a connection that goes on; nothing of it is kept."""
    data = method + b" /healthz HTTP/1.1\r\n" + HOST_LINE + body
    assert expected == parsed(client.send(data), is_head=method == b"HEAD").status
    assert client.ask("/healthz").status == 200


PIECES = [
    b"GET ",
    b"POST ",
    b"/",
    b"/api/v1/nodes/",
    b"/api/v1/events",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n",
    b"\r\n\r\n",
    HOST_LINE,
    b"Host: ",
    b"Content-Length: 3\r\n",
    CHUNKED,
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"If-None-Match: ",
    b"Accept-Encoding: ",
    b"Last-Event-ID: ",
    b"%",
    b'"',
    b";q=",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=30))
def test_any_bytes_are_answered_or_waited_for(pieces):
    """Whatever comes, nothing escapes, nothing is 500, and every answer is one of ours."""
    client = Client(a_site(StubDaemon(), Clock()))
    for piece in pieces:
        if client.transport.connected:
            client.protocol.dataReceived(piece)
    statuses = {int(code) for code in re.findall(rb"HTTP/1\.[01] ([0-9]+) ", client.received)}
    assert statuses <= {100, 200, 304, 400, 404, 405, 413, 421, 431}
    assert client.received == b"" or client.received.startswith(b"HTTP/1.")


def test_what_fits_the_bounds_is_served(client):
    """As many fields and bytes as allowed are allowed."""
    fields = b"X: 1\r\n" * (FIELDS - 1)
    assert parsed(client.send(b"GET /healthz HTTP/1.1\r\n" + HOST_LINE + fields + b"\r\n")).status == 200
    long = b"X: " + b"a" * (HEAD_BYTES // 4) + b"\r\n"
    assert parsed(client.send(b"GET /healthz HTTP/1.1\r\n" + HOST_LINE + long * 3 + b"\r\n")).status == 200
    empty = b"Content-Length: 0\r\n"
    assert parsed(client.send(b"GET /healthz HTTP/1.1\r\n" + HOST_LINE + empty + b"\r\n")).status == 200


def test_idle_connection_is_closed(client, clock):
    """Who asks nothing loses the place after the idle time."""
    clock.advance(IDLE_S - 1)
    assert client.transport.connected
    clock.advance(1)
    assert not client.transport.connected


def test_dripping_a_request_does_not_move_the_deadline(client, clock):
    """A byte now and then does not hold a place for ever."""
    for byte in b"GET / HTTP/1.1\r\n"[: int(IDLE_S / 10) - 1]:
        clock.advance(10)
        client.protocol.dataReceived(bytes([byte]))
    assert client.transport.connected
    clock.advance(10)
    assert not client.transport.connected


def test_an_answer_moves_the_deadline(client, clock):
    """A portal that asks every half minute keeps its connection."""
    for _ in range(5):
        clock.advance(IDLE_S / 2)
        assert client.ask("/healthz").status == 200


def test_connections_are_bounded_and_places_come_back(clock):
    """One connection too many is not accepted; one that ends makes room."""
    site = a_site(StubDaemon(), clock)
    clients = [Client(site) for _ in range(CONNECTIONS)]
    assert site.buildProtocol(None) is None
    clients[0].leave()
    assert Client(site).ask("/healthz").status == 200
    assert site.buildProtocol(None) is None


def test_nothing_is_left_behind(clock):
    """Connections that ended leave no timer."""
    site = a_site(StubDaemon(), clock)
    for path in ("/healthz", "/nothing", "/api/v1/events"):
        client = Client(site)
        client.send(request(path))
        client.leave()
    assert clock.getDelayedCalls() == []
