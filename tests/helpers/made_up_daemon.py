"""A made-up daemon behind a real control socket, for the tests of commands. No test lives here."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path

from click.testing import CliRunner

from esgf_gossip.cli.main import program
from esgf_gossip.config import load
from helpers.config import HOST

STATUS = {
    "host": HOST,
    "root": "ab" * 32,
    "epoch": 7,
    "sequence": 3,
    "links": 2,
    "nodes": {"total": 2, "up": 2},
    "certificate": {"not_after": "2027-01-01T00:00:00Z"},
}
NODE = {
    "host": "evil\x1b[2J.org",
    "status": "up",
    "since": "2026-01-01T00:00:00Z",
    "node_types": ["data", "idp"],
    "short_name": "[bold]x",
    "epoch": 1,
    "sequence": 2,
    "forked": True,
    "services": [{"type": "gridftp", "endpoint": "gsiftp://x", "health": "unknown", "since": None}],
}


class MadeUpDaemon:
    """Answers each connection with prepared bytes, and keeps what it was asked."""

    def __init__(self, path: Path, answers: list[bytes], *, silent: bool = False):
        self.asked: list[dict] = []
        self._answers = answers
        self._silent = silent
        self._done = threading.Event()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        with contextlib.chdir(path.parent):
            self._socket.bind(path.name)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        for answer in self._answers:
            connection, _ = self._socket.accept()
            with connection:
                line = connection.makefile("rb").readline()
                if line:
                    self.asked.append(json.loads(line))
                    connection.sendall(answer)
                if self._silent:
                    self._done.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join(10)
        self._socket.close()


def an_answer(data) -> bytes:
    """Give the line of a good answer."""
    return json.dumps({"ok": True, "data": data}).encode() + b"\n"


def run_against(config: Path, answer: bytes, *arguments: str):
    """Run a command against a daemon that gives one answer; returns the result and what was asked."""
    with MadeUpDaemon(load(config).control_socket, [answer]) as daemon:
        result = CliRunner().invoke(program, [*arguments, "--config", str(config)])
    return result, daemon.asked


def config_again(config: Path) -> Path:
    """Remove the socket of the made-up daemon that has gone."""
    load(config).control_socket.unlink()
    return config
