"""
Changes that wait before anybody is mailed: by hand, because they would reach very many, or by a doubt about them.

Two people see to that: who releases a change is never who held it or asked for its release.
Source: docs/tracking.md, "Holding and releasing".
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

import attrs

from esgf_gossip.tracking import audit
from esgf_gossip.tracking.audit import Step
from esgf_gossip.tracking.restored import RESTORED

WHO_CHARACTERS: Final = 64
# In ``held_by`` of what no person held: none is a name, for names have no blanks.
CONTESTED: Final = "contested by another node"
WITHDRAWN: Final = "does not count any more"
# Nobody held it who could count as the first of two people; empty: it reaches very many.
_NEEDS_TWO: Final = frozenset({"", CONTESTED, WITHDRAWN})
# What gives way to a word: holders, and states. What people released goes out contested or not, if it counts.
_YIELD: Final = {
    CONTESTED: (frozenset({"", RESTORED, WITHDRAWN}), frozenset({"open"})),
    WITHDRAWN: (frozenset({CONTESTED}), frozenset({"open", "released"})),
}
_DIGITS_LEAST: Final = 8
_WHO: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.@+-]{{0,{WHO_CHARACTERS - 1}}}")


class HoldError(Exception):
    """Refuse to hold or release, in one line; nothing was changed. ``is_missing``: there is no such change."""

    def __init__(self, text: str, *, is_missing: bool = False) -> None:
        super().__init__(text)
        self.is_missing: Final = is_missing


@attrs.frozen
class Standing:
    """How a change stands: ``open``, ``held``, ``released``, ``too-old``; who did what."""

    change_key: bytes
    state: str
    recipients: int
    held_by: str
    asked_by: str
    released_by: str


def find_change(connection: sqlite3.Connection, text: str) -> bytes:
    """
    Return the key of a change, named by its first 8 digits or more.

    Raises:
        HoldError: none or several have these.
    """
    wanted = text.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_DIGITS_LEAST},64}}", wanted):
        raise HoldError(
            f"a change is named by {_DIGITS_LEAST} hex digits of its key or more; notify list shows them"
        )
    rows = connection.execute(
        "SELECT change_key FROM told WHERE hex(change_key) LIKE ? LIMIT 2", (f"{wanted.upper()}%",)
    ).fetchall()
    if not rows:
        raise HoldError(
            f"no users were matched with a change {wanted[:16]}; notify list shows those there are",
            is_missing=True,
        )
    if len(rows) > 1:
        raise HoldError(f"{wanted} is the beginning of several changes; give more digits")
    return bytes(rows[0][0])


def standing(connection: sqlite3.Connection, change_key: bytes) -> Standing:
    """Return how a change stands that was found."""
    row = connection.execute(
        "SELECT change_key, state, recipients, held_by, asked_by, released_by FROM told WHERE change_key = ?",
        (change_key,),
    ).fetchone()
    return Standing(*row)


def hold(connection: sqlite3.Connection, change_key: bytes, who: str, now_ms: int) -> Standing:
    """
    Hold a change: who was not mailed yet is not, until it is released.

    Raises:
        HoldError: it is held already, or too old to be mailed anyway.
    """
    person = _name(who)
    now = standing(connection, change_key)
    if now.state in ("held", "too-old"):
        raise HoldError(f"the change is {now.state} already; nothing was changed")
    connection.execute(
        "UPDATE told SET state = 'held', held_by = ?, held_ms = ?, asked_by = '', released_by = '' WHERE change_key = ?",
        (person, now_ms, change_key),
    )
    audit.note(connection, now_ms, Step.HELD, f"by {person}", change_key=change_key)
    return standing(connection, change_key)


def hold_by_rule(connection: sqlite3.Connection, change_key: bytes, word: str, now_ms: int) -> bool:
    """
    Hold a change for ``CONTESTED`` or ``WITHDRAWN``; tell whether that is new.

    What a person holds stays that person's. Who asked for the release of what was held for another reason did not know
    of this one.
    """
    before = standing(connection, change_key)
    holders, states = _YIELD[word]
    if before.state not in states and not (before.state == "held" and before.held_by in holders):
        return False
    connection.execute(
        "UPDATE told SET state = 'held', held_by = ?, held_ms = ?, asked_by = '', released_by = '' WHERE change_key = ?",
        (word, now_ms, change_key),
    )
    audit.note(connection, now_ms, Step.HELD, word, change_key=change_key)
    return True


def count_again(connection: sqlite3.Connection, change_key: bytes, now_ms: int) -> None:
    """Let go what was held because it did not count, and does now; what was contested before that waits for people."""
    was_contested = connection.execute(
        "SELECT 1 FROM audit WHERE change_key = ? AND step = ? AND detail = ?",
        (change_key, Step.HELD, CONTESTED),
    ).fetchone()
    if was_contested:
        hold_by_rule(connection, change_key, CONTESTED, now_ms)
        return
    connection.execute("UPDATE told SET state = 'open', held_by = '' WHERE change_key = ?", (change_key,))
    audit.note(connection, now_ms, Step.RELEASED, "it counts again", change_key=change_key)


def release(connection: sqlite3.Connection, change_key: bytes, who: str, now_ms: int) -> Standing:
    """
    Release a change, or ask for it where nobody did yet; look at ``state``.

    Raises:
        HoldError: it is not held, or the same person held it or asked.
    """
    person = _name(who)
    now = standing(connection, change_key)
    if now.state != "held":
        raise HoldError(f"the change is not held but {now.state}; nothing was changed")
    if person in (now.held_by, now.asked_by):
        did = "held it" if person == now.held_by else "asked for it already"
        raise HoldError(f"{person} {did}: another person must release it; nothing was changed")
    if now.held_by in _NEEDS_TWO and not now.asked_by:
        connection.execute("UPDATE told SET asked_by = ? WHERE change_key = ?", (person, change_key))
        audit.note(connection, now_ms, Step.ASKED, f"by {person}", change_key=change_key)
    else:
        connection.execute(
            "UPDATE told SET state = 'released', released_by = ? WHERE change_key = ?", (person, change_key)
        )
        audit.note(connection, now_ms, Step.RELEASED, f"by {person}", change_key=change_key)
    return standing(connection, change_key)


def _name(who: str) -> str:
    if not _WHO.fullmatch(who):
        raise HoldError("say who you are: the name of a user, of letters, digits and . _ - + @")
    return who
