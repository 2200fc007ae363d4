"""The openssl program against our TLS, both ways round; each process ends with its block. No test lives here."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from helpers.trust import FEDERATION, TestFederation

HOST = "server.example.org"
MEMBER = "client.example.org"
DEADLINE_S = 20

# A daemon's TLS alone, in a process of its own: prints its port, then one JSON line per connection that ended.
END = """
import json, sys, time
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.tls import ConnectionCreator, peer_identity, refusal_reason

directory, host, federation, dial = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

def now_ms():
    return int(time.time() * 1000)

def load():
    return TrustMaterial.load(directory, host=host, federation=federation, now_ms=now_ms())

creator = ConnectionCreator(load(), now_ms)
live = set()

@implementer(IHandshakeListener)
class End(Protocol):
    peer, received = "", ""

    def connectionMade(self):
        self.deadline = reactor.callLater(10, self.transport.abortConnection)

    def handshakeCompleted(self):
        self.peer = peer_identity(self.transport).host
        live.add(self)
        self.transport.write(b"hello\\n")

    def dataReceived(self, data):
        self.received += data.decode("latin-1")
        if "please reload" in self.received:
            creator.replace(load())
            for end in list(live):
                reason = creator.still_trusted(end.transport)
                if reason:
                    end.closed = reason
                    end.transport.abortConnection()
            self.transport.write(b"reloaded\\n")
        if dial and "olleh" in self.received:
            self.transport.loseConnection()

    def connectionLost(self, reason):
        live.discard(self)
        if self.deadline.active():
            self.deadline.cancel()
        said = getattr(self, "closed", "") or refusal_reason(reason.value)
        print(json.dumps({"peer": self.peer, "reason": said, "received": self.received}), flush=True)
        if dial:
            reactor.stop()

factory = TLSMemoryBIOFactory(creator, bool(dial), Factory.forProtocol(End))
if dial:
    from twisted.internet.protocol import ClientFactory
    factory = TLSMemoryBIOFactory(creator, True, ClientFactory.forProtocol(End))
    reactor.connectTCP("127.0.0.1", dial, factory)
else:
    print(json.dumps(reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port), flush=True)
reactor.run()
"""


@attrs.define
class Lines:
    """The lines of a process, each awaited with a deadline."""

    process: subprocess.Popen[bytes]
    rest: bytes = b""

    def until(self, wanted: str) -> str:
        """Return all that came until some text did."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            end = time.monotonic() + DEADLINE_S
            while wanted.encode() not in self.rest:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise AssertionError(f"{wanted!r} did not come, only {self.rest!r}")
                part = os.read(self.process.stdout.fileno(), 65536)
                if not part:
                    raise AssertionError(f"{wanted!r} did not come before the end: {self.rest!r}")
                self.rest += part
        before, _, self.rest = self.rest.partition(wanted.encode())
        return (before + wanted.encode()).decode("latin-1")

    def line(self) -> str:
        """Return the next line."""
        return self.until("\n")


@contextlib.contextmanager
def running(command: Sequence[object], **how: object) -> Iterator[Lines]:
    """Run a program as long as the block lasts."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **how,
    )
    try:
        yield Lines(process)
    finally:
        process.kill()
        process.communicate()


@attrs.frozen
class Server:
    """Our server, listening."""

    port: int
    lines: Lines

    def report(self) -> dict[str, str]:
        """Return what it says of the next connection that ended."""
        return json.loads(self.lines.line())


@contextlib.contextmanager
def our_server(federation: TestFederation) -> Iterator[Server]:
    """Run our TLS as a server."""
    directory = federation.node(HOST)
    with running(
        [
            sys.executable,
            "-W",
            "error::DeprecationWarning",
            "-c",
            END,
            directory,
            HOST,
            FEDERATION,
            0,
        ]
    ) as lines:
        yield Server(json.loads(lines.line()), lines)


def s_client(
    federation: TestFederation,
    server: Server,
    *more: object,
    alpn: str | None = "esgf-gossip/1",
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Connect with openssl s_client; it ends when the server closes or its input does."""
    command = [
        *("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-verify_return_error"),
        *("-CAfile", federation.authority.directory / "roots" / "root-g1.pem", "-servername", HOST),
        *(() if alpn is None else ("-alpn", alpn)),
        *more,
    ]
    return subprocess.run(
        [str(part) for part in command], input=stdin, capture_output=True, timeout=DEADLINE_S, check=False
    )


def as_member(federation: TestFederation, host: str = MEMBER) -> Sequence[object]:
    """Return the options of a member."""
    directory = federation.node(host)
    return (
        "-cert",
        directory / "chain.pem",
        "-cert_chain",
        directory / "chain.pem",
        "-key",
        directory / "node.key",
    )


def our_client(federation: TestFederation, port: int) -> dict[str, str]:
    """Dial with our TLS, and return what it says of the connection."""
    command = [sys.executable, "-c", END, federation.node(MEMBER), MEMBER, FEDERATION, port]
    ran = subprocess.run([str(part) for part in command], capture_output=True, timeout=DEADLINE_S, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


@contextlib.contextmanager
def s_server(federation: TestFederation, chain: Path, key: Path, *more: object) -> Iterator[int]:
    """Run openssl s_server that sends back each line reversed, and give its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(
            "openssl",
            "s_server",
            "-accept",
            f"127.0.0.1:{port}",
            "-cert",
            chain,
            "-cert_chain",
            chain,
            "-key",
            key,
        ),
        *("-CAfile", federation.authority.directory / "roots" / "root-g1.pem", "-rev"),
        *(more or ("-Verify", 2, "-verify_return_error", "-tls1_3", "-alpn", "esgf-gossip/1")),
    ]
    with running(command):
        wait_for(port)
        yield port


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port), timeout=1),
        ):
            return
    raise AssertionError(f"nobody listens on {port}")
