"""The demo command: its course and its last line, with made-up daemons."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from esgf_gossip.cli import demo as demo_command
from esgf_gossip.cli.main import program
from esgf_gossip.demo import processes

DAEMON = """
import json, os, pathlib, socket, sys, time
folder = pathlib.Path(sys.argv[1]).parent
os.chdir(folder / "state")
known = len(list(folder.parent.iterdir())) - int(sys.argv[2])
status = {"root": "cd" * 32, "epoch": 1, "sequence": 2, "links": 1, "nodes": {"total": known}}
if int(sys.argv[3]):
    sys.exit("esgf-gossip: error: no key; trust; make one")
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind("control.sock")
    listening.listen()
    connection, _ = listening.accept()
    connection.makefile("rb").readline()
    connection.sendall(json.dumps({"ok": True, "data": {"status": status, "nodes": []}}).encode() + b"\\n")
    if int(sys.argv[4]):
        time.sleep(0.3)
        status["nodes"]["total"] += int(sys.argv[2])
        connection.sendall(json.dumps({"event": "status", "data": status}).encode() + b"\\n")
    sys.stdin.readline()
    time.sleep(60)
"""


def prepare(_self, tell=lambda _: None):
    """Write as much of the folders as the made-up daemons need."""
    for number, host in enumerate(_self.hosts, 1):
        folder = _self.node(host).folder
        (folder / "state").mkdir(parents=True)
        (folder / "config_type").write_text("4\n")
        tell(number)


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Give a function that runs the demo command with made-up daemons."""

    def run(*options, missing=0, dying=False, late=False):
        def command(path):
            return [sys.executable, "-c", DAEMON, str(path), str(missing), str(int(dying)), str(int(late))]

        monkeypatch.setattr(processes, "daemon_command", command)
        monkeypatch.setattr(processes.DemoFederation, "prepare", prepare)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return CliRunner().invoke(program, ["demo", "--seconds", "0.2", *options])

    return run


def test_the_last_line_is_one_json_object(demo, tmp_path):
    """With --json stdout is one line of JSON with the promised names; the rest is on stderr."""
    result = demo("--nodes", "3", "--json", "--dir", str(tmp_path / "d"))
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert (body["nodes"], body["converged"], body["root"]) == (3, True, "cd" * 32)
    assert 0 <= body["converge_after_start_seconds"] <= body["converge_seconds"]
    assert len(body["http"]) == 3
    assert all(url.startswith("http://127.0.0.1:") for url in body["http"])
    assert str(tmp_path / "d") == body["directory"]
    assert "converged: 3 nodes" in result.stderr


def test_a_given_folder_is_kept_and_shown(demo, tmp_path):
    """The folder that was given stays, and the user is told where to look."""
    result = demo("--nodes", "2", "--dir", str(tmp_path / "d"))
    assert result.exit_code == 0
    assert (tmp_path / "d" / "nodes").is_dir()
    assert f"Look at {tmp_path / 'd' / 'nodes'}" in result.stdout
    assert "converged: 2 nodes" in result.stdout


def test_its_own_folder_is_removed(demo, tmp_path):
    """A temporary folder does not outlive the demo."""
    result = demo("--nodes", "1", "--json")
    assert Path(json.loads(result.stdout)["directory"]).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_slow_machine_is_given_time_to_converge(demo):
    """The demo stays beyond its seconds until all nodes agree."""
    result = demo("--nodes", "2", "--json", "--seconds", "0", missing=1, late=True)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["converge_after_start_seconds"] > 0


def test_not_to_converge_is_a_failure_with_its_reason(demo, monkeypatch):
    """Nodes that know too few, after the time of grace too, end the demo with 1 and one line that says so."""
    monkeypatch.setattr(demo_command, "_CONVERGE_GRACE_S", 0.2)
    result = demo("--nodes", "2", "--json", missing=1)
    assert result.exit_code == 1
    body = json.loads(result.stdout)
    assert (body["converged"], body["root"], body["converge_seconds"]) == (False, "", None)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("esgf-gossip: error: the demo did not converge: of 2 nodes ")
    assert "knows 1" in last


def test_nodes_that_cannot_start_are_quoted(demo):
    """Where nodes end at once the reason is the last line of a log."""
    result = demo("--nodes", "2", dying=True)
    assert result.exit_code == 1
    assert "ended: esgf-gossip: error: no key; trust; make one; " in result.stderr.splitlines()[-1]


def test_an_occupied_folder_is_refused(demo, tmp_path):
    """A folder with an earlier demo exits 6 and stays as it is."""
    (tmp_path / "nodes").mkdir()
    result = demo("--dir", str(tmp_path))
    assert (result.exit_code, result.stdout) == (6, "")
    assert result.stderr == (
        f"esgf-gossip: error: there is a demo already; {tmp_path / 'nodes'}; remove it, or give another --dir\n"
    )


def test_a_row_of_ports_beyond_the_last_is_wrong_usage(demo):
    """Ports that do not exist exit 2."""
    result = demo("--base-port", "65530")
    assert result.exit_code == 2
    assert "out of range" in result.stderr
