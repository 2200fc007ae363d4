"""Names of dataset versions, and the leaves of the log of datasets."""

import sqlite3

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import LEAF_BYTES
from esgf_gossip.core.packing import pack
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import changes, events
from esgf_gossip.tracking.database import FILE_NAME, TrackingDatabase, TrackingError
from esgf_gossip.tracking.events import (
    Claim,
    DatasetEvent,
    EventType,
    decode_leaf,
    encode_claim,
    encode_event,
)
from esgf_gossip.tracking.identity import DatasetId, IdentityError, parse_dataset, parse_record
from esgf_gossip.tracking.matches import Change

NAME = "CMIP6.VolMIP.NASA-GISS.GISS-E2-1-G.volc-pinatubo-full.r6i10p1f1.Amon.zg.gn"
WANTED = DatasetId(NAME, "20190903")


@pytest.mark.parametrize(
    "form", ["{}.v20190903", "{}#20190903", "{}#v20190903", "{}.v20190903|esgf.nccs.example"]
)
def test_every_spelling_is_one_version(form):
    """Errata, map files, records and STAC items name one version in their ways."""
    assert parse_dataset(form.format(NAME)) == WANTED
    assert WANTED.instance_id == f"{NAME}.v20190903"


@pytest.mark.parametrize(
    "text", ["", NAME, f"{NAME}.v", "a b.v1", "<script>.v1", f"{'a.' * 200}b.v1", "a.v1\n", "a.b.vx1"]
)
def test_what_names_no_version_is_refused(text):
    """A text that is no name, or too long, is refused in one line."""
    with pytest.raises(IdentityError, match="names no version of a dataset") as caught:
        parse_dataset(text)
    assert len(str(caught.value).splitlines()) == 1


def test_a_copy_has_a_host():
    """The id of a record is a version and its data node, whose name is folded."""
    assert parse_record(f"{NAME}.v20190903|ESGF.example.org") == (WANTED, "esgf.example.org")
    with pytest.raises(IdentityError, match="names no copy"):
        parse_record(f"{NAME}.v20190903|not a host")


def test_versions_are_numbers():
    """Version 10 comes after version 9."""
    assert DatasetId("a.b", "9") < DatasetId("a.b", "10")


EVENTS = st.builds(
    DatasetEvent,
    st.sampled_from(EventType),
    st.builds(
        DatasetId,
        st.from_regex(r"[A-Z]{3}(\.[a-z0-9-]{1,9}[a-z]){1,9}", fullmatch=True),
        st.from_regex(r"[0-9]{1,8}", fullmatch=True),
    ),
    st.from_regex(r"[a-z]{1,9}\.example\.org", fullmatch=True),
    st.integers(0, 9),
    st.integers(0, 2**41),
    st.lists(st.from_regex(r"[0-9]{1,8}", fullmatch=True), max_size=16).map(tuple),
    st.lists(st.binary(min_size=8, max_size=8), max_size=200).map(tuple),
    st.text("aé \U0001f600", max_size=200),
    st.sampled_from(["proxy", "stac"]),
)


@given(EVENTS)
def test_an_event_comes_back_from_its_leaf(event):
    """What is written is read, fields of later versions are passed over, and a leaf never grows too large."""
    leaf = encode_event(event)
    assert len(leaf) <= LEAF_BYTES
    assert decode_leaf(leaf) == event


@given(st.binary(max_size=300))
def test_any_bytes_are_a_leaf_or_an_error(data):
    """A hostile leaf raises WireError and nothing else."""
    try:
        said = decode_leaf(data)
    except WireError:
        return
    assert said is None or isinstance(said, DatasetEvent | Claim)


def test_the_largest_event_fits():
    """Every bound at once stays below the bytes of a leaf."""
    event = DatasetEvent(
        EventType.NEW_VERSION, DatasetId("A" * 255, "9" * 20), "h" * 63 + ".example", 10**6, 2**41, ("9" * 20,) * 16,
        (b"\xff" * 8,) * 200, "\U0001f600" * 200, "s" * 40,
    )  # fmt: skip
    assert len(encode_event(event)) <= LEAF_BYTES


def test_what_a_later_version_says_is_passed_over():
    """Unknown kinds and types are no error: they are kept and relayed."""
    event = DatasetEvent(EventType.RETRACTED, WANTED, "a.example", 0, 1)
    assert decode_leaf(pack([9, "x"])) is None
    assert decode_leaf(encode_event(event).replace(b"retracted", b"renovated")) is None
    claim = Claim(b"\x01" * 32, is_sent=True)
    assert decode_leaf(encode_claim(claim)) == claim


def test_a_change_has_one_key():
    """Who saw it, where and when makes no difference; the epoch does."""
    event = DatasetEvent(EventType.RETRACTED, WANTED, "a.example", 0, 1)
    again = attrs.evolve(event, data_node="b.example", occurred_ms=2, source="kafka", reason="x")
    assert event.change_key == again.change_key == events.change_key("retracted", WANTED.instance_id, 0)
    assert event.change_key != attrs.evolve(event, epoch=1).change_key


def a_database(tmp_path, **scripts):
    """Open the database of a test, without a thread."""
    return TrackingDatabase(tmp_path / FILE_NAME, scripts, AtOnce())


def test_a_step_is_whole_or_nothing(tmp_path):
    """Whatever is raised in the midst, nothing of it stays; scripts run once."""
    script = "CREATE TABLE one (number INTEGER) STRICT"
    database = a_database(tmp_path, one=script)

    def half(connection):
        connection.execute("INSERT INTO one VALUES (1)")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        database.now(half)
    database.now(lambda connection: connection.execute("INSERT INTO one VALUES (2)"))
    database.close()
    again = a_database(tmp_path, one=script, two="CREATE TABLE two (number INTEGER) STRICT")
    assert again.now(lambda connection: connection.execute("SELECT * FROM one").fetchall()) == [(2,)]
    with again.reader() as reader:
        assert reader.execute("SELECT count(*) FROM two").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError):
            reader.execute("INSERT INTO two VALUES (1)")
    reader.close()
    again.close()
    with pytest.raises(TrackingError, match="closed already"):
        again.now(lambda connection: None)


def test_a_damaged_file_is_told(tmp_path):
    """What is no database is named, with what to do."""
    (tmp_path / FILE_NAME).write_bytes(b"nothing that SQLite would know" * 99)
    with pytest.raises(TrackingError, match=r"damaged .* restore it from a backup"):
        a_database(tmp_path)


def test_a_change_is_noted_once_in_its_order(tmp_path):
    """Two sources of one change leave one row; what comes after a number is what is still to be matched."""
    database = a_database(tmp_path, change=changes.SCRIPT)
    first = Change(
        b"\x01" * 32, "new-version", (WANTED,), 5, WANTED, ("1", "2"), frozenset({b"\x02" * 8}), "why"
    )
    second = Change(b"\x02" * 32, "erratum", (DatasetId("a.b", "1"), WANTED), 6, title="t", severity="high")
    assert database.now(changes.add_change, first, 10) == 1
    assert database.now(changes.add_change, attrs.evolve(first, reason="other"), 11) is None
    number = database.now(changes.add_change, second, 12)
    assert database.now(changes.changes_after, 0, 9) == [(1, first), (number, second)]
    assert database.now(changes.changes_after, 1, 9) == [(number, second)]
    assert database.now(changes.get_change, first.key) == first
    assert database.now(changes.get_change, b"\x03" * 32) is None
    database.close()
