"""TLS between two nodes, over real OpenSSL and in memory: who is let in, and what each side is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from zope.interface import implementer

from esgf_gossip.trust import issue, profile, tls
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.revocation import CrlSet
from esgf_gossip.trust.tls import ConnectionCreator, refusal_reason
from helpers.handshakes import Recorder, handshake
from helpers.trust import BAD_LEAVES, DAY_MS, TestFederation, a_federation, bad_leaf, real_now_ms

SERVER = "server.example.org"
CLIENT = "client.example.org"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for all tests that change nothing of it."""
    return a_federation(tmp_path_factory.mktemp("federation"))


def a_creator(federation: TestFederation, host: str, now_ms: int | None = None) -> ConnectionCreator:
    """Return the TLS of a node, at a time of choice."""
    clock = federation.now_ms if now_ms is None else now_ms
    return ConnectionCreator(federation.material(host), lambda: clock)


def test_members_of_one_federation_talk(federation: TestFederation) -> None:
    """Two members complete the handshake, each knows the other by its certificate, and the client is admitted."""
    server, client, _ = handshake(a_creator(federation, SERVER), a_creator(federation, CLIENT))
    assert (server.identity.host, client.identity.host) == (CLIENT, SERVER)
    assert (federation.name, ("member",), ()) == (
        client.identity.federation,
        client.identity.groups,
        client.identity.roles,
    )
    assert federation.material(SERVER).signer.certificate_sha256 == client.identity.certificate_sha256
    assert client.received == b"admitted"


BAD_ON_BOTH_SIDES = {
    **{kind: says for kind, (_, says) in BAD_LEAVES.items()},
    "expired": "certificate expired on ",
    "not yet valid": "certificate not yet valid",
    "foreign root": "issuer 'CN=Root G1,O=federation.example.org' not found",
    "version 1": "X.509 version v1",
}


@pytest.mark.parametrize("kind", [*BAD_ON_BOTH_SIDES, "serverAuth only"])
def test_server_refuses_bad_client(federation: TestFederation, kind: str) -> None:
    """A server refuses a client whose certificate is wrong in one way, says why, and never greets it."""
    hostile = ConnectionCreator(bad_leaf(federation, kind).material(federation), lambda: federation.now_ms)
    server, client, _ = handshake(a_creator(federation, SERVER), hostile)
    says = BAD_ON_BOTH_SIDES.get(kind, "serverAuth and clientAuth are needed")
    assert says in refusal_reason(server.lost)
    assert (server.shaken, client.received) == (False, b"")
    assert refusal_reason(client.lost).startswith("peer sent alert: ")


@pytest.mark.parametrize("kind", [*BAD_ON_BOTH_SIDES, "clientAuth only"])
def test_client_refuses_bad_server(federation: TestFederation, kind: str) -> None:
    """A client refuses a server whose certificate is wrong in one way before it sends anything of its own."""
    hostile = ConnectionCreator(bad_leaf(federation, kind).material(federation), lambda: federation.now_ms)
    server, client, _ = handshake(hostile, a_creator(federation, CLIENT))
    says = BAD_ON_BOTH_SIDES.get(kind, "serverAuth and clientAuth are needed")
    assert says in refusal_reason(client.lost)
    assert (client.shaken, server.shaken, server.identity) == (False, False, None)


def test_other_federation_is_refused_on_both_sides(federation: TestFederation, tmp_path: Path) -> None:
    """A member of another federation is told nothing, as client and as server."""
    other = a_federation(tmp_path, "other.example.org", federation.now_ms)
    foreign = a_creator(other, "n.example.org")
    server, client, _ = handshake(a_creator(federation, SERVER), foreign)
    assert (server.shaken, client.received) == (False, b"")
    assert "not found" in refusal_reason(client.lost)
    server, client, _ = handshake(foreign, a_creator(federation, CLIENT))
    assert (server.shaken, client.shaken) == (False, False)
    assert "not found" in refusal_reason(client.lost)


def test_revoked_peer_is_refused_on_both_sides(tmp_path: Path) -> None:
    """A certificate on the CRL is refused as client and as server, by its serial number."""
    federation = a_federation(tmp_path)
    revoked = a_creator(federation, "revoked.example.org")
    federation.node(SERVER)
    federation.revoke([federation.serial("revoked.example.org")], SERVER)
    good = a_creator(federation, SERVER)
    server, client, _ = handshake(good, revoked)
    expected = f"certificate revoked (serial {federation.serial('revoked.example.org'):x}); ask the trust administrator"
    assert refusal_reason(server.lost) == expected
    assert refusal_reason(client.lost) == "peer sent alert: certificate revoked (our certificate is revoked)"
    server, client, _ = handshake(revoked, good)
    assert refusal_reason(client.lost) == expected
    assert not client.shaken


def test_revoked_issuing_ca_refuses_everybody_below_it(tmp_path: Path) -> None:
    """A CRL of the root that names the issuing CA ends all its certificates: the whole chain is checked."""
    federation = a_federation(tmp_path)
    client_side = a_creator(federation, CLIENT)
    material = federation.material(SERVER)
    serial = federation.issuing.certificate.serial_number
    crl = issue.crl(federation.root, 2, {serial: issue.moment(federation.now_ms)}, federation.now_ms, 180)
    anchors = TrustAnchors(
        material.roots, CrlSet((crl, material.anchors.crls.of_issuer(federation.issuing.certificate.subject)))
    )
    server_side = ConnectionCreator(attrs.evolve(material, anchors=anchors), lambda: federation.now_ms)
    server, _, _ = handshake(server_side, client_side)
    assert f"certificate revoked (serial {serial:x})" in refusal_reason(server.lost)


def test_peer_of_an_issuer_without_crl_is_refused(federation: TestFederation) -> None:
    """Without a CRL nothing is known of revocations, so nobody is let in."""
    material = federation.material(SERVER)
    root_crl = material.anchors.crls.of_issuer(material.roots[0].subject)
    anchors = TrustAnchors(material.roots, CrlSet((root_crl,)))
    server_side = ConnectionCreator(attrs.evolve(material, anchors=anchors), lambda: federation.now_ms)
    server, _, _ = handshake(server_side, a_creator(federation, CLIENT))
    assert "no CRL of issuer 'CN=Issuing G1,O=federation.example.org' is held" in refusal_reason(server.lost)


def test_stale_crl_lets_members_in_for_a_fortnight(tmp_path: Path) -> None:
    """Past its nextUpdate a CRL still serves for 14 days, then nobody is let in."""
    # Really stale: OpenSSL's own clock finds it so too.
    federation = a_federation(tmp_path, now_ms=real_now_ms() - 20 * DAY_MS)
    at = {"now": real_now_ms()}
    server_side = ConnectionCreator(federation.material(SERVER), lambda: at["now"])
    client_side = ConnectionCreator(federation.material(CLIENT), lambda: at["now"])
    _, client, _ = handshake(server_side, client_side)
    assert client.received == b"admitted"
    at["now"] += 9 * DAY_MS
    _, client, _ = handshake(server_side, client_side)
    says = "the CRL of issuer 'CN=Issuing G1,O=federation.example.org' is too old"
    assert says in refusal_reason(client.lost)


def test_stale_crl_still_revokes(tmp_path: Path) -> None:
    """A revocation in a CRL past its nextUpdate stays enforced."""
    federation = a_federation(tmp_path, now_ms=real_now_ms() - 20 * DAY_MS)
    revoked = a_creator(federation, "revoked.example.org", real_now_ms())
    federation.node(SERVER)
    federation.revoke([federation.serial("revoked.example.org")], SERVER)
    server, _, _ = handshake(a_creator(federation, SERVER, real_now_ms()), revoked)
    assert "certificate revoked" in refusal_reason(server.lost)


def test_time_goes_on_for_a_context_in_use(federation: TestFederation) -> None:
    """A context that served a connection notices later that certificates expired: no frozen clock."""
    at = {"now": federation.now_ms}
    server_side = ConnectionCreator(federation.material(SERVER), lambda: at["now"])
    client_side = ConnectionCreator(federation.material(CLIENT), lambda: at["now"])
    _, client, _ = handshake(server_side, client_side)
    assert client.received == b"admitted"
    at["now"] += 91 * DAY_MS
    _, client, _ = handshake(server_side, client_side)
    assert refusal_reason(client.lost).startswith("certificate expired on ")


def plain_context(federation: TestFederation, host: str | None) -> SSL.Context:
    """Return a context with none of our rules, with the credentials of a member or without any."""
    context = SSL.Context(SSL.TLS_METHOD)
    if host is not None:
        material = federation.material(host)
        context.use_certificate(material.leaf)
        context.use_privatekey(material.key)
        context.add_extra_chain_cert(material.issuers[0])
    return context


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class PlainCreator:
    """Any TLS end: what a stranger may come with."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def clientConnectionForTLS(self, _: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    serverConnectionForTLS = clientConnectionForTLS


@pytest.mark.parametrize("offer", [None, [b"http/1.1"], [b"esgf-gossip/2", b"h2"]])
def test_client_with_another_protocol_is_refused(
    federation: TestFederation, offer: list[bytes] | None
) -> None:
    """A member that offers another ALPN protocol, or none, is refused by the server."""
    context = plain_context(federation, CLIENT)
    if offer is not None:
        context.set_alpn_protos(offer)
    server, client, _ = handshake(a_creator(federation, SERVER), PlainCreator(context))
    shown = "none" if offer is None else repr(b", ".join(offer))[1:]
    assert (
        refusal_reason(server.lost)
        == f"the peer does not speak our protocol (ALPN): {shown}, esgf-gossip/1 is needed"
    )
    assert (server.shaken, client.received) == (False, b"")


def test_server_without_our_protocol_is_refused(federation: TestFederation) -> None:
    """A server that selects no ALPN protocol is refused by the client before it sends its certificate."""
    _server, client, _ = handshake(
        PlainCreator(plain_context(federation, SERVER)), a_creator(federation, CLIENT)
    )
    assert "the peer does not speak our protocol (ALPN): none" in refusal_reason(client.lost)
    assert not client.shaken


def test_client_without_certificate_is_refused(federation: TestFederation) -> None:
    """A client without a certificate is refused, and both sides can say so."""
    context = plain_context(federation, None)
    context.set_alpn_protos([tls.ALPN_GOSSIP])
    server, client, _ = handshake(a_creator(federation, SERVER), PlainCreator(context))
    assert refusal_reason(server.lost) == "the peer sent no certificate"
    assert refusal_reason(client.lost) == (
        "peer sent alert: certificate required (it wants a certificate and got none)"
    )


def test_tls_1_2_is_refused(federation: TestFederation) -> None:
    """A client that speaks at most TLS 1.2 is refused."""
    context = plain_context(federation, CLIENT)
    context.set_alpn_protos([tls.ALPN_GOSSIP])
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    server, client, _ = handshake(a_creator(federation, SERVER), PlainCreator(context))
    assert refusal_reason(server.lost) == "the peer speaks no TLS 1.3"
    assert refusal_reason(client.lost).startswith("peer sent alert: protocol version")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not TLS: plain HTTP"),
        (b"\x00" * 64, "not TLS"),
        (b"SSH-2.0-x\r\n", "not TLS"),
    ],
)
def test_what_is_not_tls_is_named(federation: TestFederation, sent: bytes, says: str) -> None:
    """Bytes that are no TLS end the connection with a line that says what they were."""
    server = Recorder()
    factory = Factory()
    factory.buildProtocol = lambda _: server
    side = TLSMemoryBIOFactory(a_creator(federation, SERVER), False, factory, Clock()).buildProtocol(None)
    side.makeConnection(iosim.FakeTransport(side, isServer=True))
    side.dataReceived(sent)
    side.connectionLost(Failure(ConnectionDone()))
    assert refusal_reason(server.lost) == says


def test_one_refusal_leaves_no_trace_in_the_next_handshake(federation: TestFederation) -> None:
    """After any number of refusals the same context serves a good member, who is not told of others' faults."""
    server_side = a_creator(federation, SERVER)
    for kind in ("port URI", "expired", "foreign root", "NUL in DNS"):
        handshake(
            server_side,
            ConnectionCreator(bad_leaf(federation, kind).material(federation), lambda: federation.now_ms),
        )
    server, client, _ = handshake(server_side, a_creator(federation, CLIENT))
    assert (server.lost, client.received) == (None, b"admitted")


def test_any_fault_in_our_check_refuses(federation: TestFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception nobody foresaw in the check of a leaf refuses the peer: closed, not open."""

    def broken(*_: object) -> None:
        raise RuntimeError("unforeseen")

    server_side, client_side = a_creator(federation, SERVER), a_creator(federation, CLIENT)
    monkeypatch.setattr(profile, "leaf_names", broken)
    server, client, _ = handshake(server_side, client_side)
    assert refusal_reason(client.lost) == "the certificate cannot be judged: RuntimeError: unforeseen"
    assert (server.shaken, client.shaken) == (False, False)


def test_replaced_trust_reaches_new_and_live_connections(tmp_path: Path) -> None:
    """After replace, new connections of a revoked peer are refused and the live one is judged anew."""
    federation = a_federation(tmp_path)
    server_side, client_side = a_creator(federation, SERVER), a_creator(federation, CLIENT)
    live, _, _ = handshake(server_side, client_side)
    assert server_side.still_trusted(live.transport) == ""
    federation.revoke([federation.serial(CLIENT)], SERVER)
    server_side.replace(federation.material(SERVER))
    assert server_side.still_trusted(live.transport).startswith("certificate revoked (serial ")
    server, _, _ = handshake(server_side, client_side)
    assert refusal_reason(server.lost).startswith("certificate revoked (serial ")


def test_live_connection_of_an_expired_certificate_ends(federation: TestFederation) -> None:
    """A live connection is no longer trusted once its certificate has expired."""
    at = {"now": federation.now_ms}
    server_side = ConnectionCreator(federation.material(SERVER), lambda: at["now"])
    live, _, _ = handshake(server_side, a_creator(federation, CLIENT))
    at["now"] += 91 * DAY_MS
    assert server_side.still_trusted(live.transport).startswith("certificate expired on ")


def test_chain_is_sent_without_the_root(federation: TestFederation) -> None:
    """A peer gets the leaf and the issuing CA, not the root."""
    _, client, _ = handshake(a_creator(federation, SERVER), a_creator(federation, CLIENT))
    sent = client.transport.getHandle().get_peer_cert_chain(as_cryptography=True)
    material = federation.material(SERVER)
    assert sent == [material.leaf, *material.issuers]


def test_identity_needs_our_protocol(federation: TestFederation) -> None:
    """The identity of a peer is not read from a connection of another protocol."""

    class Transport:
        negotiatedProtocol = None

    with pytest.raises(TrustError) as caught:
        tls.peer_identity(Transport())
    assert caught.value.code == "E-ALPN"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionDone(), "the peer closed the connection"),
        (ConnectionLost(), "the connection was lost"),
        (SSL.Error([]), "TLS error: without a reason"),
        (SSL.Error([("SSL routines", "", "odd thing")]), "TLS error: odd thing"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "the peer closed the connection without a word"),
        (TrustError("E-X", "what", "where", "do"), "what; where; do"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_every_end_has_one_line(error: BaseException, says: str) -> None:
    """Whatever connectionLost delivers gives one line."""
    assert refusal_reason(error) == says


def test_trust_may_change_in_the_middle_of_a_handshake(federation: TestFederation) -> None:
    """However often trust is replaced, no good handshake fails, and a half-done one goes on by the old trust."""
    server_side, client_side = a_creator(federation, SERVER), a_creator(federation, CLIENT)
    material = federation.material(SERVER)
    admitted = []
    for _ in range(30):
        server_side.replace(material)
        started = server_side.serverConnectionForTLS(None)
        server_side.replace(material)
        _, client, _ = handshake(server_side, client_side)
        admitted.append(client.received)
        assert started.get_context() is not None
    assert admitted == [b"admitted"] * 30
