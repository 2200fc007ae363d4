"""What the honest nodes feel of one that floods, and of a thousand strangers who stall at the door."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from esgf_gossip.demo.plan import LOOPBACK
from gossip_bench import flood as flooder
from gossip_bench.bench import Bench, Cost, Scenario
from gossip_bench.federation import BenchError, Federation
from gossip_bench.measures import row
from gossip_bench.probe import Probe
from gossip_bench.processes import die_with_parent
from gossip_bench.rows import Row, percentile

CHANGES_A_ROUND: Final = 5
PACE_S: Final = 0.5
CHANGE_MOST_S: Final = 30.0
READY_MOST_S: Final = 30.0
STRANGERS: Final = 1000
DOOR_MOST_S: Final = 30.0
# The first half of a ClientHello of 508 bytes.
HALF_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 50


def flood(bench: Bench) -> list[Row]:
    """Let one member flood another; compare with rounds in which it does not, in turn."""
    federation = bench.federation
    villain = federation.hosts[-1]
    before, during, ratios, memory, stalls_before, stalls, notes = [], [], [], [], [], [], []
    own_ms = 0.0
    federation.kill([villain])
    targets = federation.running
    federation.random.shuffle(targets)
    for number in range(bench.repetitions):
        target = targets[number % len(targets)]
        with bench.turns.alone():
            federation.loop.run_for(2.0)
            rss_mb = federation.rss_mb(target)
            quiet_s, quiet = _round(federation, target)
            with _flooding(federation, villain, target) as report:
                loud_s, loud = _round(federation, target)
                memory.append(federation.rss_mb(target) - rss_mb)
        before.append(quiet_s)
        during.append(loud_s)
        ratios.append(loud_s / quiet_s)
        stalls_before.append(1000 * quiet.longest_s)
        stalls.append(1000 * loud.longest_s)
        own_ms = max(own_ms, 1000 * loud.own_longest_s)
        notes.append(f"{report.get('frames_per_s', '?')} frames/s, {report.get('megabytes_per_s', '?')} MB/s")
        bench.tell(
            f"flood of {notes[-1]}: p99 {quiet_s:.3f} -> {loud_s:.3f} s, stall {stalls[-1]:.0f} ms "
            f"(our own loop late by {1000 * loud.own_longest_s:.0f} ms at most)"
        )
    federation.restart([villain])
    nodes = bench.nodes
    return [
        row("flood.before", nodes, before),
        row("flood.during", nodes, during, note=notes[len(notes) // 2] + " sent to one node"),
        row("flood.ratio", nodes, ratios),
        row("flood.memory", nodes, memory),
        row("flood.stall_before", nodes, stalls_before),
        row(
            "flood.stall",
            nodes,
            stalls,
            note=f"the harness itself was late by up to {own_ms:.0f} ms meanwhile",
        ),
    ]


def _round(federation: Federation, target: str) -> tuple[float, Probe]:
    """Time some changes of different nodes; return the p99 over all changes and nodes, and the probe of the target."""
    probe = Probe(federation.loop, federation.http_port(target))
    times = []
    try:
        origins = federation.random.sample(federation.running, min(CHANGES_A_ROUND, len(federation.running)))
        for origin in origins:
            at_s, tells = federation.change(origin)
            seen = federation.first_told(at_s, federation.running, tells, CHANGE_MOST_S)
            if len(seen) < len(federation.running):
                raise BenchError(f"a change is not everywhere after {CHANGE_MOST_S:.0f} s")
            times += [told_s - at_s for host, told_s in seen.items() if host != origin]
            federation.loop.run_for(PACE_S)
    finally:
        probe.close()
    return percentile(times, 99), probe


@contextmanager
def _flooding(federation: Federation, villain: str, target: str) -> Iterator[dict[str, object]]:
    """Run the flooder beside what is measured; the dictionary holds its report afterwards."""
    report: dict[str, object] = {}
    trust = federation.folder(villain) / "trust"
    process = subprocess.Popen(
        [sys.executable, flooder.__file__, str(trust), villain, str(federation.gossip_port(target))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl
    )
    said: list[bytes] = []
    try:
        federation.loop.add(process.stdout, lambda: said.append(process.stdout.readline()))
        is_ready = federation.loop.run_until(lambda: bool(said), READY_MOST_S)
        federation.loop.remove(process.stdout)
        if not is_ready or not said[0]:
            raise BenchError("the flooder did not get in")
        yield report
        process.terminate()
        out, _ = process.communicate(timeout=20)
        report.update(json.loads(out))
    finally:
        process.kill()
        process.wait()


class Stranger:
    """One connection that stalls in its TLS handshake; ``open_s``: how long it was let."""

    def __init__(self, federation: Federation, port: int, data: bytes) -> None:
        self.open_s: float | None = None
        self._loop = federation.loop
        self._socket = socket.create_connection((LOOPBACK, port), timeout=DOOR_MOST_S)
        self._opened_at_s = federation.now()
        self._socket.setblocking(False)
        if data:
            # Who was turned out already hears it by the end of the stream.
            with contextlib.suppress(ConnectionError):
                self._socket.send(data)
        self._loop.add(self._socket, self._read)

    def _read(self) -> None:
        try:
            is_over = not self._socket.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            is_over = True
        if is_over:
            self.open_s = self._loop.now_s - self._opened_at_s
            self._loop.remove(self._socket)
            self._socket.close()

    def close(self) -> None:
        """Go away."""
        if self.open_s is None:
            self._loop.remove(self._socket)
            self._socket.close()


def door(bench: Bench) -> list[Row]:
    """Open a thousand connections that never finish their handshake, half of them with half a ClientHello."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    federation = bench.federation
    crowds: list[list[Stranger]] = []
    change_s = []
    try:
        # One turn for all: while we waited for another, nobody would note when strangers are turned out.
        with bench.turns.alone():
            for (target,) in bench.victims(1):
                crowds.append(_crowd(federation, federation.gossip_port(target)))
                at_s, tells = federation.change(target)
                seen = federation.first_told(at_s, federation.running, tells, CHANGE_MOST_S)
                if len(seen) < len(federation.running):
                    raise BenchError("a change did not get out while strangers stood at the door")
                change_s.append(max(seen.values()) - at_s)
        federation.loop.run_until(
            lambda: all(one.open_s is not None for crowd in crowds for one in crowd), DOOR_MOST_S
        )
    finally:
        for crowd in crowds:
            for stranger in crowd:
                stranger.close()
    closed = [max(DOOR_MOST_S if one.open_s is None else one.open_s for one in crowd) for crowd in crowds]
    bench.tell(f"{STRANGERS} strangers at a time: open for at most {max(closed):.2f} s")
    return [row("door.closed", bench.nodes, closed), row("door.change", bench.nodes, change_s)]


def _crowd(federation: Federation, port: int) -> list[Stranger]:
    crowd = []
    for number in range(STRANGERS):
        crowd.append(Stranger(federation, port, HALF_HELLO if number % 2 else b""))
        federation.loop.run_for(0)
    return crowd


FLOOD: Final = Scenario("flood", flood, Cost(50))
DOOR: Final = Scenario("door", door, Cost(20))
