"""Download numbers: read from the dashboard's file, told to all, never taken for more than they are."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from esgf_gossip.esgf.bodies import BodyError
from esgf_gossip.esgf.metrics import COUNT_MAX, Metrics, MetricsError, from_body, parse_data_users, to_body
from esgf_gossip.sources.metering import READ_EVERY_S, Metering
from esgf_gossip.views.node_json import node_body
from helpers.site import FULL_HOST, a_view, demo_site

COUNTS = st.integers(0, COUNT_MAX)
LINE = b"DOWNLOADCOUNT=5,DOWNLOADSIZE=6,DOWNLOADUSERS=7,REGISTEREDUSERS=8"


@given(st.builds(Metrics, COUNTS, COUNTS, COUNTS, st.none() | COUNTS))
def test_a_body_says_what_was_put_in(metrics):
    """Writing and reading is the identity."""
    assert from_body(to_body(metrics)) == metrics


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"metrics": []},
        {"metrics": {}},
        {"metrics": {"download_count": 1, "download_bytes": 1, "download_users": -1}},
        {"metrics": {"download_count": 1, "download_bytes": 2**63, "download_users": 1}},
        {"metrics": {"download_count": True, "download_bytes": 1, "download_users": 1}},
        {"metrics": {"download_count": 1.5, "download_bytes": 1, "download_users": 1}},
    ],
)
def test_what_is_no_number_is_one_error(said):
    """Neither a missing number nor one out of range is taken."""
    with pytest.raises(BodyError):
        from_body(msgpack.packb(said))


@given(st.binary(max_size=80))
def test_any_bytes_are_numbers_or_one_error(body):
    """A stranger's bytes, as entry and as file, never raise anything else."""
    for read in (from_body, lambda content: parse_data_users(content, "file")):
        try:
            found = read(body)
        except (BodyError, MetricsError):
            continue
        assert found.download_count >= 0


@pytest.mark.parametrize(
    ("content", "metrics"),
    [
        (LINE, Metrics(5, 6, 7, 8)),
        (LINE.lower() + b"\n", Metrics(5, 6, 7, 8)),
        (b"# by the dashboard\n" + LINE, Metrics(5, 6, 7, 8)),
        (LINE.rpartition(b",")[0], Metrics(5, 6, 7, None)),
        (LINE.replace(b"=6", b"=9999999999999999999"), Metrics(5, COUNT_MAX, 7, 8)),
    ],
)
def test_the_file_is_read_as_java_reads_it(content, metrics):
    """In any case, anywhere, with or without the users; a number no column holds becomes the largest."""
    assert parse_data_users(content, "file") == metrics


@pytest.mark.parametrize("content", [b"", b"DOWNLOADCOUNT=5", LINE.replace(b"=6", b"="), LINE + b",x"])
def test_a_file_without_numbers_is_named(content):
    """The error names the file and where it is set."""
    with pytest.raises(MetricsError, match=r"/x/data_users\.metrics: no line .* \[metrics\] in node\.toml"):
        parse_data_users(content, "/x/data_users.metrics")


def test_a_new_number_is_told_within_a_minute_and_a_lost_file_changes_nothing(tmp_path):
    """Only a change is told; harm to the file leaves what was told, and the file is read when it is whole again."""
    clock, told, path = Clock(), [], tmp_path / "data_users.metrics"
    metering = Metering(lambda: told.append(metering.metrics), clock)
    path.write_bytes(LINE)
    metering.start(path)
    assert (metering.metrics, told) == (Metrics(5, 6, 7, 8), [])
    clock.advance(READ_EVERY_S)
    assert told == []
    path.unlink()
    clock.advance(READ_EVERY_S)
    path.write_bytes(b"half")
    clock.advance(READ_EVERY_S)
    assert (metering.metrics, told) == (Metrics(5, 6, 7, 8), [])
    path.write_bytes(LINE.replace(b"=5", b"=50"))
    clock.advance(READ_EVERY_S)
    assert told == [Metrics(50, 6, 7, 8)]
    metering.start(None)
    assert (metering.metrics, clock.getDelayedCalls()) == (None, [])


def test_the_api_says_the_numbers_there_are():
    """What nobody counted is left out, and a node that tells nothing has none."""
    site = demo_site(FULL_HOST).registration
    assert node_body(a_view(site))["metrics"] == {}
    assert node_body(a_view(site, metrics=Metrics(1, 2, 3)))["metrics"] == {
        "download_count": 1,
        "download_bytes": 2,
        "download_users": 3,
    }
