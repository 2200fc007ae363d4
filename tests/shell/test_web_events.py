"""The event hub, and events as server-sent events."""

import json

import pytest
from twisted.internet.task import Clock

from esgf_gossip.web.event_stream import CLIENTS, HEARTBEAT, HEARTBEAT_S, OPENING, UNSENT_BYTES
from esgf_gossip.web.events import KEPT_EVENTS, EventHub
from helpers.web import Client, StubDaemon, a_site, parsed, request


@pytest.fixture
def clock():
    """Time that a test moves."""
    return Clock()


@pytest.fixture
def daemon():
    """The daemon behind the site."""
    return StubDaemon()


@pytest.fixture
def site(daemon, clock):
    """The site of that daemon."""
    return a_site(daemon, clock)


@pytest.fixture
def hub(daemon):
    """Where the events come from."""
    return daemon.events


def listening(site, **fields):
    """Return a client with an open stream, and the chunks that came with the opening."""
    client = Client(site)
    data = client.send(request("/api/v1/events", **fields))
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    client.transport.clear()
    return client, chunks(body)


def chunks(data):
    """Undo the chunked coding."""
    found = []
    while data:
        size, _, data = data.partition(b"\r\n")
        found.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return found


def heard(client):
    """Return the chunks received since the last look."""
    data = client.received
    client.transport.clear()
    return chunks(data)


def test_ids_count_from_one():
    """A hub without a start time numbers from 1, and each publish returns its id."""
    hub = EventHub()
    assert [hub.publish("digest-accepted", {"n": n}) for n in range(3)] == [1, 2, 3]
    assert [event.id for event in hub.since(1)] == [2, 3]


def test_ids_of_a_later_run_are_greater_and_small_enough_for_javascript():
    """Ids begin at the microsecond of the start, below 2**53 even with a mad clock."""
    first, second = EventHub(1_700_000_000_000), EventHub(1_700_000_000_001)
    for _ in range(999):
        first.publish("node-status", {})
    assert first.last_id < second.publish("node-status", {})
    assert EventHub(2**60).publish("node-status", {}) < 2**53


def test_only_the_newest_events_are_kept():
    """Memory is bounded: a thousand events, then the oldest goes."""
    hub = EventHub()
    for number in range(KEPT_EVENTS + 5):
        hub.publish("node-status", {"n": number})
    assert len(hub.since(0)) == KEPT_EVENTS
    assert tuple(hub.can_resume_after(number) for number in (4, 5, KEPT_EVENTS + 5, KEPT_EVENTS + 6)) == (
        False,
        True,
        True,
        False,
    )


def test_subscribers_hear_until_they_unsubscribe():
    """A subscriber that fails, or leaves while being told, does not disturb the others."""
    hub, heard_ids = EventHub(), []
    hub.subscribe(lambda event: 1 / 0)
    leave = hub.subscribe(lambda event: (heard_ids.append(event.id), leave()))
    hub.subscribe(lambda event: heard_ids.append(-event.id))
    hub.publish("node-status", {})
    hub.publish("node-status", {})
    leave()
    assert heard_ids == [1, -1, -2]


@pytest.mark.parametrize(
    ("name", "data"), [("two words", {}), ("x\nid: 5", {}), ("", {}), ("a-", {}), ("x", {"a": float("nan")})]
)
def test_what_cannot_be_sent_is_not_numbered(name, data):
    """A bad name or body is our bug, told at once; no id is lost."""
    hub = EventHub()
    with pytest.raises(ValueError):
        hub.publish(name, data)
    assert hub.publish("node-status", {}) == 1


def test_framing_is_the_contract(site, hub):
    """One write per event: its name, one line of JSON, its number."""
    client, opening = listening(site)
    hub.publish("node-status", {"host": "a\nb.example.org", "status": "up"})
    hub.publish("digest-accepted", {})
    assert opening == [OPENING]
    assert heard(client) == [
        b'event: node-status\ndata: {"host":"a\\nb.example.org","status":"up"}\nid: 1\n\n',
        b"event: digest-accepted\ndata: {}\nid: 2\n\n",
    ]


def test_header_fields_of_a_stream(site):
    """A stream is never cached nor held back, and has no length, to HEAD either."""
    data = Client(site).send(request("/api/v1/events"))
    headed = Client(site).ask("/api/v1/events", "HEAD")
    for answer in (parsed(data), headed):
        assert (
            answer.status,
            answer.fields["content-type"],
            answer.fields["cache-control"],
            answer.fields["x-accel-buffering"],
        ) == (200, "text/event-stream; charset=utf-8", "no-store", "no")
        assert "content-length" not in answer.fields
    assert headed.body == b""


def test_last_event_id_resumes_without_a_gap(site, hub):
    """A client that comes back gets what it missed, then what happens."""
    for number in range(5):
        hub.publish("node-status", {"n": number})
    client, opening = listening(site, Last_Event_ID="3")
    hub.publish("node-status", {"n": 5})
    ids = [int(chunk.split(b"id: ")[1]) for chunk in opening[1:] + heard(client)]
    assert ids == [4, 5, 6]


def test_last_event_id_of_now_brings_nothing_old(site, hub):
    """A client that missed nothing is told nothing twice."""
    hub.publish("node-status", {})
    assert listening(site, Last_Event_ID="1")[1] == [OPENING]
    assert listening(site, Last_Event_ID="")[1] == [OPENING]


@pytest.mark.parametrize("last_seen", ["7", "6000", "-1", "abc", "9" * 400, "1.0", "٣"])
def test_unknown_last_event_id_is_a_reset(clock, last_seen):
    """An id of another run, too old or unreadable, is told; the reset's own id resumes."""
    daemon = StubDaemon()
    daemon.events = EventHub(6, kept=2)
    for _ in range(5):
        daemon.events.publish("node-status", {})
    site = a_site(daemon, clock)
    client = Client(site)
    raw = request("/api/v1/events").replace(
        b"\r\n\r\n", b"\r\nLast-Event-ID: " + last_seen.encode() + b"\r\n\r\n"
    )
    _, reset = chunks(client.send(raw).partition(b"\r\n\r\n")[2])
    name, data, number, *_ = reset.decode().split("\n")
    assert (name, number) == ("event: reset", "id: 6005")
    assert "reason" in json.loads(data.removeprefix("data: "))
    assert listening(site, Last_Event_ID="6005")[1] == [OPENING]


def test_heartbeat_every_fifteen_seconds(site, clock):
    """A silent stream shows that it lives."""
    client, _ = listening(site)
    clock.advance(HEARTBEAT_S - 0.1)
    assert heard(client) == []
    for _ in range(3):
        clock.advance(HEARTBEAT_S)
        assert heard(client) == [HEARTBEAT]


def test_slow_client_gets_all_in_order_once_it_reads(site, hub, clock):
    """Events wait while the transport is full; heartbeats do not pile up."""
    client, _ = listening(site)
    client.transport.producer.pauseProducing()
    for _ in range(3):
        hub.publish("node-status", {})
    clock.advance(HEARTBEAT_S)
    assert heard(client) == []
    client.transport.producer.resumeProducing()
    assert [chunk.split(b"id: ")[1].strip() for chunk in heard(client)] == [b"1", b"2", b"3"]


def test_client_that_never_reads_is_cut_off(site, hub):
    """Beyond a mebibyte unsent the connection is aborted, and nobody else notices."""
    slow, _ = listening(site)
    other, _ = listening(site)
    slow.transport.producer.pauseProducing()
    text = "x" * (UNSENT_BYTES // 4)
    for _ in range(4):
        assert slow.transport.connected
        hub.publish("node-status", {"x": text})
    assert (
        slow.transport.aborting,
        slow.transport.connected,
        other.transport.connected,
    ) == (True, False, True)
    assert len(heard(other)) == 4


def test_clients_are_bounded_and_places_come_back(site):
    """One listener too many is told to come back; one that leaves makes room."""
    clients = [listening(site)[0] for _ in range(CLIENTS)]
    refused = Client(site).ask("/api/v1/events")
    assert (refused.status, refused.fields["retry-after"]) == (503, "60")
    clients[0].leave()
    listening(site)


def test_streams_end_with_the_site(site, hub, clock):
    """A daemon that stops ends its streams in order and leaves no timer."""
    client, _ = listening(site)
    site.stopFactory()
    assert client.received.endswith(b"0\r\n\r\n")
    assert not client.transport.connected
    assert clock.getDelayedCalls() == []
    hub.publish("node-status", {})


def test_who_missed_more_than_can_be_sent_at_once_begins_anew(site, hub):
    """Long events since the last one: a reset with the newest id, not a cut and the same question for ever."""
    for number in range(1500):
        hub.publish("digest-accepted", {"origin": "o" * 240, "sequence": number})
    _, (opening, told) = listening(site, Last_Event_ID="1")
    assert opening == OPENING
    assert b"event: reset" in told
    assert f"id: {hub.last_id}".encode() in told
    assert len(listening(site, Last_Event_ID=str(hub.last_id - 10))[1]) == 11
