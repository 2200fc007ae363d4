"""
CRLs as trust objects: key ``crl/<issuer's key id>``, body the DER CRL, ordered by number and thisUpdate.

Which CRL may follow which is revocation's, how one gets into a trust directory install's. Source: docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.core.model import TrustObject
from esgf_gossip.trust import revocation
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.install import import_crls
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.object_kind import ObjectKind, Stand
from esgf_gossip.trust.revocation import milliseconds

PREFIX: Final = "crl/"


def judge(key: str, body: bytes, held: bytes | None, material: TrustMaterial, now_ms: int) -> Stand:
    """
    Judge a CRL: signature, form, key, then whether it may follow the one held; how old it is does not count.

    Raises:
        TrustError: E-CRL-SIG, E-CRL-FORM, E-CRL-FUTURE, E-CRL-ROLLBACK, E-CRL-FORK, E-CRL-SHRINK.
    """
    crl = _read(body)
    revocation.check_signed(crl, material.known_issuers, "the CRL", now_ms)
    if _key(crl) != key:
        raise TrustError("E-CRL-FORM", f"a CRL of {revocation.issuer_name(crl)} is not for {key}")
    if held is not None:
        revocation.check_follows(_read(held), crl)
    return Stand(revocation.number(crl), milliseconds(crl.last_update_utc) // 1000)


def apply(directory: Path, key: str, body: bytes, material: TrustMaterial, now_ms: int) -> bool:
    """Put a CRL into the trust directory; False where it held it, or a newer one."""
    del key, material
    return bool(import_crls(directory, [_read(body)], now_ms=now_ms, judged=True).taken)


def offered(directory: Path, material: TrustMaterial) -> list[tuple[str, bytes]]:
    """Return the CRLs in force: what the trust directory held when it was loaded, and passed."""
    del directory
    return [(_key(crl), crl.public_bytes(Encoding.DER)) for crl in material.crls]


def by_key(
    crls: Iterable[x509.CertificateRevocationList],
) -> list[tuple[str, x509.CertificateRevocationList]]:
    """Return checked CRLs with their keys."""
    return [(_key(crl), crl) for crl in crls]


def among(objects: Iterable[TrustObject]) -> list[x509.CertificateRevocationList]:
    """Return the CRLs among trust objects that were judged."""
    return [_read(one.body) for one in objects if one.key.startswith(PREFIX)]


def _read(body: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(body)
    except Exception as error:
        raise TrustError("E-CRL-FORM", f"no CRL: {type(error).__name__}") from error


def _key(crl: x509.CertificateRevocationList) -> str:
    key_id = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert key_id is not None  # check_signed refuses others
    return f"{PREFIX}{key_id.hex()}"


def _statement(body: bytes) -> bytes:
    return _read(body).tbs_certlist_bytes


KIND: Final = ObjectKind(PREFIX, judge, apply, offered, _statement)
