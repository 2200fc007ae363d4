"""
What both stores of downloads do alike: the order of steps, whatever database does them.

A step is a function that takes the connection first and is one transaction. Finding matches is not here: a cursor of
each database is its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from esgf_gossip.sources.access_log import LogReading, PublishedFiles
from esgf_gossip.sources.log_position import LogPosition, decode_position
from esgf_gossip.tracking import downloads
from esgf_gossip.tracking.downloads import DownloadCounts
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.openids import fold_openid
from esgf_gossip.tracking.sightings import SeenFile


@attrs.frozen
class Steps:
    """The steps of one database, by what they do; see ``Downloads``."""

    state: Callable[..., str | None]
    advance: Callable[..., None]
    learn: Callable[..., int]
    export: Callable[..., dict[str, Any]]
    erase: Callable[..., dict[str, int]]
    forget: Callable[..., bool]
    counts: Callable[..., DownloadCounts]


class StoredDownloads(ABC):
    """
    A store but for matching; ``Downloads`` says what each method does.

    Args:
        steps: of its database.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps: Final = steps
        # As it is in the store; it may be long. None: it has to be asked for.
        self._position: LogPosition | None = None

    @abstractmethod
    def _run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do a step in a transaction of its own; raises DownloadsError."""

    def position(self) -> LogPosition:
        """Tell how far the log is read."""
        if self._position is None:
            body = self._run(self._steps.state, downloads.POSITION)
            self._position = LogPosition() if body is None else decode_position(body)
        return self._position

    def advance(self, reading: LogReading) -> None:
        """Take in what was read of the log, and how far that is, in one transaction."""
        if not reading.rows and reading.position == self._position:
            return
        fetches, tally = downloads.readable(reading)
        self._run(self._steps.advance, fetches, tally, reading.position.encode())
        self._position = reading.position

    def published_to(self) -> int:
        """Tell up to which dataset the publisher's tables are read."""
        return int(self._run(self._steps.state, downloads.PUBLISHED) or 0)

    def take_published(self, published: PublishedFiles) -> None:
        """Take in what was read of the publisher's tables, and how far that is."""
        self._run(self._steps.learn, downloads.places_published(published), published.highest)

    def learn(self, files: Iterable[tuple[DatasetId, SeenFile]]) -> int:
        """Remember whose files are where; return how many downloads this resolved."""
        places = downloads.places_of(files)
        return int(self._run(self._steps.learn, places, None)) if places else 0

    def export(self, openid: str) -> dict[str, Any]:
        """Return all that is kept of a user, as JSON values."""
        told: dict[str, Any] = self._run(self._steps.export, openid)
        return told

    def erase(self, openid: str, now_ms: int) -> dict[str, int]:
        """Forget a user, and what was downloaded until now for ever; return how many downloads that were."""
        erased: dict[str, int] = self._run(self._steps.erase, fold_openid(openid), now_ms)
        return erased

    def forget(self, before_ms: int) -> bool:
        """Forget some downloads that are older, and once a day users who have none; tell whether there are more."""
        return bool(self._run(self._steps.forget, before_ms))

    def counts(self) -> DownloadCounts:
        """Count; looks at every row."""
        counted: DownloadCounts = self._run(self._steps.counts)
        return counted
