"""What publishers send through the proxy, with real sockets, real TLS and a made-up index behind; index proxy."""

import http.client
import json
import socket
import ssl
import threading
from contextlib import closing

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from esgf_gossip.sources.index_client import Answer, IndexUnreachable
from esgf_gossip.web import index_proxy, tracking_site
from esgf_gossip.web.index_proxy import BODY_BYTES, DISK_S, LARGE_BYTES, PATH, IndexProxy
from esgf_gossip.web.tracking_site import make_tracking_site
from helpers.daemons import eventually
from helpers.tracking_process import TrackingProcess
from helpers.web import HOST, Client, request

NODE = "esgf-data.example.org"
MASTER = "obs4MIPs.NASA-JPL.AIRS-2-1.mon.ta.gn"
HEAD = "User-Agent: python-requests/2.34.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: {}\r\n"


def a_record(number, kind="Dataset", **fields):
    """Write a record as a publisher does: no escapes, booleans of Python."""
    record = f"{MASTER}.v{number}|{NODE}"
    whole = {
        "id": record if kind == "Dataset" else f"{MASTER}.v{number}.ta.nc|{NODE}",
        "type": kind, "master_id": MASTER, "version": number, "data_node": NODE, "replica": False, "latest": True,
        **fields,
    }  # fmt: skip
    if kind == "File":
        whole |= {
            "dataset_id": record, "title": "ta.nc", "checksum": f"c{number}", "size": 10,
            "url": f"https://{NODE}/thredds/fileServer/v{number}/ta.nc|application/netcdf|HTTPServer",
        }  # fmt: skip
    lines = "".join(f'  <field name="{name}">{value}</field>\n' for name, value in whole.items())
    return f"<doc>\n{lines}</doc>\n".encode()


def as_sent(address, method, target, body=b"", content_type=None, *, connection="close"):
    """Write a request byte by byte as the library of the publisher does."""
    head = f"{method} {target} HTTP/1.1\r\nHost: {address}\r\n{HEAD.format(connection)}"
    if content_type is not None:
        head += f"Content-Type: {content_type}\r\n"
    if method == "POST":
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


FORM = "application/x-www-form-urlencoded"
SEARCH = "/esg-search/search/?latest=true&distrib=false&format=application%2Fsolr%2Bjson&data_node={}&master_id={}&fields=version,id"
CHECK = "/esg-search/search/?format=application%2Fsolr%2Bjson&id={}&fields=id,retracted"


def hidden(core, name, number):
    """Write the update that hides an older version."""
    query = f"{name}={MASTER}.v{number}|{NODE}"
    return f'<updates core="{core}" action="set"><update><query>{query}</query><field name="latest"><value>false</value></field><field name="_timestamp"><value>2026-11-23T18:45:24Z</value></field></update></updates>'.encode()


def the_story():
    """Give method, target, body, content type of each request of a dataset's life."""
    ws = "/esg-search/ws"
    name = f"{MASTER}.v%d%%7C{NODE}"
    yield "POST", f"{ws}/publish", a_record(1, "File"), None
    yield "POST", f"{ws}/publish", a_record(1), None
    yield "GET", SEARCH.format(NODE, MASTER), b"", None
    yield "POST", f"{ws}/update", hidden("datasets", "id", 1), None
    yield "POST", f"{ws}/update", hidden("files", "dataset_id", 1), None
    yield "POST", f"{ws}/publish", a_record(2, "File"), None
    yield "POST", f"{ws}/publish", a_record(2), None
    yield "GET", CHECK.format(name % 1), b"", None
    yield "POST", f"{ws}/retract", f"id={name % 1}".encode(), FORM
    yield "GET", CHECK.format(name % 1), b"", None
    yield "POST", f"{ws}/delete", f"id={name % 1}".encode(), FORM


def arrived(process):
    """Return what publishers sent, as it reached the index; our own questions apart."""
    found = [one for one in process.received() if one["agent"].startswith("python-requests")]
    return [(one["method"], one["target"], one["body"], one["content_type"]) for one in found]


def status_of(answer):
    """Return the status of an answer."""
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def process(tmp_path):
    """Give a process that runs."""
    with TrackingProcess(tmp_path) as found:
        yield found


def test_the_calls_of_a_publisher_reach_the_index_as_they_are_and_are_told_once(process):
    """Publish, publish anew, retract, delete: every byte arrives, and what happened is said once, repeated or not."""
    story = list(the_story())
    for method, target, body, content_type in story:
        answer = process.send(as_sent(process.address, method, target, body, content_type))
        assert status_of(answer) == 200
    assert arrived(process) == story
    assert answer.endswith(b'<response status="success"><message>Deleted 1 records</message></response>')
    assert b"Content-Type: text/xml;charset=UTF-8\r\n" in answer
    eventually(lambda: len(process.events()) == 3, "everything is said")
    assert process.events() == ["published 1 0", "new-version 2 0", "retracted 1 0"]
    counts = process.counts()
    assert (counts["proxy_calls"], counts["proxy_succeeded"]) == (11, 8)
    assert counts["proxy_unread"] == counts["proxy_unrecorded"] == counts["proxy_unasked"] == 0
    assert process.look() == ""
    assert len(process.events()) == 3


def test_what_the_index_refuses_is_no_event(process):
    """Its status and words come back; an answer of success with another status, or none, counts for nothing."""
    ampersand = a_record(1, title="A & B")
    answer = process.send(as_sent(process.address, "POST", "/esg-search/ws/publish", ampersand))
    assert status_of(answer) == 400
    assert b'status="error"' in answer
    for what, status in (("index", 500), ("odd", 200)):
        process.order("break", what=[what])
        answer = process.send(as_sent(process.address, "POST", "/esg-search/ws/publish", a_record(1)))
        assert status_of(answer) == status
    assert b"Content-Type: text/odd\r\n" in answer
    process.order("break", what=[])
    assert arrived(process)[0][2] == ampersand
    assert process.counts()["intake_taken"] == 0


def test_an_index_that_is_away_is_told_as_such(process):
    """502, and the publisher may try again; nothing is remembered."""
    process.order("unlisten")
    answer = process.send(as_sent(process.address, "POST", "/esg-search/ws/publish", a_record(1)))
    assert status_of(answer) == 502
    assert b"the index gave no answer: no connection" in answer
    assert b"application/problem+json" in answer
    assert process.counts()["proxy_unreachable"] == 1


def test_a_disk_that_fails_costs_the_publisher_nothing_and_the_next_look_finds_it(process):
    """The index has done it, so the publisher hears that; the fault shows."""
    assert process.look() == ""
    process.order("break", what=["disk"])
    answer = process.send(as_sent(process.address, "POST", "/esg-search/ws/publish", a_record(1)))
    assert status_of(answer) == 200
    counts = process.counts()
    assert counts["proxy_unrecorded"] == 1
    assert "not on this node's disk" in counts["proxy_fault"]
    process.order("break", what=[])
    assert process.look() == ""
    eventually(lambda: process.events() == ["published 1 0"], "the look finds it")


def test_what_was_answered_survives_a_crash(tmp_path):
    """Killed before the log had it: the next run says it, once."""
    with TrackingProcess(tmp_path) as process:
        process.order("break", what=["log"])
        for number in (1, 2):
            call = as_sent(process.address, "POST", "/esg-search/ws/publish", a_record(number))
            assert status_of(process.send(call)) == 200
        assert process.counts()["intake_waiting"] == 2
        process.kill()
    with TrackingProcess(tmp_path) as process:
        eventually(lambda: len(process.events()) == 2, "the next run says it")
        assert process.events() == ["published 1 0", "new-version 2 0"]


def test_a_body_that_is_no_xml_is_taken_where_the_index_takes_it(tmp_path):
    """An index that is as patient as we are; a body of megabytes; connections that are kept."""
    large = a_record(1, title="A & B < C", description="x" * 8_000_000)
    with TrackingProcess(tmp_path, "lenient") as process:
        connection = http.client.HTTPSConnection(process.address, context=process.context(), timeout=60)
        with closing(connection):
            for body in (large, a_record(2)):
                connection.request(
                    "POST", "/esg-search/ws/publish", body, {"User-Agent": "python-requests/2"}
                )
                answer = connection.getresponse()
                assert (answer.status, b'status="success"' in answer.read()) == (200, True)
        assert [one[2] for one in arrived(process)] == [large, a_record(2)]
        eventually(lambda: process.events() == ["published 1 0", "new-version 2 0"], "both are said")


def test_only_what_publishers_need_is_handed_on(process):
    """Nothing beside search and ws of the index can be reached, by no spelling; nor by another method."""
    for target, status in (
        ("/esg-search/ws/../../solr/update", 404),
        ("/esg-search/ws/%2e%2e/%2e%2e/solr", 404),
        ("/esg-search/ws//x", 404),
        ("/esg-search/wget?x", 404),
        ("/esg-search", 404),
        ("/solr/datasets/update", 404),
        ("/", 404),
        ("/esg-search/ws/harvest", 404),
        ("/esg-search/ws/unharvest/x", 404),
        ("/esg-search/search", 405),
    ):
        assert status_of(process.send(as_sent(process.address, "POST", target, b"x"))) == status, target
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert status_of(process.send(as_sent(process.address, method, "/esg-search/ws/publish"))) == 405
    assert {one[1] for one in arrived(process)} == {"/esg-search/ws/harvest", "/esg-search/ws/unharvest/x"}
    too_large = as_sent(process.address, "POST", "/esg-search/ws/publish", b"").replace(
        b"Content-Length: 0", b"Content-Length: %d" % (BODY_BYTES + 1)
    )
    assert status_of(process.send(too_large)) == 413
    wrong_name = as_sent("evil.example.net", "GET", "/esg-search/search?x=y")
    assert status_of(process.send(wrong_name)) == 421


def test_a_client_checks_the_proxy_by_its_certificate(process):
    """HTTPS, as publishers insist on; not below TLS 1.2."""
    with pytest.raises(ssl.SSLCertVerificationError):
        http.client.HTTPSConnection(
            process.address, context=ssl.create_default_context(), timeout=60
        ).connect()


def test_an_index_that_ends_a_kept_connection_is_asked_again(tmp_path):
    """Servers end connections just when the next request is on its way: the publisher must not notice."""
    bodies = []

    def serve(listening):
        for wanted in (2, 1):
            connection, _ = listening.accept()
            with closing(connection), connection.makefile("rb") as stream:
                for number in range(wanted):
                    length = 0
                    for line in iter(stream.readline, b"\r\n"):
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.partition(b":")[2])
                    bodies.append(stream.read(length))
                    if number == 0:
                        answer = b'<response status="success"/>'
                        connection.sendall(
                            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
                        )

    with socket.create_server(("127.0.0.1", 0)) as listening:
        index = threading.Thread(target=serve, args=(listening,), daemon=True)
        index.start()
        with TrackingProcess(tmp_path, f"index=http://127.0.0.1:{listening.getsockname()[1]}") as process:
            for part in (1, 2):
                record = a_record(part, "File")
                answer = process.send(as_sent(process.address, "POST", "/esg-search/ws/publish", record))
                assert status_of(answer) == 200
        index.join(60)
    assert bodies == [a_record(1, "File"), a_record(2, "File"), a_record(2, "File")]


# --------------------------------------------------------------------- in memory


class Index:
    """An index that answers as a test says."""

    base_url = "https://index.example.org"

    def __init__(self):
        self.asked = []
        self.answer = Deferred

    def ask(self, *arguments):
        self.asked.append(arguments)
        return self.answer()


class Taker:
    """Takes nothing."""

    def see(self, sightings, *, is_quiet=False):
        return succeed(None)

    def missing(self, sightings):
        return succeed([])


@pytest.fixture
def memory():
    """Give an index, a proxy and a site in memory, where every client comes from 192.168.1.1."""
    index, clock = Index(), Clock()
    proxy = IndexProxy(index, Taker(), None, ["192.168.0.0/16", "2001:db8::/32"], clock, lambda: 0)
    return index, proxy, make_tracking_site({PATH: proxy}, [HOST], clock)


def a_post(length=0, body=b""):
    """Write a call with a body of that length."""
    return request("/esg-search/ws/publish", "POST", Content_Length=str(length)) + body


def test_only_publishers_may_come(memory):
    """Others are refused before a large body is read; IPv6 in both spellings."""
    index, proxy, site = memory
    assert proxy.refuses("::ffff:192.168.1.7") is None
    assert proxy.refuses("2001:db8::1") is None
    for address in ("192.167.1.1", "::1", "", "nonsense", "::ffff:10.0.0.1"):
        assert proxy.refuses(address).status == 403
    proxy._networks.clear()
    assert Client(site).send(a_post(1, b"x")).startswith(b"HTTP/1.1 403 ")
    client = Client(site)
    assert client.send(a_post(BODY_BYTES)).startswith(b"HTTP/1.1 403 ")
    assert not client.transport.connected
    assert index.asked == []


@pytest.mark.parametrize("name", ["X-Forwarded-For", "forwarded", "x-real-ip"])
def test_what_a_reverse_proxy_hands_on_is_no_publisher_s(memory, name):
    """The address is the proxy's own, whoever sent it: 403, and what to do."""
    index, proxy, site = memory
    answer = Client(site).send(a_post(1).replace(b"\r\n\r\n", f"\r\n{name}: 10.0.0.1\r\n\r\nx".encode(), 1))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"forward only /unsubscribe, /preferences, /list, /events" in answer
    assert (index.asked, proxy.counts.refused) == ([], 1)


def test_an_index_that_is_late_may_have_done_it(memory):
    """504, for the publisher to look before it tries again."""
    index, _, site = memory
    index.answer = lambda: fail(IndexUnreachable("no whole answer in time", is_late=True))
    answer = Client(site).send(a_post(1, b"x"))
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert "may have done it" in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]


def test_calls_at_a_time_are_bounded(memory, monkeypatch):
    """What is beyond is to come again; the place comes back with the answer."""
    index, _, site = memory
    monkeypatch.setattr(index_proxy, "CALLS", 1)
    answers = []
    index.answer = lambda: answers.append(Deferred()) or answers[-1]
    first, second = Client(site), Client(site)
    assert first.send(a_post(1, b"x")) == b""
    assert second.send(a_post(1, b"x")).startswith(b"HTTP/1.1 503 ")
    answers[0].errback(IndexUnreachable("it is away"))
    assert second.send(a_post(1, b"x")) == b""


def test_a_disk_that_hangs_holds_a_publisher_up_for_a_moment_only(memory):
    """The index has done it; what was handed in is taken when the disk is back."""
    index, proxy, site = memory
    proxy._taker.see = lambda sightings, *, is_quiet=False: Deferred()
    done = Answer(200, Headers(), b'<response status="success"/>')
    index.answer = lambda: succeed(done)
    client = Client(site)
    record = a_record(1, "File")
    assert client.send(a_post(len(record), record)) == b""
    site.reactor.advance(DISK_S)
    assert client.received.startswith(b"HTTP/1.1 200 ")
    assert proxy.fault == "what the index did is not on this node's disk: the disk takes too long"


def test_a_large_call_is_read_beside_the_reactor(memory):
    """A thread reads it; others have their answers meanwhile, and it goes on when it was read."""
    index, proxy, site = memory
    index.answer = lambda: fail(IndexUnreachable("it is away"))
    reading = []
    proxy._run = lambda work, _reactor: reading.append((work, Deferred())) or reading[-1][1]
    large, small = Client(site), Client(site)
    record = a_record(1, "File").ljust(LARGE_BYTES + 1)
    assert large.send(a_post(len(record), record)) == b""
    assert small.send(a_post(1, b"x")).startswith(b"HTTP/1.1 502 ")
    ((work, done),) = reading
    done.callback(work())
    assert large.received.startswith(b"HTTP/1.1 502 ")
    assert len(index.asked) == 2


def test_a_redirection_leads_back_through_the_proxy(memory):
    """Not past it."""
    index, _, site = memory
    fields = Headers({"Location": ["https://index.example.org/esg-search/search/?x"]})
    index.answer = lambda: succeed(Answer(301, fields, b""))
    answer = Client(site).send(request("/esg-search/search?x"))
    assert b"\r\nLocation: /esg-search/search/?x\r\n" in answer


def test_a_publisher_that_hangs_up_does_no_harm(memory, log):
    """Its call is done; nobody is answered."""
    index, _, site = memory
    answers = []
    index.answer = lambda: answers.append(Deferred()) or answers[-1]
    client = Client(site)
    client.send(a_post(1, b"x"))
    client.leave()
    answers[0].errback(IndexUnreachable("it is away"))
    assert log == []


def test_bodies_of_all_connections_together_are_bounded(memory, monkeypatch):
    """What is beyond is refused, and the room comes back with the end of a connection or an answer."""
    index, _, site = memory
    monkeypatch.setattr(tracking_site, "HELD_BYTES", 1000)
    first, second = Client(site), Client(site)
    assert first.send(a_post(900, b"x" * 899)) == b""
    assert second.send(a_post(200, b"x" * 200)).startswith(b"HTTP/1.1 503 ")
    first.leave()
    third = Client(site)
    index.answer = lambda: fail(IndexUnreachable("it is away"))
    for _ in range(3):
        assert third.send(a_post(900, b"x" * 900)).startswith(b"HTTP/1.1 502 ")


def test_a_body_that_drips_ends_with_its_time(memory):
    """No connection is held for ever."""
    _, _, site = memory
    clock = site.reactor
    client = Client(site)
    client.send(a_post(1_000_000, b"x"))
    for _ in range(int(tracking_site.BODY_S) - 1):
        clock.advance(1)
        client.send(b"x")
    assert client.transport.connected
    clock.advance(1)
    assert not client.transport.connected
