"""The publisher's journal, read again and again: new rows become sightings, and the place is kept when they are on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.publisher_journal import JournalPage, read_journal
from esgf_gossip.sources.rounds import Rounds
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.publisher_events import Site, advance, begin_anew, get_position, sightings_of
from esgf_gossip.tracking.sightings import Sighting

EVERY_S: Final = 60.0


class PublisherFeed:
    """
    The journal of one site, from ``start`` to ``stop``.

    Args:
        address: what libpq connects with.
        password_file: its first line is the password; None: libpq's own ways.
        site: what the journal does not say.
        database: keeps the place (``publisher_events.SCRIPT``).
        see: takes sightings; fires when they are on the disk.
        in_thread: runs a function that blocks, with its arguments.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.

    ``taken`` counts sightings, ``unclear`` rows of which nobody can tell what they say; ``fault`` says what an
    operator must mend, or "".
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        password_file: Path | None,
        site: Site,
        database: TrackingDatabase,
        see: Callable[[Sequence[Sighting]], Deferred[None]],
        in_thread: Callable[..., Deferred[Any]],
        clock: Any,
        now_ms: Callable[[], int],
        every_s: float = EVERY_S,
    ) -> None:
        self.taken = 0
        self.unclear = 0
        self._is_absence_told = False
        self._address: Final = address
        self._password_file: Final = password_file
        self._site: Final = site
        self._database: Final = database
        self._see: Final = see
        self._in_thread: Final = in_thread
        self._now_ms: Final = now_ms
        self._rounds: Final = Rounds(
            "the publisher's journal", self._round, every_s, clock, (SourceError, TrackingError)
        )

    @property
    def fault(self) -> str:
        """What went wrong last, or ""."""
        return self._rounds.fault

    def start(self) -> None:
        """Begin to read."""
        self._rounds.start()

    def stop(self) -> None:
        """Read no more; twice does no harm. A question under way ends by itself within half a minute."""
        self._rounds.stop()

    @inlineCallbacks
    def _round(self) -> Iterator[Any]:
        position = yield self._database.run(get_position)
        page: JournalPage = yield self._in_thread(
            read_journal, self._address, self._password_file, position.number, position.seen
        )
        if page.is_absent:
            if not self._is_absence_told:
                self.log.info(
                    "[tracking] database has no journal of a publisher; it is looked for again and again"
                )
            self._is_absence_told = True
            return False
        if page.is_new:
            self.log.warn(
                "The publisher's journal ends before row {number}: it is another one, and read from its beginning",
                number=position.number,
            )
            yield self._database.run(begin_anew)
            return True
        sightings, unclear = sightings_of(page.rows, self._site, self._now_ms())
        if sightings:
            yield self._see(sightings)
        yield self._database.run(advance, page.numbers)
        self.taken += len(sightings)
        self.unclear += len(unclear)
        for row in unclear:
            self.log.warn(
                "Row {row.number} of the publisher's journal ends a version of {row.master_id}, which has several: "
                "which one is not said; the index or an administrator has to tell",
                row=row,
            )
        return page.has_more
