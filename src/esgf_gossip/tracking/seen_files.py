"""
The files of dataset versions as sources named them: URLs, checksums, sizes.

Kept for ever: on a retraction an index forgets which URL belonged to which dataset, and then this is where it is
known. A file has a number that rises with every change of it, so that whoever resolves URLs reads on from where it was.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

import attrs

from esgf_gossip.core.packing import free_text
from esgf_gossip.tracking.copies import Copy
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.sightings import SeenFile

SCRIPT: Final = """
CREATE TABLE seen_file (
    number INTEGER PRIMARY KEY AUTOINCREMENT, copy INTEGER NOT NULL, name TEXT NOT NULL,
    urls TEXT NOT NULL, checksum TEXT NOT NULL, size_bytes INTEGER, tracking_id TEXT NOT NULL,
    UNIQUE (copy, name)
) STRICT
"""

# Of one copy; the largest real datasets have some thousands.
FILES_MOST: Final = 20_000
URLS_MOST: Final = 8
URL_CHARACTERS: Final = 1000
NAME_CHARACTERS: Final = 255
CHECKSUM_CHARACTERS: Final = 140


def add_files(connection: sqlite3.Connection, copy: Copy, files: Iterable[SeenFile]) -> None:
    """Note the files of a copy; what a later sighting does not name of a file stays as it was."""
    room = FILES_MOST - count_files(connection, copy)
    for file in files:
        found = _bounded(file)
        if found is None:
            continue
        row = connection.execute(
            "SELECT name, urls, checksum, size_bytes, tracking_id FROM seen_file WHERE copy = ? AND name = ?",
            (copy.number, found.name),
        ).fetchone()
        if row is not None:
            known = _file(row)
            united = _united(known, found)
            if united == known:
                continue
            connection.execute("DELETE FROM seen_file WHERE copy = ? AND name = ?", (copy.number, found.name))
            found = united
        elif room <= 0:
            continue
        else:
            room -= 1
        connection.execute(
            "INSERT INTO seen_file (copy, name, urls, checksum, size_bytes, tracking_id) VALUES (?, ?, ?, ?, ?, ?)",
            (
                copy.number,
                found.name,
                json.dumps(found.urls),
                found.checksum,
                found.size_bytes,
                found.tracking_id,
            ),
        )


def count_files(connection: sqlite3.Connection, copy: Copy) -> int:
    """Count the known files of a copy."""
    return int(
        connection.execute("SELECT count(*) FROM seen_file WHERE copy = ?", (copy.number,)).fetchone()[0]
    )


def files_of(connection: sqlite3.Connection, dataset: DatasetId) -> list[SeenFile]:
    """Return the known files of a version, with their URLs at all data nodes, by name."""
    rows = connection.execute(
        "SELECT name, urls, checksum, seen_file.size_bytes, tracking_id FROM seen_file JOIN copy ON copy.number = copy"
        " WHERE master_id = ? AND version = ? ORDER BY copy.is_replica, name",
        (dataset.master_id, dataset.version),
    )
    found: dict[str, SeenFile] = {}
    for file in map(_file, rows):
        known = found.get(file.name)
        # The original comes first: where a replica's record contradicts it, the original is right.
        found[file.name] = file if known is None else _united(file, known)
    return [found[name] for name in sorted(found)]


def new_files_after(
    connection: sqlite3.Connection, number: int, most: int
) -> list[tuple[int, DatasetId, SeenFile]]:
    """Return the next files after a number, with theirs, at most so many; one that changed has got a new number."""
    rows = connection.execute(
        "SELECT seen_file.number, master_id, version, name, urls, checksum, size_bytes, tracking_id"
        " FROM seen_file JOIN copy ON copy.number = copy WHERE seen_file.number > ? ORDER BY seen_file.number LIMIT ?",
        (number, most),
    )
    return [(int(row[0]), DatasetId(row[1], row[2]), _file(row[3:])) for row in rows]


def _file(row: tuple[str, str, str, int | None, str]) -> SeenFile:
    name, urls, checksum, size_bytes, tracking_id = row
    return SeenFile(name, tuple(json.loads(urls)), checksum, size_bytes, tracking_id)


def _united(known: SeenFile, found: SeenFile) -> SeenFile:
    return SeenFile(
        known.name,
        tuple(dict.fromkeys((*found.urls, *known.urls)))[:URLS_MOST],
        found.checksum or known.checksum,
        known.size_bytes if found.size_bytes is None else found.size_bytes,
        found.tracking_id or known.tracking_id,
    )


def _bounded(file: SeenFile) -> SeenFile | None:
    """Return the file within bounds; None: it has no usable name."""
    if not file.name or len(file.name) > NAME_CHARACTERS or "/" in file.name or not file.name.isprintable():
        return None
    urls = [url for url in file.urls if 0 < len(url) <= URL_CHARACTERS and url.isprintable()]
    size = file.size_bytes
    return attrs.evolve(
        file,
        urls=tuple(dict.fromkeys(urls))[:URLS_MOST],
        checksum=free_text(file.checksum[:CHECKSUM_CHARACTERS]).lower(),
        size_bytes=size if size is not None and 0 <= size < 2**63 else None,
        tracking_id=free_text(file.tracking_id[:NAME_CHARACTERS]),
    )
