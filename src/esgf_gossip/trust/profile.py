"""
What a certificate must look like to be a member's, a CA's: our own check, exact, failing closed.

OpenSSL accepts as TLS peers leaves without names, without key usage, CA
certificates and X.509 v1; this file is what refuses them. Signatures, dates
and revocation are chain.py's. Source: docs/trust.md, RFC 5280.
"""

from __future__ import annotations

import functools
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from esgf_gossip.trust import names
from esgf_gossip.trust.errors import TrustError, quoted
from esgf_gossip.trust.names import Names

SERIAL_BYTES: Final = 20
# What a certificate says never changes; each is read several times in a handshake, and for every digest.
LEAVES_REMEMBERED: Final = 512

_Value = TypeVar("_Value", bound=x509.ExtensionType)

_CRITICAL_ALLOWED: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_EKU: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


def leaf_names(certificate: x509.Certificate, federation: str | None = None) -> Names:
    """
    Check that a certificate is a member's, and return the names it certifies.

    Args:
        certificate: the leaf; its chain, dates and revocation are not looked at.
        federation: the one it must belong to, or None for any.

    Raises:
        TrustError: E-PROFILE, E-URI or E-NAME with one reason. Whatever a library
            raises on an odd certificate counts as a refusal, never as a pass.
    """
    try:
        found = _leaf_names(certificate)
    except TrustError:
        raise
    except Exception as error:
        # Fail closed: x509 raises a dozen kinds of errors, and a new release may raise another.
        raise TrustError(
            "E-PROFILE", f"the certificate cannot be read: {type(error).__name__}: {error}"
        ) from error
    if federation is not None and found.federation != federation:
        raise TrustError(
            "E-URI",
            f"the certificate is of federation {quoted(found.federation)}, this one is {quoted(federation)}",
            remedy="install the certificate of this federation, or correct [node] federation in node.toml",
        )
    return found


@functools.lru_cache(maxsize=LEAVES_REMEMBERED)
def _leaf_names(certificate: x509.Certificate) -> Names:
    if certificate.version is not x509.Version.v3:
        raise TrustError("E-PROFILE", f"X.509 version {certificate.version.name}, v3 is needed")
    extensions = certificate.extensions
    for extension in extensions:
        if extension.critical and extension.oid not in _CRITICAL_ALLOWED:
            raise TrustError("E-PROFILE", f"unknown critical extension {extension.oid.dotted_string}")
    constraints = _extension(extensions, x509.BasicConstraints, "basic constraints")
    if constraints.value.ca:
        raise TrustError("E-PROFILE", "a CA certificate is not a node's")
    if not constraints.critical:
        raise TrustError("E-PROFILE", "the basic constraints are not critical")
    _check_key(certificate.public_key())
    _check_hash(certificate)
    if not 0 < certificate.serial_number.bit_length() <= 8 * SERIAL_BYTES:
        raise TrustError("E-PROFILE", "the serial number is not a positive number of at most 20 bytes")
    _check_usage(extensions)
    _extension(extensions, x509.SubjectKeyIdentifier, "subject key identifier")
    if (
        _extension(extensions, x509.AuthorityKeyIdentifier, "authority key identifier").value.key_identifier
        is None
    ):
        raise TrustError("E-PROFILE", "the authority key identifier names no key")
    found = subject_names(
        _extension(extensions, x509.SubjectAlternativeName, "subject alternative name").value
    )
    if not found.groups:
        raise TrustError("E-URI", "no group URI")
    return found


def subject_names(value: x509.SubjectAlternativeName) -> Names:
    """
    Read the names of a certificate or request.

    Raises:
        TrustError: a name of another type than DNS and URI, or as ``names.collect``.
    """
    dns: list[str] = []
    uris: list[str] = []
    for name in value:
        if isinstance(name, x509.DNSName):
            dns.append(name.value)
        elif isinstance(name, x509.UniformResourceIdentifier):
            uris.append(name.value)
        else:
            raise TrustError(
                "E-NAME", f"a name of type {type(name).__name__}; only DNS names and URIs are allowed"
            )
    return names.collect(dns, uris)


def check_issuer(certificate: x509.Certificate) -> None:
    """
    Check that a certificate is a CA's.

    Raises:
        TrustError: E-PROFILE, E-KEYTYPE with one reason; on any odd certificate too.
    """
    try:
        extensions = certificate.extensions
        constraints = _extension(extensions, x509.BasicConstraints, "basic constraints")
        if not constraints.value.ca:
            raise TrustError("E-PROFILE", "CA:FALSE, a CA certificate is needed")
        if not _extension(extensions, x509.KeyUsage, "key usage").value.key_cert_sign:
            raise TrustError("E-PROFILE", "the key usage does not allow to sign certificates")
        _check_hash(certificate)
    except TrustError:
        raise
    except Exception as error:
        raise TrustError(
            "E-PROFILE", f"the certificate cannot be read: {type(error).__name__}: {error}"
        ) from error


def check_root(certificate: x509.Certificate) -> None:
    """
    Check that a certificate is a CA's that signed itself.

    Raises:
        TrustError: as ``check_issuer``; E-PROFILE if it did not sign itself.
    """
    check_issuer(certificate)
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception as error:
        raise TrustError("E-PROFILE", "not signed by itself: an issuing CA is not a root") from error


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate claims to be a root, without believing it."""
    return certificate.subject == certificate.issuer


def _check_usage(extensions: x509.Extensions) -> None:
    usage = _extension(extensions, x509.KeyUsage, "key usage").value
    others = (
        usage.content_commitment,
        usage.key_encipherment,
        usage.data_encipherment,
        usage.key_agreement,
        usage.key_cert_sign,
        usage.crl_sign,
    )
    if not usage.digital_signature or any(others):
        raise TrustError("E-PROFILE", "the key usage must be digitalSignature alone")
    purposes = _extension(extensions, x509.ExtendedKeyUsage, "extended key usage").value
    if frozenset(purposes) != _EKU:
        raise TrustError("E-PROFILE", "the extended key usage must be serverAuth and clientAuth")


def _check_key(key: object) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError(
            "E-KEYTYPE", "the key is not a P-256 key", remedy="make one with trust-admin cert request"
        )


def _check_hash(certificate: x509.Certificate) -> None:
    algorithm = certificate.signature_hash_algorithm
    if not isinstance(algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
        name = algorithm.name if algorithm else certificate.signature_algorithm_oid.dotted_string
        raise TrustError("E-PROFILE", f"signed with {name}; SHA-256 or better is needed")


def _extension(extensions: x509.Extensions, kind: type[_Value], name: str) -> x509.Extension[_Value]:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        raise TrustError("E-PROFILE", f"the extension {name} is missing") from None
