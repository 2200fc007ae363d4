"""registration.xml against the real document of 2015 and against what its readers can bear."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
from defusedxml import ElementTree
from lxml import etree

from esgf_gossip.demo.site_data import site_hosts
from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.esgf.registration import Group, Registration
from esgf_gossip.esgf.site_data import build_registration
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.registration_xml import ElementCache, content_key, render, root_timestamp_ms
from helpers.site import (
    FULL_HOST,
    NAMESPACE,
    a_site,
    a_view,
    demo_site,
    document,
    facts,
    nodes_of,
    real_nodes,
    schema,
    tree,
)

ORDER = [
    "organization", "namespace", "nodePeerGroup", "supportEmail", "hostname", "ip", "dn", "shortName", "longName",
    "timeStamp", "version", "release", "nodeType", "adminPeer", "defaultPeer",
]  # fmt: skip
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "registration-2015-03-13nodes.xml"


def the_real_sites() -> list[Registration]:
    """Return the registrations of the 13 real sites."""
    return [demo_site(host).registration for host in site_hosts()]


def with_required(children: list) -> list:
    """Add what the repaired schema demands and no old writer wrote."""
    return [
        [name, {**a, "endpoint": ""} if name == "GeoLocation" else a, inner] for name, a, inner in children
    ]


@pytest.mark.parametrize("expected", real_nodes(), ids=lambda node: node["attributes"]["hostname"])
def test_a_real_site_is_written_as_it_was_in_2015(expected):
    """Every attribute and element but timeStamp, supportEmail, Metrics and the host certificate."""
    host = expected["attributes"]["hostname"]
    ((_, attributes, children),) = nodes_of(document(demo_site(host).registration))
    assert attributes.pop("timeStamp") == "1425134743242"
    assert attributes.pop("supportEmail") == f"esgf-admin@{host}"
    assert {"dn": "", **expected["attributes"]} == attributes
    assert children.pop() == ["PEMCert", {}, [["Cert", {}, []]]]
    assert with_required(expected["children"]) == children


def test_the_real_document_says_the_same():
    """The document itself, where it lies beside the repository, compared node by node."""
    if not SHARED.is_file():
        pytest.skip(f"the real document is not beside the repository: {SHARED.name}")
    ours = {node.get("hostname"): node for node in etree.fromstring(document(*the_real_sites()))}
    real = {node.get("hostname"): node for node in etree.parse(str(SHARED)).getroot()}
    assert set(real) == set(ours)
    for host, node in real.items():
        expected = dict(node.attrib)
        got = dict(ours[host].attrib)
        for name in ("timeStamp", "supportEmail"):
            del expected[name], got[name]
        assert {"dn": "", **expected} == got
        assert [name for name in expected if name in got] == [n for n in ours[host].attrib if n in expected]
        left_out = {f"{NAMESPACE}Metrics", f"{NAMESPACE}PEMCert"}
        assert with_required([tree(c) for c in node if c.tag not in left_out]) == [
            tree(c) for c in ours[host] if c.tag not in left_out
        ]


def test_the_document_of_all_sites_is_valid_and_laid_out_like_the_real_one():
    """Schema, declaration, four blanks, one start tag a line, nodes sorted by host."""
    content = document(*reversed(the_real_sites()))
    assert schema().validate(etree.fromstring(content)), schema().error_log
    lines = content.decode().splitlines()
    assert lines[0] == '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    assert f'<Registration xmlns="{NAMESPACE[1:-1]}" timeStamp="1425400078007" version="v0.0.1">' == lines[1]
    assert lines[-1] == "</Registration>"
    starts = [line for line in lines if "<Node " in line]
    assert sorted(site_hosts()) == [re.search(' hostname="([^"]*)"', line)[1] for line in starts]
    for line in starts:
        assert [n for n in ORDER if f' {n}="' in line] == re.findall(r' ([A-Za-z]+)="[^"]*"', line)
        assert re.fullmatch('    <Node .*">', line)
    assert '            <Group name="BCCR" description=""/>' in lines


def test_spotcheck_sees_every_node():
    """The sed expression of esgf-spotcheck finds name and type on one line, and no line too many."""
    text = document(*the_real_sites()).decode()
    pattern = re.compile(r'.*hostname="([^"]*)".*nodeType="([^"]*).*$')
    seen = [match.groups() for line in text.split("\n") if (match := pattern.match(line))]
    types = {node["attributes"]["hostname"]: node["attributes"]["nodeType"] for node in real_nodes()}
    assert sorted(types.items()) == seen
    assert sum("hostname" in line for line in text.split("\n")) == 13


def test_sed_reads_the_document_as_spotcheck_does():
    """The stream editor itself, with texts of many languages before and behind the name."""
    sed = shutil.which("sed")
    if sed is None:
        pytest.skip("sed is not installed")
    site = build_registration(
        a_site({"esg.root.id": "Météo-France", "release": "日本 & <co>", "node.dn": '"'})
    )
    script = r's#.*hostname="\([^"]*\)".*nodeType="\([^"]*\).*$#node=\1; nodeType=\2#p'
    done = subprocess.run([sed, "-n", script], input=document(site), capture_output=True, check=True)
    assert done.stdout.decode() == f"node={FULL_HOST}; nodeType=60\n"


def test_no_element_line_counts_as_a_node_for_spotcheck():
    """It counts the lines that hold the word hostname; XML readers see the same text as ever."""
    groups = (Group("hostname", 'hostname="x" nodeType="4"'),)
    site = build_registration(a_site(groups=groups, certificate='hostname="x" nodeType="4"\n'))
    text = document(site).decode()
    assert sum('hostname="' in line and 'nodeType="' in line for line in text.split("\n")) == 1
    (group,) = etree.fromstring(text.encode()).iter(f"{NAMESPACE}Group")
    assert (group.get("name"), group.get("description")) == ("hostname", 'hostname="x" nodeType="4"')


def test_a_document_says_when_and_what_else_it_says():
    """Two documents that differ in the root's time stamp alone have one key."""
    first, second = document(*the_real_sites()), document(*the_real_sites(), timestamp_ms=1_500_000_000_000)
    other = document(*the_real_sites()[:-1])
    assert content_key(first) == content_key(second) != content_key(other)
    assert (root_timestamp_ms(first), root_timestamp_ms(second)) == (1_425_400_078_007, 1_500_000_000_000)
    assert [root_timestamp_ms(b) for b in (b"", b"<Registration timeStamp=''", b"\xff" * 600)] == [0, 0, 0]


def test_an_empty_federation_is_an_empty_registration():
    """The document is never empty and always closed."""
    root = etree.fromstring(document())
    assert (etree.QName(root).localname, len(root)) == ("Registration", 0)


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({}, True),
        ({"status": NodeStatus.UNREACHABLE}, True),
        ({"status": NodeStatus.STALE}, False),
        ({"status": NodeStatus.LEFT}, False),
        ({"registration": None}, False),
        ({"host": "other.org"}, False),
    ],
)
def test_only_listed_nodes_under_their_own_name_are_written(changes, listed):
    """Nobody writes a node under another's name."""
    view = attrs.evolve(a_view(demo_site(FULL_HOST).registration), **changes)
    assert listed == (b"<Node " in render([view], 1, ElementCache()))


def test_the_time_stamp_of_a_node_is_that_of_its_registration():
    """Not that of its last digest."""
    view = a_view(demo_site(FULL_HOST).registration, issued_at_ms=9, registration_issued_at_ms=7)
    assert b' timeStamp="7" version="v1.7.1' in render([view], 1, ElementCache())


def test_metrics_are_written_only_where_given_and_for_data_nodes():
    """DownloadedData always, RegisteredUsers where somebody counted."""
    given, cache = build_registration(a_site()), ElementCache()

    def metered(site, *numbers):
        return render([a_view(site, metrics=Metrics(*numbers))], 1, cache)

    found = etree.fromstring(metered(given, 1, 2, 3, 4)).find(f".//{NAMESPACE}Metrics")
    assert [dict(one.attrib) for one in found] == [
        {"count": "1", "size": "2", "users": "3"},
        {"count": "4"},
    ]
    assert schema().validate(etree.fromstring(metered(given, 1, 2, 3, 4)))
    # New numbers are shown although the registration, and its time stamp, are the same.
    assert b'count="9"' in metered(given, 9, 2, 3)
    assert b"RegisteredUsers" not in metered(given, 9, 2, 3)
    assert b"Metrics" not in metered(attrs.evolve(given, node_type=56), 1, 2, 3, 4)
    assert b"Metrics" not in document(given)


def test_a_host_certificate_is_written_as_text():
    """Line by line as the file has it, NOT_AVAILABLE without one, nothing for a node without data."""
    text = "Certificate:\n    Data: <x> & y\n"
    given = attrs.evolve(build_registration(a_site()), certificate=text)
    assert text == etree.fromstring(document(given)).findtext(f".//{NAMESPACE}Cert")
    assert (
        etree.fromstring(document(build_registration(a_site()))).findtext(f".//{NAMESPACE}Cert")
        == "NOT_AVAILABLE"
    )
    assert b"PEMCert" not in document(attrs.evolve(given, node_type=56))


BAD = {
    "esg.root.id": ("O'Neill \\ Inst\nitute", "organization", "O\u2019Neill / Inst itute"),
    "node.peer.group": (" a , b,, c d ,e'", "nodePeerGroup", "a,b,c_d,e\u2019"),
    "mail.admin.address": ("o'x@h", "supportEmail", "o\u2019x@h"),
    "esgf.host.ip": ("9" * 64, "ip", "unknown"),
    "version": ("\x00", "version", "unknown"),
    "release": ("", "release", "unknown"),
    "node.short.name": (" ", "shortName", FULL_HOST),
    "node.long.name": ("d'\u2028x", "longName", "d' x"),
    "node.dn": ('/CN="<&>"', "dn", '/CN="<&>"'),
}


@pytest.mark.parametrize("key", BAD)
def test_what_breaks_a_reader_is_replaced_on_output(key):
    """Registrations of others cannot be refused at their origin, so the writer holds the rules."""
    value, attribute, expected = BAD[key]
    assert expected == facts(build_registration(a_site({key: value})))[f"Node#0@{attribute}"]


@pytest.mark.parametrize("value", ["x" * 300, "ü" * 200, "a," * 2000 + "b", "y" * 4096])
def test_stored_texts_fit_the_columns_of_the_dashboard(value):
    """A value too long would undo the import of all nodes."""
    found = facts(
        build_registration(a_site({"esg.root.id": value, "node.peer.group": value, "version": value}))
    )
    sizes = [len(found[f"Node#0@{name}"].encode()) for name in ("organization", "nodePeerGroup", "version")]
    assert [0 < size <= 255 for size in sizes] == [True] * 3


@pytest.mark.parametrize("properties", [{"node.geolocation.lat": None}, {"node.geolocation.lon": "x"}])
def test_geo_location_is_always_written(properties):
    """Without coordinates they are empty, so the dashboard looks them up and the lists of acme-web-fe do not shift."""
    found = facts(build_registration(a_site(properties)))
    expected = {"lat": "", "lon": "", "city": "Livermore", "endpoint": ""}
    assert expected == {name: found[f"Node/GeoLocation#0@{name}"] for name in expected}


def test_an_endpoint_that_overflows_the_dashboard_is_no_service():
    """Its buffer for the address of the node manager holds 2,048 bytes."""
    found = facts(build_registration(a_site({"node.manager.service.endpoint": "http://" + "x" * 2000})))
    assert "Node/NodeManager#0@" not in found


def test_defused_readers_take_the_document():
    """No declaration, entity or instruction that a careful parser refuses."""
    root = ElementTree.fromstring(document(*the_real_sites()))
    assert [f"{NAMESPACE}Node"] * 13 == [child.tag for child in root]


def test_one_changed_node_among_a_thousand_costs_one_element():
    """Elements of nodes that did not change are kept, and nothing else is."""
    registration = build_registration(a_site())
    views = [a_view(attrs.evolve(registration, host=f"n{n}.org")) for n in range(1000)]
    cache = ElementCache()
    render(views, 1, cache)
    before = {id(element) for element in cache._elements.values()}
    views[500] = attrs.evolve(views[500], registration_issued_at_ms=2)
    content = render(views, 2, cache)
    after = {id(element) for element in cache._elements.values()}
    assert (len(after), len(after & before)) == (1000, 999)
    assert content == render(views, 2, ElementCache())
    assert len(views) == content.count(b"<Node ")
