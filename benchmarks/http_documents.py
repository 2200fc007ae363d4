"""
Measure how fast registration.xml is served: requests a second beside a bare twisted.web resource with the same bytes.

One server process and one client process for each side in turn, 32 keep-alive connections on loopback, five pairs. The
client sends the next request of a connection when the answer is whole. Prints machine and commit.

    .venv/bin/python benchmarks/http_documents.py --pairs 5 --seconds 3
"""

from __future__ import annotations

import argparse
import selectors
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from twisted.internet import reactor
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from esgf_gossip.views.federation import FederationView, OwnState
from esgf_gossip.web.events import EventHub
from esgf_gossip.web.kept import KeptDocument, KeptDocuments
from esgf_gossip.web.site import make_site
from machine import machine_line

CONNECTIONS = 32
DOCUMENT_BYTES = 100 * 1024
DOCUMENT = KeptDocument(
    b"<Registration>" + b'<Node hostname="node.example.org"/>\n' * (DOCUMENT_BYTES // 36), "application/xml"
)


class Bare(Resource):
    """The least that twisted.web can do for these bytes: a type and a tag, 304 where the tag matches."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Answer."""
        request.setHeader(b"content-type", b"application/xml")
        return b"" if request.setETag(DOCUMENT.etag.encode()) is not None else DOCUMENT.body


class Quiet(Site):
    """A Site that writes no access log, as ours: the strictest peer."""

    noisy = False

    def startFactory(self) -> None:
        """Open no log."""

    def log(self, request: Request) -> None:
        """Write nothing."""


class Shown:
    """What the HTTP service of a daemon is given, with one document."""

    def __init__(self) -> None:
        self.documents = KeptDocuments()
        self.documents.keep("registration.xml", DOCUMENT.body)
        self.events = EventHub()
        self.past = None
        self.metadata = None

    def now_ms(self) -> int:
        """Give no time: nobody asks for the past."""
        return 0

    def view(self) -> FederationView:
        """Return an empty federation: no page but the document is asked for."""
        return FederationView(0, b"", OwnState("a.example.org", "f", "0", 1, 1, 0, 0, 0, 0), ())

    def explain(self, _host: str) -> dict[str, Any] | None:
        """Know nobody."""
        return None

    def is_ready(self) -> bool:
        """Be ready."""
        return True


def serve(kind: str) -> None:
    """Serve one side on a free port until stdin is closed; its number is the first line."""
    site: Site = make_site(Shown(), ("127.0.0.1",), reactor) if kind == "ours" else Quiet(Bare())
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.callInThread(lambda: (sys.stdin.read(), reactor.callFromThread(reactor.stop)))
    reactor.run()


def requests_per_s(port: int, fields: str, seconds: float, status: bytes) -> float:
    """Ask for so long over all connections; return whole answers a second."""
    request = f"GET /registration.xml HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(request)
        selector.register(client, selectors.EVENT_READ, [b"", -1])
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(1.0):
            client, state = key.fileobj, key.data
            data = client.recv(1 << 20)
            if not data:
                sys.exit("the server closed a connection")
            if state[1] < 0:
                head, found, rest = (state[0] + data).partition(b"\r\n\r\n")
                if not found:
                    state[0] = head
                    continue
                if head.split(b" ", 2)[1] != status:
                    sys.exit(f"answered {head.splitlines()[0]!r}")
                lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length")]
                state[0], state[1] = b"", int(lengths[0].partition(b":")[2]) if lengths else 0
                data = rest
            state[1] -= len(data)
            if state[1] == 0:
                count += 1
                state[1] = -1
                client.sendall(request)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return count / seconds


def measure(kind: str, fields: str, seconds: float, status: bytes) -> float:
    """Start one side, let it warm up, measure it, end it."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        requests_per_s(port, fields, min(0.5, seconds), status)
        rate = requests_per_s(port, fields, seconds, status)
        server.stdin.close()
    return rate


def main() -> None:
    """Measure pair by pair, and print medians and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", choices=("ours", "bare"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    print(
        machine_line(
            f"{len(DOCUMENT.body)} bytes, {CONNECTIONS} connections, {given.pairs} pairs of {given.seconds:g} s"
        )
    )
    for name, fields, status in (
        ("200", "", b"200"),
        ("304", f"If-None-Match: {DOCUMENT.etag}\r\n", b"304"),
    ):
        rates: dict[str, list[float]] = {"ours": [], "bare": []}
        for pair in range(given.pairs):
            # Who is first changes: the machine is not the same at both times.
            for kind in ("ours", "bare") if pair % 2 else ("bare", "ours"):
                rates[kind].append(measure(kind, fields, given.seconds, status))
        ratios = [ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True)]
        print(
            f"{name}: ours {statistics.median(rates['ours']):.0f}/s, bare {statistics.median(rates['bare']):.0f}/s, "
            f"ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
