"""The page for Prometheus: every number of the view, in its format, and what is documented of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.esgf.metrics import COUNT_MAX, Metrics
from esgf_gossip.esgf.resources import Resources
from esgf_gossip.views.federation import DatasetCounts, FederationView, NodeStatus, OwnState, TrackingState
from esgf_gossip.views.prometheus import CONTENT_TYPE, prometheus_page
from esgf_gossip.views.task_counts import TaskCounts
from esgf_gossip.web.api import PROMETHEUS
from helpers.site import FULL_HOST, a_view, demo_site

DOCS = Path(__file__).resolve().parents[2] / "docs"
SITE = demo_site(FULL_HOST).registration


def a_federation(*nodes, **own) -> FederationView:
    """Return a view of these nodes, as one of them sees it."""
    fields = {
        "host": FULL_HOST, "federation": "f", "version": "1", "epoch": 1, "sequence": 1, "links": 3,
        "started_at_ms": 1_500, "certificate_not_after_ms": 2_500, "crl_age_s": 60, **own,
    }  # fmt: skip
    return FederationView(1, b"\xab", OwnState(**fields), nodes)


FULL = a_federation(
    a_view(
        SITE,
        since_ms=4_000,
        forked=True,
        metrics=Metrics(1, 2, 3, 4, (("own_number", 7),)),
        resources=Resources(8, 2, 100, 50, 1000, 10),
        health={
            "IndexService": ServiceHealth(Health.UP, 1),
            "OpenIDProvider": ServiceHealth(Health.DOWN, 1, "x"),
            "FrontEnd": ServiceHealth(Health.MAINTENANCE, 1),
        },
    ),
    a_view(None, host="gone.example.org", status=NodeStatus.UNREACHABLE),
    list_alarms=("kept",),
    trust_error="bad",
    tasks=TaskCounts(5, 4, 3, 2, 60, "full", ("2 failed",)),
    tracking=TrackingState({"mail": "the server is away"}, {"mail": {"queued": 7}}),
    datasets=DatasetCounts({"retracted": 9}, 8, 7, 6, 5),
)


def numbers_of(view) -> dict:
    """Read the page as Prometheus does: name and labels to number."""
    page = prometheus_page(view).decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_every_number_of_the_view_is_there():
    """Of the daemon, of nodes, of services; what nobody knows is missing, not 0."""
    found = numbers_of(FULL)
    of = lambda name, **labels: found.get((f"esgf_gossip_{name}", *sorted(labels.items())))
    assert (of("links"), of("start_time_seconds"), of("crl_age_seconds")) == (3, 1.5, 60)
    assert of("certificate_expiry_timestamp_seconds") == 2.5
    assert (of("root_info", root="ab"), of("build_info", version="1", federation="f")) == (1, 1)
    assert (of("nodes", status="up"), of("nodes", status="unreachable"), of("nodes", status="left")) == (
        1,
        1,
        0,
    )
    assert (of("list_guard_active"), of("trust_alarms")) == (1, 0)
    assert (of("fault", part="trust"), of("fault", part="storage"), of("fault", part="publishing")) == (
        1,
        0,
        0,
    )
    assert of("node_status", host="gone.example.org", status="unreachable") == 1
    assert of("node_status", host=FULL_HOST, status="up") == 1
    assert of("node_status_since_timestamp_seconds", host=FULL_HOST) == 4
    assert (of("node_forked", host=FULL_HOST), of("node_forked", host="gone.example.org")) == (1, 0)
    assert of("service_up", host=FULL_HOST, type="IndexService") == 1
    assert of("service_up", host=FULL_HOST, type="OpenIDProvider") == 0
    assert of("service_up", host=FULL_HOST, type="FrontEnd") == 0
    assert of("service_up", host=FULL_HOST, type="ThreddsService") is None
    assert [of("tasks", state=one) for one in ("waiting", "running", "done", "failed")] == [5, 4, 3, 2]
    assert (of("tasks_oldest_age_seconds"), of("fault", part="tasks")) == (60, 1)
    assert (of("tracking", part="mail", figure="queued"), of("fault", part="tracking")) == (7, 1)
    assert [
        of(f"node_{name}", host=FULL_HOST) for name in ("downloads", "download_bytes", "download_users")
    ] == [1, 2, 3]
    assert (of("node_cores"), of("node_cores", host=FULL_HOST), of("node_cores_free", host=FULL_HOST)) == (
        None,
        8,
        6,
    )
    assert of("node_downloads", host="gone.example.org") is None
    assert not [key for key in found if "own_number" in key[0]]


@given(
    st.lists(st.builds(Metrics, *[st.none() | st.integers(0, COUNT_MAX)] * 4), max_size=4),
    st.integers(0, 2**53),
)
def test_any_numbers_give_a_page_that_can_be_read(metrics, stamp_ms):
    """Each sample stands once, whatever nodes tell."""
    nodes = [
        a_view(SITE, host=f"n{number}.example.org", metrics=one, since_ms=stamp_ms)
        for number, one in enumerate(metrics)
    ]
    page = prometheus_page(a_federation(*nodes)).decode()
    lines = [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines)) == len(numbers_of(a_federation(*nodes)))


def test_equal_views_give_equal_bytes():
    """The page is kept with a tag."""
    assert prometheus_page(FULL) == prometheus_page(FULL)
    assert CONTENT_TYPE == PROMETHEUS


def names_served() -> set[str]:
    """Name every sample of a full federation."""
    return {key[0] for key in numbers_of(FULL)}


def test_the_document_names_each_number_and_no_other():
    """docs/monitoring.md against the page."""
    named = re.findall(r"`(esgf_gossip_[a-z_]+)(?:\{[^`]*\})?`", (DOCS / "monitoring.md").read_text())
    assert set(named) == names_served()
    assert len(named) == len(set(named))


@pytest.mark.parametrize("file", ["prometheus-alerts.yml", "grafana-dashboard.json"])
def test_rules_and_dashboard_ask_for_what_is_served(file):
    """A number that is renamed would leave an alert that never fires."""
    asked = set(re.findall(r"esgf_gossip_[a-z_]+", (DOCS / file).read_text()))
    assert asked
    assert asked <= names_served()


def test_the_dashboard_is_whole():
    """Panels do not overlap, each has a question, the source of data is chosen at import."""
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    cells = set()
    for panel in dashboard["panels"]:
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${source}"
        place = panel["gridPos"]
        taken = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells
        assert place["x"] + place["w"] <= 24
        cells |= taken


def test_the_rules_are_those_that_the_house_promises():
    """An alert for each thing an administrator must be called for."""
    rules = (DOCS / "prometheus-alerts.yml").read_text()
    alerts = set(re.findall(r"- alert: EsgfGossip(\w+)", rules))
    promised = {
        "NodeUnreachable",
        "RootsDiffer",
        "CertificateEnds",
        "RevocationListOld",
        "ListGuardActive",
        "Forked",
    }
    assert promised <= alerts
    assert rules.count("summary:") == rules.count("severity:") == rules.count("expr:") == len(alerts)


@pytest.mark.skipif(
    shutil.which("promtool") is None and os.environ.get("CI") != "true",
    reason="promtool (package prometheus) is not installed",
)
def test_promtool_takes_rules_and_page():
    """The tool of Prometheus itself finds no fault."""
    rules = subprocess.run(
        ["promtool", "check", "rules", DOCS / "prometheus-alerts.yml"], capture_output=True, check=False
    )
    assert rules.returncode == 0, rules.stdout + rules.stderr
    page = subprocess.run(
        ["promtool", "check", "metrics"], input=prometheus_page(FULL), capture_output=True, check=False
    )
    assert page.returncode == 0, page.stdout + page.stderr
