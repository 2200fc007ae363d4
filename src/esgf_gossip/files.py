"""
Files that are never half-written, and reads that end: temporary file, fsync, rename or link, fsync of the folder.

The only place that knows how a file gets safely onto a disk; every room but
core and views may use it. Modes hold whatever the umask is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """
    Write a file in one step: readers see the old content or the new, never a part.

    Raises:
        OSError: the disk is full or the folder not writable; the old file is intact.
    """
    temporary = _write_beside(path, content, mode)
    try:
        temporary.replace(path)
    except OSError:
        _remove(temporary)
        raise
    sync(path.parent)


def create_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """
    Write a file that must not exist yet, a private key above all.

    Raises:
        FileExistsError: the file exists and is untouched.
        OSError: as ``replace_file``; nothing is left behind.
    """
    temporary = _write_beside(path, content, mode)
    try:
        # link() fails where the name exists, even as a dangling symlink; rename() would overwrite.
        os.link(temporary, path, follow_symlinks=False)
    finally:
        _remove(temporary)
    sync(path.parent)


def read_file(path: Path, most_bytes: int) -> bytes:
    """
    Read a file of at most so many bytes; what is longer is cut there.

    Raises:
        OSError: it cannot be read, or is none: a FIFO or a device would hold up the reader for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return file.read(most_bytes)


def _write_beside(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError:
        _remove(temporary)
        raise
    return temporary


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def sync(path: Path) -> None:
    """
    Have a file, or the names in a folder, on the medium when this returns.

    Raises:
        OSError: it cannot be opened, or the disk says no.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
