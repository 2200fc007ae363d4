"""Nodes without a daemon: read from a document kept by hand, shown beside the members, and nothing else of them."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from esgf_gossip.core.standing import Standing
from esgf_gossip.core.table import Table
from esgf_gossip.demo.site_data import site_hosts, write_site
from esgf_gossip.esgf.exclusions import parse_exclusions
from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.esgf.registration_reader import DocumentError, read_document
from esgf_gossip.esgf.site_data import SiteError
from esgf_gossip.sources.site import read_site
from esgf_gossip.views.federation import OwnState
from esgf_gossip.views.judgement import Judge, Policy
from esgf_gossip.views.node_json import node_body, status_body
from esgf_gossip.views.registration_xml import ElementCache, render
from helpers.site import FULL_HOST, a_site, a_view, demo_site, nodes_of, real_nodes, schema

STAMP = 1_425_134_743_242
OWN = OwnState("a.example.org", "f", "0", 1, 1, 0, 0, 0, 0)
ROOT = '<Registration xmlns="http://www.esgf.org/registry" timeStamp="1" version="v0.0.1">{}</Registration>'


def document_of(*views) -> bytes:
    """Render nodes without anything kept."""
    return render(views, STAMP, ElementCache())


def read(text: str):
    """Read the nodes within a root."""
    return read_document(ROOT.format(text).encode(), "file")


@pytest.mark.parametrize("host", site_hosts())
def test_what_we_write_is_read_back_as_it_was(host):
    """Each real site, its services, groups and numbers: the same bytes again."""
    view = a_view(demo_site(host).registration, metrics=Metrics(5, 6, 7, 8))
    written = document_of(view)
    ((found,), passed_over) = read_document(written, "file")
    assert passed_over == ()
    again = a_view(
        found.registration, metrics=found.metrics, registration_issued_at_ms=found.timestamp_ms, host=host
    )
    assert document_of(again) == written


@given(
    st.dictionaries(
        st.sampled_from(sorted(a_site().properties)),
        st.text(st.characters(codec="utf-8"), max_size=60),
        max_size=8,
    ),
    st.sampled_from([4, 8, 16, 32, 60, 255]),
)
@example({"idp.security.attribute.service.endpoint": "\x1b"}, 16)
def test_whatever_a_site_says_what_is_written_again_is_the_same(properties, node_type):
    """Texts that readers cannot bear are mended once; the mended document is read back as it is."""
    site = a_site({**properties, "esgf.host": FULL_HOST}, node_type=node_type)
    registration = demo_site(FULL_HOST).registration
    registration = attrs.evolve(registration, properties=dict(site.properties), node_type=node_type)
    written = document_of(a_view(registration))
    ((found,), _) = read_document(written, "file")
    again = document_of(a_view(found.registration, registration_issued_at_ms=found.timestamp_ms))
    schema().assertValid(etree.fromstring(again))
    assert nodes_of(again)[0][1]["hostname"] == FULL_HOST
    services = lambda document: [child[0] for child in nodes_of(document)[0][2]]
    assert services(again) == services(written)


def test_a_node_is_passed_over_where_it_has_no_name_or_stands_twice():
    """The others count, and each is named."""
    nodes, lines = read(
        '<Node hostname="a.org" nodeType="4" timeStamp="7"/><Node hostname="A b"/><Node/>'
        '<Node hostname="a.org" nodeType="8"/><Other hostname="c.org"/>'
    )
    assert [(one.registration.host, one.registration.node_type, one.timestamp_ms) for one in nodes] == [
        ("a.org", 4, 7)
    ]
    assert [line.partition(": ")[2] for line in lines] == [
        "'A b' is not a host name; the node is passed over",
        "'' is not a host name; the node is passed over",
        "a.org stands there twice; the first counts",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no well-formed XML"),
        (b"<Registration>", "no well-formed XML"),
        (b"<html/>", "the root is 'html'"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><Registration/>', "document type declaration"),
        (b"\xff\xfe", "no well-formed XML"),
        (b" " * (16 * 1024 * 1024 + 1), "more than"),
    ],
)
def test_what_is_no_document_is_one_error(content, reason):
    """Name and reason, in one line."""
    with pytest.raises(DocumentError, match=f"^file: .*{reason}"):
        read_document(content, "file")


@given(
    st.binary(max_size=100)
    | st.text(max_size=60).map(lambda text: f"<Registration>{text}</Registration>".encode())
)
def test_any_bytes_are_nodes_or_one_error(content):
    """A file of anybody never raises anything else."""
    try:
        nodes, _ = read_document(content, "file")
    except DocumentError:
        return
    assert nodes == ()


def test_numbers_that_are_none_are_noughts():
    """Neither a sign nor a letter nor a number of a thousand digits does harm."""
    ((found,), _) = read(
        f'<Node hostname="a.org" nodeType="-4" timeStamp="{"9" * 999}"><Metrics><DownloadedData count="x"/></Metrics></Node>'
    )
    assert (found.registration.node_type, found.metrics) == (0, None)
    assert found.timestamp_ms == 2**63 - 1


def test_static_nodes_are_shown_beside_members_and_marked(tmp_path):
    """In the documents and the API, with a status of their own; no member, so not counted."""
    nodes, _ = read_document(document_of(a_view(demo_site(FULL_HOST).registration)), "file")
    view = judged(Policy(static=nodes))
    (node,) = view.nodes
    assert node.is_listed
    assert (node_body(node)["status"], status_body(view)["nodes"]["total"]) == ("static", 0)
    assert FULL_HOST.encode() in document_of(node)
    excluded = judged(Policy(parse_exclusions(FULL_HOST.encode(), "x"), nodes))
    assert not excluded.nodes[0].is_listed


def judged(policy):
    """Judge a registry that holds nothing."""

    class Empty:
        table = Table()
        forks = ()

    standing = Standing(Empty(), [])
    return Judge(Empty(), standing, lambda: policy).view(OWN, STAMP, STAMP)


def test_peer_groups_of_the_site_are_exact_names():
    """One name in common is enough; a name that only begins alike is another."""
    site = demo_site(FULL_HOST).registration
    with_groups = lambda text: attrs.evolve(site, properties={**site.properties, "node.peer.group": text})
    policy = Policy(peer_groups=frozenset({"esgf-prod"}))
    for text, is_in in (
        ("esgf-prod,esgf-test,cssef", True),
        ("esgf-prod", True),
        ("esgf-production", False),
        ("esgf", False),
        ("", False),
    ):
        assert (policy.excluded(FULL_HOST, with_groups(text)) == NodeType(0)) is is_in
    assert policy.excluded(FULL_HOST, None) == NodeType.PRIVATE
    assert Policy().excluded(FULL_HOST, None) == NodeType(0)


def test_the_file_is_read_with_the_site(tmp_path):
    """Missing: nobody; harmed: an error that names it; passed over: findings."""
    files = write_site(1, tmp_path)
    host = site_hosts(1)[0]
    static = tmp_path / "registration_static.xml"
    files = attrs.evolve(files, static=static)
    assert read_site(files, host).static == ()
    static.write_text(ROOT.format('<Node hostname="a.org"/><Node hostname="B"/>'))
    site = read_site(files, host)
    assert [one.registration.host for one in site.static] == ["a.org"]
    assert f"{static}: 'B' is not a host name; the node is passed over" in map(str, site.findings)
    static.write_text("half")
    with pytest.raises(SiteError, match=r"registration_static\.xml: is no well-formed XML"):
        read_site(files, host)


def test_the_real_document_has_thirteen_static_nodes():
    """Every service of the golden extract of 2015 is there."""
    views = [a_view(demo_site(host).registration) for host in site_hosts()]
    nodes, passed_over = read_document(document_of(*views), "file")
    assert (len(nodes), passed_over) == (len(real_nodes()), ())
