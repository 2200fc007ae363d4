"""
The folder of the task queue, in the manner of a maildir: tmp, new, cur, done, failed.

Only files and names live here: what stands in a task is ``tasks``' work. A file changes its folder by one rename, so
that it is always in exactly one. Nothing here waits: what is no regular file of an accepted owner is never read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pwd
import re
import secrets
import stat
import time
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.files import replace_file

TMP: Final = "tmp"
NEW: Final = "new"
CUR: Final = "cur"
DONE: Final = "done"
FAILED: Final = "failed"
FOLDERS: Final = (TMP, NEW, CUR, DONE, FAILED)
REASON: Final = ".reason"
REASON_CHARACTERS: Final = 1000
NAME_CHARACTERS: Final = 128
_NAME: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._@+=,:-]{{0,{NAME_CHARACTERS - 1}}}")
# What says something of the host, or that the file has gone, and nothing of the file.
_NOT_ITS_FAULT: Final = (None, errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


class SpoolError(Exception):
    """Say in one line why a file in the folder is no task: it is put aside, never read."""


@attrs.frozen(order=True)
class Found:
    """A name in a folder: when it was written, in Unix nanoseconds, and what stands there."""

    written_ns: int
    name: str
    moved_ns: int = attrs.field(order=False)
    mode: int = attrs.field(order=False)

    @property
    def kind(self) -> str:
        """Say what it is where it is no regular file, else ""."""
        if stat.S_ISREG(self.mode):
            return ""
        return next((name for is_kind, name in _KINDS if is_kind(self.mode)), "a device")


class Spool:
    """
    The folder.

    Args:
        path: of it.
        owners: numbers of the users whose files are taken; the own and root's always are.
        remedy: what to do where another's file is to be taken.
    """

    def __init__(
        self, path: Path, owners: Collection[int] = (), remedy: str = "name the user as users under [tasks]"
    ) -> None:
        self.path: Final = path
        self._remedy: Final = remedy
        self._owners: Final = frozenset({0, os.geteuid(), *owners})
        self._lock: int | None = None

    def is_accepted(self, owner: int) -> bool:
        """Tell whether files of that user are taken."""
        return owner in self._owners

    def make(self) -> None:
        """
        Make the folders that are not there.

        Raises:
            OSError: there is something else, or the disk says no.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            (self.path / name).mkdir(mode=0o700, exist_ok=True)

    def lock(self) -> None:
        """
        Hold the folder for this process, until ``unlock`` or its end, however it ends.

        Raises:
            OSError: another daemon holds it, or the disk says no.
        """
        if self._lock is not None:
            return
        path = self.path / ".lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise OSError(error.errno, "another daemon works on this folder", str(self.path)) from None
        self._lock = lock

    def unlock(self) -> None:
        """Let go of the folder; twice does no harm."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def changed_ns(self, folder: str) -> int:
        """
        Return when a name last came into a folder or left it, Unix nanoseconds.

        Raises:
            OSError: the folder cannot be looked at.
        """
        return (self.path / folder).stat().st_mtime_ns

    def look(self, folder: str) -> Generator[Found, None, None]:
        """
        Go through what is in a folder, in no order; a name that begins with a dot is nobody's.

        Raises:
            OSError: the folder cannot be read.
        """
        with os.scandir(self.path / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # It may have gone since.
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    yield Found(found.st_mtime_ns, entry.name, found.st_ctime_ns, found.st_mode)

    def read(self, folder: str, name: str, most_bytes: int) -> bytes:
        """
        Read a file of at most so many bytes; what is longer is cut one byte beyond.

        Raises:
            FileNotFoundError: it has gone.
            SpoolError: it is no file, not readable, or not of an accepted owner.
        """
        path = self.path / folder / name
        try:
            # Looked at before it is opened as well: to open a FIFO or a device may do something.
            _refuse_kind(path.lstat().st_mode)
            descriptor = os.open(
                path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
            )
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                _refuse_kind(found.st_mode)
                if not self.is_accepted(found.st_uid):
                    raise SpoolError(
                        f"belongs to user {found.st_uid}, whose files are not taken; {self._remedy}"
                    )
                return file.read(most_bytes + 1)
        except OSError as error:
            if error.errno in _NOT_ITS_FAULT:
                raise
            raise SpoolError(
                f"cannot be read: {error.strerror}; let the user of the daemon read it"
            ) from None

    def claim(self, name: str) -> bool:
        """
        Take a file out of new/ into cur/; tell whether it was still there.

        Raises:
            OSError: the disk says no.
        """
        try:
            (self.path / NEW / name).rename(self.path / CUR / name)
        except FileNotFoundError:
            return False
        return True

    def give_back(self, name: str) -> None:
        """
        Put a claimed file back into new/, unless another has come under its name.

        Raises:
            OSError: the disk says no.
        """
        if not self.holds(NEW, name):
            (self.path / CUR / name).rename(self.path / NEW / name)

    def put_aside(self, name: str, folder: str, target: str, reason: str = "") -> str:
        """
        Move a file into done/ or failed/, with a line why; return its name there.

        The line is written first: a crash between leaves the file where it was, and the next call does it again.

        Raises:
            OSError: the disk says no; the file is where it was.
        """
        free = self._free_name(target, name)
        if reason:
            self._write_reason(self.path / target / (free + REASON), reason)
        with contextlib.suppress(FileNotFoundError):
            (self.path / folder / name).rename(self.path / target / free)
        return free

    def holds(self, folder: str, name: str) -> bool:
        """Tell whether a folder has such a name."""
        return os.path.lexists(self.path / folder / name)

    def retry(self, name: str) -> None:
        """
        Move a file from failed/ into new/ again.

        Raises:
            FileNotFoundError: there is none.
            FileExistsError: another of that name waits.
            OSError: the disk says no.
        """
        if self.holds(NEW, name):
            raise FileExistsError(name)
        (self.path / FAILED / name).rename(self.path / NEW / name)
        (self.path / FAILED / (name + REASON)).unlink(missing_ok=True)

    def discard(self, folder: str, name: str) -> bool:
        """
        Remove a file and the line that goes with it; tell whether there was one.

        Raises:
            OSError: the disk says no, or it is a folder with something in it.
        """
        path = self.path / folder / name
        try:
            if stat.S_ISDIR(path.lstat().st_mode):
                path.rmdir()
            else:
                path.unlink()
        except FileNotFoundError:
            return False
        (self.path / folder / (name + REASON)).unlink(missing_ok=True)
        return True

    def reason(self, folder: str, name: str) -> str:
        """Return the line that goes with a file; "" where there is none."""
        try:
            content = self.read(folder, name + REASON, REASON_CHARACTERS * 4)
        except (OSError, SpoolError):
            return ""
        return " ".join(content.decode(errors="replace").split())[:REASON_CHARACTERS]

    def submit(self, name: str, content: bytes) -> None:
        """
        Hand in a task: written whole in tmp/, then renamed into new/.

        Raises:
            OSError: the disk says no; nothing was handed in.
        """
        written = self.path / TMP / name
        replace_file(written, content)
        try:
            written.rename(self.path / NEW / name)
        except OSError:
            written.unlink(missing_ok=True)
            raise
        folder = os.open(self.path / NEW, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @staticmethod
    def _write_reason(path: Path, reason: str) -> None:
        # Without fsync: it is cheap, for there may be very many, and means nothing before its file has come.
        line = " ".join(reason.split())[:REASON_CHARACTERS]
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(f"{line}\n".encode(errors="replace"))
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def _free_name(self, folder: str, name: str) -> str:
        safe = name
        if not _NAME.fullmatch(name) or name.endswith(REASON):
            mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
            safe = f"{re.sub('[^A-Za-z0-9_]+', '_', name)[: NAME_CHARACTERS // 2]}-{mark}"
        while self.holds(folder, safe):
            safe = f"{safe[: NAME_CHARACTERS - 10]}~{secrets.token_hex(4)}"
        return safe


def user_number(user: str) -> int:
    """
    Return the number of a user, given by name or number.

    Raises:
        KeyError: this host has no such user.
    """
    return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid


def shown(name: str) -> str:
    """Return a name as a text: it may hold bytes that are none."""
    return os.fsencode(name).decode(errors="replace")


def new_name(now_ns: int | None = None) -> str:
    """Return a name that no other file has; later ones sort after earlier ones."""
    return f"{time.time_ns() if now_ns is None else now_ns:020d}.{secrets.token_hex(4)}.json"


def _refuse_kind(mode: int) -> None:
    kind = Found(0, "", 0, mode).kind
    if kind:
        raise SpoolError(f"is {kind}, no file; write a file")
