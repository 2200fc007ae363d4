"""
The ways in for dataset events of one node: assembled from ``[tracking]``, started and stopped together.

Each source is on when what it needs is named, and all hand their sightings to one intake. A source that fails says
so in a line of its own, and none stops another. Source: docs/tracking.md, "Where events come from".
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from esgf_gossip.addresses import format_address
from esgf_gossip.config_tracking import TrackingTable
from esgf_gossip.sources.errata_service import ErrataService
from esgf_gossip.sources.event_spool import EventSpool
from esgf_gossip.sources.gauge import SourceError, in_thread
from esgf_gossip.sources.index_client import IndexClient
from esgf_gossip.tracking import catalog, event_intake, index_poll, publisher_events
from esgf_gossip.tracking.database import TrackingDatabase, TrackingError
from esgf_gossip.tracking.errata_poll import ErrataPoll
from esgf_gossip.tracking.event_intake import Intake
from esgf_gossip.tracking.events import DatasetEvent
from esgf_gossip.tracking.index_poll import IndexPoll
from esgf_gossip.tracking.index_questions import IndexQuestions
from esgf_gossip.tracking.publisher_events import Site
from esgf_gossip.tracking.publisher_feed import PublisherFeed
from esgf_gossip.tracking.stac_feed import EventReader
from esgf_gossip.trust.web_tls import ServicePolicy
from esgf_gossip.web import index_proxy
from esgf_gossip.web.bearer_tokens import BearerTokens
from esgf_gossip.web.event_post import EventPost
from esgf_gossip.web.index_proxy import IndexProxy

SCRIPTS: Final[Mapping[str, str]] = {
    "intake": event_intake.SCRIPT,
    "index-poll": index_poll.SCRIPT,
    "journal": publisher_events.SCRIPT,
}
EVENTS_PATH: Final = "events"
_DAY_MS: Final = 24 * 60 * 60 * 1000

Publish = Callable[[Sequence[DatasetEvent]], "Deferred[None]"]


class Inlet(Protocol):
    """One source at work."""

    @property
    def fault(self) -> str:
        """What an operator must mend, or empty."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> Any:
        """End."""


class Inlets:
    """
    All sources of one node.

    ``pages`` are those that ``tracking.listen`` has to serve, by path.

    Args:
        table: ``[tracking]``.
        host: of this node.
        database: with ``SCRIPTS`` among its scripts.
        publish: writes events into this node's log.
        state: the folder for what is set aside.
        reactor: of everything.
        now_ms: Unix milliseconds.
        on_change: called after an erratum became a change.
    """

    log = Logger()

    def __init__(
        self,
        table: TrackingTable,
        host: str,
        database: TrackingDatabase,
        publish: Publish,
        state: Any,
        reactor: Any,
        now_ms: Callable[[], int],
        on_change: Callable[[], object],
    ) -> None:
        self.pages: Final[dict[str, Any]] = {}
        # Those that could not begin, and why.
        self._lame: Final[dict[str, str]] = {}
        self._database: Final = database
        self.intake: Final = Intake(database, table.data_nodes, publish, reactor, now_ms)
        self._inlets: Final[dict[str, Inlet]] = {"intake": self.intake}
        if table.index is not None:
            self._add_index(table, database, reactor, now_ms)
        if table.tokens_file is not None:
            reader = EventReader("stac", now_ms, reactor)
            post = EventPost(BearerTokens(table.tokens_file), reader.read, self.intake.see)
            self.pages[EVENTS_PATH] = post
        if table.spool is not None:
            reader = EventReader("stac", now_ms, reactor)
            self._inlets["spool"] = EventSpool(
                table.spool, reader.read, self.intake.see, reactor, time.time_ns, (TrackingError,)
            )
        if table.database is not None:
            node = table.data_nodes[0]
            self._inlets["journal"] = PublisherFeed(
                table.database,
                table.password_file,
                Site(node, f"https://{node}/thredds/fileServer/"),
                database,
                self.intake.see,
                # Not the reactor's own threads: a stop would wait for a question under way.
                lambda work, *arguments: in_thread(lambda: work(*arguments), reactor),
                reactor,
                now_ms,
            )
        if table.errata is not None:
            service = ErrataService(table.errata, reactor, ServicePolicy())
            max_age_ms = table.max_age_days * _DAY_MS
            self._inlets["errata"] = ErrataPoll(
                service, database, lambda _number: on_change(), reactor, now_ms, max_age_ms
            )
        if table.kafka:
            from esgf_gossip.sources.kafka import KafkaSource  # noqa: PLC0415 - the optional extra

            self._inlets["kafka"] = KafkaSource(
                [format_address(broker) for broker in table.kafka],
                table.kafka_topics,
                f"esgf-gossip.{host}",
                EventReader("kafka", now_ms, reactor).read_one,
                self.intake.see,
                state / "kafka-refused.jsonl",
                reactor,
            )

    def _add_index(
        self, table: TrackingTable, database: TrackingDatabase, reactor: Any, now_ms: Callable[[], int]
    ) -> None:
        assert table.index is not None
        policy = ServicePolicy(table.index_certificates) if table.index.startswith("https:") else None
        client = IndexClient(reactor, table.index, policy)
        questions = IndexQuestions(client.ask, reactor, now_ms)
        self.pages[index_proxy.PATH] = IndexProxy(
            client, self.intake, questions, table.publishers, reactor, now_ms
        )
        if table.index_poll_minutes:
            every_s = table.index_poll_minutes * 60
            self._inlets["index"] = IndexPoll(
                questions, self.intake, database, table.data_nodes, every_s, reactor, now_ms
            )

    def start(self) -> None:
        """Begin with all of them; one that cannot begin is a fault that is shown, and no more."""
        for name, inlet in self._inlets.items():
            try:
                inlet.start()
            except (SourceError, OSError) as error:
                self._lame[name] = str(error)
                self.log.warn("tracking, {name}: {reason}", name=name, reason=str(error))

    def stop(self) -> list[Any]:
        """End all of them; return what has to be waited for."""
        return [inlet.stop() for name, inlet in reversed(self._inlets.items()) if name not in self._lame]

    def faults(self) -> dict[str, str]:
        """Return what an operator must mend, by source."""
        found = {name: inlet.fault for name, inlet in {**self._inlets, **self.pages}.items()} | self._lame
        return {name: fault for name, fault in found.items() if fault}

    def figures(self) -> dict[str, dict[str, int]]:
        """Return what the parts have done, by part and figure."""
        found: dict[str, dict[str, int]] = {}
        for name, part in {**self._inlets, **self.pages}.items():
            counts = getattr(part, "counts", None)
            if counts is not None:
                found[name] = {field: int(value) for field, value in attrs.asdict(counts).items()}
            else:
                words = ("taken", "known", "unclear")
                found[name] = {word: int(getattr(part, word)) for word in words if hasattr(part, word)}
        return found

    def recall(self, events: Sequence[DatasetEvent]) -> None:
        """Let the catalog learn what this node said by another way: by hand, or before its database was lost."""

        def work(connection: sqlite3.Connection) -> None:
            for event in events:
                catalog.recall(connection, event)

        # Where the disk says no, the intake says so too.
        self._database.run(work).addErrback(lambda failure: failure.trap(TrackingError, CancelledError))
