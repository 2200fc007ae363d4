"""What a publisher asks of an index, read with patience; calls of a publisher."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.tracking import record_fields
from esgf_gossip.tracking.publisher_calls import Call, is_success, read_call
from esgf_gossip.tracking.sightings import SeenFile
from helpers.sightings import MASTER, NODE

COPY = f"{MASTER}.v20190903|{NODE}"
NAME = "zg_Amon_GISS-E2-1-G_volc-pinatubo-full_r6i10p1f1_gn_199101-199512.nc"
DATASET = f"""<doc>
  <field name="id">{COPY}</field>
  <field name="title">A & B < C</field>
  <field name="type">Dataset</field>
  <field name="master_id">{MASTER}</field>
  <field name="version">20190903</field>
  <field name="data_node">{NODE}</field>
  <field name="replica">%s</field>
  <field name="latest">True</field>
  <field name="access">HTTPServer</field>
  <field name="access">OPENDAP</field>
</doc>
"""
FILE = f"""<doc>
  <field name="id">{MASTER}.v20190903.{NAME}|{NODE}</field>
  <field name="dataset_id">{COPY}</field>
  <field name="title">{NAME}</field>
  <field name="type">File</field>
  <field name="url">https://{NODE}/thredds/fileServer/css/{NAME}|application/netcdf|HTTPServer</field>
  <field name="url">globus:415a6320/css/{NAME}|Globus|Globus</field>
  <field name="checksum">AB12</field>
  <field name="size">1234</field>
  <field name="tracking_id">hdl:21.14100/x</field>
  <field name="replica">False</field>
</doc>
"""
UPDATE = """<updates core="%s" action="set"><update><query>%s</query>
<field name="%s"><value>%s</value></field><field name="_timestamp"><value>2026-11-23T18:45:24Z</value></field></update></updates>"""


def told(name, body, query=b""):
    """Read a call; return operation, record, replica of each sighting."""
    call = read_call(name, query, body.encode(), 1)
    return [(one.operation.value, f"{one.dataset}|{one.data_node}", one.is_replica) for one in call.sightings]


@pytest.mark.parametrize(
    ("spelled", "is_replica"), [("False", False), ("True", True), ("true", True), ("", False)]
)
def test_a_record_is_read_though_it_is_no_xml(spelled, is_replica):
    """Values are not escaped; Python's booleans."""
    assert told("publish", DATASET % spelled) == [("publish", COPY, is_replica)]


def test_the_record_of_a_file_tells_the_urls_of_a_dataset():
    """Without media types; several records in one call."""
    call = read_call("publish", b"", f"<docs>{FILE}{DATASET % 'False'}</docs>".encode(), 1)
    assert [one.operation.value for one in call.sightings] == ["add-files", "publish"]
    urls = (f"https://{NODE}/thredds/fileServer/css/{NAME}", f"globus:415a6320/css/{NAME}")
    assert call.sightings[0].files == (SeenFile(NAME, urls, "ab12", 1234, "hdl:21.14100/x"),)
    assert call.unread == 0


def test_a_record_that_is_published_as_retracted_is_no_publication():
    """It was retracted before, by another way."""
    body = (DATASET % "False").replace("</doc>", '<field name="retracted">True</field></doc>')
    assert told("publish", body) == [("retract", COPY, False)]


@pytest.mark.parametrize(
    ("core", "query", "field", "value", "found"),
    [
        ("datasets", f"id={COPY}", "latest", "false", ["supersede"]),
        ("files", f"dataset_id={COPY}", "latest", "false", []),
        ("datasets", f"id={COPY}", "retracted", "true", ["retract"]),
        ("datasets", f"id={COPY}", "retracted", "false", ["publish"]),
        ("datasets", f"id={COPY}", "title", "x", []),
        ("datasets", "id=*", "retracted", "true", []),
    ],
)
def test_an_update_says_what_it_sets(core, query, field, value, found):
    """Only what hides, retracts or brings back a dataset matters, and only of one that is named."""
    assert [operation for operation, *_ in told("update", UPDATE % (core, query, field, value))] == found


@pytest.mark.parametrize("name", ["retract", "delete"])
def test_what_ends_is_named_in_a_form_or_in_the_address(name):
    """One record or several; the answer does not say whether it was a replica."""
    form = f"id={COPY.replace('|', '%7C')}&id=nothing"
    assert told(name, form) == [(name, COPY, None)]
    assert told(name, "", f"id={COPY}".encode()) == [(name, COPY, None)]
    assert read_call(name, b"", form.encode(), 1).unread == 1


def test_other_calls_are_nobody_s_affair():
    """Harvesting of old catalogs is handed on unread."""
    assert read_call("harvest", b"uri=x", b"<doc>", 1).sightings == ()


@pytest.mark.parametrize(
    ("status", "answer", "found"),
    [
        (200, b'<?xml version="1.0"?><response status="success"><message>x</message></response>', True),
        (200, b"<response  a='1' status = 'success'/>", True),
        (200, b'<response status="error"><message>status="success"</message></response>', False),
        (500, b'<response status="success"/>', False),
        (200, b"", False),
    ],
)
def test_success_is_what_the_index_says(status, answer, found):
    """Status 200 alone is not enough."""
    assert is_success(status, answer) is found


def test_entities_are_resolved_where_they_are_some():
    """Publishers that do escape are understood too; what only looks like an entity stays."""
    text = '<doc><field name="a">x &amp; y&#233;&lt;</field><field name="a"><![CDATA[<&>]]></field><field name="a">b&copy=1</field><field name="c"/></doc>'
    (found,) = record_fields.documents(text)
    assert dict(found) == {"a": ["x & yé<", "<&>", "b&copy=1"]}


@given(
    st.sampled_from(["publish", "update", "retract", "delete"]),
    st.binary(max_size=300),
    st.binary(max_size=99),
)
def test_any_bytes_are_read(name, body, query):
    """What is nothing is nothing, never an error."""
    assert read_call(name, query, body, 1).sightings == ()


@given(
    st.lists(
        st.sampled_from(
            [
                "<doc>",
                "</doc>",
                '<field name="id">',
                "</field>",
                COPY,
                "&",
                "<update>",
                "<query>id=",
                "</query>",
            ]
        ),
        max_size=30,
    )
)
def test_any_tags_are_read(parts):
    """Nor are tags in any order."""
    for name in ("publish", "update"):
        assert isinstance(read_call(name, b"", "".join(parts).encode(), 1), Call)


@pytest.mark.parametrize(
    "part", ["<doc>", '<field name="a">', "<field " + " " * 50, "<update>", "<doc><field name='x'>&amp;"]
)
def test_hostile_bodies_take_the_time_of_their_length(part):
    """No text makes a look go back: a square of 4 MB would not end while this suite runs."""
    for name in ("publish", "update"):
        assert isinstance(read_call(name, b"", (part * (4_000_000 // len(part))).encode(), 1), Call)
