"""
Requests for certificates: made on the node, read and recognised by the administrator.

Key and request of a node, fingerprints as hex and as words to say on the
telephone. Approving is authority.py's. Source: docs/trust.md; for the words
arXiv:0901.4016 (proquints).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.files import replace_file
from esgf_gossip.trust import issue, keys, pem, profile
from esgf_gossip.trust import names as naming
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import KEY_FILE
from esgf_gossip.trust.names import Names

_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aiou"


@attrs.frozen
class RequestFile:
    """A request as the node's administrator sends it: file, content, fingerprint to tell by voice."""

    path: Path
    pem: bytes
    fingerprint: str

    @property
    def words(self) -> str:
        """The fingerprint as words."""
        return words(self.fingerprint)


@attrs.frozen
class Request:
    """A request that was read: its own signature checked, its names in form, nothing granted."""

    csr: x509.CertificateSigningRequest
    names: Names
    public_key: ec.EllipticCurvePublicKey
    fingerprint: str

    @property
    def request_id(self) -> str:
        """The short name of the request in lists: node and beginning of the fingerprint."""
        return f"{self.names.host}-{self.fingerprint[:8]}"


def make_request(
    trust_directory: Path,
    host: str,
    federation: str,
    dns: Sequence[str],
    groups: Sequence[str],
    roles: Sequence[str],
    *,
    same_key: bool = False,
) -> RequestFile:
    """
    Make the key of a node and the request for its certificate.

    Args:
        trust_directory: made if needed (0700); gets ``node.key`` and ``<host>.csr.pem``.
        host: the node's one name.
        federation: the federation it asks to join.
        dns: its DNS names; the host is put first if it is not among them.
        groups: groups to ask for; none: the federation's default.
        roles: roles to ask for.
        same_key: take the key that is there instead of making one.

    Raises:
        TrustError: E-NAME, E-URI; E-EXISTS for a key that is there; E-GIT, E-FILE.
    """
    all_dns = tuple(dns) if host in dns else (host, *dns)
    wanted = Names(federation, host, all_dns, tuple(groups), tuple(roles))
    wanted = naming.collect(wanted.dns, wanted.uris)
    key_path = trust_directory / KEY_FILE
    if same_key:
        key = keys.read_key(key_path)
    else:
        key = keys.new_key()
        keys.write_key(key_path, key, None)
    content = pem.request_pem(issue.request(wanted, key))
    path = trust_directory / f"{host}.csr.pem"
    try:
        replace_file(path, content)
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be written: {error.strerror}") from None
    return RequestFile(path, content, read_request(content, str(path)).fingerprint)


def read_request(content: bytes, where: str) -> Request:
    """
    Read a request and check what it says of itself.

    Raises:
        TrustError: E-TYPE, E-PEM, E-MANY; E-CSR-SIG; E-KEYTYPE; E-NAME, E-URI;
            E-POLICY for a request that asks to be a CA.
    """
    csr = pem.request(content, where)
    try:
        return _read(csr)
    except TrustError:
        raise
    except Exception as error:
        # Bytes of a stranger: whatever the library raises on them is a refusal.
        raise TrustError("E-PEM", f"{where} cannot be read: {type(error).__name__}: {error}") from error


def _read(csr: x509.CertificateSigningRequest) -> Request:
    public_key = csr.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(
        public_key.curve, ec.SECP256R1
    ):
        raise TrustError(
            "E-KEYTYPE", "the request's key is not a P-256 key", remedy="use trust-admin cert request"
        )
    if not csr.is_signature_valid:
        raise TrustError("E-CSR-SIG", "request is not signed by its own key: damaged or forged")
    for extension in csr.extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise TrustError("E-POLICY", "the request asks for CA:TRUE", remedy="deny it")
    try:
        wanted = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise TrustError(
            "E-NAME", "the request names nothing", remedy="use trust-admin cert request"
        ) from None
    digest = hashlib.sha256(csr.public_bytes(Encoding.DER)).hexdigest()
    return Request(csr, profile.subject_names(wanted), public_key, digest)


def words(fingerprint: str) -> str:
    """Write a fingerprint (hex) as words that can be said and heard: five letters for 16 bits."""
    content = bytes.fromhex(fingerprint)
    return " ".join(
        _word(int.from_bytes(content[start : start + 2], "big")) for start in range(0, len(content), 2)
    )


def same_fingerprint(given: str, fingerprint: str) -> bool:
    """Compare what a person typed, hex or words, with a fingerprint."""
    typed = given.strip().lower().removeprefix("sha256:")
    plain = typed.replace(":", "").replace(" ", "")
    return plain == fingerprint or " ".join(typed.replace("-", " ").split()) == words(fingerprint)


def _word(bits: int) -> str:
    return (
        _CONSONANTS[bits >> 12]
        + _VOWELS[bits >> 10 & 3]
        + _CONSONANTS[bits >> 6 & 15]
        + _VOWELS[bits >> 4 & 3]
        + _CONSONANTS[bits & 15]
    )
