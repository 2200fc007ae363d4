"""
Why a node is in one of the lists beside registration.xml, or is not: one sentence for each.

Pure. What is in comes from the document as it is served, so that this never tells another story than the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs

from esgf_gossip.esgf import reader_rules
from esgf_gossip.esgf.health import Health
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.views.federation import NodeStatus, NodeView
from esgf_gossip.views.lists_xml import LISTS, SHARD_FORMS, entries, lines_of

_GONE: Final = {
    NodeStatus.STALE: "its digest has expired",
    NodeStatus.LEFT: "it has left the federation",
}


@attrs.frozen
class Place:
    """Where one node stands to one list: how many lines are of it; where none, ``reason`` says why; else what to know."""

    node: NodeView
    lines: int
    reason: str

    @property
    def is_in(self) -> bool:
        """Tell whether the list names the node."""
        return self.lines > 0


def places(
    name: str, nodes: Iterable[NodeView], content: bytes, shard_form: str = SHARD_FORMS[0]
) -> list[Place]:
    """
    Return the nodes that a list names or could name, by host: those of its type or with its service.

    Args:
        name: one of ``LISTS``.
        nodes: of a view.
        content: the list as it is served.
        shard_form: one of ``SHARD_FORMS``, as the list was written.
    """
    rule = LISTS[name]
    listed = lines_of(content)
    found = []
    for node in sorted(nodes, key=lambda one: one.host):
        # Judged as if nothing kept it out, so that what keeps it out can be told.
        freed = attrs.evolve(node, status=NodeStatus.UP, excluded=NodeType(0))
        wanted = entries(name, [freed], shard_form)
        has_service = any(service.type == rule.service for service in node.services)
        if not wanted and not has_service and (node.registration is not None or not node.registration_error):
            continue
        count = sum(line in listed for line in wanted)
        if node.is_gone or node.excluded & (rule.type | NodeType.PRIVATE):
            count = 0
        found.append(Place(node, count, _reason(name, node, bool(wanted), count)))
    return found


def list_body(name: str, found: Iterable[Place]) -> dict[str, Any]:
    """Return one list as JSON: ``name``, the ``service`` it lists, ``listed`` and ``left_out``, each with host and reason."""
    rows = [(place.is_in, {"host": place.node.host, "reason": place.reason}) for place in found]
    return {
        "name": name,
        "service": LISTS[name].service,
        "listed": [row for is_in, row in rows if is_in],
        "left_out": [row for is_in, row in rows if not is_in],
    }


def _reason(name: str, node: NodeView, has_lines: bool, count: int) -> str:
    rule = LISTS[name]
    health = node.health_of(rule.service)
    if node.status in _GONE:
        return _GONE[node.status]
    if node.registration is None:
        return f"its registration cannot be read: {node.registration_error}"
    if node.excluded & NodeType.PRIVATE:
        return "this site leaves it out of all its files"
    if node.excluded & rule.type:
        return "this site leaves it out of this file (esgf_excludes.txt)"
    if not reader_rules.is_host_name(node.host):
        return "its name is no DNS name"
    if not has_lines:
        return f"its {rule.service} names nothing that readers of this file can use"
    is_down = health.health in (Health.DOWN, Health.MAINTENANCE)
    is_planned = health.health is Health.MAINTENANCE
    state = "in maintenance" if is_planned else "down"
    joint = " " if is_planned else ": "
    why = f"{rule.service} is {state}" + (f"{joint}{health.reason}" if health.reason else "")
    if not count:
        return why if is_down else "the file is not written yet"
    if is_down:
        return f"{why}; it stays listed: this file does not drop what is down{'' if is_planned else ', or too much is down at once'}"
    if node.status is NodeStatus.UNREACHABLE:
        return f"the node is unreachable, but nobody says that its {rule.service} is down, so it stays listed"
    return ""
