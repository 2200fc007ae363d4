"""What survives a restart, and what a bad disk does: storage.database and storage.outputs."""

import re
import sqlite3
import stat
from contextlib import closing

import attrs
import pytest

from esgf_gossip.core.codec import encode
from esgf_gossip.core.effects import (
    DropBodies,
    PersistEpoch,
    PersistFork,
    PersistLine,
    RemoveFork,
    RemoveLine,
)
from esgf_gossip.core.forks import prove
from esgf_gossip.core.messages import Announce
from esgf_gossip.core.registry import sha256
from esgf_gossip.sim.network import VirtualNetwork
from esgf_gossip.sim.trust import PlainVerifier
from esgf_gossip.storage.database import FILE_NAME, Database, StorageError, find_fault
from helpers.bench import a_fork


def _a_line(name="a.example.org", body=b"body"):
    network = VirtualNetwork(1)
    host = network.add(name, {"registration": body})
    network.start(name)
    return host.disk.lines[name]


def test_what_was_persisted_is_there_after_a_restart(tmp_path):
    """A second process finds epoch, lines, chains and bodies as they were."""
    line = _a_line()
    database = Database(tmp_path / FILE_NAME)
    database.apply([PersistEpoch(7), PersistLine(line, {sha256(b"body"): b"body"})])
    database.close()
    stored = Database(tmp_path / FILE_NAME).load()
    assert stored.epoch == 7
    assert [(one.signed, one.chain) for one in stored.lines] == [(line.signed, line.chain)]
    assert stored.bodies == {sha256(b"body"): b"body"}


def test_a_newer_line_replaces_the_older_and_its_bodies(tmp_path):
    """One line an origin is kept, and no body that nobody refers to."""
    database = Database(tmp_path / FILE_NAME)
    database.apply([PersistLine(_a_line(body=b"old"), {sha256(b"old"): b"old"})])
    newer = _a_line(body=b"new")
    database.apply([PersistLine(newer, {sha256(b"new"): b"new"}, frozenset([sha256(b"old")]))])
    stored = database.load()
    assert [one.signed for one in stored.lines] == [newer.signed]
    assert stored.bodies == {sha256(b"new"): b"new"}


def test_a_removed_line_is_gone(tmp_path):
    """A line that trust no longer carries is not given back."""
    database = Database(tmp_path / FILE_NAME)
    database.apply([PersistLine(_a_line(), {sha256(b"body"): b"body"})])
    database.apply([RemoveLine("a.example.org", frozenset([sha256(b"body")]))])
    assert database.load().lines == ()
    assert database.load().bodies == {}


def test_a_proof_of_a_fork_is_kept_until_it_is_removed(tmp_path):
    """The proof comes back as it was sent, one for a certificate."""
    fork = a_fork("a.example.org")
    line = prove(fork, PlainVerifier())
    with closing(Database(tmp_path / FILE_NAME)) as database:
        database.apply([PersistFork(line), PersistFork(line)])
    with closing(Database(tmp_path / FILE_NAME)) as database:
        assert database.load().forks == (fork,)
        database.apply([RemoveFork(line.certificate_sha256)])
        assert database.load().forks == ()


def test_a_database_of_the_first_version_gets_its_table_of_forks(tmp_path):
    """What was persisted before the step is there after it."""
    path = tmp_path / FILE_NAME
    with closing(Database(path)) as database:
        database.apply([PersistEpoch(7)])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "DROP TABLE trust; DROP TABLE forks; DROP TABLE logs; DROP TABLE leaves; DROP TABLE doomed; PRAGMA user_version = 1;"
        )
    with closing(Database(path)) as database:
        assert database.load().epoch == 7
        assert database.load().forks == ()


def test_a_proof_that_is_none_is_damage(tmp_path):
    """Bytes that no version wrote are told as damage."""
    path = tmp_path / FILE_NAME
    Database(path).close()
    for proof in (b"\xc1", encode(Announce(())), encode(attrs.evolve(a_fork("a.example.org"), chain=()))):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("INSERT OR REPLACE INTO forks VALUES (?, ?)", (bytes(32), proof))
        with closing(Database(path)) as database, pytest.raises(StorageError, match="is damaged"):
            database.load()


def test_a_second_daemon_is_refused(tmp_path):
    """Two processes never share one database: they would fork their identity."""
    first = Database(tmp_path / FILE_NAME)
    with pytest.raises(StorageError, match="in use by another daemon"):
        Database(tmp_path / FILE_NAME)
    first.close()
    assert Database(tmp_path / FILE_NAME).load().epoch == 0


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, content):
    """The administrator reads which file, what is wrong and what to do, in one line."""
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        Database(path)
    assert re.fullmatch(
        r".*registry\.db: the database is damaged \(.*\); move the file away.*", str(caught.value)
    )
    assert content == path.read_bytes()


def test_damage_inside_a_page_is_found_at_start(tmp_path):
    """A flipped page is found before anything of it is served."""
    path = tmp_path / FILE_NAME
    database = Database(path)
    database.apply([PersistLine(_a_line(body=b"x" * 60000), {sha256(b"x" * 60000): b"x" * 60000})])
    database.close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 200] = b"\xee" * 200
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        Database(path)


def test_a_newer_schema_is_left_alone(tmp_path):
    """A database of a later version is not touched by an older program."""
    path = tmp_path / FILE_NAME
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="newer version"):
        Database(path)


def test_a_full_disk_leaves_the_batch_out_as_a_whole(tmp_path):
    """Where one effect of a batch does not fit, none of it is there."""
    database = Database(tmp_path / FILE_NAME)
    database.apply([PersistEpoch(1)])
    # SQLite's own bound on the file stands for a full disk: the same error comes up.
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    database._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    big = b"y" * 60000
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        database.apply([PersistEpoch(2), PersistLine(_a_line(body=big), {sha256(big): big})])
    assert database.load().epoch == 1
    assert database.load().lines == ()


def test_the_database_is_private(tmp_path):
    """Nobody but the daemon's user reads the file or what SQLite writes beside it."""
    database = Database(tmp_path / FILE_NAME)
    database.apply([PersistEpoch(1)])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    assert f"{FILE_NAME}-wal" in modes


def test_a_folder_that_is_no_folder_is_one_line(tmp_path):
    """A wrong path is told with the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be opened"):
        Database(tmp_path / "file" / FILE_NAME)


def test_a_look_at_the_database_changes_nothing(tmp_path):
    """``check`` finds damage, creates no file, and takes a running daemon's file for well."""
    path = tmp_path / FILE_NAME
    assert find_fault(path) == ""
    assert not path.exists()
    database = Database(path)
    assert find_fault(path) == ""
    database.close()
    assert find_fault(path) == ""
    path.write_bytes(b"\x00garbage" * 1000)
    assert "the database is damaged" in find_fault(path)
    assert path.read_bytes() == b"\x00garbage" * 1000


def test_orphaned_bodies_are_dropped(tmp_path):
    """Bodies that no line refers to go when the core says so."""
    database = Database(tmp_path / FILE_NAME)
    database.apply([PersistLine(_a_line(), {sha256(b"body"): b"body", sha256(b"orphan"): b"orphan"})])
    database.apply([DropBodies(frozenset([sha256(b"orphan")]))])
    assert database.load().bodies == {sha256(b"body"): b"body"}


def test_a_chain_that_is_none_is_damage(tmp_path):
    """Bytes that no version wrote are told as damage, not as a fault of the program."""
    path = tmp_path / FILE_NAME
    Database(path).close()
    for chain in (b"\x05", b"\x91\x05", b"\xa1x"):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO lines VALUES (?, ?, ?, ?)", ("a.example.org", b"p", b"s", chain)
            )
        with closing(Database(path)) as database, pytest.raises(StorageError, match="is damaged"):
            database.load()


def test_a_file_that_is_gone_is_written_no_more(tmp_path):
    """SQLite reports success for a file without a name; what was not kept must be told."""
    path = tmp_path / FILE_NAME
    with closing(Database(path)) as database:
        database.apply([PersistEpoch(1)])
        path.unlink()
        with pytest.raises(StorageError, match="removed or replaced under the running daemon"):
            database.apply([PersistEpoch(2)])
