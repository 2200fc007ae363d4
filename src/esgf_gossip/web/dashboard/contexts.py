"""
What each page but Federation shows: from the daemon's window to values for its template.

Nothing is decided here that the view or its neighbours have not decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

import attrs

from esgf_gossip.document_desk import DocumentDesk, DocumentError
from esgf_gossip.documents.library import Library
from esgf_gossip.documents.names import DocumentName
from esgf_gossip.documents.versions import Document, Version
from esgf_gossip.esgf.health import Health
from esgf_gossip.views.explanation import by_observer
from esgf_gossip.views.federation import FederationView, NodeView
from esgf_gossip.views.history_json import is_routine
from esgf_gossip.views.list_reasons import places
from esgf_gossip.views.lists_xml import LISTS, USUAL
from esgf_gossip.views.node_json import stamp_ms
from esgf_gossip.web.dashboard.trust import trust_rows
from esgf_gossip.web.dashboard.words import day
from esgf_gossip.web.kept import KeptDocuments

# Of metadata: rows, versions of a conflict with their content, versions of a history, refusals of an author.
DOCUMENTS_SHOWN: Final = 500
HEADS_SHOWN: Final = 4
VERSIONS_SHOWN: Final = 50
REFUSALS_SHOWN: Final = 5
HEALTHS: Final = (Health.DOWN, Health.MAINTENANCE, Health.UNKNOWN, Health.UP)


def _told_ms(body: Mapping[str, Any] | None, name: str) -> int | None:
    """Return the time under a name of a body that may not be there."""
    return None if body is None else stamp_ms(body[name])


def node_context(node: NodeView, explanation: Mapping[str, Any], gossip: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page of one node shows, but for its past."""
    registration = node.registration
    return {
        "node": node,
        "explanation": explanation,
        "observers": [
            {
                **observer,
                "since_ms": _told_ms(observer["report"], "since"),
                "signed_ms": _told_ms(observer["evidence"], "issued_at"),
            }
            for observer in by_observer(explanation["observers"])
        ],
        "services": [(service, node.health_of(service.type)) for service in node.services],
        "links": [peer for peer in gossip["peers"] if peer["host"] == node.host],
        "properties": [] if registration is None else sorted(registration.properties.items()),
        "numbers": {} if node.metrics is None else node.metrics.numbers(),
        "resources": node.resources.numbers(),
    }


def services_context(
    view: FederationView, documents: KeptDocuments, shard_form: str, fields: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the page Services shows: a count by type and health, the services asked for, and the lists."""
    everything = [
        (service.type, node, service, node.health_of(service.type))
        for node in view.nodes
        if not node.is_gone
        for service in node.services
    ]
    types = sorted({kind for kind, *_ in everything})
    wanted_type, wanted_health = fields.get("type", ""), fields.get("health", "")
    chosen = [
        one
        for one in everything
        if wanted_type in ("", one[0]) and wanted_health in ("", one[3].health.value)
    ]
    order = {health: place for place, health in enumerate(HEALTHS)}
    chosen.sort(key=lambda one: (order[one[3].health], one[0], one[1].host))
    lists = []
    for name in documents:
        if name not in LISTS:
            continue
        found = places(name, view.nodes, documents.body(name), shard_form)
        lists.append(
            {
                "name": name,
                "service": LISTS[name].service,
                "listed": [place for place in found if place.is_in],
                "left_out": [place for place in found if not place.is_in],
            }
        )
    lists.sort(key=lambda one: USUAL.index(one["name"]) if one["name"] in USUAL else len(USUAL))
    return {
        "matrix": [
            (
                kind,
                [sum(one[0] == kind and one[3].health is health for one in everything) for health in HEALTHS],
            )
            for kind in types
        ],
        "healths": HEALTHS,
        "types": types,
        "wanted_type": wanted_type,
        "wanted_health": wanted_health,
        "chosen": chosen,
        "total": len(everything),
        "lists": lists,
    }


def trust_context(view: FederationView, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page Trust shows."""
    rows = trust_rows(report)
    bundles = [row.bundle for row in rows if row.not_after_ms is not None]
    return {
        "rows": rows,
        "newest_bundle": max(bundles, default=0),
        "laggards": [row for row in rows if row.is_behind_bundle or row.crls_behind],
        "forked": [node for node in view.nodes if node.forked],
        "refused": [node for node in view.nodes if node.groups_refused],
        "report": report,
    }


@attrs.frozen
class Run:
    """Changes that follow each other, all of them routine or none."""

    is_routine: bool
    changes: list[dict[str, Any]]

    @property
    def hosts(self) -> set[str]:
        """The nodes they are of."""
        return {one["host"] for one in self.changes}


def changes_context(found: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page Changes shows: changes by day, the newest first, what is routine together."""
    changes = [{**one, "at_ms": stamp_ms(one["at"])} for one in found["changes"]]
    return {
        "days": [
            (name, [Run(routine, list(run)) for routine, run in groupby(group, key=is_routine)])
            for name, group in groupby(changes, key=lambda one: day(one["at_ms"]))
        ],
        "begins_ms": found["begins_ms"],
        "next_before": found["next_before"],
        "fields": fields,
    }


def metadata_context(library: Library, project: str) -> dict[str, Any]:
    """Return what the page Metadata shows: the documents of a project (empty: of all), conflicts first, and refusals."""
    everything = [(name, document) for name in library.names if (document := library.get(name)) is not None]
    chosen = [(name, document) for name, document in everything if project in ("", name.project)]
    chosen.sort(key=lambda one: (not one[1].is_conflict, one[1].is_deleted, one[0]))
    return {
        "documents": [(name, document, document.heads) for name, document in chosen[:DOCUMENTS_SHOWN]],
        "more": max(0, len(chosen) - DOCUMENTS_SHOWN),
        "conflicts": sum(document.is_conflict for _, document in everything),
        "total": len(everything),
        "projects": sorted({name.project for name, _ in everything}),
        "wanted_project": project,
        "refusals": [
            (one, list(one.refusals)[-REFUSALS_SHOWN:]) for one in library.authors if one.refused_count
        ],
    }


def document_context(desk: DocumentDesk, name: DocumentName) -> dict[str, Any]:
    """
    Return what the page of one document shows.

    Raises:
        DocumentError: there is none.
    """
    document = desk.document(name)
    return {
        "document_name": name,
        "document": document,
        "heads": [(head, _content(desk, document, head)) for head in document.heads[:HEADS_SHOWN]],
        "history": [(version, document.generation(version)) for version in document.history[:VERSIONS_SHOWN]],
    }


def _content(desk: DocumentDesk, document: Document, version: Version) -> dict[str, Any]:
    """Return the text of a version to be shown; of what is none, or cannot be read, why there is none."""
    missing = len(document.missing_parents(version))
    if version.is_deletion:
        return {"text": None, "why": "This version deletes the document.", "missing": missing}
    try:
        return {"text": desk.body(version).decode(), "why": "", "missing": missing}
    except UnicodeDecodeError:
        return {"text": None, "why": "The content is no text; download it.", "missing": missing}
    except DocumentError as error:
        return {"text": None, "why": str(error), "missing": missing}
