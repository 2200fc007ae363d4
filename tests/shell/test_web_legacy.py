"""The paths of the earlier node managers: the answers their clients had, and nothing that changes state."""

from __future__ import annotations

import pytest

from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.views.federation import NodeStatus
from helpers.web import HOST, NOON_MS, Client, StubDaemon, a_node, a_registration, a_site, a_view

XML = b"<Registration/>\n"
OTHER = "esgf-b.example.org"


@pytest.fixture
def daemon():
    """The daemon behind the site."""
    return StubDaemon(a_node(), a_node(OTHER), a_node("gone.example.org", status=NodeStatus.STALE))


@pytest.fixture
def client(daemon):
    """A connected client."""
    return Client(a_site(daemon))


@pytest.mark.parametrize("path", ["/esgf-nm/registration.xml", "/esgf-node-manager/registration.xml"])
def test_the_document_is_where_it_always_was(client, daemon, path):
    """The bytes of /registration.xml with the same tag; before it is there 503, never an empty one."""
    assert client.ask(path).status == 503
    daemon.documents.keep("registration.xml", XML)
    answer, plain = client.ask(path), client.ask("/registration.xml")
    assert (answer.status, answer.body, answer.fields["etag"]) == (200, XML, plain.fields["etag"])
    assert client.ask(path, If_None_Match=plain.fields["etag"]).status == 304


@pytest.mark.parametrize("path", ["/esgf-nm", "/esgf-nm/", "/esgf-nm/whatever", "/esgf-nm/a/b?c=d"])
def test_the_python_node_manager_says_its_name_at_any_path(client, path):
    """Probes that look for it find it."""
    answer = client.ask(path)
    assert (answer.status, answer.body) == (200, b"<h1>ESGF Node Manager</h1>")
    assert answer.fields["content-type"].startswith("text/html")
    assert answer.fields["content-security-policy"] == "default-src 'none'; sandbox"


def test_properties_of_all_nodes(client):
    """Host to properties, only what is published and listed, and the time as a text of digits."""
    answer = client.ask("/esgf-nm/node-props.json")
    assert (answer.status, answer.fields["content-type"]) == (200, "text/json")
    assert set(answer.json) == {HOST, OTHER, "ts_all"}
    assert answer.json[OTHER] == dict(a_registration(OTHER).properties)
    assert answer.json["ts_all"] == str(NOON_MS)


def test_metrics_are_texts_and_their_absence_a_word(client, daemon):
    """Values are JSON strings; a node without metrics answers as one whose query never ran."""
    assert (client.ask("/esgf-nm/metrics.json").status, client.ask("/esgf-nm/metrics.json").body) == (
        200,
        b"NO_FILE",
    )
    daemon.picture = a_view(a_node(metrics=Metrics(3, 4096, 2, 7)))
    assert client.ask("/esgf-nm/metrics.json").json == {
        "download.count": "3",
        "download.bytes": "4096",
        "download.users": "2",
        "users_count": "7",
    }
    daemon.picture = a_view(a_node(metrics=Metrics(0, 0, 0, None)))
    assert "users_count" not in client.ask("/esgf-nm/metrics.json").json


def test_health_check_tells_the_own_properties(client):
    """Properties, status and action in one flat object; forward asks nobody; what=timestamp is the time alone."""
    for query in ("from=x.example.org", "from=x.example.org&forward=True", ""):
        answer = client.ask(f"/esgf-nm/health-check-api?{query}")
        assert answer.status == 200
        assert answer.json == {
            **a_registration().properties,
            "action": "node_properties",
            "status": "GOOD",
        }
    assert client.ask("/esgf-nm/health-check-api?what=timestamp").json == {"ts_all": str(NOON_MS)}


@pytest.mark.parametrize(
    ("query", "method", "body"),
    [
        ("", "GET", b"INVALID_URL"),
        ("?action=", "GET", b"INVALID_REQ"),
        ("?action=dance", "GET", b"INVALID_REQ"),
        ("?action=%ff", "GET", b"INVALID_REQ"),
        ("?action=get_nodes_status", "GET", b"Not Supported"),
        ("?action=add_member&from=evil.example.org&standby=False", "GET", b"Not Supported"),
        ("?action=remove_member&from=evil.example.org", "GET", b"Not Supported"),
        ("?action=node_map_update", "POST", b"Not Supported"),
        ("", "POST", b"Not Supported"),
    ],
)
def test_what_changed_state_is_not_supported(client, daemon, query, method, body):
    """Anybody could add and remove members there; the answer is a word, and nothing has changed."""
    before = daemon.picture
    answer = client.ask(f"/esgf-nm/api{query}", method)
    assert (answer.status, answer.body) == (200, body)
    assert daemon.picture is before


def test_link_reports_are_not_supported(client):
    """Reports on others came in here unsigned."""
    answer = client.ask("/esgf-nm/health-check-rep?from=evil.example.org&esgf-b.example.org=99")
    assert (answer.status, answer.body) == (200, b"Not Supported")


@pytest.mark.parametrize("path", ["/esgf-node-manager", "/esgf-node-manager/", "/esgf-node-manager/node"])
def test_the_java_protocol_is_not_spoken(client, path):
    """Its peers learn at once that nobody listens."""
    assert client.ask(path).status == 404


@pytest.mark.parametrize(
    "path",
    ["/esgf-nm/", "/esgf-nm/node-props.json", "/esgf-nm/registration.xml", "/esgf-nm/health-check-api"],
)
def test_other_methods_are_refused(client, path):
    """Nothing else is writable there either."""
    assert client.ask(path, "DELETE").status == 405
    assert client.ask(path, "POST").status == 405
