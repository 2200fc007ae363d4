"""
Who downloaded what, in a site's PostgreSQL: a schema of the tracker's own, by a role of its own, which needs no more.

Same interface as ``downloads_sqlite``; whole batches go to the server as arrays, and matching is done there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import attrs

from esgf_gossip.sources.access_log import CONNECT_S
from esgf_gossip.sources.connection import connect, explained, spare_compiler
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.tracking import downloads
from esgf_gossip.tracking.downloads import DownloadCounts, DownloadsError, Sorted, Span, Tally, exported
from esgf_gossip.tracking.downloads_sql import (
    ADD_DATASETS,
    ADD_GIVEN,
    ADD_GIVEN_FILES,
    ADD_PEOPLE,
    ADD_PLACES,
    ADD_UNRESOLVED,
    CLAIMS,
    COPY_GIVEN,
    COUNTS,
    DATASETS_IN,
    FORGET,
    GIVEN,
    HELD_BY,
    LOCK,
    MATCHED,
    MATCHED_WITHOUT,
    SCHEMA,
    SCRIPT,
    SWEEP_PEOPLE,
    UNRESOLVED_AT,
    UNRESOLVED_OF,
)
from esgf_gossip.tracking.events import EventType
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.matching import matches_of, plan
from esgf_gossip.tracking.openids import fold_openid
from esgf_gossip.tracking.stored_downloads import Steps, StoredDownloads
from esgf_gossip.tracking.urls import Place

if TYPE_CHECKING:
    import psycopg

_SETTING: Final = "[tracking] projection"
# Of a cursor the server expects that little of it is wanted, and then walks all downloads user by user: 30 s in place
# of 2 s. All of it is wanted.
_SETTINGS: Final = {
    "search_path": SCHEMA,
    "statement_timeout": "120s",
    "cursor_tuple_fraction": "1",
    "work_mem": "64MB",
}
# Rows of a match that are on their way at once.
_ROWS: Final = 5_000
_LAYOUT_NAME, _LAYOUT = "layout", "1"
_SPAN: Final = ("host", "first_ms", "last_ms", "whole_ms")

P = ParamSpec("P")
T = TypeVar("T")


class PostgresDownloads(StoredDownloads):
    """
    The store in a schema.

    Args:
        address: what libpq connects with, as the tracker's own role.
        password_file: its first line is the password; None: libpq's own ways.
    """

    def __init__(self, address: str, password_file: Path | None) -> None:
        self._address: Final = address
        self._password_file: Final = password_file
        super().__init__(_STEPS)
        self._writer: psycopg.Connection[Any] | None = None
        # Its transactions last as long as somebody takes to consume what was found.
        self._matcher: psycopg.Connection[Any] | None = None

    def match(self, changes: Sequence[Change], known_ms: int = 0) -> Generator[list[Match], None, None]:
        """Find who holds what changed, in batches, change by change; see ``Downloads``."""
        # A first, small question finds out whether the server was restarted; what fails later fails.
        self._run(_state, _LAYOUT_NAME)
        for change in changes:
            with _told():
                if self._matcher is None or self._matcher.closed:
                    self._matcher = self._connected()
                with explained(_SETTING), self._matcher.transaction():
                    wanted = plan(change, _versions(self._matcher, change))
                    values: list[Any] = [list(wanted.held), max(change.occurred_ms, known_ms)]
                    question = MATCHED
                    if wanted.newer:
                        question = MATCHED_WITHOUT
                        values.append(list(wanted.newer))
                    with self._matcher.cursor("matched") as cursor:
                        cursor.itersize = _ROWS
                        cursor.execute(question, values)
                        yield from matches_of(change, wanted, cursor)

    def close(self) -> None:
        """Close the connections; twice does no harm."""
        for connection in (self._writer, self._matcher):
            if connection is not None:
                connection.close()
        self._writer = self._matcher = None

    def _run(self, work: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _told():
            was_used = self._writer is not None
            try:
                return self._once(work, *args, **kwargs)
            except SourceError:
                # The first word to a server that was restarted meanwhile is lost; what is done twice is the same.
                if not was_used or (self._writer is not None and not self._writer.closed):
                    raise
            return self._once(work, *args, **kwargs)

    def _once(self, work: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._writer is None or self._writer.closed:
            # The server went, and the other connection with it. What is there may be older than what was.
            self.close()
            self._position = None
            self._writer = self._connected()
        with explained(_SETTING), self._writer.transaction():
            return work(self._writer, *args, **kwargs)

    def _connected(self) -> psycopg.Connection[Any]:
        connection = connect(
            self._address, self._password_file, _SETTING, CONNECT_S, "projection_password_file"
        )
        try:
            with explained(_SETTING):
                connection.autocommit = True
                spare_compiler(connection, is_local=False)
                for setting, value in _SETTINGS.items():
                    connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
                with connection.transaction():
                    _make(connection)
                connection.execute(GIVEN)
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (SourceError, ImportError) as error:
        raise DownloadsError(str(error)) from None


def _make(connection: psycopg.Connection[Any]) -> None:
    connection.execute(LOCK)
    asked = "SELECT to_regnamespace(%s) IS NULL, has_database_privilege(current_database(), 'CREATE'), current_user"
    is_missing, may_make, role = connection.execute(asked, [SCHEMA]).fetchone() or (False, False, "")
    if is_missing and not may_make:
        raise SourceError(
            f"{_SETTING}: there is no schema {SCHEMA}; as its owner: CREATE SCHEMA {SCHEMA} AUTHORIZATION {role}"
        )
    if is_missing:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
    if connection.execute("SELECT to_regclass(%s)", [f"{SCHEMA}.state"]).fetchone() == (None,):
        connection.execute(SCRIPT)
        _set_state(connection, _LAYOUT_NAME, _LAYOUT)
    elif _state(connection, _LAYOUT_NAME) != _LAYOUT:
        raise SourceError(f"{_SETTING}: schema {SCHEMA} was made by another version; upgrade esgf-gossip")


def _state(connection: psycopg.Connection[Any], name: str) -> str | None:
    row = connection.execute("SELECT body FROM state WHERE name = %s", [name]).fetchone()
    return None if row is None else str(row[0])


def _set_state(connection: psycopg.Connection[Any], name: str, body: str) -> None:
    connection.execute(
        "INSERT INTO state VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
        [name, body],
    )


def _advance(
    connection: psycopg.Connection[Any], fetches: Sequence[downloads.Fetch], tally: Tally, position: str
) -> None:
    if fetches:
        claims = _claims(connection, {fetch.place.key for fetch in fetches})
        erased = dict(connection.execute("SELECT hash, at_ms FROM erased").fetchall())
        _write(connection, downloads.sort_out(fetches, claims, erased))
    # A reading that comes again says the same position: its rows are counted already.
    if _state(connection, downloads.POSITION) != position:
        counted = attrs.asdict(tally)
        connection.execute(
            "INSERT INTO tally SELECT * FROM unnest(%s::text[], %s::bigint[])"
            " ON CONFLICT (name) DO UPDATE SET number = tally.number + excluded.number",
            [list(counted), list(counted.values())],
        )
        _set_state(connection, downloads.POSITION, position)


def _claims(
    connection: psycopg.Connection[Any], keys: Collection[bytes]
) -> dict[bytes, dict[str, DatasetId | None]]:
    return downloads.merged_claims(
        (key, host, None if master is None else DatasetId(master, version))
        for key, host, master, version in connection.execute(CLAIMS, [list(keys)])
    )


def _write(connection: psycopg.Connection[Any], found: Sorted) -> None:
    # Each kind in one order, so that two transactions can never wait for each other.
    connection.execute(ADD_PEOPLE, [_given(("folded", "openid"), sorted(found.people.items()))])
    datasets = _name_datasets(connection, {dataset for dataset, _, _ in found.downloads})
    rows = sorted(
        (datasets[dataset], name, folded, s.host, s.first_ms, s.last_ms, s.whole_ms)
        for (dataset, folded, name), s in found.downloads.items()
    )
    with connection.cursor() as cursor, cursor.copy(COPY_GIVEN) as copy:
        for row in rows:
            copy.write_row(row)
    connection.execute(ADD_GIVEN_FILES)
    connection.execute(ADD_GIVEN)
    lost = (
        (place.key.hex(), place.host, folded, place.path, s.host, s.first_ms, s.last_ms, s.whole_ms)
        for (place, folded), s in found.unresolved.items()
    )
    connection.execute(ADD_UNRESOLVED, [_given(("key", "place_host", "folded", "path", *_SPAN), lost)])


def _given(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return json.dumps([dict(zip(names, row, strict=True)) for row in rows])


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[number] for row in rows] for number in range(width)]


def _name_datasets(
    connection: psycopg.Connection[Any], datasets: Collection[DatasetId]
) -> dict[DatasetId, int]:
    """Return the number of each."""
    names = sorted((one.master_id, one.version) for one in datasets)
    numbers = _numbers(connection, names)
    if missing := [name for name in names if name not in numbers]:
        connection.execute(ADD_DATASETS, [_given(("master", "version"), missing)])
        numbers |= _numbers(connection, missing)
    return {one: numbers[one.master_id, one.version] for one in datasets}


def _numbers(
    connection: psycopg.Connection[Any], names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    rows = connection.execute(DATASETS_IN, [_given(("master", "version"), names)])
    return {(master, version): number for number, master, version in rows}


def _learn(
    connection: psycopg.Connection[Any],
    places: Mapping[tuple[bytes, str], DatasetId | None],
    published: int | None,
) -> int:
    _name_datasets(connection, {one for one in places.values() if one is not None})
    known = _claims(connection, {key for key, _ in places})
    changed, changed_keys = [], set()
    for (key, host), dataset in places.items():
        of_key = known.setdefault(key, {})
        claimed = downloads.united(of_key[host], dataset) if host in of_key else dataset
        if host in of_key and of_key[host] == claimed:
            continue
        of_key[host] = claimed
        changed_keys.add(key)
        changed.append(
            (key.hex(), host, *(("", "") if claimed is None else (claimed.master_id, claimed.version)))
        )
    connection.execute(ADD_PLACES, [_given(("key", "host", "master", "version"), changed)])
    if published is not None:
        _set_state(connection, downloads.PUBLISHED, str(published))
    return _resolve(connection, {key: known[key] for key in changed_keys})


def _resolve(
    connection: psycopg.Connection[Any], claims: Mapping[bytes, Mapping[str, DatasetId | None]]
) -> int:
    found = Sorted({}, {}, {})
    gone = []
    rows = connection.execute(UNRESOLVED_AT, [list(claims)]).fetchall()
    for key, place_host, person, path, folded, *span in rows:
        if downloads.resolve(found, Place(place_host, path), claims[bytes(key)], folded, Span(*span)):
            gone.append((key, place_host, person))
    if gone:
        _write(connection, found)
        connection.execute(
            "DELETE FROM unresolved WHERE (key, place_host, person) IN"
            " (SELECT * FROM unnest(%s::bytea[], %s::text[], %s::bigint[]))",
            _columns(gone, 3),
        )
    return len(gone)


def _versions(connection: psycopg.Connection[Any], change: Change) -> dict[int, DatasetId]:
    if change.kind == EventType.NEW_VERSION and change.successor is not None:
        rows = connection.execute(
            "SELECT number, master, version FROM dataset WHERE master = %s", [change.successor.master_id]
        )
    else:
        names = [(one.master_id, one.version) for one in change.datasets]
        rows = connection.execute(DATASETS_IN, [_given(("master", "version"), names)])
    return {number: DatasetId(master, version) for number, master, version in rows}


def _export(connection: psycopg.Connection[Any], openid: str) -> dict[str, Any]:
    folded = [fold_openid(openid)]
    return exported(
        openid,
        connection.execute(HELD_BY, folded).fetchall(),
        connection.execute(UNRESOLVED_OF, folded).fetchall(),
    )


def _erase(connection: psycopg.Connection[Any], folded: str, now_ms: int) -> dict[str, int]:
    number = "(SELECT number FROM person WHERE folded = %s)"
    held = connection.execute(f"DELETE FROM download WHERE person = {number}", [folded]).rowcount  # noqa: S608
    unresolved = connection.execute(f"DELETE FROM unresolved WHERE person = {number}", [folded]).rowcount  # noqa: S608
    connection.execute("DELETE FROM person WHERE folded = %s", [folded])
    connection.execute(
        "INSERT INTO erased VALUES (%s, %s) ON CONFLICT (hash) DO UPDATE SET at_ms = excluded.at_ms",
        [downloads.user_hash(folded), now_ms],
    )
    return {"downloads": held, "unresolved": unresolved}


def _forget(connection: psycopg.Connection[Any], before_ms: int) -> bool:
    has_more = False
    for question in FORGET:
        gone = connection.execute(question, [before_ms, downloads.FORGET_ROWS]).rowcount
        has_more = has_more or gone == downloads.FORGET_ROWS
    if not has_more and downloads.is_sweep_due(_state(connection, downloads.SWEPT), before_ms):
        connection.execute(SWEEP_PEOPLE)
        _set_state(connection, downloads.SWEPT, str(before_ms))
    return has_more


def _counts(connection: psycopg.Connection[Any]) -> DownloadCounts:
    found = connection.execute(COUNTS).fetchone() or ()
    tally = dict(connection.execute("SELECT name, number FROM tally").fetchall())
    return DownloadCounts(*found, **tally)


_STEPS: Final = Steps(_state, _advance, _learn, _export, _erase, _forget, _counts)
