"""
The type of a node: the bits of ``config_type`` and their names.

Nothing else lives here. Source: esgf-node-manager, NodeTypes; formats.md.
"""

from __future__ import annotations

import re
from enum import IntFlag
from typing import Final

# The file holds one number; more bytes are another file.
FILE_BYTES: Final = 4096
NODE_TYPE_MAX: Final = 2**31 - 1


class NodeType(IntFlag):
    """The bits the installer writes; ``sel`` in its script."""

    INSTALL = 1
    TEST = 2
    DATA = 4
    INDEX = 8
    IDP = 16
    COMPUTE = 32
    PRIVATE = 128


NO_TYPE: Final = NodeType(0)
ALL: Final = NodeType.DATA | NodeType.INDEX | NodeType.IDP | NodeType.COMPUTE

_NAMED: Final = (
    (NodeType.DATA, "data"),
    (NodeType.INDEX, "index"),
    (NodeType.IDP, "idp"),
    (NodeType.COMPUTE, "compute"),
)


class NodeTypeError(ValueError):
    """Report a ``config_type`` that is not a number, in one line."""


def parse_node_type(content: bytes, name: str = "config_type") -> int:
    """
    Read the number in the first line; bits without a name are kept.

    Raises:
        NodeTypeError: no number there. The Java node manager went on and lost all services of the node.
    """
    first = content[:FILE_BYTES].split(b"\n", 1)[0].strip()
    if not re.fullmatch(rb"[0-9]{1,10}", first) or int(first) > NODE_TYPE_MAX:
        shown = first[:20].decode("ascii", "backslashreplace")
        raise NodeTypeError(
            f"{name}:1: {shown!r} is not a node type; write the sum of data 4, index 8, idp 16, compute 32"
        )
    return int(first)


def node_type_names(node_type: int) -> tuple[str, ...]:
    """Name the four public bits that are set, in the order data, index, idp, compute."""
    return tuple(name for bit, name in _NAMED if node_type & bit)
