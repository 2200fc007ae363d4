"""
What a person wants to be told: nothing, not of some dataset or some kind of change, retractions at once.

One row for each thing that is not wanted; a person without rows wants everything in a digest. The address source's
``notification_code`` is never an opt-out: every account has 0 there. Source: docs/tracking.md, "Unsubscribing".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Final

import attrs

from esgf_gossip.tracking import audit
from esgf_gossip.tracking.audit import Step
from esgf_gossip.tracking.events import ERRATUM, TOLD
from esgf_gossip.tracking.identity import MASTER_CHARACTERS, DatasetId, IdentityError, make_dataset
from esgf_gossip.tracking.matches import Change

KINDS: Final = (*sorted(TOLD), ERRATUM)
ALL: Final = "all"
# An address that gave hard failures; only its owner takes that back.
BOUNCED: Final = "bounced"
# Datasets a person can be unsubscribed from one by one.
SCOPES_MOST: Final = 10_000

SCRIPT: Final = """
CREATE TABLE unwanted (person BLOB NOT NULL, scope TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (person, scope))
STRICT;
CREATE TABLE wish (person BLOB PRIMARY KEY, is_immediate INTEGER NOT NULL) STRICT
"""


class ScopeError(ValueError):
    """Report a scope that is none."""


def type_scope(kind: str) -> str:
    """Return the scope of one kind of change."""
    return f"type:{kind}"


def dataset_scope(master_id: str) -> str:
    """Return the scope of all versions of a dataset."""
    return f"dataset:{master_id}"


def check_scope(scope: str) -> str:
    """
    Return a scope that can be unsubscribed from.

    Raises:
        ScopeError: it is none.
    """
    what, _, name = scope.partition(":")
    try:
        if what == "dataset" and len(name) <= MASTER_CHARACTERS:
            make_dataset(name, "1")
            return scope
    except IdentityError:
        pass
    if scope == ALL or (what == "type" and name in KINDS):
        return scope
    raise ScopeError(f"{scope[:80]!r} is nothing to unsubscribe from")


@attrs.frozen
class Preferences:
    """What one person does not want, and whether retractions are mailed at once."""

    unwanted: frozenset[str]
    is_immediate: bool

    @property
    def is_silent(self) -> bool:
        """Whether nothing at all is mailed."""
        return ALL in self.unwanted or BOUNCED in self.unwanted

    def wants(self, change: Change, held: Collection[DatasetId]) -> bool:
        """Tell whether the person wants to hear of a change of these datasets."""
        if self.is_silent or type_scope(change.kind) in self.unwanted:
            return False
        # A new version is unsubscribed from as the dataset it is a version of; of an erratum one dataset is enough.
        of = held or change.datasets
        return not of or any(dataset_scope(one.master_id) not in self.unwanted for one in of)


def read_preferences(connection: sqlite3.Connection, person: bytes) -> Preferences:
    """Return the preferences of a person."""
    rows = connection.execute(
        "SELECT scope FROM unwanted WHERE person = ? LIMIT ?", (person, SCOPES_MOST + 10)
    )
    wish = connection.execute("SELECT is_immediate FROM wish WHERE person = ?", (person,)).fetchone()
    return Preferences(frozenset(scope for (scope,) in rows), bool(wish and wish[0]))


def unsubscribe(connection: sqlite3.Connection, person: bytes, scope: str, now_ms: int) -> bool:
    """Note that a person wants no more of a scope; False where that was so already, or nothing more can be noted."""
    count = connection.execute("SELECT count(*) FROM unwanted WHERE person = ?", (person,)).fetchone()[0]
    if scope.startswith("dataset:") and count >= SCOPES_MOST:
        return False
    added = connection.execute(
        "INSERT INTO unwanted VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (person, scope, now_ms)
    ).rowcount
    if added:
        audit.note(connection, now_ms, Step.PREFERENCES, f"not wanted: {_shown(scope)}", person=person)
    return bool(added)


def resubscribe(connection: sqlite3.Connection, person: bytes, scope: str, now_ms: int) -> None:
    """Take that back; with ``all`` also that its address failed."""
    scopes = (ALL, BOUNCED) if scope == ALL else (scope,)
    for one in scopes:
        if connection.execute("DELETE FROM unwanted WHERE person = ? AND scope = ?", (person, one)).rowcount:
            audit.note(connection, now_ms, Step.PREFERENCES, f"wanted again: {_shown(one)}", person=person)


def set_immediate(connection: sqlite3.Connection, person: bytes, now_ms: int, *, is_immediate: bool) -> None:
    """Note whether a person wants retractions at once."""
    before = read_preferences(connection, person).is_immediate
    connection.execute(
        "INSERT INTO wish VALUES (?, ?) ON CONFLICT (person) DO UPDATE SET is_immediate = excluded.is_immediate",
        (person, int(is_immediate)),
    )
    if before != is_immediate:
        said = "retractions at once" if is_immediate else "retractions in the digest"
        audit.note(connection, now_ms, Step.PREFERENCES, said, person=person)


def erase_preferences(connection: sqlite3.Connection, person: bytes) -> int:
    """Forget the wishes of a person but the wish for silence: an erasure must not bring mail again."""
    wishes = connection.execute("DELETE FROM wish WHERE person = ?", (person,)).rowcount
    scopes = connection.execute(
        "DELETE FROM unwanted WHERE person = ? AND scope LIKE 'dataset:%'", (person,)
    ).rowcount
    return wishes + scopes


def _shown(scope: str) -> str:
    # Which dataset somebody had is nobody's affair in a log that stays.
    return "one dataset" if scope.startswith("dataset:") else scope
