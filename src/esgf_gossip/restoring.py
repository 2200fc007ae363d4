"""
What belongs into a backup of a node, and where each part goes back to.

A restored node never forks: it starts with an epoch above all it knows of, takes its own newer digests and logs back
from its peers, and its peers never accept less than they hold (docs/adr/0017).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.config import Config
from esgf_gossip.files import read_file, sync
from esgf_gossip.storage.backup_file import NODE_TOML, SITE, STATE, TRUST, BackupError, Manifest, is_part
from esgf_gossip.storage.database import FILE_NAME, Database, InUseError, StorageError
from esgf_gossip.storage.outputs import STAMP
from esgf_gossip.storage.state_files import OTHER_FILES, TRACKING, TRACKING_KEY
from esgf_gossip.tracking.restored import mark

EPOCH: Final = "epoch"
_TRUST_DEPTH: Final = 4
_SMALL_BYTES: Final = 64 * 1024 * 1024


class PresentError(Exception):
    """Report that a restore would replace what is there; nothing was changed."""


@attrs.define
class Restored:
    """What a restore did: files put in their place, files left alone because they were there, files moved aside."""

    placed: list[str] = attrs.field(factory=list)
    kept: list[str] = attrs.field(factory=list)
    moved: list[str] = attrs.field(factory=list)


def parts_of(config: Config, config_path: Path, *, with_keys: bool) -> dict[str, Path]:
    """
    Name the files of a node that go into a backup, but for the databases.

    Raises:
        OSError: the folder of trust cannot be read.
    """
    parts = {NODE_TOML: config_path.absolute()}
    parts |= {f"{SITE}/{name}": path for name, path in site_files(config).items() if path.is_file()}
    tracking_key = config.node.state / TRACKING_KEY
    if with_keys and tracking_key.is_file():
        # Without it nobody can read whom tracking.db names.
        parts[f"{STATE}/{TRACKING_KEY}"] = tracking_key
    for path in _files_below(config.trust.directory, _TRUST_DEPTH):
        name = f"{TRUST}/{path.relative_to(config.trust.directory).as_posix()}"
        # What nobody else may read is a key, or as good as one.
        is_secret = not path.stat().st_mode & 0o077
        if is_part(name) and (with_keys or not is_secret):
            parts[name] = path
    return parts


def site_files(config: Config) -> dict[str, Path]:
    """Return the files in which the site says what it is, by their key in ``[esgf]``."""
    esgf = config.esgf
    named = {
        "properties": esgf.properties,
        "config_type": esgf.config_type,
        "groups": esgf.groups,
        "host_certificate": esgf.host_certificate,
        "excludes": esgf.excludes,
    }
    return {name: path for name, path in named.items() if path is not None}


def _files_below(folder: Path, depth: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and depth > 1:
            yield from _files_below(path, depth - 1)


def refuse_another_node(manifest: Manifest, config: Config) -> None:
    """
    See that a backup is of the node that node.toml describes.

    Raises:
        BackupError: it is not.
    """
    node = config.node
    if (manifest.host, manifest.federation) != (node.host, node.federation):
        raise BackupError(
            f"the backup is of {manifest.host} in {manifest.federation}, node.toml of {node.host} in {node.federation}"
        )


def put_back(unpacked: Path, config: Config, stamp: str, *, replace: bool) -> Restored:
    """
    Put the parts of a backup into their places; what is there is never overwritten.

    Args:
        unpacked: the folder of the checked parts.
        config: of the node.
        stamp: of now, for the name of what is moved aside.
        replace: whether a registry that is there is moved aside; else it is in the way.

    Raises:
        PresentError: there is a registry, and ``replace`` is false.
        StorageError: a daemon runs with that state, or a database of the backup cannot be used.
        OSError: the disk says no; what was moved aside is named beside its old place.
    """
    done = Restored()
    state = config.node.state
    state.mkdir(mode=0o755, parents=True, exist_ok=True)
    present, restored = state / FILE_NAME, unpacked / STATE / FILE_NAME
    if not restored.exists():
        raise StorageError("the backup holds no registry")
    facts = _facts_of(present) if present.exists() else {}
    if present.exists() and not replace:
        raise PresentError(f"{present} is there")
    _raise_facts(restored, facts)
    tracking = unpacked / STATE / TRACKING
    if tracking.exists():
        # It does not know whom mails have reached since; its next start holds them.
        mark(tracking)
    # First all that a daemon could not start without; the registry, whose loss is told, last.
    _put_trust(unpacked / TRUST, config.trust.directory, done)
    for name, path in site_files(config).items():
        _put(unpacked / SITE / name, path, done)
    for name in (*OTHER_FILES, TRACKING_KEY):
        _put(unpacked / STATE / name, state / name, done)
    if present.exists():
        aside = state / f"{FILE_NAME}.replaced-{stamp}"
        present.rename(aside)
        for suffix in ("-wal", "-shm"):
            present.with_name(present.name + suffix).unlink(missing_ok=True)
        done.moved.append(str(aside))
    _put(restored, present, done)
    return done


def _facts_of(path: Path) -> dict[str, int]:
    """Return what must never fall, of the registry that is there; opening it proves that no daemon holds it."""
    try:
        database = Database(path)
    except InUseError:
        raise
    except StorageError:
        # Damaged: that may be why it is restored.
        return {}
    try:
        return {name: database.fact(name) for name in (EPOCH, STAMP)}
    except StorageError:
        return {}
    finally:
        database.close()


def _raise_facts(path: Path, facts: dict[str, int]) -> None:
    database = Database(path)
    try:
        for name, value in facts.items():
            if value > database.fact(name):
                database.set_fact(name, value)
    finally:
        database.close()


def _put_trust(unpacked: Path, folder: Path, done: Restored) -> None:
    """Put a folder of trust back as a whole or not at all: a key goes with its certificate."""
    if not unpacked.exists():
        return
    if (folder / "node.key").exists() or (folder / "chain.pem").exists():
        done.kept.append(str(folder))
        return
    for path in _files_below(unpacked, _TRUST_DEPTH):
        _put(path, folder / path.relative_to(unpacked), done)


def _put(source: Path, target: Path, done: Restored) -> None:
    if not source.exists():
        return
    if os.path.lexists(target):
        done.kept.append(str(target))
        return
    _make_folders(target.parent)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        shutil.copyfile(source, temporary)
        shutil.copymode(source, temporary)
        _give_to_owner_of(target.parent, temporary)
        sync(temporary)
        temporary.rename(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)
    done.placed.append(str(target))


def _make_folders(folder: Path) -> None:
    if not folder.exists():
        _make_folders(folder.parent)
        folder.mkdir(mode=0o755)
        _give_to_owner_of(folder.parent, folder)


def _give_to_owner_of(folder: Path, path: Path) -> None:
    """Give what root writes to the user whose folder it is: the daemon is not root."""
    if os.geteuid() == 0:
        status = folder.stat()
        os.chown(path, status.st_uid, status.st_gid)


def put_node_toml(unpacked: Path, config_path: Path) -> bytes:
    """
    Return the node.toml of a backup, for a place that has none.

    Raises:
        BackupError: the backup has none.
    """
    source = unpacked / NODE_TOML
    if not source.exists():
        raise BackupError(f"there is no {config_path}, and the backup holds none")
    return read_file(source, _SMALL_BYTES)
