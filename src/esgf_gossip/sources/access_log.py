"""
Who fetched what, from the table ``access_logging`` of an ESGF site, and which files the publisher's tables know.

Only reading, by a role that may do no more; each look connects anew, so a restarted server costs one failed look.
What the columns mean: docs/tracking.md, "Who downloaded what".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from esgf_gossip.sources.connection import connect, ended_after, explained, spare_compiler
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.log_position import LogPosition

if TYPE_CHECKING:
    import psycopg

# Rows of one look: what a transaction of the projection takes in a second.
ROWS: Final = 10_000
# Datasets of one look into the publisher's tables (one may have thousands of files), and of the last ones that are
# looked at again.
DATASETS: Final = 100
DATASETS_AGAIN: Final = 100
CONNECT_S: Final = 5
QUESTION_S: Final = 60
DEADLINE_S: Final = CONNECT_S + QUESTION_S + 5
USER_CHARACTERS: Final = 512
URL_CHARACTERS: Final = 2048

_SETTING: Final = "[tracking] database"
_LOCK_WAIT_MS: Final = 1000
# A whole answer: 200, or as many bytes sent as there are; -1 and -1 are not equal sizes.
_IS_WHOLE: Final = "coalesce(success OR (xfer_size = data_size AND xfer_size >= 0), false)"
# Nobody's URL and what is longer than it may be is not carried; a time that is none (NaN, before 1970, after 2096)
# becomes NULL.
_COLUMNS: Final = f"""
id, CASE WHEN user_id NOT IN ('', '<no-id>') THEN left(user_id, {USER_CHARACTERS + 1}) END,
CASE WHEN user_id NOT IN ('', '<no-id>') THEN left(url, {URL_CHARACTERS + 1}) END,
CASE WHEN date_fetched BETWEEN 0 AND 4e9 THEN (date_fetched * 1000)::bigint END,
{_IS_WHOLE}
"""
_TABLE: Final = "esgf_node_manager.access_logging"
_NEW: Final = f"SELECT {_COLUMNS} FROM {_TABLE} WHERE id > %s ORDER BY id LIMIT %s"  # noqa: S608
# Only those that have ended since: most never do, and what they say has been heard.
_ENDED: Final = f"SELECT {_COLUMNS} FROM {_TABLE} WHERE id = ANY(%s::bigint[]) AND {_IS_WHOLE} ORDER BY id"  # noqa: S608
# For each range a walk along the primary key; without LATERAL the planner reads the whole table.
_MISSED: Final = f"""
SELECT row.* FROM unnest(%s::bigint[], %s::bigint[]) AS gap(first, last)
CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM {_TABLE} WHERE id BETWEEN gap.first AND gap.last ORDER BY id LIMIT %s) AS row
ORDER BY 1 LIMIT %s
"""  # noqa: S608
_LAST: Final = f"SELECT max(id) FROM {_TABLE}"  # noqa: S608
_PUBLISHED: Final = """
SELECT listed.id, listed.name, left(file_version.url, %s)
FROM (SELECT id, name FROM public.dataset_version WHERE id > %s ORDER BY id LIMIT %s) AS listed
JOIN public.dataset_file_version ON dataset_file_version.dataset_version_id = listed.id
JOIN public.file_version ON file_version.id = dataset_file_version.file_version_id
WHERE file_version.url IS NOT NULL AND listed.name IS NOT NULL
"""
_LISTED: Final = """
SELECT max(id), count(*) FROM (SELECT id FROM public.dataset_version WHERE id > %s ORDER BY id LIMIT %s) AS listed
"""


@attrs.frozen
class LogRow:
    """
    One transfer as it is logged.

    ``user``: the OpenID; None: nobody was named. ``url``: whole, or the path alone. ``fetched_ms``: Unix milliseconds;
    None: what is logged is no time. ``is_whole``: all bytes were sent.
    """

    id: int
    user: str | None = attrs.field(repr=False)
    url: str | None = attrs.field(repr=False)
    fetched_ms: int | None
    is_whole: bool


@attrs.frozen
class LogReading:
    """What one look gave: rows by id, how far the table is read with them, whether there is more at once."""

    rows: tuple[LogRow, ...] = attrs.field(repr=False)
    position: LogPosition
    has_more: bool
    # Rows among them that had been read before: they are not counted anew.
    reread: frozenset[int] = frozenset()


@attrs.frozen
class PublishedFiles:
    """Files of the publisher's tables: name of the dataset version and URL each; up to which dataset, whether more."""

    files: tuple[tuple[str, str], ...]
    highest: int
    has_more: bool


class AccessLog:
    """
    The database of a site, asked by a role that only reads. Blocks: not for the reactor's thread.

    Args:
        address: what libpq connects with.
        password_file: its first line is the password; None: libpq's own ways.
        rows: of one look, at most.
    """

    def __init__(self, address: str, password_file: Path | None, rows: int = ROWS) -> None:
        self._address: Final = address
        self._password_file: Final = password_file
        self._rows: Final = rows

    def read(self, position: LogPosition, now_ms: int, *, is_rechecking: bool) -> LogReading:
        """
        Read on from a position.

        Args:
            position: of the look before.
            now_ms: Unix milliseconds.
            is_rechecking: whether to ask again for what was missing or open then; once in a pass is enough.

        Raises:
            SourceError: nobody answers, or the table is not there.
        """
        with self._asking() as connection:
            (last,) = self._one(connection, _LAST)
            if last is not None and last < position.highest:
                # The table was emptied and is filled anew; what comes again changes nothing.
                position = LogPosition()
            again: list[LogRow] = []
            is_cut = False
            if is_rechecking and position.open_rows:
                again += _rows(connection, _ENDED, [[number for number, _ in position.open_rows]])
            reread = frozenset(row.id for row in again)
            if is_rechecking and position.gaps:
                firsts, lasts = [gap.first for gap in position.gaps], [gap.last for gap in position.gaps]
                missed = _rows(connection, _MISSED, [firsts, lasts, self._rows, self._rows])
                is_cut = len(missed) == self._rows
                again += missed
            new = _rows(connection, _NEW, [position.highest, self._rows])
        again.sort(key=lambda row: row.id)
        rows = [*again, *new]
        after = position.moved(
            [row.id for row in rows],
            {row.id for row in rows if row.user is not None and not row.is_whole},
            now_ms,
            # What was cut was not asked for to its end.
            is_rechecked=is_rechecking and not is_cut,
        )
        return LogReading(tuple(rows), after, is_cut or len(new) == self._rows, reread)

    def published(self, after: int) -> PublishedFiles:
        """
        Read on in the publisher's tables, from the dataset version with that number; nothing where there are none.

        Raises:
            SourceError: nobody answers.
        """
        with self._asking() as connection:
            (is_there,) = self._one(
                connection,
                "SELECT bool_and(to_regclass(name) IS NOT NULL AND coalesce(has_table_privilege(to_regclass(name), 'SELECT'), false))"
                " FROM unnest(ARRAY['public.dataset_version', 'public.dataset_file_version', 'public.file_version']) AS name",
            )
            if not is_there:
                return PublishedFiles((), after, has_more=False)
            highest, count = self._one(connection, _LISTED, [after, DATASETS])
            found = connection.execute(_PUBLISHED, [URL_CHARACTERS + 1, after, DATASETS]).fetchall()
        return PublishedFiles(
            tuple((name, url) for _, name, url in found),
            after if highest is None else int(highest),
            count == DATASETS,
        )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[psycopg.Connection[Any]]:
        with (
            contextlib.closing(
                connect(self._address, self._password_file, _SETTING, CONNECT_S)
            ) as connection,
            explained(_SETTING),
        ):
            connection.read_only = True
            with ended_after(connection, DEADLINE_S), connection.transaction():
                spare_compiler(connection, is_local=True)
                for setting, value in (
                    ("statement_timeout", f"{QUESTION_S}s"),
                    ("lock_timeout", f"{_LOCK_WAIT_MS}ms"),
                ):
                    connection.execute("SELECT set_config(%s, %s, true)", [setting, value])
                yield connection

    def _one(
        self, connection: psycopg.Connection[Any], question: str, values: list[object] | None = None
    ) -> tuple[Any, ...]:
        row = connection.execute(question.encode(), values).fetchone()
        if row is None:
            raise SourceError(f"{_SETTING}: the server gave no answer; look into its log")
        return tuple(row)


def _rows(connection: psycopg.Connection[Any], question: str, values: list[object]) -> list[LogRow]:
    return [LogRow(*row) for row in connection.execute(question.encode(), values).fetchall()]
