"""The JSON of a view: exactly the fields of the contract."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.views.federation import DatasetCounts, NodeStatus
from esgf_gossip.views.node_json import json_bytes, node_body, nodes_body, status_body, utc_text
from helpers.web import HOST, NOON, NOON_MS, a_node, a_registration, a_view


def test_status_has_exactly_the_fields_of_the_contract():
    """The body of /api/v1/status is what the contract names, counting the node itself."""
    nodes = [
        a_node(f"{status.value}.example.org", status=status)
        for status in (*NodeStatus, NodeStatus.UP, NodeStatus.STALE)
    ]
    expected = {
        "host": HOST,
        "federation": "test",
        "version": "0.1.0",
        "epoch": 1_782_579_200_000_000,
        "sequence": 7,
        "root": "ab" * 32,
        "nodes": {"total": 8, "up": 2, "suspect": 1, "unreachable": 1, "stale": 2, "left": 1},
        "links": 4,
        "certificate": {"not_after": NOON},
        "crl": {"age_s": 60},
        "started_at": NOON,
    }
    assert expected == status_body(a_view(*nodes))


def test_status_tells_troubles_only_while_there_are_any():
    """A field of trouble appears with its text."""
    body = status_body(a_view(storage_error="disk is full", publishing_stopped="two of us"))
    assert (body["storage_error"], body["publishing_stopped"]) == ("disk is full", "two of us")
    assert "trust" not in body
    body = status_body(a_view(trust_alarms=("a fork", "an old list")))
    assert body["trust"] == {"error": "", "alarms": ["a fork", "an old list"]}
    claimed = status_body(a_view(datasets=DatasetCounts(foreign_claims=1, foreign_claim_names=("x",))))[
        "datasets"
    ]
    assert (claimed["foreign_claims"], claimed["foreign_claim_names"]) == (1, ["x"])
    assert status_body(a_view(trust_error="no key"))["trust"] == {"error": "no key", "alarms": []}


def test_node_has_exactly_the_fields_of_the_contract():
    """The body of one node is what the contract names, in its order."""
    expected = {
        "host": HOST,
        "status": "up",
        "since": NOON,
        "short_name": "A",
        "long_name": "Node A",
        "organization": "EXAMPLE",
        "peer_group": "esgf-test,esgf-prod",
        "peer_groups_refused": [],
        "excluded": [],
        "node_types": ["data"],
        "location": {"lat": 53.5, "lon": 10.0, "city": "Hamburg"},
        "epoch": 1_782_579_200_000_000,
        "sequence": 7,
        "issued_at": NOON,
        "expires_at": "2023-11-14T22:13:21.123Z",
        "forked": False,
        "services": [
            {
                "type": "ThreddsService",
                "endpoint": "http://esgf-a.example.org/thredds",
                "health": "unknown",
                "since": None,
                "reason": "",
            }
        ],
        "metrics": {},
        "resources": {},
        "maintenance": None,
    }
    body = node_body(a_node())
    assert expected == body
    assert list(expected) == list(body)


def test_node_without_registration_keeps_every_field():
    """A node that published nothing readable has empty fields, not missing ones."""
    bare = node_body(a_node(registration=None, registration_error="not msgpack"))
    assert list(node_body(a_node())) == list(bare)
    assert tuple(
        bare[name]
        for name in (
            "short_name",
            "long_name",
            "organization",
            "peer_group",
            "node_types",
            "location",
            "services",
        )
    ) == ("", "", "", "", [], None, [])


@pytest.mark.parametrize("lat", ["", "nan", "inf", "91", "north"])
def test_location_is_null_without_two_good_numbers(lat):
    """A place that cannot be drawn is null."""
    node = a_node(registration=a_registration(node__geolocation__lat=lat))
    assert node_body(node)["location"] is None


def test_nodes_come_in_the_order_of_the_view():
    """The list keeps the order of the view, and equal views give equal bytes."""
    view = a_view(a_node("a.example.org"), a_node("b.example.org"))
    assert [node["host"] for node in nodes_body(view)] == ["a.example.org", "b.example.org"]
    assert json_bytes(nodes_body(view)) == json_bytes(nodes_body(a_view(*view.nodes)))


def test_text_of_a_stranger_is_one_line_of_ascii():
    """Half a surrogate pair, line separators and control characters stay inside one line of JSON."""
    text = "a\ud800\u2028\r\n\x00</script>"
    encoded = json_bytes({"x": text})
    assert text == json.loads(encoded)["x"]
    assert encoded.isascii()
    assert len(encoded.splitlines()) == 1


def test_what_json_cannot_say_is_refused():
    """NaN never gets into a document."""
    with pytest.raises(ValueError):
        json_bytes({"x": float("nan")})


@pytest.mark.parametrize(
    ("unix_ms", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1970-01-01T00:00:00.000Z"),
        (NOON_MS, NOON),
        (2**63, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(unix_ms, expected):
    """Unix milliseconds become RFC 3339, clamped to the calendar."""
    assert expected == utc_text(unix_ms)


@given(st.integers(min_value=0, max_value=253_402_300_799_999))
def test_times_sort_as_their_numbers(unix_ms):
    """Later moments are greater texts of equal length."""
    assert len(NOON) == len(utc_text(unix_ms))
    assert (unix_ms > NOON_MS) == (utc_text(unix_ms) > NOON)
