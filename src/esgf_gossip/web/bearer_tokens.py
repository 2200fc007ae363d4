"""
The file of tokens: who may hand in events by HTTP.

One token a line; blank lines and lines that begin with # say nothing. Read anew when it changes, so a token is taken
back by taking out its line. What stands in it is kept as hashes alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

FILE_BYTES: Final = 64 * 1024
# Shorter ones can be guessed.
TOKEN_CHARACTERS: Final = (16, 512)
# A file that changed that shortly before it was read may change again under the same stamp.
RACY_NS: Final = 2 * 10**9

_TOKEN: Final = re.compile(rf"[!-~]{{{TOKEN_CHARACTERS[0]},{TOKEN_CHARACTERS[1]}}}")


class TokensError(Exception):
    """Report why nobody's token is accepted: which file, what is wrong, what to do, in one line without a token."""


class BearerTokens:
    """
    The tokens of a file.

    Args:
        path: of it; its owner alone may read it, and that is the daemon's user or root.
        now_ns: Unix nanoseconds.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._path: Final = path
        self._now_ns: Final = now_ns
        self._stamp: tuple[int, ...] | None = None
        self._hashes: tuple[bytes, ...] = ()

    def accepts(self, token: str) -> bool:
        """
        Tell whether the token stands in the file, in a time that does not depend on which one it is like.

        Raises:
            TokensError: the file cannot be used; whatever stood in it before counts no more.
        """
        given = _hashed(token)
        is_known = False
        for known in self._known():
            is_known |= hmac.compare_digest(given, known)
        return is_known

    def check(self) -> int:
        """
        Return how many tokens there are.

        Raises:
            TokensError: the file cannot be used.
        """
        return len(self._known())

    def _known(self) -> tuple[bytes, ...]:
        try:
            found = self._path.stat()
            if self._stamp is None or _stamp(found) != self._stamp:
                self._stamp, self._hashes = None, ()
                found, content = self._read()
                self._hashes = self._parsed(content)
                if self._now_ns() - found.st_ctime_ns > RACY_NS:
                    self._stamp = _stamp(found)
        except OSError as error:
            raise self._wrong(f"{error.strerror}; correct tokens_file in node.toml") from None
        return self._hashes

    def _read(self) -> tuple[os.stat_result, bytes]:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise self._wrong("no file; name one")
            if found.st_uid not in (0, os.geteuid()):
                raise self._wrong("belongs to another user; chown it to the daemon's")
            if found.st_mode & 0o077:
                raise self._wrong("others may read or write it; chmod 600")
            return found, file.read(FILE_BYTES + 1)

    def _parsed(self, content: bytes) -> tuple[bytes, ...]:
        if len(content) > FILE_BYTES:
            raise self._wrong(f"longer than {FILE_BYTES} bytes; take tokens out")
        hashes = []
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            word = line.strip()
            if not word or word.startswith("#"):
                continue
            if not _TOKEN.fullmatch(word):
                raise self._wrong(
                    f"line {number} is no token; write one word of {TOKEN_CHARACTERS[0]} to {TOKEN_CHARACTERS[1]} "
                    "printable characters, such as openssl rand -hex 32 makes"
                )
            hashes.append(_hashed(word))
        return tuple(hashes)

    def _wrong(self, reason: str) -> TokensError:
        return TokensError(f"[tracking] tokens_file {self._path}: {reason}")


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_mode,
        found.st_uid,
    )
