"""The spot check: what breaks each reader, on the files of others and on our own."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.cli.main import program
from esgf_gossip.demo.site_data import site_hosts
from esgf_gossip.esgf.spotcheck import FINDINGS_MOST, spotcheck
from helpers.site import demo_site, document
from property.test_registration_properties import REGISTRATIONS

HOST = "pcmdi9.llnl.gov"
GOOD = document(demo_site(HOST).registration)


def rules(content: bytes) -> set[int]:
    """Return the numbers of the rules that a document breaks."""
    return {one.rule for one in spotcheck(content)}


def test_our_documents_are_good():
    """The thirteen real sites, and each alone."""
    sites = [demo_site(host).registration for host in site_hosts()]
    assert spotcheck(document(*sites)) == []
    assert spotcheck(GOOD) == []


@settings(deadline=None)
@given(st.lists(REGISTRATIONS, max_size=3, unique_by=lambda one: one.host))
def test_whatever_the_sites_say_our_document_breaks_no_reader(sites):
    """Hostile names, missing keys, Unicode, long lists: the rules hold of what is written."""
    assert spotcheck(document(*sites)) == []


@pytest.mark.parametrize(
    ("old", "new", "rule", "readers"),
    [
        (b'xmlns="http://www.esgf.org/registry"', b"", 1, "Java node manager, web-fe"),
        (b'xmlns="http://www.esgf.org/registry"', b'xmlns="urn:x"', 1, "Java node manager, web-fe"),
        (b'timeStamp="1425400078007" version', b'timeStamp="today" version', 8, "dashboard"),
        (b'hostname="pcmdi9', b'\n hostname="pcmdi9', 2, "esgf-spotcheck, installer"),
        (b'hostname="pcmdi9.llnl.gov"', b"hostname='pcmdi9.llnl.gov'", 2, "esgf-spotcheck, installer"),
        (b"    <Node ", b"    <!-- x -->\n    <Node ", 3, "dashboard, acme-web-fe"),
        (b"    <Node ", b"    <Extra/>\n    <Node ", 3, "dashboard, acme-web-fe"),
        (b"    <Node ", b"    <?x y?>\n    <Node ", 3, "dashboard, acme-web-fe"),
        (b' shortName="', b' shortname="', 4, "acme-web-fe"),
        (b'hostname="pcmdi9.llnl.gov"', b'hostname=""', 4, "Java node manager, dashboard, acme-web-fe"),
        (b'release="', b"release=\"o'", 5, "dashboard"),
        (b'city="', b"city=\"o'", 5, "dashboard"),
        (b'hostname="pcmdi9', b'hostname="$(id)', 6, "esgf-spotcheck"),
        (b' ip="', b' ip="' + 64 * b"1", 6, "dashboard"),
        (b'nodePeerGroup="', b'nodePeerGroup="a, ', 6, "dashboard"),
        (b'nodePeerGroup="', b'nodePeerGroup="' + 300 * b"a", 6, "dashboard"),
        (b"<GeoLocation ", b"<GeoLocations ", 7, "acme-web-fe"),
        (b' city="', b' town="', 7, "acme-web-fe, dashboard"),
    ],
)
def test_each_rule_is_noticed_alone(old, new, rule, readers):
    """One harm to a good document breaks one rule, and names its readers."""
    assert old in GOOD
    found = spotcheck(GOOD.replace(old, new, 1))
    assert {one.rule for one in found} == {rule}
    assert readers in {one.readers for one in found}


def test_a_prefix_breaks_readers_of_text():
    """XML readers bear it, sed and grep do not."""
    prefixed = b'<r:Registration xmlns:r="http://www.esgf.org/registry" timeStamp="1"/>'
    assert rules(prefixed) == {1}


def test_another_order_of_attributes_is_noticed():
    """The installer wants the peer group before the host name."""
    start, middle, end = GOOD.partition(b' hostname="pcmdi9.llnl.gov"')
    assert middle
    assert rules(start.replace(b"<Node", b"<Node" + middle) + end) == {2}


def test_a_host_that_stands_twice_is_noticed():
    """Readers differ in which of the two they take."""
    body = GOOD.partition(b"    <Node ")[2].rpartition(b"</Registration>")[0]
    assert rules(GOOD.replace(b"</Registration>", b"    <Node " + body + b"</Registration>")) == {4}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", 9),
        (b" \n", 9),
        (b"<html><p>404", 1),
        (b"<html/>", 1),
        (GOOD[:-20], 1),
        (b"\xff\xfe", 1),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', 1),
    ],
)
def test_what_is_no_document_is_said(content, rule):
    """An empty file, a page of a proxy, half a document, a bomb."""
    assert rule in rules(content)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=9).map(lambda cut: GOOD.replace(b'"', cut, 3))))
def test_any_bytes_give_findings(content):
    """Nothing of a stranger's document raises, and their number is bounded."""
    assert len(spotcheck(content)) <= FINDINGS_MOST


def ask(*arguments: str):
    """Run the command."""
    return CliRunner().invoke(program, ["spotcheck", *arguments])


def test_the_command_reads_a_file(tmp_path):
    """Good is 0, a finding 10, a file that is not there 7, each in a line."""
    path = tmp_path / "registration.xml"
    path.write_bytes(GOOD)
    assert (ask(str(path)).exit_code, ask(str(path)).stdout) == (0, "good: every known reader takes it\n")
    path.write_bytes(GOOD.replace(b'release="', b"release=\"o'", 1))
    result = ask(str(path))
    assert (result.exit_code, result.stdout) == (
        10,
        f"rule 5: {HOST}: release has an apostrophe: no node at all is imported (dashboard)\n",
    )
    told = json.loads(ask(str(path), "--json").stdout)
    assert told["findings"][0]["rule"] == 5
    path.unlink()
    missing = ask(str(path))
    assert missing.exit_code == 7
    assert "No such file" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1


class Handler(BaseHTTPRequestHandler):
    """Serves the good document, an error page, and a redirect to the document."""

    def do_GET(self):
        """Answer by path."""
        self.send_response({"/good": 200, "/moved": 302}.get(self.path, 404))
        self.send_header("Location", "/good")
        self.end_headers()
        self.wfile.write(GOOD if self.path == "/good" else b"<html/>")

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    """A web server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_command_fetches_as_readers_do(server):
    """No redirect is followed, an error page is what the dashboard would take for the document."""
    findings = json.loads(ask(f"{server}/good", "--json").stdout)["findings"]
    assert [one for one in findings if one["text"][:4] != "took"] == []
    for path, code in (("/moved", 302), ("/nothing", 404)):
        result = ask(server + path)
        assert result.exit_code == 10
        assert result.stdout.startswith(f"rule 10: server: answers {code}")


def test_a_server_that_is_not_there_is_one_line(server):
    """A refused connection is no finding about the document."""
    port = server.rpartition(":")[2]
    for url in (f"http://127.0.0.1:{port}0/", "http://127.0.0.1:1/registration.xml", "http://[::1/"):
        result = ask(url)
        assert result.exit_code == 7, url
        assert len(result.stderr.splitlines()) == 1
