"""
The HTTP service described for programs: OpenAPI 3.1.

Only the description lives here; tests compare it with the answers. What is not
served is not described.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from esgf_gossip.core.verdicts import Vote
from esgf_gossip.esgf.resources import CORES_MOST
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.history_json import KINDS
from esgf_gossip.views.node_json import COUNTED
from esgf_gossip.web.past_pages import REGISTRATION_XML
from esgf_gossip.web.questions import (
    CHANGES_MOST,
    HEALTH,
    ID_MAX,
    NODE_TYPES,
    PLACES_MOST,
    SERVICE_TYPES,
    STATUSES,
)

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
# Whatever a node said: a text, a number, true, nothing.
ANY: Final[Schema] = {}
STATUS: Final[Schema] = {"enum": [status.value for status in NodeStatus]}
INSTANT: Final[Schema] = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC"}


def _object(properties: dict[str, Schema], optional: Iterable[str] = ()) -> Schema:
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "required": required, "properties": properties}


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


# The bytes that were signed, in base64: whoever doubts the answer checks them.
SIGNED: Final[dict[str, Schema]] = {
    "epoch": COUNT,
    "sequence": COUNT,
    "issued_at": INSTANT,
    "certificate_sha256": TEXT,
    "payload": TEXT,
    "signature": TEXT,
}

SERVICE: Final[dict[str, Schema]] = {
    "type": TEXT,
    "endpoint": TEXT,
    "health": {"enum": list(HEALTH)},
    "since": _or_null(INSTANT),
    "reason": TEXT,
}

CHANGE: Final[dict[str, Schema]] = {
    "id": COUNT,
    "at": INSTANT,
    "host": TEXT,
    "kind": {"enum": list(KINDS)},
    "epoch": COUNT,
    "sequence": COUNT,
    "issued_at": INSTANT,
    "summary": TEXT,
    "changes": _list_of(_named("Difference")),
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Status": _object(
        {
            "host": TEXT,
            "federation": TEXT,
            "version": TEXT,
            "epoch": COUNT,
            "sequence": COUNT,
            "root": {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
            "nodes": _object({"total": COUNT, **{status.value: COUNT for status in COUNTED}}),
            "links": COUNT,
            "certificate": _object({"not_after": INSTANT}),
            "crl": _object({"age_s": {"type": "integer"}}),
            "started_at": INSTANT,
            "storage_error": TEXT,
            "history_error": TEXT,
            "publishing_stopped": TEXT,
            "trust": _object({"error": TEXT, "alarms": _list_of(TEXT)}),
            "lists": _object({"alarms": _list_of(TEXT)}),
            "tasks": _object(
                {
                    **dict.fromkeys(("waiting", "running", "done", "failed", "oldest_age_s"), COUNT),
                    "error": TEXT,
                    "alarms": _list_of(TEXT),
                }
            ),
        },
        optional=("storage_error", "history_error", "publishing_stopped", "trust", "lists", "tasks"),
    ),
    "Node": _object(
        {
            "host": TEXT,
            "status": STATUS,
            "since": INSTANT,
            "short_name": TEXT,
            "long_name": TEXT,
            "organization": TEXT,
            "peer_group": TEXT,
            "peer_groups_refused": _list_of(TEXT),
            "excluded": _list_of(TEXT),
            "node_types": _list_of(TEXT),
            "location": {
                "anyOf": [
                    _object({"lat": {"type": "number"}, "lon": {"type": "number"}, "city": TEXT}),
                    {"type": "null"},
                ]
            },
            "epoch": COUNT,
            "sequence": COUNT,
            "issued_at": INSTANT,
            "expires_at": INSTANT,
            "forked": {"type": "boolean"},
            "services": _list_of(_named("Service")),
            "metrics": {"type": "object"},
            "resources": {"type": "object"},
            "maintenance": _or_null(_named("Maintenance")),
        }
    ),
    "Maintenance": _object(
        {"begins_at": INSTANT, "ends_at": INSTANT, "reason": TEXT, "types": _list_of(TEXT)}
    ),
    "Service": _object(SERVICE),
    "ListedService": _object({"host": TEXT, "node_status": STATUS, **SERVICE}),
    "Explanation": _object(
        {
            "host": TEXT,
            "status": STATUS,
            "since": INSTANT,
            "reason": TEXT,
            "count": _object({"reports": COUNT, "against": COUNT, "seats": COUNT}),
            "observers": _list_of(
                _object(
                    {
                        "seat": COUNT,
                        "host": TEXT,
                        "stands_in_for": _or_null(TEXT),
                        "vote": {"enum": [vote.value for vote in Vote]},
                        "report": _or_null(_object({"epoch": COUNT, "sequence": COUNT, "since": INSTANT})),
                        "evidence": _or_null(_object({**SIGNED, "entry": _or_null(TEXT)})),
                    }
                )
            ),
            "digest": _or_null(_object(SIGNED)),
        }
    ),
    "Change": _object(CHANGE, optional=("epoch", "sequence", "issued_at")),
    "History": _object(
        {
            "begins_at": _or_null(INSTANT),
            "changes": _list_of(_named("Change")),
            "next_before": _or_null(COUNT),
        }
    ),
    "Differences": _object(
        {
            "from": INSTANT,
            "to": INSTANT,
            "nodes": _list_of(
                _object(
                    {
                        "host": TEXT,
                        "before": _or_null(STATUS),
                        "after": _or_null(STATUS),
                        "changes": _list_of(_named("Difference")),
                    }
                )
            ),
        }
    ),
    "Difference": _object({"name": TEXT, "before": ANY, "after": ANY}),
    "Problem": _object(
        {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
        }
    ),
}

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
_LIST_QUERY: Final[list[Schema]] = [
    _query(
        "min_cores_free",
        {"type": "integer", "minimum": 0, "maximum": CORES_MOST},
        "only nodes that say that they have so many cores free",
    ),
    _AT,
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
        "/api/v1/status": _json("What this node says of itself", _named("Status")),
        "/api/v1/nodes": _json(
            "Every node of the federation", _list_of(_named("Node")), _NODE_QUERY, [400, 503]
        ),
        "/api/v1/nodes/{host}": _json("One node", _named("Node"), [_HOST, _AT], [400, 404, 503]),
        "/api/v1/nodes/{host}/explain": _json(
            "Why a node has its status, and who said so", _named("Explanation"), [_HOST], [404]
        ),
        "/api/v1/nodes/{host}/history": _json(
            "What happened to one node", _named("History"), [_HOST, *_HISTORY_QUERY], [400, 503]
        ),
        "/api/v1/history": _json(
            "What happened",
            _named("History"),
            [_query("host", {"type": "string", "minLength": 1}, "only of this node"), *_HISTORY_QUERY],
            [400, 503],
        ),
        "/api/v1/differences": _json(
            "What differs between two times", _named("Differences"), _BETWEEN, [400, 404, 503]
        ),
        "/api/v1/services": _json(
            "Every service of every member",
            _list_of(_named("ListedService")),
            _SERVICE_QUERY,
            [400, 404, 503],
        ),
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
        "content": {"application/problem+json": {"schema": _named("Problem")}},
    }
