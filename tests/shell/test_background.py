"""start and restart: real daemons that outlive the command, and starts that fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from esgf_gossip.demo.processes import DemoFederation
from helpers.daemons import DEADLINE_S, eventually


class Site:
    """A node that is set up, and the commands of its administrator."""

    def __init__(self, federation: DemoFederation) -> None:
        (host,) = federation.hosts
        self.config = federation.config_path(host)
        self.client = federation.control(host)
        self.log = self.client.path.parent / "daemon.log"
        self.http_port = int(federation.http_url(host).rpartition(":")[2])

    def told(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a process."""
        return subprocess.run(
            [sys.executable, "-m", "esgf_gossip.cli.main", *command, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
            env={**os.environ, **environment},
        )

    def end(self) -> None:
        """End whatever runs."""
        for process_id in self.process_ids():
            os.kill(process_id, signal.SIGKILL)

    def process_ids(self) -> list[int]:
        """Return the daemons of this node, found by their command line."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes().split(b"\0")
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and b"run" in command and str(self.config).encode() in command:
                found.append(int(path.name))
        return found


@pytest.fixture
def site(tmp_path):
    """A federation of one, not started; what was started is ended."""
    with DemoFederation(tmp_path / "federation", 1) as federation:
        federation.prepare()
        site = Site(federation)
        try:
            yield site
        finally:
            site.end()


def test_a_life_without_systemd(site):
    """Start, start again, restart, stop: one daemon at any time, in a session of its own, its log in the state folder."""
    started = site.told("start")
    assert (started.returncode, started.stderr.count("\n")) == (0, 1), started.stderr
    (first,) = site.process_ids()
    assert started.stdout == f"started: process {first}\n"
    assert os.getsid(first) == first
    assert Path(f"/proc/{first}/cwd").readlink() == Path("/")
    assert site.client.ask("status")["nodes"]["total"] == 1
    again = site.told("start")
    assert (again.returncode, again.stdout) == (0, f"runs already: process {first}\n")
    restarted = site.told("restart")
    assert restarted.returncode == 0, restarted.stderr
    (second,) = site.process_ids()
    assert second != first
    assert site.log.read_text().count(" runs: epoch ") == 2
    assert site.log.stat().st_mode & 0o777 == 0o640
    assert site.told("stop").stdout == "stopped\n"
    assert site.process_ids() == []


def test_restart_starts_what_does_not_run(site, tmp_path):
    """As init scripts expect; the log goes where it is told."""
    assert site.told("restart", "--log", str(tmp_path / "other.log")).returncode == 0
    assert " runs: epoch " in (tmp_path / "other.log").read_text()
    assert not site.log.exists()


def test_a_start_that_fails_tells_why(site):
    """The daemon's own words and code, though its control socket was there for a moment; earlier ones in the log do not count."""
    site.log.parent.mkdir(exist_ok=True)
    site.log.write_text("esgf-gossip: error: of yesterday\n")
    # DemoFederation holds the port without listening: now somebody does.
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", site.http_port))
        taken.listen()
        failed = site.told("start")
    assert (failed.returncode, failed.stdout) == (11, "")
    (_, line) = failed.stderr.splitlines()
    assert line.startswith(
        f"esgf-gossip: error: the daemon did not start: cannot listen on 127.0.0.1:{site.http_port}: "
    )
    assert line.endswith(str(site.log))
    assert site.process_ids() == []


def test_a_daemon_that_does_not_answer_in_time_is_ended(site):
    """Nothing is left behind that comes up later, when nobody expects it."""
    secret = site.config.parent / "slow"
    secret.mkdir()
    # Every import of the daemon waits until it is ended.
    (secret / "sitecustomize.py").write_text(
        "import sys, threading\nif 'run' in sys.argv or 'run' in sys.orig_argv: threading.Event().wait()\n"
    )
    failed = site.told("start", "--timeout", "1", PYTHONPATH=str(secret))
    assert failed.returncode == 1
    assert "error: the daemon does not answer after 1 s and was ended; " in failed.stderr
    assert site.process_ids() == []


def test_a_stop_of_the_command_ends_what_it_has_begun(site):
    """Ctrl-C while it waits leaves no daemon."""
    slow = site.config.parent / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import sys, threading\nif 'run' in sys.argv or 'run' in sys.orig_argv: threading.Event().wait()\n"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-m", "esgf_gossip.cli.main", "start", "--config", str(site.config)],
        env={**os.environ, "PYTHONPATH": str(slow)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with waiting:
        assert waiting.stderr.readline().startswith("starting; process ")
        eventually(site.process_ids, "the daemon has begun")
        waiting.send_signal(signal.SIGINT)
        assert waiting.stderr.read().strip() == "esgf-gossip: error: interrupted"
        assert waiting.wait(DEADLINE_S) == 130
    assert site.process_ids() == []


def test_a_managed_daemon_is_not_taken_away(site, tmp_path):
    """Restarted by hand it would run beside the one that systemd starts again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        managed = subprocess.Popen(
            [sys.executable, "-m", "esgf_gossip.cli.main", "run", "--config", str(site.config)],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stdout=subprocess.DEVNULL,
        )
        try:
            eventually(site.client.is_answering, "it answers")
            refused = site.told("restart")
            assert (refused.returncode, refused.stdout) == (4, "")
            assert "use: systemctl restart esgf-gossip" in refused.stderr
            assert managed.poll() is None
        finally:
            managed.kill()
            managed.wait()


@pytest.mark.parametrize("what", ["folder", "fifo", "link"])
def test_a_log_that_is_no_file_is_refused(site, tmp_path, what):
    """Before anything is started."""
    log = tmp_path / "log"
    if what == "folder":
        log.mkdir()
    elif what == "fifo":
        os.mkfifo(log)
    else:
        log.symlink_to(tmp_path / "elsewhere")
    failed = site.told("start", "--log", str(log))
    assert failed.returncode == 7
    assert f"; {log}; give another with --log\n" in failed.stderr
    assert not (tmp_path / "elsewhere").exists()
    assert site.process_ids() == []
