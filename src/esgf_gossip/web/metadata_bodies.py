"""
Metadata documents as the JSON that portals, commands and the dashboard read.

Only names, types and order of fields live here. What is a head, and in which order heads stand, is the documents room's.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any, Final

from esgf_gossip.documents.leaves import PARENTS
from esgf_gossip.documents.names import DocumentName
from esgf_gossip.documents.versions import Document, Version
from esgf_gossip.documents.writings import Writings
from esgf_gossip.views.node_json import utc_text

# Of a conflict as many heads are shown as one version can follow; heads_total counts all.
HEADS_SHOWN: Final = PARENTS


def version_body(document: Document, version: Version) -> dict[str, Any]:
    """Return one version; ``at`` is the clock of its author, by which nothing is judged."""
    body = version.body
    return {
        "version": version.id.hex(),
        "author": version.author,
        "at": utc_text(version.time_ms),
        "generation": document.generation(version),
        "parents": [parent.hex() for parent in version.parents],
        "missing_parents": [parent.hex() for parent in document.missing_parents(version)],
        "deletion": version.is_deletion,
        "size_bytes": 0 if body is None else body.size_bytes,
        "sha256": None if body is None else body.sha256.hex(),
    }


def summary_body(name: DocumentName, document: Document) -> dict[str, Any]:
    """Return a document as ``/api/v1/documents`` lists it."""
    heads = document.heads
    return {
        "document": str(name),
        "project": name.project,
        "application": name.application,
        "name": name.name,
        "conflict": document.is_conflict,
        "deleted": document.is_deleted,
        "versions_total": len(document),
        "heads_total": len(heads),
        "heads": [version_body(document, head) for head in heads[:HEADS_SHOWN]],
    }


def document_body(
    name: DocumentName,
    document: Document,
    content: Callable[[Version], bytes | None],
    writings: Iterable[Writings],
) -> dict[str, Any]:
    """Return one document with the content of its heads, and the leaves that name it and do not count."""
    body = summary_body(name, document)
    for head, said in zip(document.heads, body["heads"], strict=False):
        said.update(content_body(None if head.is_deletion else content(head)))
    return {**body, "refused": [one for one in refused_body(writings) if one["document"] == str(name)]}


def content_body(content: bytes | None) -> dict[str, Any]:
    """Return a content as text where it is one, else in base64; both are null where there is none."""
    if content is None:
        return {"text": None, "base64": None}
    try:
        return {"text": content.decode(), "base64": None}
    except UnicodeDecodeError:
        return {"text": None, "base64": base64.b64encode(content).decode()}


def history_body(name: DocumentName, document: Document, limit: int) -> dict[str, Any]:
    """Return the versions of a document, the newest generation first, at most so many."""
    return {
        "document": str(name),
        "versions_total": len(document),
        "versions": [version_body(document, version) for version in document.history[:limit]],
    }


def refused_body(writings: Iterable[Writings]) -> list[dict[str, Any]]:
    """Return the latest leaves of each author that do not count, and why."""
    return [
        {"author": one.author, "leaf": refusal.leaf, "document": refusal.document, "reason": refusal.reason}
        for one in writings
        for refusal in one.refusals
    ]


def change_body(name: DocumentName, document: Document | None) -> dict[str, Any]:
    """Return the data of the event ``document-changed``; no heads: no version of it counts any more."""
    heads = () if document is None else document.heads
    return {
        "document": str(name),
        "conflict": len(heads) > 1,
        "deleted": document is None or document.is_deleted,
        "heads": [{"version": head.id.hex(), "author": head.author} for head in heads[:HEADS_SHOWN]],
    }
