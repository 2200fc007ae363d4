"""
What the tracker asks an index: whole sets by pages, and of one dataset what will be forgotten.

Answers of an index are believed in form only after a look: JSON of a stranger. What they mean is a sighting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred, inlineCallbacks

from esgf_gossip.sources.gauge import in_thread
from esgf_gossip.sources.index_client import Answer, IndexUnreachable
from esgf_gossip.tracking import record_fields
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.publisher_calls import published
from esgf_gossip.tracking.record_fields import Fields
from esgf_gossip.tracking.sightings import Operation, SeenFile, Sighting

SOURCE: Final = "index"
PAGE: Final = 1000
ANSWER_BYTES: Final = 32 * 1024 * 1024
# What is larger is read in a thread.
LARGE_BYTES: Final = 1024 * 1024
PAGE_S: Final = 60.0
# What is asked while a publisher waits.
BEFORE_S: Final = 20.0
# A record that has stood for so long was not made by the call that is under way, nor by one that is repeated.
STANDING_MS: Final = 3600 * 1000
VERSIONS_MOST: Final = 200
FILES_MOST: Final = 20_000

OF_DATASETS: Final = "id,master_id,version,data_node,replica,retracted,type,_timestamp"
OF_FILES: Final = "id,dataset_id,title,url,checksum,size,tracking_id,replica,type"

Ask = Callable[..., "Deferred[Answer]"]


@attrs.frozen
class Found:
    """Records found: ``total`` the index has, ``is_whole``: all of them are here."""

    records: tuple[Fields, ...]
    total: int
    is_whole: bool


class IndexQuestions:
    """
    Questions to one index.

    Args:
        ask: as ``IndexClient.ask``.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        run: runs a function in a thread.
    """

    def __init__(
        self,
        ask: Ask,
        clock: Any,
        now_ms: Callable[[], int],
        run: Callable[[Callable[[], Any], Any], Deferred[Any]] = in_thread,
    ) -> None:
        self._ask: Final = ask
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._run = run

    @inlineCallbacks
    def page(self, wanted: Mapping[str, str], fields: str, offset: int = 0, limit: int = PAGE) -> Any:
        """
        Fire with one page of what is wanted, as ``Found``.

        Fails with ``IndexUnreachable``: no answer, or none that can be read.
        """
        query = {
            **wanted,
            "distrib": "false",
            "format": "application/solr+json",
            "fields": fields,
            "limit": str(limit),
            "offset": str(offset),
        }
        target = f"/esg-search/search?{urlencode(query)}".encode("ascii")
        answer = yield self._ask(b"GET", target, {b"Accept": [b"*/*"]}, b"", PAGE_S, ANSWER_BYTES)
        if answer.status != 200:
            raise IndexUnreachable(f"answers a search with status {answer.status}")
        read = partial(_read, answer.body)
        records, total = (yield self._run(read, self._clock)) if len(answer.body) > LARGE_BYTES else read()
        return Found(records, total, offset + len(records) >= total)

    @inlineCallbacks
    def whole(self, wanted: Mapping[str, str], fields: str, most: int) -> Any:
        """Fire with everything that is wanted, at most so many records; fails as ``page``."""
        records: list[Fields] = []
        while True:
            found = yield self.page(wanted, fields, len(records), min(PAGE, most - len(records)))
            records += found.records
            if found.is_whole or not found.records or len(records) >= most:
                return Found(tuple(records), found.total, len(records) >= found.total)

    def before(self, sightings: Sequence[Sighting]) -> Deferred[list[Sighting]]:
        """
        Ask what the index will have forgotten, or be asked by nobody later, once it was told.

        Of what ends: its record and files. Of a new version: the lower ones, and the files of the highest of these.
        Fires with sightings to be taken quietly, within ``BEFORE_S``; fails with ``IndexUnreachable``.
        """
        asking = self._before(sightings)
        asking.addTimeout(BEFORE_S, self._clock, lambda *_: _late())
        return asking

    @inlineCallbacks
    def _before(self, sightings: Sequence[Sighting]) -> Any:
        found: list[Sighting] = []
        for sighting in sightings:
            record = f"{sighting.dataset}|{sighting.data_node}"
            if sighting.operation is not Operation.PUBLISH:
                known = yield self.page({"type": "Dataset", "id": record}, OF_DATASETS, limit=1)
                found += self.sightings(known.records)
                found += yield self.files(sighting.dataset, sighting.data_node)
                continue
            wanted = {
                "type": "Dataset",
                "master_id": sighting.dataset.master_id,
                "data_node": sighting.data_node,
            }
            known = yield self.whole(wanted, OF_DATASETS, VERSIONS_MOST)
            versions = [one for one in self.sightings(known.records) if self._stood_before(one, sighting)]
            found += versions
            lower = max((one.dataset for one in versions if one.dataset < sighting.dataset), default=None)
            if lower is not None:
                found += yield self.files(lower, sighting.data_node)
        return found

    def _stood_before(self, known: Sighting, sighting: Sighting) -> bool:
        return known.dataset < sighting.dataset or known.occurred_ms < self._now_ms() - STANDING_MS

    @inlineCallbacks
    def files(self, dataset: DatasetId, data_node: str) -> Any:
        """Fire with the files of a copy, as sightings; none where the index has none; fails as ``page``."""
        wanted = {"type": "File", "dataset_id": f"{dataset}|{data_node}"}
        found = yield self.whole(wanted, OF_FILES, FILES_MOST)
        read = partial(self._files, found.records)
        files = (yield self._run(read, self._clock)) if len(found.records) > PAGE else read()
        if not files:
            return []
        return [Sighting(Operation.ADD_FILES, dataset, data_node, None, self._now_ms(), SOURCE, files)]

    def _files(self, records: Sequence[Fields]) -> tuple[SeenFile, ...]:
        sightings = self.sightings({**one, "type": ["File"]} for one in records)
        return tuple(file for one in sightings for file in one.files)

    def sightings(self, records: Any, latest_ms: int | None = None) -> list[Sighting]:
        """
        Return what records of an index tell; those that name no copy of a dataset are left out.

        Publications are dated by their own time stamp, but not after ``latest_ms`` (now, where it is not given);
        retractions by that: an index leaves the time stamp when it retracts.
        """
        latest_ms = self._now_ms() if latest_ms is None else latest_ms
        dated = ((published(one, latest_ms, SOURCE), _stamp_ms(one)) for one in records)
        return [
            one
            if stamp is None or one.operation is Operation.RETRACT
            else attrs.evolve(one, occurred_ms=min(latest_ms, stamp))
            for one, stamp in dated
            if one is not None
        ]


def _late() -> Any:
    raise IndexUnreachable("no whole answer in time", is_late=True)


def _stamp_ms(record: Fields) -> int | None:
    try:
        when = datetime.fromisoformat(record_fields.first(record, "_timestamp"))
    except ValueError:
        return None
    return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000))


def _read(body: bytes) -> tuple[tuple[Fields, ...], int]:
    try:
        response = json.loads(body)["response"]
        total, documents = response["numFound"], response["docs"]
        if type(total) is not int or total < 0 or not isinstance(documents, list):
            raise ValueError("not the answer of a search")
        return tuple(record_fields.json_fields(one) for one in documents if isinstance(one, dict)), total
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IndexUnreachable("answers a search with something that is none") from None
