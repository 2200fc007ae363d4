"""
TLS to a service whose health is asked, not its identity.

Nothing secret is sent and nothing that comes back is believed: a service with a certificate of a CA that this host
does not know, or with one that has just ended, is up. Never used between nodes.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer  # type: ignore[import-untyped]


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    def __init__(self, host: bytes) -> None:
        self._host = host

    def clientConnectionForTLS(self, tls_protocol: Any) -> SSL.Connection:  # noqa: ARG002 - Twisted's own signature
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_verify(SSL.VERIFY_NONE, lambda *_arguments: True)
        connection = SSL.Connection(context, None)
        if not self._host.replace(b".", b"").isdigit() and b":" not in self._host:
            connection.set_tlsext_host_name(self._host)
        return connection


@implementer(IPolicyForHTTPS)
class UnverifiedPolicy:
    """Any certificate will do."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> _Creator:  # noqa: ARG002 - Twisted's own signature
        """Return what makes connections to that host."""
        return _Creator(hostname)
