"""The bodies of the HTTP service described for programs: JSON Schema, as OpenAPI 3.1 has it. Paths are openapi's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from esgf_gossip.core.verdicts import Vote
from esgf_gossip.tracking.events import EventType
from esgf_gossip.tracking.versions import State
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.history_json import KINDS
from esgf_gossip.views.node_json import COUNTED
from esgf_gossip.web.questions import HEALTH

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
# Whatever a node said: a text, a number, true, nothing.
ANY: Final[Schema] = {}
STATUS: Final[Schema] = {"enum": [status.value for status in NodeStatus]}
INSTANT: Final[Schema] = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC"}


def an_object(properties: dict[str, Schema], optional: Iterable[str] = ()) -> Schema:
    """Return the schema of an object with these fields; those that are ``optional`` may be missing."""
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "required": required, "properties": properties}


def list_of(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def named(name: str) -> Schema:
    """Return a reference to a schema of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """Return the schema of what may be missing."""
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
    "since": or_null(INSTANT),
    "reason": TEXT,
}

# A version of a metadata document; what is named are SHA-256 in hexadecimal.
VERSION: Final[dict[str, Schema]] = {
    "version": TEXT,
    "author": TEXT,
    "at": INSTANT,
    "generation": COUNT,
    "parents": list_of(TEXT),
    "missing_parents": list_of(TEXT),
    "deletion": {"type": "boolean"},
    "size_bytes": COUNT,
    "sha256": or_null(TEXT),
}

DOCUMENT: Final[dict[str, Schema]] = {
    "document": TEXT,
    "project": TEXT,
    "application": TEXT,
    "name": TEXT,
    "conflict": {"type": "boolean"},
    "deleted": {"type": "boolean"},
    "versions_total": COUNT,
    "heads_total": COUNT,
}

# A copy of a dataset version: who serves it, and the node that says so.
COPY: Final[dict[str, Schema]] = {"data_node": TEXT, "node": TEXT}

CHANGE: Final[dict[str, Schema]] = {
    "id": COUNT,
    "at": INSTANT,
    "host": TEXT,
    "kind": {"enum": list(KINDS)},
    "epoch": COUNT,
    "sequence": COUNT,
    "issued_at": INSTANT,
    "summary": TEXT,
    "changes": list_of(named("Difference")),
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Status": an_object(
        {
            "host": TEXT,
            "federation": TEXT,
            "version": TEXT,
            "epoch": COUNT,
            "sequence": COUNT,
            "root": {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
            "nodes": an_object({"total": COUNT, **{status.value: COUNT for status in COUNTED}}),
            "links": COUNT,
            "certificate": an_object({"not_after": INSTANT}),
            "crl": an_object({"age_s": {"type": "integer"}}),
            "started_at": INSTANT,
            "storage_error": TEXT,
            "history_error": TEXT,
            "documents_error": TEXT,
            "datasets_error": TEXT,
            "publishing_stopped": TEXT,
            "trust": an_object({"error": TEXT, "alarms": list_of(TEXT)}),
            "lists": an_object({"alarms": list_of(TEXT)}),
            "datasets": an_object(
                {
                    **dict.fromkeys(
                        (
                            "events",
                            "quarantined",
                            "dropped",
                            "unreadable",
                            "stale_replicas",
                            "foreign_claims",
                        ),
                        COUNT,
                    ),
                    "stale_replica_names": list_of(TEXT),
                    "foreign_claim_names": list_of(TEXT),
                }
            ),
            "tracking": {
                "type": "object",
                "properties": {"faults": {"type": "object", "additionalProperties": TEXT}},
                "required": ["faults"],
                "additionalProperties": {"type": "object", "additionalProperties": COUNT},
            },
            "tasks": an_object(
                {
                    **dict.fromkeys(("waiting", "running", "done", "failed", "oldest_age_s"), COUNT),
                    "error": TEXT,
                    "alarms": list_of(TEXT),
                }
            ),
        },
        optional=(
            "storage_error",
            "history_error",
            "documents_error",
            "datasets_error",
            "publishing_stopped",
            "trust",
            "lists",
            "datasets",
            "tracking",
            "tasks",
        ),
    ),
    "Node": an_object(
        {
            "host": TEXT,
            "status": STATUS,
            "since": INSTANT,
            "short_name": TEXT,
            "long_name": TEXT,
            "organization": TEXT,
            "peer_group": TEXT,
            "peer_groups_refused": list_of(TEXT),
            "excluded": list_of(TEXT),
            "node_types": list_of(TEXT),
            "location": {
                "anyOf": [
                    an_object({"lat": {"type": "number"}, "lon": {"type": "number"}, "city": TEXT}),
                    {"type": "null"},
                ]
            },
            "epoch": COUNT,
            "sequence": COUNT,
            "issued_at": INSTANT,
            "expires_at": INSTANT,
            "forked": {"type": "boolean"},
            "services": list_of(named("Service")),
            "metrics": {"type": "object"},
            "resources": {"type": "object"},
            "maintenance": or_null(named("Maintenance")),
        }
    ),
    "Maintenance": an_object(
        {"begins_at": INSTANT, "ends_at": INSTANT, "reason": TEXT, "types": list_of(TEXT)}
    ),
    "Service": an_object(SERVICE),
    "ListedService": an_object({"host": TEXT, "node_status": STATUS, **SERVICE}),
    "Explanation": an_object(
        {
            "host": TEXT,
            "status": STATUS,
            "since": INSTANT,
            "reason": TEXT,
            "count": an_object({"reports": COUNT, "against": COUNT, "seats": COUNT}),
            "observers": list_of(
                an_object(
                    {
                        "seat": COUNT,
                        "host": TEXT,
                        "stands_in_for": or_null(TEXT),
                        "vote": {"enum": [vote.value for vote in Vote]},
                        "report": or_null(an_object({"epoch": COUNT, "sequence": COUNT, "since": INSTANT})),
                        "evidence": or_null(an_object({**SIGNED, "entry": or_null(TEXT)})),
                    }
                )
            ),
            "digest": or_null(an_object(SIGNED)),
        }
    ),
    "Version": an_object(VERSION),
    "VersionWithContent": an_object({**VERSION, "text": or_null(TEXT), "base64": or_null(TEXT)}),
    "Document": an_object({**DOCUMENT, "heads": list_of(named("Version"))}),
    "WholeDocument": an_object(
        {
            **DOCUMENT,
            "heads": list_of(named("VersionWithContent")),
            "refused": list_of(named("RefusedLeaf")),
        }
    ),
    "DocumentHistory": an_object(
        {"document": TEXT, "versions_total": COUNT, "versions": list_of(named("Version"))}
    ),
    "RefusedLeaf": an_object({"author": TEXT, "leaf": COUNT, "document": TEXT, "reason": TEXT}),
    "DatasetEvent": an_object(
        {
            "number": or_null(COUNT),
            "type": {"enum": [kind.value for kind in EventType]},
            **dict.fromkeys(("dataset", "master_id", "version", "project", "data_node", "origin"), TEXT),
            "leaf": COUNT,
            "epoch": COUNT,
            "at": INSTANT,
            "received_at": INSTANT,
            "supersedes": list_of(TEXT),
            "unchanged_files": COUNT,
            **dict.fromkeys(("reason", "source", "change_key"), TEXT),
            "counts": {"type": "boolean"},
            "quarantine": TEXT,
        }
    ),
    "DatasetEvents": an_object({"events": list_of(named("DatasetEvent")), "next_since": COUNT}),
    "DatasetStatus": an_object(
        {
            "asked": TEXT,
            "error": TEXT,
            "dataset": or_null(TEXT),
            "status": {"enum": [state.value for state in State]},
            "since": or_null(INSTANT),
            "successor": or_null(TEXT),
            "reason": TEXT,
            "original": or_null(an_object(COPY)),
            "replicas": list_of(an_object(COPY)),
        }
    ),
    "DatasetStatuses": an_object({"datasets": list_of(named("DatasetStatus"))}),
    "Change": an_object(CHANGE, optional=("epoch", "sequence", "issued_at")),
    "History": an_object(
        {
            "begins_at": or_null(INSTANT),
            "changes": list_of(named("Change")),
            "next_before": or_null(COUNT),
        }
    ),
    "Differences": an_object(
        {
            "from": INSTANT,
            "to": INSTANT,
            "nodes": list_of(
                an_object(
                    {
                        "host": TEXT,
                        "before": or_null(STATUS),
                        "after": or_null(STATUS),
                        "changes": list_of(named("Difference")),
                    }
                )
            ),
        }
    ),
    "Difference": an_object({"name": TEXT, "before": ANY, "after": ANY}),
    "Problem": an_object(
        {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
        }
    ),
}
