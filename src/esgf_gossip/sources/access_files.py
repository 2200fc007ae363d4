"""
Downloads from the access logs of a web server: nginx's combined form, as modern data nodes write it.

The user's OpenID stands where the server writes the remote user. A log is followed over its rotation: the place in
it names the file by its inode, so what was written between two looks into a file renamed since is read there.
Source: docs/tracking.md, "Who downloaded what".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from esgf_gossip.files import read_file, replace_file
from esgf_gossip.sources.access_log import LogReading, LogRow, PublishedFiles
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.log_position import LogPosition

# A line beyond is passed over; nginx itself refuses requests of more than 8 KiB by default.
LINE_BYTES: Final = 32 * 1024
CHUNK_BYTES: Final = 4 * 1024 * 1024
PLACES_BYTES: Final = 1024 * 1024
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


class AccessFiles:
    """
    The logs of a site as one source of downloads. Blocks: not for the reactor's thread.

    How far each log is read is kept in a file of its own, after the store has what was read: after a crash some lines
    come twice, which changes nothing there.

    Args:
        paths: of the logs.
        host: the data node whose logs they are.
        places: the file.
    """

    def __init__(self, paths: Sequence[Path], host: str, places: Path) -> None:
        self._paths: Final = paths
        self._host: Final = host
        self._file: Final = places
        self._places: dict[str, LogPlace] | None = None
        # The number of the last line that the store had when the places were kept.
        self._kept = 0
        # What was read up to this number is not known to be in the store yet.
        self._pending: tuple[int, dict[str, LogPlace]] | None = None

    def read(self, position: LogPosition, now_ms: int, *, is_rechecking: bool) -> LogReading:
        """
        Read on: some lines of each log.

        Raises:
            SourceError: one of them, or the file of places, cannot be read.
        """
        del now_ms, is_rechecking  # a line is written when the transfer has ended
        places = self._known(position)
        rows: list[LogRow] = []
        moved = dict(places)
        has_more = False
        for path in self._paths:
            read = read_access_log(path, places.get(str(path), LogPlace()), self._host)
            moved[str(path)] = read.place
            has_more = has_more or read.is_more
            rows += [
                LogRow(
                    position.highest + len(rows) + number, one.openid, one.url, one.fetched_ms, one.is_whole
                )
                for number, one in enumerate(read.downloads, 1)
            ]
        after = attrs.evolve(position, highest=position.highest + len(rows))
        self._pending = (after.highest, moved)
        return LogReading(tuple(rows), after, has_more)

    def published(self, after: int) -> PublishedFiles:
        """Return nothing: no tables of a publisher belong to a log."""
        return PublishedFiles((), after, has_more=False)

    def _known(self, position: LogPosition) -> Mapping[str, LogPlace]:
        if self._places is None:
            self._places = self._load()
        if self._pending is not None:
            number, places = self._pending
            if position.highest >= number and places != self._places:
                self._save(places, position.highest)
            self._pending = None
        # A store that has less than it had was made anew: it gets everything that is still there.
        return self._places if position.highest >= self._kept else {}

    def _load(self) -> dict[str, LogPlace]:
        try:
            body: dict[str, Any] = json.loads(read_file(self._file, PLACES_BYTES))
            self._kept = int(body["lines"])
            return {path: LogPlace(*map(int, place)) for path, place in body["places"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise SourceError(
                f"{self._file}: {error}; remove it, and the logs are read from their beginning"
            ) from None

    def _save(self, places: dict[str, LogPlace], lines: int) -> None:
        body = {
            "lines": lines,
            "places": {path: attrs.astuple(place) for path, place in places.items()},
        }
        try:
            replace_file(self._file, json.dumps(body).encode(), 0o600)
        except OSError as error:
            raise SourceError(f"{self._file}: {error.strerror}; make room, or mend the disk") from None
        self._places, self._kept = places, lines


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
