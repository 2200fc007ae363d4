"""esgf_excludes.txt: who is left out of which file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.demo.site_data import write_site
from esgf_gossip.esgf.exclusions import LINES, Exclusions, ExclusionsError, parse_exclusions
from esgf_gossip.esgf.node_type import ALL, NO_TYPE, NodeType
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.site_data import SiteError
from esgf_gossip.sources.site import SiteFiles, read_site
from esgf_gossip.views import lists_xml, registration_xml
from esgf_gossip.views.node_json import node_body
from helpers.site import FULL_HOST, a_view, render_list

HOST = "c.org"
DATA, INDEX, IDP, COMPUTE, PRIVATE = (
    NodeType.DATA,
    NodeType.INDEX,
    NodeType.IDP,
    NodeType.COMPUTE,
    NodeType.PRIVATE,
)
FULL = Registration(
    HOST,
    60,
    {
        "idp.service.endpoint": "https://c.org/idp",
        "orp.security.authorization.service.endpoint": "https://c.org/azs",
        "index.service.endpoint": "http://c.org/search",
        "las.service.endpoint": "http://c.org/las",
    },
)


@pytest.mark.parametrize(
    ("line", "types"),
    [
        ("c\\.org", PRIVATE),
        ("c.org", PRIVATE),
        ("c.org IDP", IDP),
        ("c.org=IDP", IDP),
        ("c.org = idp", IDP),
        ("c.org INDEX,IDP", INDEX | IDP),
        ("c.org INDEX|IDP+COMPUTE DATA", ALL),
        ("c.org\tALL", ALL),
        ("c.org ALL PRIVATE", ALL | PRIVATE),
        ("c.org INDEX INDEX", INDEX),
        ("c.org nonsense", PRIVATE),
        ("c.org IDP nonsense", IDP | PRIVATE),
        ("c.org ,", PRIVATE),
        ("^c.org$ DATA\nrg$ IDP", DATA | IDP),
        ("# c.org", NO_TYPE),
        ("\n \n  # c.org ALL\n", NO_TYPE),
        ("d.org ALL", NO_TYPE),
        ("^org ALL", NO_TYPE),
    ],
)
def test_a_line_excludes_types(line, types):
    """The syntax of the old node manager; types are joined, never added up."""
    assert parse_exclusions(line.encode()).of(HOST) == types


def test_an_expression_is_searched_for():
    """As before it need not begin or end where the name does."""
    found = parse_exclusions(b"c\\.org IDP")
    assert [found.of(host) for host in ("sub.c.org.uk", "cxorg")] == [IDP, NO_TYPE]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"# one\n[ IDP", "esgf_excludes.txt:2: '[' is no regular expression"),
        (b"*", "esgf_excludes.txt:1: '*' is no regular expression"),
        (b"a\n" * (LINES + 1), f"esgf_excludes.txt:{LINES + 1}: more than {LINES} lines"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(content, says):
    """Nothing is guessed: half the exclusions would let somebody in."""
    with pytest.raises(ExclusionsError) as caught:
        parse_exclusions(content)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_give_exclusions_or_an_error(content):
    """No other exception, whatever stands in the file."""
    try:
        found = parse_exclusions(content)
    except ExclusionsError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either outcome is right
    else:
        assert found.of(HOST) <= ALL | PRIVATE


@pytest.mark.parametrize(
    ("types", "absent"),
    [
        (NO_TYPE, set()),
        (IDP, {"esgf_idp.xml"}),
        (DATA, {"esgf_azs.xml"}),
        (INDEX, {"esgf_shards.xml"}),
        (COMPUTE, {"las_servers.xml"}),
        (ALL, {"esgf_idp.xml", "esgf_azs.xml", "esgf_shards.xml", "las_servers.xml"}),
        (PRIVATE, {"esgf_idp.xml", "esgf_azs.xml", "esgf_shards.xml", "las_servers.xml", "registration.xml"}),
    ],
)
def test_each_list_is_excluded_by_its_own_type(types, absent):
    """ALL hides from the lists, PRIVATE from every file; the API still shows the node, and says so."""
    node = a_view(FULL, excluded=types)
    files = {name: render_list(name, [node]) for name in lists_xml.USUAL}
    del files["esgf_ats.xml"]  # no groups, no lines
    files["registration.xml"] = registration_xml.render([node], 1)
    assert {name for name, content in files.items() if HOST.encode() not in content} == absent
    assert node_body(node)["host"] == HOST
    assert len(node_body(node)["excluded"]) == len(types)


def test_the_file_is_read_with_the_site(tmp_path):
    """It is optional; where it is named it must be there, and right."""
    files = write_site(1, tmp_path)
    assert read_site(files, FULL_HOST).exclusions == Exclusions()
    path = tmp_path / "esgf_excludes.txt"
    named = SiteFiles(files.properties, files.config_type, excludes=path)
    for content in (None, b"( IDP"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SiteError, match="esgf_excludes"):
            read_site(named, FULL_HOST)
    path.write_bytes(b"c.org IDP\n")
    assert read_site(named, FULL_HOST).exclusions.of(HOST) == IDP
