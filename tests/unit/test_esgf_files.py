"""The files of a site, one syntax at a time: properties, node type, groups."""

from __future__ import annotations

import pytest

from esgf_gossip.esgf import properties as properties_module
from esgf_gossip.esgf.groups import GroupsError, parse_groups
from esgf_gossip.esgf.node_type import NODE_TYPE_MAX, NodeTypeError, node_type_names, parse_node_type
from esgf_gossip.esgf.properties import PropertiesError, parse_properties
from esgf_gossip.esgf.registration import Group


def test_values_are_kept_character_for_character():
    """Trailing blanks stay, blanks around the first separator go, as in Java."""
    expected = {"a": "b ", "c": "d=e: f", "g h": "i\t"}
    assert expected == dict(parse_properties(b"a=b \n c = d=e: f\r\ng\\ h:i\\t\n"))


def test_continuation_lines_join_and_keep_counting_lines():
    """A backslash at the end of a line joins the next without its leading blanks."""
    read = parse_properties(b"# comment\na=one \\\n   two\n\nb=3\n", "f")
    assert dict(read) == {"a": "one two", "b": "3"}
    assert [read.place(key) for key in ("a", "b", "c")] == ["f:2: a", "f:5: b", "f: c"]


def test_last_of_equal_keys_counts_and_is_the_one_named():
    """Of several equal keys the last wins, and messages name its line."""
    read = parse_properties(b"a=1\nb=2\na=3\n", "f")
    assert list(read.items()) == [("a", "3"), ("b", "2")]
    assert read.place("a") == "f:3: a"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a=Universität".encode(), "Universität"),
        ("a=Universität".encode("latin-1"), "Universität"),
        (b"\xef\xbb\xbfa=x", "x"),
        (b"a=\\u00fc\\ud83d\\ude00", "ü😀"),
        (b"a", ""),
    ],
)
def test_bytes_are_utf8_and_else_latin1(content, expected):
    """UTF-8 with or without a mark, Latin-1 where it is not, escapes of both."""
    assert {"a": expected} == dict(parse_properties(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"ok=1\na=\\u12",
            "f: at or after line 2: Invalid \\u escape sequence: \\u12; write \\u and four hex digits",
        ),
        (b"\na=\\ud800", "f:2: a: half of a surrogate pair (\\ud800 to \\udfff); write both halves"),
        (b"a=" + b"x" * 16385, "f:1: a: a value of 16385 characters, at most 16384 are allowed"),
        (b"k" * 257, "f:1: a key of 257 characters, at most 256 are allowed"),
        (b"\n".join(b"k%d=" % n for n in range(4097)), "f:4097: more than 4096 keys; is it the right file?"),
        (b"#" * 1048577, "f: 1048577 bytes, at most 1048576 can be read; is it the right file?"),
    ],
)
def test_a_broken_file_is_named_in_one_line(content, message):
    """File, line and key are named, never more than one line."""
    with pytest.raises(PropertiesError) as caught:
        parse_properties(content, "f")
    assert message == str(caught.value)


def test_bounds_are_inclusive():
    """What is exactly at a bound is read."""
    content = b"k" * properties_module.KEY_CHARACTERS + b"=" + b"v" * properties_module.VALUE_CHARACTERS
    assert len(parse_properties(content)) == 1
    assert len(parse_properties(b"\n".join(b"k%d=" % n for n in range(4096)))) == 4096
    assert len(parse_properties(b"#" * properties_module.FILE_BYTES)) == 0


@pytest.mark.parametrize(
    ("content", "expected"), [(b"60\n", 60), (b" 4 \r\nmore", 4), (b"0", 0), (b"2147483647", 2**31 - 1)]
)
def test_node_type_is_the_number_in_the_first_line(content, expected):
    """Blanks around it and further lines do not matter."""
    assert expected == parse_node_type(content)


@pytest.mark.parametrize(
    "content", [b"", b"\n60", b"data", b"-4", b"4.0", b"\xff", b"2147483648", b"9" * 5000]
)
def test_node_type_that_is_no_number_is_an_error(content):
    """The old node manager lost all services instead."""
    with pytest.raises(NodeTypeError, match=r"^f:1: .* is not a node type; write the sum of"):
        parse_node_type(content, "f")


def test_node_types_have_names():
    """Only the four public bits have names."""
    assert node_type_names(60) == ("data", "index", "idp", "compute")
    assert node_type_names(4 | 32 | 1 | 2 | 64 | 128) == ("data", "compute")
    assert node_type_names(0) == ()
    assert NODE_TYPE_MAX == 2**31 - 1


def test_groups_are_kept_character_for_character():
    """The first sign parts the two; a description may be empty, hold the sign, end in blanks."""
    content = b"# comment\nDKRZ publishers = a = b \nBCCR = \nstripped =\n\nshort=x\ncrlf = y\r\n"
    expected = (
        Group("DKRZ publishers", "a = b "),
        Group("BCCR", ""),
        Group("stripped", ""),
        Group("short", "x"),
        Group("crlf", "y"),
    )
    assert expected == parse_groups(content)


def test_last_of_equal_groups_counts():
    """A name is unique, as in the database."""
    assert (Group("a", "2"),) == parse_groups(b"a = 1\na = 2\n")


@pytest.mark.parametrize("content", [b"ok = 1\nwheel", b"ok = 1\n = x", b"ok = 1\n=x"])
def test_a_line_that_is_no_group_is_an_error(content):
    """File and line are named."""
    with pytest.raises(GroupsError, match=r"^f:2: .* is no group; write name = description$"):
        parse_groups(content, "f")
