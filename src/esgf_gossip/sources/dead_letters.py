"""
A file that says what could not be taken, and why: where it is to be found, never what stood in it.

Bounded: at its size it becomes FILE.1, and the one before that goes. One writer.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FILE_BYTES: Final = 4 * 1024 * 1024


class DeadLetters:
    """
    The file.

    Args:
        path: of it; made with the first line, for its owner alone.
        most_bytes: of it; twice that is kept.
    """

    def __init__(self, path: Path, most_bytes: int = FILE_BYTES) -> None:
        self.path: Final = path
        self._most_bytes: Final = most_bytes

    def add(self, letter: Mapping[str, Any]) -> None:
        """
        Append one line of JSON.

        Raises:
            OSError: the disk says no.
        """
        line = json.dumps(letter).encode() + b"\n"
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size + len(line) > self._most_bytes:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self.path, flags, 0o600), "ab") as file:
            file.write(line)
