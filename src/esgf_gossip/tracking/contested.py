"""
Changes whose author's right to say them is in doubt: what is of them waits for two people before anybody is mailed.

A member can claim the original of what no log has named yet, and retract it. The node that really serves it claims it
too within seconds, and that second claim is seen by all. So a change by the holder of a young claim that another node
contests is held; who held the original for longer is not delayed by whoever contests it. A change that has stopped to
count is held as well. Source: docs/tracking.md, "Holding and releasing".
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from esgf_gossip.tracking.changes import change_from_json
from esgf_gossip.tracking.doubts import Doubts
from esgf_gossip.tracking.events import CLAIMS, TOLD, EventType
from esgf_gossip.tracking.holds import CONTESTED, WITHDRAWN, count_again, hold_by_rule
from esgf_gossip.tracking.judgement import CONTESTED as CONTESTED_VERDICT
from esgf_gossip.tracking.matches import Change
from esgf_gossip.tracking.records import Record, records_of_dataset

# Between claim and change, as this node received them. A contest takes seconds where the true holder runs, and a night
# where it is down and somebody has to come; the data of an honest node is claimed by then or seldom retracted so soon.
YOUNG_MS: Final = 86_400_000

# Of those that are held, at each look; of more any ones, so that each has its turn: some ten milliseconds.
LOOKED_AT_AGAIN: Final = 200

# Of verdicts that begin with CONTESTED_VERDICT: ";" is the character after ":". Both stand in a query word for word,
# or its planner does not take the index.
_IS_CONTEST: Final = "counts = 0 AND verdict >= 'contested: ' AND verdict < 'contested;'"
_CLAIMS: Final = ", ".join(f"'{one}'" for one in sorted(CLAIMS))
_TOLD: Final = ", ".join(f"'{one}'" for one in sorted(TOLD))

# An index of the ledger's table: contested claims are few, and what is due for mailing is asked of them first.
SCRIPT: Final = f"CREATE INDEX event_contested ON event (master_id) WHERE {_IS_CONTEST}"


def doubt(connection: sqlite3.Connection, change: Change) -> str:
    """Return why a change is not to be mailed without the word of people: ``CONTESTED``, ``WITHDRAWN``, or an empty text."""
    if change.kind not in TOLD or not change.datasets:
        return ""
    master = change.datasets[0].master_id
    counts = connection.execute(
        "SELECT 1 FROM event WHERE origin = ? AND change_key = ? AND counts = 1", (change.origin, change.key)
    ).fetchone()
    if counts is not None and not _has_rivals(connection, master, change.origin):
        return ""
    accepted = set(connection.execute("SELECT change_key, origin FROM accepted"))
    return doubt_of(change.key, records_of_dataset(connection, master), accepted)


def _has_rivals(connection: sqlite3.Connection, master: str, origin: str) -> bool:
    """Tell whether another node claims any original of a dataset, or somebody's claim is contested."""
    row = connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM event WHERE master_id = ?1 AND {_IS_CONTEST})"  # noqa: S608 - our own texts
        f" OR EXISTS (SELECT 1 FROM event WHERE master_id = ?1 AND origin <> ?2 AND counts = 1 AND type IN ({_CLAIMS}))",
        (master, origin),
    ).fetchone()
    return bool(row[0])


def doubt_of(change_key: bytes, said: Sequence[Record], accepted: Collection[tuple[bytes, str]]) -> str:
    """
    Judge a change by what is said of its dataset.

    Args:
        change_key: of the change.
        said: all events of the dataset, as they are judged now.
        accepted: change keys and origins that the operator of this node lets count: that is the word of people.
    """
    sayings = [one for one in said if one.counts and one.change_key == change_key]
    if not sayings:
        return WITHDRAWN
    return CONTESTED if all(_is_contested(one, said, accepted) for one in sayings) else ""


def _is_contested(one: Record, said: Sequence[Record], accepted: Collection[tuple[bytes, str]]) -> bool:
    # A new version is its own claim: what gives its author the right is that the originals of the dataset are his.
    is_new = one.event.type is EventType.NEW_VERSION
    claims = [
        claim
        for claim in said
        if claim.event.type in CLAIMS and (is_new or claim.event.dataset == one.event.dataset)
    ]
    own = [claim for claim in claims if claim.origin == one.origin and claim.counts]
    # Without a claim it counts by the voices of many.
    if not own or any((word.change_key, word.origin) in accepted for word in (one, *own)):
        return False
    if one.received_ms - min(claim.received_ms for claim in own) >= YOUNG_MS:
        return False
    # Another's claim that counts beside it: by an operator's word, or of another version of the dataset.
    return any(
        claim.origin != one.origin and (claim.counts or claim.verdict.startswith(CONTESTED_VERDICT))
        for claim in claims
    )


def review(connection: sqlite3.Connection, now_ms: int) -> int:
    """
    Hold what waits and has come to be contested; return how many changes. Begins at the contested claims.

    What is held is looked at again: it may have stopped to count, as when its author was revoked, or count again.
    """
    held = connection.execute(
        "SELECT held_by, body FROM told WHERE state = 'held' AND held_by IN (?, ?) ORDER BY random() LIMIT ?",
        (CONTESTED, WITHDRAWN, LOOKED_AT_AGAIN),
    ).fetchall()
    for held_by, body in held:
        change = change_from_json(json.loads(body))
        word = doubt(connection, change)
        if held_by == WITHDRAWN and not word:
            count_again(connection, change.key, now_ms)
        elif word not in ("", held_by):
            hold_by_rule(connection, change.key, word, now_ms)
    rows = connection.execute(
        "SELECT DISTINCT told.body"  # noqa: S608 - our own texts
        f" FROM (SELECT DISTINCT master_id FROM event INDEXED BY event_contested WHERE {_IS_CONTEST}) AS rival"
        " CROSS JOIN event AS said INDEXED BY event_of_dataset ON said.master_id = rival.master_id"
        " CROSS JOIN told ON told.change_key = said.change_key"
        f" WHERE said.counts = 1 AND said.type IN ({_TOLD})"
        " AND (told.state = 'open' OR (told.state = 'held' AND told.held_by <> ?))",
        (CONTESTED,),
    ).fetchall()
    changes = [change_from_json(json.loads(body)) for (body,) in rows]
    return sum(
        hold_by_rule(connection, change.key, CONTESTED, now_ms)
        for change in changes
        if doubt(connection, change) == CONTESTED
    )


DOUBTS: Final = Doubts(doubt, review)
