"""Laws of the Registration and its document for any input: bytes, properties, names."""

from __future__ import annotations

import re

import attrs
import msgpack
import pytest
from defusedxml import ElementTree
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from esgf_gossip.core import limits
from esgf_gossip.esgf import reader_rules
from esgf_gossip.esgf.metrics import COUNT_MAX, Metrics
from esgf_gossip.esgf.registration import Group, Registration, RegistrationError
from esgf_gossip.esgf.site_data import PUBLISHED_KEYS, build_registration
from esgf_gossip.views.registration_xml import ElementCache, render
from helpers.site import FULL_HOST, FULL_PROPERTIES, a_site, a_view, document, facts, schema

# Text of strangers: everything that UTF-8 can carry, and often what breaks a reader.
NASTY = st.sampled_from(
    ["'", "\\", '"', "<", "&", "\n", "\r", "\t", "\x00", "\x85", "\u2028", "\ufffe", ",", " ", "-->", "]]>", "hostname",
     'hostname="x" nodeType="4"', "<Node ", "$(id)", "ü", "😀", "a", "a,b"]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.lists(NASTY, max_size=12).map("".join),
    st.sampled_from(
        ["x" * 4096, "a," * 2000, "ü" * 300, "", " ", "37.5", "http://h:80/x", "bdm end-user junk"]
    ),
)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?(\.[a-z0-9]{1,6}){0,3}", fullmatch=True)
PROPERTIES = st.dictionaries(
    st.one_of(st.sampled_from(sorted(PUBLISHED_KEYS)), TEXTS.map(lambda t: t[:128])), TEXTS
)
REGISTRATIONS = st.builds(
    Registration,
    host=HOSTS,
    node_type=st.one_of(st.sampled_from([4, 36, 60]), st.integers(0, 2**31 - 1)),
    properties=PROPERTIES,
    groups=st.lists(st.builds(Group, TEXTS.map(lambda t: t[:256]), TEXTS), max_size=8).map(tuple),
    certificate=TEXTS,
    withheld=st.frozensets(st.sampled_from(["LASService", "x"])),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(REGISTRATIONS)
def test_a_registration_survives_its_body(registration):
    """Encoding and decoding give an equal value with equal bytes and an equal hash."""
    body = registration.to_body()
    if len(body) <= limits.ENTRY_BYTES:
        again = Registration.from_body(body)
        assert (registration, body, hash(registration)) == (again, again.to_body(), hash(again))


def decoded(body: bytes) -> Registration | RegistrationError:
    """Decode, or return the refusal; any other exception escapes."""
    try:
        return Registration.from_body(body)
    except RegistrationError as error:
        return error


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_registration_or_its_error(body):
    """Never another exception."""
    assert isinstance(decoded(body), Registration | RegistrationError)


@settings(deadline=None)
@given(REGISTRATIONS, st.integers(0, 4000), st.binary(max_size=4))
def test_a_damaged_body_gives_a_registration_or_its_error(registration, position, junk):
    """A body with bytes overwritten, cut off or appended."""
    body = registration.to_body()
    position %= len(body)
    for damaged in (body[:position], body[:position] + junk + body[position + len(junk) :], body + junk):
        assert isinstance(decoded(damaged), Registration | RegistrationError)


@settings(deadline=None)
@given(
    st.sampled_from(["host", "type", "properties", "groups", "certificate", "metrics", "withheld"]), ANYTHING
)
def test_a_field_of_any_shape_gives_a_registration_or_its_error(field, value):
    """Each field is checked for type, length and count before it is believed; what is taken can be written."""
    fields = {"host": "h.org", "type": 60, "properties": {}, field: value}
    taken = decoded(msgpack.packb(fields))
    if isinstance(taken, Registration):
        assert taken == decoded(taken.to_body())
        check_document(document(taken), 1)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6), ANYTHING, max_size=3))
def test_unknown_fields_are_ignored(more):
    """A newer node may say more."""
    known = {"host": "h.org", "type": 4, "properties": {"version": "1"}}
    fields = {**{f"x-{key}": value for key, value in more.items()}, **known}
    assert Registration("h.org", 4, {"version": "1"}) == Registration.from_body(msgpack.packb(fields))


@settings(deadline=None)
@given(st.lists(REGISTRATIONS, max_size=4, unique_by=lambda r: r.host))
def test_every_document_keeps_the_rules(registrations):
    """Whatever strangers publish, every reader reads every node."""
    content = document(*registrations)
    check_document(content, len(registrations))
    assert sorted(r.host for r in registrations) == [n.get("hostname") for n in etree.fromstring(content)]


@settings(deadline=None)
@given(REGISTRATIONS, st.builds(Metrics, *[st.none() | st.integers(0, COUNT_MAX)] * 4))
def test_every_document_with_numbers_keeps_the_rules(registration, metrics):
    """Whatever a node counts or does not count."""
    check_document(render([a_view(registration, metrics=metrics)], 1, ElementCache()), 1)


def check_document(content: bytes, node_count: int) -> None:
    """Check the rules that hold for every document, as its readers would notice."""
    root = etree.fromstring(content)
    assert node_count == len(ElementTree.fromstring(content))
    assert not node_count or schema().validate(root), schema().error_log
    text = content.decode()
    # One <Node start tag on each line that has one, for readers that split lines by \n or as Python does.
    assert node_count == text.count("<Node ") == sum("<Node " in line for line in text.splitlines())
    pattern = re.compile(r'.*hostname="([^"]*)".*nodeType="([^"]*).*$')
    seen = [match[1] for line in text.split("\n") if (match := pattern.match(line))]
    assert [node.get("hostname") for node in root] == seen
    assert node_count == sum("hostname" in line for line in text.split("\n"))
    assert all(reader_rules.is_host_name(host) for host in seen)
    assert len(text.split("\n")) == text.count("\n") + 1 == len(text.splitlines()) + 1
    for node in root:
        required = ("organization", "nodePeerGroup", "ip", "hostname", "nodeType", "release", "version", "shortName",
                    "adminPeer")  # fmt: skip
        assert all(node.get(name) for name in required)
        (geo,) = node.iterfind("{*}GeoLocation")
        feeds = [feed.get("title") for feed in node.iter("{*}RSSFeed")]
        stored = [node.get(name) or "" for name in (*required[:-2], "supportEmail")] + [
            geo.get("city"),
            *feeds,
        ]
        assert not any("'" in value or "\\" in value or len(value.encode()) > 255 for value in stored)
        assert geo.get("city")
        assert not re.search(r"\s|,,|^,|,$", node.get("nodePeerGroup"))
        assert len(node.get("ip")) <= 63
        for port in (e.get("port") for e in node.iter("{*}IndexService", "{*}Configuration")):
            assert reader_rules.is_port(port)


@settings(deadline=None)
@given(st.text(max_size=30).filter(lambda name: not reader_rules.is_host_name(name)))
def test_a_node_without_a_strict_name_is_not_written(host):
    """Spotcheck evaluates the names of the document."""
    view = a_view(Registration(host, 60, {"version": "1"}))
    assert b"<Node " not in render([view], 1, ElementCache())


@pytest.mark.parametrize(
    "body",
    [b"\x91" * 65536, b"\x81\xa1a" * 20000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"x" * 65537],
)
def test_deep_and_large_claims_are_refused(body):
    """Depth and lengths that only claim to be there cost nothing."""
    with pytest.raises(RegistrationError):
        Registration.from_body(body)


# Which facts of the document a property may change; all others stay as they are.
ATTRIBUTES = {
    "esg.root.id": ["Node#0@organization"],
    "node.namespace": ["Node#0@namespace"],
    "node.peer.group": ["Node#0@nodePeerGroup"],
    "mail.admin.address": ["Node#0@supportEmail"],
    "esgf.host.ip": ["Node#0@ip"],
    "node.dn": ["Node#0@dn"],
    "node.short.name": ["Node#0@shortName"],
    "node.long.name": ["Node#0@longName"],
    "version": ["Node#0@version"],
    "release": ["Node#0@release"],
    "esgf.default.peer": ["Node#0@defaultPeer"],
    "security.ca.hash": ["Node/CA#0@hash"],
    "security.ca.dn": ["Node/CA#0@dn"],
    "node.geolocation.city": ["Node/GeoLocation#0@city"],
    "node.manager.service.endpoint": ["Node/NodeManager#0@endpoint"],
    "idp.service.endpoint": ["Node/OpenIDProvider#0@endpoint"],
    "web.fe.service.endpoint": ["Node/FrontEnd#0@endpoint"],
    "index.service.endpoint": ["Node/IndexService#0@endpoint"],
    "idp.security.attribute.service.endpoint": ["Node/AttributeService#0@endpoint"],
    "orp.security.authorization.service.endpoint": ["Node/AuthorizationService#0@endpoint"],
    "idp.security.registration.service.endpoint": ["Node/RegistrationService#0@endpoint"],
    "thredds.service.endpoint": ["Node/ThreddsService#0@endpoint"],
    "gridftp.endpoint": ["Node/GridFTPService#0@endpoint"],
    "esgf.feed.datasets.title": ["Node/RSSFeeds/RSSFeed#0@title"],
    "las.service.endpoint": ["Node/LASService#0@endpoint"],
    "myproxy.endpoint": ["Node#0@adminPeer", "Node/MyProxyService#0@endpoint"],
    "mproxy.dn": ["Node/MyProxyService#0@dn"],
    "publishing.service.endpoint": ["Node/PublishingService#0@endpoint"],
    "orp.service.endpoint": ["Node/RelyingPartyService#0@endpoint"],
}
NUMBERS = {
    "node.geolocation.lat": ["Node/GeoLocation#0@lat"],
    "node.geolocation.lon": ["Node/GeoLocation#0@lon"],
    "index.slave.port": ["Node/IndexService#0@port"],
    "gridftp.bdm.server.port": ["Node/GridFTPService/Configuration#0@port"],
    "gridftp.server.port": ["Node/GridFTPService/Configuration#1@port"],
}
BEFORE = facts(build_registration(a_site()))
PLAIN = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters=":,'\\@"),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(ATTRIBUTES)), PLAIN)
def test_one_property_changes_its_attribute_and_nothing_else(key, value):
    """The value comes out character for character."""
    after = facts(build_registration(a_site({key: value})))
    assert {**BEFORE, **dict.fromkeys(ATTRIBUTES[key], value)} == after


@settings(deadline=None)
@given(st.sampled_from(sorted(NUMBERS)), st.integers(1, 90).map(str))
def test_one_number_changes_its_attribute_and_nothing_else(key, value):
    """Coordinates and ports come out as they are written."""
    after = facts(build_registration(a_site({key: value})))
    assert {**BEFORE, **dict.fromkeys(NUMBERS[key], value)} == after


@settings(deadline=None)
@given(st.sampled_from(sorted(set(FULL_PROPERTIES) - PUBLISHED_KEYS)), TEXTS)
def test_other_properties_change_nothing(key, value):
    """What is not named does not reach the document, nor the body."""
    site = a_site({key: value})
    assert build_registration(a_site()).to_body() == build_registration(site).to_body()


def test_every_published_key_is_tried():
    """A key that joins the list must join the tables above."""
    assert PUBLISHED_KEYS - {"esgf.host", "gridftp.config"} == set(ATTRIBUTES) | set(NUMBERS)


@settings(deadline=None)
@given(st.sampled_from(sorted(PUBLISHED_KEYS - {"esgf.host"})))
def test_a_missing_property_removes_nothing_but_its_own(key):
    """Old node managers lost all child elements for one missing key."""
    after = facts(build_registration(a_site({key: None})))
    own = {
        name.partition("@")[0].split("/")[-1].split("#")[0] for name in (ATTRIBUTES | NUMBERS).get(key, [])
    }
    lost = {name.partition("@")[0].split("/")[-1].split("#")[0] for name in set(BEFORE) - set(after)}
    inner = {"Group", "Configuration", "RSSFeeds", "RSSFeed", "Node"}
    assert lost <= own | inner
    assert after["Node#0@hostname"] == FULL_HOST


@settings(deadline=None)
@given(REGISTRATIONS)
def test_equal_registrations_share_one_element(registration):
    """A registration decoded anew from equal bytes is found in the cache."""
    cache = ElementCache()
    render([a_view(registration)], 1, cache)
    kept = next(iter(cache._elements.values()))
    render([a_view(attrs.evolve(registration))], 2, cache)
    assert kept is next(iter(cache._elements.values()))
