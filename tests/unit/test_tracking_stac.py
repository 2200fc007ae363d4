"""Messages of the STAC transaction API give sightings, whatever their shape, and nothing of whoever sent them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from esgf_gossip.tracking import stac_feed
from esgf_gossip.tracking.identity import parse_dataset
from esgf_gossip.tracking.sightings import Operation, SeenFile
from esgf_gossip.tracking.stac import read_message
from esgf_gossip.tracking.stac_feed import DOCUMENT_BYTES, MESSAGES, EventReader
from esgf_gossip.tracking.stac_items import NODES, StacError, checksum_of
from esgf_gossip.tracking.whereabouts import with_nodes
from helpers.stac import (
    ADDRESS,
    DIGEST,
    FILE,
    ITEM,
    ITEM_OF_CMIP7,
    NODE,
    NOW_MS,
    OCCURRED_MS,
    PERSON,
    REPLICA,
    RETRACT,
    SUPERSEDE,
    a_patch,
    a_post,
    a_replica,
    an_asset,
)


def read(message):
    """Read one message as the service would."""
    return read_message(message, "stac", NOW_MS)


def samples():
    """Return the messages that docs/tracking.md shows."""
    text = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    chapter = text.partition("## STAC messages")[2].partition("\n## ")[0]
    return re.findall(r"```json\n(.*?)```", chapter, re.DOTALL)


def said(message):
    """Return what a message says, short."""
    return [(one.operation.value, one.data_node, one.is_replica) for one in read(message)]


RETRACTED = [("retract", "", False)]
PUBLISHED = [("publish", NODE, False)]


def test_a_publication_names_the_version_its_node_and_all_of_its_file():
    """What an index forgets with the retraction is known from the first message on."""
    (found,) = read(a_post())
    assert (found.operation, str(found.dataset), found.data_node) == (Operation.PUBLISH, ITEM, NODE)
    assert (found.is_replica, found.occurred_ms, found.source) == (False, OCCURRED_MS, "stac")
    assert found.event_id == "0f" * 16
    assert found.files == (
        SeenFile(
            FILE,
            (f"https://{NODE}/thredds/fileServer/cmip6/{FILE}",),
            DIGEST,
            24262076,
            "hdl:21.14100/1b37978f-caf6-4e4a-9893-3266a93077a2",
        ),
    )


def test_an_item_of_cmip7_keeps_its_name():
    """The first facet of its ids is that of the rule book."""
    asset = an_asset() | {"cmip7:tracking_id": "hdl:21.14107/1"}
    del asset["cmip6:tracking_id"]
    (found,) = read(a_post(ITEM_OF_CMIP7, {FILE: asset}))
    assert str(found.dataset) == ITEM_OF_CMIP7
    assert found.files[0].tracking_id == "hdl:21.14107/1"


@pytest.mark.parametrize(
    "patch",
    [
        RETRACT,
        {"operations": RETRACT},
        {"properties": {"latest": False, "retracted": True}, "assets": {}},
        [{"op": "add", "path": "/properties/retracted", "value": True}],
        [{"op": "replace", "path": "/properties/retracted", "value": "True"}],
        [{"op": "replace", "path": "/properties", "value": {"retracted": "true"}}],
    ],
)
@pytest.mark.parametrize("item_id", [ITEM, ITEM.replace(".v2020", "#2020")])
def test_a_retraction_is_one_in_every_shape_and_spelling(patch, item_id):
    """A bare list, operations in an object, a part of the item, one operation alone."""
    (found,) = read(a_patch(patch, item_id))
    assert found.dataset == parse_dataset(ITEM)
    assert said(a_patch(patch, item_id)) == RETRACTED


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        (SUPERSEDE, [("supersede", "", False)]),
        ({"properties": {"latest": False}}, [("supersede", "", False)]),
        ([{"op": "replace", "path": "/properties/retracted", "value": None}], [("publish", "", False)]),
        ([{"op": "remove", "path": "/properties/retracted"}], [("publish", "", False)]),
        ([{"op": "replace", "path": "/properties/title", "value": "x"}], []),
        ([{"op": "test", "path": "/properties/retracted", "value": True}], []),
        ([{"op": "replace", "path": "/assets", "value": {}}], []),
        (
            [*RETRACT, {"op": "replace", "path": "/properties/retracted", "value": False}],
            [("publish", "", False)],
        ),
        ([a_replica()], [("publish", REPLICA, True)]),
        ({"assets": {FILE: {"alternate": {REPLICA: {"href": "x"}}}}}, [("publish", REPLICA, True)]),
        (
            [{"op": "add", "path": "/assets/reference_file/alternate", "value": {REPLICA: {"href": "x"}}}],
            [("publish", REPLICA, True)],
        ),
        (
            [{"op": "remove", "path": f"/assets/reference_file/alternate/{REPLICA}"}],
            [("delete", REPLICA, True)],
        ),
        ([a_replica(), {"op": "remove", "path": a_replica()["path"]}], [("delete", REPLICA, True)]),
        ([{"op": "remove", "path": "/assets/reference_file"}], []),
        ([{"op": "add", "path": "/assets/reference_file", "value": an_asset()}], []),
        ([{"op": "add", "path": "/assets/b.nc", "value": an_asset()}], [("add-files", NODE, None)]),
    ],
)
def test_other_patches_say_what_they_say(patch, wanted):
    """Superseded, reinstated, replicated, a replica removed; the last operation has the last word; else nothing."""
    assert said(a_patch(patch)) == wanted


def test_a_patch_may_name_the_copy():
    """An id with its data node says whose record was meant."""
    assert said(a_patch(RETRACT, f"{ITEM}|{NODE}")) == [("retract", NODE, False)]


def test_a_replica_of_many_files_is_one_sighting_with_all_of_them():
    """A replicator sends an operation for each file; names may need the escapes of a JSON pointer."""
    names = [f"file_{number}~.nc" for number in range(300)]
    patch = [
        {**a_replica(name=name), "path": f"/assets/{name.replace('~', '~0')}/alternate/{REPLICA}"}
        for name in names
    ]
    (found,) = read(a_patch(patch))
    assert [one.name for one in found.files] == names


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(True, True), ("true", True), (" TRUE", True), (None, False), ("", False), ("no", False)],
)
def test_an_item_may_come_retracted(value, wanted):
    """A boolean, null or a text; the record comes before its retraction, and each has an id of its own."""
    found = read(a_post(retracted=value))
    retraction = [("retract", NODE, False)] if wanted else []
    assert [(one.operation.value, one.data_node, one.is_replica) for one in found] == PUBLISHED + retraction
    assert len({one.event_id for one in found}) == len(found)


def test_a_publication_with_replicas_tells_each_copy_apart():
    """Nodes below alternate hold replicas, with the checksum of the file."""
    asset = an_asset(alternate={REPLICA: {"href": f"https://{REPLICA}/a/{FILE}"}})
    original, replica = read(a_post(assets={FILE: asset}))
    assert (original.data_node, original.is_replica) == (NODE, False)
    assert (replica.data_node, replica.is_replica) == (REPLICA, True)
    assert replica.files[0].checksum == DIGEST
    assert replica.files[0].urls == (f"https://{REPLICA}/a/{FILE}",)


@pytest.mark.parametrize(
    ("asset", "node"),
    [
        (an_asset(), NODE),
        (an_asset(**{"alternate:name": "CEDA"}), NODE),
        (an_asset(**{"alternate:name": None}), NODE),
        (an_asset(href="https://other.example.org/x.nc"), NODE),
        (an_asset(href="globus:4d2/x.nc"), NODE),
        (an_asset(**{"alternate:name": "Data.Example.ORG"}), NODE),
    ],
)
def test_the_data_node_is_the_named_one_else_that_of_the_address(asset, node):
    """A name that is no host is one for people."""
    assert read(a_post(assets={FILE: asset}))[0].data_node == node


def test_what_describes_a_file_and_makes_no_sense_is_left_out():
    """The event counts more than a wrong checksum."""
    asset = an_asset(
        href="javascript:alert(1)", **{"file:size": -1, "file:checksum": "1220zz", "cmip6:tracking_id": "\n"}
    )
    assert read(a_post(assets={FILE: asset}))[0].files == (SeenFile(FILE),)


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (f"1220{DIGEST}", DIGEST),
        (f"1220{DIGEST.upper()}", DIGEST),
        (DIGEST, DIGEST),
        ("1114" + "a" * 40, "a" * 40),
        ("d50110" + "b" * 32, "b" * 32),
        ("1220" + "c" * 62, ""),
        (f"1620{DIGEST}", ""),
        (17, ""),
    ],
)
def test_a_multihash_is_read(text, digest):
    """The functions ESGF uses; one that is unknown is no checksum."""
    assert checksum_of(text) == digest


@pytest.mark.parametrize("time", ["2126-01-01T00:00:00", "yesterday", None, 17, "0001-01-01T00:00:00", {}])
def test_nothing_happens_in_the_future_nor_at_a_time_that_is_none(time):
    """What cannot be read happened when it came."""
    message = a_post()
    message["metadata"]["time"] = time
    assert read(message)[0].occurred_ms == NOW_MS


def test_a_time_with_a_zone_is_that_time():
    """Only a naive one is taken for UTC."""
    message = a_post()
    message["metadata"]["time"] = "2026-07-19T10:14:12.057860+02:00"
    assert read(message)[0].occurred_ms == OCCURRED_MS


def test_nobody_is_named():
    """Neither name nor address of whoever sent it is in anything that comes out, errors included."""
    said_of_all = repr([attrs.asdict(one) for one in read(a_post()) + read(a_patch(RETRACT))])
    for message in (
        a_post(retracted=ADDRESS),
        a_post(ADDRESS),
        a_post(assets={ADDRESS: 1}),
        a_patch(ADDRESS),
    ):
        with pytest.raises(StacError) as caught:
            read(message)
        said_of_all += str(caught.value)
    assert PERSON not in said_of_all
    assert "@" not in said_of_all


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ([], "the message is a list"),
        ({}, "data is missing"),
        ({"data": {"type": "PID"}}, "type is not STAC"),
        ({"data": {"payload": {"method": "DELETE"}}}, "neither POST nor PATCH"),
        (a_post("CMIP6.no-version"), "names no version"),
        (a_post(assets={}), "no asset names the data node"),
        (a_post(assets={FILE: {"href": "x"}}), "no asset names the data node"),
        (a_post(retracted="perhaps"), "retracted is neither true nor false"),
        (a_post(retracted=1), "retracted is neither true nor false"),
        (a_post(assets=[1]), "assets is a list"),
        (a_patch(None), "patch is missing"),
        (a_patch([{"op": "replace", "path": "properties"}]), "operation 1: path is no JSON pointer"),
        (a_patch([*RETRACT, {"op": "no", "path": "/x"}]), "operation 4: op is none"),
        (a_patch([{"op": "copy", "from": "/a", "path": "/properties/retracted"}]), "not understood"),
        (a_patch([{"op": "remove", "path": "/assets/a/alternate/-"}]), "no data node"),
        (a_patch([a_replica(f"n{i}.example.org") for i in range(NODES + 1)]), "more than 100 data nodes"),
    ],
)
def test_what_is_no_message_is_told_in_one_line(message, reason):
    """What is wrong, and where."""
    with pytest.raises(StacError, match=reason) as caught:
        read(message)
    assert "\n" not in str(caught.value)


def outcome(work, argument):
    """Return what comes of it: sightings and no error, or none and the line that says why."""
    try:
        return work(argument), ""
    except StacError as error:
        return (), str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def _places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*path, key))


@given(st.data())
def test_any_json_gives_sightings_or_a_stac_error(data):
    """Also a good message with anything put anywhere into it."""
    message = data.draw(
        st.sampled_from([a_post(), a_patch(RETRACT), a_patch([a_replica()]), a_post(alternate={})])
    )
    *path, last = data.draw(st.sampled_from([one for one in _places(message) if one]))
    changed = copy.deepcopy(message)
    inner = changed
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(JSON)
    for one in (changed, inner[last]):
        found, line = outcome(read, one)
        assert "\n" not in line
        assert all(0 <= sighting.occurred_ms <= NOW_MS for sighting in found)


def a_reader(clock):
    """Make a reader of messages that came by HTTP."""
    return EventReader("stac", lambda: NOW_MS, clock)


def document(data):
    """Read a document to its end; return the sightings or raise."""
    clock, answers = Clock(), []
    a_reader(clock).read(data).addBoth(answers.append)
    while not answers:
        clock.advance(0.001)
    if isinstance(answers[0], list):
        return answers[0]
    return answers[0].raiseException()


POST, PATCH = json.dumps(a_post()).encode(), json.dumps(a_patch(RETRACT)).encode()


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (POST, 1),
        (b"\xef\xbb\xbf" + POST + b"\n", 1),
        (json.dumps(a_post(), indent=2).encode(), 1),
        (b"[" + POST + b"]", 1),
        (b" [ " + POST + b" ,\n" + PATCH + b" ] \n", 2),
        (POST + b"\n" + PATCH + b"\r\n\r\n" + POST + b"\n", 3),
    ],
)
def test_a_document_is_a_message_a_list_or_lines(data, count):
    """In each form the sightings come in the order of the messages."""
    found = document(data)
    assert [one.operation for one in found] == [Operation.PUBLISH, Operation.RETRACT, Operation.PUBLISH][
        :count
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no message in it"),
        (b" \n", "no message in it"),
        (b"[]", "no message in it"),
        (b"\xff", "not UTF-8"),
        (b"{", "message 1: not JSON"),
        (b"[" + POST, "after message 1 neither"),
        (b"[" + POST + b",", "message 2: not JSON"),
        (b"[" + POST + b"] x", "something follows"),
        (POST + b" " + POST, "after message 1 no new line"),
        (POST + b"\n{}\n" + POST, "message 2: data is missing"),
        (b"[" * 100_000, "message 1: nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
        (b" " * (DOCUMENT_BYTES + 1), "longer than"),
        (b"[" + b"[]," * 400_000 + b"1]", "more than 500000 values"),
        ((POST + b"\n") * (MESSAGES + 1), "more than 1000 messages"),
    ],
)
def test_a_document_with_anything_wrong_is_refused_whole(data, reason):
    """The message that is wrong is named; nothing of the others comes out."""
    with pytest.raises(StacError, match=reason):
        document(data)


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([POST, PATCH, b"[", b"]", b",", b"\n", b"{}"])).map(b"".join)
)
def test_any_bytes_give_sightings_or_a_stac_error(data):
    """Never another exception, nor a turn that does not end."""
    for read_all in (document, lambda one: a_reader(Clock()).read_one(one)):
        assert "\n" not in outcome(read_all, data)[1]


def test_others_are_served_between_two_messages():
    """A document of many messages takes many turns."""
    clock, answers = Clock(), []
    a_reader(clock).read((POST + b"\n") * 50).addCallback(answers.append)
    assert not answers
    turns = 0
    while not answers:
        clock.advance(0.001)
        turns += 1
    assert turns >= 1
    assert len(answers[0]) == 50


def test_one_message_is_one_value(monkeypatch):
    """Of Kafka each is read alone, and named by its place where it has no id."""
    reader = a_reader(Clock())
    assert reader.read_one(POST)[0].event_id == "0f" * 16
    nameless = json.dumps(a_post(event_id="")).encode()
    assert reader.read_one(nameless, "events/0/17")[0].event_id == "events/0/17"
    with pytest.raises(StacError, match="more than one"):
        reader.read_one(POST + b"\n" + POST)
    monkeypatch.setattr(stac_feed, "MESSAGE_BYTES", 10)
    with pytest.raises(StacError, match="longer than"):
        reader.read_one(POST)


def test_a_patch_means_the_original_on_record():
    """Published before, in the same batch or long ago; where nobody knows it, it is said so."""
    batch = [*read(a_post()), *read(a_patch(RETRACT)), *read(a_patch(SUPERSEDE, ITEM_OF_CMIP7))]
    named, unknown = with_nodes(batch, lambda _: None)
    assert [(one.operation, one.data_node) for one in named] == [
        (Operation.PUBLISH, NODE),
        (Operation.RETRACT, NODE),
    ]
    assert [str(one.dataset) for one in unknown] == [ITEM_OF_CMIP7]
    named, unknown = with_nodes(batch[1:], {parse_dataset(ITEM): "a.example.org"}.get)
    assert [(one.operation, one.data_node) for one in named] == [(Operation.RETRACT, "a.example.org")]
    assert len(unknown) == 1
    replica = read(a_patch([a_replica()]))
    assert with_nodes([*replica, *batch[1:2]], lambda _: None) == ([*replica], [batch[1]])


def test_the_messages_that_the_documents_show_are_read():
    """Who copies them has a publication and a retraction of one dataset."""
    published, retracted = (
        EventReader("stac", lambda: NOW_MS, Clock()).read_one(one.encode()) for one in samples()
    )
    assert [one.operation for one in (*published, *retracted)] == [Operation.PUBLISH, Operation.RETRACT]
    assert published[0].dataset == retracted[0].dataset
    assert (published[0].data_node, len(published[0].files)) == ("data.example.org", 1)
