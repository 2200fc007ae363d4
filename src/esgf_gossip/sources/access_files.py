"""
Downloads from the access logs of a web server: nginx's combined form, as modern data nodes write it.

The user's OpenID stands where the server writes the remote user. A log is followed over its rotation: the place in
it names the file by its inode, so what was written between two looks into a file renamed since is read there.
Source: docs/tracking.md, "Who downloaded what".
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.sources.gauge import SourceError

# A line beyond is passed over; nginx itself refuses requests of more than 8 KiB by default.
LINE_BYTES: Final = 32 * 1024
CHUNK_BYTES: Final = 4 * 1024 * 1024
# Where a rotated file may lie: logrotate adds one of these to the name.
ROTATED: Final = (".1", ".0", "-1")

_LINE: Final = re.compile(
    r'\S+ \S+ (?P<user>.{1,2048}?) \[(?P<time>[^\]]{20,40})\] "GET (?P<target>\S+) HTTP/[0-9.]+" (?P<status>[0-9]{3}) '
)
# nginx writes what could break a line as \xHH.
_ESCAPE: Final = re.compile(r"\\x([0-9A-Fa-f]{2})")
_WHOLE: Final = 200
_PART: Final = 206


@attrs.frozen
class LoggedDownload:
    """One request for a file, by somebody who is named: who, which URL, when (Unix milliseconds), whole or in part."""

    openid: str = attrs.field(repr=False)
    url: str
    fetched_ms: int
    is_whole: bool


@attrs.frozen
class LogPlace:
    """How far a log was read: which file (device and inode), how many bytes of it."""

    device: int = 0
    inode: int = 0
    offset_bytes: int = 0


@attrs.frozen
class LogRead:
    """What was read: downloads, the place after them, lines passed over because nobody is named or they say nothing."""

    downloads: Sequence[LoggedDownload]
    place: LogPlace
    passed_over: int
    is_more: bool


def read_access_log(path: Path, place: LogPlace, host: str) -> LogRead:
    """
    Read the next lines of a log, some megabytes at most; a last line that is not finished yet is left for later.

    Args:
        path: of the log as the server names it.
        place: where the last look ended; the default: the beginning.
        host: the data node whose log it is, for the URLs.

    Raises:
        SourceError: the log cannot be read.
    """
    try:
        current = path.stat()
        if place.inode and (place.device, place.inode) != (current.st_dev, current.st_ino):
            before = _rotated(path, place)
            if before is not None:
                read = _read(before, place, host)
                if read.is_more or read.downloads or read.place != place:
                    return attrs.evolve(read, is_more=True)
            place = LogPlace()
        elif place.offset_bytes > current.st_size:
            # Emptied in its place (copytruncate).
            place = LogPlace()
        return _read(path, attrs.evolve(place, device=current.st_dev, inode=current.st_ino), host)
    except OSError as error:
        raise SourceError(
            f"[tracking] access_logs {path}: {error.strerror}; correct node.toml, or let the daemon's user read it"
        ) from None


def _rotated(path: Path, place: LogPlace) -> Path | None:
    """Find the file that the log was before it was rotated; a compressed one is lost."""
    candidates = [path.with_name(path.name + suffix) for suffix in ROTATED]
    candidates += sorted(path.parent.glob(f"{path.name}-[0-9]*"), reverse=True)[:3]
    for candidate in candidates:
        try:
            found = candidate.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (place.device, place.inode):
            return candidate
    return None


def _read(path: Path, place: LogPlace, host: str) -> LogRead:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as log:  # noqa: PTH123 - a descriptor
        found = os.fstat(descriptor)
        log.seek(place.offset_bytes)
        chunk = log.read(CHUNK_BYTES)
        is_more = len(chunk) == CHUNK_BYTES
    end = chunk.rfind(b"\n") + 1
    if not end and is_more:
        end = len(chunk)  # a line without an end: it is passed over piece by piece
    lines = chunk[:end].splitlines()
    downloads = [one for line in lines if (one := parse_line(line, host)) is not None]
    after = LogPlace(found.st_dev, found.st_ino, place.offset_bytes + end)
    return LogRead(downloads, after, len(lines) - len(downloads), is_more)


def parse_line(line: bytes, host: str) -> LoggedDownload | None:
    """Read one line; None where nobody is named, or it is no download of a file."""
    if len(line) > LINE_BYTES:
        return None
    found = _LINE.match(line.decode("utf-8", "replace"))
    if found is None or found["user"] == "-" or int(found["status"]) not in (_WHOLE, _PART):
        return None
    openid = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), found["user"])
    try:
        fetched_ms = int(datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z").timestamp() * 1000)
    except ValueError:
        return None
    path = found["target"].partition("?")[0]
    if not path.startswith("/") or not openid.isprintable() or fetched_ms < 0:
        return None
    return LoggedDownload(openid, f"https://{host}{path}", fetched_ms, int(found["status"]) == _WHOLE)
