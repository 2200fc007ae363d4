"""
The FederationView as the JSON that portals, commands and the dashboard read.

Only names, types and order of fields live here: contract.md, section HTTP.
Status codes, ETags and sockets are web's. A field that a node did not publish
is an empty text, an empty list or null, never left out: readers need no guards.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from esgf_gossip.esgf.health import Health
from esgf_gossip.esgf.maintenance import Maintenance
from esgf_gossip.esgf.node_type import NodeType, node_type_names
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.resources import NOTHING_SAID, Resources
from esgf_gossip.esgf.services import Service
from esgf_gossip.views.federation import FederationView, NodeStatus, NodeView

# Maintenance has no count of its own in the contract; such nodes are in the total.
COUNTED: Final = (
    NodeStatus.UP,
    NodeStatus.SUSPECT,
    NodeStatus.UNREACHABLE,
    NodeStatus.STALE,
    NodeStatus.LEFT,
)

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# A stamp of a stranger may be any number up to 2**53; the calendar ends in the year 9999.
_LAST_MS: Final = 253_402_300_799_999


def status_body(view: FederationView) -> dict[str, Any]:
    """Return the body of ``/api/v1/status``; the node itself is counted too."""
    own = view.own
    body: dict[str, Any] = {
        "host": own.host,
        "federation": own.federation,
        "version": own.version,
        "epoch": own.epoch,
        "sequence": own.sequence,
        "root": view.root.hex(),
        "nodes": {
            "total": len(view.members),
            **{status.value: view.count(status) for status in COUNTED},
        },
        "links": own.links,
        "certificate": {"not_after": utc_text(own.certificate_not_after_ms)},
        "crl": {"age_s": own.crl_age_s},
        "started_at": utc_text(own.started_at_ms),
    }
    # Said only while something is wrong.
    if own.storage_error:
        body["storage_error"] = own.storage_error
    if own.history_error:
        body["history_error"] = own.history_error
    if own.documents_error:
        body["documents_error"] = own.documents_error
    if own.datasets_error:
        body["datasets_error"] = own.datasets_error
    if own.publishing_stopped:
        body["publishing_stopped"] = own.publishing_stopped
    if own.trust_error or own.trust_alarms:
        body["trust"] = {"error": own.trust_error, "alarms": list(own.trust_alarms)}
    if own.list_alarms:
        body["lists"] = {"alarms": list(own.list_alarms)}
    if own.datasets.needs_attention:
        body["datasets"] = own.datasets.body()
    if own.tracking is not None:
        body["tracking"] = own.tracking.body()
    if own.tasks is not None:
        body["tasks"] = own.tasks.body()
    return body


def nodes_body(view: FederationView, wanted: Wanted | None = None) -> list[dict[str, Any]]:
    """Return the body of ``/api/v1/nodes``: one object per node that is asked for, in the order of the view."""
    return [node_body(node) for node in view.nodes if wanted is None or wanted.is_wanted(node)]


def node_body(node: NodeView) -> dict[str, Any]:
    """Return the body of ``/api/v1/nodes/<host>``."""
    registration = node.registration
    return {
        "host": node.host,
        "status": node.status.value,
        "since": utc_text(node.since_ms),
        "short_name": registration.short_name if registration else "",
        "long_name": registration.long_name if registration else "",
        "organization": registration.organization if registration else "",
        "peer_group": ",".join(registration.peer_groups) if registration else "",
        "peer_groups_refused": list(node.groups_refused),
        "excluded": _excluded(node.excluded),
        "node_types": list(node.node_types),
        "location": _location(registration) if registration else None,
        "epoch": node.epoch,
        "sequence": node.sequence,
        "issued_at": utc_text(node.issued_at_ms),
        "expires_at": utc_text(node.expires_at_ms),
        "forked": node.forked,
        "services": _services(node),
        "metrics": {} if node.metrics is None else node.metrics.numbers(),
        "resources": _resources(node.resources),
        "maintenance": window_body(node.maintenance),
    }


def window_body(window: Maintenance | None) -> dict[str, Any] | None:
    """Return a window as JSON, None for none."""
    if window is None:
        return None
    return {
        "begins_at": utc_text(window.begins_ms),
        "ends_at": utc_text(window.ends_ms),
        "reason": window.reason,
        "types": list(window.types),
    }


@attrs.frozen
class Wanted:
    """
    Which nodes and services are asked for; the default asks for all.

    Args:
        type: of the service, in any case; empty: any.
        health: of the service; empty: any.
        min_cores_free: the node has at least so many cores that are not busy, and says so; None: whatever it has.
        status: of the node; empty: any.
        node_type: one of its types; empty: any.
    """

    type: str = ""
    health: str = ""
    min_cores_free: int | None = None
    status: str = ""
    node_type: str = ""

    def is_wanted(self, node: NodeView) -> bool:
        """Tell whether a node is asked for."""
        return (
            self.has_room(node)
            and self.status in ("", node.status.value)
            and (not self.node_type or self.node_type in node.node_types)
        )

    def has_room(self, node: NodeView) -> bool:
        """Tell whether a node has the cores asked for."""
        free = node.resources.cores_free
        return self.min_cores_free is None or (free is not None and free >= self.min_cores_free)

    def services(self, node: NodeView) -> list[dict[str, Any]]:
        """Return the services of a node that are asked for; none where it is no member now."""
        if node.is_gone or not self.has_room(node):
            return []
        return [
            service
            for service in _services(node)
            if self.type.lower() in ("", service["type"].lower()) and self.health in ("", service["health"])
        ]


def services_body(view: FederationView, wanted: Wanted) -> list[dict[str, Any]]:
    """Return the body of ``/api/v1/services``: one object per service of the nodes that are members now."""
    return [
        {"host": node.host, "node_status": node.status.value, **service}
        for node in view.nodes
        for service in wanted.services(node)
    ]


def resources_body(view: FederationView, wanted: Wanted) -> list[dict[str, Any]]:
    """Return who has room: one object per node that has a service asked for and tells its resources, most cores first."""
    rows = [
        {"host": node.host, "status": node.status.value, "resources": _resources(node.resources)}
        for node in view.nodes
        if node.resources != NOTHING_SAID and wanted.services(node)
    ]
    return sorted(rows, key=lambda row: -int(row["resources"].get("cores_free", -1)))


def json_bytes(body: Any) -> bytes:
    """
    Encode a body: one line of ASCII, equal bodies give equal bytes.

    ASCII, because a text of a stranger may hold half a surrogate pair, which
    UTF-8 cannot say, or a separator that some clients take for a line end.

    Raises:
        ValueError: the body holds NaN or an infinity, which JSON cannot say.
    """
    return json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def utc_text(unix_ms: int) -> str:
    """Write Unix milliseconds as RFC 3339 in UTC; what is beyond the calendar becomes its last moment."""
    moment = _UNIX_EPOCH + timedelta(milliseconds=min(max(unix_ms, 0), _LAST_MS))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def stamp_ms(text: str) -> int:
    """Read a time of our own JSON, or another RFC 3339, back into Unix milliseconds; raises ValueError for none."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def plain_utc(unix_ms: int) -> str:
    """Write a time for a person, to the second, UTC, as commands do and time fields read it."""
    moment = _UNIX_EPOCH + timedelta(milliseconds=min(max(unix_ms, 0), _LAST_MS))
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _excluded(types: NodeType) -> list[str]:
    return [*node_type_names(types), *(["private"] if types & NodeType.PRIVATE else [])]


def _location(registration: Registration) -> dict[str, Any] | None:
    """Return where to draw the node, or None: half a point or a NaN draws nothing."""
    place = registration.location
    if place.lat is None or place.lon is None or not (math.isfinite(place.lat) and math.isfinite(place.lon)):
        return None
    return {"lat": place.lat, "lon": place.lon, "city": place.city}


def _services(node: NodeView) -> list[dict[str, Any]]:
    return [_service(node, service) for service in node.services]


def _resources(said: Resources) -> dict[str, Any]:
    if said == NOTHING_SAID:
        return {}
    return {**said.numbers(), "compute_endpoints": list(said.compute_endpoints)}


def _service(node: NodeView, service: Service) -> dict[str, Any]:
    found = node.health_of(service.type)
    return {
        "type": service.type,
        "endpoint": service.endpoint,
        "health": found.health.value,
        "since": None if found.since_ms is None else utc_text(found.since_ms),
        "reason": found.reason if found.health is Health.DOWN else "",
    }
