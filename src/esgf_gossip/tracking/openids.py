"""
Names of users as they are logged, in one spelling for comparing.

Identity providers look an OpenID up as it is written, but scheme and host know no case, a port that goes without
saying may be there or not, and so may a slash at the end. The path is the user's own and stays as it is.
"""

from __future__ import annotations

import re
from typing import Final

OPENID_CHARACTERS: Final = 512
# What logs hold where nobody was named.
NOBODY: Final = frozenset({"", "<no-id>"})

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<server>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_PORTS: Final = {"http": ":80", "https": ":443"}


def fold_openid(openid: str) -> str:
    """Return the spelling under which equal OpenIDs are equal; a name that is no URL stays as it is."""
    text = openid.strip()
    found = _URL.fullmatch(text)
    if found is None:
        return text
    scheme = found["scheme"].lower()
    server = found["server"].lower().removesuffix(_PORTS.get(scheme, "\0"))
    return f"{scheme}://{server}{found['rest'].rstrip('/')}"
