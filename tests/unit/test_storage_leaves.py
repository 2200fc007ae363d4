"""Event logs on disk: what a restart gets back, what is dropped, and that it goes in slices."""

import sqlite3
from contextlib import closing

import pytest

from esgf_gossip.core.limits import LEAVES_ANSWER_BYTES
from esgf_gossip.core.log_effects import DropLeaves, PersistLeaves
from esgf_gossip.core.logs import Log
from esgf_gossip.core.merkle import BLOCK_LEAVES, Tree
from esgf_gossip.storage import leaves as leaf_store
from esgf_gossip.storage.database import FILE_NAME, Database, StorageError
from helpers.library import LOG, Library, X, events

MANY = 10**9


@pytest.fixture
def path(tmp_path):
    """Return where the database is."""
    return tmp_path / FILE_NAME


@pytest.fixture
def database(path):
    """Return an open database."""
    with closing(Database(path)) as opened:
        yield opened


def a_log(size, word=None, start=0):
    """Return the state of a log of so many events."""
    tree = Tree().extended(events(0, size))
    return Log(5, tree.without(start), word)


def persist(state, first, *, is_anew=False, origin=X):
    """Return the effect that makes the events from ``first`` to the size of the state durable."""
    return PersistLeaves(origin, LOG, state, first, tuple(events(first, state.tree.size)), is_anew)


def rows(database, table="leaves"):
    """Return how many rows a table has."""
    return database._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_a_log_is_there_after_a_restart(path):
    """Its birth, its tree, the digest that vouches for it, and every leaf."""
    word = Library(events(0, 9000)).line(1).verified
    with closing(Database(path)) as database:
        database.apply([persist(a_log(9000, word), 0)])
        database.apply([persist(a_log(9), 0, origin="own.example.org")])
    with closing(Database(path)) as database:
        theirs, own = database.load().logs
        assert (theirs.origin, theirs.name, theirs.born) == (X, LOG, 5)
        assert theirs.tree == a_log(9000).tree
        assert (theirs.signed, theirs.chain) == (word.signed, word.chain)
        assert (own.signed, own.chain, own.tree.size) == (None, (), 9)
        assert database.leaves(X, LOG, 0, 9000, MANY) == events(0, 9000)


def test_leaves_are_read_by_range_and_by_size(database):
    """From any leaf on, to the end asked for, what is held, or a number of bytes."""
    database.apply([persist(a_log(50), 0)])
    assert database.leaves(X, LOG, 10, 20, MANY) == events(10, 20)
    assert database.leaves(X, LOG, 45, 90, MANY) == events(45, 50)
    assert database.leaves(X, LOG, 50, 90, MANY) == []
    assert database.leaves(X, LOG, 0, 50, len(b"event 0") + 1) == events(0, 2)
    assert database.leaves(X, "documents", 0, 50, LEAVES_ANSWER_BYTES) == []
    assert database.leaves("a.example.org", LOG, 0, 50, LEAVES_ANSWER_BYTES) == []


def test_a_log_grows_at_its_end_in_one_transaction_with_its_tree(database):
    """What does not fit leaves neither leaves nor tree."""
    database.apply([persist(a_log(10), 0)])
    database.apply([persist(a_log(30), 10)])
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    database._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageError, match="the disk is full"):
        database.apply([persist(a_log(9000), 30)])
    assert [one.tree.size for one in database.logs()] == [30]
    assert database.leaves(X, LOG, 0, 9000, MANY) == events(0, 30)


def test_what_is_dropped_is_not_read_any_more_and_goes_in_slices(database):
    """A new beginning does not wait for the end of the old rows, nor do these hold up a transaction."""
    database.apply([persist(a_log(20_000), 0)])
    database.apply([persist(a_log(7), 0, is_anew=True)])
    assert database.leaves(X, LOG, 0, 20_000, MANY) == events(0, 7)
    assert rows(database) == 20_007 - leaf_store.SLICE_LEAVES
    for _ in range(5):
        database.apply([])
    assert (rows(database), rows(database, "doomed")) == (7, 0)
    database.apply([DropLeaves(X, LOG)])
    assert (database.logs(), database.leaves(X, LOG, 0, 7, MANY)) == ((), [])
    database.apply([])
    assert (rows(database), rows(database, "doomed")) == (0, 0)


def test_a_log_that_begins_later_loses_its_first_blocks(database):
    """Retention deletes up to the new start and nothing beyond."""
    database.apply([persist(a_log(3 * BLOCK_LEAVES), 0)])
    database.apply([PersistLeaves(X, LOG, a_log(3 * BLOCK_LEAVES, start=2 * BLOCK_LEAVES), 0, ())])
    for _ in range(3):
        database.apply([])
    assert rows(database) == BLOCK_LEAVES
    assert database.leaves(X, LOG, 2 * BLOCK_LEAVES, 3 * BLOCK_LEAVES, MANY)[0] == b"event 8192"
    (stored,) = database.logs()
    assert stored.tree == a_log(3 * BLOCK_LEAVES, start=2 * BLOCK_LEAVES).tree


@pytest.mark.parametrize("hashes", [b"\xc1", b"\x93\xc0\xc0\xc0", b"\x93\xc4\x00\xc4\x00\xc4\x00", b"\x05"])
def test_a_tree_that_is_none_is_damage(path, hashes):
    """Bytes that no version wrote are told as damage, with the remedy."""
    with closing(Database(path)) as database:
        database.apply([persist(a_log(5), 0)])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE logs SET hashes = ?", (hashes,))
    with closing(Database(path)) as database, pytest.raises(StorageError, match="is damaged"):
        database.load()


def test_a_database_of_the_second_version_is_brought_up_to_date(path):
    """An older file gets the new tables and keeps what it has."""
    with closing(Database(path)) as database:
        database.set_fact("epoch", 7)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("trust", "logs", "leaves", "doomed"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 2")
    with closing(Database(path)) as database:
        assert database.fact("epoch") == 7
        database.apply([persist(a_log(3), 0)])
        assert rows(database) == 3
