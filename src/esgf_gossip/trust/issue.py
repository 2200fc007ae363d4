"""
What our CAs write: the exact form of roots, issuing CAs, node certificates and CRLs.

Pure functions from names, keys and dates to certificates; which names are
granted is policy.py's and authority.py's, files are theirs too. Source: docs/trust.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from esgf_gossip.trust.names import Names

# Clocks of members differ by minutes; a certificate made now must be good everywhere now.
BACKDATE: Final = timedelta(minutes=5)
CRL_DAYS: Final = 14
ROOT_CRL_DAYS: Final = 180


@attrs.frozen
class CertificateAuthority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = attrs.field(eq=False, repr=False)


def moment(now_ms: int) -> datetime:
    """Convert Unix milliseconds to a date with whole seconds, as certificates have it."""
    return datetime.fromtimestamp(now_ms // 1000, UTC)


def serial_number() -> int:
    """Draw a serial number: 159 random bits, never zero, so that none can be foreseen or hit twice."""
    return secrets.randbits(158) | (1 << 158)


def root(
    federation: str, key: ec.EllipticCurvePrivateKey, now_ms: int, days: int, generation: int = 1
) -> x509.Certificate:
    """Make a root certificate; each generation has a name of its own."""
    name = _name(federation, f"Root G{generation}")
    return _ca(name, key, name, key, now_ms, days, path_length=1)


def issuing_ca(
    federation: str,
    key: ec.EllipticCurvePrivateKey,
    parent: CertificateAuthority,
    now_ms: int,
    days: int,
    generation: int = 1,
) -> x509.Certificate:
    """Make the certificate of an issuing CA; it never outlives its root."""
    return _ca(
        _name(federation, f"Issuing G{generation}"),
        key,
        parent.certificate.subject,
        parent.key,
        now_ms,
        days,
        path_length=0,
        not_after=parent.certificate.not_valid_after_utc,
    )


def leaf(
    names: Names,
    public_key: ec.EllipticCurvePublicKey,
    issuer: CertificateAuthority,
    now_ms: int,
    days: int,
    *,
    after: datetime | None = None,
) -> x509.Certificate:
    """Make the certificate of a node; it never outlives its issuer, and begins later than ``after``."""
    start = moment(now_ms) - BACKDATE
    if after is not None:
        # Certificates of one node rank by notBefore: of two made within a second the second must win.
        start = max(start, after + timedelta(seconds=1))
    end = min(moment(now_ms) + timedelta(days=days), issuer.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        # For people only: no verifier of ours reads it.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names.host[:64])]))
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(alternative_names(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key(issuer.certificate), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def crl(
    issuer: CertificateAuthority,
    number: int,
    revoked: Mapping[int, datetime],
    now_ms: int,
    days: int,
    reasons: Mapping[int, x509.ReasonFlags] = {},
) -> x509.CertificateRevocationList:
    """Make a CRL: serial numbers, when each was revoked, and why, where that is known."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(moment(now_ms) - BACKDATE)
        .next_update(moment(now_ms) + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(authority_key(issuer.certificate), critical=False)
    )
    for serial, at in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
        reason = reasons.get(serial, x509.ReasonFlags.unspecified)
        if reason is not x509.ReasonFlags.unspecified:  # RFC 5280, 5.3.1: left out instead
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256())


def request(names: Names, key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """Make a request: key and wanted names, nothing else of it is ever taken over."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names.host[:64])]))
        .add_extension(alternative_names(names), critical=False)
        .sign(key, hashes.SHA256())
    )


def alternative_names(names: Names) -> x509.SubjectAlternativeName:
    """Write names as certificates carry them."""
    return x509.SubjectAlternativeName(
        [*map(x509.DNSName, names.dns), *map(x509.UniformResourceIdentifier, names.uris)]
    )


def authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Name the issuer's key as the issuer's own certificate does."""
    ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Return the key usage of a CA or of a node."""
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(federation: str, common: str) -> x509.Name:
    # The federation is in the name: two federations' CAs must never look the same to a person or to OpenSSL.
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _ca(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    now_ms: int,
    days: int,
    *,
    path_length: int,
    not_after: datetime | None = None,
) -> x509.Certificate:
    end = moment(now_ms) + timedelta(days=days)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial_number())
        .not_valid_before(moment(now_ms) - BACKDATE)
        .not_valid_after(end if not_after is None else min(end, not_after))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())
