"""From a site's files to the Registration: what leaves the host, what is refused, what is reported."""

from __future__ import annotations

import pytest

from esgf_gossip.core import limits
from esgf_gossip.demo.site_data import site_hosts, write_site
from esgf_gossip.esgf import reader_rules, registration
from esgf_gossip.esgf.registration import Group, Location, Registration
from esgf_gossip.esgf.services import RULES, Service
from esgf_gossip.esgf.site_data import PUBLISHED_KEYS, Finding, SiteError, build_registration, find_problems
from esgf_gossip.sources.site import SiteFiles, read_site
from helpers.site import FULL_HOST, FULL_PROPERTIES, a_site


def built(properties=None, **changes) -> Registration:
    """Build the registration of a changed full node."""
    return build_registration(a_site(properties, **changes))


def problems(properties=None, **changes) -> list[str]:
    """List the findings of a changed full node as lines."""
    return [str(finding) for finding in find_problems(a_site(properties, **changes))]


def test_only_named_and_listed_keys_leave_the_host():
    """Passwords, database names and paths stay at home unless the administrator lists a key."""
    left = set(built({"my.key": "1", "db.password": "secret"}, publish=("my.key", "not.set")).properties)
    assert (PUBLISHED_KEYS & set(FULL_PROPERTIES)) | {"my.key"} == left


def test_no_path_is_published():
    """The table of services names the paths, yet they are no one else's business."""
    assert set() == {key for key in PUBLISHED_KEYS if "home" in key}


@pytest.mark.parametrize("value", ["http://u:p@h/x", "postgresql://u:p/w@h", "see x://a:b@c and y", "x://:@"])
def test_credentials_never_leave_the_host(value):
    """Neither the body nor the finding holds the value, whoever listed the key."""
    site = a_site({"my.url": value, "thredds.service.endpoint": value}, publish=("my.url",))
    assert {"my.url", "thredds.service.endpoint"} & set(build_registration(site).properties) == set()
    assert value.encode() not in build_registration(site).to_body()
    found = [str(finding) for finding in find_problems(site)]
    text = "holds a user name and password; it does not leave this host"
    assert [f"esgf.properties: thredds.service.endpoint: {text}", f"esgf.properties: my.url: {text}"] == found


def test_credentials_in_a_group_never_leave_the_host():
    """A description is as public as a property."""
    groups = (Group("a", "ask https://u:p@h"), Group("b", "fine"))
    assert (Group("b", "fine"),) == built(groups=groups).groups
    assert len(problems(groups=groups)) == 1


def test_an_address_with_a_port_is_no_password():
    """Ordinary endpoints with ports and mail addresses are published."""
    assert problems({"thredds.service.endpoint": "http://h:8080/x", "mail.admin.address": "a@b.org"}) == []


def test_groups_that_java_never_showed_stay_at_home():
    """The filter is applied where Java applied it, in the select; wheel stays."""
    groups = tuple(
        Group(name, "") for name in ("wheel", "CORDEX_Users", "Guests", "nobody", "ROOTS", "CMIP5")
    )
    assert [group.name for group in built(groups=groups).groups] == ["wheel", "CMIP5"]
    assert len(problems(groups=groups)) == 4
    assert problems(groups=groups, node_type=4) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"properties": {"esgf.host": None}},
            "esgf.properties: esgf.host: is missing; write esgf.host=pcmdi9.llnl.gov",
        ),
        (
            {"properties": {"esgf.host": "PCMDI9.llnl.gov"}},
            "esgf.properties: esgf.host: 'PCMDI9.llnl.gov' is not a host name; write it in lower case, without blanks",
        ),
        (
            {"properties": {"esgf.host": "other.org"}},
            "esgf.properties: esgf.host: other.org is not this node's host pcmdi9.llnl.gov; make both equal",
        ),
        (
            {"certificate": "x\n-----BEGIN RSA PRIVATE KEY-----\n"},
            "host certificate: the file holds a PRIVATE KEY; name the file of the certificate alone",
        ),
        (
            {"properties": {"node.long.name": "x" * 4097}},
            "esgf.properties: node.long.name: 4097 characters, at most 4096 can be published; shorten it",
        ),
        (
            {"groups": tuple(Group(f"g{n}", "") for n in range(registration.GROUPS + 1))},
            "groups: more than 1024 groups; publish fewer",
        ),
        (
            {"groups": (Group("g" * 257, ""),)},
            f"groups: {'g' * 80!r}: name or description too long; shorten it",
        ),
        ({"certificate": "x" * 32769}, "host certificate: 32769 characters, at most 32768"),
    ],
)
def test_what_cannot_be_published_is_refused_in_one_line(changes, message):
    """Place, what is wrong, what to do."""
    with pytest.raises(SiteError) as caught:
        built(**changes)
    assert message == str(caught.value)


def test_a_registration_larger_than_an_entry_is_refused():
    """The whole is bounded, not only its parts."""
    groups = tuple(Group(f"g{n}", "x" * 4000) for n in range(20))
    with pytest.raises(SiteError, match=r"^esgf.properties: the registration takes \d+ bytes, at most 65536"):
        built(groups=groups)
    assert len(built(groups=groups[:15]).to_body()) <= limits.ENTRY_BYTES


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("esg.root.id", "Institut d'Astronomie", "apostrophe"),
        ("esg.root.id", "", "is missing or empty; readers see unknown"),
        ("node.long.name", "a\nb", "control characters"),
        ("node.peer.group", "a, b", "blanks around commas"),
        ("node.peer.group", "a b", "blank inside a name"),
        ("esgf.host.ip", "1" * 64, "too long for an address"),
        ("node.geolocation.lat", "37,5", "is not a number of degrees"),
        ("node.geolocation.lat", "91", "is not a number of degrees"),
        ("node.geolocation.lon", None, "is missing or empty; readers see no coordinates"),
        ("node.geolocation.city", None, "is missing or empty; readers see unknown"),
        ("version", "v" * 256, "is longer than 255 bytes"),
        ("index.slave.port", "8983x", "is not a port"),
        ("gridftp.config", "bdm other", "the others are left out"),
        ("las.service.endpoint", "http://h/las ", "begins or ends with a blank"),
        ("myproxy.endpoint", None, "is missing or empty; readers see the host name"),
    ],
)
def test_what_a_reader_cannot_bear_is_reported(key, value, word):
    """One finding that names the key; the node publishes nevertheless."""
    (finding,) = find_problems(a_site({key: value}))
    assert isinstance(finding, Finding)
    assert finding.place == f"esgf.properties: {key}"
    assert word in finding.text
    assert build_registration(a_site({key: value})).host == FULL_HOST


def test_an_unset_listed_key_is_reported():
    """A misspelt key in [esgf] publish does not pass in silence."""
    assert problems(publish=("no.such",)) == [
        "esgf.properties: no.such: is listed in [esgf] publish and not set"
    ]


def test_readings_of_a_full_node():
    """What the JSON views show."""
    full = built()
    assert (full.organization, full.namespace) == ("llnl", "gov.llnl")
    assert full.peer_groups == ("esgf-prod", "esgf-test", "cssef")
    assert (full.short_name, full.long_name) == ("esgf-pcmdi-9", "PCMDI ESGF P2P NODE 9")
    assert Location(37.412192, -121.425586, "Livermore") == full.location
    assert full.node_types == ("data", "index", "idp", "compute")
    assert [rule.type for rule in RULES] == [service.type for service in full.services]
    by_type = {service.type: service for service in full.services}
    assert Service("MyProxyService", FULL_HOST, (("dn", "/O=ESGF/CN=myproxy"),)) == by_type["MyProxyService"]
    assert by_type["IndexService"].attributes == (("port", "8983"),)
    assert by_type["GridFTPService"].configurations == (("Replication", "2812"), ("Download", "2811"))


def test_defaults_invent_nothing():
    """A bare node says unknown, or its own host name, and stands nowhere."""
    bare = Registration("h.org", 4)
    assert [
        bare.organization,
        bare.peer_group,
        bare.ip,
        bare.version,
        bare.release,
        bare.location.city,
    ] == ["unknown"] * 6
    assert [bare.short_name, bare.admin_peer, bare.default_peer] == ["h.org", "h.org", "pcmdi9.llnl.gov"]
    assert (bare.location.lat, bare.location.lon) == (None, None)
    assert (bare.services, bare.peer_groups, bare.dn) == ((), (), "")


@pytest.mark.parametrize(
    ("given", "expected"), [("h:7512", "h"), ("h", "h"), (":1", FULL_HOST), (None, FULL_HOST)]
)
def test_admin_peer_is_the_myproxy_host(given, expected):
    """Without the property the Java node manager lost all child elements."""
    assert expected == built({"myproxy.endpoint": given}).admin_peer


@pytest.mark.parametrize(
    ("given", "expected"), [("80", "80"), (" 80 ", "80"), ("0", "8983"), ("x", "8983"), (None, "8983")]
)
def test_index_port_is_a_port_or_the_default(given, expected):
    """The lists of shards are made of it."""
    (index,) = [s for s in built({"index.slave.port": given}).services if s.type == "IndexService"]
    assert (("port", expected),) == index.attributes


@pytest.mark.parametrize(
    ("node_type", "missing"),
    [
        (4, {"OpenIDProvider", "FrontEnd", "IndexService", "AttributeService", "RegistrationService", "LASService",
             "MyProxyService", "PublishingService"}),
        (60, set()),
        (0, {rule.type for rule in RULES} - {"NodeManager"}),
    ],
)  # fmt: skip
def test_services_follow_the_node_type(node_type, missing):
    """A property alone does not make a service."""
    expected = [rule.type for rule in RULES if rule.type not in missing]
    assert expected == [service.type for service in built(node_type=node_type).services]


def test_a_site_is_read_from_its_files(tmp_path):
    """Properties stay readable here, whatever leaves the host."""
    site = read_site(write_site(1, tmp_path), FULL_HOST, publish=("db.host",))
    assert (site.registration.node_type, len(site.registration.groups), site.findings) == (60, 35, ())
    assert (site.registration.properties["db.host"], site.properties["db.user"]) == ("localhost", "dbsuper")


def test_a_service_without_its_program_is_not_advertised_where_asked(tmp_path):
    """The path test of the Java node manager is an option, and costs nothing but the service."""
    files = write_site(1, tmp_path)
    lines = files.properties.read_text().replace("=/usr/local/tomcat/webapps/thredds\n", f"={tmp_path}\n")
    files.properties.write_text(lines)
    checked = read_site(files, FULL_HOST, check_app_home=True).registration
    assert [service.type for service in checked.services] == ["ThreddsService"]
    assert checked.admin_peer == FULL_HOST


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("esgf.properties", None, "No such file or directory; see [esgf] in node.toml"),
        ("esgf.properties", b"a=\\u1", "at or after line 1"),
        ("config_type", None, "No such file or directory"),
        ("config_type", b"all\n", "is not a node type"),
        ("config_type", b"6" * 5000, "more than 4096 bytes; is it the right file?"),
        ("groups.txt", None, "No such file or directory"),
        ("groups.txt", b"wheel", "is no group"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name, content, message):
    """The administrator sees which file, where, and what to do."""
    files = write_site(1, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SiteError) as caught:
        read_site(files, FULL_HOST)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_groups_and_certificate_are_optional(tmp_path):
    """A node without a file of groups has none; a certificate is published where it is named."""
    files = write_site(1, tmp_path)
    assert read_site(SiteFiles(files.properties, files.config_type), FULL_HOST).registration.groups == ()
    (tmp_path / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    named = SiteFiles(files.properties, files.config_type, certificate=tmp_path / "cert.pem")
    assert read_site(named, FULL_HOST).registration.certificate == "-----BEGIN CERTIFICATE-----\n"


def test_demo_sites_have_no_findings(tmp_path):
    """Real sites pass; copies too, under their own names."""
    for host in site_hosts(16):
        site = read_site(write_site(host, tmp_path / host), host)
        assert (host, ()) == (site.registration.host, site.findings)


def test_copies_of_demo_sites_carry_their_host_everywhere(tmp_path):
    """No value of a copy names the original."""
    assert site_hosts(15)[13:] == ["n14.pcmdi9.llnl.gov", "n15.esgf-data.dkrz.de"]
    write_site(14, tmp_path)
    text = (tmp_path / "esgf.properties").read_text()
    assert text.count("pcmdi9.llnl.gov") == text.count("n14.pcmdi9.llnl.gov") == 20
    assert len(set(site_hosts())) == 13


@pytest.mark.parametrize("site", [0, -1, "nowhere.org", "nx.pcmdi9.llnl.gov", "../x"])
def test_an_unknown_demo_site_is_an_error(tmp_path, site):
    """A name is looked up, never used as a path."""
    with pytest.raises(ValueError, match="there is no demo site"):
        write_site(site, tmp_path)


def test_looking_for_credentials_is_linear():
    """A text that repeats the start of an address is judged as fast as another."""
    assert not reader_rules.has_credentials("://" * 1_000_000)
    assert reader_rules.has_credentials("://" * 1_000_000 + "@")
