"""
The errata service, looked through again and again: new issues become changes, all of them reasons.

A list of each severity first; then those issues alone that are new or have changed. Source: docs/tracking.md, "Errata".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet.defer import inlineCallbacks
from twisted.logger import Logger

from esgf_gossip.sources.errata_service import SEVERITIES, ErrataService, IssueNotGivenError, Listed
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.rounds import Rounds
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.errata import ErrataError, read_erratum
from esgf_gossip.tracking.errata_store import known_marks, last_look_ms, note_erratum, note_look

EVERY_S: Final = 3600.0
# Lists date an issue by the day: within this it may change again without another mark.
FRESH_MS: Final = 2 * 24 * 60 * 60 * 1000


class ErrataPoll:
    """
    The service at work, from ``start`` to ``stop``.

    Args:
        service: is asked.
        database: keeps issues and changes (``errata_store.SCRIPT``, ``changes.SCRIPT``).
        on_change: called with the number of each new change, when it is on the disk.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        max_age_ms: nobody is told of what is older.

    ``known`` counts the issues of the last look, ``refused`` those that could not be read in it; ``fault`` says what
    an operator must mend, or "".
    """

    log = Logger()

    def __init__(
        self,
        service: ErrataService,
        database: TrackingDatabase,
        on_change: Callable[[int], object],
        clock: Any,
        now_ms: Callable[[], int],
        max_age_ms: int,
        every_s: float = EVERY_S,
    ) -> None:
        self.known = 0
        self.refused = 0
        self._service: Final = service
        self._database: Final = database
        self._on_change: Final = on_change
        self._now_ms: Final = now_ms
        self._max_age_ms: Final = max_age_ms
        self._told: Final[set[str]] = set()
        self._rounds: Final = Rounds(
            "the errata service", self._round, every_s, clock, (SourceError, TrackingError)
        )

    @property
    def fault(self) -> str:
        """What went wrong last, or ""."""
        return self._rounds.fault

    def start(self) -> None:
        """Begin to ask."""
        self._rounds.start()

    def stop(self) -> None:
        """Ask no more; twice does no harm."""
        self._rounds.stop()

    @inlineCallbacks
    def _round(self) -> Iterator[Any]:
        begun_ms = self._now_ms()
        last_ms = yield self._database.run(last_look_ms)
        known = yield self._database.run(known_marks)
        listed: dict[str, Listed] = {}
        for severity in SEVERITIES:
            found = yield self._service.listed(severity)
            listed.update((one.uid, one) for one in found)
        refused = 0
        for one in listed.values():
            mark, read_ms = known.get(one.uid, ("", 0))
            if mark == one.mark and read_ms - one.changed_ms > FRESH_MS:
                continue
            try:
                answer = yield self._service.issue(one.uid)
                erratum = read_erratum(answer, self._service.url)
                if erratum.issue.uid != one.uid:
                    raise ErrataError("another issue was given")
            except (IssueNotGivenError, ErrataError) as error:
                refused += 1
                self._say_once(one.uid, str(error))
                continue
            number = yield self._database.run(
                note_erratum, erratum, one.mark, last_ms, self._now_ms(), self._max_age_ms
            )
            if number is not None:
                self._on_change(number)
        yield self._database.run(note_look, list(listed), begun_ms)
        self.known, self.refused = len(listed), refused

    def _say_once(self, uid: str, reason: str) -> None:
        if uid not in self._told:
            self._told.add(uid)
            self.log.warn("Issue {uid} of the errata service is left out: {reason}", uid=uid, reason=reason)
