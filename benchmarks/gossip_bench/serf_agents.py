"""
HashiCorp serf beside us: agents on 127.x addresses, encryption on, their log lines read as they come.

An agent writes ``EventMember...`` when its member table changes, which is what
``serf members`` shows; the handlers of events hear it a second later.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import attrs
import msgpack

from gossip_bench.federation import BenchError, ColdStart
from gossip_bench.loop import Loop
from gossip_bench.processes import cpu_s, die_with_parent, rss_mb

GOSSIP_PORT: Final = 7946
RPC_PORT: Final = 7373
KEY: Final = base64.b64encode(bytes(range(32))).decode()
# About as much as serf can carry: all tags together are bounded by 512 bytes.
TAGS: Final = {"host": "esgf-node.example.org", "type": "data,index", "version": "1.0", "rest": "x" * 100}
COLD_MOST_S: Final = 240.0
LOOK_AGAIN_S: Final = 0.01
EVENT: Final = re.compile(rb"EventMember(Join|Update|Failed|Leave|Reap)(?: \(forced\))?: (\S+)")


@attrs.frozen
class SerfHeard:
    """One change of one agent's member table."""

    at_s: float
    agent: str
    kind: str
    about: str


def parse_event(line: bytes) -> tuple[str, str] | None:
    """Return (kind, member) where a log line tells of a change of the member table."""
    found = EVENT.search(line)
    return None if found is None else (found[1].decode(), found[2].decode())


def serf_version() -> str:
    """Return the first line of ``serf version``; empty where serf is not installed."""
    if shutil.which("serf") is None:
        return ""
    answer = subprocess.run(["serf", "version"], capture_output=True, text=True, check=False).stdout
    return answer.splitlines()[0] if answer else "of unknown version"


class Agent:
    """One agent: its process and what it has said."""

    def __init__(self, number: int, profile: str, loop: Loop, heard: list[SerfHeard]) -> None:
        self.name = f"n{number:04}"
        self.address = f"127.0.{1 + number // 200}.{11 + number % 200}"
        self.alive: set[str] = set()
        self.listening_at_s: float | None = None
        self._profile = profile
        self._loop = loop
        self._heard = heard
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, seed: str | None) -> None:
        """Start the agent; it joins by the seed's address and tries again every second."""
        command = [
            "serf", "agent", f"-node={self.name}", f"-bind={self.address}:{GOSSIP_PORT}",
            f"-rpc-addr={self.address}:{RPC_PORT}", f"-profile={self._profile}", "-log-level=info",
            f"-encrypt={KEY}",
        ]  # fmt: skip
        if seed is not None:
            command += [f"-retry-join={seed}", "-retry-interval=1s"]
        for name, value in TAGS.items():
            command += ["-tag", f"{name}={value}"]
        self.alive, self._unread, self.listening_at_s = set(), b"", None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        self._loop.add(self._process.stdout, self._read)
        self._look(self._process)

    def signal(self, number: int) -> float:
        """Send a signal; return the time before it."""
        at_s = time.monotonic()
        os.kill(self.process_id, number)
        return at_s

    def kill(self) -> None:
        """End the agent; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._bury(self._process)

    def wait(self, most_s: float = 20.0) -> None:
        """Wait until the agent ends by itself, as it does some seconds after it left; kill it when it does not."""
        if self._process is not None:
            process = self._process
            self._loop.run_until(lambda: process.poll() is not None, most_s)
            self.kill()

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if process.stdout is not None and not process.stdout.closed:
            self._loop.remove(process.stdout)
            process.stdout.close()

    def call(self, command: str, body: dict[str, Any] | None = None) -> tuple[float, socket.socket]:
        """Send a command by RPC; return the time before it and the connection, to be closed when it is done."""
        ours = socket.create_connection((self.address, RPC_PORT), timeout=10)
        ours.sendall(msgpack.packb({"Command": "handshake", "Seq": 0}) + msgpack.packb({"Version": 1}))
        ours.recv(1024)
        request = msgpack.packb({"Command": command, "Seq": 1})
        if body is not None:
            request += msgpack.packb(body)
        at_s = time.monotonic()
        ours.sendall(request)
        return at_s, ours

    def _look(self, process: subprocess.Popen[bytes]) -> None:
        if self._process is not process or process.poll() is not None:
            return
        with socket.socket() as probe:
            if probe.connect_ex((self.address, GOSSIP_PORT)) == 0:
                self.listening_at_s = self._loop.now_s
                return
        self._loop.later(LOOK_AGAIN_S, lambda: self._look(process))

    def _read(self) -> None:
        assert self._process is not None
        data = os.read(self._process.stdout.fileno(), 65536)
        if not data:
            self._loop.remove(self._process.stdout)
            self._process.stdout.close()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            event = parse_event(line)
            if event is None:
                continue
            kind, member = event
            self._heard.append(SerfHeard(self._loop.now_s, self.name, kind, member))
            if kind == "Join":
                self.alive.add(member)
            elif kind != "Update":
                self.alive.discard(member)


class SerfFederation:
    """So many agents on this machine; a context manager that leaves none behind."""

    def __init__(self, _directory: Path, count: int, profile: str, loop: Loop) -> None:
        self.loop = loop
        self.heard: list[SerfHeard] = []
        self.agents = {
            agent.name: agent for agent in (Agent(one, profile, loop, self.heard) for one in range(count))
        }
        self.system = f"serf {profile}"
        # When an agent was last started or ended.
        self.disturbed_s = 0.0

    def __enter__(self) -> SerfFederation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all agents."""
        for agent in self.agents.values():
            agent.kill()

    @property
    def running(self) -> list[str]:
        """The agents whose process lives."""
        return [name for name, agent in self.agents.items() if agent.is_running]

    def is_whole(self) -> bool:
        """Tell whether every running agent has all running agents as members, and no other."""
        running = set(self.running)
        return all(self.agents[name].alive == running for name in running)

    def cold_start(self) -> ColdStart:
        """
        Start all agents with nothing remembered, and wait until every one sees all.

        Raises:
            BenchError: not in time.
        """
        self.close()
        first, *others = self.agents.values()
        begun_s = self.disturbed_s = time.monotonic()
        first.start(None)
        for agent in others:
            agent.start(first.address)

        def is_done() -> bool:
            agents = self.agents.values()
            return all(agent.listening_at_s is not None for agent in agents) and self.is_whole()

        if not self.loop.run_until(is_done, COLD_MOST_S):
            raise BenchError(f"serf is not whole {COLD_MOST_S:.0f} s after its start")
        listening = [agent.listening_at_s for agent in self.agents.values()]
        return ColdStart(
            begun_s, max(at for at in listening if at is not None), self.loop.now_s, self.loop.now_s
        )

    def restart(self, name: str, settle_s: float) -> None:
        """
        Start an agent again and wait until all are one; then let it settle.

        Raises:
            BenchError: not in time.
        """
        agent = self.agents[name]
        agent.kill()
        self.disturbed_s = time.monotonic()
        seed = next(other for other in self.agents.values() if other.is_running)
        agent.start(seed.address)
        if not self.loop.run_until(self.is_whole, COLD_MOST_S):
            raise BenchError(f"serf is not whole {COLD_MOST_S:.0f} s after {name} was started again")
        self.loop.run_for(settle_s)

    def first_told(
        self, since_s: float, by: Collection[str], tells: Callable[[SerfHeard], bool], most_s: float
    ) -> dict[str, float]:
        """Wait until each agent has told such an event since then; return when each did, as far as it did."""
        seen: dict[str, float] = {}
        place = len(self.heard)
        while place and self.heard[place - 1].at_s >= since_s:
            place -= 1

        def is_done() -> bool:
            nonlocal place
            while place < len(self.heard):
                event = self.heard[place]
                place += 1
                if event.agent in by and tells(event):
                    seen.setdefault(event.agent, event.at_s)
            return len(seen) == len(by)

        self.loop.run_until(is_done, most_s)
        return seen

    def cpu_s(self) -> float:
        """Return the CPU seconds used by all running agents together."""
        return sum(cpu_s(self.agents[name].process_id) for name in self.running)

    def rss_mb(self, name: str) -> float:
        """Return the resident memory of an agent."""
        return rss_mb(self.agents[name].process_id)
