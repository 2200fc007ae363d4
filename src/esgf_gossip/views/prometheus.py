"""
The FederationView as Prometheus reads it: one page of numbers, named by its conventions.

Pure: nothing is counted here, each number is one of the view. Source: docs/monitoring.md, which names them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from esgf_gossip.esgf.health import Health
from esgf_gossip.views.federation import (
    DatasetCounts,
    FederationView,
    NodeStatus,
    NodeView,
    TrackingState,
)
from esgf_gossip.views.task_counts import TaskCounts

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_HOST: Final = ["host"]
# What a node tells of itself: our name, its name here, what it is.
_NUMBERS: Final = {
    "download_count": ("downloads", "Finished downloads at a node, as it tells them."),
    "download_bytes": ("download_bytes", "Bytes of finished downloads at a node."),
    "download_users": ("download_users", "Users with finished downloads at a node."),
    "registered_users": ("registered_users", "Accounts at a node."),
}
_ROOM: Final = {
    "cores": ("cores", "Processors of a node's host."),
    "cores_free": ("cores_free", "Processors of a node's host that are not busy, in coarse steps."),
    "memory_bytes": ("memory_bytes", "Main memory of a node's host."),
    "memory_free_bytes": ("memory_free_bytes", "Main memory that programs could have, in coarse steps."),
    "storage_bytes": ("storage_bytes", "Size of the file systems with a node's data."),
    "storage_free_bytes": ("storage_free_bytes", "Free space there, in coarse steps."),
}


def prometheus_page(view: FederationView) -> bytes:
    """Return the body of ``/metrics``: equal views give equal bytes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OfView(view))
    page: bytes = generate_latest(registry)
    return page


class _OfView(Collector):
    def __init__(self, view: FederationView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        yield from _of_daemon(self._view)
        yield from _of_nodes(self._view.nodes)


def _of_daemon(view: FederationView) -> Iterator[Metric]:
    own = view.own
    yield InfoMetricFamily(
        "esgf_gossip_build", "The program that runs.", {"version": own.version, "federation": own.federation}
    )
    yield InfoMetricFamily(
        "esgf_gossip_root",
        "The hash over all statements held; equal on all nodes that hold the same set.",
        {"root": view.root.hex()},
    )
    counts = GaugeMetricFamily("esgf_gossip_nodes", "Nodes known, by status.", labels=["status"])
    for status in NodeStatus:
        counts.add_metric([status.value], view.count(status))
    yield counts
    yield _one("esgf_gossip_links", "Standing links to peers.", own.links)
    yield _one(
        "esgf_gossip_start_time_seconds", "When the daemon started, Unix time.", own.started_at_ms / 1000
    )
    yield _one(
        "esgf_gossip_certificate_expiry_timestamp_seconds",
        "When this node's certificate ends, Unix time.",
        own.certificate_not_after_ms / 1000,
    )
    yield _one("esgf_gossip_crl_age_seconds", "Age of the oldest revocation list in force.", own.crl_age_s)
    yield _one(
        "esgf_gossip_list_guard_active",
        "Lists kept as they were because too much would vanish.",
        len(own.list_alarms),
    )
    yield _one(
        "esgf_gossip_trust_alarms", "Alarms of trust that an administrator must see.", len(own.trust_alarms)
    )
    documents = GaugeMetricFamily("esgf_gossip_documents", "Metadata documents, by state.", labels=["state"])
    documents.add_metric(["current"], own.documents.current)
    documents.add_metric(["conflict"], own.documents.conflict)
    documents.add_metric(["deleted"], own.documents.deleted)
    yield documents
    yield _one("esgf_gossip_document_versions", "Versions of metadata documents.", own.documents.versions)
    yield _one(
        "esgf_gossip_document_leaves_refused",
        "Leaves in logs of documents that do not count.",
        own.documents.refused,
    )
    yield from _of_datasets(own.datasets)
    faults = GaugeMetricFamily(
        "esgf_gossip_fault", "1 while a part of the daemon is at fault.", labels=["part"]
    )
    faults.add_metric(["storage"], bool(own.storage_error))
    faults.add_metric(["history"], bool(own.history_error))
    faults.add_metric(["documents"], bool(own.documents_error))
    faults.add_metric(["datasets"], bool(own.datasets_error))
    if own.tracking is not None:
        faults.add_metric(["tracking"], bool(own.tracking.faults))
        yield from _of_tracking(own.tracking)
    faults.add_metric(["publishing"], bool(own.publishing_stopped))
    faults.add_metric(["trust"], bool(own.trust_error))
    if own.tasks is not None:
        faults.add_metric(["tasks"], bool(own.tasks.error))
        yield from _of_tasks(own.tasks)
    yield faults


def _of_tracking(tracking: TrackingState) -> Iterator[Metric]:
    figures = GaugeMetricFamily(
        "esgf_gossip_tracking",
        "What parts of tracking have done since the start, or hold.",
        labels=["part", "figure"],
    )
    for part, found in tracking.figures.items():
        for name, value in found.items():
            figures.add_metric([part, name], value)
    yield figures


def _of_datasets(datasets: DatasetCounts) -> Iterator[Metric]:
    events = GaugeMetricFamily(
        "esgf_gossip_dataset_events", "Events of datasets that count, by type.", labels=["type"]
    )
    for kind in datasets.events:
        events.add_metric([kind], datasets.events[kind])
    yield events
    yield _one(
        "esgf_gossip_dataset_events_quarantined",
        "Events of datasets that do not count, as far as they are kept.",
        datasets.quarantined,
    )
    yield _one(
        "esgf_gossip_dataset_events_dropped",
        "Events of datasets that were not kept: their origins said too much.",
        datasets.dropped,
    )
    yield _one(
        "esgf_gossip_dataset_leaves_unreadable",
        "Leaves in logs of datasets that say nothing.",
        datasets.unreadable,
    )
    yield _one(
        "esgf_gossip_stale_replicas",
        "Copies this node still serves of versions whose original is retracted.",
        datasets.stale_replicas,
    )
    yield _one(
        "esgf_gossip_foreign_claims",
        "Originals this node serves and another node claims.",
        datasets.foreign_claims,
    )


def _of_tasks(tasks: TaskCounts) -> Iterator[Metric]:
    counts = GaugeMetricFamily("esgf_gossip_tasks", "Tasks of the queue, by state.", labels=["state"])
    for state in ("waiting", "running", "done", "failed"):
        counts.add_metric([state], getattr(tasks, state))
    yield counts
    yield _one(
        "esgf_gossip_tasks_oldest_age_seconds",
        "For how long the oldest task at hand has waited; 0 where there is none.",
        tasks.oldest_age_s,
    )


def _of_nodes(nodes: Iterable[NodeView]) -> Iterator[Metric]:
    status = GaugeMetricFamily(
        "esgf_gossip_node_status", "1 for the status that a node has.", labels=["host", "status"]
    )
    since = GaugeMetricFamily(
        "esgf_gossip_node_status_since_timestamp_seconds", "Since when it has it, Unix time.", labels=_HOST
    )
    forked = GaugeMetricFamily(
        "esgf_gossip_node_forked", "1 where a node's key was used twice.", labels=_HOST
    )
    health = GaugeMetricFamily(
        "esgf_gossip_service_up",
        "1 while a service is up, 0 while it is down or in maintenance; none where nobody looked.",
        labels=["host", "type"],
    )
    numbers = {name: _of_hosts(*said) for name, said in {**_NUMBERS, **_ROOM}.items()}
    for node in nodes:
        status.add_metric([node.host, node.status.value], 1)
        since.add_metric([node.host], node.since_ms / 1000)
        forked.add_metric([node.host], node.forked)
        for service in node.services:
            found = node.health_of(service.type).health
            if found is not Health.UNKNOWN:
                health.add_metric([node.host, service.type], found is Health.UP)
        told = {**(node.metrics.numbers() if node.metrics else {}), **node.resources.numbers()}
        for name, family in numbers.items():
            if name in told:
                family.add_metric([node.host], told[name])
    yield from (status, since, forked, health)
    yield from numbers.values()


def _of_hosts(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"esgf_gossip_node_{name}", what, labels=_HOST)


def _one(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)
