"""
Re-issued certificates as trust objects: key ``certificate/<host>``, body the chain, ordered by notBefore.

Anybody may carry one, only the node it is for puts it into force: renewal needs no CA that is always up.
Source: docs/adr/0013-renewal-by-reissue.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import CHAIN_BYTES, CHAIN_CERTIFICATES, CLOCK_AHEAD_MS
from esgf_gossip.trust import pem, profile
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.chain import without_root
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import RENEWALS_FOLDER, TrustMaterial
from esgf_gossip.trust.object_kind import ObjectKind, Stand
from esgf_gossip.trust.renewal import RENEWALS_SUFFIX, take_certificate
from esgf_gossip.trust.revocation import milliseconds

PREFIX: Final = "certificate/"


def judge(key: str, body: bytes, held: bytes | None, material: TrustMaterial, now_ms: int) -> Stand:
    """
    Judge a chain as of the day it was made; whether it has expired since does not count.

    Raises:
        TrustError: E-OBJECT, E-PROFILE, E-URI, E-NAME, E-CHAIN-*; E-CERT-FUTURE: dated ahead of our clock.
    """
    del held
    leaf, others = _read(body)
    names = profile.leaf_names(leaf, material.names.federation)
    if key != PREFIX + names.host:
        raise TrustError("E-OBJECT", f"a certificate of {names.host} is not for {key}")
    start_ms = milliseconds(leaf.not_valid_before_utc)
    if start_ms > now_ms + CLOCK_AHEAD_MS:
        raise TrustError(
            "E-CERT-FUTURE", f"the certificate of {names.host} is dated ahead of this host's clock"
        )
    chain = material.anchors.chain_to_root(leaf, others, start_ms)
    if without_root(chain) != tuple(packing.unpack(body)):  # type: ignore[arg-type]  # _read has seen a list
        raise TrustError("E-OBJECT", f"{key} holds more than the chain")
    material.anchors.check_not_revoked(chain)
    check_issued(material.bundle, leaf)
    return Stand(start_ms // 1000, 0)


def apply(directory: Path, key: str, body: bytes, material: TrustMaterial, now_ms: int) -> bool:
    """Put a newer certificate of this node into force, with the key it is for; False where it is not ours, or not newer."""
    if key != PREFIX + material.names.host:
        return False
    leaf, others = _read(body)
    return take_certificate(directory, (leaf, *others), material, now_ms)


def offered(directory: Path, material: TrustMaterial) -> list[tuple[str, bytes]]:
    """Return the chains that were delivered here, whomever they are for; damaged files are left out."""
    found = []
    for path in sorted((directory / RENEWALS_FOLDER).glob("*" + RENEWALS_SUFFIX)):
        try:
            chain = pem.certificates(pem.read(path), str(path))
            host = profile.leaf_names(chain[0], material.names.federation).host
        except TrustError:
            continue  # deliver wrote none such: somebody's hand, and `check` will say so
        found.append((PREFIX + host, to_body(chain)))
    return found


def to_body(chain: list[x509.Certificate]) -> bytes:
    """Return the body of a chain, leaf first, root left out."""
    return packing.pack([pem.certificate_der(one) for one in chain if not profile.is_self_issued(one)])


def _read(body: bytes) -> tuple[x509.Certificate, list[x509.Certificate]]:
    try:
        parts = packing.items(
            packing.unpack(body), lambda one: packing.blob(one, 1, CHAIN_BYTES), CHAIN_CERTIFICATES, "a chain"
        )
        leaf, *others = (x509.load_der_x509_certificate(part) for part in parts)
    except WireError as error:
        raise TrustError("E-OBJECT", f"no chain: {error}") from None
    except Exception as error:
        # Bytes of a stranger: whatever the library makes of them, they are no certificates.
        raise TrustError("E-OBJECT", f"no chain: {type(error).__name__}") from error
    return leaf, others


def _statement(body: bytes) -> bytes:
    leaf, others = _read(body)
    return packing.pack([one.tbs_certificate_bytes for one in (leaf, *others)])


KIND: Final = ObjectKind(PREFIX, judge, apply, offered, _statement)
