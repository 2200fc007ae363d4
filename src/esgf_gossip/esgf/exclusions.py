"""
``esgf_excludes.txt``: which nodes this site leaves out of its own files, and of which.

Only its syntax and meaning live here; it is policy of one site, nothing of it is gossiped. The old node manager's
files are read as they are; what it made of them and we do not stands in docs/formats.md, section 7.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from esgf_gossip.esgf.node_type import ALL, NO_TYPE, NodeType
from esgf_gossip.esgf.properties import decode_text

# Real files have a handful of lines.
FILE_BYTES: Final = 64 * 1024
LINES: Final = 1000

_TYPES: Final = {
    "ALL": ALL,
    "DATA": NodeType.DATA,
    "INDEX": NodeType.INDEX,
    "IDP": NodeType.IDP,
    "COMPUTE": NodeType.COMPUTE,
    "PRIVATE": NodeType.PRIVATE,
}


class ExclusionsError(ValueError):
    """Report a file of exclusions that cannot be read: file, line, what to do, in one line."""


@attrs.frozen
class Exclusions:
    """The lines of the file: expressions that are searched for in host names, and the types they exclude."""

    rules: tuple[tuple[re.Pattern[str], NodeType], ...] = ()

    def of(self, host: str) -> NodeType:
        """
        Return the types of which a node is left out, all that match together; 0: none.

        A type leaves it out of the lists of that type, PRIVATE out of every file.
        """
        found = NO_TYPE
        for pattern, types in self.rules:
            if pattern.search(host):
                found |= types
        return found


def parse_exclusions(content: bytes, name: str = "esgf_excludes.txt") -> Exclusions:
    """
    Read ``expression [types]`` line by line; blank lines and those that begin with ``#`` are skipped.

    A blank or ``=`` parts the two, blanks, ``,``, ``|`` or ``+`` the types. No type, or an unknown one, is PRIVATE.

    Raises:
        ExclusionsError: an expression is none, or there are more than ``LINES``.
    """
    rules: list[tuple[re.Pattern[str], NodeType]] = []
    for number, line in enumerate(decode_text(content).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if len(rules) == LINES:
            raise ExclusionsError(f"{name}:{number}: more than {LINES} lines; is it the right file?")
        expression, *words = re.split(r"[\s=]+", line, maxsplit=1)
        types = NO_TYPE
        for word in re.split(r"[\s,|+]+", words[0]) if words else ():
            if word:
                types |= _TYPES.get(word.upper(), NodeType.PRIVATE)
        try:
            rules.append((re.compile(expression), types or NodeType.PRIVATE))
        except (re.error, OverflowError, RecursionError) as error:
            raise ExclusionsError(
                f"{name}:{number}: {expression[:80]!r} is no regular expression: {error}; correct or remove the line"
            ) from None
    return Exclusions(tuple(rules))
