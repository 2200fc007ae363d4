"""
The federation under test: real daemons, what they say, and what is done to them.

Every wait is bounded. Whatever happens, ``close`` leaves no process behind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from random import Random
from typing import Final

import attrs

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.demo.processes import DemoFederation
from gossip_bench.event_streams import EventStreams, Heard
from gossip_bench.loop import Loop
from gossip_bench.processes import cpu_s, rss_mb

# Fifty daemons that import Python on two cores need 25 s to listen, on a busy machine minutes.
START_MOST_S: Final = 240.0
WHOLE_MOST_S: Final = 60.0


class BenchError(Exception):
    """Report why a measurement came to nothing, in one line."""


@attrs.frozen
class ColdStart:
    """Times of one cold start in loop seconds."""

    begun_s: float
    last_listening_s: float
    held_s: float
    whole_s: float


class Federation:
    """
    A federation of real daemons.

    Args:
        directory: an empty folder.
        count: number of nodes.
        seed: of every choice made here.
        loop: everything waits in it.
    """

    def __init__(self, directory: Path, count: int, seed: int, loop: Loop) -> None:
        self.random: Final = Random(seed)
        self.loop: Final = loop
        self.streams: Final = EventStreams(loop)
        self._demo: Final = DemoFederation(directory, count)
        self._stopped: set[str] = set()
        self._changes = 0
        self._demo.prepare()
        # When a node was last started or ended: links move for a minute after.
        self.disturbed_s = 0.0

    @property
    def hosts(self) -> list[str]:
        """All nodes, running or not."""
        return self._demo.hosts

    @property
    def running(self) -> list[str]:
        """The nodes whose process lives."""
        return [host for host in self.hosts if self._demo.is_running(host)]

    def gossip_port(self, host: str) -> int:
        """Return the port on which a node listens for peers."""
        return self._demo.node(host).gossip_port

    def http_port(self, host: str) -> int:
        """Return the port of a node's HTTP resource."""
        return self._demo.node(host).http_port

    def folder(self, host: str) -> Path:
        """Return the folder of a node."""
        return self._demo.node(host).folder

    def control(self, host: str) -> ControlClient:
        """Return a client of a node's control socket."""
        return self._demo.control(host)

    # ----------------------------------------------------------------- up and down

    def cold_start(self) -> ColdStart:
        """Start all nodes with nothing remembered, and wait until every one sees all."""
        self.kill(self.running)
        for host in self.hosts:
            state = self.folder(host) / "state"
            shutil.rmtree(state)
            state.mkdir()
        begun_s = self.disturbed_s = self.now()
        self._demo.start_all()
        for host in self.hosts:
            self.streams.follow(self._demo.node(host))
        self._need(self.holds_all, START_MOST_S, "all nodes hold all")
        held_s = self.loop.now_s
        self._need(lambda: self.holds_all(called_up=True), START_MOST_S, "all nodes call all up")
        whole_s = self.loop.now_s
        listening = [said.listening_at_s for said in self.streams.said.values()]
        # What is measured next begins with a federation at rest.
        self.wait_until_whole()
        # Links of the start are let go a minute after the last of them, not after the first process.
        self.disturbed_s = self.now()
        return ColdStart(begun_s, max(at for at in listening if at is not None), held_s, whole_s)

    def start(self, hosts: Iterable[str]) -> None:
        """Start nodes again; returns at once."""
        self.disturbed_s = self.now()
        for host in hosts:
            self.streams.hang_up(host)
            self._demo.start(host)
            self.streams.follow(self._demo.node(host))

    def restart(self, hosts: Collection[str], settle_s: float = 2.0) -> None:
        """Start nodes again and wait until all are one; then let links settle."""
        self.start(hosts)
        self._need(self.is_whole, START_MOST_S, "the nodes that were started again are back everywhere")
        self.disturbed_s = self.now()
        self.loop.run_for(settle_s)

    def kill(self, hosts: Collection[str]) -> float:
        """End nodes by SIGKILL, all at once; return the time before the first signal."""
        at_s = self.now()
        for host in hosts:
            os.kill(self.process_id(host), signal.SIGKILL)
        for host in hosts:
            self._demo.kill(host)  # reaps
            self._stopped.discard(host)
            self.streams.hang_up(host)
        return at_s

    def freeze(self, hosts: Iterable[str]) -> float:
        """Stop nodes by SIGSTOP, so that their links stay open and silent; return the time before it."""
        at_s = self.now()
        for host in hosts:
            os.kill(self.process_id(host), signal.SIGSTOP)
            self._stopped.add(host)
        return at_s

    def thaw(self, hosts: Iterable[str]) -> float:
        """Let frozen nodes go on; return the time before it."""
        at_s = self.now()
        for host in hosts:
            os.kill(self.process_id(host), signal.SIGCONT)
            self._stopped.discard(host)
        return at_s

    def terminate(self, host: str) -> tuple[float, float]:
        """Stop a node in good order; return the times before the signal and when its process was gone."""
        at_s = self.now()
        os.kill(self.process_id(host), signal.SIGTERM)
        self.wait_for_end(host)
        return at_s, self.now()

    def wait_for_end(self, host: str, most_s: float = 20.0) -> None:
        """Wait until the process of a node has ended, and hang up."""
        ended: list[bool] = []
        descriptor = os.pidfd_open(self.process_id(host))
        try:
            self.loop.add(descriptor, lambda: ended.append(True))
            is_ended = self.loop.run_until(lambda: bool(ended), most_s)
            self.loop.remove(descriptor)
        finally:
            os.close(descriptor)
        if not is_ended:
            raise BenchError(f"{host} has not ended {most_s:.0f} s after it was told to")
        self._demo.kill(host)  # reaps
        self.streams.hang_up(host)

    def close(self) -> None:
        """End everything, frozen nodes too; without a goodbye, since nobody listens."""
        self.streams.hang_up_all()
        for host in self.running:
            self._demo.kill(host)
        self._demo.close()

    # ----------------------------------------------------------------- what they say

    def follow_all(self) -> None:
        """Open the streams of all running nodes again and wait until their tables were read."""
        for host in self.running:
            self.streams.follow(self._demo.node(host))
        self.wait_until_whole()

    def holds_all(self, *, called_up: bool = False) -> bool:
        """Tell whether every running node holds a digest of every node, and, if asked, calls every one up."""
        hosts = set(self.hosts)
        for host in self.running:
            said = self.streams.said.get(host)
            if said is None or said.complete_at_s is None or not hosts <= said.heads.keys():
                return False
            # A digest tells of a node before its status does.
            if called_up and any(said.statuses.get(other, "up") != "up" for other in hosts):
                return False
        return True

    def is_whole(self) -> bool:
        """Tell whether all running nodes hold the same heads of all running nodes and call each other up."""
        running = self.running
        said = self.streams.said
        if any(host not in said or said[host].complete_at_s is None for host in running):
            return False
        first = said[running[0]].heads
        for host in running:
            one = said[host]
            for other in running:
                if other not in one.heads or one.heads[other] != first.get(other):
                    return False
                # A digest tells of a node before its status does.
                if one.statuses.get(other, "up") != "up":
                    return False
        return True

    def wait_until_whole(self, most_s: float = WHOLE_MOST_S) -> None:
        """
        Wait until all running nodes are one.

        Raises:
            BenchError: not in time.
        """
        self._need(self.is_whole, most_s, "all running nodes are one")

    def first_told(
        self, since_s: float, by: Collection[str], tells: Callable[[Heard], bool], most_s: float
    ) -> dict[str, float]:
        """Wait until each of the nodes has told such an event since then; return when each did, as far as it did."""
        waiting = set(by)
        seen: dict[str, float] = {}
        place = len(self.streams.heard)
        while place and self.streams.heard[place - 1].at_s >= since_s:
            place -= 1

        def is_done() -> bool:
            nonlocal place
            heard = self.streams.heard
            while place < len(heard):
                event = heard[place]
                place += 1
                if event.node in waiting and tells(event):
                    waiting.discard(event.node)
                    seen[event.node] = event.at_s
            return not waiting

        self.loop.run_until(is_done, most_s)
        return seen

    # ----------------------------------------------------------------- change and cost

    def change(self, host: str) -> tuple[float, Callable[[Heard], bool]]:
        """
        Change a property of a node and have it read its files again.

        Returns the time before the signal, and what tells the event of this change.
        """
        self._changes += 1
        path = self.folder(host) / "esgf.properties"
        line = f"node.long.name=change {self._changes}"
        text, count = re.subn(r"(?m)^node\.long\.name=.*$", line, path.read_text())
        path.write_text(text if count else f"{text.rstrip()}\n{line}\n")
        said = self.streams.said.get(host)
        before = said.heads[host] if said is not None else (0, 0)
        at_s = self.now()
        os.kill(self.process_id(host), signal.SIGHUP)

        def tells(heard: Heard) -> bool:
            data = heard.data
            return (
                heard.name == "digest-accepted"
                and data["origin"] == host
                and (data["epoch"], data["sequence"]) > before
            )

        return at_s, tells

    def process_id(self, host: str) -> int:
        """Return the process id of a node."""
        return self._demo.process_id(host)

    def cpu_s(self) -> float:
        """Return the CPU seconds used by all running nodes together."""
        return sum(cpu_s(self.process_id(host)) for host in self.running)

    def rss_mb(self, host: str) -> float:
        """Return the resident memory of a node."""
        return rss_mb(self.process_id(host))

    def now(self) -> float:
        """Return the time, on the clock of all events."""
        self.loop.now_s = max(self.loop.now_s, time.monotonic())
        return self.loop.now_s

    def _need(self, is_done: Callable[[], bool], most_s: float, what: str) -> None:
        if self.loop.run_until(is_done, most_s):
            return
        ended = [host for host in self.hosts if not self._demo.is_running(host) and host in self.streams.said]
        hint = f"; {ended[0]} has ended: {self._last_line(ended[0])}" if ended else ""
        not_up = self._called_not_up()
        if not_up:
            hint += f"; {len(not_up)} times a running node is not called up, as {not_up[0]}"
        raise BenchError(f"not within {most_s:.0f} s: {what}{hint}")

    def _called_not_up(self) -> list[str]:
        running = set(self.running)
        return [
            f"{other} {status} by {host}"
            for host, said in self.streams.said.items()
            for other, status in said.statuses.items()
            if other in running and status != "up"
        ]

    def _last_line(self, host: str) -> str:
        lines = self._demo.node(host).log_path.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "its log is empty"
