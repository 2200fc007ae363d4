"""
Reading certificates, requests and CRLs from files, with errors that a person can act on.

Public material only; private keys are keys.py's, and a private key found where
something public was expected is named and not read. No verdicts here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.files import read_file
from esgf_gossip.trust.errors import TrustError

# For rooms that only pass one on: cryptography itself is imported in trust alone.
Certificate = x509.Certificate

# A CRL with 20,000 entries; nothing we read is longer.
FILE_BYTES: Final = 1024 * 1024

CERTIFICATE: Final = "CERTIFICATE"
CRL: Final = "X509 CRL"
REQUEST: Final = "CERTIFICATE REQUEST"

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_OPENSSL: Final[Mapping[str, str]] = {CERTIFICATE: "x509", CRL: "crl", REQUEST: "req"}

_Object = TypeVar("_Object")


def read(path: Path) -> bytes:
    """
    Read a public file.

    Raises:
        TrustError: E-NOTFOUND; E-FILE when it cannot be read or is too large.
    """
    try:
        content = read_file(path, FILE_BYTES + 1)
    except FileNotFoundError:
        raise TrustError("E-NOTFOUND", f"{path} does not exist") from None
    except OSError as error:
        raise TrustError(
            "E-FILE",
            f"{path} cannot be read: {error.strerror}",
            remedy="run as the user of the daemon, or chmod it",
        ) from None
    if len(content) > FILE_BYTES:
        raise TrustError("E-FILE", f"{path} has more than {FILE_BYTES} bytes", remedy="give the right file")
    return content


def certificates(content: bytes, where: str) -> list[x509.Certificate]:
    """
    Read one or more certificates, PEM or DER.

    Raises:
        TrustError: E-TYPE for other things, E-PEM for none or a damaged one.
    """
    return _load(content, where, CERTIFICATE, x509.load_der_x509_certificate, x509.load_pem_x509_certificate)


def certificate(content: bytes, where: str) -> x509.Certificate:
    """
    Read exactly one certificate.

    Raises:
        TrustError: as ``certificates``; E-MANY if there are several.
    """
    return _single(certificates(content, where), where, "certificate", "the leaf alone")


def revocation_lists(content: bytes, where: str) -> list[x509.CertificateRevocationList]:
    """
    Read one or more CRLs, PEM or DER.

    Raises:
        TrustError: as ``certificates``.
    """
    return _load(content, where, CRL, x509.load_der_x509_crl, x509.load_pem_x509_crl)


def request(content: bytes, where: str) -> x509.CertificateSigningRequest:
    """
    Read exactly one certificate request; its signature is not checked here.

    Raises:
        TrustError: as ``certificates``; E-MANY if there are several.
    """
    found = _load(content, where, REQUEST, x509.load_der_x509_csr, x509.load_pem_x509_csr)
    return _single(found, where, "request", "one request a file")


def labels(content: bytes) -> list[str]:
    """Name the PEM blocks of a file, complete or not."""
    return [match[1].decode() for match in _BEGIN.finditer(content)]


def blocks(content: bytes, label: str) -> bytes:
    """Return the complete PEM blocks of one kind, joined."""
    return b"".join(match[0] + b"\n" for match in _BLOCK.finditer(content) if match[1] == label.encode())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Write a certificate."""
    return certificate.public_bytes(Encoding.PEM)


def certificate_der(certificate: x509.Certificate) -> bytes:
    """Write a certificate as it is hashed and sent."""
    return certificate.public_bytes(Encoding.DER)


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, as openssl x509 -fingerprint -sha256 has it, without colons."""
    return hashlib.sha256(certificate_der(certificate)).hexdigest()


def request_pem(request: x509.CertificateSigningRequest) -> bytes:
    """Write a request."""
    return request.public_bytes(Encoding.PEM)


def crl_pem(crl: x509.CertificateRevocationList) -> bytes:
    """Write a CRL."""
    return crl.public_bytes(Encoding.PEM)


def _load(
    content: bytes,
    where: str,
    label: str,
    from_der: Callable[[bytes], _Object],
    from_pem: Callable[[bytes], _Object],
) -> list[_Object]:
    found = labels(content)
    if any(name.endswith("PRIVATE KEY") for name in found):
        raise TrustError(
            "E-TYPE",
            f"{where} holds a PRIVATE KEY, a {label} was expected",
            "nothing was read from the key",
            "never send a private key to anybody",
        )
    if not found and content[:1] == b"\x30":
        try:
            return [from_der(content)]
        except Exception as error:
            # Any odd bytes are a refusal, whatever the library raises on them.
            raise _damaged(content, where, label) from error
    # OpenSSL wrote "NEW CERTIFICATE REQUEST" for years; the content is the same.
    wanted = [match[0] for match in _BLOCK.finditer(content) if match[1].decode() in (label, f"NEW {label}")]
    if not wanted and found and label not in found:
        remedy = "give the bundle that cert approve wrote" if found[0] == REQUEST else ""
        raise TrustError("E-TYPE", f"{where} holds a {found[0]}, a {label} was expected", remedy=remedy)
    if len(wanted) < sum(name in (label, f"NEW {label}") for name in found) or not wanted:
        raise _damaged(content, where, label)
    try:
        return [from_pem(block) for block in wanted]
    except Exception as error:
        raise _damaged(content, where, label) from error


def _damaged(content: bytes, where: str, label: str) -> TrustError:
    return TrustError(
        "E-PEM",
        f"{where}: no complete {label} block (file has {len(content)} bytes)",
        remedy=f"DER? use openssl {_OPENSSL[label]} -inform der",
    )


def _single(found: Sequence[_Object], where: str, noun: str, wanted: str) -> _Object:
    if len(found) != 1:
        raise TrustError("E-MANY", f"{where} holds {len(found)} {noun}s", remedy=f"give {wanted}")
    return found[0]
