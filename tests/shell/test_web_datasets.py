"""Dataset events over HTTP: the list, the check, what is refused, and the page for people."""

import json

import pytest

from esgf_gossip.dataset_errors import DatasetError
from esgf_gossip.tracking import ledger
from esgf_gossip.tracking.events import encode_event
from esgf_gossip.web.dataset_questions import CHECK_BYTES, CHECKED_MOST
from helpers.registrars import MASTER, V1, V2, V3, A, B, an_event
from helpers.web import HOST, NOON_MS, Client, StubDaemon, a_site, parsed

CHECK = "/api/v1/datasets/check"
HOSTILE = "<script>alert('\u202ex')</script>"


@pytest.fixture
def daemon():
    """A daemon whose ledger holds a version, its replacement, its retraction, a replica and a forgery."""
    daemon = StubDaemon()
    connection = daemon.datasets.connection
    said = {
        A: [
            an_event("published"),
            an_event("new-version", V2, supersedes=(V1.version,)),
            an_event("retracted", V2, reason=HOSTILE),
        ],
        B: [an_event("replicated", V2, B), an_event("retracted", V1, A)],
    }
    for origin, events in said.items():
        place = ledger.begin(connection, origin, 1, 0, [origin])
        ledger.take(connection, place, 1, [encode_event(one) for one in events], B, NOON_MS)
    return daemon


@pytest.fixture
def client(daemon):
    """A connected client."""
    return Client(a_site(daemon))


def ask(client, body, content_type="application/json", path=CHECK):
    """POST a body; return the answer."""
    body = body if isinstance(body, bytes) else body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {content_type}\r\n" if content_type else ""
    return parsed(client.send(f"{head}\r\n".encode() + body))


def test_events_are_listed_and_followed(client):
    """The newest without a word; from a number or a time on; by project and type; next_since goes on."""
    found = client.ask("/api/v1/datasets/events").json
    assert [one["number"] for one in found["events"]] == [1, 2, 3, 4]
    assert found["events"][1]["supersedes"] == [V1.version]
    assert found["next_since"] == 4
    part = client.ask("/api/v1/datasets/events?since=0&limit=3").json
    assert ([one["number"] for one in part["events"]], part["next_since"]) == ([1, 2, 3], 3)
    assert client.ask("/api/v1/datasets/events?limit=2").json["next_since"] == 4
    rest = client.ask("/api/v1/datasets/events?since=3").json
    assert [one["type"] for one in rest["events"]] == ["replicated"]
    for since, count in (("2023-11-14T22:13:20Z", 4), ("2023-11-14T22:13:21Z", 0)):
        found = client.ask(f"/api/v1/datasets/events?since={since}").json
        assert (len(found["events"]), found["next_since"]) == (count, 4)
    found = client.ask("/api/v1/datasets/events?project=CMIP6&type=retracted").json["events"]
    assert [one["reason"] for one in found] == [HOSTILE.replace("\u202e", "?")]
    assert client.ask("/api/v1/datasets/events?project=CORDEX").json["events"] == []


@pytest.mark.parametrize(
    "query",
    ["since=soon", "since=99999999999999999999", "limit=0", "limit=1001", "type=x", "typ=x", "since="],
)
def test_what_cannot_be_asked_is_refused(client, query):
    """A parameter that is not known or not right is 400, in one line."""
    answer = client.ask(f"/api/v1/datasets/events?{query}")
    assert (answer.status, answer.json["status"]) == (400, 400)


def test_what_does_not_count_is_listed(client):
    """With who said it and why not."""
    (one,) = client.ask("/api/v1/datasets/quarantine").json
    assert (one["origin"], one["counts"], one["number"]) == (B, False, None)
    assert one["quarantine"] == f"the certificate of {B} does not name {A}"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps([f"{MASTER}#{V1.version}", str(V2)]), "application/json"),
        (json.dumps({"datasets": [str(V1), f"{V2}|any.example.org"]}), "application/json; charset=utf-8"),
        (json.dumps([str(V1), str(V2)]), ""),
        (f"{V1}\r\n\n  {V2}\n", "text/plain"),
        (f"{V1}\n{V2}", ""),
    ],
)
def test_versions_are_checked_in_any_spelling(client, body, content_type):
    """A JSON list, an object, or lines: each version says how it stands, what follows it, why, and where copies are."""
    answer = ask(client, body, content_type)
    assert (answer.status, answer.fields["cache-control"]) == (200, "no-store")
    first, second = answer.json["datasets"]
    assert (first["dataset"], first["status"], first["successor"]) == (str(V1), "superseded", None)
    assert (second["status"], second["original"]) == ("retracted", {"data_node": A, "node": A})
    assert second["replicas"] == [{"data_node": B, "node": B}]
    assert client.ask("/healthz").status == 200


def test_what_is_not_known_is_said_so(client):
    """A version nobody published, one between known ones, and a text that names none, each in its place."""
    asked = ["A.b.v1", "no version", f"{MASTER}.v20190401", str(V3), "\ud800"]
    found = ask(client, json.dumps(asked)).json["datasets"]
    assert [one["asked"] for one in found] == asked
    assert [one["status"] for one in found] == ["unknown", "unknown", "superseded", "unknown", "unknown"]
    assert "names no version" in found[1]["error"]
    assert found[1]["dataset"] is None


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("{", "application/json", 400),
        ("[1]", "application/json", 400),
        ('{"dataset": []}', "application/json", 400),
        ("[" * 90_000, "application/json", 400),
        (b"\xff", "text/plain", 400),
        ("x", "application/xml", 415),
        (json.dumps(["A.b.v1"] * (CHECKED_MOST + 1)), "application/json", 400),
        (b" " * (CHECK_BYTES + 1), "application/json", 413),
    ],
)
def test_bodies_out_of_bounds_are_refused(client, body, content_type, status):
    """What cannot be read, or asks too much, is refused with a problem."""
    assert ask(client, body, content_type).json["status"] == status


def test_a_body_without_a_length_has_the_same_bound(client):
    """Chunked bodies are counted as they come."""
    head = f"POST {CHECK} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    text = str(V1).encode()
    answer = parsed(client.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text)))
    assert [one["dataset"] for one in answer.json["datasets"]] == [str(V1)]
    size = CHECK_BYTES + 1
    assert parsed(client.send(head + b"%x\r\n%s\r\n" % (size, b"a" * size))).status == 413


def test_as_many_as_may_be_asked_fit(client):
    """A thousand names are answered at once."""
    asked = [f"{MASTER}.v{number}" for number in range(CHECKED_MOST)]
    assert len(ask(client, json.dumps(asked)).json["datasets"]) == CHECKED_MOST


def test_a_check_is_a_post_and_nothing_else_takes_a_body(client):
    """GET of the check is 405 and says what is allowed; other paths have no body."""
    answer = parsed(
        client.send(f"GET {CHECK} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n[]".encode())
    )
    assert answer.status == 405
    answer = client.ask(CHECK)
    assert (answer.status, answer.fields["allow"]) == (405, "POST")
    assert ask(client, b"x", path=f"{CHECK}?x=1").status == 400
    assert ask(client, b"[]", path="/api/v1/datasets/events").status == 405
    assert client.ask("/api/v1/datasets").status == 404


def test_a_fault_is_told_everywhere(daemon):
    """Without a database the pages say why, and the one for people too."""
    daemon.datasets.fault = DatasetError("tracking.db: damaged", 503)
    client = Client(a_site(daemon))
    for answer in (client.ask("/api/v1/datasets/events"), ask(client, "[]")):
        assert (answer.status, answer.fields["retry-after"]) == (503, "5")
        assert answer.json["detail"] == "tracking.db: damaged"
    page = client.ask("/datasets")
    assert (page.status, "tracking.db: damaged" in page.body.decode()) == (200, True)


def test_bodies_fit_their_schemas(client):
    """What openapi.json describes is what is sent, without a field more."""
    schemas = client.ask("/openapi.json").json["components"]["schemas"]
    found = client.ask("/api/v1/datasets/events").json
    checked = ask(client, json.dumps([str(V1), "none"])).json["datasets"]
    for schema, bodies in (("DatasetEvent", found["events"]), ("DatasetStatus", checked)):
        for body in bodies:
            assert set(schemas[schema]["properties"]) == set(body)
    assert set(schemas["DatasetEvents"]["properties"]) == set(found)


def test_the_page_shows_and_filters(client):
    """Events, what should go and what does not count; a text of a stranger stays a text."""
    page = client.ask("/datasets").body.decode()
    assert f"<bdi>{V2}</bdi> on <bdi>{B}</bdi>" in page
    assert f"the certificate of {B} does not name {A}" in page
    assert "<script>alert" not in page
    rows = "dataset-events"
    for query, count in (
        ("", 4),
        ("?type=retracted", 1),
        ("?project=NONE", 0),
        ("?q=20190308", 1),
        ("?q=zz", 0),
    ):
        page = client.ask(f"/datasets{query}").body.decode()
        table = page.partition(f'id="{rows}"')[2].partition("</section>")[0]
        assert table.count('<th scope="row">') == count, query
    assert "No event of that kind" in client.ask("/datasets?q=%3Cb%3E").body.decode()
