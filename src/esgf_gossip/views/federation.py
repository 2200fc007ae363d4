"""
The FederationView: an immutable picture of the registry, judged by local clock and policy.

Only the picture lives here; how it looks as XML, JSON or a table is its
neighbours' work. Who builds it: esgf_gossip.views.judgement.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import attrs

from esgf_gossip.esgf.health import NEVER_PROBED, NOTHING_KNOWN, Health, HealthByType, ServiceHealth
from esgf_gossip.esgf.maintenance import Maintenance
from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.esgf.node_type import NO_TYPE, NodeType
from esgf_gossip.esgf.observations import Observations
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.resources import NOTHING_SAID, Resources
from esgf_gossip.esgf.services import Service
from esgf_gossip.views.task_counts import TaskCounts


class NodeStatus(Enum):
    """The status of a node as every list and page names it."""

    UP = "up"
    SUSPECT = "suspect"
    UNREACHABLE = "unreachable"
    STALE = "stale"
    MAINTENANCE = "maintenance"
    LEFT = "left"
    # No member: the administrator of this node vouches for it, in registration_static.xml.
    STATIC = "static"


# The worst first, wherever nodes stand in that order or one mark stands for several.
SEVERITY: Final = (
    NodeStatus.UNREACHABLE,
    NodeStatus.SUSPECT,
    NodeStatus.STALE,
    NodeStatus.MAINTENANCE,
    NodeStatus.LEFT,
    NodeStatus.UP,
    NodeStatus.STATIC,
)


@attrs.frozen
class NodeView:
    """
    One node as this daemon sees it; ``*_ms`` are Unix milliseconds, UTC.

    ``registration`` is None where the node published none or one that cannot
    be read (``registration_error`` then says why). ``registration_issued_at_ms``
    is issued_at of the digest that last changed the registration. ``groups_refused``
    are the peer groups it claims and its certificate does not grant: ``registration`` is without them.
    ``excluded`` are the types of which this site leaves it out of its own files. ``health`` is what the node says
    of its own services, by type; ``metrics`` are its numbers, None where it tells none, ``resources`` what it has room for.
    ``outside`` are those of its services that a quorum of others sees to be down, ``observations``
    what it sees of others; None where it does not look. ``maintenance`` is the window it announced, until its end.
    """

    host: str
    status: NodeStatus
    since_ms: int
    epoch: int
    sequence: int
    issued_at_ms: int
    expires_at_ms: int
    contact: tuple[str, int]
    registration: Registration | None
    registration_issued_at_ms: int
    registration_error: str = ""
    forked: bool = False
    groups_refused: tuple[str, ...] = ()
    excluded: NodeType = NO_TYPE
    health: HealthByType = NOTHING_KNOWN
    metrics: Metrics | None = None
    resources: Resources = NOTHING_SAID
    outside: HealthByType = NOTHING_KNOWN
    observations: Observations | None = None
    maintenance: Maintenance | None = None

    @property
    def is_gone(self) -> bool:
        """Tell whether the node takes no part any more: expired, or left."""
        return self.status in (NodeStatus.STALE, NodeStatus.LEFT)

    @property
    def services(self) -> tuple[Service, ...]:
        """Return the services it offers."""
        return () if self.registration is None else self.registration.services

    @property
    def node_types(self) -> tuple[str, ...]:
        """Name its types: data, index, idp, compute."""
        return () if self.registration is None else self.registration.node_types

    @property
    def is_listed(self) -> bool:
        """Tell whether the node belongs into the files that ESGF programs read."""
        return self.registration is not None and not self.is_gone and not self.excluded & NodeType.PRIVATE

    def health_of(self, service_type: str) -> ServiceHealth:
        """Return the health of one of its services: down if it says so or a quorum of others; unknown where nobody looked."""
        own = self.health.get(service_type, NEVER_PROBED)
        if own.health in (Health.DOWN, Health.MAINTENANCE):
            return own
        return self.outside.get(service_type, own)

    def service_health(self) -> dict[str, ServiceHealth]:
        """Return the health of the services it offers by type, of those somebody has looked at."""
        looked_at = self.health.keys() | self.outside.keys()
        return {one.type: self.health_of(one.type) for one in self.services if one.type in looked_at}


@attrs.frozen
class DocumentCounts:
    """How many metadata documents there are, by state, their versions, and leaves that do not count."""

    current: int = 0
    conflict: int = 0
    deleted: int = 0
    versions: int = 0
    refused: int = 0


@attrs.frozen
class TrackingState:
    """
    What tracking does on this node.

    ``faults``: what an operator must mend, by part. ``figures``: what each part has done since the start, or holds.
    """

    faults: Mapping[str, str]
    figures: Mapping[str, Mapping[str, int]]

    def body(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"faults": dict(self.faults), **{name: dict(found) for name, found in self.figures.items()}}


@attrs.frozen
class DatasetCounts:
    """
    The events of datasets in numbers.

    Args:
        events: that count, by type.
        quarantined: that do not count, as far as they are kept.
        dropped: that were not kept: their origins said too much.
        unreadable: leaves that say nothing.
        stale_replicas: copies that this node still serves of versions whose original is retracted.
        stale_names: some of them, as ``DATASET.vVERSION|DATA_NODE``, the latest first.
        foreign_claims: originals that this node serves and another claims.
        foreign_claim_names: some of them, as ``NODE claims DATASET.vVERSION|DATA_NODE``, the latest first.
    """

    events: Mapping[str, int] = attrs.field(factory=dict)
    quarantined: int = 0
    dropped: int = 0
    unreadable: int = 0
    stale_replicas: int = 0
    stale_names: tuple[str, ...] = ()
    foreign_claims: int = 0
    foreign_claim_names: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """How many count."""
        return sum(self.events.values())

    @property
    def needs_attention(self) -> bool:
        """Tell whether an administrator should look at them."""
        return bool(
            self.quarantined or self.dropped or self.unreadable or self.stale_replicas or self.foreign_claims
        )

    def body(self) -> dict[str, Any]:
        """Return what ``status`` says of them."""
        return {
            "events": self.total,
            "quarantined": self.quarantined,
            "dropped": self.dropped,
            "unreadable": self.unreadable,
            "stale_replicas": self.stale_replicas,
            "stale_replica_names": list(self.stale_names),
            "foreign_claims": self.foreign_claims,
            "foreign_claim_names": list(self.foreign_claim_names),
        }


@attrs.frozen
class OwnState:
    """
    What a daemon says of itself: the body of ``/api/v1/status`` but for the counts.

    ``storage_error``, ``history_error``, ``documents_error``, ``datasets_error``, ``publishing_stopped`` and
    ``trust_error`` are one line each while something is wrong, else empty; ``trust_alarms`` and ``list_alarms`` are what an administrator must see.
    ``tasks`` is the task queue, None where it is switched off.
    """

    host: str
    federation: str
    version: str
    epoch: int
    sequence: int
    links: int
    started_at_ms: int
    certificate_not_after_ms: int
    crl_age_s: int
    storage_error: str = ""
    publishing_stopped: str = ""
    trust_error: str = ""
    trust_alarms: tuple[str, ...] = ()
    list_alarms: tuple[str, ...] = ()
    history_error: str = ""
    tasks: TaskCounts | None = None
    documents_error: str = ""
    documents: DocumentCounts = DocumentCounts()
    datasets_error: str = ""
    datasets: DatasetCounts = DatasetCounts()
    tracking: TrackingState | None = None


@attrs.frozen
class FederationView:
    """All nodes at one instant, sorted by host, static ones too; ``root`` is the hash over all digest lines."""

    at_ms: int
    root: bytes
    own: OwnState
    nodes: tuple[NodeView, ...]

    def node(self, host: str) -> NodeView | None:
        """Return the node of that name, or None."""
        return next((node for node in self.nodes if node.host == host), None)

    @property
    def newest_ms(self) -> int:
        """Return when the newest digest was issued, 0 where there is none."""
        return max((node.issued_at_ms for node in self.nodes), default=0)

    @property
    def members(self) -> list[NodeView]:
        """Return those that the federation knows: all but the static ones of this site."""
        return [node for node in self.nodes if node.status is not NodeStatus.STATIC]

    def count(self, status: NodeStatus) -> int:
        """Count the nodes of one status."""
        return sum(node.status is status for node in self.nodes)
