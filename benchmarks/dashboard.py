"""
Measure the dashboard: the first page of 500 nodes, a change on another node's open page, 200 listening clients.

Real parts: the HTTP service of a daemon on loopback, three daemons with mutual TLS, Debian's Chromium. Seeded; prints
machine and commit, medians, and the ratio to the least that jinja2 and twisted.web can do in the same run.

    .venv/bin/python benchmarks/dashboard.py
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine_line

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import attrs
import jinja2
from twisted.internet.task import Clock

from esgf_gossip.cli.failures import CommandError
from esgf_gossip.demo.processes import DemoFederation
from helpers import crowd
from helpers.browser import a_browser
from helpers.daemons import all_equal, eventually, set_property
from helpers.page_server import CrowdDaemon
from helpers.web import Client, a_site

NODES = 500
CLIENTS = 200
PAGE_S = 0.1
PAGE_BYTES = 300_000
SHOWN_S = 1.0
# The same number of rows and cells, nothing decided, nothing escaped but names.
BARE = jinja2.Environment(autoescape=True).from_string(
    "<table>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>"
)


def first_page(rounds: int) -> dict[str, Any]:
    """Ask for the front page of 500 nodes, each time of a view that is new, in this process: request to last byte."""
    daemon = CrowdDaemon(str(NODES))
    client = Client(a_site(daemon, Clock(), ("127.0.0.1",)))
    nodes = daemon.picture.nodes
    cells = [(node.host, node.status.value, *(f"cell {n}" for n in range(7))) for node in nodes]
    took, bare, json_s = [], [], []
    size = 0
    for number in range(rounds + 1):
        daemon.picture = attrs.evolve(daemon.picture, at_ms=crowd.NOW_MS + number)
        for path, kept in (("/", took), ("/api/v1/nodes", json_s)):
            begun = time.perf_counter()
            answer = client.ask(path, Host="127.0.0.1")
            kept.append(time.perf_counter() - begun)
            assert answer.status == 200
            size = len(answer.body) if path == "/" else size
        begun = time.perf_counter()
        BARE.render(rows=cells)
        bare.append(time.perf_counter() - begun)
    # The first loads the templates.
    return {
        "first_of_all_s": took[0],
        "median_s": statistics.median(took[1:]),
        "json_median_s": statistics.median(json_s[1:]),
        "bare_median_s": statistics.median(bare[1:]),
        "bytes": size,
    }


def page_sizes() -> dict[str, int]:
    """Return the bytes of every page of 500 nodes."""
    client = Client(a_site(CrowdDaemon(str(NODES)), Clock(), ("127.0.0.1",)))
    host = "esgf-node001.site1.example.org"
    paths = ("/", "/services", "/trust", "/changes", "/this-node", f"/nodes/{host}")
    return {path: len(client.ask(path, Host="127.0.0.1").body) for path in paths}


def change_shown(federation: DemoFederation, rounds: int) -> list[float]:
    """Rename a node again and again; return how long the open page of another took to show it, after the reload was ordered."""
    watching, changing = federation.hosts[:2]
    properties = federation.config_path(changing).parent / "esgf.properties"
    took = []
    with a_browser() as browser:
        page = browser.new_page()
        page.goto(federation.http_url(watching))
        page.locator("#live", has_text="live").wait_for()
        for number in range(rounds):
            # Not right after a fetch: pages are fetched once a second at most, and a change may come at any time.
            page.wait_for_timeout(300 + 170 * (number % 7))
            set_property(properties, "node.short.name", f"Renamed{number}")
            begun = time.perf_counter()
            federation.control(changing).ask("reload")
            page.locator("#nodes small", has_text=f"Renamed{number}").wait_for()
            took.append(time.perf_counter() - begun)
    return took


def clients_held(federation: DemoFederation) -> dict[str, float]:
    """Hold 200 streams of events on one daemon; return how long after an order the median and the last client heard."""
    watching, changing = federation.hosts[:2]
    address = federation.http_url(watching).removeprefix("http://")
    host, _, port = address.partition(":")
    streams = []
    for _ in range(CLIENTS):
        stream = socket.create_connection((host, int(port)))
        stream.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        stream.settimeout(20)
        streams.append(stream)
    for stream in streams:
        assert b"esgf-gossip events" in _until(stream, b"events\n\n")
    set_property(federation.config_path(changing).parent / "esgf.properties", "node.short.name", "Heard")
    begun = time.perf_counter()
    federation.control(changing).ask("reload")
    heard = []
    for stream in streams:
        _until(stream, b"digest-accepted")
        heard.append(time.perf_counter() - begun)
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/api/v1/status")
    asked_s = time.perf_counter()
    assert json.loads(connection.getresponse().read())["host"] == watching
    status_s = time.perf_counter() - asked_s
    for stream in streams:
        stream.close()
    return {"median_s": statistics.median(heard), "last_s": heard[-1], "status_s": status_s}


def _until(stream: socket.socket, text: bytes) -> bytes:
    data = b""
    while text not in data:
        part = stream.recv(65536)
        assert part, "the server closed a stream"
        data += part
    return data


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    print(machine_line())
    page = first_page(rounds)
    sizes = page_sizes()
    print(
        f"{NODES} nodes, front page: median {page['median_s'] * 1000:.0f} ms (target {PAGE_S * 1000:.0f}), "
        f"the very first {page['first_of_all_s'] * 1000:.0f} ms, {page['bytes']} bytes (target {PAGE_BYTES})"
    )
    print(
        f"  beside it: /api/v1/nodes {page['json_median_s'] * 1000:.0f} ms, a bare jinja2 table {page['bare_median_s'] * 1000:.1f} ms; "
        f"ratio to the bare table {page['median_s'] / page['bare_median_s']:.1f}"
    )
    print("pages: " + ", ".join(f"{path} {size}" for path, size in sizes.items()))
    with tempfile.TemporaryDirectory() as folder, DemoFederation(Path(folder), 3) as federation:
        federation.prepare()
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, 3), "three nodes converge")
        took = change_shown(federation, rounds)
        print(
            f"a change on the open page of another node: median {statistics.median(took):.2f} s, "
            f"worst of {rounds} {max(took):.2f} s (target {SHOWN_S:.0f})"
        )
        held = clients_held(federation)
        print(
            f"{CLIENTS} clients of /api/v1/events: median heard after {held['median_s']:.2f} s, the last after {held['last_s']:.2f} s; "
            f"/api/v1/status meanwhile {held['status_s'] * 1000:.0f} ms"
        )


if __name__ == "__main__":
    try:
        main()
    except CommandError as error:
        sys.exit(str(error))
