"""
The processes of a demo federation: one real daemon per node, all of them gone when the demo is.

Only starting and ending lives here. Nothing is asked of a daemon but to stop;
what it says is read by ``demo.watching``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.run import daemon_command
from esgf_gossip.demo.plan import (
    FEDERATION,
    DemoError,
    HeldPorts,
    PlannedNode,
    demo_hosts,
    lay_out,
    plan,
    refuse_occupied,
    with_tracking,
)
from esgf_gossip.demo.site_services import SERVICE_PORTS, SiteServices

# An orderly stop is a goodbye to every peer and a closed database; fifty at once share our processors.
STOP_DEADLINE_S: Final = 15.0
_PR_SET_PDEATHSIG: Final = 1
# Among the names of processes; no host is called so.
_SERVICES: Final = "services of the demo"
# Loaded here: between fork and exec nothing may be imported.
_LIBC: Final = ctypes.CDLL(None)


class DemoFederation:
    """
    A federation of real processes on this machine; a context manager that leaves none behind.

    Args:
        directory: where ``nodes/`` and ``trust/`` go; kept.
        count: the number of nodes.
        base_port: first of 2 x count ports in a row (gossip and HTTP of each node in turn); None: free ones.
        federation: its id.
        is_tracking: whether the nodes track datasets; index, mail server and mailbox page run beside them then.

    Daemons end with the thread that started them, whatever ends it: start them
    from one that stays.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        base_port: int | None = None,
        federation: str = FEDERATION,
        *,
        is_tracking: bool = False,
    ) -> None:
        self.directory: Final = directory.absolute()
        hosts = demo_hosts(count)
        refuse_occupied(self.directory)
        self._ports = HeldPorts(3 * count + SERVICE_PORTS if is_tracking else 2 * count, base_port)
        numbers = self._ports.numbers
        nodes = plan(self.directory, hosts, numbers[: 2 * count], federation)
        self.services: Final = (
            SiteServices(*numbers[-SERVICE_PORTS:], self.directory / "mail") if is_tracking else None
        )
        if self.services is not None:
            nodes = with_tracking(nodes, numbers[2 * count :], self.services.index, self.services.smtp)
        self._nodes = {node.host: node for node in nodes}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> DemoFederation:
        """Give the federation, with nothing prepared yet."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hosts(self) -> list[str]:
        """The names of all nodes, in order."""
        return list(self._nodes)

    def node(self, host: str) -> PlannedNode:
        """Give folder and ports of a node."""
        return self._nodes[host]

    def config_path(self, host: str) -> Path:
        """Give the absolute path of a node.toml."""
        return self._nodes[host].config_path

    def http_url(self, host: str) -> str:
        """Give the base URL of a node, without a slash at its end."""
        return self._nodes[host].http_url

    def control(self, host: str) -> ControlClient:
        """Give a client of a node's control socket."""
        return ControlClient(self._nodes[host].control_socket)

    def prepare(self, tell: Callable[[int], None] = lambda _: None) -> None:
        """Write all folders; ``tell`` gets the number of nodes that are ready."""
        lay_out(self.directory, list(self._nodes.values()), tell)

    def start(self, host: str) -> None:
        """
        Start the daemon of a node, also one that was killed; returns without waiting for it.

        Raises:
            DemoError: it runs already.
        """
        if self.is_running(host):
            raise DemoError(f"{host} runs already; {self.config_path(host)}; stop it first")
        node = self._nodes[host]
        self._spawn(host, daemon_command(node.config_path), node.log_path)

    def start_services(self) -> None:
        """Start index, mail server and mailbox page of a federation that tracks; returns without waiting for them."""
        assert self.services is not None
        self._spawn(_SERVICES, self.services.command(), self.directory / "services.log")

    def _spawn(self, name: str, command: Sequence[str], log_path: Path) -> None:
        parent = os.getpid()
        with log_path.open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own group: Ctrl-C reaches the demo alone, which then stops the nodes in good order.
                process_group=0,
                preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 - one prctl, no lock, no import
            )

    def start_all(self) -> None:
        """Start every daemon that does not run."""
        for host in self.hosts:
            if not self.is_running(host):
                self.start(host)

    def is_running(self, host: str) -> bool:
        """Tell whether the process of a node lives."""
        process = self._processes.get(host)
        return process is not None and process.poll() is None

    def process_id(self, host: str) -> int:
        """Give the process id of a daemon that was started."""
        return self._processes[host].pid

    def exit_code(self, host: str) -> int | None:
        """Give how a daemon ended: None while it runs, negative: the signal."""
        process = self._processes.get(host)
        return None if process is None else process.poll()

    def kill(self, host: str) -> None:
        """End a daemon as a power failure would: SIGKILL, no goodbye. Returns when it is gone."""
        self._processes[host].kill()
        self._processes[host].wait()

    def terminate(self, host: str, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Stop a daemon in good order. Returns when it is gone."""
        self._stop([host], deadline_s)

    def stop_all(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Stop every daemon: SIGTERM to all at once, SIGKILL to those still there at the deadline."""
        self._stop([*self.hosts, _SERVICES], deadline_s)

    def close(self) -> None:
        """Stop every daemon and give the ports back; the folder stays."""
        try:
            self.stop_all()
        finally:
            self._ports.close()

    def _stop(self, hosts: Iterable[str], deadline_s: float) -> None:
        running = [self._processes[host] for host in hosts if self.is_running(host)]
        until_s = time.monotonic() + deadline_s
        try:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            for process in running:
                process.kill()
                process.wait()


def _die_with(parent: int) -> None:
    """Between fork and exec: let the kernel end us when the demo ends, even by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
