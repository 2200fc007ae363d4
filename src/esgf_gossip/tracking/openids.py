"""
Names of users as they are logged, in one spelling for comparing.

That of an OpenID is the one all nodes compare by; what is no OpenID, such as a plain user name, stays as it is.
"""

from __future__ import annotations

from typing import Final

from esgf_gossip.esgf.openids import canonical_openid

# What logs hold where nobody was named.
NOBODY: Final = frozenset({"", "<no-id>"})


def fold_openid(openid: str) -> str:
    """Return the spelling under which equal OpenIDs are equal; a name that is none stays as it is."""
    return canonical_openid(openid) or openid.strip()
