"""
The ledger: what all origins say in their logs ``datasets``, as rows, and which of it counts.

Each part of a log is taken in one transaction with the place up to which the log was read, the judgement of every
dataset it touches, and the changes users are told of. Source: docs/tracking.md, "Events of datasets"; docs/adr/0021.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from esgf_gossip.core.errors import WireError
from esgf_gossip.tracking import foreign_claims
from esgf_gossip.tracking.changes import add_change
from esgf_gossip.tracking.events import TOLD, Claim, DatasetEvent, EventType, decode_leaf
from esgf_gossip.tracking.judgement import judge
from esgf_gossip.tracking.matches import Change
from esgf_gossip.tracking.records import Record, records, records_of_dataset, values_of
from esgf_gossip.tracking.versions import State, statuses

# What one origin may say of one dataset; an honest one needs a few a version.
ROWS_OF_DATASET: Final = 500
# Of one origin; the oldest go, and are counted.
QUARANTINED_OF_ORIGIN: Final = 10_000
# Rows that go with one transaction: some milliseconds.
SWEPT_ROWS: Final = 500

_SCRIPT: Final = """
CREATE TABLE place (
    origin TEXT PRIMARY KEY, born INTEGER NOT NULL, start INTEGER NOT NULL, next INTEGER NOT NULL, last BLOB NOT NULL,
    hosts TEXT NOT NULL, round INTEGER NOT NULL, is_whole INTEGER NOT NULL, is_gone INTEGER NOT NULL,
    dropped INTEGER NOT NULL, unreadable INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE event (
    seen INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT NOT NULL, round INTEGER NOT NULL,
    first_leaf INTEGER NOT NULL, last_leaf INTEGER NOT NULL, change_key BLOB NOT NULL,
    number INTEGER UNIQUE, counts INTEGER NOT NULL, verdict TEXT NOT NULL,
    received_ms INTEGER NOT NULL, counted_ms INTEGER,
    type TEXT NOT NULL, project TEXT NOT NULL, master_id TEXT NOT NULL, version TEXT NOT NULL,
    data_node TEXT NOT NULL, epoch INTEGER NOT NULL, occurred_ms INTEGER NOT NULL,
    supersedes TEXT NOT NULL, unchanged BLOB NOT NULL, reason TEXT NOT NULL, source TEXT NOT NULL,
    UNIQUE (origin, change_key, data_node)
) STRICT;
CREATE INDEX event_of_dataset ON event (master_id, origin);
CREATE INDEX event_of_round ON event (origin, round);
CREATE INDEX event_quarantined ON event (origin, seen) WHERE counts = 0;
CREATE INDEX event_refused ON event (seen) WHERE counts = 0;
CREATE INDEX event_of_project ON event (project, number) WHERE number IS NOT NULL;
CREATE INDEX event_of_type ON event (type, number) WHERE number IS NOT NULL;
CREATE INDEX event_counted ON event (counted_ms, number) WHERE counted_ms IS NOT NULL;
CREATE TABLE tally (type TEXT PRIMARY KEY, counted INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER event_counts AFTER UPDATE OF counts ON event WHEN new.counts <> old.counts BEGIN
    INSERT INTO tally VALUES (new.type, new.counts - old.counts)
    ON CONFLICT DO UPDATE SET counted = counted + excluded.counted;
END;
CREATE TRIGGER event_gone AFTER DELETE ON event WHEN old.counts BEGIN
    UPDATE tally SET counted = counted - 1 WHERE type = old.type;
END;
CREATE TABLE numbered (newest INTEGER NOT NULL) STRICT;
INSERT INTO numbered VALUES (0);
CREATE TABLE accepted (
    change_key BLOB NOT NULL, origin TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (change_key, origin)
) STRICT, WITHOUT ROWID;
CREATE TABLE claim (
    token BLOB NOT NULL, origin TEXT NOT NULL, is_sent INTEGER NOT NULL, received_ms INTEGER NOT NULL,
    round INTEGER NOT NULL, PRIMARY KEY (token, origin)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_of_round ON claim (origin, round);
CREATE TABLE replica_alert (
    master_id TEXT NOT NULL, version TEXT NOT NULL, data_node TEXT NOT NULL, since_ms INTEGER NOT NULL,
    PRIMARY KEY (master_id, version, data_node)
) STRICT, WITHOUT ROWID
"""
SCRIPT: Final = f"{foreign_claims.SCRIPT};{_SCRIPT}"


@attrs.frozen
class Place:
    """
    How far the log of one origin was read.

    Args:
        origin: whose log.
        born: of the log, as it was read.
        start: the first leaf it holds.
        next: the leaf to be read next.
        last: SHA-256 of the leaf before; empty: none was read.
        hosts: names of the certificate by which the origin is judged.
        round: how often the log was begun anew; rows of an earlier round count until this one has come as far.
        is_whole: nothing is left of earlier rounds.
        is_gone: there is no such log any more, and its rows are being taken away.
    """

    origin: str
    born: int
    start: int
    next: int
    last: bytes
    hosts: frozenset[str]
    round: int
    is_whole: bool
    is_gone: bool


@attrs.frozen
class Taken:
    """
    What a step came to.

    Args:
        place: of the log now; None: it is forgotten.
        counted: events that count from now on and never did before.
        refused: events that do not count, for another reason than before.
        changes: how many changes are new that users are told of.
    """

    place: Place | None
    counted: tuple[Record, ...] = ()
    refused: tuple[Record, ...] = ()
    changes: int = 0


_PLACE: Final = "origin, born, start, next, last, hosts, round, is_whole, is_gone"


def places(connection: sqlite3.Connection) -> list[Place]:
    """Return the places of all logs."""
    return [
        Place(*row[:5], frozenset(json.loads(row[5])), row[6], bool(row[7]), bool(row[8]))
        for row in connection.execute(f"SELECT {_PLACE} FROM place ORDER BY origin")  # noqa: S608 - our own text
    ]


def begin(
    connection: sqlite3.Connection,
    origin: str,
    born: int,
    start: int,
    hosts: Iterable[str],
    *,
    is_gone: bool = False,
) -> Place:
    """
    Read a log from its start, the first time or anew; what was read of it before counts until this has come as far.

    Args:
        connection: of the tracker.
        origin: whose log.
        born: of the log.
        start: the first leaf it holds.
        hosts: names of the certificate by which the origin is judged from now on.
        is_gone: there is no log any more; ``sweep`` takes away what it said.
    """
    names = frozenset(hosts)
    row = connection.execute("SELECT round FROM place WHERE origin = ?", (origin,)).fetchone()
    place = Place(origin, born, start, start, b"", names, 1 + (row[0] if row else 0), row is None, is_gone)
    connection.execute(
        f"INSERT OR REPLACE INTO place ({_PLACE}, dropped, unreadable) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",  # noqa: S608 - our own text
        (*attrs.astuple(attrs.evolve(place, hosts=json.dumps(sorted(names)))),),  # type: ignore[arg-type]
    )
    return place


def take(
    connection: sqlite3.Connection, place: Place, born: int, leaves: Sequence[bytes], own: str, now_ms: int
) -> Taken:
    """
    Take the leaves that follow a place, and judge what they touch.

    Args:
        connection: of the tracker.
        place: as the step before left it.
        born: of the log now; a log is born again with every start of its origin, and goes on.
        leaves: the next ones, in order; any bytes.
        own: this node, whose replicas of retracted versions are alerts.
        now_ms: Unix milliseconds.
    """
    touched: dict[str, None] = {}
    unreadable = dropped = 0
    for number, leaf in enumerate(leaves, place.next):
        try:
            said = decode_leaf(leaf)
        except WireError:
            unreadable += 1
            continue
        if isinstance(said, Claim):
            _put_claim(connection, place, said, now_ms)
        elif said is not None:
            if _put_event(connection, place, number, said, now_ms):
                touched[said.dataset.master_id] = None
            else:
                dropped += 1
    last = hashlib.sha256(leaves[-1]).digest() if leaves else place.last
    after = attrs.evolve(place, born=born, next=place.next + len(leaves), last=last)
    connection.execute(
        "UPDATE place SET born = ?, next = ?, last = ?, dropped = dropped + ?, unreadable = unreadable + ? WHERE origin = ?",
        (after.born, after.next, after.last, dropped, unreadable, place.origin),
    )
    return judge_anew(connection, touched, own, now_ms, after)


def sweep(connection: sqlite3.Connection, place: Place, own: str, now_ms: int) -> Taken:
    """Take away some of what only an earlier round of a log said; to be called until ``is_whole``, or no place is left."""
    rows = connection.execute(
        "SELECT seen, master_id FROM event WHERE origin = ? AND round < ? LIMIT ?",
        (place.origin, _rounds_below(place), SWEPT_ROWS),
    ).fetchall()
    connection.executemany("DELETE FROM event WHERE seen = ?", [(seen,) for seen, _ in rows])
    gone = connection.execute(
        "DELETE FROM claim WHERE origin = ?1 AND token IN "
        "(SELECT token FROM claim WHERE origin = ?1 AND round < ?2 LIMIT ?3)",
        (place.origin, _rounds_below(place), SWEPT_ROWS),
    ).rowcount
    after: Place | None = place
    if len(rows) < SWEPT_ROWS and gone < SWEPT_ROWS:
        after = None if place.is_gone else attrs.evolve(place, is_whole=True)
        if place.is_gone:
            connection.execute("DELETE FROM place WHERE origin = ?", (place.origin,))
        else:
            connection.execute("UPDATE place SET is_whole = 1 WHERE origin = ?", (place.origin,))
    return judge_anew(connection, dict.fromkeys(master for _, master in rows), own, now_ms, after)


def _rounds_below(place: Place) -> int:
    return place.round + 1 if place.is_gone else place.round


def _put_claim(connection: sqlite3.Connection, place: Place, claim: Claim, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO claim VALUES (?, ?, ?, ?, ?) ON CONFLICT (token, origin) DO UPDATE SET "
        "is_sent = max(is_sent, excluded.is_sent), round = excluded.round",
        (claim.token, place.origin, claim.is_sent, now_ms, place.round),
    )


def _put_event(
    connection: sqlite3.Connection, place: Place, number: int, event: DatasetEvent, now_ms: int
) -> bool:
    """Note an event; False where its author has said too much of the dataset."""
    key = event.change_key
    known = connection.execute(
        "SELECT seen, round FROM event WHERE origin = ? AND change_key = ? AND data_node = ?",
        (place.origin, key, event.data_node),
    ).fetchone()
    if known is not None:
        seen, its_round = known
        connection.execute("UPDATE event SET last_leaf = ? WHERE seen = ?", (number, seen))
        if its_round != place.round:
            connection.execute(
                "UPDATE event SET round = ?, first_leaf = ?, type = ?, master_id = ?, version = ?, data_node = ?, "
                "epoch = ?, occurred_ms = ?, supersedes = ?, unchanged = ?, reason = ?, source = ? WHERE seen = ?",
                (place.round, number, *values_of(event), seen),
            )
        return True
    (count,) = connection.execute(
        "SELECT count(*) FROM event WHERE master_id = ? AND origin = ?",
        (event.dataset.master_id, place.origin),
    ).fetchone()
    if count >= ROWS_OF_DATASET:
        return False
    connection.execute(
        "INSERT INTO event (origin, round, first_leaf, last_leaf, change_key, counts, verdict, received_ms, project, "
        "type, master_id, version, data_node, epoch, occurred_ms, supersedes, unchanged, reason, source) "
        "VALUES (?, ?, ?, ?, ?, 0, '', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (place.origin, place.round, number, number, key, now_ms, event.dataset.project, *values_of(event)),
    )
    return True


def judge_anew(
    connection: sqlite3.Connection, masters: Iterable[str], own: str, now_ms: int, place: Place | None = None
) -> Taken:
    """Judge all that is said of these datasets, note what counts from now on or no more, and the changes to be told."""
    hosts = {
        one: frozenset(json.loads(names))
        for one, names in connection.execute("SELECT origin, hosts FROM place")
    }
    accepted = set(connection.execute("SELECT change_key, origin FROM accepted"))
    counted: list[Record] = []
    changes = 0
    refused: list[Record] = []
    for master in masters:
        said = records_of_dataset(connection, master)
        verdicts = judge(said, hosts, accepted)
        now = []
        for one in said:
            verdict = verdicts[one.seen]
            if verdict != one.verdict or one.counts == bool(verdict):
                is_new = one.number is None
                one = _judged(connection, one, verdict, now_ms)
                if not verdict:
                    counted += [one] if is_new else []
                    changes += (
                        one.event.type in TOLD and add_change(connection, change_of(one), now_ms) is not None
                    )
                else:
                    refused.append(one)
            now.append(one)
        _note_alerts(connection, master, now, own, now_ms)
        foreign_claims.note(connection, master, now, own, now_ms)
    for origin in {one.origin for one in refused}:
        _trim(connection, origin)
    return Taken(place, tuple(counted), tuple(refused), changes)


def _judged(connection: sqlite3.Connection, one: Record, verdict: str, now_ms: int) -> Record:
    number, counted_ms = one.number, one.counted_ms
    if not verdict and number is None:
        (number,) = connection.execute("UPDATE numbered SET newest = newest + 1 RETURNING newest").fetchone()
        counted_ms = now_ms
    connection.execute(
        "UPDATE event SET counts = ?, verdict = ?, number = ?, counted_ms = ? WHERE seen = ?",
        (not verdict, verdict, number, counted_ms, one.seen),
    )
    return attrs.evolve(one, counts=not verdict, verdict=verdict, number=number, counted_ms=counted_ms)


def change_of(one: Record) -> Change:
    """Return what users are told of an event of ``TOLD``."""
    event = one.event
    is_new = event.type is EventType.NEW_VERSION
    return Change(
        one.change_key,
        event.type.value,
        (event.dataset,),
        event.occurred_ms,
        successor=event.dataset if is_new else None,
        supersedes=event.supersedes if is_new else (),
        unchanged=frozenset(event.unchanged) if is_new else frozenset(),
        reason=event.reason,
        origin=one.origin,
    )


def _note_alerts(
    connection: sqlite3.Connection, master: str, said: Sequence[Record], own: str, now_ms: int
) -> None:
    """Note which retracted versions of a dataset this node still serves a replica of."""
    wanted = set()
    if any(one.origin == own and one.event.type is EventType.REPLICATED for one in said):
        wanted = {
            (dataset.version, replica.data_node)
            for dataset, status in statuses(said).items()
            if status.state is State.RETRACTED
            for replica in status.replicas
            if replica.origin == own
        }
    held = set(
        connection.execute("SELECT version, data_node FROM replica_alert WHERE master_id = ?", (master,))
    )
    for one in held - wanted:
        connection.execute(
            "DELETE FROM replica_alert WHERE master_id = ? AND version = ? AND data_node = ?", (master, *one)
        )
    for version, data_node in wanted - held:
        connection.execute(
            "INSERT INTO replica_alert VALUES (?, ?, ?, ?)", (master, version, data_node, now_ms)
        )


def _trim(connection: sqlite3.Connection, origin: str) -> None:
    """Let the oldest go of what an origin has in quarantine beyond its bound."""
    (count,) = connection.execute(
        "SELECT count(*) FROM event WHERE origin = ? AND counts = 0", (origin,)
    ).fetchone()
    more = count - QUARANTINED_OF_ORIGIN
    if more > 0:
        oldest = records(connection, "WHERE origin = ? AND counts = 0 ORDER BY seen LIMIT ?", (origin, more))
        connection.executemany("DELETE FROM event WHERE seen = ?", [(one.seen,) for one in oldest])
        connection.execute("UPDATE place SET dropped = dropped + ? WHERE origin = ?", (more, origin))
