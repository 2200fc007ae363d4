"""
What a federation costs: at rest, and per change.

No reader of ours is connected meanwhile; control sockets are no network. Bytes
are IP bytes on the loopback device of the federation's own network namespace,
what serf's were counted as too.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.core.digests import decode_digest
from esgf_gossip.storage.database import FILE_NAME, Database
from esgf_gossip.views.judgement import REGISTRATION
from gossip_bench.bench import Bench, Cost, Scenario
from gossip_bench.federation import BenchError, Federation
from gossip_bench.measures import row
from gossip_bench.namespace import isolation, link_header_bytes
from gossip_bench.processes import Traffic, sent_on_loopback
from gossip_bench.rows import Row

WINDOW_S: Final = 30.0
WINDOWS_FULL: Final = 3
WINDOW_FULL_S: Final = 60.0
# Links of the start that nobody needs close 60 s after the rings were drawn, which may take 10; up to 11 nodes all are needed.
MESH_NODES: Final = 11
REST_S: Final = 85.0
REST_IN_MESH_S: Final = 5.0
BASE_S: Final = 15.0
# A change is everywhere in less, its acknowledgements and announcements too.
CHANGE_WINDOW_S: Final = 3.0
# IPv4 and TCP with time stamps, on every packet of a link that stands.
TCP_HEADER_BYTES: Final = 52
NO_COUNTERS: Final = "not available: this machine allows no network namespace of our own"


@attrs.frozen
class Spent:
    """What the federation spent in one window."""

    seconds: float
    sent: Traffic
    cpu_s: float


def _come_to_rest(federation: Federation) -> None:
    """Hang up, and wait until the links are those that stay."""
    federation.streams.hang_up_all()
    rest_s = REST_S if len(federation.hosts) > MESH_NODES else REST_IN_MESH_S
    federation.loop.run_for(max(REST_IN_MESH_S, federation.disturbed_s + rest_s - federation.now()))


def _spent(federation: Federation, seconds: float) -> Spent:
    at_s, sent, cpu_s = federation.now(), sent_on_loopback(), federation.cpu_s()
    federation.loop.run_for(seconds)
    return Spent(federation.now() - at_s, sent_on_loopback() - sent, federation.cpu_s() - cpu_s)


def idle(bench: Bench) -> list[Row]:
    """Let all nodes be; count what they send and compute."""
    federation, nodes = bench.federation, bench.nodes
    header_bytes = link_header_bytes()
    windows = []
    with bench.turns.shared():
        _come_to_rest(federation)
    for _ in range(WINDOWS_FULL if bench.is_full else 1):
        with bench.turns.shared():
            windows.append(_spent(federation, WINDOW_FULL_S if bench.is_full else WINDOW_S))
        bench.tell(f"idle window of {windows[-1].seconds:.0f} s: {windows[-1].sent.bytes} bytes")
    rss = [federation.rss_mb(host) for host in federation.running]
    federation.follow_all()

    def per_node_s(one: Spent, amount: float) -> float:
        return amount / one.seconds / nodes

    traffic = [
        row(
            "idle.bytes",
            nodes,
            [per_node_s(one, one.sent.bytes - header_bytes * one.sent.packets) for one in windows],
        ),
        row("idle.packets", nodes, [per_node_s(one, one.sent.packets) for one in windows]),
    ]
    if not isolation():
        traffic = [row("idle.bytes", nodes, note=NO_COUNTERS)]
    return [
        *traffic,
        row("idle.cpu", nodes, [100 * per_node_s(one, one.cpu_s) for one in windows]),
        row("idle.rss", nodes, rss, note="values: the nodes"),
    ]


def bytes_per_change(bench: Bench) -> list[Row]:
    """Count what a change makes all nodes send beyond what they send at rest."""
    federation, receivers = bench.federation, bench.nodes - 1
    if not isolation():
        return [row("bytes.payload", bench.nodes, note=NO_COUNTERS)]
    origins = [origin for (origin,) in bench.victims(1)]
    with bench.turns.shared():
        _come_to_rest(federation)
        base = _spent(federation, BASE_S)
        payloads = []
        for origin in origins:
            federation.change(origin)
            spent = _spent(federation, CHANGE_WINDOW_S)
            at_rest = _payload_bytes(base.sent) / base.seconds * spent.seconds
            payloads.append((_payload_bytes(spent.sent) - at_rest) / receivers)
    if len({federation.control(host).ask("status")["root"] for host in federation.running}) != 1:
        raise BenchError("a change is not everywhere 3 s after it was made")
    sizes = _line_bytes(federation)
    federation.follow_all()
    ratios = [payload / sizes[origin] for payload, origin in zip(payloads, origins, strict=True)]
    bench.tell(f"a change: {payloads[-1]:.0f} bytes per node, {ratios[-1]:.2f} x")
    note = "by the N - 1 nodes that receive it; TLS records and announcements included"
    return [
        row("bytes.payload", bench.nodes, payloads, note=note),
        row("bytes.ratio", bench.nodes, ratios),
    ]


def _payload_bytes(sent: Traffic) -> float:
    return sent.bytes - TCP_HEADER_BYTES * sent.packets


def _line_bytes(federation: Federation) -> dict[str, int]:
    """Return per origin the bytes of its digest, signature and registration, from a copy of a node's database."""
    state = federation.folder(federation.running[0]) / "state"
    with tempfile.TemporaryDirectory() as folder:
        for path in state.glob(f"{FILE_NAME}*"):
            shutil.copy(path, folder)
        database = Database(Path(folder) / FILE_NAME)
        try:
            stored = database.load()
        finally:
            database.close()
    sizes = {}
    for line in stored.lines:
        digest = decode_digest(line.signed.payload)
        body_bytes = digest.entries[REGISTRATION].size_bytes
        sizes[digest.origin] = len(line.signed.payload) + len(line.signed.signature) + body_bytes
    return sizes


IDLE: Final = Scenario(
    "idle",
    idle,
    Cost(65, 0, 3.4),
)
BYTES: Final = Scenario("bytes", bytes_per_change, Cost(35))
