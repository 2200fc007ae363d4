"""The table of downloads of a real PostgreSQL, written by many at once and read without a trace."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import psycopg
import pytest

from esgf_gossip.sources.access_log import AccessLog
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.log_position import LogPosition
from esgf_gossip.tracking.downloads_sqlite import SqliteDownloads
from helpers.access_tables import (
    GRANTS,
    INSERT,
    PASSWORD,
    READER,
    add_tables,
    address_of,
    password_file,
    publish,
)
from helpers.postgres import postgres_server

ALICE = "https://idp.example.org/esgf-idp/openid/alice"
URL = "https://data.example.org/thredds/fileServer/flat/{}.nc"
SECONDS = 1_425_134_743.25
TABLE = "esgf_node_manager.access_logging"


@pytest.fixture(scope="module")
def server():
    """One server for all tests here."""
    with postgres_server() as running:
        add_tables(running)
        yield running


@pytest.fixture
def owner(server):
    """The owner of the tables, which are empty; each statement is a transaction."""
    with server.superuser(autocommit=True) as connection:
        connection.execute(f"TRUNCATE {TABLE}, public.dataset CASCADE")
        yield connection


@pytest.fixture
def log(server, tmp_path):
    """The log as the daemon reads it, seven rows at once."""
    return AccessLog(address_of(server, READER), password_file(tmp_path), rows=7)


def read_all(log, position, now_ms=0):
    """Make one pass; return its rows and the position."""
    rows, is_first, has_more = [], True, True
    while has_more:
        reading = log.read(position, now_ms, is_rechecking=is_first)
        rows += reading.rows
        position, has_more, is_first = reading.position, reading.has_more, False
    return rows, position


def test_the_roles_are_those_of_the_documents():
    """What an administrator is told to grant is what the tests grant, and no more."""
    told = " ".join((Path(__file__).parents[2] / "docs" / "tracking.md").read_text().split())
    for statement in GRANTS.replace(PASSWORD, "...").split(";"):
        assert " ".join(statement.split()) in told


def test_rows_are_read_as_they_are_logged(owner, log):
    """Whole answers, resumed ones, nobody's, and times that are none."""
    for number, user, seconds, success in (
        (1, ALICE, SECONDS, True),
        (2, "<no-id>", SECONDS, True),
        (3, ALICE, float("nan"), True),
        (4, ALICE, SECONDS, None),
        (5, ALICE, SECONDS, False),
    ):
        owner.execute(INSERT, [number, user, URL.format(number), seconds, success])
    owner.execute(f"UPDATE {TABLE} SET data_size = 7, xfer_size = 7 WHERE id = 5")
    rows, position = read_all(log, LogPosition())
    told = [(row.id, row.user, row.fetched_ms, row.is_whole) for row in rows]
    assert told == [
        (1, ALICE, 1_425_134_743_250, True),
        (2, None, 1_425_134_743_250, True),
        (3, ALICE, None, True),
        (4, ALICE, 1_425_134_743_250, False),
        (5, ALICE, 1_425_134_743_250, True),
    ]
    assert rows[1].url is None
    assert position == LogPosition(5, (), ((4, 0),))
    assert ALICE not in repr(rows)


def test_a_row_that_comes_late_and_one_that_ends_late_are_read(owner, log):
    """A lower id that is committed after a higher one, and a transfer marked as ended afterwards."""
    owner.execute(INSERT, [100, ALICE, URL.format(100), SECONDS, False])
    _, position = read_all(log, LogPosition())
    for number in range(20, 40):
        owner.execute(INSERT, [number, ALICE, URL.format(number), SECONDS, True])
    owner.execute(f"UPDATE {TABLE} SET success = true WHERE id = 100")
    rows, position = read_all(log, position)
    # What is in a gap comes a bounded number at once, and all of it.
    seen = {row.id for row in rows}
    while not set(range(20, 40)) <= seen:
        rows, position = read_all(log, position)
        assert rows
        seen |= {row.id for row in rows}
    assert 100 in seen
    assert position.open_rows == ()
    assert [(gap.first, gap.last) for gap in position.gaps] == [(1, 19), (40, 99)]
    assert read_all(log, position) == ([], position)


def test_a_table_that_was_emptied_is_read_anew(owner, log):
    """Ids that begin again are no old ones."""
    owner.execute(INSERT, [500, ALICE, URL.format(1), SECONDS, True])
    _, position = read_all(log, LogPosition())
    owner.execute(f"TRUNCATE {TABLE}")
    assert read_all(log, position) == ([], position)
    owner.execute(INSERT, [1, ALICE, URL.format(2), SECONDS, True])
    rows, position = read_all(log, position)
    assert ([row.id for row in rows], position.highest) == ([1], 1)


def test_nothing_is_missed_of_writers_that_commit_in_any_order(server, owner, log, tmp_path):
    """Ids are taken first, rows written and ended later by six at once, while it is read; every one is there."""
    writers, each = 6, 100
    numbers = iter(range(1, writers * each + 1))
    take = threading.Lock()
    # Each pass lets some commits through, so looks and commits really take turns.
    turns = threading.Semaphore(0)

    def commit(connection):
        turns.acquire()
        connection.commit()

    def write(seed):
        rng = random.Random(seed)
        with server.superuser() as connection:
            for _ in range(each // 10):
                with take:
                    taken = [next(numbers) for _ in range(10)]
                rng.shuffle(taken)
                for part in (taken[:5], taken[5:]):
                    for number in part:
                        connection.execute(INSERT, [number, ALICE, URL.format(number), SECONDS, False])
                    commit(connection)
                connection.execute(f"UPDATE {TABLE} SET success = true WHERE id = ANY(%s)", [taken])
                commit(connection)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(writers)]
    log = AccessLog(address_of(server, READER), password_file(tmp_path), rows=50)
    store = SqliteDownloads(tmp_path / "downloads.db")
    for thread in threads:
        thread.start()
    passes = 0
    is_running = True
    while is_running:
        is_running = any(thread.is_alive() for thread in threads)
        has_more, is_first = True, True
        while has_more:
            reading = log.read(store.position(), 0, is_rechecking=is_first)
            store.advance(reading)
            has_more, is_first = reading.has_more, False
        passes += 1
        turns.release(20)
    held = store.export(ALICE)["unresolved"]
    assert passes >= 9
    assert len(held) == store.counts().rows == writers * each
    assert not any(one["is_partial"] for one in held)
    assert store.position() == LogPosition(writers * each)
    store.close()


def test_the_publishers_tables_say_whose_files_are_where(owner, log, monkeypatch):
    """Datasets come a bounded number at once; one without files does not end it."""
    monkeypatch.setattr("esgf_gossip.sources.access_log.DATASETS", 2)
    publish(owner, "cmip5.a.v1", ["root/a.nc", "root/b.nc"])
    publish(owner, "cmip5.b.v1", [])
    publish(owner, "cmip5.c#2", ["root/c.nc"])
    first = log.published(0)
    assert (sorted(first.files), first.has_more) == (
        [("cmip5.a.v1", "root/a.nc"), ("cmip5.a.v1", "root/b.nc")],
        True,
    )
    second = log.published(first.highest)
    assert (second.files, second.has_more) == ((("cmip5.c#2", "root/c.nc"),), False)
    assert log.published(second.highest).files == ()


def test_a_site_without_a_publisher_has_none(server, owner, log):
    """Tables that are not there, or not for this role, say nothing."""
    owner.execute(f"REVOKE SELECT ON public.file_version FROM {READER}")
    try:
        assert log.published(3) == log.published(3)
        assert (log.published(3).files, log.published(3).highest) == ((), 3)
    finally:
        owner.execute(f"GRANT SELECT ON public.file_version TO {READER}")


def test_the_role_cannot_write_and_no_session_stays(server, owner, log, tmp_path):
    """The source is untouched: SELECT on some columns is all it takes."""
    owner.execute(INSERT, [1, ALICE, URL.format(1), SECONDS, True])
    before = owner.execute(f"SELECT xmin, * FROM {TABLE}").fetchall()
    read_all(log, LogPosition())
    assert owner.execute(f"SELECT xmin, * FROM {TABLE}").fetchall() == before
    with (
        psycopg.connect(
            address_of(server, READER), password=password_file(tmp_path).read_text().strip()
        ) as reader,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        reader.execute(f"UPDATE {TABLE} SET success = true")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            f"REVOKE SELECT (url) ON {TABLE} FROM {READER}",
            "permission denied for table access_logging; is it the right database, ",
        ),
        (f"ALTER TABLE {TABLE} RENAME TO gone", "does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(server, owner, log, change, error):
    """Missing rights and tables, without a row of what was asked."""
    with server.superuser() as changed:
        changed.execute(change)
        changed.commit()
        try:
            with pytest.raises(SourceError, match=error) as caught:
                log.read(LogPosition(), 0, is_rechecking=True)
        finally:
            if "RENAME" in change:
                changed.execute("ALTER TABLE esgf_node_manager.gone RENAME TO access_logging")
            changed.execute(f"GRANT SELECT (url) ON {TABLE} TO {READER}")
            changed.commit()
    assert str(caught.value).startswith("[tracking] database: ")
    assert str(caught.value).endswith("has the role the rights that docs/tracking.md names?")
    assert len(str(caught.value).splitlines()) == 1
