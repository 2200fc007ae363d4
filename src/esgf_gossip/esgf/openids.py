"""
The OpenID of a user: one spelling for those in use, and the host that it is of.

What an OpenID says of its user is secret to all but its home: no text of an error here shows one.
Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from esgf_gossip.core.packing import HOST

OPENID_CHARACTERS: Final = 500
ADDRESS_CHARACTERS: Final = 254

# The spelling that nearly all have, and the canonical one: read ten times as fast as by parts.
_PLAIN: Final = re.compile(rf"https?://(?:{HOST.pattern})(?:/[A-Za-z0-9._~!$&'()*+,=:@%-]+)*")
_PORTS: Final = {"http": 80, "https": 443}
# What mail programs, servers and headers bear without quoting or extensions.
_ADDRESS: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])"
)


def canonical_openid(openid: str) -> str:
    """
    Return the one spelling of an OpenID: scheme and host in lower case, no usual port, no fragment, no slash at its end.

    Empty for what is none: no web address, too long, with blanks or control characters.
    """
    text = openid.strip()
    if len(text) > OPENID_CHARACTERS or not text.isprintable() or " " in text:
        return ""
    if _PLAIN.fullmatch(text):
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return ""
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _PORTS or not HOST.fullmatch(host) or parts.username is not None:
        return ""
    netloc = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    return urlunsplit((scheme, netloc, parts.path.rstrip("/"), parts.query, ""))


def openid_host(openid: str) -> str:
    """Return the host of an OpenID in lower case; empty for what is none."""
    return urlsplit(canonical_openid(openid)).hostname or ""


def is_mail_address(text: str) -> bool:
    """Tell whether a text is one plain mail address, with nothing in it that a header could take for its own."""
    return len(text) <= ADDRESS_CHARACTERS and _ADDRESS.fullmatch(text) is not None
