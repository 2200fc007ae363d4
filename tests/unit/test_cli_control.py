"""The commands that ask a daemon, against a real socket with a made-up daemon behind it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from esgf_gossip.cli import control_commands
from esgf_gossip.cli.control_client import ControlClient, Conversation, NoDaemonError
from esgf_gossip.cli.failures import CommandError, ExitCode
from esgf_gossip.cli.main import program
from esgf_gossip.cli.tables import print_table
from esgf_gossip.config import load
from helpers.config import HOST, a_node_toml
from helpers.made_up_daemon import NODE, STATUS, MadeUpDaemon, an_answer, config_again, run_against


@pytest.fixture
def config(tmp_path) -> Path:
    """Give the path of a node.toml whose daemon may be made up."""
    return a_node_toml(tmp_path)


def test_status_prints_the_state(config):
    """Status prints names and values, one a line."""
    result, asked = run_against(config, an_answer(STATUS), "status")
    assert (result.exit_code, result.stderr, asked) == (0, "", [{"command": "status"}])
    assert f"host         {HOST}" in result.stdout
    assert "nodes        total 2, up 2" in result.stdout


def test_status_as_json_is_the_answer(config):
    """Status --json prints the body of the answer and nothing else."""
    result, _ = run_against(config, an_answer(STATUS), "status", "--json")
    assert json.loads(result.stdout) == STATUS


@pytest.mark.parametrize("body", [[NODE], {"nodes": [NODE]}])
def test_nodes_prints_a_line_per_node(config, body):
    """Nodes prints a table in which no text of another node is obeyed by the terminal."""
    result, _ = run_against(config, an_answer(body), "nodes")
    head, line = result.stdout.splitlines()
    assert head.startswith("HOST")
    assert line.startswith("evil?[2J.org (forked)  up ")
    assert "[bold]x" in line
    assert "\x1b" not in result.stdout


def test_show_prints_one_node(config):
    """Show asks for the node named and prints its services below it."""
    result, asked = run_against(config, an_answer(NODE), "show", "x.org")
    assert asked == [{"command": "node", "host": "x.org"}]
    assert "node types  data, idp" in result.stdout
    assert "gridftp  gsiftp://x  unknown  -" in result.stdout


def test_explain_prints_reason_and_votes(config):
    """Explain says why in words, then who said what, whatever another node calls itself."""
    answer = {
        "host": "x.org",
        "status": "suspect",
        "since": "2026-01-01T00:00:00Z",
        "reason": "1 observer reports",
        "observers": [
            {
                "seat": 0,
                "host": "a\x1b.org",
                "vote": "reports",
                "report": {"since": "2026-01-01T12:00:00Z"},
                "evidence": None,
            },
            {"seat": 1, "host": "b.org", "vote": "abstains", "report": None, "evidence": {"epoch": 7}},
        ],
    }
    result, asked = run_against(config, an_answer(answer), "explain", "x.org")
    assert asked == [{"command": "explain", "host": "x.org"}]
    assert "reason  1 observer reports" in result.stdout
    assert "reports   2026-01-01 12:00:00 " in result.stdout
    assert "\x1b" not in result.stdout


def test_explain_as_json_is_the_answer_with_its_evidence(config):
    """What a program asks for comes whole."""
    answer = {"host": "x.org", "observers": [{"evidence": {"payload": "AA=="}}]}
    result, _ = run_against(config, an_answer(answer), "explain", "x.org", "--json")
    assert json.loads(result.stdout) == answer


def test_show_of_an_unknown_node_ends_with_not_found(config):
    """What the daemon refuses to show exits 5, in its own words and one line."""
    answer = b'{"ok": false, "error": "there is no node \'x.org\'"}\n'
    result, _ = run_against(config, answer, "show", "x.org")
    assert (result.exit_code, result.stdout) == (ExitCode.NOT_FOUND, "")
    assert result.stderr == "esgf-gossip: error: there is no node 'x.org'\n"


def test_a_refusal_ends_with_refused(config):
    """A daemon that says no exits 4; a reason on two lines is told on one."""
    result, _ = run_against(config, b'{"ok": false, "error": "not\\nnow"}\n', "reload")
    assert result.exit_code == ExitCode.REFUSED
    assert result.stderr.startswith("esgf-gossip: error: not now\n")


def test_reload_tells_what_changed(config):
    """Reload prints what changed on stdout and findings on stderr."""
    answer = an_answer({"changed": ["properties", "trust"], "findings": ["key: odd"]})
    result, asked = run_against(config, answer, "reload")
    assert (asked, result.exit_code) == ([{"command": "reload"}], 0)
    assert (result.stdout, result.stderr) == (
        "changed: properties, trust\n",
        "esgf-gossip: attention: key: odd\n",
    )


def test_a_reload_that_was_refused_is_told_by_its_code(config):
    """Where the old stays in force because the new is wrong, a script can see it."""
    answer = an_answer({"changed": [], "refused": ["esgf.host is missing"], "findings": ["key: odd"]})
    result, _ = run_against(config, answer, "reload")
    assert (result.exit_code, result.stdout) == (ExitCode.REFUSED, "nothing else has changed\n")
    assert result.stderr.splitlines() == [
        "esgf-gossip: error: esgf.host is missing",
        "esgf-gossip: attention: key: odd",
    ]


def test_a_reload_that_needs_a_restart_is_not_nothing(config):
    """What changed and waits for a restart has changed, though nothing was put into force."""
    answer = an_answer({"changed": [], "findings": ["[tracking] changed; restart the daemon for it"]})
    result, _ = run_against(config, answer, "reload")
    assert (result.exit_code, result.stdout) == (0, "nothing else has changed\n")
    assert result.stderr == "esgf-gossip: attention: [tracking] changed; restart the daemon for it\n"


def test_reload_without_a_change_says_so(config):
    """Reload of what is as it was says that."""
    result, _ = run_against(config, an_answer({"changed": [], "refused": [], "findings": []}), "reload")
    assert result.stdout == "nothing has changed\n"


@pytest.mark.parametrize(("command", "said"), [("stop", "stopped\n"), ("leave", "left the federation\n")])
def test_stop_and_leave_ask_for_the_end(config, command, said):
    """Stop and leave ask once and say what was done; a daemon in our own process is not waited for."""
    result, asked = run_against(config, an_answer({}), command)
    assert ([{"command": command}], 0, said) == (asked, result.exit_code, result.stdout)


PROCESS = """
import os, socket, sys
os.chdir(sys.argv[1])
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind("control.sock")
    listening.listen()
    print("ready", flush=True)
    connection, _ = listening.accept()
    connection.makefile("rb").readline()
    connection.sendall(b'{"ok": true, "data": {}}\\n')
    connection.close()
    sys.stdin.readline()
"""


def a_process(config: Path) -> subprocess.Popen:
    """Start a made-up daemon that answers once and lives until it is told a line."""
    state = load(config).node.state
    state.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    return process


def test_stop_returns_when_the_process_is_gone(config, monkeypatch):
    """Stop waits for the process of the daemon, so that the next may start at once."""
    with a_process(config) as process:
        ask = Conversation.ask
        # It goes on living after its answer; only then is it told to end.
        monkeypatch.setattr(
            Conversation, "ask", lambda self, command: (ask(self, command), process.stdin.close())
        )
        result = CliRunner().invoke(program, ["stop", "--config", str(config)])
        assert (result.exit_code, result.stdout) == (0, "stopped\n")
        assert process.wait() == 0


def test_stop_does_not_wait_for_ever(config, monkeypatch):
    """A daemon that promises to end but does not is told with its process id."""
    monkeypatch.setattr(control_commands, "STOP_TIMEOUT_S", 0.2)
    with a_process(config) as process:
        result = CliRunner().invoke(program, ["stop", "--config", str(config)])
        assert result.exit_code == ExitCode.INTERNAL
        assert f"process {process.pid} has not ended" in result.stderr
        process.stdin.close()


def test_watch_prints_events_until_the_daemon_ends(config):
    """Watch prints the picture, then each event, also those that came in one piece with it."""
    event = {"event": "node-status", "id": 4, "data": {"host": "x.org", "status": "suspect"}}
    answer = an_answer({"status": STATUS, "nodes": [NODE]}) + json.dumps(event).encode() + b"\n"
    result, asked = run_against(config, answer, "watch")
    assert (asked, result.exit_code) == ([{"command": "watch"}], ExitCode.NO_DAEMON)
    assert "the daemon has ended on " in result.stderr
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+  x.org is suspect", result.stdout.splitlines()[-1]
    )
    as_json, _ = run_against(config_again(config), answer, "watch", "--json")
    assert [{"status": STATUS, "nodes": [NODE]}, event] == [
        json.loads(line) for line in as_json.stdout.splitlines()
    ]


@pytest.mark.parametrize(
    "command", [["status"], ["nodes"], ["show", "x"], ["watch"], ["reload"], ["stop"], ["leave"]]
)
def test_without_a_daemon_the_remedy_is_told(config, command):
    """Where nobody listens every command exits 3 with one line that says how to start a daemon."""
    result = CliRunner().invoke(program, [*command, "--config", str(config)])
    socket_path = load(config).control_socket
    assert (result.exit_code, result.stdout) == (ExitCode.NO_DAEMON, "")
    assert result.stderr.startswith(
        f"esgf-gossip: error: no daemon is running on {socket_path}; start it with: "
    )
    assert result.stderr.count("\n") == 1


def test_a_socket_left_behind_is_no_daemon(config):
    """The socket file of a daemon that was killed counts as no daemon."""
    path = load(config).control_socket
    with MadeUpDaemon(path, []):
        pass
    with pytest.raises(NoDaemonError):
        ControlClient(path).ask("status")


def test_a_path_too_long_for_a_socket_address_is_reached(tmp_path):
    """A control socket deeper than 107 bytes is connected to all the same."""
    path = tmp_path / ("d" * 100) / ("e" * 100) / "control.sock"
    with MadeUpDaemon(path, [an_answer(STATUS)]):
        assert ControlClient(path).ask("status") == STATUS
    with pytest.raises(NoDaemonError):
        ControlClient(tmp_path / ("f" * 200) / "control.sock").ask("status")


def test_a_silent_daemon_is_given_up(config):
    """A daemon that does not answer in time is told as such."""
    path = load(config).control_socket
    with MadeUpDaemon(path, [b""], silent=True), pytest.raises(CommandError, match="did not answer in time"):
        ControlClient(path, timeout_s=0.05).ask("status")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400\r\n\r\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_daemon_is_told(config, answer):
    """An answer that is no JSON object is another program's."""
    result, _ = run_against(config, answer, "status")
    assert result.exit_code == ExitCode.INTERNAL
    assert "what answers is not an esgf-gossip daemon" in result.stderr


def test_a_daemon_that_hangs_up_is_gone(config):
    """A connection closed without an answer counts as no daemon."""
    result, _ = run_against(config, b"", "status")
    assert result.exit_code == ExitCode.NO_DAEMON


def test_an_answer_in_pieces_is_one_answer():
    """Lines are found however the bytes are cut."""
    ours, theirs = socket.socketpair()
    conversation = Conversation.__new__(Conversation)
    conversation._path, conversation._unread, conversation._socket = Path("x"), bytearray(), ours
    found = []
    for byte in b'{"a": 1}\n{"b": 2}\n':
        theirs.send(bytes([byte]))
        conversation.read_more()
        found.extend(conversation.lines_at_hand())
    theirs.close()
    conversation.close()
    assert found == [{"a": 1}, {"b": 2}]


def completed(line: str) -> list[str]:
    """Ask the program as bash does for what may follow a line that was begun."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    environment = {**os.environ, **words, "_ESGF_GOSSIP_COMPLETE": "bash_complete"}
    command = [sys.executable, "-m", "esgf_gossip.cli.main"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert found.stderr == ""
    return [row.partition(",")[2] for row in found.stdout.splitlines() if row]


def test_shells_complete_commands_types_and_hosts(config):
    """Hosts come from the daemon, those alone that are host names; without a daemon there are none, and no word of it."""
    assert completed("esgf-gossip ser") == ["services"]
    assert completed("esgf-gossip services --type Ind") == ["indexservice"]
    nodes = [{"host": name} for name in ("a.org", "b.org", "a.net", "a;reboot", "a\nb")]
    with MadeUpDaemon(load(config).control_socket, [an_answer(nodes)]) as daemon:
        assert completed(f"esgf-gossip show --config {config} a") == ["a.org", "a.net"]
    assert daemon.asked == [{"command": "nodes"}]
    load(config).control_socket.unlink()
    assert completed(f"esgf-gossip explain --config {config} a") == []
    assert completed(f"esgf-gossip explain --config {config}.not a") == []


def test_no_color_means_no_colour(monkeypatch, capsys):
    """On a terminal too, where NO_COLOR is set: https://no-color.org."""
    for value, has_colour in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", value)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        print_table(("host", "status"), [("a.org", "up")])
        assert ("\x1b[32m" in capsys.readouterr().out) is has_colour


def test_nodes_that_need_an_eye_come_first(config):
    """What is not up stands above what is; the daemon's order by host stays within."""
    answer = {"nodes": [{"host": "a.org", "status": "up"}, {"host": "b.org", "status": "unreachable"}]}
    result, _ = run_against(config, an_answer(answer), "nodes")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["HOST", "b.org", "a.org"]
