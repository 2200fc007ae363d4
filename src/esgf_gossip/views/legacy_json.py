"""
What clients of the Python node manager ask for, in its shapes: properties of all nodes, metrics, a health check.

Pure. Only what the nodes publish is shown; the old manager sent the whole of ``esgf.properties`` to anybody.
Source: docs/http.md, "Earlier node managers".
"""

from __future__ import annotations

from typing import Any, Final

from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.views.federation import FederationView, NodeView

GOOD: Final = "GOOD"
# Our names of download numbers, and theirs.
_OLD_NAMES: Final = {
    "download_count": "download.count",
    "download_bytes": "download.bytes",
    "download_users": "download.users",
    "registered_users": "users_count",
}


def node_properties(view: FederationView) -> dict[str, Any]:
    """Return the body of ``node-props.json``: host to properties, and ``ts_all``, the time in ms as a text."""
    bodies: dict[str, Any] = {node.host: _properties(node) for node in view.nodes if node.is_listed}
    return {**bodies, "ts_all": str(view.at_ms)}


def metrics(view: FederationView) -> dict[str, str] | None:
    """Return the body of ``metrics.json``: texts, as always; None where this node publishes no metrics."""
    own = view.node(view.own.host)
    if own is None or own.metrics is None:
        return None
    return _metrics(own.metrics)


def health_check(view: FederationView) -> dict[str, str]:
    """Return the body of ``health-check-api``: own properties and metrics, and that this node is well: it answers."""
    own = view.node(view.own.host)
    properties = {} if own is None else _properties(own)
    return {**properties, **(metrics(view) or {}), "action": "node_properties", "status": GOOD}


def _properties(node: NodeView) -> dict[str, str]:
    return {} if node.registration is None else dict(node.registration.properties)


def _metrics(said: Metrics) -> dict[str, str]:
    numbers = said.numbers()
    return {old: str(numbers[name]) for name, old in _OLD_NAMES.items() if name in numbers}
