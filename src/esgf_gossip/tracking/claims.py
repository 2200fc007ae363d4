"""
Who tells a user whose home node is away: the token that hides the user, and whose turn it is.

A claim is a leaf of a log that all members read. Its token is a hash keyed by the OpenID: who does not know the OpenID
learns nothing, who knows it already can tell that this user was concerned. Turns follow from the claims alone, so all
who see the same claims agree. Source: docs/adr/0022-home-nodes.md.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Mapping
from typing import Final

from esgf_gossip.esgf.openids import canonical_openid

# After the last claim that is seen the others have that long to claim too.
SETTLE_MS: Final = 10 * 60 * 1000
# The turn of one node, and the part of it in which it begins: the rest is for its word to reach the others.
TURN_MS: Final = 30 * 60 * 1000
_BEGIN_MS: Final = 20 * 60 * 1000

_TOKEN_CONTEXT: Final = b"esgf-gossip/claim/1\0"
_RANK_CONTEXT: Final = b"esgf-gossip/claim-rank/1\0"


def token(openid: str, change_key: bytes) -> bytes:
    """Return the token of a user and a change: HMAC-SHA-256 keyed by the canonical OpenID."""
    return hmac.digest(canonical_openid(openid).encode(), _TOKEN_CONTEXT + change_key, "sha256")


def rank(of_token: bytes, host: str) -> bytes:
    """Return the rendezvous hash of a node for a token: the lowest comes first."""
    return hashlib.sha256(_RANK_CONTEXT + of_token + host.encode()).digest()


def is_turn(own: str, of_token: bytes, since_ms: Mapping[str, int], now_ms: int) -> bool:
    """
    Tell whether it is a node's turn to tell a user.

    Claimants take turns of ``TURN_MS``, in the order of their ranks, again and again, from ``SETTLE_MS`` after the
    newest claim on: who cannot tell the user, or is gone, holds nobody up for longer than that.

    Args:
        own: the node.
        of_token: of the claims.
        since_ms: by claimant when its claim was seen, Unix milliseconds; ``own`` is among them.
        now_ms: Unix milliseconds.
    """
    order = sorted(since_ms, key=lambda host: rank(of_token, host))
    running_ms = now_ms - max(since_ms.values()) - SETTLE_MS
    if running_ms < 0:
        return False
    turn, within_ms = divmod(running_ms, TURN_MS)
    return order[turn % len(order)] == own and within_ms < _BEGIN_MS


def is_told_elsewhere(connection: sqlite3.Connection, openid: str, change_key: bytes, own: str) -> bool:
    """
    Tell whether another node has told a user of a change while the user's home node was away.

    To be asked when a match is taken in, and again before its mail goes out: claims may arrive in between. Of several
    that have told him in the same moment the first by rank goes on, and the others hold back. Reads the table ``claim``
    of the log, which this node's own claims may be in.
    """
    of_token = token(openid, change_key)
    others = [
        origin
        for (origin,) in connection.execute(
            "SELECT origin FROM claim WHERE token = ? AND is_sent AND origin <> ?", [of_token, own]
        )
    ]
    if not others:
        return False
    mine = connection.execute("SELECT 1 FROM told_here WHERE token = ?", [of_token]).fetchone()
    return mine is None or min(rank(of_token, one) for one in others) < rank(of_token, own)


def is_sent(connection: sqlite3.Connection, of_token: bytes) -> bool:
    """Tell whether there is a claim that the mail has gone out."""
    found = connection.execute("SELECT 1 FROM claim WHERE token = ? AND is_sent LIMIT 1", [of_token])
    return found.fetchone() is not None


def claimants(connection: sqlite3.Connection, of_token: bytes) -> dict[str, int]:
    """Return who claims a token, and since when this node has known it (Unix milliseconds)."""
    return dict(
        connection.execute(
            "SELECT origin, min(received_ms) FROM claim WHERE token = ? GROUP BY origin", [of_token]
        ).fetchall()
    )
