"""
Matches on their way home, as rows: who is brought where, what was answered, what falls back on this node.

Users lie in them only sealed, under keyed hashes. Functions take the connection first and are run in the tracker's
thread. Source: docs/adr/0022-home-nodes.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import IntEnum
from typing import Any, Final

import attrs

from esgf_gossip.core.errors import WireError
from esgf_gossip.tracking import address_book, claims
from esgf_gossip.tracking.address_book import person_of
from esgf_gossip.tracking.feedback_messages import USERS_MOST, decode_match, encode_match
from esgf_gossip.tracking.matches import Match, match_to_json
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.sealed_values import SealedValues

SCRIPT: Final = """
CREATE TABLE homeward (
    id INTEGER PRIMARY KEY,
    home TEXT NOT NULL,
    person BLOB NOT NULL,
    change_key BLOB NOT NULL,
    sealed BLOB NOT NULL,
    queued_ms INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    refused_by TEXT NOT NULL DEFAULT '',
    refused_ms INTEGER NOT NULL DEFAULT 0,
    token BLOB,
    claimed_ms INTEGER,
    UNIQUE (person, change_key)
) STRICT;
CREATE INDEX homeward_home ON homeward (home, state, change_key, id);
CREATE INDEX homeward_state ON homeward (state, id);
CREATE TABLE told_here (token BLOB PRIMARY KEY, told_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE home_answer (home TEXT PRIMARY KEY, answered_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

# Of one step of the fallback.
ROWS_MOST: Final = 500
NOBODY: Final = ""
# A home that refused a user may have had the wrong settings, or an old view: it is asked again after that long.
REFUSED_MS: Final = 6 * 3600 * 1000


class State(IntEnum):
    """Where a row stands."""

    # To be brought to its home.
    HOMEWARD = 0
    # The home is away: this node has claimed to tell the user, and still tries the home.
    CLAIMED = 1
    # Handed to this node's own mail; the others do not know yet.
    TOLD = 2


@attrs.frozen
class Row:
    """One match on its way."""

    id: int
    home: str
    match: Match = attrs.field(repr=False)
    queued_ms: int


@attrs.frozen
class Waiting:
    """How many rows wait for a home, since when the oldest does, and when the home last answered (0: never)."""

    home: str
    count: int
    oldest_ms: int
    answered_ms: int


def put(
    connection: sqlite3.Connection,
    sealed: SealedValues,
    home: str | None,
    matches: Iterable[Match],
    now_ms: int,
) -> None:
    """Keep matches for a home, each user and change once; what has waited already stays as it is."""
    connection.executemany(
        "INSERT OR IGNORE INTO homeward (home, person, change_key, sealed, queued_ms) VALUES (?, ?, ?, ?, ?)",
        [
            (
                home or NOBODY,
                person_of(sealed, match.openid),
                match.change_key,
                sealed.seal(encode_match(match), _context(match.change_key)),
                now_ms,
            )
            for match in matches
        ],
    )


@attrs.frozen
class Survey:
    """What there is to do: what waits by home, whether others are still to be told, how many rows were too old."""

    waiting: tuple[Waiting, ...]
    has_told: bool
    expired: int


def survey(connection: sqlite3.Connection, before_ms: int) -> Survey:
    """Return what there is to do; remove first what has waited since before a time, and what was told as long ago."""
    expired = connection.execute(
        "DELETE FROM homeward WHERE queued_ms < ? AND state < ?", [before_ms, State.TOLD]
    ).rowcount
    connection.execute("DELETE FROM told_here WHERE told_ms < ?", [before_ms])
    has_told = connection.execute("SELECT 1 FROM homeward WHERE state = ?", [State.TOLD]).fetchone()
    return Survey(tuple(waiting(connection)), has_told is not None, expired)


def waiting(connection: sqlite3.Connection) -> list[Waiting]:
    """Return what waits, by home."""
    rows = connection.execute(
        "SELECT h.home, count(*), min(h.queued_ms), coalesce(max(a.answered_ms), 0) FROM homeward AS h "
        "LEFT JOIN home_answer AS a USING (home) WHERE h.state < ? GROUP BY h.home",
        [State.TOLD],
    )
    return [Waiting(*row) for row in rows]


def changes_for(connection: sqlite3.Connection, home: str) -> list[bytes]:
    """Return the keys of the changes that wait for a home, the oldest first."""
    rows = connection.execute(
        "SELECT change_key FROM homeward WHERE home = ? AND state < ? GROUP BY change_key ORDER BY min(id)",
        [home, State.TOLD],
    )
    return [key for (key,) in rows]


def batch(
    connection: sqlite3.Connection,
    sealed: SealedValues,
    home: str,
    change_key: bytes,
    home_of: Callable[[str], str | None],
    after: int,
    now_ms: int,
) -> tuple[list[Row], int, int]:
    """
    Return the next rows of one change for a home, the id to go on after, and how many were lost.

    Rows whose home is another now move there; to one that refused them after ``REFUSED_MS``, not before. What does not open any more (another key file) is lost, and removed.
    """
    found = connection.execute(
        "SELECT id, sealed, queued_ms, refused_by, refused_ms FROM homeward "
        "WHERE home = ? AND change_key = ? AND state < ? AND id > ? ORDER BY id LIMIT ?",
        [home, change_key, State.TOLD, after, USERS_MOST],
    ).fetchall()
    rows = []
    lost = []
    for number, content, queued_ms, refused_by, refused_ms in found:
        match = _opened(sealed, content, change_key)
        if match is None:
            lost.append(number)
            continue
        now_at = home_of(match.openid) or NOBODY
        if now_at == refused_by and now_ms - refused_ms < REFUSED_MS:
            now_at = NOBODY
        if now_at != home:
            connection.execute("UPDATE homeward SET home = ? WHERE id = ?", [now_at, number])
        elif home != NOBODY:
            rows.append(Row(number, home, match, queued_ms))
    remove(connection, lost)
    return rows, (found[-1][0] if found else 0), len(lost)


def note_answer(
    connection: sqlite3.Connection,
    home: str,
    now_ms: int,
    taken: Collection[int] = (),
    refused: Collection[int] = (),
) -> None:
    """Note in one step what a home answered: what it took is done, what it refused has no home for now."""
    connection.execute("INSERT OR REPLACE INTO home_answer VALUES (?, ?)", [home, now_ms])
    remove(connection, taken)
    connection.executemany(
        "UPDATE homeward SET home = ?, refused_by = ?, refused_ms = ? WHERE id = ?",
        [(NOBODY, home, now_ms, number) for number in refused],
    )


def forget_refusals(connection: sqlite3.Connection) -> None:
    """Let homes be asked again that have refused users: what they refused by may be another now."""
    connection.execute("UPDATE homeward SET refused_by = '' WHERE refused_by <> ''")


def remove(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Cross rows off."""
    connection.executemany("DELETE FROM homeward WHERE id = ?", [(number,) for number in numbers])


def to_claim(
    connection: sqlite3.Connection, sealed: SealedValues, home: str, before_ms: int
) -> tuple[list[tuple[int, bytes]], int]:
    """
    Return rows of a home that have waited since before a time, each with its token, and how many others have told.

    Those that others have told already are crossed off.
    """
    found = connection.execute(
        "SELECT id, sealed, change_key FROM homeward WHERE home = ? AND state = ? AND queued_ms <= ? "
        "ORDER BY id LIMIT ?",
        [home, State.HOMEWARD, before_ms, ROWS_MOST],
    ).fetchall()
    claimed = []
    done = []
    for number, content, change_key in found:
        match = _opened(sealed, content, change_key)
        token = b"" if match is None else claims.token(match.openid, change_key)
        if match is None or claims.is_sent(connection, token):
            done.append(number)
        else:
            claimed.append((number, token))
    remove(connection, done)
    return claimed, len(done)


def note_claimed(connection: sqlite3.Connection, rows: Sequence[tuple[int, bytes]], now_ms: int) -> None:
    """Note that rows were claimed."""
    connection.executemany(
        "UPDATE homeward SET state = ?, token = ?, claimed_ms = ? WHERE id = ? AND state = ?",
        [(State.CLAIMED, token, now_ms, number, State.HOMEWARD) for number, token in rows],
    )


def my_turns(
    connection: sqlite3.Connection,
    sealed: SealedValues,
    own: str,
    homes: Collection[str],
    now_ms: int,
    after: int,
) -> tuple[list[Row], int, int]:
    """
    Return the claimed rows of some homes whose turn this node has, the id to go on after, and how many stood down.

    What others have told is crossed off, whichever home it is of.
    """
    found: list[Any] = connection.execute(
        "SELECT id, home, sealed, change_key, queued_ms, token, claimed_ms FROM homeward "
        "WHERE state = ? AND id > ? ORDER BY id LIMIT ?",
        [State.CLAIMED, after, ROWS_MOST],
    ).fetchall()
    rows = []
    done = []
    for number, home, content, change_key, queued_ms, token, claimed_ms in found:
        if claims.is_sent(connection, token):
            done.append(number)
            continue
        since_ms = claims.claimants(connection, token) | {own: claimed_ms}
        if home not in homes or not claims.is_turn(own, token, since_ms, now_ms):
            continue
        match = _opened(sealed, content, change_key)
        if match is None:
            done.append(number)
        else:
            rows.append(Row(number, home, match, queued_ms))
    remove(connection, done)
    return rows, (found[-1][0] if len(found) == ROWS_MOST else 0), len(done)


def is_still_mine(connection: sqlite3.Connection, row: Row) -> bool:
    """Tell whether a row is still claimed, and nobody has told the user meanwhile."""
    found = connection.execute(
        "SELECT token FROM homeward WHERE id = ? AND state = ?", [row.id, State.CLAIMED]
    ).fetchone()
    return found is not None and not claims.is_sent(connection, found[0])


def note_told(connection: sqlite3.Connection, row: Row, now_ms: int) -> None:
    """Note that a row was handed to this node's own mail; what it was about is not kept any longer."""
    connection.execute(
        "INSERT OR REPLACE INTO told_here SELECT token, ? FROM homeward WHERE id = ?", [now_ms, row.id]
    )
    connection.execute("UPDATE homeward SET state = ?, sealed = x'' WHERE id = ?", [State.TOLD, row.id])


def told(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
    """Return the rows that were told and of which the others do not know yet, with their tokens."""
    return connection.execute(
        "SELECT id, token FROM homeward WHERE state = ? ORDER BY id LIMIT ?", [State.TOLD, ROWS_MOST]
    ).fetchall()


def forget(connection: sqlite3.Connection, sealed: SealedValues, openid: str) -> int:
    """Remove what waits of a user; return how many rows that were."""
    return connection.execute("DELETE FROM homeward WHERE person = ?", [person_of(sealed, openid)]).rowcount


def of_user(connection: sqlite3.Connection, sealed: SealedValues, openid: str) -> list[tuple[str, Match]]:
    """Return what waits of a user, with the home it waits for: for an export."""
    found = connection.execute(
        "SELECT home, sealed, change_key FROM homeward WHERE person = ? AND state < ? ORDER BY id",
        [person_of(sealed, openid), State.TOLD],
    ).fetchall()
    matches = ((home, _opened(sealed, content, key)) for home, content, key in found)
    return [(home, match) for home, match in matches if match is not None]


def known_of(connection: sqlite3.Connection, sealed: SealedValues, openids: Sequence[str]) -> dict[str, Any]:
    """Return, for an export, which addresses of a user are kept, and what is on its way home, as JSON values."""
    kept = [address_book.kept_of(connection, sealed, openid) for openid in openids]
    return {
        "kept_addresses": [one for one in kept if one is not None],
        "on_the_way": [
            {"home": home, "match": match_to_json(match)}
            for openid in openids
            for home, match in of_user(connection, sealed, openid)
        ],
    }


def _opened(sealed: SealedValues, content: bytes, change_key: bytes) -> Match | None:
    try:
        return decode_match(sealed.open(content, _context(change_key)), change_key)
    except (TrustError, WireError):
        return None


def _context(change_key: bytes) -> str:
    return f"homeward/{change_key.hex()}"
