"""
Which mails a mail server took, by its log: lines as Postfix and Exim write them.

Postfix names the Message-ID while the content still comes in; taken is a mail only when its queue id went into the
queue. Exim writes one line for each mail it took. Reading is bounded, from the end. Source: docs/tracking.md, "The mail".
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

# Two million lines; what was being sent when the daemon ended is among the last.
LOG_BYTES: Final = 256 * 1024 * 1024
_BLOCK_BYTES: Final = 1024 * 1024
_LINE_BYTES: Final = 8192

_POSTFIX_ID: Final = re.compile(rb"postfix[^ ]*/cleanup\[\d+\]: (\w+): message-id=(<[^>\s]+>)")
_POSTFIX_QUEUED: Final = re.compile(rb"postfix[^ ]*/qmgr\[\d+\]: (\w+): from=<")
_EXIM: Final = re.compile(rb" <= .*? id=([^\s<>]+@[^\s<>]+)")


def accepted(path: Path, wanted: Collection[str], most_bytes: int = LOG_BYTES) -> frozenset[str]:
    """
    Return which of these Message-IDs (``<...>``) the mail server took.

    The log before the last rotation (``.1``) is read first where there is one.

    Raises:
        OSError: the log cannot be read.
    """
    asked = {one.encode() for one in wanted}
    taken: set[bytes] = set()
    by_queue_id: dict[bytes, bytes] = {}
    for line in _both(path, most_bytes):
        if found := _POSTFIX_ID.search(line):
            # A queue id is used again by a later mail; what it meant before no longer counts.
            by_queue_id.pop(found[1], None)
            if found[2] in asked:
                by_queue_id[found[1]] = found[2]
        elif (found := _POSTFIX_QUEUED.search(line)) and found[1] in by_queue_id:
            taken.add(by_queue_id.pop(found[1]))
        elif (found := _EXIM.search(line)) and b"<%s>" % found[1] in asked:
            taken.add(b"<%s>" % found[1])
    return frozenset(one.decode() for one in taken)


def _both(path: Path, most_bytes: int) -> Iterator[bytes]:
    earlier = path.with_name(f"{path.name}.1")
    if earlier.is_file():
        yield from _tail(earlier, most_bytes)
    yield from _tail(path, most_bytes)


def _tail(path: Path, most_bytes: int) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=_BLOCK_BYTES) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most_bytes))
        left = most_bytes
        while left > 0 and (line := file.readline(_LINE_BYTES)):
            left -= len(line)
            yield line
