"""
What the administration has sealed, to whom and when: never what.

So the next version is known, and what a robbed node could open. One JSON line each. Source: docs/trust.md, "Secrets".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked

REGISTER_FILE: Final = "sealed.jsonl"


@attrs.frozen
class SealedEntry:
    """One envelope that was made."""

    node: str
    name: str
    version: int
    sealed_at_s: int
    expires_at_s: int = 0


def sealed(directory: Path) -> list[SealedEntry]:
    """
    Return everything that was sealed, oldest first.

    Raises:
        TrustError: E-FILE: unreadable, or a line that was never written.
    """
    path = directory / REGISTER_FILE
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        return [SealedEntry(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise TrustError("E-FILE", f"{path} cannot be read: {type(error).__name__}") from None


def sealed_for(directory: Path, host: str) -> list[SealedEntry]:
    """Return the newest of each name that was sealed to a node, by name; raises TrustError."""
    newest = {one.name: one for one in sealed(directory) if one.node == host}
    return [newest[name] for name in sorted(newest)]


def next_version(directory: Path, host: str, name: str) -> int:
    """Return the version that the next secret of this name and receiver has; raises TrustError."""
    return 1 + max(
        (one.version for one in sealed(directory) if (one.node, one.name) == (host, name)), default=0
    )


def note(directory: Path, entry: SealedEntry) -> None:
    """
    Add a line; on the disk when this returns.

    Raises:
        TrustError: E-SEAL-OLD: that version has been given, to somebody who sealed at the same time; E-FILE.
    """
    path = directory / REGISTER_FILE
    try:
        with locked(directory), path.open("a") as file:
            following = next_version(directory, entry.node, entry.name)
            if entry.version < following:
                raise TrustError(
                    "E-SEAL-OLD",
                    f"version {entry.version} of {entry.name} was sealed meanwhile",
                    remedy="seal again",
                )
            file.write(json.dumps(attrs.asdict(entry), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be written: {error.strerror}") from None
