"""
What the page Federation shows: rows of a table that can be sorted and filtered, counts, marks on the map.

Pure: from a view, and what nodes say of their trust, to values for the template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import attrs

from esgf_gossip.esgf.health import Health
from esgf_gossip.views.federation import SEVERITY, FederationView, NodeStatus, NodeView
from esgf_gossip.web.dashboard.trust import DAY_MS, TrustRow
from esgf_gossip.web.questions import NODE_TYPES

QUERY_CHARACTERS: Final = 100
_PLACE: Final = {status: place for place, status in enumerate(SEVERITY)}
_NOWHERE: Final = 2**62


@attrs.frozen
class Row:
    """One node as the table shows it."""

    node: NodeView
    trust: TrustRow | None

    @property
    def short_name(self) -> str:
        """Return its short name, empty where that is its host."""
        name = "" if self.node.registration is None else self.node.registration.short_name
        return "" if name == self.node.host else name

    @property
    def organization(self) -> str:
        """Return its organization, empty where it names none."""
        return "" if self.node.registration is None else self.node.registration.organization

    @property
    def groups(self) -> str:
        """Return its peer groups."""
        return "" if self.node.registration is None else ", ".join(self.node.registration.peer_groups)

    @property
    def types(self) -> tuple[str, ...]:
        """Return its types."""
        return self.node.node_types

    @property
    def health(self) -> Counter[Health]:
        """Count its services by health."""
        return Counter(self.node.health_of(service.type).health for service in self.node.services)

    @property
    def downloads(self) -> int | None:
        """Return how many downloads it counted."""
        return None if self.node.metrics is None else self.node.metrics.download_count

    def holds(self, word: str) -> bool:
        """Tell whether a word stands in what identifies the node, in any case."""
        place = "" if self.node.registration is None else self.node.registration.location.city
        texts = (self.node.host, self.short_name, self.organization, self.groups, " ".join(self.types), place)
        return any(word in text.lower() for text in texts)


_SORTS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "host": lambda row: row.node.host,
    "organization": lambda row: row.organization.lower(),
    "groups": lambda row: row.groups.lower(),
    "types": lambda row: row.types,
    "status": lambda row: _PLACE[row.node.status],
    "since": lambda row: -row.node.since_ms,
    "services": lambda row: (-row.health[Health.DOWN], -row.health[Health.UP]),
    "certificate": lambda row: row.trust.not_after_ms or _NOWHERE if row.trust else _NOWHERE,
    "downloads": lambda row: -(row.downloads if row.downloads is not None else -1),
}
SORTS: Final = tuple(_SORTS)


@attrs.frozen
class TableQuery:
    """How the table is asked for; what is not known is as if not said: a link from an old page must not fail."""

    words: str = ""
    status: str = ""
    kind: str = ""
    sort: str = ""
    is_descending: bool = False
    at: str = ""

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> TableQuery:
        """Read the parameters of a request."""
        status, sort = fields.get("status", ""), fields.get("sort", "")
        return cls(
            words=fields.get("q", "")[:QUERY_CHARACTERS],
            status=status if status in {one.value for one in NodeStatus} else "",
            kind=fields.get("type", "") if fields.get("type", "") in NODE_TYPES else "",
            sort=sort if sort in _SORTS else "",
            is_descending=fields.get("order") == "desc",
            at=fields.get("at", "")[:QUERY_CHARACTERS],
        )

    @property
    def is_plain(self) -> bool:
        """Tell whether nothing special is asked for."""
        return self == TableQuery()

    def link(self, **changes: str) -> str:
        """Return the query of a link that changes some of it; empty parts are left out."""
        fields = {
            "q": self.words,
            "status": self.status,
            "type": self.kind,
            "sort": self.sort,
            "order": "desc" if self.is_descending else "",
            "at": self.at,
            **changes,
        }
        # A place may be a text of a stranger, with half a surrogate pair in it.
        return "/?" + urlencode({name: text for name, text in fields.items() if text}, errors="replace")

    def sort_link(self, name: str) -> str:
        """Return the link of a column's head: by this column, the other way round where that is so already."""
        is_again = self.sort == name and not self.is_descending
        return self.link(sort=name, order="desc" if is_again else "")

    def direction(self, name: str) -> str:
        """Return the word of ``aria-sort`` for a column."""
        if self.sort != name:
            return "none"
        return "descending" if self.is_descending else "ascending"


def rows(view: FederationView, trust: Mapping[str, TrustRow], query: TableQuery) -> list[Row]:
    """Return the rows asked for: by default those that need somebody's eye first, then by host."""
    words = query.words.lower().split()
    found = [
        row
        for row in (Row(node, trust.get(node.host)) for node in view.nodes)
        if (not query.status or row.node.status.value == query.status)
        and (not query.kind or query.kind in row.types)
        and all(row.holds(word) for word in words)
    ]
    found.sort(key=lambda row: row.node.host)
    found.sort(key=_SORTS[query.sort or "status"], reverse=query.is_descending)
    return found


def counts(view: FederationView) -> list[tuple[NodeStatus, int]]:
    """Count nodes by status: those that there are, ``up`` always, the worst first."""
    numbers = Counter(node.status for node in view.nodes)
    return [(status, numbers[status]) for status in SEVERITY if numbers[status] or status is NodeStatus.UP]


def next_to_end(view: FederationView, trust: Mapping[str, TrustRow]) -> list[TrustRow]:
    """
    Return the first certificate to end and those that end within a day of it; none where nobody tells.

    Of those in use: what stale nodes had is of no interest.

    Args:
        view: who is a member.
        trust: what each says, the first to end first.
    """
    in_use = {node.host for node in view.members if not node.is_gone}
    rows = [(row.not_after_ms, row) for row in trust.values() if row.host in in_use]
    ends = [(end_ms, row) for end_ms, row in rows if end_ms is not None]
    return [row for end_ms, row in ends if end_ms - ends[0][0] < DAY_MS]


def service_health(nodes: Sequence[NodeView]) -> Counter[Health]:
    """Count the services of members by health."""
    return Counter(
        node.health_of(service.type).health for node in nodes if not node.is_gone for service in node.services
    )
