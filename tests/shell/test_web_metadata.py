"""Metadata documents as programs and people see them: pages, tags, refusals, and nothing of a stranger's obeyed."""

import hashlib

import pytest

from esgf_gossip.documents.leaves import LOG
from esgf_gossip.documents.names import parse_name
from helpers.archivists import NAME, A, B, Offices, an_office
from helpers.web import Client, StubDaemon, a_node, a_site
from helpers.writers import put_leaves

PATH = f"/api/v1/documents/{NAME}"
EVIL = b"<script>alert(1)</script>\x1b[2J\n"


def a_client(desk):
    """Return a client of a site with these documents."""
    daemon = StubDaemon(a_node(A))
    daemon.metadata = desk
    return Client(a_site(daemon))


@pytest.fixture
def offices():
    """Two writers with one document in conflict, and one that is evil and one that is gone."""
    made = Offices(2)
    made.network.faults.partition([A], [B])
    for name in (A, B):
        made[name].desk.put(NAME, name.encode())
    made.network.faults.heal()
    made[A].desk.put(parse_name("CMIP6/evil/page.html"), EVIL)
    made[A].desk.put(parse_name("CMIP6/binary/b"), b"\xff\0")
    made[A].desk.put(parse_name("CMIP6/gone/g"), b"x")
    made[A].desk.put(parse_name("CMIP6/gone/g"), None)
    made.network.append(B, LOG, put_leaves(parse_name("OTHER/x/y"), b"no role"))
    made.settle(600)
    return made


@pytest.fixture
def client(offices):
    """A client of one of them."""
    return a_client(offices[A].desk)


def test_the_list_shows_conflicts_and_can_be_cut(client):
    """Names in order, each with its heads and no content; parts have the rest behind a link."""
    listed = client.ask("/api/v1/documents").json
    assert [(one["document"], one["conflict"], one["deleted"]) for one in listed] == [
        ("CMIP6/binary/b", False, False),
        ("CMIP6/evil/page.html", False, False),
        ("CMIP6/gone/g", False, True),
        (str(NAME), True, False),
    ]
    assert "text" not in listed[0]["heads"][0]
    assert [one["document"] for one in client.ask("/api/v1/documents?application=gone").json] == [
        "CMIP6/gone/g"
    ]
    assert client.ask("/api/v1/documents?project=CORDEX").json == []
    part = client.ask("/api/v1/documents?limit=1&offset=1")
    assert [one["document"] for one in part.json] == ["CMIP6/evil/page.html"]
    assert part.fields["link"] == '</api/v1/documents?limit=1&offset=2>; rel="next"'
    (refused,) = client.ask("/api/v1/documents/refused").json
    assert (refused["author"], refused["document"]) == (B, "OTHER/x/y")


def test_a_document_is_served_with_its_content(offices, client):
    """Both heads of a conflict with what they say, in the same words on both nodes; then its versions."""
    whole = client.ask(PATH)
    assert {head["text"] for head in whole.json["heads"]} == {A, B}
    assert whole.json == a_client(offices[B].desk).ask(PATH).json
    again = client.ask(PATH, **{"If-None-Match": whole.fields["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert client.ask("/api/v1/documents/CMIP6/binary/b").json["heads"][0]["base64"] == "/wA="
    (gone,) = client.ask("/api/v1/documents/CMIP6/gone/g").json["heads"]
    assert (gone["deletion"], gone["text"], gone["base64"], gone["sha256"]) == (True, None, None, None)
    history = client.ask("/api/v1/documents/CMIP6/gone/g/history?limit=1").json
    assert (history["versions_total"], [one["generation"] for one in history["versions"]]) == (2, [2])


def test_content_is_bytes_to_be_saved(client):
    """Whatever it is, a browser does not show it as a page; its tag is its hash."""
    answer = client.ask("/api/v1/documents/CMIP6/evil/page.html/content")
    assert answer.body == EVIL
    assert answer.fields["content-type"] == "application/octet-stream"
    assert answer.fields["content-disposition"] == 'attachment; filename="page.html"'
    assert answer.fields["x-content-type-options"] == "nosniff"
    assert answer.fields["etag"] == f'"{hashlib.sha256(EVIL).hexdigest()}"'
    version = client.ask(PATH).json["heads"][1]
    assert client.ask(f"{PATH}/content?version={version['version'][:8]}").body.decode() == version["text"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"{PATH}/content", 409, "in conflict"),
        (f"{PATH}/content?version=12", 400, "hexadecimal"),
        (f"{PATH}/content?version={'0' * 64}", 404, "no version"),
        (f"{PATH}/history?limit=0", 400, "limit is a number"),
        (f"{PATH}?at=now", 400, "no parameter"),
        ("/api/v1/documents?project=", 400, "project is empty"),
        ("/api/v1/documents/CMIP6/gone/g/content", 404, "is a deletion"),
        ("/api/v1/documents/CMIP6/no/such", 404, "there is no document"),
        ("/api/v1/documents/CMIP6", 404, "project=CMIP6"),
        ("/api/v1/documents/CMIP6/a%2Fb/c", 404, "nothing is served"),
        ("/api/v1/documents/../../x", 404, "nothing is served"),
        (f"{PATH}/more", 404, "nothing is served"),
    ],
)
def test_what_is_refused_is_a_problem_that_says_why(client, path, status, said):
    """One problem document, with the status of the case."""
    answer = client.ask(path)
    assert (answer.status, answer.json["status"]) == (status, status)
    assert said in answer.json["detail"]


def test_pages_show_documents_and_obey_none(client):
    """The list with its conflict, each document with what it says, escaped; refusals with their author."""
    page = client.ask("/metadata").body.decode()
    assert "conflict of 2" in page
    assert f'href="/metadata/{NAME}"' in page
    assert f"the certificate of {B} has not the role document-writer.other" in page
    page = client.ask("/metadata/CMIP6/evil/page.html").body.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    page = client.ask(f"/metadata/{NAME}").body.decode()
    assert "Conflict: 2 versions" in page
    assert "deletes the document" in client.ask("/metadata/CMIP6/gone/g").body.decode()
    assert "no text; download it" in client.ask("/metadata/CMIP6/binary/b").body.decode()
    for path in ("/metadata/CMIP6/no/such", "/metadata/CMIP6", "/metadata/a/b/c/d"):
        answer = client.ask(path, Accept="text/html")
        assert answer.status == 404
        assert "no such document" in answer.body.decode()


def test_a_page_without_documents_says_what_will_stand_there():
    """The empty state, and where only garbage came that too."""
    assert "No federated metadata document yet" in a_client(Offices(1)[A].desk).ask("/metadata").body.decode()
    page = a_client(an_office().desk).ask("/metadata").body.decode()
    assert "it cannot be read" in page
    assert str(NAME) in page
