"""The lists of whitelists, attributes, shards and LAS servers: from the real sites, and from odd ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from esgf_gossip.demo.site_data import site_hosts
from esgf_gossip.esgf.registration import Group, Registration
from esgf_gossip.esgf.services import RULES
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.lists_xml import GLOBUS_NAME, LISTS, REGISTRY, SHARD_FORMS, USUAL, WHITELIST, is_list
from helpers.site import a_view, demo_site, render_list

HOST = "a.example.org"
WHEEL_SERVICE = "https://localhost/esgf-idp/saml/soap/secure/attributeService.htm"
COUNTS = {
    "esgf_idp.xml": 8,
    "esgf_azs.xml": 13,
    "esgf_ats.xml": 85,
    "esgf_shards.xml": 8,
    "las_servers.xml": 10,
}
NASTY = st.sampled_from(
    ["'", '"', "<", "&", ">", "\n", "\r", "\t", "\x00", "\x85", "\u2028", "\ufffe", " ", "]]>", "</shards>", "ü", "😀",
     "http://", "https://h.example.org:80/", "/", ":", "a", "wheel"]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(NASTY, max_size=6).map("".join), st.text(st.characters(codec="utf-8"), max_size=20)
)
KEYS = sorted({rule.endpoint_key for rule in RULES} | {"index.slave.port", "esgf.host.ip", "node.short.name"})
SITES = st.builds(
    Registration,
    host=st.sampled_from([HOST, "b.example.org", "c.example.org"]),
    node_type=st.just(60),
    properties=st.dictionaries(st.sampled_from(KEYS), TEXTS),
    groups=st.lists(st.builds(Group, TEXTS, TEXTS), max_size=4).map(tuple),
)


def a_site(host: str = HOST, groups: tuple[Group, ...] = (), **properties: str) -> Registration:
    """Return the registration of a full node; ``__`` in a key stands for a dot."""
    return Registration(
        host, 60, {key.replace("__", "."): value for key, value in properties.items()}, groups
    )


def entries(name: str, *sites: Registration, **how: str) -> list[str]:
    """Return the lines between the root's tags."""
    return render_list(name, map(a_view, sites), **how).decode().splitlines()[2:-1]


@pytest.mark.parametrize("name", USUAL)
def test_the_real_sites_give_the_numbers_of_the_java_node_manager(name):
    """Eight identity providers, thirteen authorization services, and so on: what the gleaners wrote in 2015."""
    sites = [demo_site(host).registration for host in site_hosts()]
    assert len(entries(name, *sites)) == COUNTS[name]
    assert entries(name, *sites) == entries(name, *reversed(sites))


def test_the_real_entries_are_those_of_2015():
    """One of each list, letter for letter."""
    sites = [demo_site(host).registration for host in site_hosts()]
    host = "https://esg.pik-potsdam.de"
    assert entries("esgf_idp.xml", *sites)[0] == f"    <value>{host}/esgf-idp/idp/openidServer.htm</value>"
    assert entries("esgf_shards.xml", *sites)[0] == "    <value>esg.pik-potsdam.de:8983/solr</value>"
    assert (
        entries("esgf_shards.xml", *sites, shard_form="host")[0]
        == "    <value>esg.pik-potsdam.de/solr</value>"
    )
    assert entries("las_servers.xml", *sites)[0] == (
        '    <las_server name="PIK-ESGF" url="http://esg.pik-potsdam.de/las" ip="192.168.15.17"/>'
    )
    wheel = [line for line in entries("esgf_ats.xml", *sites) if 'type="wheel"' in line]
    assert len(wheel) == 1
    assert WHEEL_SERVICE in wheel[0]


# The readers of these two know no namespace.
NAMESPACES = {"las_servers.xml": REGISTRY, "esgf_cogs.xml": "", "esgf_known_providers.xml": ""}


@settings(deadline=None)
@given(st.lists(SITES, max_size=4), st.sampled_from(sorted(LISTS)), st.sampled_from(SHARD_FORMS))
def test_every_list_is_what_its_readers_can_bear(sites, name, shard_form):
    """Whatever the sites hold: it parses, one entry a line, none twice, no blank around a text, the root at column 0."""
    content = render_list(name, map(a_view, sites), shard_form)
    root = etree.fromstring(content)
    rule = LISTS[name]
    assert root.tag == (f"{{{rule.namespace}}}{rule.root}" if rule.namespace else rule.root)
    assert rule.namespace == NAMESPACES.get(name, WHITELIST)
    lines = re.split("[\n\r\x85\u2028\u2029]", content.decode())
    assert re.match(f"<{rule.root}[ >]", lines[1])
    assert lines[-2:] == [f"</{rule.root}>", ""]
    assert len(lines) == len(root) + 4
    assert len(set(lines[2:-2])) == len(root)
    for child in [*root.iterfind("OP/NAME"), *root.iterfind("OP/URL")]:
        assert child.text
        assert child.text == child.text.strip()
    for child in () if name == "esgf_known_providers.xml" else root:
        assert not len(child)
        assert not re.search(r"\s", child.text or "")
        assert child.text or child.attrib
    assert is_list(name, content)


@pytest.mark.parametrize(
    ("endpoint", "port", "shard"),
    [
        ("http://a.example.org/esg-search/search", "8984", "a.example.org:8984/solr"),
        ("https://solr.example.org:8443/esg-search", "", "solr.example.org:8983/solr"),
        ("http://a.example.org", "x", "a.example.org:8983/solr"),
        ("ftp://a.example.org/", "80", None),
        ("a.example.org", "80", None),
        ("http://-bad-/", "80", None),
        ("http://a.example.org/ x", "80", None),
        ("", "80", None),
    ],
)
def test_a_shard_has_the_host_of_its_own_endpoint(endpoint, port, shard):
    """No host of another node, no null: an endpoint that names no host gives no shard."""
    first = a_site("0.example.org", index__service__endpoint="http://0.example.org/")
    site = a_site(index__service__endpoint=endpoint, index__slave__port=port)
    expected = ["    <value>0.example.org:8983/solr</value>"]
    assert entries("esgf_shards.xml", first, site) == expected + (
        [f"    <value>{shard}</value>"] if shard else []
    )


def test_groups_become_attributes():
    """Hidden groups and those without a name are left out, a missing registration service is no attribute."""
    service = {"idp__security__attribute__service__endpoint": "https://a.example.org/ats"}
    groups = (
        Group("B", "b & c"), Group("", "nameless"), Group("CORDEX_Users", "hidden"), Group("wheel", "x"), Group("B", "b & c"),
    )  # fmt: skip
    assert entries("esgf_ats.xml", a_site(groups=groups, **service)) == [
        '    <attribute type="B" attributeService="https://a.example.org/ats" description="b &amp; c"/>',
        f'    <attribute type="wheel" attributeService="{WHEEL_SERVICE}" description="Administrator Group"/>',
    ]
    registrar = {"idp__security__registration__service__endpoint": "https://a.example.org/reg"}
    first, *_ = entries("esgf_ats.xml", a_site(groups=groups, **service, **registrar))
    assert first.endswith('registrationService="https://a.example.org/reg"/>')


@pytest.mark.parametrize("status", NodeStatus)
def test_who_is_stale_or_has_left_is_in_no_list(status):
    """Unreachable nodes stay: a list must not flap with the network."""
    site = a_site(idp__service__endpoint="https://a.example.org/idp")
    content = render_list("esgf_idp.xml", [a_view(site, status=status)])
    assert (b"<value>" in content) == (status not in (NodeStatus.STALE, NodeStatus.LEFT))


def test_an_empty_federation_gives_the_root_alone():
    """An empty file makes a portal refuse every login; the root alone is read by all."""
    assert render_list("esgf_idp.xml", []).decode().splitlines()[1:] == [
        '<idp_whitelist xmlns="http://www.esgf.org/whitelist">',
        "</idp_whitelist>",
    ]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"<shards/>", b"<idp_whitelist xmlns='x'>"])
def test_other_bytes_are_no_list(content):
    """Half a file, or another, is not taken over from the disk."""
    assert not is_list("esgf_idp.xml", content)


def test_providers_to_choose_from_are_named_by_what_users_type():
    """The address under which identities lie; a provider of another make is left out, nobody knows where they lie."""
    sites = [demo_site(host).registration for host in site_hosts()]
    found = entries("esgf_known_providers.xml", *sites)
    assert len(found) == COUNTS["esgf_idp.xml"]
    assert found[0] == (
        "    <OP><NAME>ISI-MIP ESGF Node</NAME><URL>https://esg.pik-potsdam.de/esgf-idp/openid/</URL></OP>"
    )
    assert entries("esgf_known_providers.xml", a_site(idp__service__endpoint="https://a.org/other")) == []


def test_sites_of_cog_are_those_with_another_front_end_than_web_fe():
    """Name and domain; the front end of 2015 is not CoG."""
    assert entries("esgf_cogs.xml", demo_site("pcmdi9.llnl.gov").registration) == []
    site = a_site(web__fe__service__endpoint="https://Cog.example.org/projects/", node__short__name="A & B")
    assert entries("esgf_cogs.xml", site) == ['    <site name="A &amp; B" domain="cog.example.org"/>']


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("gsiftp://data.example.org", "data.example.org:2811"),
        ("gsiftp://Data.example.org:2812/", "data.example.org:2812"),
        ("data.example.org:2811", "data.example.org:2811"),
        ("https://data.example.org/", None),
    ],
)
def test_endpoints_of_globus_have_a_name_and_a_place(endpoint, place):
    """Without a name, which readers need, there is none."""
    named = a_site(gridftp__endpoint=endpoint, **{GLOBUS_NAME: "x#y"})
    expected = [] if place is None else [f'    <endpoint name="x#y" gridftp="{place}"/>']
    assert entries("esgf_endpoints.xml", named) == expected
    assert entries("esgf_endpoints.xml", a_site(gridftp__endpoint=endpoint)) == []
