"""
The HTTP service described for programs: OpenAPI 3.1.

Only the description lives here; tests compare it with the answers. What is not
served is not described.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from esgf_gossip.esgf.resources import CORES_MOST
from esgf_gossip.tracking.event_lists import EVENTS_MOST
from esgf_gossip.views.history_json import KINDS
from esgf_gossip.web.dataset_questions import CHECKED_MOST, PROJECT, TYPES
from esgf_gossip.web.openapi_schemas import COUNT, INSTANT, SCHEMAS, TEXT, Schema, list_of, named
from esgf_gossip.web.past_pages import REGISTRATION_XML
from esgf_gossip.web.questions import (
    CHANGES_MOST,
    HEALTH,
    ID_MAX,
    NODE_TYPES,
    PLACES_MOST,
    SERVICE_TYPES,
    STATUSES,
    VERSIONS_MOST,
)

_DOCUMENT_PATH: Final = "/api/v1/documents/{project}/{application}/{name}"
_IF_NONE_MATCH: Final[Schema] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": TEXT,
    "description": "ETag of the document at hand; 304 if it is still the same",
}
_HOST: Final[Schema] = {"name": "host", "in": "path", "required": True, "schema": TEXT}


def _query(name: str, schema: Schema, description: str, *, required: bool = False) -> Schema:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "schema": schema,
        "description": description,
    }


_AT: Final = _query("at", INSTANT, "as it was then")
_HISTORY_QUERY: Final[list[Schema]] = [
    _query("since", INSTANT, "only what happened from then on"),
    _query("until", INSTANT, "only what happened up to then"),
    _query("kind", {"enum": list(KINDS)}, "only changes of this kind"),
    _query(
        "before",
        {**COUNT, "maximum": ID_MAX},
        "only changes with a smaller id: next_before of the page before",
    ),
    _query(
        "limit", {"type": "integer", "minimum": 1, "maximum": CHANGES_MOST}, "at most so many, the newest"
    ),
]
_BETWEEN: Final[list[Schema]] = [
    _query("from", INSTANT, "the earlier time", required=True),
    _query("to", INSTANT, "the later time; now where it is not given"),
]
_PAGES: Final[list[Schema]] = [
    _query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": PLACES_MOST},
        "at most so many; Link names the next page",
    ),
    _query(
        "offset",
        {"type": "integer", "minimum": 0, "maximum": PLACES_MOST},
        "from this one on, counted from 0",
    ),
]
_LIST_QUERY: Final[list[Schema]] = [
    _query(
        "min_cores_free",
        {"type": "integer", "minimum": 0, "maximum": CORES_MOST},
        "only nodes that say that they have so many cores free",
    ),
    _AT,
    *_PAGES,
]
_NODE_QUERY: Final[list[Schema]] = [
    _query("status", {"enum": list(STATUSES)}, "only nodes of this status"),
    _query("node_type", {"enum": list(NODE_TYPES)}, "only nodes of this type"),
    *_LIST_QUERY,
]
_SERVICE_QUERY: Final[list[Schema]] = [
    _query("type", {"enum": list(SERVICE_TYPES)}, "only services of this type"),
    _query("health", {"enum": list(HEALTH)}, "only services of this health"),
    *_LIST_QUERY,
]
_DOCUMENT: Final[list[Schema]] = [
    {"name": part, "in": "path", "required": True, "schema": TEXT}
    for part in ("project", "application", "name")
]
_SOME_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_VERSION: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{8,64}$"}
_DOCUMENTS_QUERY: Final[list[Schema]] = [
    _query("project", _SOME_TEXT, "only documents of this project"),
    _query("application", _SOME_TEXT, "only documents of this application"),
    *_PAGES,
]
_EVENTS_QUERY: Final[list[Schema]] = [
    _query(
        "since",
        {"anyOf": [{**COUNT, "maximum": ID_MAX}, INSTANT]},
        "only events with a higher number, or that came to count from this time on: next_since of the answer before",
    ),
    _query("limit", {"type": "integer", "minimum": 1, "maximum": EVENTS_MOST}, "at most so many"),
    _query("project", {"type": "string", "pattern": PROJECT}, "only of this project"),
    _query("type", {"enum": list(TYPES)}, "only of this type"),
]
_NAMES: Final[Schema] = {"type": "array", "items": TEXT, "maxItems": CHECKED_MOST}
_LAST_EVENT_ID: Final[Schema] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "schema": TEXT,
    "description": "id of the last event received; those after it come first",
}


def openapi_body(documents: Iterable[str], version: str) -> dict[str, Any]:
    """
    Describe the service.

    Args:
        documents: names of the kept documents served at the root.
        version: of this program.
    """
    paths: dict[str, Any] = {
        "/": _path("Which node this is and what it serves", _document("text/html")),
        **{
            f"/{name}": _path(
                "A file that ESGF programs read",
                _document("application/xml"),
                [*([_AT] if name == REGISTRATION_XML else []), _IF_NONE_MATCH],
                [304, 400, 404, 503] if name == REGISTRATION_XML else [304, 503],
            )
            for name in documents
        },
        "/api/v1/status": _json("What this node says of itself", named("Status")),
        "/api/v1/nodes": _json(
            "Every node of the federation", list_of(named("Node")), _NODE_QUERY, [400, 503]
        ),
        "/api/v1/nodes/{host}": _json("One node", named("Node"), [_HOST, _AT], [400, 404, 503]),
        "/api/v1/nodes/{host}/explain": _json(
            "Why a node has its status, and who said so", named("Explanation"), [_HOST], [404]
        ),
        "/api/v1/nodes/{host}/history": _json(
            "What happened to one node", named("History"), [_HOST, *_HISTORY_QUERY], [400, 503]
        ),
        "/api/v1/history": _json(
            "What happened",
            named("History"),
            [_query("host", {"type": "string", "minLength": 1}, "only of this node"), *_HISTORY_QUERY],
            [400, 503],
        ),
        "/api/v1/differences": _json(
            "What differs between two times", named("Differences"), _BETWEEN, [400, 404, 503]
        ),
        "/api/v1/services": _json(
            "Every service of every member",
            list_of(named("ListedService")),
            _SERVICE_QUERY,
            [400, 404, 503],
        ),
        "/api/v1/documents": _json(
            "Every metadata document that projects share",
            list_of(named("Document")),
            _DOCUMENTS_QUERY,
            [400],
        ),
        "/api/v1/documents/refused": _json(
            "What does not count, and why", list_of(named("RefusedLeaf")), refusals=[400]
        ),
        _DOCUMENT_PATH: _json(
            "One document with the content of its heads", named("WholeDocument"), _DOCUMENT, [400, 404]
        ),
        f"{_DOCUMENT_PATH}/history": _json(
            "The versions of a document",
            named("DocumentHistory"),
            [
                *_DOCUMENT,
                _query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": VERSIONS_MOST},
                    "at most so many, the newest generation first",
                ),
            ],
            [400, 404],
        ),
        f"{_DOCUMENT_PATH}/content": _path(
            "The bytes of a document; 409 while it is in conflict and no version is named",
            _document("application/octet-stream"),
            [*_DOCUMENT, _query("version", _VERSION, "the beginning of a version's id"), _IF_NONE_MATCH],
            [304, 400, 404, 409, 503],
        ),
        "/api/v1/datasets/events": _json(
            "What happened to datasets, as far as it counts",
            named("DatasetEvents"),
            _EVENTS_QUERY,
            [400, 503],
        ),
        "/api/v1/datasets/quarantine": _json(
            "What does not count, and why", list_of(named("DatasetEvent")), refusals=[400, 503]
        ),
        "/api/v1/datasets/check": {"post": _check()},
        "/api/v1/events": _path(
            "What happens, as it happens", _document("text/event-stream"), [_LAST_EVENT_ID], [503]
        ),
        "/openapi.json": _path(
            "This description", _document("application/json", {"type": "object"}), [_IF_NONE_MATCH], [304]
        ),
        "/metrics": _path("The numbers for Prometheus", _document("text/plain"), [_IF_NONE_MATCH], [304]),
        "/healthz": _path("Whether the process runs", _document("text/plain")),
        "/readyz": _path(
            "Whether files and answers can be relied on", _document("text/plain"), refusals=[503]
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "esgf-gossip", "version": version, "license": {"name": "BSD-3-Clause"}},
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _check() -> Schema:
    """Describe the one question whose words are in its body."""
    asked = {
        "anyOf": [_NAMES, {"type": "object", "required": ["datasets"], "properties": {"datasets": _NAMES}}]
    }
    content = _document("application/json", named("DatasetStatuses"))
    described = _path("Whether these versions are still good", content, refusals=[400, 413, 415, 503])["get"]
    body = {
        "required": True,
        "content": {"application/json": {"schema": asked}, "text/plain": {"schema": _SOME_TEXT}},
    }
    return {**described, "requestBody": body}


def _json(
    summary: str, schema: Schema, parameters: Iterable[Schema] = (), refusals: Iterable[int] = ()
) -> Schema:
    content = _document("application/json", schema)
    return _path(summary, content, [*parameters, _IF_NONE_MATCH], [304, *refusals])


def _document(content_type: str, schema: Schema | None = None) -> Schema:
    return {content_type: {"schema": schema or TEXT}}


def _path(
    summary: str, content: Schema, parameters: Iterable[Schema] = (), refusals: Iterable[int] = ()
) -> Schema:
    answers: dict[str, Schema] = {"200": {"description": "as asked", "content": content}}
    for code in refusals:
        answers[str(code)] = {"description": "not modified"} if code == 304 else _refusal()
    answers["default"] = _refusal()
    get = {"summary": summary, "parameters": list(parameters), "responses": answers}
    # HEAD answers as GET without a body.
    return {"get": get}


def _refusal() -> Schema:
    return {
        "description": "refused, and why",
        "content": {"application/problem+json": {"schema": named("Problem")}},
    }
