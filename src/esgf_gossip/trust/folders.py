"""
The folders of an administration: their names, modes, the lock, safe writing.

No certificates here, only places. Source: docs/trust.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from esgf_gossip.files import replace_file
from esgf_gossip.trust.errors import TrustError

ISSUERS_FOLDER: Final = "issuers"
ISSUED_FOLDER: Final = "issued"
PENDING_FOLDER: Final = "pending"
DENIED_FOLDER: Final = "denied"
POLICY_FILE: Final = "policy.toml"
LOCK_FILE: Final = ".lock"


def public_folder(folder: Path) -> None:
    """Make a folder of public files: 0755 whatever the umask; an existing one keeps its mode."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """
    Hold the lock of a folder's index: one writer at a time, others wait.

    Raises:
        TrustError: E-FILE.
    """
    try:
        descriptor = os.open(
            directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
        )
    except OSError as error:
        raise TrustError("E-FILE", f"{directory / LOCK_FILE} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_public(path: Path, content: bytes) -> None:
    """
    Replace a public file in one step.

    Raises:
        TrustError: E-FILE; the old file is intact.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be written: {error.strerror}") from None
