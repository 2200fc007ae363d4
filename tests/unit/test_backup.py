"""A node as one file, and back: storage.backup_file, storage.copying, restoring and the two commands, without a daemon."""

import io
import json
import os
import sqlite3
import tarfile
import threading
from contextlib import closing

import pytest
from click.testing import CliRunner

from esgf_gossip.cli.backup import backup, restore
from esgf_gossip.cli.failures import CommandError, ExitCode
from esgf_gossip.config import load
from esgf_gossip.core.effects import PersistEpoch, PersistLine
from esgf_gossip.restoring import parts_of
from esgf_gossip.storage.backup_file import BackupError, Manifest, is_part, unpack_backup, write_backup
from esgf_gossip.storage.database import FILE_NAME, Database, StorageError
from esgf_gossip.storage.outputs import STAMP
from esgf_gossip.storage.state_files import TRACKING
from esgf_gossip.tracking.restored import MARK
from helpers.bench import a_line
from helpers.config import a_node_toml

MANIFEST = Manifest("a.example.org", "test", "0.1.0", "2026-11-27T00:00:00.000Z", {})
KEY = "trust/node.key"


def a_tar(path, *members, manifest=None):
    """Write a tar with these members: name and content, or a TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if manifest is not None:
            info = tarfile.TarInfo("manifest.json")
            info.size = len(manifest)
            tar.addfile(info, io.BytesIO(manifest))
    return path


def a_manifest(**changes):
    """Return the bytes of a manifest."""
    fields = {"format": 1, "host": "a", "federation": "f", "version": "0", "made_at": "x", "parts": {}}
    return json.dumps(fields | changes).encode()


@pytest.fixture
def node(tmp_path):
    """A node that has run: node.toml, site files, trust with a key, a registry with an epoch and a line."""
    folder = tmp_path / "node"
    folder.mkdir()
    path = a_node_toml(folder)
    (folder / "esgf.properties").write_text("esgf.host=a\n")
    (folder / "config_type").write_text("4\n")
    trust = folder / "trust"
    (trust / "roots").mkdir(parents=True)
    (trust / "roots" / "root.pem").write_text("a root")
    (trust / "node.key").write_text("the key")
    (trust / "node.key").chmod(0o600)
    (trust / "chain.pem").write_text("the chain")
    config = load(path)
    config.node.state.mkdir(parents=True)
    database = Database(config.node.state / FILE_NAME)
    database.apply([PersistEpoch(7), PersistLine(a_line("b.example.org").verified, {}, frozenset())])
    database.set_fact(STAMP, 5000)
    database.close()
    return path


def run(command, *arguments):
    """Run a command; return its result, or the CommandError it ended with."""
    result = CliRunner().invoke(command, [str(one) for one in arguments])
    return result.exception if isinstance(result.exception, CommandError) else result


def facts(path):
    """Return epoch and stamp of a registry."""
    database = Database(path)
    try:
        return database.fact("epoch"), database.fact(STAMP)
    finally:
        database.close()


def test_a_backup_comes_back_whole_in_an_empty_place(node, tmp_path):
    """All files with their content and modes, the registry with its lines; the backup is private."""
    file = tmp_path / "a backup.tar.gz"
    result = run(backup, file, "--config", node)
    assert "private key" in result.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    before = {
        path.relative_to(node.parent): path.read_bytes()
        for path in node.parent.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    moved = node.parent.rename(tmp_path / "lost")
    assert moved.exists()
    result = run(restore, file, "--config", node, "--json")
    assert len(json.loads(result.stdout)["placed"]) == len(before)
    after = {
        path.relative_to(node.parent): path.read_bytes() for path in node.parent.rglob("*") if path.is_file()
    }
    registry = load(node).node.state.relative_to(node.parent) / FILE_NAME
    assert {name: body for name, body in after.items() if name != registry} == {
        name: body for name, body in before.items() if name != registry
    }
    assert (node.parent / KEY).stat().st_mode & 0o777 == 0o600
    database = Database(node.parent / registry)
    stored = database.load()
    database.close()
    assert stored.epoch == 7
    assert len(stored.lines) == 1
    assert not list(node.parent.glob(".restore-*"))


def test_what_a_restore_brings_back_of_tracking_is_marked(node, tmp_path):
    """Its next start must know that it may be older than what was mailed; a file that is there is left alone."""

    def version(path):
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute("PRAGMA user_version").fetchone()[0]

    tracking = node.parent / "state" / TRACKING
    with closing(sqlite3.connect(tracking)) as connection:
        connection.execute("CREATE TABLE told (one)")
    CliRunner().invoke(backup, [str(tmp_path / "b.tar.gz"), "--config", str(node)], catch_exceptions=False)
    arguments = [str(tmp_path / "b.tar.gz"), "--replace", "--config", str(node)]
    CliRunner().invoke(restore, arguments, catch_exceptions=False)
    assert version(tracking) == 0
    tracking.unlink()
    CliRunner().invoke(restore, arguments, catch_exceptions=False)
    assert version(tracking) == MARK


def test_keys_and_history_stay_out_where_it_is_asked(node, tmp_path):
    """What only the daemon may read is a key; what remains can be shown to others."""
    file = tmp_path / "b.tar.gz"
    (load(node).node.state / "history.db").write_bytes(b"")
    result = run(backup, file, "--config", node, "--no-keys", "--no-history", "--json")
    parts = json.loads(result.stdout)["parts"]
    assert KEY not in parts
    assert "state/history.db" not in parts
    assert {"node.toml", "state/registry.db", "trust/chain.pem", "trust/roots/root.pem"} <= set(parts)
    with tarfile.open(file) as tar:
        assert all(b"the key" not in tar.extractfile(one).read() for one in tar)


def test_nothing_that_is_there_is_overwritten(node, tmp_path):
    """Without --replace a registry is in the way; with it it is moved aside, and what must not fall does not."""
    file = tmp_path / "b.tar.gz"
    run(backup, file, "--config", node)
    registry = load(node).node.state / FILE_NAME
    database = Database(registry)
    database.apply([PersistEpoch(900)])
    database.set_fact(STAMP, 70_000)
    database.close()
    (node.parent / KEY).write_text("a newer key")
    refused = run(restore, file, "--config", node)
    assert refused.code == ExitCode.EXISTS
    assert facts(registry) == (900, 70_000)
    done = json.loads(run(restore, file, "--config", node, "--replace", "--json").stdout)
    assert facts(registry) == (900, 70_000)
    assert (node.parent / KEY).read_text() == "a newer key"
    assert str(node.parent / "trust") in done["kept"]
    (aside,) = done["moved"]
    assert ".replaced-" in aside
    assert run(backup, file, "--config", node).code == ExitCode.EXISTS


def test_a_backup_of_another_node_is_refused(node, tmp_path):
    """Its key would speak for somebody else."""
    file = tmp_path / "b.tar.gz"
    run(backup, file, "--config", node)
    text = node.read_text()
    host = load(node).node.host
    node.write_text(text.replace(host, f"other-{host}"))
    refused = run(restore, file, "--config", node, "--replace")
    assert refused.code == ExitCode.REFUSED
    assert "the backup is of" in str(refused)


def test_a_registry_that_a_daemon_holds_is_not_restored_over(node, tmp_path):
    """Whoever holds it would write into what was moved aside."""
    file = tmp_path / "b.tar.gz"
    run(backup, file, "--config", node)
    database = Database(load(node).node.state / FILE_NAME)
    refused = run(restore, file, "--config", node, "--replace")
    database.close()
    assert refused.code == ExitCode.REFUSED
    assert "in use" in str(refused)


def test_a_damaged_registry_is_moved_aside(node, tmp_path):
    """It may be why somebody restores."""
    file = tmp_path / "b.tar.gz"
    run(backup, file, "--config", node)
    registry = load(node).node.state / FILE_NAME
    registry.write_bytes(b"no database at all" * 500)
    done = json.loads(run(restore, file, "--config", node, "--replace", "--json").stdout)
    assert len(done["moved"]) == 1
    assert facts(registry) == (7, 5000)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "trust/../../evil",
        "trust/.hidden",
        "state/registry.db/x",
        "node.toml/x",
        "site/../x",
        "trust/a/b/c/d/e",
        "other",
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    """A backup is a file from somewhere: only names that we write are read."""
    file = a_tar(tmp_path / "b.tar.gz", (name, b"x"), manifest=a_manifest())
    folder = tmp_path / "unpacked"
    folder.mkdir()
    with pytest.raises(BackupError, match="no backup of esgf-gossip"):
        unpack_backup(file, folder)
    assert list(folder.iterdir()) == []
    assert not is_part(name)


def a_link(name, target):
    """Return a member that is a link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    ("members", "manifest", "words"),
    [
        ([("node.toml", b"x")], None, "no manifest"),
        ([("node.toml", b"x")], a_manifest(), "node.toml is not what was put in"),
        ([], a_manifest(parts={"node.toml": "00"}), "node.toml is not what was put in"),
        ([], a_manifest(format=2), "of format 2"),
        ([], a_manifest(host=7), "its manifest is none"),
        ([], a_manifest(extra=1), "no manifest"),
        ([], b"[" * 100_000, "no manifest"),
        ([("node.toml", b"x"), ("node.toml", b"x")], a_manifest(), "stands where no backup has it"),
        ([(a_link("node.toml", "/etc/passwd"), b"")], a_manifest(), "no backup of esgf-gossip"),
    ],
)
def test_what_is_no_whole_backup_is_refused(tmp_path, members, manifest, words):
    """Without a manifest, with a wrong hash, of a later format, with a link, twice the same."""
    file = a_tar(tmp_path / "b.tar.gz", *members, manifest=manifest)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    with pytest.raises(BackupError, match=words):
        unpack_backup(file, folder)


def test_a_cut_or_changed_file_is_refused_wherever_it_is_cut(node, tmp_path):
    """Half a copy of a backup is none, and says so."""
    file = tmp_path / "b.tar.gz"
    run(backup, file, "--config", node)
    content = file.read_bytes()
    for number, length in enumerate((0, 1, 10, len(content) // 3, len(content) // 2, len(content) * 4 // 5)):
        cut = tmp_path / f"cut{number}"
        cut.write_bytes(content[:length])
        folder = tmp_path / f"unpacked{number}"
        folder.mkdir()
        with pytest.raises(BackupError):
            unpack_backup(cut, folder)
    result = run(restore, cut, "--config", node, "--replace")
    assert result.code == ExitCode.REFUSED
    elsewhere = tmp_path / "not yet" / "node.toml"
    assert run(restore, cut, "--config", elsewhere).code == ExitCode.REFUSED
    assert not elsewhere.parent.exists()
    assert facts(load(node).node.state / FILE_NAME) == (7, 5000)


def test_a_full_disk_leaves_nothing(node, tmp_path, monkeypatch):
    """The temporary file goes; nothing stands under the name."""
    config = load(node)
    parts = parts_of(config, node, with_keys=True)
    file = tmp_path / "b.tar.gz"

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_backup(file, MANIFEST, parts, lambda _count: None)
    assert [path.name for path in tmp_path.iterdir()] == ["node"]


def test_a_copy_is_whole_while_the_database_is_written(tmp_path):
    """In a thread, beside transactions: what was there before is in it, and each transaction as a whole or not at all."""
    database = Database(tmp_path / FILE_NAME)
    database.apply(
        [
            PersistLine(a_line(f"n{n}.example.org").verified, {b"%032d" % n: b"x" * 60_000}, frozenset())
            for n in range(300)
        ]
    )
    faults = []

    def copy():
        try:
            database.copy_to(tmp_path / "copy.db")
        except StorageError as error:
            faults.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    written = 0
    while thread.is_alive() or written < 20:
        written += 1
        lines = [a_line(f"m{written}-{part}.example.org").verified for part in range(2)]
        database.apply([PersistLine(line, {}, frozenset()) for line in lines])
    thread.join()
    database.close()
    assert faults == []
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]
    connection = sqlite3.connect(tmp_path / "copy.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    origins = {origin for (origin,) in connection.execute("SELECT origin FROM lines")}
    connection.close()
    assert {f"n{n}.example.org" for n in range(300)} <= origins
    pairs = [number for number in range(1, written + 1) if f"m{number}-0.example.org" in origins]
    assert pairs == list(range(1, len(pairs) + 1))
    assert all(f"m{number}-1.example.org" in origins for number in pairs)


def test_a_database_that_closes_ends_its_copy(tmp_path):
    """A stop does not wait for a large copy, and the copy says that it is none."""
    database = Database(tmp_path / FILE_NAME)
    database.apply(
        [
            PersistLine(
                a_line("n.example.org").verified,
                {b"%032d" % n: b"x" * 60_000 for n in range(200)},
                frozenset(),
            )
        ]
    )
    database._is_closing = True
    with pytest.raises(StorageError, match="being closed"):
        database.copy_to(tmp_path / "copy.db")
    database.close()
