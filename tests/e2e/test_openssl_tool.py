"""Our TLS and our files against the openssl program: a second implementation of the same rules."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from helpers.trust import FEDERATION, TestFederation, a_federation, bad_leaf

HOST = "server.example.org"
MEMBER = "client.example.org"
DEADLINE_S = 20

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program is not installed"
)

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


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for all tests that change nothing of it."""
    return a_federation(tmp_path_factory.mktemp("federation"))


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


@pytest.fixture(scope="module")
def server(federation: TestFederation) -> Iterator[Server]:
    """Run one server for all tests that change nothing of it."""
    with our_server(federation) as started:
        yield started


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


def test_member_is_served(federation: TestFederation, server: Server) -> None:
    """A member gets TLS 1.3 with our protocol, leaf and issuer without root, and a name that verifies."""
    ran = s_client(federation, server, *as_member(federation), "-showcerts", "-verify_hostname", HOST)
    out = ran.stdout.decode()
    assert server.report()["peer"] == MEMBER
    assert out.count("-----BEGIN CERTIFICATE-----") == 2
    assert ("ALPN protocol: esgf-gossip/1" in out, "TLSv1.3" in out, f"Verified peername: {HOST}" in out) == (
        True,
        True,
        True,
    )


REFUSED_CLIENTS = {
    "no certificate": ((), {}, "the peer sent no certificate"),
    "TLS 1.2": (("-tls1_2",), {}, "the peer speaks no TLS 1.3"),
    "other ALPN": (
        (),
        {"alpn": "h2"},
        "the peer does not speak our protocol (ALPN): 'h2', esgf-gossip/1 is needed",
    ),
    "no ALPN": (
        (),
        {"alpn": None},
        "the peer does not speak our protocol (ALPN): none, esgf-gossip/1 is needed",
    ),
}


@pytest.mark.parametrize("kind", REFUSED_CLIENTS)
def test_client_that_does_not_speak_our_way_is_refused(
    federation: TestFederation, server: Server, kind: str
) -> None:
    """No certificate, TLS 1.2, another protocol or none: refused, with the reason in one line."""
    more, how, says = REFUSED_CLIENTS[kind]
    member = () if kind == "no certificate" else as_member(federation)
    ran = s_client(federation, server, *member, *more, **how)
    assert (server.report(), b"hello" in ran.stdout) == ({"peer": "", "reason": says, "received": ""}, False)


BAD_LEAVES = {
    "no SAN": "the extension subject alternative name is missing",
    "urn URI": "is not of the form",
    "port URI": "a port is not allowed in a node URI",
    "two node URIs": "exactly one node URI is needed",
    "other federation": "is of federation 'other.example.org'",
    "wildcard": "has a forbidden character",
    "CA as leaf": "a CA certificate is not a node's",
    "version 1": "X.509 version v1",
    "no EKU": "the extension extended key usage is missing",
    "serverAuth only": "the extended key usage does not allow this use",
    "foreign root": "not found",
    "expired": "certificate expired on",
    "not yet valid": "certificate not yet valid",
}


@pytest.mark.parametrize("kind", BAD_LEAVES)
def test_bad_client_certificate_is_refused(
    federation: TestFederation, server: Server, tmp_path: Path, kind: str
) -> None:
    """Each certificate OpenSSL alone might let in is refused by our server."""
    key, chain = bad_leaf(federation, kind).write(tmp_path)
    ran = s_client(federation, server, "-cert", chain, "-cert_chain", chain, "-key", key)
    report = server.report()
    assert (BAD_LEAVES[kind] in report["reason"], report["peer"], b"hello" in ran.stdout) == (True, "", False)


def test_missing_issuer_is_refused(federation: TestFederation, server: Server) -> None:
    """A member that sends its leaf alone is told what is missing, on our side."""
    directory = federation.node(MEMBER)
    s_client(federation, server, "-cert", directory / "chain.pem", "-key", directory / "node.key")
    assert server.report()["reason"].startswith("issuer 'CN=Issuing G1,O=federation.example.org' not found")


@pytest.mark.parametrize(
    ("sent", "says"),
    [(b"GET / HTTP/1.1\r\n\r\n", "not TLS: plain HTTP"), (b"\x01\x02garbage" * 9, "not TLS")],
)
def test_what_is_not_tls_is_refused(server: Server, sent: bytes, says: str) -> None:
    """Plain HTTP and garbage are refused and named."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(sent)
        assert server.report()["reason"] == says


def test_sessions_are_new_and_revocation_bites(tmp_path: Path) -> None:
    """A session is never resumed, a revocation closes the live connection and refuses the next one."""
    federation = a_federation(tmp_path)
    member, session = as_member(federation), tmp_path / "session"
    with our_server(federation) as server:
        command = [
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{server.port}",
            "-alpn",
            "esgf-gossip/1",
            *member,
        ]
        with running([*command, "-sess_out", session]) as live:
            live.until("hello")
            again = s_client(federation, server, *member, "-sess_in", session)
            assert (b"\nNew, TLSv1.3" in again.stdout, b"Reused" in again.stdout) == (True, False)
            assert server.report()["peer"] == MEMBER
            federation.revoke([federation.serial(MEMBER)], HOST)
            with running([*command[:-6], *as_member(federation, "other.example.org")]) as other:
                other.until("hello")
                other.process.stdin.write(b"please reload\n")
                other.process.stdin.flush()
                other.until("reloaded")
                assert server.report()["reason"].startswith("certificate revoked (serial ")
        with running(command) as refused:
            # Standing input: with an end of it s_client leaves before the alert comes.
            refused.until("alert certificate revoked")
        reports = [server.report(), server.report()]
        reason = next(one["reason"] for one in reports if one["peer"] == "")
        assert reason.startswith("certificate revoked (serial ")


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


def test_our_client_talks_to_a_member(federation: TestFederation) -> None:
    """Our client knows the member that answers by its certificate, and gets its line back reversed."""
    directory = federation.node(HOST)
    with s_server(federation, directory / "chain.pem", directory / "node.key") as port:
        ended = our_client(federation, port)
    assert (ended["peer"], ended["received"]) == (HOST, "olleh\n")


BAD_SERVERS = {**BAD_LEAVES, "clientAuth only": "the extended key usage does not allow this use"}
del BAD_SERVERS["serverAuth only"]


@pytest.mark.parametrize(
    "kind", ["no SAN", "urn URI", "port URI", "wildcard", "version 1", "clientAuth only", "expired"]
)
def test_bad_server_certificate_is_refused(federation: TestFederation, tmp_path: Path, kind: str) -> None:
    """Our client refuses each bad server and says nothing to it."""
    key, chain = bad_leaf(federation, kind).write(tmp_path)
    with s_server(federation, chain, key) as port:
        ended = our_client(federation, port)
    assert (ended["peer"], BAD_SERVERS[kind] in ended["reason"]) == ("", True)


def test_server_of_tls_1_2_is_refused(federation: TestFederation) -> None:
    """Our client does not go below TLS 1.3."""
    directory = federation.node(HOST)
    with s_server(
        federation, directory / "chain.pem", directory / "node.key", "-tls1_2", "-alpn", "esgf-gossip/1"
    ) as port:
        ended = our_client(federation, port)
    assert (ended["peer"], ended["reason"].startswith("peer sent alert: protocol version")) == ("", True)


def test_server_without_our_protocol_is_refused(federation: TestFederation) -> None:
    """Our client refuses a server that speaks no ALPN."""
    directory = federation.node(HOST)
    with s_server(federation, directory / "chain.pem", directory / "node.key", "-tls1_3") as port:
        ended = our_client(federation, port)
    assert ended["reason"] == "the peer does not speak our protocol (ALPN): none, esgf-gossip/1 is needed"
