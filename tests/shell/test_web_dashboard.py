"""The pages for people, without a browser: links, headers, what is escaped, what is asked for; web.dashboard."""

import html
import re

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python import log

from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.views.federation import DatasetCounts, NodeStatus
from esgf_gossip.views.history_json import is_routine
from esgf_gossip.views.lists_xml import LISTS, document, entries
from esgf_gossip.web.archive import PastError, TooEarlyError
from esgf_gossip.web.dashboard import contexts, federation
from esgf_gossip.web.dashboard.trust import trust_rows
from esgf_gossip.web.log_tail import LogTail
from helpers import crowd
from helpers.web import HOST, Client, StubDaemon, a_node, a_registration, a_site, a_view, request

PAGES = ("/", "/services", "/trust", "/changes", "/metadata", "/datasets", "/this-node", f"/nodes/{HOST}")


@pytest.fixture
def daemon():
    """The daemon behind the site, with every list and document there."""
    broken = a_node("esgf-b.example.org", registration=None, registration_error="no map")
    observers = [a_node(f"o{number}.example.org") for number in range(3)]
    daemon = StubDaemon(a_node(), broken, *observers)
    for name in (*daemon.documents, *LISTS):
        daemon.documents.keep(name, b"<list/>")
    return daemon


@pytest.fixture
def client(daemon):
    """A connected client."""
    return Client(a_site(daemon))


def links_of(page):
    """Return all links to this site."""
    return {html.unescape(link) for link in re.findall(r'(?:href|src)="(/[^"#]*)', page.body.decode())}


def test_every_link_of_every_page_leads_somewhere(client):
    """From the front page on, nothing of this site is missing."""
    seen, waiting = set(), {"/"}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = client.ask(path.replace(" ", "%20"))
        assert answer.status == 200, path
        if answer.fields["content-type"].startswith("text/html"):
            waiting |= {link for link in links_of(answer) if link not in seen and len(seen) < 200}
    assert {*PAGES, "/static/dashboard.js", "/static/world.svg", "/esgf_shards.xml"} <= seen


@pytest.mark.parametrize("path", PAGES)
def test_a_page_allows_nothing_but_this_site(client, path):
    """The policy names no other host, no inline script and no inline style, and the page needs none."""
    page = client.ask(path)
    policy = page.fields["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert not re.search(r"unsafe|http|\*|data:", policy)
    assert page.fields["x-content-type-options"] == "nosniff"
    text = page.body.decode()
    assert not re.search(r"<style|style=|\son\w+=|<script(?! src=\"/static/dashboard.js\")", text)
    assert client.ask(path, "POST").status == 405


def test_a_page_that_did_not_change_is_not_sent_again(client):
    """Pages have tags: a wall screen that asks again gets 304."""
    page = client.ask("/")
    again = client.ask("/", If_None_Match=page.fields["etag"])
    assert (again.status, again.body) == (304, b"")


def test_who_asks_for_what_is_not_there_is_told_on_a_page(client):
    """An unknown node, a time that is none: a page with the reason and the status."""
    missing = client.ask("/nodes/nobody.example.org")
    assert (missing.status, missing.fields["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no node nobody.example.org" in missing.body.decode()
    for path in ("/?at=soon", "/changes?since=soon", "/changes?limit=x"):
        refused = client.ask(path)
        assert refused.status == 400
        assert "yesterday 14:00" in refused.body.decode() or "number" in refused.body.decode()
    assert client.ask("/nodes/").status == 404
    assert client.ask("/static/").status == 404
    assert client.ask("/static/..%2fpages.py").status == 404
    browser = client.ask("/blah", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (browser.status, browser.fields["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Nothing is served at this path" in browser.body.decode()
    assert client.ask("/blah").fields["content-type"] == "application/problem+json"
    assert client.ask("/nodes/%3Cscript%3E").status == 404


def test_what_is_routine_stands_together_on_the_page_of_changes(daemon, client):
    """Figures that come all day are one line that opens; nothing is left out, nothing else is hidden."""
    told = crowd.changes_of(crowd.a_crowd(40))
    daemon.past.changes = lambda _wish: succeed({"begins_ms": 1, "changes": told, "next_before": None})
    page = client.ask("/changes").body.decode()
    assert "7 routine digests of 7 nodes since " in page
    folded = page.count("resources.cores_free</bdi>")
    assert folded == sum(is_routine(one) for one in told) > 7
    assert page.count('class="kind-') - page.count(' routine"') == len(told)
    days = contexts.changes_context({"begins_ms": 1, "changes": told, "next_before": None}, {})["days"]
    runs = [run for _, runs in days for run in runs]
    assert [one["id"] for run in runs for one in run.changes] == [one["id"] for one in told]
    assert all(is_routine(one) is run.is_routine for run in runs for one in run.changes)


def test_a_refused_question_can_be_mended_where_it_is_refused(client):
    """The form stands there as it was filled, escaped, with the label that the message names."""
    page = client.ask("/?at=%3Cb%3Esoon").body.decode()
    assert 'name="at" value="&lt;b&gt;soon"' in page
    assert page.count("As it was") >= 2
    assert "As it was (UTC): " in page
    page = client.ask("/changes?since=soon").body.decode()
    assert "From (UTC): &#39;soon&#39; is no time" in page
    assert (
        "As it was (UTC): 2099-01-01 00:00:00 UTC has not come yet."
        in client.ask("/?at=2099-01-01").body.decode()
    )
    page = client.ask(f"/changes?since=soon&until=now&host={HOST}").body.decode()
    for name, text in (("since", "soon"), ("until", "now"), ("host", HOST)):
        assert f'name="{name}" value="{text}"' in page
    assert "<form" not in client.ask("/nodes/nobody").body.decode()


def test_the_log_tail_leaves_out_what_twisted_says_of_itself():
    """Factories start and stop; a warning of theirs is kept."""
    tail = LogTail()
    tail.start()
    try:
        factory = Logger("twisted.internet.protocol.Factory")
        factory.info("Starting factory")
        log.msg("NodeSite starting on 8950")
        factory.warn("the factory fails")
        Logger("esgf_gossip.net").info("linked")
    finally:
        tail.stop()
    assert [text for _, _, text in tail.lines] == ["the factory fails", "linked"]


def test_without_a_history_the_pages_stand(client, daemon):
    """What cannot be told is said in its place; everything else is there."""
    daemon.past.fault = PastError("the disk is away")
    for path in ("/changes", f"/nodes/{HOST}"):
        page = client.ask(path)
        assert (page.status, "the disk is away" in page.body.decode()) == (200, True)
    assert client.ask("/?at=now").status == 503
    daemon.past.fault = TooEarlyError(NOW)
    early = client.ask("/?at=2020-01-01")
    assert (early.status, "begins at 2026-11-26" in early.body.decode()) == (404, True)


@pytest.fixture(scope="module")
def shared():
    """A daemon and its client for many examples: only what it shows changes."""
    daemon = StubDaemon()
    return daemon, Client(a_site(daemon))


def tags_of(shared, name):
    """Return the elements of the pages of a node of that name."""
    daemon, client = shared
    registration = a_registration(HOST, node__short__name=name, node__long__name=name, esg__root__id=name)
    daemon.picture = a_view(a_node(registration=registration))
    pages = (client.ask(path).body.decode() for path in ("/", f"/nodes/{HOST}", "/services"))
    return [re.findall(r"</?[a-zA-Z!][^>]*?(?=[\s/>])", page) for page in pages]


@given(st.text(max_size=60))
def test_no_text_of_a_node_becomes_markup(shared, text):
    """Whatever a node calls itself, the page has the same elements as for a harmless name."""
    assert tags_of(shared, f"x{text}") == tags_of(shared, "harmless")


NOW = crowd.NOW_MS


QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "q": st.text(max_size=20),
        "status": st.sampled_from(["up", "unreachable", "nonsense"]),
        "type": st.sampled_from(["data", "compute", "nonsense"]),
        "sort": st.sampled_from([*federation.SORTS, "nonsense"]),
        "order": st.sampled_from(["desc", "asc"]),
    },
)


@settings(max_examples=60)
@given(QUERIES)
def test_any_question_of_the_table_is_answered_and_its_links_lead_back(shared, fields):
    """Rows are a part of the nodes, sorted as asked; a link that changes nothing asks the same."""
    nodes = crowd.a_crowd(40)
    view = crowd.crowd_view(nodes)
    trust = {row.host: row for row in trust_rows(crowd.trust_of(nodes))}
    query = federation.TableQuery.read(fields)
    rows = federation.rows(view, trust, query)
    assert {row.node.host for row in rows} <= {node.host for node in nodes}
    wanted = {node.host for node in nodes if query.status in ("", node.status.value)}
    assert {row.node.host for row in rows} <= wanted
    if query.sort == "host" or not query.sort:
        key = (
            [row.node.host for row in rows]
            if query.sort
            else [federation._PLACE[row.node.status] for row in rows]
        )
        assert key == sorted(key, reverse=query.is_descending)
    asked = dict(part.split("=") for part in query.link().partition("?")[2].split("&") if part)
    assert set(asked) <= {"q", "status", "type", "sort", "order", "at"}
    daemon, client = shared
    daemon.picture = crowd.crowd_view(nodes[:3])
    assert client.ask(query.link()).status == 200


def test_lists_tell_who_is_in_and_why_others_are_not(tmp_path):
    """What is said to be in is in the document, what is left out is not, and each has its reason."""
    daemon = StubDaemon(*crowd.a_crowd(200))
    crowd.keep_lists(daemon.documents, daemon.picture, tmp_path)
    found = contexts.services_context(daemon.picture, daemon.documents, "host:port", {})
    shards = next(one for one in found["lists"] if one["name"] == "esgf_shards.xml")
    content = daemon.documents.get("esgf_shards.xml").body.decode()
    assert shards["listed"]
    assert all(f"<value>{place.node.host}:" in content for place in shards["listed"])
    assert not any(f"<value>{place.node.host}:" in content for place in shards["left_out"])
    reasons = {place.reason for place in shards["left_out"]}
    assert "IndexService is down: answers with status 503" in reasons
    assert all(reasons)
    assert len(shards["listed"]) == content.count("<value>")


def test_a_list_says_what_its_document_says_even_when_it_is_kept():
    """Where the guard keeps what is down, the page says that it is down and stays."""
    node = next(
        one
        for one in crowd.a_crowd(200)
        if one.health["IndexService"].reason and one.is_listed and one.registration.node_type & 8
    )
    daemon = StubDaemon(node)
    daemon.documents.keep("esgf_shards.xml", document("esgf_shards.xml", entries("esgf_shards.xml", [node])))
    (shards,) = contexts.services_context(daemon.picture, daemon.documents, "host:port", {})["lists"]
    (place,) = shards["listed"]
    assert place.reason.startswith("IndexService is down: answers with status 503; it stays listed")


def test_log_and_configuration_are_for_this_host_alone(daemon):
    """Where others can ask, directly or by way of a proxy, the page of this node shows neither; else it shows all."""
    client = Client(a_site(daemon, hosts=(HOST, "127.0.0.1", "::1", "localhost")))
    daemon.log_tail._events.append((NOW, "info", "a line of the log" + "g" * 400))
    daemon.configuration = lambda: "[node]\n" + "# <all> of it\n" * 100

    def shows(**fields):
        page = client.ask("/this-node", **fields).body
        assert (b"a line of the log" in page) == (b"[node]" in page)
        return b"[node]" in page

    for here in ("127.0.0.1", "127.0.0.1:8950", "[::1]:8950", "[::1]", "localhost:8950"):
        assert shows(Host=here), here
    page = client.ask("/this-node", Host="localhost").body
    assert page.count(b"&lt;all&gt; of it") == 100
    assert b"g" * 400 in page
    assert not shows(Host=HOST)
    for field in ("X_Forwarded_For", "Forwarded", "X_Real_IP", "Via"):
        assert not shows(Host="127.0.0.1", **{field: "192.0.2.1"}), field
    daemon.private = False
    assert not shows(Host="127.0.0.1")


def test_a_page_of_now_does_not_pass_for_one_of_then(client):
    """What cannot be told of an earlier time is refused; the federation of then leads to what happened until then."""
    for path in PAGES[1:]:
        if path != "/changes":
            refused = client.ask(f"{path}?at=yesterday")
            assert (refused.status, b"shows what is now" in refused.body) == (400, True), path
    page = client.ask("/?at=1h+ago").body.decode()
    assert 'data-still="as it was"' in page
    assert not re.search(r'href="/(nodes|trust|services)[/?]', page.partition("<main")[2])
    assert f'href="/changes?host={HOST}&amp;until=' in page


def test_a_link_is_never_cut(client, daemon):
    """Fifty characters of another script are three hundred in a link, and an endpoint may be longer still."""
    endpoint = "https://esgf-a.example.org/" + "e" * 400
    daemon.picture = a_view(a_node(registration=a_registration(HOST, thredds__service__endpoint=endpoint)))
    assert f'href="{endpoint}"' in client.ask(f"/nodes/{HOST}").body.decode()
    page = client.ask("/?q=" + "%E6%97%A5" * 60).body.decode()
    links = re.findall(r'href="(/\?q=[^"]*)"', page)
    assert any(link.endswith("&amp;status=up") for link in links)
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(links)


def test_a_tile_tells_none_down_from_nobody_looked(client, daemon):
    """No service is known to be down: green only where somebody looked."""
    assert b"nobody has looked at one" in client.ask("/").body
    up = {kind.type: ServiceHealth(Health.UP, NOW) for kind in a_registration(HOST).services}
    daemon.picture = a_view(a_node(health=up))
    assert b"nobody has looked at one" not in client.ask("/").body


def test_who_has_gone_is_not_answered_and_makes_no_room(daemon):
    """A client that hangs up while the past is read: nothing is sent, the work behind goes on, the next is served."""
    pending = Deferred()
    daemon.past._answer = lambda _result: pending
    client = Client(a_site(daemon))
    client.send(request("/changes"))
    client.leave()
    assert not pending.called
    pending.callback({"changes": [], "begins_ms": 0, "next_before": None})
    assert b"HTTP" not in client.received


def test_a_place_of_any_name_can_be_linked(shared):
    """Several nodes at one place link to its name, whatever that holds."""
    daemon, client = shared
    registration = {"node__geolocation__city": "\ud800 & #"}
    daemon.picture = a_view(
        *(a_node(host, registration=a_registration(host, **registration)) for host in ("a.org", "b.org"))
    )
    page = client.ask("/")
    assert page.status == 200
    link = next(html.unescape(one) for one in re.findall(r'href="(/\?q=[^"]*)', page.body.decode()))
    assert client.ask(link).status == 200


def test_a_static_node_has_a_page_without_numbers_it_does_not_have(shared):
    """It is no member: no digest, no contact, and the reason why it is shown."""
    daemon, client = shared
    daemon.picture = a_view(a_node(status=NodeStatus.STATIC, epoch=0, sequence=0, contact=("", 0)))
    page = client.ask(f"/nodes/{HOST}").body.decode()
    assert "registration_static.xml" in page
    assert "1970" not in page


def test_who_claims_what_this_node_serves_is_said_on_every_page(shared):
    """Who, what, how many more, and what to look at."""
    daemon, client = shared
    counts = DatasetCounts(
        foreign_claims=3, foreign_claim_names=("x.example.org claims a.tas.v1|d.example.org",)
    )
    view = a_view()
    daemon.picture = attrs.evolve(view, own=attrs.evolve(view.own, datasets=counts))
    for path in ("/", "/trust"):
        page = client.ask(path).body.decode()
        assert (
            "x.example.org claims a.tas.v1|d.example.org (and 2 more), and this node serves that original"
            in page
        )


def test_alarms_are_no_list_without_end(shared):
    """A federation in which everybody contradicts itself is told in so many lines."""
    daemon, client = shared
    daemon.picture = a_view(*(a_node(f"n{number}.org", forked=True) for number in range(60)))
    page = client.ask("/trust").body.decode()
    assert page.count("revoke its certificate</li>") == 20
    assert "and 40 more" in page
