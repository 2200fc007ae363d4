"""
TLS to a server of the outside world, such as a mail server: the system's roots, or those of a file, and its name.

Twisted's own options let a certificate pass whose names cannot be read (docs/trust.md); this one fails closed.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer  # type: ignore[import-untyped]

from esgf_gossip.trust.errors import TrustError


@implementer(IOpenSSLClientConnectionCreator)
class ServerTls:
    """
    Makes the client's side of connections to one server.

    Args:
        host: its name or IP address, as its certificate must have it.
        roots: PEM file of the roots it must come from; None: the system's.

    Raises:
        TrustError: E-FILE: the roots cannot be read.
    """

    def __init__(self, host: str, roots: Path | None = None) -> None:
        self._host = host
        self._is_address = _is_address(host)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        try:
            if roots is None:
                context.set_default_verify_paths()
            else:
                context.load_verify_locations(str(roots))
        except SSL.Error:
            raise TrustError("E-FILE", f"{roots} holds no certificates of roots, or cannot be read") from None
        # On the context: set on a connection, pyOpenSSL swallows what the callback raises.
        context.set_verify(SSL.VERIFY_PEER, self._judge)
        self._context = context

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make the client side of one connection; Twisted calls it."""
        del protocol
        connection = SSL.Connection(self._context, None)
        if not self._is_address:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection

    def _judge(self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
        del connection, error
        if not ok or depth > 0:
            return bool(ok)
        try:
            verify = verify_certificate_ip_address if self._is_address else verify_certificate_hostname
            verify(certificate.to_cryptography(), self._host)
        except Exception:  # noqa: BLE001 - whatever cannot be judged is refused
            return False
        return True


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
