"""
A backup as one file: a tar of what a node is, with a manifest at its end that names every part by its hash.

Only the file lives here; what goes into it and where it goes back to is ``restoring``'s work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MANIFEST_BYTES: Final = 4 * 1024 * 1024
PARTS_MOST: Final = 10_000
NODE_TOML: Final = "node.toml"
# Folders of parts: databases, trust, what the site says of itself.
STATE: Final = "state"
TRUST: Final = "trust"
SITE: Final = "site"
_PART: Final = re.compile(
    rf"{NODE_TOML}|{STATE}/[a-z]+\.db|{STATE}/tracking\.key|{SITE}/[a-z_]+|{TRUST}(?:/[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*){{1,4}}"
)
_BLOCK_BYTES: Final = 1024 * 1024


class BackupError(Exception):
    """Report what is wrong with a backup, in one line. Nothing half-written is left."""


@attrs.frozen
class Manifest:
    """What a backup says of itself: of which node, made when (RFC 3339) by which version; parts with SHA-256 in hex."""

    host: str
    federation: str
    version: str
    made_at: str
    parts: Mapping[str, str]


def is_part(name: str) -> bool:
    """Tell whether a name can stand in a backup."""
    return _PART.fullmatch(name) is not None


def write_backup(
    path: Path, manifest: Manifest, parts: Mapping[str, Path], on_bytes: Callable[[int], object]
) -> Manifest:
    """
    Write a private file that must not exist yet; return the manifest with all hashes.

    Args:
        path: of the backup.
        manifest: what is said of it; ``parts`` are filled in here.
        parts: name in the backup to the file it is read from.
        on_bytes: told how many bytes were read since the last call.

    Raises:
        FileExistsError: there is such a file, and it is untouched.
        OSError: a part cannot be read, or the disk is full; nothing is left.
    """
    if os.path.lexists(path):
        raise FileExistsError(17, "File exists", str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
                hashes = {name: _add(tar, name, source, on_bytes) for name, source in parts.items()}
                whole = attrs.evolve(manifest, parts=hashes)
                said = json.dumps({"format": FORMAT, **attrs.asdict(whole)}, indent=1).encode()
                info = tarfile.TarInfo(MANIFEST)
                info.size, info.mode = len(said), 0o600
                tar.addfile(info, BytesIO(said))
            file.flush()
            os.fsync(file.fileno())
        # link() fails where the name exists by now; rename() would overwrite.
        os.link(temporary, path, follow_symlinks=False)
    finally:
        with suppress(OSError):
            temporary.unlink()
    return whole


class _Counted:
    """A file that is hashed and counted while it is read."""

    def __init__(self, file: BinaryIO, on_bytes: Callable[[int], object]) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._on_bytes = on_bytes

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.digest.update(block)
        self._on_bytes(len(block))
        return block


def _add(tar: tarfile.TarFile, name: str, source: Path, on_bytes: Callable[[int], object]) -> str:
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        counted = _Counted(file, on_bytes)
        info = tarfile.TarInfo(name)
        status = os.fstat(descriptor)
        info.size, info.mode, info.mtime = status.st_size, status.st_mode & 0o777, int(status.st_mtime)
        tar.addfile(info, counted)
    return counted.digest.hexdigest()


def unpack_backup(path: Path, folder: Path) -> Manifest:
    """
    Unpack a backup into an empty folder, every part checked against the manifest.

    Raises:
        BackupError: it is none, was cut or changed, or holds what no backup holds; what was unpacked is worth nothing.
        OSError: it cannot be read, or the disk is full.
    """
    hashes: dict[str, str] = {}
    said: bytes | None = None
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None or (member.name != MANIFEST and not is_part(member.name)):
                    raise BackupError(
                        f"{path}: holds {member.name[:100]!r}, which no backup of esgf-gossip does"
                    )
                if member.name in hashes or len(hashes) >= PARTS_MOST or said is not None:
                    raise BackupError(f"{path}: {member.name[:100]!r} stands where no backup has it")
                if member.name == MANIFEST:
                    said = content.read(MANIFEST_BYTES)
                else:
                    hashes[member.name] = _unpack(content, folder / member.name, member)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BackupError(f"{path}: no whole backup: {error}") from None
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise BackupError(f"{path}: no whole backup: {error}") from None
        raise
    manifest = _manifest(path, said)
    if hashes != manifest.parts:
        wrong = sorted(
            name
            for name in hashes.keys() | manifest.parts.keys()
            if hashes.get(name) != manifest.parts.get(name)
        )
        raise BackupError(f"{path}: {wrong[0]} is not what was put in; take another backup")
    return manifest


def _unpack(content: Any, target: Path, member: tarfile.TarInfo) -> str:
    if member.size > shutil.disk_usage(target.parents[len(Path(member.name).parts) - 1]).free:
        raise BackupError(f"{member.name} has {member.size} bytes, more than the disk has room for")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as file:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
            file.write(block)
    target.chmod(member.mode & 0o777)
    return digest.hexdigest()


def _manifest(path: Path, said: bytes | None) -> Manifest:
    try:
        fields = json.loads(said or b"null")
        found = fields.pop("format")
        manifest = Manifest(**fields)
        texts = [manifest.host, manifest.federation, manifest.version, manifest.made_at]
        texts += [text for part in manifest.parts.items() for text in part]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise BackupError(f"{path}: has no manifest; it was cut, or is no backup of esgf-gossip") from None
    if found != FORMAT:
        raise BackupError(
            f"{path}: of format {str(found)[:20]}; this version reads {FORMAT}: upgrade esgf-gossip"
        )
    if not all(isinstance(text, str) for text in texts):
        raise BackupError(f"{path}: its manifest is none")
    return manifest
