"""
Who downloaded what: what both stores of it have in common.

A row of the log becomes one download: of a user, of a file, of a dataset version. Which version that is is decided
when the row is read, long before anything changes: when a dataset is retracted the index forgets its URLs.
First what publishers said of the URL, then the publisher's tables, then the folders of its path; what none of them
knows is kept and asked again when more is known. Source: docs/tracking.md, "Who downloaded what".
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from esgf_gossip.esgf.openids import OPENID_CHARACTERS
from esgf_gossip.sources.access_log import LogReading, LogRow, PublishedFiles
from esgf_gossip.sources.log_position import LogPosition
from esgf_gossip.storage.state_files import DOWNLOADS
from esgf_gossip.tracking.identity import DatasetId, IdentityError, parse_dataset
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.openids import NOBODY, fold_openid
from esgf_gossip.tracking.sightings import SeenFile
from esgf_gossip.tracking.urls import Place, could_be, dataset_of, read_url

# Rows that one step of forgetting takes away.
FORGET_ROWS: Final = 5_000
# Users without a download are looked for by reading all downloads.
SWEEP_EVERY_MS: Final = 24 * 60 * 60 * 1000
FILE_NAME: Final = DOWNLOADS

# Under these names the stores keep how far they have read, and up to when users were swept.
POSITION: Final = "position"
PUBLISHED: Final = "published"
SWEPT: Final = "swept"


class DownloadsError(Exception):
    """Report what is wrong with the store, where, and what to do, in one line. Nothing was half-written."""


@attrs.frozen
class DownloadCounts:
    """
    What a store holds, and what it has read since it was made.

    Args:
        downloads: one for each user and file of a dataset version.
        users: who have one.
        datasets: versions that were downloaded or whose files are known.
        places: URLs whose dataset is known.
        unresolved: downloads of which no dataset is known.
        rows: of the log that were read.
        nobody: of them those without a user.
        unreadable: of them those without a URL, a time or a name that can be kept.
    """

    downloads: int = 0
    users: int = 0
    datasets: int = 0
    places: int = 0
    unresolved: int = 0
    rows: int = 0
    nobody: int = 0
    unreadable: int = 0


class Downloads(Protocol):
    """
    A store. Its methods block; one thread at a time calls them. All raise DownloadsError.

    Whatever is interrupted in the midst leaves nothing; whatever comes twice changes nothing.
    """

    def position(self) -> LogPosition:
        """Tell how far the log is read."""
        ...

    def advance(self, reading: LogReading) -> None:
        """Take in what was read of the log, and how far that is."""
        ...

    def published_to(self) -> int:
        """Tell up to which dataset the publisher's tables are read."""
        ...

    def take_published(self, published: PublishedFiles) -> None:
        """Take in what was read of the publisher's tables, and how far that is."""
        ...

    def learn(self, files: Iterable[tuple[DatasetId, SeenFile]]) -> int:
        """Remember whose files are where; return how many downloads this resolved."""
        ...

    def match(self, changes: Sequence[Change], known_ms: int = 0) -> Generator[list[Match], None, None]:
        """
        Find who holds what changed, in batches, change by change; close it where it is left early.

        Downloads count that came before the change, or before ``known_ms``: when this node knew of it.
        """
        ...

    def export(self, openid: str) -> dict[str, Any]:
        """Return all that is kept of a user, as JSON values."""
        ...

    def erase(self, openid: str, now_ms: int) -> dict[str, int]:
        """Forget a user, and what was downloaded until now for ever; return how many downloads that were."""
        ...

    def forget(self, before_ms: int) -> bool:
        """Forget some downloads that are older, and once a day users who have none; tell whether there are more."""
        ...

    def counts(self) -> DownloadCounts:
        """Count; looks at every row."""
        ...

    def close(self) -> None:
        """Leave it; twice does no harm."""
        ...


@attrs.frozen
class Fetch:
    """One row of the log that can be kept."""

    folded: str = attrs.field(repr=False)
    openid: str = attrs.field(repr=False)
    place: Place = attrs.field(repr=False)
    at_ms: int
    is_whole: bool


@attrs.define
class Span:
    """When a file was fetched: first, last and last whole (None: never), and the host of the last."""

    first_ms: int
    last_ms: int
    whole_ms: int | None
    host: str

    def add(self, other: Span) -> None:
        """Take one more in; in any order the result is the same."""
        self.first_ms = min(self.first_ms, other.first_ms)
        self.last_ms, self.host = max((self.last_ms, self.host), (other.last_ms, other.host))
        if other.whole_ms is not None:
            self.whole_ms = max(self.whole_ms or 0, other.whole_ms)


@attrs.frozen
class Sorted:
    """Rows of the log by what is known of them; each key stands once."""

    people: dict[str, str] = attrs.field(repr=False)
    downloads: dict[tuple[DatasetId, str, str], Span] = attrs.field(repr=False)
    unresolved: dict[tuple[Place, str], Span] = attrs.field(repr=False)

    def add(self, dataset: DatasetId | None, place: Place, folded: str, span: Span) -> None:
        """Add a download; of no dataset: one that is unresolved."""
        known = (
            self.unresolved.setdefault((place, folded), span)
            if dataset is None
            else self.downloads.setdefault((dataset, folded, place.name), span)
        )
        if known is not span:
            known.add(span)


@attrs.frozen
class Tally:
    """How many rows were read, and how many of them are not kept."""

    rows: int
    nobody: int
    unreadable: int


# Of one path: under each host the dataset, None where more than one claims the URL. "" stands for the publisher's
# tables, which are of this site and name no host.
Claims = Mapping[str, DatasetId | None]


def readable(reading: LogReading) -> tuple[list[Fetch], Tally]:
    """Return the rows that can be kept, and the count of all that were not read before."""
    fetches: list[Fetch] = []
    nobody = unreadable = 0
    for row in reading.rows:
        is_new = row.id not in reading.reread
        if row.user is None or row.user.strip() in NOBODY:
            nobody += is_new
        elif (fetch := _fetch(row)) is None:
            unreadable += is_new
        else:
            fetches.append(fetch)
    return fetches, Tally(len(reading.rows) - len(reading.reread), nobody, unreadable)


def _fetch(row: LogRow) -> Fetch | None:
    if row.user is None or row.url is None or row.fetched_ms is None or len(row.user) > OPENID_CHARACTERS:
        return None
    place, openid = read_url(row.url), row.user.strip()
    if place is None or not openid.isprintable():
        return None
    return Fetch(fold_openid(openid), openid, place, row.fetched_ms, row.is_whole)


def sort_out(fetches: Iterable[Fetch], claims: Mapping[bytes, Claims], erased: Mapping[bytes, int]) -> Sorted:
    """
    Decide for each row what was downloaded.

    Args:
        fetches: the rows.
        claims: what is known of their paths, by key.
        erased: users who were erased, by ``user_hash``, and when (Unix milliseconds).
    """
    found = Sorted({}, {}, {})
    for fetch in fetches:
        if erased and fetch.at_ms <= erased.get(user_hash(fetch.folded), -1):
            continue
        found.people.setdefault(fetch.folded, fetch.openid)
        place = fetch.place
        dataset = decide(place, claims.get(place.key, {}), fetch.at_ms) or dataset_of(place)
        whole_ms = fetch.at_ms if fetch.is_whole else None
        found.add(dataset, place, fetch.folded, Span(fetch.at_ms, fetch.at_ms, whole_ms, place.host))
    return found


def resolve(found: Sorted, place: Place, claims: Claims, folded: str, span: Span) -> bool:
    """Put a download that was unresolved where it belongs now; return False where it stays so."""
    dataset = decide(place, claims, span.last_ms)
    if dataset is not None:
        found.add(dataset, place, folded, span)
    return dataset is not None


def decide(place: Place, claims: Claims, at_ms: int) -> DatasetId | None:
    """Return whose file was at a place at a time, by what is known of its path; None where that is not sure."""
    dataset = claims.get(place.host)
    if dataset is None and place.host not in claims:
        dataset = claims.get("")
        if dataset is None and "" not in claims and not place.host:
            # The log names no host, so all who have such a path must say the same.
            said = set(claims.values())
            dataset = said.pop() if len(said) == 1 else None
    return dataset if dataset is not None and could_be(dataset, at_ms) else None


def is_sweep_due(swept: str | None, before_ms: int) -> bool:
    """Tell whether users without a download are to be forgotten; a clock set back counts as a day gone by."""
    return swept is None or abs(before_ms - int(swept)) >= SWEEP_EVERY_MS


def user_hash(folded: str) -> bytes:
    """Return what is kept of a user who was erased."""
    return hashlib.sha256(b"esgf-gossip/erased/1\0" + folded.encode()).digest()


def places_of(files: Iterable[tuple[DatasetId, SeenFile]]) -> dict[tuple[bytes, str], DatasetId | None]:
    """Return where files are, by key of the path and host; None where two datasets claim one URL."""
    found: dict[tuple[bytes, str], DatasetId | None] = {}
    for dataset, file in files:
        for url in file.urls:
            place = read_url(url)
            if place is not None:
                _claim(found, (place.key, place.host), dataset)
    return found


def places_published(published: PublishedFiles) -> dict[tuple[bytes, str], DatasetId | None]:
    """Return the same of the publisher's tables, which name no host."""
    found: dict[tuple[bytes, str], DatasetId | None] = {}
    for name, url in published.files:
        place = read_url(url)
        try:
            dataset = parse_dataset(name)
        except IdentityError:
            continue
        if place is not None:
            _claim(found, (place.key, ""), dataset)
    return found


def _claim(
    found: dict[tuple[bytes, str], DatasetId | None], key: tuple[bytes, str], dataset: DatasetId
) -> None:
    found[key] = united(found[key], dataset) if key in found else dataset


def united(first: DatasetId | None, second: DatasetId | None) -> DatasetId | None:
    """Return whose a URL is that two claim: the newer version's where a version took it over; else nobody's."""
    if first is None or second is None or first.master_id != second.master_id:
        return None
    return max(first, second)


def merged_claims(
    rows: Iterable[tuple[bytes, str, DatasetId | None]],
) -> dict[bytes, dict[str, DatasetId | None]]:
    """Return rows of the map by path."""
    claims: dict[bytes, dict[str, DatasetId | None]] = {}
    for key, host, dataset in rows:
        claims.setdefault(bytes(key), {})[host] = dataset
    return claims


def exported(
    openid: str, held: Iterable[Sequence[Any]], unresolved: Iterable[Sequence[Any]]
) -> dict[str, Any]:
    """Return what a store has of a user as JSON values: rows of dataset, file and span, and of path and span."""
    return {
        "openid": openid,
        "downloads": [{"dataset": name, "file": file, **_told(*span)} for name, file, *span in held],
        "unresolved": [{"path": path, **_told(*span)} for path, *span in unresolved],
    }


def _told(host: str, first_ms: int, last_ms: int, whole_ms: int | None) -> dict[str, Any]:
    return {
        "host": host,
        "first_fetched": _instant(first_ms),
        "last_fetched": _instant(last_ms),
        "is_partial": whole_ms is None,
    }


def _instant(at_ms: int) -> str:
    return (
        dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
