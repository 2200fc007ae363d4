"""The demo's processes and its table, with made-up daemons that speak the control socket's language."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from esgf_gossip.demo import processes
from esgf_gossip.demo.plan import DemoError
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.demo.table import Lines, LiveTable, summary, table
from esgf_gossip.demo.watching import Watching, way_out

# Takes its root from a file beside it; a line on its FIFO becomes an event.
DAEMON = """
import json, os, pathlib, signal, socket, sys
folder = pathlib.Path(sys.argv[1]).parent
os.chdir(folder / "state")
if pathlib.Path("../die").exists():
    sys.exit("esgf-gossip: error: told to die")
if pathlib.Path("../stubborn").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
hosts = sorted(path.name for path in folder.parent.iterdir())
status = {"root": "ab" * 32, "epoch": 1, "sequence": 2, "links": 1, "nodes": {"total": len(hosts)},
          "started_at": "2026-01-01T00:00:00Z"}
pathlib.Path("control.sock").unlink(missing_ok=True)
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind("control.sock")
    listening.listen()
    while True:
        connection, _ = listening.accept()
        connection.makefile("rb").readline()
        first = {**status, "root": "00"} if pathlib.Path("../late").exists() else status
        nodes = [{"host": host, "status": "up"} for host in hosts]
        lines = [{"ok": True, "data": {"status": first, "nodes": nodes}}]
        if first is not status:
            lines.append({"event": "status", "data": status})
        connection.sendall("".join(json.dumps(line) + "\\n" for line in lines).encode())
        with open("../events") as events:
            for line in events:
                connection.sendall(line.encode())
"""


@pytest.fixture
def federation(tmp_path, monkeypatch):
    """Lay out three nodes by hand, with made-up daemons."""
    monkeypatch.setattr(processes, "daemon_command", lambda path: [sys.executable, "-c", DAEMON, str(path)])
    with DemoFederation(tmp_path, 3) as federation:
        for host in federation.hosts:
            folder = federation.node(host).folder
            (folder / "state").mkdir(parents=True)
            (folder / "config_type").write_text("4\n")
            os.mkfifo(folder / "events")
        yield federation


@pytest.fixture
def watched(federation):
    """Watch a federation that is not started; gives the lines that are said, too."""
    said = []
    watching = Watching(federation, said.append)
    yield federation, watching, said
    watching.close()


def start_all(federation, watching):
    """Start every daemon and begin to watch it."""
    for host in federation.hosts:
        federation.start(host)
        watching.follow(host)


def step_until(watching, condition, limit_s=20.0):
    """Take in what happens until a condition holds."""
    until_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until_s, "it did not happen in time"
        watching.step(1.0)


def is_alive(process_id: int) -> bool:
    """Tell whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_federation_converges_by_what_its_nodes_say(watched):
    """All nodes with one root and all nodes known is convergence, timed from the first start."""
    federation, watching, said = watched
    start_all(federation, watching)
    step_until(watching, lambda: watching.converged_at_s is not None)
    assert watching.root == "ab" * 32
    assert watching.is_settled
    assert 0 <= watching.converge_after_start_s <= watching.converge_s
    assert said[-1].startswith("converged: 3 nodes, root abababab, ")
    assert {"up"} == {watching.status_seen(host) for host in federation.hosts}


def test_events_in_one_piece_with_the_answer_count(watched):
    """A status that came with the answer to watch is taken in without another byte."""
    federation, watching, _ = watched
    for host in federation.hosts:
        (federation.node(host).folder / "late").touch()
    start_all(federation, watching)
    step_until(watching, lambda: watching.converged_at_s is not None)
    assert watching.root == "ab" * 32


def test_events_change_the_picture(watched):
    """What a node says of another is told and shown; what it says of itself replaces what it said."""
    federation, watching, said = watched
    start_all(federation, watching)
    step_until(watching, lambda: watching.is_settled)
    first, second, third = federation.hosts
    for host in (first, second):
        with (federation.node(host).folder / "events").open("w") as events:
            event = {"event": "node-status", "id": 1, "data": {"host": third, "status": "suspect"}}
            events.write(json.dumps(event) + "\n")
            events.write('{"event": "digest-accepted", "id": 2, "data": {"origin": "new.org"}}\n')
            events.write('{"event": "status", "data": {"links": 9}}\n')
    step_until(watching, lambda: all(watching.rows[host].own == {"links": 9} for host in (first, second)))
    assert watching.status_seen(third) == "suspect"
    assert watching.status_seen("new.org") == "up"
    assert f"{first} sees {third}: suspect" in said


def test_a_killed_node_stays_down_and_is_shown(watched):
    """A node that dies is told and shown, the others go on."""
    federation, watching, said = watched
    start_all(federation, watching)
    step_until(watching, lambda: watching.is_settled)
    victim, *others = federation.hosts
    federation.kill(victim)
    step_until(watching, lambda: not watching.rows[victim].is_running)
    assert (
        f"{victim} has ended (killed by SIGKILL); it stays down: {federation.node(victim).log_path}" in said
    )
    assert all(federation.is_running(host) for host in others)
    text = drawn(table(watching))
    assert "up (killed by SIGKILL)" in text
    assert "2 of 3 nodes run" in drawn(summary(watching))


def test_a_node_that_cannot_start_is_shown(watched):
    """A daemon that ends at once leaves its words in its log, and the start is over without it."""
    federation, watching, _ = watched
    broken = federation.hosts[1]
    (federation.node(broken).folder / "die").touch()
    start_all(federation, watching)
    step_until(watching, lambda: watching.is_settled)
    assert watching.rows[broken].exit_code == 1
    assert "told to die" in federation.node(broken).log_path.read_text()


def test_the_table_names_every_node(watched):
    """The table has a row per node with what it says of itself, also while it starts."""
    federation, watching, _ = watched
    start_all(federation, watching)
    assert "starting" in drawn(table(watching))
    assert "0 of 3 nodes answer" in drawn(summary(watching))
    step_until(watching, lambda: watching.converged_at_s is not None)
    text = drawn(table(watching))
    for host in federation.hosts:
        assert host in text
        assert federation.http_url(host) in text
    assert "abababab" in text
    assert "data" in text
    assert "converged " in drawn(summary(watching))


def drawn(picture) -> str:
    """Draw a picture of rich on a wide page without colours."""
    page = io.StringIO()
    Console(file=page, width=250).print(picture)
    return page.getvalue()


def test_a_signal_ends_the_wait_and_nothing_else(watched):
    """Ctrl-C, SIGTERM and SIGHUP set a flag and wake the selector; afterwards all is as before."""
    _, watching, _ = watched
    before = signal.getsignal(signal.SIGTERM)
    with watching.stopping_on_signals():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            watching.is_stopped = False
            timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
            timer.start()
            watching.step(30.0)
            timer.join()
            assert watching.is_stopped
    assert before == signal.getsignal(signal.SIGTERM)


def test_stopping_leaves_no_process(federation):
    """Stop ends every daemon; close does no harm after it."""
    federation.start_all()
    identifiers = [federation.process_id(host) for host in federation.hosts]
    assert all(is_alive(identifier) for identifier in identifiers)
    federation.stop_all()
    assert not any(is_alive(identifier) for identifier in identifiers)


def test_a_stubborn_process_is_killed_at_the_deadline(watched):
    """A daemon that does not heed SIGTERM is killed."""
    federation, watching, _ = watched
    host = federation.hosts[0]
    (federation.node(host).folder / "stubborn").touch()
    federation.start(host)
    watching.follow(host)
    step_until(watching, lambda: watching.is_settled)
    federation.terminate(host, deadline_s=0.1)
    assert federation.exit_code(host) == -signal.SIGKILL


def test_a_node_may_be_started_again(federation):
    """A node that was killed can be started again, one that runs cannot."""
    host = federation.hosts[0]
    federation.start(host)
    with pytest.raises(DemoError, match="runs already"):
        federation.start(host)
    federation.kill(host)
    assert not federation.is_running(host)
    federation.start(host)
    assert federation.is_running(host)


def test_daemons_die_with_the_thread_that_started_them(federation):
    """Whatever ends the demo ends its daemons: the kernel sees to it."""
    host = federation.hosts[0]
    starter = threading.Thread(target=federation.start, args=(host,))
    starter.start()
    starter.join()
    federation._processes[host].wait(10)
    assert federation.exit_code(host) == -signal.SIGTERM


def test_ways_out_are_named():
    """An exit is told by its code or its signal."""
    assert [way_out(code) for code in (None, 3, -15)] == ["running", "exit code 3", "killed by SIGTERM"]


def test_lines_carry_the_time(capsys):
    """Without a terminal each happening is a line with the seconds since the start."""
    times = iter([10.0, 12.5])
    Lines(lambda: next(times)).say("a\x1bb")
    assert capsys.readouterr().out == "    2.50 s  a?b\n"
    Lines(to_stderr=True).say("x")
    assert capsys.readouterr().err.endswith(" s  x\n")


def test_a_live_table_is_not_drawn_too_often(watched, monkeypatch):
    """However many events come, the terminal is drawn a few times a second."""
    _, watching, _ = watched
    now_s = [0.0]
    live = LiveTable(lambda: now_s[0])
    drawings = []
    monkeypatch.setattr(live._live, "update", lambda *_, **__: drawings.append(1))
    for now_s[0] in (0.0, 0.01, 0.02, 0.5):
        live.say("x")
        live.draw(watching)
    live.close()
    assert len(drawings) == 2
