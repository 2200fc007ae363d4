"""
Addresses of users from a file: for sites whose accounts live in no database that this daemon reads.

One user a line, ``OPENID,ADDRESS`` (CSV); lines that begin with ``#`` are passed over. The file is read again when it
has changed, and refused where others can read it. Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from stat import S_IMODE
from typing import Final

from esgf_gossip.files import read_file
from esgf_gossip.sources.gauge import SourceError

# Half a million users.
FILE_BYTES: Final = 64 * 1024 * 1024
_OTHERS: Final = 0o007
_ADDRESS_CHARACTERS: Final = 254


class UserFile:
    """
    The file of users.

    Args:
        path: of the file.
        canonical: brings an OpenID into the form in which two of them are compared.
    """

    def __init__(self, path: Path, canonical: Callable[[str], str]) -> None:
        self._path: Final = path
        self._canonical: Final = canonical
        self._stamp: tuple[int, int, int] | None = None
        self._users: Mapping[str, str] = {}

    def address_of(self, openid: str) -> str | None:
        """
        Return the address of a user; None where the file does not name one. Blocks for as long as a disk does.

        Raises:
            SourceError: the file cannot be read, or others can read it.
        """
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                if S_IMODE(found.st_mode) & _OTHERS:
                    raise SourceError(
                        f"[tracking] users_file {self._path}: others can read it; chmod 640, or 600"
                    )
                self._users, self._stamp = self._read(), stamp
        except OSError as error:
            raise SourceError(
                f"[tracking] users_file {self._path}: {error.strerror}; correct node.toml"
            ) from None
        return self._users.get(self._canonical(openid))

    def _read(self) -> Mapping[str, str]:
        content = read_file(self._path, FILE_BYTES + 1)
        if len(content) > FILE_BYTES:
            raise SourceError(f"[tracking] users_file {self._path}: larger than {FILE_BYTES} bytes")
        lines = content.decode("utf-8", "replace").splitlines()
        users: dict[str, str] = {}
        for number, row in enumerate(csv.reader(line for line in lines if not line.startswith("#")), 1):
            if not row:
                continue
            if len(row) != 2 or "@" not in row[1] or len(row[1]) > _ADDRESS_CHARACTERS:
                # Not the line itself: it may hold an address.
                raise SourceError(
                    f"[tracking] users_file {self._path}: user {number} is not OPENID,ADDRESS; correct it"
                )
            users[self._canonical(row[0].strip())] = row[1].strip()
        return users
