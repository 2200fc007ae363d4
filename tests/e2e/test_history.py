"""What changed yesterday at 14:00: five real daemons, a change, a death, and the questions afterwards."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime

from esgf_gossip.views.registration_xml import content_key
from helpers.daemons import a_federation_of_processes, eventually, fetch, fetch_json, set_property, status_of

NODES = 5


def _history(federation, host, *arguments):
    """Run esgf-gossip history as an administrator does."""
    command = [sys.executable, "-m", "esgf_gossip.cli.main", "history", *arguments]
    command += ["--config", str(federation.config_path(host))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _document(url):
    return fetch(url, "/registration.xml")[2]


def _now():
    return datetime.now(UTC).isoformat()


def _status(federation, asked, about):
    return fetch_json(federation.http_url(asked), f"/api/v1/nodes/{about}")["status"]


@contextmanager
def a_terminal(*arguments):
    """Run esgf-gossip on a terminal of its own; give a function that reads what was drawn until a text is there."""
    ours, its = os.openpty()
    command = [sys.executable, "-m", "esgf_gossip.cli.main", *arguments]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "50"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    drawn = bytearray()

    def read_until(text):
        def is_there():
            while select.select([ours], [], [], 0)[0]:
                drawn.extend(os.read(ours, 65536))
            return text.encode() in drawn

        eventually(is_there, f"{text!r} on the terminal")
        found = drawn.decode()
        drawn.clear()
        return found

    try:
        yield process, read_until
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_is_kept_in_step_and_a_pipe_gets_lines(tmp_path):
    """On a terminal watch draws a table in its place until Ctrl-C; lists and certificates are answered in one step."""
    with a_federation_of_processes(tmp_path, 3) as federation:
        asked, dying = federation.hosts[0], federation.hosts[2]
        config = ("--config", str(federation.config_path(asked)))
        with a_terminal("watch", *config) as (process, read_until):
            first = read_until(dying)
            assert "short name" in first
            federation.kill(dying)
            read_until("unreachable")
            # Drawn over itself: the cursor went up.
            assert re.search(r"\x1b\[\d*A", read_until(f"{dying} is "))
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        command = [sys.executable, "-m", "esgf_gossip.cli.main"]
        rows = subprocess.check_output(
            [*command, "services", "--list", "esgf_idp.xml", *config], text=True, timeout=60
        )
        listed = json.loads(
            subprocess.check_output(
                [*command, "services", "--list", "esgf_idp.xml", "--json", *config], text=True, timeout=60
            )
        )
        assert listed["listed"]
        assert [line.split()[2] for line in rows.splitlines()[1:]] == [
            place["host"] for name in ("left_out", "listed") for place in listed[name]
        ]
        ends = subprocess.check_output([*command, "nodes", "--certificates", *config], text=True, timeout=60)
        assert [line.split()[0] for line in ends.splitlines()[1:]] == sorted(federation.hosts)
        refused = subprocess.run(
            [*command, "services", "--list", "none.xml", *config], capture_output=True, text=True, check=False
        )
        assert "there are: esgf_ats.xml" in refused.stderr


def test_the_past_is_told_by_every_command_and_page(tmp_path):
    """Properties, deaths and documents as they were, over a restart of the node that is asked."""
    with a_federation_of_processes(tmp_path, NODES) as federation:
        asked, changed, killed = federation.hosts[:3]
        url = federation.http_url(asked)
        eventually(lambda: _document(url).count(b"<Node ") == NODES, "a whole document")
        before = _now()
        document = _document(url)
        set_property(federation.config_path(changed).parent / "esgf.properties", "node.short.name", "Renamed")
        federation.control(changed).ask("reload")
        eventually(lambda: b"Renamed" in _document(url), "the change is everywhere")
        between = _now()
        federation.kill(killed)
        eventually(lambda: _status(federation, asked, killed) == "unreachable", "the death is seen")

        federation.terminate(asked)
        federation.start(asked)
        url = federation.http_url(asked)
        eventually(lambda: status_of(federation, asked), "the node is back")
        eventually(lambda: fetch(url, "/readyz")[0] == 200, "it can be relied on")

        told = json.loads(
            _history(federation, asked, changed, "--kind", "digest", "--since", before, "--json")
        )
        renamed = [one for one in told["changes"] if "registration" in one["summary"]]
        assert [(one["name"], one["after"]) for one in renamed[0]["changes"]] == [
            ("registration.node.short.name", "Renamed")
        ]
        assert len(renamed) == 1
        assert f"{killed}  status  is unreachable, was " in _history(federation, asked, "--since", between)
        then = {
            node["host"]: node for node in fetch_json(url, f"/api/v1/nodes?at={before.replace('+', '%2B')}")
        }
        assert {node["status"] for node in then.values()} == {"up"}
        assert then[changed]["short_name"] != "Renamed"
        # The root's stamp rises with every document that was written, and those are not counted again.
        assert content_key(_history(federation, asked, "--at", before, "--xml").encode()) == content_key(
            document
        )
        rows = _history(federation, asked, "--between", before, "now")
        assert [line.split()[:2] for line in rows.splitlines() if "Renamed" in line] == [
            [changed, "property.node.short.name"],
            [changed, "short_name"],
        ]
        assert [line.split() for line in rows.splitlines() if line.startswith(f"{killed} ")] == [
            [killed, "status", "up", "unreachable"]
        ]
