"""
TLS to a web server outside the gossip: its certificate and name are checked, ours is shown.

For identity providers, whose certificates are of the CAs that the platform trusts or of the federation's own. The
name is checked here, inside the handshake, since Twisted's own check lets some bad names pass; whatever goes wrong in
it is a refusal. Source: docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.cryptography import verify_certificate_hostname
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer  # type: ignore[import-untyped]

from esgf_gossip.trust import names
from esgf_gossip.trust.chain import REVOKED, chain_error
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.refusal import TlsRefusal

_DEPTH: Final = 6


@implementer(IPolicyForHTTPS)
class WebClientPolicy:
    """
    Makes the client side of HTTPS connections that show this node's certificate.

    Args:
        material: returns the trust in force; asked for each connection.
    """

    def __init__(self, material: Callable[[], TrustMaterial]) -> None:
        self._material: Final = material
        self._made: tuple[TrustMaterial, SSL.Context, _Judge] | None = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> _Creator:  # noqa: ARG002 - Twisted's own signature
        """
        Return what makes connections to that host.

        Raises:
            TrustError: E-NAME: an address, or no name of a host; nobody certifies those.
        """
        host = names.check_dns(hostname.decode("ascii", "backslashreplace").lower())
        material = self._material()
        # Reading the platform's list of CAs takes some 10 ms: once for each change of trust.
        if self._made is None or self._made[0] is not material:
            judge = _Judge(material)
            self._made = material, _context(material, judge), judge
        return _Creator(self._made[1], self._made[2], host)


def _context(material: TrustMaterial, judge: _Judge) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(material.leaf)
    context.use_privatekey(material.key)
    for issuer in material.issuers:
        context.add_extra_chain_cert(issuer)
    context.set_default_verify_paths()
    store = context.get_cert_store()
    if store is None:  # pragma: no cover - as in tls.py
        raise TrustError("E-INTERNAL", "the TLS context has no certificate store")
    for root in material.roots:
        store.add_cert(X509.from_cryptography(root))
    context.set_verify_depth(_DEPTH)
    # On the context: set on a connection, pyOpenSSL swallows what the callback raises.
    context.set_verify(SSL.VERIFY_PEER, judge)
    return context


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    def __init__(self, context: SSL.Context, judge: _Judge, host: str) -> None:
        self._context: Final = context
        self._judge: Final = judge
        self._host: Final = host

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        del protocol
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(self._host.encode())
        self._judge.hosts[connection] = self._host
        return connection


class _Judge:
    """OpenSSL's verify callback: its own verdicts, revocations that we know of, and the name."""

    def __init__(self, material: TrustMaterial) -> None:
        # Not the connection's app data: that is Twisted's.
        self.hosts: Final[WeakKeyDictionary[SSL.Connection, str]] = WeakKeyDictionary()
        self._material: Final = material
        self._refused: WeakSet[SSL.Connection] = WeakSet()

    def __call__(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        """Pass or refuse; raises TlsRefusal with the reason, which reaches connectionLost."""
        # Refused once is refused: a second reason of one handshake would be raised in the next one.
        if connection in self._refused:
            return False
        try:
            judged = certificate.to_cryptography()
            if not ok:
                raise chain_error(error, judged)
            if self._material.anchors.crls.revoked(judged):
                raise chain_error(REVOKED, judged)
            if depth == 0:
                _check_name(judged, self.hosts[connection])
        except TrustError as refusal:
            self._refused.add(connection)
            raise TlsRefusal(refusal) from None
        except Exception as fault:
            # Fail closed, whatever it is.
            self._refused.add(connection)
            odd = TrustError("E-PROFILE", f"the certificate cannot be judged: {type(fault).__name__}")
            raise TlsRefusal(odd) from fault
        return True


def _check_name(certificate: x509.Certificate, host: str) -> None:
    try:
        verify_certificate_hostname(certificate, host)
    except Exception as error:
        # No name at all, a bad wildcard, an odd URI: the library raises a dozen kinds of errors.
        raise TrustError("E-NAME", f"the certificate is not of {host}") from error
