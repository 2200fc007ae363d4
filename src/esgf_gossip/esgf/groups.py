"""
The file of access groups: one a line, ``name = description``.

Only its syntax lives here. The first `` = `` of a line parts name and
description; both are kept character for character, so a description may end in
blanks or be empty, as real ones do. Source: docs/formats.md.
"""

from __future__ import annotations

from typing import Final

from esgf_gossip.esgf.properties import decode_text
from esgf_gossip.esgf.registration import Group

# 1,024 groups with long descriptions.
GROUPS_FILE_BYTES: Final = 1024 * 1024


class GroupsError(ValueError):
    """Report a file of groups that cannot be read: file, line, what to do, in one line."""


def parse_groups(content: bytes, name: str = "groups") -> tuple[Group, ...]:
    """
    Read the groups in the order of the file; of several with one name the last counts.

    Blank lines and lines that begin with ``#`` are skipped. ``name=description``
    without blanks around the sign is understood too.

    Raises:
        GroupsError: a line without ``=`` or without a name.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(decode_text(content).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.startswith("#"):
            continue
        group, sign, description = line.partition(" = ")
        if not sign and line.endswith(" ="):
            # Editors take the last blank of a line away: an empty description.
            group, sign, description = line.removesuffix(" ="), "=", ""
        if not sign:
            group, sign, description = line.partition("=")
        if not sign or not group.strip():
            raise GroupsError(f"{name}:{number}: {line[:80]!r} is no group; write name = description")
        found[group] = description
    return tuple(Group(group, description) for group, description in found.items())
