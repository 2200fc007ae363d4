"""A real PostgreSQL, asked as a site's: right numbers, no lock, no write, nothing left open, every failure one line."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.esgf.registration import GROUP_DESCRIPTION_CHARACTERS, GROUPS, Group
from esgf_gossip.sources import postgres
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.metrics_files import Numbers
from esgf_gossip.sources.postgres import ask
from helpers.postgres import DATABASE, READER, READER_PASSWORD, postgres_server

INSERT = """
INSERT INTO esgf_node_manager.access_logging (user_id, url, remote_addr, date_fetched, success, data_size, xfer_size)
VALUES (%s, 'http://data.example.org/thredds/fileServer/a.nc', '192.0.2.1', 1425134743, %s, %s, %s)
"""
ALICE, BOB = "https://idp.example.org/openid/alice", "https://idp.example.org/openid/bob"
# user, success, size, sent: what the filters of all ages write, and whether it is a download.
ROWS = [
    (ALICE, True, 1000, 1000),  # whole
    (ALICE, True, 500, -1),  # answered with 200; the filter of 2016 counts no bytes sent
    (BOB, False, 700, 700),  # whole, resumed (206)
    ("<no-id>", True, 30, 30),  # whole, by nobody known
    ("", True, -1, -1),  # whole, of unknown size
    ("https://idp.example.org/openid/carol", False, -1, -1),  # begun and never ended
    ("https://idp.example.org/openid/dave", False, 900, 400),  # broken off
    ("https://idp.example.org/openid/erin", None, None, None),
]
RIGHT = Metrics(download_count=5, download_bytes=2230, download_users=2, registered_users=3)
LARGE = 2**62


@pytest.fixture(scope="module")
def server():
    """One server for all tests here."""
    with postgres_server() as running:
        yield running


@pytest.fixture
def password(tmp_path):
    """The file with the reader's password."""
    file = tmp_path / ".esg_pg_pass"
    file.write_text(f"{READER_PASSWORD}\n")
    return file


@pytest.fixture
def filled(server):
    """A site's tables with the rows above, three accounts and the seeded group; emptied again."""
    tables = 'esgf_node_manager.access_logging, esgf_security."user", esgf_security."group"'
    with server.superuser() as connection:
        connection.execute(f"TRUNCATE {tables}")
        connection.cursor().executemany(INSERT, ROWS)
        for number, middle in enumerate((None, "", "")):
            connection.execute(
                'INSERT INTO esgf_security."user" (firstname, middlename, lastname, email, username, openid) '
                "VALUES ('A', %s, 'B', 'a@example.org', 'ab', %s)",
                [middle, f"https://idp.example.org/openid/{number}"],
            )
        connection.execute(
            'INSERT INTO esgf_security."group" (name, description) VALUES (%s, %s), (%s, %s)',
            ["wheel", "Administrator Group", "CMIP5 Research", " größer "],
        )
    return server


def test_the_numbers_are_those_of_the_rows(filled, password):
    """Finished downloads, their bytes, who made them, accounts rather than names, groups byte for byte."""
    assert ask(filled.address, password) == Numbers(
        RIGHT, (Group("wheel", "Administrator Group"), Group("CMIP5 Research", " größer "))
    )


def test_an_address_may_be_a_url(filled, password):
    """What psql takes as a URL is taken too."""
    assert ask(f"postgresql://{READER}@127.0.0.1:{filled.port}/{DATABASE}", password).metrics == RIGHT


def test_empty_tables_give_noughts(server, password):
    """Nothing was downloaded: that is a number, not the absence of one."""
    with server.superuser() as connection:
        connection.execute("TRUNCATE esgf_node_manager.access_logging")
        connection.execute('TRUNCATE esgf_security."user"')
    assert ask(server.address, password).metrics == Metrics(0, 0, 0, 0)


def test_a_sum_beyond_the_largest_number_is_the_largest(filled, password):
    """Three rows of 2^62 bytes are more than an entry can hold."""
    with filled.superuser() as connection:
        connection.cursor().executemany(INSERT, [(ALICE, True, LARGE, LARGE)] * 3)
    assert ask(filled.address, password).metrics.download_bytes == 2**63 - 1


def test_what_is_too_much_to_publish_is_cut_where_it_can_still_be_seen(filled, password):
    """One group and one character beyond the bound come back, and no more."""
    with filled.superuser() as connection:
        connection.execute(
            """INSERT INTO esgf_security."group" (name, description) SELECT 'group ' || i, 'of many'
            FROM generate_series(1, 2000) AS i"""
        )
        connection.execute(
            """UPDATE esgf_security."group" SET description = repeat('x', 1000000) WHERE name = 'wheel'"""
        )
    groups = ask(filled.address, password).groups
    assert len(groups) == GROUPS + 1
    assert {len(group.description) for group in groups if group.name == "wheel"} == {
        GROUP_DESCRIPTION_CHARACTERS + 1
    }


def test_a_question_holds_up_nobody_and_leaves_nothing_open(filled, password):
    """A writer with open rows does not hold it up, it holds no writer up, and no session stays."""
    with filled.superuser() as writer:
        writer.execute("UPDATE esgf_node_manager.access_logging SET success = true")
        assert ask(filled.address, password).metrics == RIGHT
        writer.rollback()
        left = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        deadline_s = time.monotonic() + 10
        while (count := writer.execute(left, [READER]).fetchone()[0]) and time.monotonic() < deadline_s:
            writer.rollback()
        assert count == 0


def test_it_does_not_queue_behind_a_migration(filled, password, monkeypatch):
    """Who rewrites the table keeps it; the question gives up at once instead of holding up those behind it."""
    monkeypatch.setattr(postgres, "LOCK_WAIT_MS", 50)
    with filled.superuser() as migration:
        migration.execute("LOCK TABLE esgf_node_manager.access_logging IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceError, match="lock timeout"):
            ask(filled.address, password)


def test_the_only_lock_taken_is_the_one_of_readers(filled, password, monkeypatch):
    """While it reads, a table is locked against nobody but who would drop or rewrite it."""
    monkeypatch.setattr(postgres, "_USERS", "SELECT count(*) FROM (SELECT pg_sleep(0.5)) AS slept")
    answer = threading.Thread(target=ask, args=(filled.address, password))
    answer.start()
    seen = set()
    with filled.superuser(autocommit=True) as watcher:
        while answer.is_alive():
            seen.update(watcher.execute(
                "SELECT mode FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE usename = %s AND relation = 'esgf_node_manager.access_logging'::regclass",
                [READER],
            ).fetchall())  # fmt: skip
    answer.join()
    assert seen == {("AccessShareLock",)}


def test_it_cannot_write(filled, password, monkeypatch):
    """Not even as a role that may, and were the question another."""
    monkeypatch.setattr(
        postgres,
        "_USERS",
        'WITH gone AS (DELETE FROM esgf_security."user" RETURNING id) SELECT count(*) FROM gone',
    )
    super_password = password.with_name("super")
    super_password.write_text("super")
    with pytest.raises(SourceError, match="read-only transaction"):
        ask(filled.address.replace(READER, "dbsuper"), super_password)
    with filled.superuser() as connection:
        assert connection.execute('SELECT count(*) FROM esgf_security."user"').fetchone() == (3,)


def test_a_server_that_falls_silent_is_left(filled, password, monkeypatch):
    """A stopped process holds the connection open and says nothing: the question ends all the same."""
    monkeypatch.setattr(postgres, "DEADLINE_S", 0.5)
    monkeypatch.setattr(postgres, "QUESTION_S", 2)  # the server's own end, later than ours
    monkeypatch.setattr(postgres, "_USERS", "SELECT count(*) FROM (SELECT pg_sleep(30)) AS slept")
    with pytest.raises(SourceError, match=r"\[metrics\] database: "):
        ask(filled.address, password)


def test_a_question_that_takes_too_long_is_ended_by_the_server(filled, password, monkeypatch):
    """The bound is the server's too: nothing goes on counting for nobody."""
    monkeypatch.setattr(postgres, "QUESTION_S", 1)
    monkeypatch.setattr(postgres, "_USERS", "SELECT count(*) FROM (SELECT pg_sleep(30)) AS slept")
    with pytest.raises(SourceError, match="statement timeout"):
        ask(filled.address, password)


def test_a_database_with_some_of_the_tables_gives_some_of_the_numbers(filled, password):
    """A data node without accounts and a database that is none of a site."""
    with filled.superuser() as connection:
        connection.execute("ALTER SCHEMA esgf_security RENAME TO elsewhere")
    try:
        assert ask(filled.address, password) == Numbers(Metrics(5, 2230, 2), None)
        with pytest.raises(SourceError, match="has none of the tables"):
            ask(filled.address.replace(DATABASE, "postgres"), password)
    finally:
        with filled.superuser() as connection:
            connection.execute("ALTER SCHEMA elsewhere RENAME TO esgf_security")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("dbname=esgcet", "dbname=nowhere"), "nowhere"),
        (("user=metrics_reader", "user=stranger"), "stranger"),
        (("host=127.0.0.1", "host=127.0.0.1 nonsense=1"), "nonsense"),
        (("port=", "port=x"), "port"),
    ],
)
def test_a_wrong_address_is_one_line(filled, password, change, reason):
    """What is wrong is said, once, without the password."""
    with pytest.raises(SourceError, match=reason) as caught:
        ask(filled.address.replace(*change), password)
    assert "\n" not in str(caught.value)
    assert READER_PASSWORD not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n", "wrong\n", None])
def test_a_wrong_password_is_one_line(filled, password, content):
    """An empty file, a wrong word, no file."""
    password.unlink()
    if content is not None:
        password.write_text(content)
    with pytest.raises(SourceError) as caught:
        ask(filled.address, password)
    assert "\n" not in str(caught.value)


def test_a_role_without_rights_is_told(filled, password):
    """The table and the right that is missing are named."""
    with filled.superuser() as connection:
        connection.execute(f'REVOKE SELECT (id) ON esgf_security."user" FROM {READER}')
    try:
        with pytest.raises(SourceError, match="permission denied for table user"):
            ask(filled.address, password)
    finally:
        with filled.superuser() as connection:
            connection.execute(f'GRANT SELECT (id) ON esgf_security."user" TO {READER}')


def test_without_psycopg_the_message_says_what_to_install(monkeypatch):
    """The extra is optional; who switches it on without it reads how to get it."""
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(SourceError, match=r"pip install 'esgf-gossip\[postgres\]'"):
        ask("host=127.0.0.1", None)


def test_a_server_that_stops_and_starts_again(filled, password):
    """Down is one line; up again it answers as before, after a crash too."""
    for mode in ("fast", "immediate"):
        filled.stop(mode)
        with pytest.raises(SourceError, match="refused"):
            ask(filled.address, password)
        filled.start()
        assert ask(filled.address, password).metrics == RIGHT


def test_a_frozen_server_does_not_take_the_connection_for_ever(filled, password, monkeypatch):
    """A server that stands still lets the kernel accept and never answers: the bound of the connection holds."""
    monkeypatch.setattr(postgres, "CONNECT_S", 2)
    os.kill(filled.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SourceError, match="timeout"):
            ask(filled.address, password)
    finally:
        os.kill(filled.pid, signal.SIGCONT)
    assert ask(filled.address, password).metrics == RIGHT
