"""Real daemons in tests: a federation of processes, polls with a deadline, plain HTTP."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from esgf_gossip.cli.failures import CommandError
from esgf_gossip.demo.processes import DemoFederation

# Generous: a loaded machine must not make a right program fail.
DEADLINE_S = 60.0
_pause = threading.Event()


def eventually(check: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until ``check`` returns something true, and return that; fail with ``what`` at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:.0f} s: {what}")
        _pause.wait(0.05)


def status_of(federation: DemoFederation, host: str) -> dict[str, Any]:
    """Ask a node for its status; empty while it does not answer."""
    try:
        return federation.control(host).ask("status")
    except (CommandError, OSError):
        return {}


def all_equal(federation: DemoFederation, hosts: Sequence[str], total: int) -> bool:
    """Tell whether these nodes hold one root over that many nodes."""
    states = [status_of(federation, host) for host in hosts]
    if not all(states):
        return False
    return len({state["root"] for state in states}) == 1 and states[0]["nodes"]["total"] == total


def fetch(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """GET a path; return status, headers in lower case, body."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def fetch_json(url: str, path: str) -> Any:
    """GET a JSON document."""
    return json.loads(fetch(url, path)[2])


def set_property(path: Path, key: str, value: str) -> None:
    """Change one line of a properties file."""
    text, count = re.subn(rf"(?m)^{re.escape(key)}=.*$", lambda _: f"{key}={value}", path.read_text())
    assert count == 1, f"{key} stands {count} times in {path}"
    path.write_text(text)


@contextmanager
def a_federation_of_processes(directory: Path, count: int) -> Iterator[DemoFederation]:
    """Start that many real daemons and wait until all hold the same set."""
    with DemoFederation(directory, count) as federation:
        federation.prepare()
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, count), f"{count} nodes converge")
        yield federation
