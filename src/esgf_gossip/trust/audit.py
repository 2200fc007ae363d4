"""
The audit log of a trust administration: JSON lines, each carrying the hash of the one before.

Appending, reading, checking. What is worth a line is the callers' affair; keys
and passphrases never are. Source: docs/trust.md.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from esgf_gossip.trust.errors import TrustError

FILE_NAME: Final = "log.jsonl"
FIRST: Final = "0" * 64


class AuditLog:
    """One log file; the caller holds the lock of the administration."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def append(self, now_ms: int, action: str, details: Mapping[str, Any]) -> None:
        """
        Append one line, on disk before anything it speaks of is handed out.

        Raises:
            TrustError: E-LOG: the log was changed, nothing was written; E-FILE.
        """
        lines = self._lines()
        record = {
            "number": len(lines) + 1,
            "at": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds"),
            "who": _user(),
            "action": action,
            **details,
            "previous": hashlib.sha256(lines[-1]).hexdigest() if lines else FIRST,
        }
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            with self.path.open("ab") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TrustError("E-FILE", f"{self.path} cannot be written: {error.strerror}") from None

    def records(self) -> list[dict[str, Any]]:
        """
        Return all lines, oldest first.

        Raises:
            TrustError: E-LOG: a line is damaged; E-FILE.
        """
        return [self._record(number, line) for number, line in enumerate(self._lines(), 1)]

    def verify(self) -> tuple[int, str]:
        """
        Check the chain of hashes, and return the number of lines and the hash of the last.

        Raises:
            TrustError: E-LOG with the first line that does not follow from the one before.
        """
        lines = self._lines()
        previous = FIRST
        for number, line in enumerate(lines, 1):
            record = self._record(number, line)
            if record.get("previous") != previous or record.get("number") != number:
                raise TrustError(
                    "E-LOG",
                    f"{self.path} line {number} does not follow from the line before",
                    remedy="the log was changed: compare it with a copy",
                )
            previous = hashlib.sha256(line).hexdigest()
        return len(lines), previous

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TrustError("E-FILE", f"{self.path} cannot be read: {error.strerror}") from None
        if content and not content.endswith(b"\n"):
            raise TrustError(
                "E-LOG", f"{self.path} ends in the middle of a line", remedy="remove the incomplete line"
            )
        return content.splitlines()

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise TrustError("E-LOG", f"{self.path} line {number} is no JSON object")
        return record


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.geteuid()}"
