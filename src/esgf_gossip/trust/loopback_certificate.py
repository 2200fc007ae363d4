"""A certificate of this machine for itself: for services on loopback, in the demo and in tests. No node trusts it."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from esgf_gossip.files import create_file
from esgf_gossip.trust.keys import new_key

CERTIFICATE_FILE: Final = "loopback.pem"
KEY_FILE: Final = "loopback.key.pem"
_LIFE: Final = dt.timedelta(days=7)
_AHEAD: Final = dt.timedelta(minutes=5)


def write_loopback_certificate(folder: Path) -> tuple[Path, Path]:
    """
    Write a self-signed certificate of localhost and 127.0.0.1 and its key; return both paths.

    The certificate is its own CA: who is given it to check by trusts this key alone.

    Raises:
        OSError: the files exist, or cannot be written.
    """
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _AHEAD)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / CERTIFICATE_FILE, folder / KEY_FILE
    create_file(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    create_file(certificate_path, certificate.public_bytes(Encoding.PEM), 0o644)
    return certificate_path, key_path
