"""
The paths of the two earlier node managers, for the programs that still ask them.

Where each hangs and how it answers lives here; what it says is ``views.legacy_json``'s. What changed state there,
without asking who wants it, answers that it is not supported. Source: docs/http.md, "Earlier node managers".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.web.http import Request
from twisted.web.resource import IResource

from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.legacy_json import health_check, metrics, node_properties
from esgf_gossip.views.node_json import json_bytes
from esgf_gossip.web.kept import KeptDocuments
from esgf_gossip.web.resources import MISSING, KeptPage, Page

# The old type names: text/json is none, and what its clients got.
JSON: Final = "text/json"
HTML: Final = "text/html; charset=utf-8"
PLAIN: Final = "text/plain; charset=utf-8"

BANNER: Final = b"<h1>ESGF Node Manager</h1>"
NOT_SUPPORTED: Final = b"Not Supported"
_ACTIONS: Final = frozenset(
    {
        b"add_member",
        b"get_nodes_status",
        b"get_pub_config",
        b"nm_repo_update",
        b"node_map_update",
        b"remove_member",
        b"set_status",
        b"sn_init",
        b"sync_node_map_file",
    }
)

_Views = Callable[[], FederationView]


class LegacyPage(Page):
    """One answer of the old node manager: media type and bytes, never kept by a cache."""

    def __init__(self, answer: Callable[[Request], tuple[str, bytes]]) -> None:
        super().__init__()
        self._answer = answer

    def answer(self, request: Request) -> bytes:
        """Send it."""
        content_type, body = self._answer(request)
        request.setHeader("Content-Type", content_type)
        request.setHeader("Cache-Control", "no-store")
        # JSON as text/html is what clients got; no browser may run what a property says.
        request.setHeader("Content-Security-Policy", "default-src 'none'; sandbox")
        return body


class ActionPage(LegacyPage):
    """``/esgf-nm/api``: its clients post to it as well."""

    def __init__(self) -> None:
        super().__init__(_action)

    def render(self, request: Request) -> Any:
        """Answer POST like GET: nothing is read of what was posted, nothing changes."""
        return self.answer(request) if request.method == b"POST" else super().render(request)


class NodeManagerPage(LegacyPage):
    """``/esgf-nm/`` of the Python node manager, which answered any path below with its name."""

    def __init__(self, documents: KeptDocuments, view: _Views) -> None:
        super().__init__(lambda _request: (HTML, BANNER))
        self.putChild(b"registration.xml", KeptPage(documents, "registration.xml"))
        self.putChild(
            b"node-props.json", LegacyPage(lambda _request: (JSON, json_bytes(node_properties(view()))))
        )
        self.putChild(b"metrics.json", LegacyPage(lambda _request: (JSON, _metrics(view()))))
        self.putChild(b"health-check-api", LegacyPage(lambda request: (HTML, _health(request, view()))))
        self.putChild(b"health-check-rep", LegacyPage(lambda _request: (PLAIN, NOT_SUPPORTED)))
        self.putChild(b"api", ActionPage())

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Answer any other path like this one, as before."""
        return self


class JavaPage(Page):
    """``/esgf-node-manager`` of the Java node manager: the one document it served to others."""

    def __init__(self, documents: KeptDocuments) -> None:
        super().__init__()
        self.putChild(b"registration.xml", KeptPage(documents, "registration.xml"))

    def render(self, request: Request) -> Any:
        """There is no page of this name."""
        return MISSING.render(request)


def _metrics(view: FederationView) -> bytes:
    body = metrics(view)
    return b"NO_FILE" if body is None else json_bytes(body)


def _health(request: Request, view: FederationView) -> bytes:
    if _argument(request, b"what") == b"timestamp":
        return json_bytes({"ts_all": str(view.at_ms)})
    return json_bytes(health_check(view))


def _action(request: Request) -> tuple[str, bytes]:
    action = _argument(request, b"action")
    if request.method != b"POST" and action is None:
        return HTML, b"INVALID_URL"
    if request.method != b"POST" and action not in _ACTIONS:
        return PLAIN, b"INVALID_REQ"
    return PLAIN, NOT_SUPPORTED


def _argument(request: Request, name: bytes) -> bytes | None:
    values = (request.args or {}).get(name)
    return values[0] if values else None
