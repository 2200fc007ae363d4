"""Our TLS and our files against the openssl program: a second implementation of the same rules."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from esgf_gossip.trust import pem
from helpers.openssl import (
    DEADLINE_S,
    HOST,
    MEMBER,
    Server,
    as_member,
    our_client,
    our_server,
    running,
    s_client,
    s_server,
)
from helpers.trust import FEDERATION, TestFederation, a_federation, bad_leaf, foreign_issuer

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program is not installed"
)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for all tests that change nothing of it."""
    return a_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="module")
def server(federation: TestFederation) -> Iterator[Server]:
    """Run one server for all tests that change nothing of it."""
    with our_server(federation) as started:
        yield started


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
    "address as DNS": "is an address, not a DNS name",
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


def test_our_client_talks_to_a_member(federation: TestFederation) -> None:
    """Our client knows the member that answers by its certificate, and gets its line back reversed."""
    directory = federation.node(HOST)
    with s_server(federation, directory / "chain.pem", directory / "node.key") as port:
        ended = our_client(federation, port)
    assert (ended["peer"], ended["received"]) == (HOST, "olleh\n")


BAD_SERVERS = {**BAD_LEAVES, "clientAuth only": "the extended key usage does not allow this use"}
del BAD_SERVERS["serverAuth only"]


@pytest.mark.parametrize(
    "kind",
    [
        *("no SAN", "urn URI", "port URI", "wildcard", "address as DNS", "two node URIs", "other federation"),
        *("version 1", "CA as leaf", "no EKU", "clientAuth only", "expired", "not yet valid", "foreign root"),
    ],
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


def test_a_revoked_server_is_refused(tmp_path: Path) -> None:
    """Our client looks at the list too."""
    federation = a_federation(tmp_path)
    directory = federation.node(HOST)
    federation.node(MEMBER)
    federation.revoke([federation.serial(HOST)], MEMBER)
    with s_server(federation, directory / "chain.pem", directory / "node.key") as port:
        ended = our_client(federation, port)
    assert (ended["peer"], ended["reason"].startswith("certificate revoked (serial ")) == ("", True)


def test_a_server_that_does_not_trust_us_is_told_as_that(federation: TestFederation, tmp_path: Path) -> None:
    """In TLS 1.3 our handshake is done before the server judges us: the end says that it refused, and nothing was heard."""
    directory = federation.node(HOST)
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(pem.certificate_pem(foreign_issuer(FEDERATION, federation.now_ms).certificate))
    words = ("-Verify", 2, "-verify_return_error", "-tls1_3", "-alpn", "esgf-gossip/1", "-CAfile", stranger)
    with s_server(federation, directory / "chain.pem", directory / "node.key", *words) as port:
        ended = our_client(federation, port)
    assert (ended["received"], ended["reason"].startswith("peer sent alert: ")) == ("", True)


def test_a_server_that_dies_in_mid_handshake_is_an_end_with_a_reason(federation: TestFederation) -> None:
    """Whoever goes away after our first words leaves no open connection and one line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dying = threading.Thread(target=lambda: _die_after(listener, 16))
        dying.start()
        ended = our_client(federation, listener.getsockname()[1])
        dying.join(DEADLINE_S)
    assert (ended["peer"], ended["reason"] != "") == ("", True)


def _die_after(listener: socket.socket, count: int) -> None:
    with listener.accept()[0] as connection:
        connection.recv(count)


def test_half_a_client_hello_and_silence_end_with_the_deadline(server: Server) -> None:
    """A connection that stops in the middle of its first record is closed by our side."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert server.report()["peer"] == ""


def test_a_wrong_name_is_the_clients_refusal(federation: TestFederation, server: Server) -> None:
    """A client that wants another name than ours goes away by itself, and we hear the alert."""
    ran = s_client(federation, server, *as_member(federation), "-verify_hostname", "other.example.org")
    assert (ran.returncode, b"ostname mismatch" in ran.stderr + ran.stdout) == (1, True)
    assert server.report()["reason"].startswith("peer sent alert: ")


def test_a_hundred_reloads_refuse_no_good_handshake(tmp_path: Path) -> None:
    """While trust is replaced a hundred times members come and go, and every one is served."""
    federation = a_federation(tmp_path)
    member, other = as_member(federation), as_member(federation, "other.example.org")
    stop, served, refused = threading.Event(), [], []

    def come_and_go() -> None:
        while not stop.is_set():
            with running([*command(server), *member]) as visitor:
                try:
                    visitor.until("hello")
                    served.append(1)
                except AssertionError as error:
                    refused.append(str(error))

    def command(server: Server) -> list[object]:
        at = f"127.0.0.1:{server.port}"
        return ["openssl", "s_client", "-connect", at, "-alpn", "esgf-gossip/1", "-quiet"]

    with our_server(federation) as server:
        visitors = [threading.Thread(target=come_and_go) for _ in range(2)]
        with running([*command(server), *other]) as reloader:
            reloader.until("hello")
            for visitor in visitors:
                visitor.start()
            for _ in range(100):
                reloader.process.stdin.write(b"please reload\n")
                reloader.process.stdin.flush()
                reloader.until("reloaded")
            stop.set()
            for visitor in visitors:
                visitor.join(DEADLINE_S)
    assert refused == []
    assert len(served) >= 4, "hardly a handshake fell into the reloads"
