"""Resources of hosts: read from the system, told in coarse steps, asked for by who needs room."""

from __future__ import annotations

import os
import shutil
import threading

import attrs
import msgpack
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from esgf_gossip.cli import node_commands
from esgf_gossip.cli.main import program
from esgf_gossip.cli.tables import size_text
from esgf_gossip.esgf.bodies import BodyError
from esgf_gossip.esgf.metrics import OWN_NAMES, Metrics, MetricsError, parse_own
from esgf_gossip.esgf.metrics import from_body as metrics_from_body
from esgf_gossip.esgf.metrics import to_body as metrics_body
from esgf_gossip.esgf.resources import NOTHING_SAID, NUMBER_MAX, Resources, from_body, to_body
from esgf_gossip.sources import host as host_module
from esgf_gossip.sources.gauge import Gauge, SourceError, in_thread
from esgf_gossip.sources.host import read_host
from esgf_gossip.sources.metrics_files import read_own
from esgf_gossip.views.federation import FederationView, NodeStatus, OwnState
from esgf_gossip.views.node_json import (
    Wanted,
    json_bytes,
    node_body,
    nodes_body,
    resources_body,
    services_body,
)
from esgf_gossip.web.questions import OF_NODES, OF_SERVICES, QuestionError, wanted
from helpers.site import FULL_HOST, a_view, demo_site

AMOUNT = st.none() | st.integers(0, NUMBER_MAX)
RESOURCES = st.builds(
    Resources, AMOUNT, AMOUNT, AMOUNT, AMOUNT, AMOUNT, AMOUNT,
    st.lists(st.text(max_size=40), max_size=16).map(tuple),
)  # fmt: skip
OWN = OwnState(FULL_HOST, "f", "0", 1, 1, 0, 0, 0, 0)


@given(RESOURCES)
def test_a_body_says_what_was_put_in(resources):
    """Writing and reading is the identity."""
    assert from_body(to_body(resources)) == resources


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"resources": []},
        {"resources": {"cores": -1}},
        {"resources": {"cores": True}},
        {"resources": {"memory_bytes": 2**63}},
        {"resources": {"compute_endpoints": "https://x"}},
        {"resources": {"compute_endpoints": ["https://x"] * 17}},
        {"resources": {"compute_endpoints": ["x" * 2049]}},
        {"resources": {"compute_endpoints": [1]}},
    ],
)
def test_what_is_out_of_bounds_is_one_error(said):
    """Neither wrong numbers nor too many endpoints are taken."""
    with pytest.raises(BodyError):
        from_body(msgpack.packb(said))


@given(st.binary(max_size=80))
def test_any_bytes_are_resources_or_one_error(body):
    """A stranger's bytes never raise anything else, and what they give can be shown."""
    try:
        found = from_body(body)
    except BodyError:
        return
    assert json_bytes(node_body(a_view(None, resources=found)))


@given(RESOURCES, RESOURCES)
def test_what_is_told_is_within_a_step_of_what_is(found, told):
    """Told again it does not move: a value that trembles around a boundary is told once."""
    step = max(1, (found.memory_bytes or 0) // 16)
    coarse = found.coarse(told)
    if found.memory_free_bytes is None:
        assert coarse.memory_free_bytes is None
    else:
        assert abs(coarse.memory_free_bytes - found.memory_free_bytes) < step
    assert found.coarse(coarse) == coarse
    assert (coarse.cores, coarse.memory_bytes) == (found.cores, found.memory_bytes)


def test_a_trembling_host_changes_nothing_and_a_full_one_does():
    """Half a step up and down is not told; a step is."""
    size = 16 * 2**30
    told = Resources(32, 3, size, 8 * 2**30).coarse(NOTHING_SAID)
    assert (told.load, told.memory_free_bytes) == (2, 8 * 2**30)
    for load, free in ((3, 8.4), (1, 7.6), (3, 7.1)):
        assert Resources(32, load, size, int(free * 2**30)).coarse(told) == told
    assert Resources(32, 4, size, 8 * 2**30).coarse(told).load == 4
    assert Resources(32, 2, size, 7 * 2**30).coarse(told).memory_free_bytes == 7 * 2**30


def test_this_host_says_what_the_system_says(tmp_path):
    """Cores, memory, and each file system once however many folders lie on it."""
    (tmp_path / "data").mkdir()
    found = read_host([tmp_path, tmp_path / "data"], ["https://x.org/wps"])
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < found.memory_free_bytes < found.memory_bytes
    assert found.storage_bytes == shutil.disk_usage(tmp_path).total
    assert found.compute_endpoints == ("https://x.org/wps",)
    assert read_host([], []).storage_bytes is None


def test_a_load_beyond_all_cores_is_told_as_twice_the_cores(monkeypatch):
    """How much more waits is of no use to who looks for room."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 9999.0, 0.0))
    found = read_host([], [])
    assert (found.load, found.cores_free) == (2 * found.cores, 0)


def test_what_the_system_does_not_say_is_one_line(tmp_path, monkeypatch):
    """A folder that is gone, a system without the file, a file with other lines."""
    with pytest.raises(SourceError, match=r"gone: No such file or directory; see \[metrics\]"):
        read_host([tmp_path / "gone"], [])
    monkeypatch.setattr(host_module, "MEMORY", tmp_path / "meminfo")
    with pytest.raises(SourceError, match="No such file"):
        read_host([], [])
    for content in (
        "",
        "MemTotal: 12 kB\n",
        "MemTotal: x\nMemAvailable: 1 kB\n",
        "MemTotal:\nMemAvailable:\n",
    ):
        (tmp_path / "meminfo").write_text(content)
        with pytest.raises(SourceError, match="has not the lines"):
            read_host([], [])


def test_a_large_federation_is_told_more_seldom():
    """The least time between two looks is the federation's."""
    clock, seen = Clock(), []
    gauge = Gauge("x", 0, lambda: None, clock, lambda: 1000.0)
    gauge.start(lambda: seen.append(1) or len(seen), 60.0, 0)
    clock.advance(999)
    assert len(seen) == 1
    clock.advance(1)
    assert len(seen) == 2


class Reactor:
    """Gathers what a thread hands over."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def callFromThread(self, call, *arguments) -> None:
        """Call at once: the test waits."""
        call(*arguments)
        self.done.set()


def test_work_in_a_thread_gives_its_value_or_its_error():
    """Both come back through the reactor."""
    for work, expected in ((lambda: 7, [7]), (lambda: 1 // 0, [ZeroDivisionError])):
        reactor, outcome = Reactor(), []
        answer = in_thread(work, reactor)
        assert reactor.done.wait(30)
        answer.addCallbacks(outcome.append, lambda failure, outcome=outcome: outcome.append(failure.type))
        assert outcome == expected


def a_federation() -> FederationView:
    """Return four nodes: busy, free, silent, and free but gone."""
    site = demo_site(FULL_HOST).registration
    rooms = (
        ("busy", Resources(8, 8, 100, 50), NodeStatus.UP),
        ("free", Resources(8, 2, 100, 50, 1000, 10, ("https://x.org/wps",)), NodeStatus.UP),
        ("mute", NOTHING_SAID, NodeStatus.UP),
        ("past", Resources(64, 0), NodeStatus.STALE),
    )
    return FederationView(
        1, b"", OWN,
        tuple(
            a_view(attrs.evolve(site, host=f"{name}.org"), resources=room, status=status)
            for name, room, status in rooms
        ),
    )  # fmt: skip


def test_who_has_room_is_found():
    """Nodes that say enough free cores; a node that says nothing has none to offer, 0 asks for those that speak."""
    view = a_federation()
    hosts = lambda rows: [row["host"] for row in rows]
    assert hosts(nodes_body(view, Wanted(min_cores_free=4))) == ["free.org", "past.org"]
    assert hosts(nodes_body(view, Wanted(min_cores_free=0))) == ["busy.org", "free.org", "past.org"]
    assert len(nodes_body(view)) == 4
    assert set(hosts(services_body(view, Wanted(min_cores_free=4)))) == {"free.org"}
    assert hosts(resources_body(view, Wanted())) == ["free.org", "busy.org"]
    assert hosts(resources_body(view, Wanted("Tape"))) == []
    assert node_body(view.nodes[1])["resources"] == {
        "cores": 8, "cores_free": 6, "load": 2, "memory_bytes": 100, "memory_free_bytes": 50,
        "storage_bytes": 1000, "storage_free_bytes": 10, "compute_endpoints": ["https://x.org/wps"],
    }  # fmt: skip
    assert node_body(view.nodes[2])["resources"] == {}


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "1000001", "9" * 400, "\u0663", " 1"])
def test_a_question_for_no_number_is_refused(text):
    """The bound and the name are said."""
    with pytest.raises(QuestionError, match="min_cores_free is a number from 0 to 1000000"):
        wanted({"min_cores_free": text}, OF_NODES)


def test_a_question_with_another_name_is_refused():
    """What can be asked is named."""
    with pytest.raises(QuestionError, match=r"no parameter 'type'; known: status, node_type, min_cores_free"):
        wanted({"type": "IndexService"}, OF_NODES)
    assert wanted({"type": "", "min_cores_free": "7"}, OF_SERVICES) == Wanted(min_cores_free=7)


def test_the_command_shows_who_has_room(monkeypatch):
    """One line a node, sizes as people read them, most free cores first."""
    asked = []

    class Daemon:
        def ask(self, command, **fields):
            asked.append((command, fields))
            return resources_body(a_federation(), Wanted())

    monkeypatch.setattr(node_commands, "daemon_of", lambda _path: Daemon())
    shown = (
        CliRunner().invoke(program, ["services", "--resources", "--min-cores-free", "0"]).stdout.splitlines()
    )
    assert asked == [("resources", {"type": "", "health": "", "min_cores_free": "0"})]
    assert shown[0].split("  ")[0] == "HOST"
    assert [line.split()[:4] for line in shown[1:]] == [
        ["free.org", "up", "6", "8"],
        ["busy.org", "up", "0", "8"],
    ]
    assert "https://x.org/wps" in shown[1]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (33_554_432_000, "34 GB"),
        (2**63, "9223 PB"),
        (None, ""),
        (True, ""),
    ],
)
def test_sizes_are_said_as_people_write_them(size, text):
    """Two digits or more, decimal units."""
    assert size_text(size) == text


# ------------------------------------------------------------------ metrics of a site's own


def test_own_metrics_are_read_from_the_files_of_others(tmp_path):
    """Prometheus' text, lines with an equals sign, comments; sorted by name."""
    first, second = tmp_path / "a.prom", tmp_path / "b"
    first.write_text("# HELP queue jobs\nqueue_jobs 7\n\n  tape_ratio 0.25\r\n")
    second.write_text("lag_s = -3\nbig=1e3\n")
    own = read_own([first, second])
    assert own == (("big", 1000.0), ("lag_s", -3), ("queue_jobs", 7), ("tape_ratio", 0.25))
    metrics = Metrics(1, 2, 3, own=own)
    assert metrics_from_body(metrics_body(metrics)) == metrics
    assert node_body(a_view(None, metrics=metrics))["metrics"] == {
        "download_count": 1, "download_bytes": 2, "download_users": 3, **dict(own),
    }  # fmt: skip
    second.write_text("queue_jobs 1")
    with pytest.raises(SourceError, match="queue_jobs stands in another file"):
        read_own([first, second])
    second.write_text("\n".join(f"x{number} 1" for number in range(OWN_NAMES)))
    with pytest.raises(SourceError, match="at most 64"):
        read_own([first, second])
    second.write_text("#" * 70_000)
    with pytest.raises(SourceError, match="more than 65536 bytes"):
        read_own([second])
    with pytest.raises(SourceError, match=str(tmp_path)):
        read_own([tmp_path])


@pytest.mark.parametrize(
    "line",
    ["x", "x y", "x NaN", "x inf", "x 1e400", "x 1 2", "X 1", "1x 1", 'x{a="b"} 1', "download_count 1", "x 1\nx 2",
     "x 99999999999999999999", "registered_users=1", "a" * 65 + " 1", "= 1"],
)  # fmt: skip
def test_a_line_that_is_no_metric_is_named(line):
    """File and line stand in the message; nothing of the file is taken."""
    with pytest.raises(MetricsError, match=r"file:[12]: "):
        parse_own(line.encode(), "file")


@given(st.binary(max_size=60))
def test_any_file_gives_metrics_that_json_can_say_or_one_error(content):
    """Whatever stands in it."""
    try:
        own = parse_own(content, "file")
    except MetricsError:
        return
    metrics = Metrics(own=tuple(sorted(own.items())))
    assert json_bytes(node_body(a_view(None, metrics=metrics_from_body(metrics_body(metrics)))))


def test_what_a_stranger_calls_a_metric_is_shown_only_where_json_can_say_it():
    """Infinities, texts, odd names and what is beyond the bound are passed over."""
    said = {"a": float("nan"), "b": float("inf"), "c": "7", "D": 1, "e": True, "f": 2**63, "g": 1, "h": -1.5}
    said.update({f"x{number}": number for number in range(100)})
    found = metrics_from_body(msgpack.packb({"metrics": said}))
    assert dict(found.own).items() >= {"g": 1, "h": -1.5}.items()
    assert not {"a", "b", "c", "D", "e"} & dict(found.own).keys()
    assert len(found.own) == OWN_NAMES
