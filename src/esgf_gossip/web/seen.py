"""What pages and commands alike see of the daemon; each adds what it alone needs."""

from __future__ import annotations

from typing import Any, Protocol

from esgf_gossip.dataset_keeper import DatasetKeeper
from esgf_gossip.document_desk import DocumentDesk
from esgf_gossip.views.federation import FederationView
from esgf_gossip.web.events import EventHub
from esgf_gossip.web.kept import KeptDocuments
from esgf_gossip.web.past_pages import Past


class Seen(Protocol):
    """One daemon, read only."""

    documents: KeptDocuments
    metadata: DocumentDesk
    datasets: DatasetKeeper
    events: EventHub
    past: Past
    shard_form: str

    def now_ms(self) -> int:
        """Return Unix milliseconds."""

    def view(self) -> FederationView:
        """Return the newest picture of the federation; the same object while nothing changed."""

    def explain(self, host: str) -> dict[str, Any] | None:
        """Return why a node has its status, with the signed evidence; None for no such node."""

    def trust_report(self) -> dict[str, Any]:
        """Return what each node says of its trust, and what is wrong with ours."""
