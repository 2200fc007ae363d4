"""
What the programs that read ``registration.xml`` can bear, and what is written instead of the rest.

Only judgements about single texts live here: the origin uses them to warn, the
writers to replace, so that both say the same. Each rule names the reader that
breaks without it. Source: docs/formats.md.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from esgf_gossip.core import limits

UNKNOWN: Final = "unknown"
# Of registration.xml and of las_servers.xml; under another, or a prefix, readers see nothing.
REGISTRY_NAMESPACE: Final = "http://www.esgf.org/registry"

# The dashboard's columns are varchar(255) and its SQL buffers 2,048 bytes with up to three values:
# one value too long aborts the transaction that imports all nodes.
STORED_BYTES: Final = 255
# char node_ip_test[64] and char value_buffer[50] for what follows a dot.
ADDRESS_CHARACTERS: Final = 63
ADDRESS_PART_CHARACTERS: Final = 49
# char buffer_endpoint[2048]; a longer one overflows the stack.
ENDPOINT_BYTES: Final = 2000

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{0,15})?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_USER_AND_COLON: Final = re.compile(r"://\S*:")
# Noncharacters are no XML characters (U+FFFE, U+FFFF); line and paragraph separators end a line for some readers.
_UNWRITABLE: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff\\ufdd0-\\ufdef\\ufffe\\uffff]"
)
_HIDDEN_GROUP: Final = re.compile("user|guest|nobody|root", re.IGNORECASE)


def is_host_name(text: str) -> bool:
    """
    Tell whether a text is a strict DNS name: lower-case labels of letters, digits and inner hyphens.

    esgf-spotcheck runs ``eval`` over the host names of the document.
    """
    return len(text) <= limits.HOST_CHARACTERS and _HOST.fullmatch(text) is not None


def has_credentials(text: str) -> bool:
    """Tell whether a text holds ``://user:password@``, which must never leave the host."""
    # Part by part, because one expression for the whole is quadratic where "://" repeats.
    return any(_USER_AND_COLON.search(part) for part in text.split("@")[:-1])


def is_hidden_group(name: str) -> bool:
    """Tell whether the Java node manager would have left the group out: user, guest, nobody, root, in any case."""
    return _HIDDEN_GROUP.search(name) is not None


def is_coordinate(text: str, largest: int) -> bool:
    """Tell whether a text is a plain decimal number within +-``largest`` degrees."""
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) <= largest


def is_port(text: str) -> bool:
    """Tell whether a text is a port number."""
    return _PORT.fullmatch(text) is not None and 1 <= int(text) <= 65535


def one_line(text: str) -> str:
    """Put a blank in the place of every character that no XML document or no text reader can bear."""
    # A character outside the basic plane ending in FFFE or FFFF is a noncharacter too, but legal XML.
    return _UNWRITABLE.sub(" ", text)


def quotable(text: str) -> str:
    """
    Take from a text what ends a quoted SQL value: an apostrophe becomes U+2019, a backslash a slash.

    PostgreSQL before 9.1, and the dashboard's own set-up, read a backslash as an escape.
    """
    return one_line(text).replace("'", "\u2019").replace("\\", "/")


def stored(text: str) -> str:
    """Make a text safe for the dashboard, which pastes it into SQL: quotable, and not more than 255 bytes."""
    text = quotable(text)
    encoded = text.encode()
    return text if len(encoded) <= STORED_BYTES else encoded[:STORED_BYTES].decode("utf-8", "ignore")


def peer_groups(text: str) -> tuple[str, ...]:
    """Split a list of peer groups at commas; blanks around a name and empty names go."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def stored_peer_groups(text: str) -> str:
    """
    Write the list of peer groups without blanks (inside a name: ``_``), whole names only, at most 255 bytes in all.

    The dashboard takes ``", b"`` for a project of its own and dies of long lists.
    """
    kept = ""
    for name in peer_groups(quotable(text)):
        name = "_".join(name.split())
        longer = f"{kept},{name}" if kept else name
        if len(longer.encode()) > STORED_BYTES:
            break
        kept = longer
    return kept


def address(text: str) -> str:
    """Return the IP address as it is written: short enough for the dashboard's buffers, else ``unknown``."""
    text = quotable(text).strip()
    parts = text.split(".")
    too_long = len(text.encode()) > ADDRESS_CHARACTERS or any(
        len(p.encode()) > ADDRESS_PART_CHARACTERS for p in parts
    )
    return UNKNOWN if too_long or not text else text


def endpoint(text: str) -> str:
    """Return an endpoint as it is written; one that overflows the dashboard's buffer becomes empty."""
    text = one_line(text)
    return text if len(text.encode()) <= ENDPOINT_BYTES else ""


def or_unknown(text: str, default: str = UNKNOWN) -> str:
    """Return the text, or the default where nothing of it is visible."""
    return (
        text
        if any(not unicodedata.category(character).startswith(("Z", "C")) for character in text)
        else default
    )
