"""Laws of the readers of a site's files for any bytes."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.esgf.groups import GroupsError, parse_groups
from esgf_gossip.esgf.node_type import NODE_TYPE_MAX, NodeTypeError, parse_node_type
from esgf_gossip.esgf.properties import PropertiesError, parse_properties
from esgf_gossip.esgf.registration import Group

BYTES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"a", b"=", b" ", b"\\", b"\\u12", b"\\ud800", b"\n", b"\r", b"#", b"\xe9", b"60"])).map(b"".join),
)  # fmt: skip
KEYS = st.text(
    st.characters(codec="utf-8", categories=["L", "N"]) | st.sampled_from(".-_"), min_size=1, max_size=20
)
# No line break, no escape, no leading blank, which the syntax takes; everything else is kept.
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\\"), max_size=40).filter(
    lambda value: value == value.lstrip(" \t\f=:")
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r="), min_size=1, max_size=20).filter(
    lambda name: bool(name.strip()) and not name.startswith(("#", "\ufeff"))
)
DESCRIPTIONS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=40)


@settings(deadline=None)
@given(BYTES)
def test_any_bytes_are_read_or_refused(content):
    """Each reader returns its value or raises its own error, nothing else."""
    with contextlib.suppress(PropertiesError):
        assert all(isinstance(value, str) for value in parse_properties(content).values())
    with contextlib.suppress(GroupsError):
        assert all(group.name.strip() for group in parse_groups(content))
    with contextlib.suppress(NodeTypeError):
        assert 0 <= parse_node_type(content) <= NODE_TYPE_MAX


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_plain_properties_are_kept_character_for_character(properties):
    """What is written as ``key=value`` comes back, trailing blanks included."""
    content = "".join(f"{key}={value}\n" for key, value in properties.items())
    assert properties == dict(parse_properties(content.encode()))


@settings(deadline=None)
@given(st.dictionaries(NAMES, DESCRIPTIONS, max_size=5))
def test_groups_are_kept_character_for_character(groups):
    """What is written as ``name = description`` comes back."""
    content = "".join(f"{name} = {description}\n" for name, description in groups.items())
    assert tuple(Group(*pair) for pair in groups.items()) == parse_groups(content.encode())
