"""The daemon under a service manager: real processes that tell a real socket, on a port opened before them; the units."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from esgf_gossip.cli.run import daemon_command
from esgf_gossip.demo.processes import DemoFederation
from helpers.daemons import DEADLINE_S, eventually, fetch_json

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
EXPOSURE_MOST = 2.5
# Its standard input becomes descriptor 3 of the command, as systemd hands over a port.
HANDING_OVER = ("sh", "-c", 'export LISTEN_PID=$$; exec "$@" 3<&0 0</dev/null', "sh")
needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and os.environ.get("CI") != "true",
    reason="systemd-analyze (package systemd) is not installed",
)


class Manager:
    """A service manager in small: it starts one daemon, opens its port before, and hears what it says."""

    def __init__(self, folder: Path, command: list[str], watchdog_us: int = 400_000) -> None:
        self.port = socket.create_server(("127.0.0.1", 0))
        self._hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hears.bind(str(folder / "notify"))
        self._hears.settimeout(DEADLINE_S)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*HANDING_OVER, *command],
                stdin=self.port,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": str(folder / "notify"),
                    "WATCHDOG_USEC": str(watchdog_us),
                    "LISTEN_FDS": "1",
                    "LISTEN_FDNAMES": "http",
                },
            )

    def wait_for(self, name: str) -> dict[str, str]:
        """Return the next message that has a line of this name."""
        while True:
            lines = self._hears.recv(4096).decode().split("\n")
            message = dict(line.split("=", 1) for line in lines)
            if name in message:
                return message

    def hear_what_is_there(self) -> int:
        """Return how many messages have come and were not heard yet; does not wait."""
        self._hears.settimeout(0)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self._hears.recv(4096):
                count += 1
        self._hears.settimeout(DEADLINE_S)
        return count

    def close(self) -> None:
        """End the daemon, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._hears.close()
        self.port.close()


@contextmanager
def managed(folder: Path, command: list[str]):
    """Start a daemon as a service manager does."""
    manager = Manager(folder, command)
    try:
        yield manager
    finally:
        manager.close()


@pytest.fixture
def node(tmp_path):
    """A node that is set up and not started: a federation of one."""
    with DemoFederation(tmp_path / "federation", 1) as federation:
        federation.prepare()
        yield federation


def test_a_life_under_systemd(node, tmp_path):
    """Ready once it answers on the port it was handed, alive, reloading, stopping, in the words of the protocol."""
    (host,) = node.hosts
    with managed(tmp_path, daemon_command(node.config_path(host))) as manager:
        assert manager.wait_for("READY")["STATUS"] == "1 nodes known, 0 linked"
        url = f"http://127.0.0.1:{manager.port.getsockname()[1]}"
        assert fetch_json(url, "/api/v1/status")["host"] == host
        assert node.control(host).is_answering()
        # The port of node.toml is not opened beside it.
        with pytest.raises(ConnectionRefusedError):
            fetch_json(node.http_url(host), "/api/v1/status")
        manager.wait_for("WATCHDOG")
        manager.process.send_signal(signal.SIGHUP)
        assert manager.wait_for("RELOADING")["MONOTONIC_USEC"].isdigit()
        manager.wait_for("READY")
        manager.process.terminate()
        assert manager.wait_for("STOPPING") == {"STOPPING": "1", "STATUS": "stopping"}
        assert manager.process.wait(DEADLINE_S) == 0, manager.log.read_text()


def test_no_connection_is_refused_while_the_daemon_restarts(node, tmp_path):
    """What came in while none ran is answered by the next one: the port was the manager's all the time."""
    command = daemon_command(node.config_path(node.hosts[0]))
    with managed(tmp_path, command) as manager:
        manager.wait_for("READY")
        manager.process.terminate()
        assert manager.process.wait(DEADLINE_S) == 0
        with socket.create_connection(manager.port.getsockname()):
            pass


def test_a_daemon_that_stands_still_gives_no_sign_of_life(node, tmp_path):
    """The signs come from the main loop: while it hangs there are none, so that systemd notices."""
    with managed(tmp_path, daemon_command(node.config_path(node.hosts[0]))) as manager:
        manager.wait_for("WATCHDOG")
        manager.process.send_signal(signal.SIGSTOP)
        eventually(lambda: _state(manager.process.pid) == "T", "the daemon stands still")
        manager.hear_what_is_there()
        assert manager.hear_what_is_there() == 0
        manager.process.send_signal(signal.SIGCONT)
        manager.wait_for("WATCHDOG")


def test_the_command_run_hands_all_on_to_the_process_it_becomes(node, tmp_path):
    """The console script replaces itself by Python; socket, port and process id stay those systemd knows."""
    script = Path(daemon_command(Path("x"))[0]).parent / "esgf-gossip"
    relative = os.path.relpath(node.config_path(node.hosts[0]))
    with managed(tmp_path, [str(script), "run", "--config", relative]) as manager:
        manager.wait_for("READY")
        url = f"http://127.0.0.1:{manager.port.getsockname()[1]}"
        assert fetch_json(url, "/api/v1/status")["host"] == node.hosts[0]


def test_what_is_no_port_ends_the_start_in_one_line(node, tmp_path):
    """A wrong ListenStream= is told, and nothing runs half."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        wrong.bind(("127.0.0.1", 0))
        done = subprocess.run(
            [*HANDING_OVER, *daemon_command(node.config_path(node.hosts[0]))],
            stdin=wrong,
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    assert done.returncode == 11
    assert "error: descriptor 3 from the service manager is no listening TCP port; correct" in done.stderr
    assert "Traceback" not in done.stderr


def _state(process_id: int) -> str:
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]


@needs_systemd_analyze
def test_the_unit_leaves_little_open():
    """The exposure that systemd itself computes; TLS callbacks need memory that is written and executed."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", PACKAGING / "esgf-gossip.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = (line for line in done.stdout.splitlines() if "Overall exposure level" in line)
    assert float(line.rpartition(": ")[2].split()[0]) <= EXPOSURE_MOST, done.stdout
    unit = (PACKAGING / "esgf-gossip.service").read_text()
    assert not [line for line in unit.splitlines() if line.startswith("MemoryDenyWriteExecute")]


@needs_systemd_analyze
def test_systemd_finds_no_fault_in_the_units(tmp_path):
    """All settings are known to it and go together; only the program is where this test has one."""
    for name in ("esgf-gossip.service", "esgf-gossip.socket"):
        text = (PACKAGING / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/esgf-gossip/bin/esgf-gossip", shutil.which("true")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "./esgf-gossip.service", "./esgf-gossip.socket"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
