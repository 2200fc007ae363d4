"""
A request for a new key that the old one vouches for: nobody need compare a fingerprint.

Request, signature of the key in force, chain. It proves itself, so any channel will do, the node's own entry
``trust`` above all. Source: docs/adr/0013-renewal-by-reissue.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import CHAIN_BYTES, CHAIN_CERTIFICATES, SIGNATURE_BYTES
from esgf_gossip.files import read_file
from esgf_gossip.trust import pem, profile
from esgf_gossip.trust.bundle import is_signed, sign, spki
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.requests import Request, read_request
from esgf_gossip.trust.seal_key import load_chain

REKEY_CONTEXT: Final = b"esgf-gossip/rekey/1\0"
REKEY_SUFFIX: Final = ".rekey"
# A request with sixteen names.
REQUEST_BYTES: Final = 8 * 1024
REKEY_BYTES: Final = REQUEST_BYTES + 256


def vouch(material: TrustMaterial, request: x509.CertificateSigningRequest) -> bytes:
    """Return the request with the signature of this node's key in force."""
    content = request.public_bytes(Encoding.DER)
    return packing.pack([content, sign(material.key, content, REKEY_CONTEXT)])


def with_chain(vouched: bytes, chain: Sequence[bytes]) -> bytes:
    """
    Return what ``vouch`` made together with the chain of its node, so that it can be judged by itself.

    Raises:
        TrustError: E-REKEY.
    """
    try:
        return packing.pack([*packing.array(packing.unpack(vouched), 2, "a request")[:2], list(chain)])
    except WireError as error:
        raise TrustError("E-REKEY", f"no vouched request: {error}") from None


def waiting(directory: Path) -> bytes:
    """Return the vouched request of a node that waits for the certificate of its new key; empty for none."""
    paths = sorted(directory.glob("*" + REKEY_SUFFIX))
    try:
        body = read_file(paths[0], REKEY_BYTES + 1) if paths else b""
    except OSError:
        return b""
    return body if len(body) <= REKEY_BYTES else b""


def check(content: bytes, anchors: TrustAnchors, federation: str, now_ms: int) -> Request:
    """
    Check that the key in force of a node vouches for the request, and that it asks for what the node has.

    Raises:
        TrustError: E-REKEY; E-CHAIN-*, E-PROFILE, E-CRL-STALE of the chain: expired or revoked is no renewal;
            as ``read_request``.
    """
    try:
        csr, signature, parts = packing.array(packing.unpack(content), 3, "a vouched request")[:3]
        csr = packing.blob(csr, 1, REQUEST_BYTES)
        signature = packing.blob(signature, 1, SIGNATURE_BYTES)
        chain = packing.items(
            parts, lambda one: packing.blob(one, 1, CHAIN_BYTES), CHAIN_CERTIFICATES, "a chain"
        )
    except WireError as error:
        raise TrustError("E-REKEY", f"no vouched request: {error}") from None
    leaf, others = load_chain(chain)
    names = profile.leaf_names(leaf, federation)
    anchors.judge(leaf, others, now_ms)
    if not is_signed(spki(leaf), csr, signature, REKEY_CONTEXT):
        raise TrustError(
            "E-REKEY", f"the key of {names.host} does not vouch for the request: damaged or forged"
        )
    try:
        request = read_request(pem.request_pem(x509.load_der_x509_csr(csr)), f"the request of {names.host}")
    except ValueError:
        raise TrustError("E-REKEY", f"the request of {names.host} cannot be read") from None
    if (sorted(request.names.dns), sorted(request.names.uris)) != (sorted(names.dns), sorted(names.uris)):
        raise TrustError(
            "E-REKEY",
            f"the request of {names.host} asks for other names than it has",
            remedy="that is no renewal: cert import, and compare the fingerprint",
        )
    return request
