"""
One file for other programs: replaced in one step, only when it says something new or is not as it was left.

What stands in it is the callers'. A look at the disk is one ``stat`` while nobody touched the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.logger import Logger

from esgf_gossip.files import read_file, replace_file

# Inode, size and time of the last write: another program that writes the file leaves others.
_Mark = tuple[int, int, int] | None


class OutputFile:
    """
    A file and what it should hold.

    ``write_error`` is one line while the disk refuses it, else empty; the file before stays whole then.

    Args:
        path: where; None: nothing is written, the content is only served.
        most_bytes: what is longer is not ours.
    """

    log = Logger()

    def __init__(self, path: Path | None, most_bytes: int) -> None:
        self.write_error = ""
        self._path: Final = path
        self._most_bytes: Final = most_bytes
        self._content = b""
        self._mark: _Mark = None
        self._must_write = False

    def read(self) -> bytes:
        """Return what is there; empty where there is nothing that can be read."""
        if self._path is None:
            return b""
        mark = _mark(self._path)
        try:
            content = read_file(self._path, self._most_bytes)
        except OSError:
            return b""
        self._content, self._mark = content, mark
        return content

    def is_behind(self, content: bytes) -> bool:
        """Tell whether the file is not that: it is older, has gone, or somebody else wrote it."""
        if self._path is None:
            return content != self._content
        if self._must_write:
            return True
        if content == self._content and self._mark is not None and self._mark == _mark(self._path):
            return False
        return self.read() != content

    def write_anew(self) -> None:
        """Take the file for older than it is, whatever stands in it."""
        self._must_write = self._path is not None

    def write(self, content: bytes) -> None:
        """Replace the file; where the disk refuses, say so once."""
        try:
            if self._path is not None:
                replace_file(self._path, content)
        except OSError as error:
            self.fail(f"{self._path}: {error.strerror or type(error).__name__}")
            return
        self._must_write = False
        self._content = content
        self._mark = None if self._path is None else _mark(self._path)
        if self.write_error:
            self.log.info("{path} can be written again", path=str(self._path))
        self.write_error = ""

    def fail(self, reason: str) -> None:
        """Note that it cannot be written now."""
        if not self.write_error:
            self.log.critical("cannot write {reason}; the file before stays", reason=reason)
        self.write_error = reason


def _mark(path: Path) -> _Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
