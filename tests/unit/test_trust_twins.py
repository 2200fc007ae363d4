"""Twins: of an ECDSA signature (r, s) anybody makes (r, n-s); what is signed stays one, and proves nothing against its signer."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.core import packing
from esgf_gossip.core.errors import ObjectRefused
from esgf_gossip.core.trust_lines import contradiction
from esgf_gossip.trust import certificate_object, crl_object, pem
from esgf_gossip.trust.objects import TrustObjects
from helpers.trust import TestFederation, a_federation

A, B = "a.example.org", "b.example.org"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found a federation of two nodes."""
    found = a_federation(tmp_path_factory.mktemp("twins") / "federation")
    found.node(A)
    found.node(B)
    return found


def _der(tag: int, value: bytes) -> bytes:
    size = len(value)
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 0x80 else bytes([0x80 | len(long)]) + long) + value


def twin(signed: bytes, signature: bytes) -> bytes:
    """Return a certificate or CRL (DER) with the other form of its signature, made without any key."""
    r, s = decode_dss_signature(signature)
    return _der(0x30, signed + ECDSA_SHA256 + _der(0x03, b"\0" + encode_dss_signature(r, P256_ORDER - s)))


def pair_of(federation: TestFederation, kind: str) -> tuple[str, bytes, bytes]:
    """Return the key of an object, its body, and that of its twin."""
    if kind == "crl":
        key, body = crl_object.offered(federation.node(B), federation.material(B))[0]
        crl = x509.load_der_x509_crl(body)
        return key, body, twin(crl.tbs_certlist_bytes, crl.signature)
    chain = pem.certificates((federation.node(A) / "chain.pem").read_bytes(), "chain.pem")
    leaf, *others = chain
    other = [
        twin(leaf.tbs_certificate_bytes, leaf.signature),
        *(one.public_bytes(Encoding.DER) for one in others),
    ]
    return f"certificate/{A}", certificate_object.to_body(chain), packing.pack(other)


@pytest.mark.parametrize("kind", ["crl", "certificate"])
def test_a_twin_is_no_contradiction(federation: TestFederation, kind: str) -> None:
    """It is as good as the other, one of both is held, and nobody can show them as proof of a stolen key."""
    key, body, other = pair_of(federation, kind)
    objects = TrustObjects(federation.node(B), federation.material(B))
    one, two = (objects.judge_object(key, each, None, federation.now_ms) for each in (body, other))
    assert (one.number, one.stamp_s) == (two.number, two.stamp_s)
    assert not objects.contradicts(key, body, other)
    proof = contradiction(key, one.number, body, other)
    assert proof is not None
    with pytest.raises(ObjectRefused, match="one statement in two forms"):
        objects.judge_object(proof.key, proof.body, None, federation.now_ms)


def test_two_lists_of_one_number_still_are_one(federation: TestFederation, tmp_path: Path) -> None:
    """What the issuing CA signed twice is shown to everybody."""
    bodies = [federation.crl(9, [serial]).public_bytes(Encoding.DER) for serial in (1, 2)]
    objects = TrustObjects(federation.node(B), federation.material(B))
    key = crl_object.by_key([x509.load_der_x509_crl(bodies[0])])[0][0]
    assert objects.contradicts(key, *bodies)
    proof = contradiction(key, 9, *bodies)
    assert proof is not None
    assert objects.judge_object(proof.key, proof.body, None, federation.now_ms).key == proof.key
