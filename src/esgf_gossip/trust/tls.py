"""
TLS as every listener and every dial of the daemon uses it: one class, both directions.

TLS 1.3 alone, certificates on both sides, CRLs enforced, no resumption (it
skips the CRL check), our own profile check inside the handshake, one ALPN.
The address dialled is never compared with anything: the certificate says who
answered. No reactor and no sockets here. Source: docs/trust.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakSet

import attrs
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from zope.interface import implementer  # type: ignore[import-untyped]

from esgf_gossip.trust import profile
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.chain import STALE_CRL, chain_error, check_dates
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.pem import certificate_der
from esgf_gossip.trust.refusal import TlsRefusal, refusal_reason
from esgf_gossip.trust.revocation import milliseconds

__all__ = [
    "ALPN_FEEDBACK",
    "ALPN_GOSSIP",
    "ALPN_TRUST",
    "ConnectionCreator",
    "FeedbackCreator",
    "PeerIdentity",
    "TlsRefusal",
    "VisitCreator",
    "is_feedback",
    "is_visit",
    "peer_identity",
    "refusal_reason",
]

ALPN_GOSSIP: Final = b"esgf-gossip/1"
ALPN_TRUST: Final = b"esgf-trust/1"
ALPN_FEEDBACK: Final = b"esgf-feedback/1"
# What members speak among themselves, each with its certificate.
_OF_MEMBERS: Final = (ALPN_GOSSIP, ALPN_FEEDBACK)

# Leaf, issuing CA, one level of room, root.
_DEPTH: Final = 3


@attrs.frozen
class PeerIdentity:
    """Who is at the other end, by its certificate."""

    host: str
    federation: str
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    certificate_sha256: bytes
    not_after_ms: int


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class ConnectionCreator:
    """Makes the TLS side of connections, by the trust in force when they are made."""

    def __init__(self, material: TrustMaterial, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.replace(material)

    def replace(self, material: TrustMaterial) -> None:
        """
        Use new trust for new connections; those that stand are not touched, see ``still_trusted``.

        The contexts are built anew: a used one must not be changed, and new
        ones have new ticket keys.
        """
        server = _context(material, self._now_ms)
        client = _context(material, self._now_ms)
        server.set_alpn_select_callback(_select_protocol)
        client.set_alpn_protos([ALPN_GOSSIP])
        asking = _context(material, self._now_ms)
        asking.set_alpn_protos([ALPN_FEEDBACK])
        self._material, self._server, self._client, self._asking = material, server, client, asking

    @property
    def for_visits(self) -> VisitCreator:
        """What makes the client side of a visit by esgf-trust/1."""
        return VisitCreator()

    @property
    def for_feedback(self) -> FeedbackCreator:
        """What makes the client side of a connection by esgf-feedback/1, by the trust in force now."""
        return FeedbackCreator(self._asking)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make the server side of one connection; Twisted calls it."""
        del protocol
        return SSL.Connection(self._server, None)

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make the client side of one connection; Twisted calls it."""
        del protocol
        return SSL.Connection(self._client, None)

    def still_trusted(self, transport: Any) -> str:
        """
        Judge a live connection by the trust in force: "" or the reason why it must end.

        TLS judged it once, when it began; a revocation does not reach it by itself.
        """
        try:
            leaf, *others = _chain(transport)
            profile.leaf_names(leaf, self._material.names.federation)
            self._material.anchors.judge(leaf, others, self._now_ms())
            check_issued(self._material.bundle, leaf)
        except TrustError as error:
            return error.text
        return ""


@implementer(IOpenSSLClientConnectionCreator)
class FeedbackCreator:
    """Makes the client side of connections by esgf-feedback/1: judged on both sides as gossip is."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make the client side of one connection; Twisted calls it."""
        del protocol
        return SSL.Connection(self._context, None)


@implementer(IOpenSSLClientConnectionCreator)
class VisitCreator:
    """
    Makes the client side of a visit by esgf-trust/1: shows no certificate, and asks for none that would be good.

    Nothing that comes over such a connection is taken on the host's word.
    """

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make the client side of one connection; Twisted calls it."""
        del protocol
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_verify(SSL.VERIFY_NONE)
        context.set_alpn_protos([ALPN_TRUST])
        return SSL.Connection(context, None)


def is_visit(transport: Any) -> bool:
    """Tell, in ``handshakeCompleted``, whether the peer came for trust objects alone."""
    return bool(transport.negotiatedProtocol == ALPN_TRUST)


def is_feedback(transport: Any) -> bool:
    """Tell, in ``handshakeCompleted``, whether the peer came to bring matches of this node's users."""
    return bool(transport.negotiatedProtocol == ALPN_FEEDBACK)


def peer_identity(transport: Any, protocol: bytes = ALPN_GOSSIP) -> PeerIdentity:
    """
    Read who is at the other end, in ``handshakeCompleted`` and not before.

    Raises:
        TrustError: no certificate, another protocol; both were refused in the
            handshake already, unless the context is not ours.
    """
    if transport.negotiatedProtocol != protocol:
        raise _protocol_error(transport.negotiatedProtocol, protocol)
    leaf, *_ = _chain(transport)
    names = profile.leaf_names(leaf)
    return PeerIdentity(
        host=names.host,
        federation=names.federation,
        groups=names.groups,
        roles=names.roles,
        certificate_sha256=hashlib.sha256(certificate_der(leaf)).digest(),
        not_after_ms=milliseconds(leaf.not_valid_after_utc),
    )


def _context(material: TrustMaterial, now_ms: Callable[[], int]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    # A resumed session skips the CRL check; OP_NO_TICKET alone leaves stateful tickets.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"esgf-gossip")
    context.use_certificate(material.leaf)
    context.use_privatekey(material.key)
    context.check_privatekey()
    for issuer in material.issuers:
        context.add_extra_chain_cert(issuer)
    store = context.get_cert_store()
    if store is None:  # pragma: no cover - pyOpenSSL's type allows it, a new context always has one
        raise TrustError("E-INTERNAL", "the TLS context has no certificate store")
    for root in material.roots:
        store.add_cert(X509.from_cryptography(root))
    for crl in material.crls:
        store.add_crl(crl)
    store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)
    context.set_verify_depth(_DEPTH)
    # On the context: set on a connection, pyOpenSSL swallows what the callback raises.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _Judge(material, now_ms))
    return context


class _Judge:
    """OpenSSL's verify callback: sees each verdict of its chain check, adds ours on the leaf."""

    def __init__(self, material: TrustMaterial, now_ms: Callable[[], int]) -> None:
        self._material = material
        self._now_ms = now_ms
        # Not the connection's app data: that is Twisted's.
        self._refused: WeakSet[SSL.Connection] = WeakSet()

    def __call__(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        """
        Pass or refuse.

        Raises:
            TlsRefusal: the reason; it ends the handshake and reaches connectionLost.
        """
        # Refused once is refused: a second reason of one handshake would be raised in the next one.
        if connection in self._refused:
            return False
        try:
            self._judge(connection, certificate, error, depth, ok=bool(ok))
        except TrustError as refusal:
            self._refused.add(connection)
            raise TlsRefusal(refusal) from None
        except Exception as fault:
            # Fail closed: Twisted's own callback lets such a certificate pass.
            odd = TrustError(
                "E-PROFILE", f"the certificate cannot be judged: {type(fault).__name__}: {fault}"
            )
            self._refused.add(connection)
            raise TlsRefusal(odd) from fault
        return True

    def _judge(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, *, ok: bool
    ) -> None:
        if not ok:
            judged = certificate.to_cryptography()
            # crl-stale = warn: OpenSSL goes on to the revocations in the stale CRL, so they stay enforced.
            if error != STALE_CRL or self._material.anchors.crls.refuses_stale(judged.issuer, self._now_ms()):
                raise chain_error(error, judged)
            return
        # OpenSSL went by the system's clock; ours must agree (a store keeps the first time it is set for ever).
        judged = certificate.to_cryptography()
        check_dates(judged, self._now_ms())
        self._material.anchors.check_fresh((judged,), self._now_ms())
        if depth > 0:
            profile.check_issuer(judged)
        else:
            protocol = connection.get_alpn_proto_negotiated()
            if protocol not in _OF_MEMBERS:
                raise _protocol_error(protocol)
            profile.leaf_names(judged, self._material.names.federation)
            check_issued(self._material.bundle, judged)


def _select_protocol(connection: SSL.Connection, offered: Sequence[bytes]) -> bytes:
    if ALPN_GOSSIP in offered:
        return ALPN_GOSSIP
    if ALPN_FEEDBACK in offered:
        return ALPN_FEEDBACK
    if ALPN_TRUST in offered:
        # Before the certificate would be asked for. The gossip protocol is out of reach from here on.
        connection.set_verify(SSL.VERIFY_NONE)
        return ALPN_TRUST
    # Raised, not returned: NO_OVERLAPPING_PROTOCOLS would let the connection through.
    raise TlsRefusal(_protocol_error(b", ".join(offered)))


def _protocol_error(found: bytes | None, needed: bytes = ALPN_GOSSIP) -> TrustError:
    shown = "none" if not found else repr(found[:80])[1:]
    return TrustError(
        "E-ALPN", f"the peer does not speak our protocol (ALPN): {shown}, {needed.decode()} is needed"
    )


def _chain(transport: Any) -> list[x509.Certificate]:
    # The verified chain: what the peer sent lacks the leaf on a server.
    chain: list[x509.Certificate] | None = transport.getHandle().get_verified_chain(as_cryptography=True)
    if not chain:
        raise TrustError("E-PEER", "the peer sent no certificate")
    return chain
