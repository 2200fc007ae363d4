"""The pages of the HTTP service: what is served, to whom, and how it says no."""

import gzip
import sys

import pytest
from twisted.internet.task import Clock

from esgf_gossip.views.federation import FederationView, NodeStatus
from esgf_gossip.views.node_json import node_body, nodes_body, status_body
from esgf_gossip.web.archive import PastError, TooEarlyError
from esgf_gossip.web.host_names import HostNames
from esgf_gossip.web.kept import KeptDocument, KeptDocuments
from helpers.web import (
    HOST,
    NOON_MS,
    PATHS,
    Client,
    StubDaemon,
    a_node,
    a_site,
    a_view,
    parsed,
    request,
)

XML = b"<Registration/>" * 100


@pytest.fixture
def daemon():
    """The daemon behind the site."""
    return StubDaemon(a_node(), a_node("esgf-b.example.org", registration=None))


@pytest.fixture
def client(daemon):
    """A connected client."""
    return Client(a_site(daemon))


def test_api_serves_the_bodies_of_the_view(client, daemon):
    """Status, nodes and one node are the bodies that views makes."""
    for path, expected in (
        ("/api/v1/status", status_body(daemon.picture)),
        ("/api/v1/nodes", nodes_body(daemon.picture)),
        (f"/api/v1/nodes/{HOST}", node_body(daemon.picture.nodes[0])),
        (f"/api/v1/nodes/{HOST.upper()}?at=now", node_body(daemon.picture.nodes[0])),
    ):
        answer = client.ask(path)
        assert (200, "application/json", expected) == (
            answer.status,
            answer.fields["content-type"],
            answer.json,
        )


def test_api_follows_the_view(client, daemon):
    """A new view is served at the next request, with another ETag."""
    before = client.ask("/api/v1/nodes")
    daemon.picture = a_view(a_node(status=NodeStatus.SUSPECT))
    after = client.ask("/api/v1/nodes")
    assert [node["status"] for node in after.json] == ["suspect"]
    assert before.fields["etag"] != after.fields["etag"]


def test_body_is_made_once_per_view(daemon):
    """A thousand requests for one view cost one rendering."""
    client, made = Client(a_site(daemon)), []

    class Counted(tuple):
        __slots__ = ()

        def __iter__(self):
            made.append(1)
            return super().__iter__()

    daemon.picture = FederationView(0, b"", daemon.picture.own, Counted(daemon.picture.nodes))
    for _ in range(3):
        client.ask("/api/v1/nodes")
    assert len(made) == 1


def test_health_and_readiness(client, daemon):
    """/healthz is ok while the process runs, /readyz is 503 until the picture can be relied on."""
    daemon.ready = False
    assert (client.ask("/healthz").status, client.ask("/healthz").body) == (200, b"ok")
    refused = client.ask("/readyz")
    assert (
        refused.status,
        refused.fields["retry-after"],
        refused.fields["content-type"],
    ) == (503, "5", "application/problem+json")
    daemon.ready = True
    assert (client.ask("/readyz").status, client.ask("/readyz").body) == (200, b"ready")


def test_registration_is_503_until_it_is_written(client, daemon):
    """A reader is told to come back, not that the federation is empty."""
    refused = client.ask("/registration.xml")
    assert (refused.status, refused.fields["retry-after"]) == (503, "5")
    daemon.documents.keep("registration.xml", XML)
    served = client.ask("/registration.xml")
    assert (served.status, served.fields["content-type"], served.body) == (200, "application/xml", XML)
    assert served.fields["cache-control"] == "no-cache"


def test_services_are_asked_by_type_and_health(client):
    """Types in any case; what is not known is refused with what is."""
    everything = client.ask("/api/v1/services").json
    kind = everything[0]["type"]
    of_kind = [one for one in everything if one["type"] == kind]
    assert client.ask(f"/api/v1/services?type={kind.upper()}").json == of_kind
    assert client.ask(f"/api/v1/services?type={kind}&health=unknown").json == of_kind
    assert client.ask("/api/v1/services?health=down").json == []
    for query, said in {
        "type=Tape": "IndexService",
        "health=ill": "unknown",
        "typ=IndexService": "type, health, min_cores_free",
        "type=": "is empty",
        "limit=0": "from 1 to",
        "offset=-1": "from 0 to",
        "type=%ff": "IndexService",
    }.items():
        answer = client.ask(f"/api/v1/services?{query}")
        assert (answer.status, said in answer.json["detail"]) == (400, True)


def test_lists_are_filtered_and_cut_into_parts_that_link_to_the_next(daemon):
    """Following Link from the first part gives every node of the filter once, in order."""
    nodes = [
        a_node(f"n{number}.org", status=NodeStatus.UP if number % 3 else NodeStatus.STALE)
        for number in range(9)
    ]
    daemon.picture = a_view(*nodes)
    client = Client(a_site(daemon))
    path, seen, parts = "/api/v1/nodes?status=up&node_type=data&limit=4", [], 0
    while path:
        answer = client.ask(path)
        seen += [node["host"] for node in answer.json]
        parts += 1
        link = answer.fields.get("link", "")
        path = link.partition(">")[0].removeprefix("<")
        assert not link or link.endswith('; rel="next"')
    assert (parts, seen) == (2, [f"n{number}.org" for number in (1, 2, 4, 5, 7, 8)])
    assert client.ask("/api/v1/nodes?offset=99").json == []
    assert client.ask("/api/v1/nodes?node_type=compute").json == []
    assert len(client.ask("/api/v1/services?limit=1").json) == 1


def test_the_past_is_asked_by_time_and_says_when_it_cannot_tell(client, daemon):
    """Parameters reach the archive; what it cannot tell is 503 with its reason, what it is not asked rightly 400."""
    asked = "since=2023-11-14T22:00:00Z&until=1h%20ago&kind=digest&before=9&limit=5"
    assert client.ask(f"/api/v1/nodes/{HOST.upper()}/history?{asked}").status == 200
    (wish,) = daemon.past.wishes
    assert (wish.host, wish.kinds, wish.before_id, wish.limit) == (HOST, ("digest",), 9, 5)
    assert (wish.since_ms, wish.until_ms) == (1_699_999_200_000, NOON_MS - 3_600_000)
    then = client.ask("/api/v1/services?type=ThreddsService&at=2023-11-14")
    assert then.json == client.ask("/api/v1/services?type=ThreddsService").json
    assert client.ask("/api/v1/nodes?at=yesterday").json == nodes_body(daemon.picture)
    assert client.ask("/api/v1/nodes/nobody.example.org?at=now").status == 404
    document = client.ask("/registration.xml?at=1970-01-01T00:00:01Z")
    assert (document.body, document.fields["content-type"]) == (
        b"<Registration at='1000'/>",
        "application/xml",
    )
    daemon.past.fault = PastError("the disk is away")
    refused = client.ask("/api/v1/nodes?at=now")
    assert (refused.status, refused.json["detail"]) == (503, "the disk is away")
    daemon.past.fault = TooEarlyError(NOON_MS)
    refused = client.ask("/registration.xml?at=2020-01-01")
    assert (refused.status, "begins at 2023-11-14 22:13:20 UTC" in refused.json["detail"]) == (404, True)
    for path, said in {
        "/api/v1/history?since=soon": "yesterday 14:00",
        "/api/v1/history?limit=0": "from 1 to 1000",
        "/api/v1/history?limit=1e3": "from 1 to 1000",
        "/api/v1/history?kind=gossip": "digest, status",
        f"/api/v1/nodes/{HOST}/history?host=x": "no parameter 'host'",
        "/api/v1/differences": "from=",
        "/api/v1/nodes?at=%00": "is no time",
        "/registration.xml?at=now&x=1": "no parameter 'x'",
    }.items():
        answer = client.ask(path)
        assert (answer.status, said in answer.json["detail"]) == (400, True), (path, answer.body)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/v1",
        "/api/v1/nodes/nowhere.example.org",
        "/api/v1/nodes/%ff",
        "/api/v1/nodes/",
        f"/api/v1/nodes/{HOST}/more",
        "/api/v1/status/more",
        "/registration.xml/more",
        "/%2e%2e/etc/passwd",
        "//",
        "/healthz/",
    ],
)
def test_what_is_not_there_is_404(client, path):
    """An unknown path is a problem document, and the connection goes on."""
    answer = client.ask(path)
    assert (answer.status, answer.fields["content-type"]) == (404, "application/problem+json")
    assert tuple(answer.json[name] for name in ("type", "title", "status")) == (
        "about:blank",
        "Not Found",
        404,
    )
    assert client.transport.connected


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", [*PATHS, "/registration.xml", "/api/v1/events"])
def test_nothing_changes_state(client, method, path):
    """Every method but GET and HEAD is 405 and says what is allowed."""
    answer = client.ask(path, method)
    assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(client, path):
    """HEAD sends the header fields of GET and no byte more."""
    got, headed = client.ask(path), client.ask(path, "HEAD")
    assert headed.body == b""
    assert got.fields | {"date": ""} == headed.fields | {"date": ""}


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/registration.xml"])
def test_every_answer_forbids_guessing_its_type(client, path):
    """Pages and problems alike say nosniff."""
    assert client.ask(path).fields["x-content-type-options"] == "nosniff"


def test_failure_of_ours_is_500_and_stays_in_the_log(client, daemon, log):
    """A bug is a problem document without a traceback; the log has the failure."""
    daemon.picture = None
    answer = client.ask("/api/v1/status")
    assert (answer.status, answer.fields["content-type"]) == (500, "application/problem+json")
    assert b"AttributeError" not in answer.body
    assert [event["log_failure"].type.__name__ for event in log] == ["AttributeError"]
    assert client.ask("/healthz").status == 200


@pytest.mark.parametrize(
    "host",
    [HOST, HOST.upper(), f"{HOST}:1", f"{HOST}.", "127.0.0.1:8950", "[::1]:8950", "[0:0:0:0:0:0:0:1]"],
)
def test_own_names_are_accepted_with_any_port(daemon, host):
    """A Host is compared without case, port and final dot."""
    client = Client(a_site(daemon, hosts=(HOST, "127.0.0.1", "::1")))
    assert client.ask("/healthz", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example.net", f"{HOST}.evil.net", "127.0.0.2", "[::2]", f"x{HOST}"])
@pytest.mark.parametrize("path", ["/registration.xml", "/nothing", "/healthz"])
def test_other_names_are_421(daemon, host, path):
    """A page that reached us by DNS rebinding reads nothing, whatever it asks."""
    client = Client(a_site(daemon, hosts=(HOST, "127.0.0.1", "::1")))
    answer = client.ask(path, Host=host)
    assert (answer.status, answer.fields["content-type"]) == (421, "application/problem+json")


@pytest.mark.parametrize(
    "host", ["", "a b", "user@host", "host:port", "host:1:2", "[::1", "http://host", None]
)
def test_broken_or_missing_host_is_400(client, host):
    """What is no host with an optional port is refused, and the connection closed."""
    assert client.ask("/healthz", Host=host).status == 400
    assert not client.transport.connected


def test_two_hosts_are_400(client):
    """Two Host lines are a smuggling attempt."""
    lines = f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n"
    assert parsed(client.send(lines.encode())).status == 400


def test_http_1_0_needs_no_host(client):
    """Old clients that name no host are served, then the connection closes."""
    assert parsed(client.send(b"GET /healthz HTTP/1.0\r\n\r\n")).status == 200
    assert not client.transport.connected


def test_absolute_target_names_the_host_that_counts(client):
    """A proxy's form of request works, and its host is the one that is judged."""
    assert client.ask(f"http://{HOST}:8950/healthz", Host="other.example.org").status == 200
    assert client.ask("http://evil.example.net/healthz").status == 421
    assert client.ask("ftp://x/y").status == 400


def test_a_name_that_is_no_host_is_a_mistake_of_the_configuration():
    """http.hosts is judged when the site is made."""
    with pytest.raises(ValueError, match="host"):
        HostNames(["http://esgf.example.org/"])


def test_etag_answers_304_without_a_body(client, daemon):
    """A client that has the document gets its ETag and nothing more, to GET and HEAD."""
    daemon.documents.keep("registration.xml", XML)
    etag = client.ask("/registration.xml").fields["etag"]
    for field in (etag, f"W/{etag}", f'"x", {etag}', f'"a,b" ,{etag}', "*"):
        for method in ("GET", "HEAD"):
            answer = client.ask("/registration.xml", method, If_None_Match=field)
            assert (304, b"", etag) == (answer.status, answer.body, answer.fields["etag"])
            assert "content-length" not in answer.fields
            assert "content-type" not in answer.fields
    for field in ('"x"', etag[1:-1], etag[:-2] + '"', "", '"*"'):
        assert client.ask("/registration.xml", If_None_Match=field).status == 200


def test_etag_depends_on_the_bytes_alone(daemon):
    """Two nodes that serve one document give it one ETag."""
    daemon.documents.keep("registration.xml", XML)
    other = StubDaemon()
    other.documents.keep("registration.xml", b"old")
    other.documents.keep("registration.xml", XML)
    etags = {Client(a_site(each)).ask("/registration.xml").fields["etag"] for each in (daemon, other)}
    assert len(etags) == 1


@pytest.mark.parametrize(
    ("field", "is_packed"),
    [
        ("gzip", True),
        ("deflate, GZip;q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("br;q=1, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("identity, gzip;q=0.5", False),
        ("gzip;q=high", False),
        ("", False),
        (";;,=,q=1", False),
    ],
)
def test_gzip_where_it_is_wanted(client, daemon, field, is_packed):
    """Accept-Encoding is honoured with its weights; Vary says that it matters."""
    daemon.documents.keep("registration.xml", XML)
    answer = client.ask("/registration.xml", Accept_Encoding=field)
    assert is_packed == (answer.fields.get("content-encoding") == "gzip")
    assert answer.fields["vary"] == "Accept-Encoding"
    assert (gzip.decompress(answer.body) if is_packed else answer.body) == XML


def test_gzip_has_an_etag_of_its_own_and_either_is_known(client, daemon):
    """A strong ETag names bytes; who holds the other encoding still has the document."""
    daemon.documents.keep("registration.xml", XML)
    plain = client.ask("/registration.xml").fields["etag"]
    packed = client.ask("/registration.xml", Accept_Encoding="gzip").fields["etag"]
    assert plain != packed
    for held in (plain, packed):
        for wanted in ("gzip", "identity"):
            answer = client.ask("/registration.xml", Accept_Encoding=wanted, If_None_Match=held)
            assert (304, held) == (answer.status, answer.fields["etag"])


def test_gzip_is_made_once_and_never_larger():
    """The packed body is kept, has no time stamp, and is left out where it wins nothing."""
    document = KeptDocument(XML, "application/xml")
    assert document.gzip_body is document.gzip_body
    assert bytes(4) == document.gzip_body[4:8]
    assert KeptDocument(b"short", "text/plain").gzip_body is None
    assert KeptDocument(bytes(range(256)) * 2, "x").gzip_body is not None
    assert KeptDocument(bytes(range(256)), "x").gzip_body is None


def test_equal_content_keeps_the_kept_document():
    """Writing the same bytes again throws nothing away; dropping forgets."""
    documents = KeptDocuments()
    first = documents.keep("las_servers.xml", XML)
    assert first is documents.keep("las_servers.xml", bytes(XML))
    assert first is not documents.keep("las_servers.xml", XML + b" ")
    assert list(documents) == ["las_servers.xml", "registration.xml"]
    documents.drop("las_servers.xml")
    documents.drop("las_servers.xml")
    assert not documents.is_known("las_servers.xml")


def test_requests_in_one_packet_are_answered_in_order(client):
    """Pipelined requests share a connection."""
    data = client.send(request("/healthz") + request("/nothing") + request("/readyz"))
    assert [part.split()[0] for part in data.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


def test_the_web_room_does_not_install_a_reactor():
    """A reactor comes in as an argument, never by an import."""
    a_site(clock=Clock())
    modules = [name for name in sys.modules if name.startswith("esgf_gossip.web")]
    assert [name for name in modules if hasattr(sys.modules[name], "reactor")] == []
