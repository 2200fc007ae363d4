"""Services on loopback that answer, or do not, as a test says; and daemons that look at nothing else."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.esgf.services import RULES

PROBE_EVERY_S = 1


class Stub:
    """One HTTP server on an address of loopback; ``failing`` paths answer 503, ``missing`` ones 404, ``seen`` holds what was asked."""

    def __init__(self, address: str, port: int = 0, certificate: Path | None = None) -> None:
        stub = self
        self.failing: set[str] = set()
        self.missing: set[str] = set()
        self.seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.seen.append(self.path)
                code = 404 if self.path in stub.missing else 200
                self.send_response(503 if any(self.path.startswith(one) for one in stub.failing) else code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((address, port), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no more: connections are refused."""
        self._server.shutdown()
        self._server.server_close()


def self_signed(path: Path) -> Path:
    """Write key and certificate of a service that no CA vouches for, with the openssl tool."""
    key = path.with_suffix(".key")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=nobody"
    subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", path], check=True, capture_output=True)
    path.write_bytes(key.read_bytes() + path.read_bytes())
    return path


def probe_only(
    federation: DemoFederation, host: str, endpoints: Mapping[str, str], *, looks_at_others: bool = False
) -> None:
    """
    Switch probing on for a node whose only services are those given, by property.

    The sites of a demo are those of real institutes: every other endpoint is taken out of its properties first.
    """
    folder = federation.config_path(host).parent
    theirs = {rule.endpoint_key for rule in RULES} | {"index.slave.port"}
    properties = folder / "esgf.properties"
    kept = [line for line in properties.read_text().splitlines() if line.partition("=")[0] not in theirs]
    properties.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in endpoints.items()), ""]))
    (folder / "config_type").write_text("60\n")
    config = federation.config_path(host)
    text = config.read_text()
    assert "probe = false" in text
    # Of others only what lies on loopback may be looked at, and only where a test wants it.
    others = f"probe_others = {'true' if looks_at_others else 'false'}"
    allow = 'allow = ["127.0.0.0/8"]'
    config.write_text(
        text.replace("probe = false", f"probe = true\nprobe_every_s = {PROBE_EVERY_S}\n{others}\n{allow}")
    )


@contextmanager
def stubs(addresses: list[str]) -> Iterator[list[Stub]]:
    """Open one stub on each address, all on one port."""
    first = Stub(addresses[0])
    opened = [first, *(Stub(address, first.port) for address in addresses[1:])]
    try:
        yield opened
    finally:
        for stub in opened:
            stub.close()
