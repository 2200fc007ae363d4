"""
Addresses of users from a file: for sites whose accounts live in no database that this daemon reads.

One user a line, ``OPENID,ADDRESS`` (CSV); lines that begin with ``#`` are passed over. The file is read again when it
has changed, and refused where others can read it. Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_IMODE
from typing import Any, Final

from twisted.internet.defer import Deferred

from esgf_gossip.esgf.openids import canonical_openid, is_mail_address
from esgf_gossip.files import read_file
from esgf_gossip.sources.gauge import SourceError, in_thread
from esgf_gossip.sources.user_addresses import Account

# Half a million users.
FILE_BYTES: Final = 64 * 1024 * 1024
_OTHERS: Final = 0o007


class UserFile:
    """
    The file of users, as one of the places where accounts are asked for.

    Args:
        path: of the file.
        reactor: hears the answers.
    """

    def __init__(self, path: Path, reactor: Any) -> None:
        self._path: Final = path
        self._reactor: Final = reactor
        self._stamp: tuple[int, int, int] | None = None
        self._users: Mapping[str, str] = {}

    def ask(self, openids: Sequence[str]) -> Deferred[Mapping[str, Account]]:
        """Fire with the accounts found; fails with a SourceError."""
        return in_thread(lambda: self.accounts(openids), self._reactor)

    def accounts(self, openids: Sequence[str]) -> Mapping[str, Account]:
        """
        Return the accounts that the file names, by OpenID as asked for. Blocks for as long as a disk does.

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
        found = {openid: self._users.get(canonical_openid(openid)) for openid in openids}
        return {
            openid: Account(address, is_mail_address(address))
            for openid, address in found.items()
            if address is not None
        }

    def _read(self) -> Mapping[str, str]:
        content = read_file(self._path, FILE_BYTES + 1)
        if len(content) > FILE_BYTES:
            raise SourceError(f"[tracking] users_file {self._path}: larger than {FILE_BYTES} bytes")
        lines = content.decode("utf-8", "replace").splitlines()
        users: dict[str, str] = {}
        for number, row in enumerate(csv.reader(line for line in lines if not line.startswith("#")), 1):
            if not row:
                continue
            if len(row) != 2 or not is_mail_address(row[1].strip()) or not canonical_openid(row[0]):
                # Not the line itself: it may hold an address.
                raise SourceError(
                    f"[tracking] users_file {self._path}: user {number} is not OPENID,ADDRESS; correct it"
                )
            users[canonical_openid(row[0])] = row[1].strip()
        return users
