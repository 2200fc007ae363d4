"""
TLS towards programs that are no nodes: the site's own HTTPS port, and HTTPS services that it asks.

TLS 1.2 and up, for publishers and indices live long. A server shows the host's own certificate, of whatever CA; a
service that is asked is checked by the CAs given, or the system's, and by name. Never used between nodes. Our own
check of the name, failing closed: Twisted's lets some bad names pass (docs/trust.md).
"""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer  # type: ignore[import-untyped]

from esgf_gossip.trust import pem
from esgf_gossip.trust.errors import TrustError

_KEY_BYTES_MAX: Final = 64 * 1024
_OPTIONS: Final = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
_HTTP: Final = b"http/1.1"


class ServiceRefused(SSL.Error):
    """
    Report that a service is not who it should be; it ends the handshake.

    An SSL.Error, because only those end one in Twisted without a traceback.
    """

    def __init__(self, reason: str) -> None:
        super().__init__([("trust", "", reason)])
        self._reason: Final = reason

    def __str__(self) -> str:
        return self._reason


@implementer(IOpenSSLServerConnectionCreator)
class HostCertificate:
    """
    Makes the server side of HTTPS connections by the host's certificate.

    Args:
        certificate: PEM file: the host's certificate first, then its issuers.
        key: PEM file of its key, RSA or EC, without a passphrase; not readable by everybody.

    Raises:
        TrustError: a file is missing, wrong, or does not belong to the other.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files: Final = (certificate, key)
        self._context = _server_context(certificate, key)

    def reload(self) -> None:
        """
        Read both files again, for connections to come: a host's certificate is renewed under the same name.

        Raises:
            TrustError: as the constructor; what was read before stays in use.
        """
        self._context = _server_context(*self._files)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make the server side of one connection; Twisted calls it."""
        del protocol
        return SSL.Connection(self._context, None)


@implementer(IPolicyForHTTPS)
class ServicePolicy:
    """
    Checks HTTPS services by their certificates.

    Args:
        certificates: PEM file of the CAs that count; None: the system's.

    Raises:
        TrustError: the file is missing or holds no certificate.
    """

    def __init__(self, certificates: Path | None = None) -> None:
        self._roots: Final = None if certificates is None else _roots(certificates)

    def creatorForNetloc(self, hostname: bytes, port: int) -> _ServiceCreator:  # noqa: ARG002 - Twisted's own signature
        """Return what makes connections to that host."""
        return _ServiceCreator(hostname.decode("ascii"), self._roots)


@implementer(IOpenSSLClientConnectionCreator)
class _ServiceCreator:
    def __init__(self, host: str, roots: list[x509.Certificate] | None) -> None:
        self._host: Final = host.strip("[]")
        self._is_address: Final = _is_address(self._host)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(_OPTIONS)
        if roots is None:
            context.set_default_verify_paths()
        else:
            store = context.get_cert_store()
            if store is None:  # pragma: no cover - pyOpenSSL's type allows it, a new context always has one
                raise TrustError("E-INTERNAL", "the TLS context has no certificate store")
            for root in roots:
                store.add_cert(X509.from_cryptography(root))
        context.set_verify(SSL.VERIFY_PEER, self._judge)
        self._context: Final = context
        self._refused: Final[WeakSet[SSL.Connection]] = WeakSet()

    def clientConnectionForTLS(self, tls_protocol: Any) -> SSL.Connection:
        del tls_protocol
        connection = SSL.Connection(self._context, None)
        if not self._is_address:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection

    def _judge(self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
        # Refused once is refused: a second reason of one handshake would be raised in the next one.
        if connection in self._refused:
            return False
        if ok and depth > 0:
            return True
        try:
            if not ok:
                raise ServiceRefused(f"its certificate is not good here ({_reason(error)})")
            verify = verify_certificate_ip_address if self._is_address else verify_certificate_hostname
            verify(certificate.to_cryptography(), self._host)
        except ServiceRefused:
            self._refused.add(connection)
            raise
        except Exception:  # noqa: BLE001 - fail closed, whatever the certificate made the library raise
            self._refused.add(connection)
            raise ServiceRefused(f"its certificate is not one of {self._host}") from None
        return True


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _reason(error: int) -> str:
    known = {
        10: "expired",
        18: "self-signed",
        19: "self-signed root",
        20: "unknown issuer",
        21: "unknown issuer",
    }
    return known.get(error, f"OpenSSL error {error}")


def _server_context(certificate: Path, key: Path) -> SSL.Context:
    leaf, *issuers = pem.certificates(pem.read(certificate), str(certificate))
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_alpn_select_callback(
        lambda _connection, offered: _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    try:
        context.use_certificate(leaf)
        for issuer in issuers:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(_host_key(key))
        context.check_privatekey()
    except SSL.Error:
        raise TrustError(
            "E-KEY",
            f"{key} is not the key of the first certificate in {certificate}",
            remedy="name the host's certificate and its own key",
        ) from None
    return context


def _host_key(path: Path) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        # Certificates that are renewed by a program lie behind symbolic links.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TrustError("E-NOTFOUND", f"{path} does not exist", remedy="name the key of the host") from None
    except OSError as error:
        raise TrustError(
            "E-FILE", f"{path} cannot be read: {error.strerror}", remedy="let the daemon's group read it"
        ) from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise TrustError("E-FILE", f"{path} is not a regular file")
        if state.st_mode & 0o007:
            raise TrustError("E-MODE", f"{path} can be read by everybody", remedy=f"chmod o= {path}")
        content = os.read(descriptor, _KEY_BYTES_MAX)
    finally:
        os.close(descriptor)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TrustError("E-KEY", f"{path} holds no private key without a passphrase") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise TrustError("E-KEYTYPE", f"{path} is neither an RSA nor an EC key")
    return key


def _roots(path: Path) -> list[x509.Certificate]:
    return pem.certificates(pem.read(path), str(path))
