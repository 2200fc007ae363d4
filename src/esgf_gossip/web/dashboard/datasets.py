"""
The page Datasets: what happened to datasets, replicas that should go, and what does not count.

Read from the ledger in one go, a moment after it was asked for; what counts is the tracking room's to say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from twisted.web.http import Request

from esgf_gossip.dataset_errors import DatasetError
from esgf_gossip.tracking import event_lists
from esgf_gossip.tracking.event_lists import EventWish
from esgf_gossip.web.dashboard.html_page import HtmlPage
from esgf_gossip.web.dataset_questions import TYPES
from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.past_pages import answer_later
from esgf_gossip.web.resources import send_document

EVENTS_SHOWN: Final = 200
QUARANTINE_SHOWN: Final = 50
PROJECTS_SHOWN: Final = 100
_TEXT_CHARACTERS: Final = 300


def page_values(connection: sqlite3.Connection, wish: EventWish) -> dict[str, Any]:
    """Return what the page shows."""
    return {
        "events": event_lists.events(connection, wish),
        "total": event_lists.newest_number(connection),
        "projects": event_lists.projects(connection, PROJECTS_SHOWN),
        "alerts": event_lists.alerts(connection),
        "quarantined": event_lists.quarantined(connection, QUARANTINE_SHOWN),
    }


NOTHING: Final[Mapping[str, Any]] = {
    "events": [],
    "total": 0,
    "projects": [],
    "alerts": [],
    "quarantined": [],
}


class DatasetsPage(HtmlPage):
    """``/datasets``: the newest events, of all or of a project, a type, with a text in their names."""

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Send the events."""
        project, kind, text = (fields.get(name, "")[:_TEXT_CHARACTERS] for name in ("project", "type", "q"))
        wish = EventWish(
            project=project,
            type=kind if kind in TYPES else "",
            text=text.strip(),
            limit=EVENTS_SHOWN,
            is_newest_first=True,
        )
        view = self._shown.view()

        def page(found: Mapping[str, Any] | str) -> KeptDocument:
            is_told = not isinstance(found, str)
            return self._dashboard.render(
                "datasets",
                view,
                types=TYPES,
                wish=wish,
                fault="" if is_told else found,
                searched=event_lists.SEARCHED_EVENTS,
                **(found if is_told else NOTHING),
            )

        answer = self._shown.datasets.ask(page_values, wish).addErrback(_told_why)
        return answer_later(request, answer, lambda found: send_document(request, page(found)))


def _told_why(failure: Any) -> str:
    failure.trap(DatasetError)
    return str(failure.getErrorMessage())
