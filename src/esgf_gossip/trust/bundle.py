"""
The trust bundle: one signed version of whom a federation trusts, as bytes and as values.

Roots, issuing CAs with the bounds of each, a CRL of each, and the administrators' keys of which so many must
sign. Which bundle may follow which is bundle_rules.py's, where they lie bundle_files.py's.
Source: docs/trust.md, docs/adr/0012-trust-bundle.md.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import COUNTER_MAX, TRUST_BODY_BYTES
from esgf_gossip.trust import names as naming
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.names import Names
from esgf_gossip.trust.pem import certificate_der
from esgf_gossip.trust.policy import DAYS_MAX, Policy

# protocol: what every signature over a bundle begins with.
BUNDLE_CONTEXT: Final = b"esgf-gossip/bundle/1\0"

FORMAT: Final = 1
ROOTS_MAX: Final = 8
ISSUERS_MAX: Final = 32
ADMIN_KEYS_MAX: Final = 16
# A version a minute would take two years; keys of bundles are six digits.
VERSION_MAX: Final = 999_999

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_KEY_BYTES: Final = 256
_SIGNATURE_BYTES: Final = 128
_NAMES_MAX: Final = 256
_ECDSA: Final = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)

AdminKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@attrs.frozen
class IssuerPolicy:
    """
    What certificates of one issuing CA may claim, whatever that CA signs.

    ``dns_suffixes`` empty: any DNS name; ``groups`` and ``roles`` None: any; ``max_days``: longest life of a certificate.
    """

    dns_suffixes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    roles: tuple[str, ...] | None = None
    max_days: int = DAYS_MAX

    def objections(self, names: Names, days: int) -> list[str]:
        """Say everything in a certificate's names and life that is out of bounds; empty: nothing."""
        return Policy(
            federation=names.federation,
            dns_suffixes=self.dns_suffixes,
            groups=names.groups if self.groups is None else self.groups,
            roles=names.roles if self.roles is None else self.roles,
            max_days=self.max_days,
        ).objections(names, days)


@attrs.frozen
class BundleIssuer:
    """An issuing CA and its bounds."""

    certificate: x509.Certificate
    policy: IssuerPolicy


@attrs.frozen
class Bundle:
    """
    One version of the federation's trust.

    ``payload`` is what is signed; ``signatures`` are (SHA-256 of the signer's SPKI, signature), sorted.
    """

    federation: str
    version: int
    roots: tuple[x509.Certificate, ...]
    issuers: tuple[BundleIssuer, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    admin_keys: tuple[bytes, ...]
    threshold: int
    not_after_ms: int
    payload: bytes = attrs.field(repr=False)
    signatures: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def body(self) -> bytes:
        """The bundle with its signatures, as it is kept and sent."""
        return packing.pack([self.payload, [list(one) for one in self.signatures]])

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of what is signed, for people to compare."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def issuing_certificates(self) -> tuple[x509.Certificate, ...]:
        """The issuing CAs."""
        return tuple(one.certificate for one in self.issuers)

    def policy_of(self, issuer: x509.Certificate) -> IssuerPolicy | None:
        """Return the bounds of an issuing CA; None where the bundle does not hold it."""
        return next((one.policy for one in self.issuers if one.certificate == issuer), None)

    def signers(self) -> frozenset[bytes]:
        """Return the ids of the keys, among all this bundle names, whose signatures here are good."""
        named = {key_id(key): key for key in (*self.admin_keys, *map(spki, self.roots))}
        return frozenset(
            signer
            for signer, signature in self.signatures
            if signer in named and is_signed(named[signer], self.payload, signature)
        )

    def signed_by(self, keys: Iterable[bytes]) -> frozenset[bytes]:
        """Return the ids of those of some keys (SPKI) whose signatures here are good."""
        named = {key_id(key): key for key in keys}
        return frozenset(
            signer
            for signer, signature in self.signatures
            if signer in named and is_signed(named[signer], self.payload, signature)
        )

    def with_signature(self, key: AdminKey) -> Bundle:
        """Return the same bundle signed by one more key; signed twice is signed once."""
        signer = key_id(public_bytes(key))
        others = {one: signature for one, signature in self.signatures if one != signer}
        return attrs.evolve(
            self, signatures=tuple(sorted({**others, signer: sign(key, self.payload)}.items()))
        )


def make(
    federation: str,
    version: int,
    roots: Iterable[x509.Certificate],
    issuers: Iterable[BundleIssuer],
    crls: Iterable[x509.CertificateRevocationList],
    admin_keys: Iterable[bytes],
    threshold: int,
    not_after_ms: int,
) -> Bundle:
    """
    Make an unsigned bundle.

    Raises:
        TrustError: E-BUNDLE-FORM: it would be out of form, or too large to be told on.
    """
    payload = packing.pack(
        [
            FORMAT,
            federation,
            version,
            sorted({certificate_der(one) for one in roots}),
            [
                [certificate_der(one.certificate), _policy_map(one.policy)]
                for one in sorted(issuers, key=lambda one: certificate_der(one.certificate))
            ],
            sorted({crl.public_bytes(Encoding.DER) for crl in crls}),
            sorted(set(admin_keys)),
            threshold,
            not_after_ms,
        ]
    )
    return parse(packing.pack([payload, []]), "the new bundle")


def parse(body: bytes, where: str) -> Bundle:
    """
    Read a bundle; nothing of it is trusted yet, not even that its parts fit together.

    Raises:
        TrustError: E-BUNDLE-FORM.
    """
    try:
        return _parse(body)
    except TrustError as error:
        raise TrustError("E-BUNDLE-FORM", error.text, where) from None
    except Exception as error:  # noqa: BLE001 - fail closed on a stranger's bytes: x509 raises a dozen kinds of errors
        raise TrustError(
            "E-BUNDLE-FORM", f"no trust bundle: {error or type(error).__name__}", where
        ) from None


def _parse(body: bytes) -> Bundle:
    if len(body) > TRUST_BODY_BYTES:
        raise WireError(f"{len(body)} bytes, at most {TRUST_BODY_BYTES} are possible")
    envelope = packing.array(packing.unpack(body), 2, "bundle")
    payload = packing.blob(envelope[0], 1, TRUST_BODY_BYTES)
    signatures = packing.items(envelope[1], _signature, 2 * ADMIN_KEYS_MAX + ROOTS_MAX, "signatures")
    fields = packing.array(packing.unpack(payload), 9, "payload")
    if packing.number(fields[0]) != FORMAT or len(fields) != 9:
        raise WireError("a format that this version does not know")
    federation = fields[1] if isinstance(fields[1], str) else ""
    naming.check_dns(federation)
    found = Bundle(
        federation=federation,
        version=packing.number(fields[2], VERSION_MAX),
        roots=packing.items(fields[3], _certificate, ROOTS_MAX, "roots"),
        issuers=packing.items(fields[4], _issuer, ISSUERS_MAX, "issuers"),
        crls=packing.items(fields[5], _crl, ROOTS_MAX + ISSUERS_MAX, "CRLs"),
        admin_keys=packing.items(fields[6], _admin_key, ADMIN_KEYS_MAX, "administrators' keys"),
        threshold=packing.number(fields[7], ADMIN_KEYS_MAX),
        not_after_ms=packing.number(fields[8], COUNTER_MAX),
        payload=payload,
        signatures=signatures,
    )
    # One value, one form: two readers must not see two bundles in one, nor one bundle have two names.
    if packing.pack(fields) != payload or found.body != body:
        raise WireError("not in its shortest form")
    for what in (
        fields[3],
        [one[0] for one in fields[4]],
        fields[5],
        fields[6],
        [one for one, _ in signatures],
    ):
        if any(former >= later for former, later in itertools.pairwise(what)):
            raise WireError("its parts are not in order, or one is there twice")
    if not found.version or not found.roots or not 1 <= found.threshold <= len(found.admin_keys):
        raise WireError("no version, no root, or more signatures wanted than there are keys")
    return found


def is_signed(key: bytes, payload: bytes, signature: bytes, context: bytes = BUNDLE_CONTEXT) -> bool:
    """
    Tell whether a signature is that of an administrator's key (SPKI); of the two forms of ECDSA only one passes.

    Args:
        key: the public key.
        payload: what was signed.
        signature: ASN.1 for P-256, 64 bytes for Ed25519.
        context: what the signature is for; a bundle.
    """
    try:
        public = load_der_public_key(key)
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, context + payload)
            return True
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            return False
        # (r, n-s) verifies too: anybody could make a twin of a bundle, which would look like a contradiction.
        r, s = decode_dss_signature(signature)
        if s > _P256_ORDER // 2 or encode_dss_signature(r, s) != signature:
            return False
        public.verify(signature, context + payload, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def public_bytes(key: AdminKey) -> bytes:
    """Return the public half of a key, as bundles name it."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_key_spki(content: bytes, where: str) -> bytes:
    """
    Read the public key (PEM) of an administrator.

    Raises:
        TrustError: E-TYPE: a private key; E-KEY, E-KEYTYPE.
    """
    if b"PRIVATE KEY" in content:
        raise TrustError(
            "E-TYPE", f"{where} holds a PRIVATE KEY, a PUBLIC KEY was expected", "nothing was read from it"
        )
    try:
        key = load_pem_public_key(content)
    except Exception:  # noqa: BLE001 - whatever the library says of it, it is none
        raise TrustError(
            "E-KEY",
            f"{where} holds no public key",
            remedy="make it with: openssl pkey -in admin-2.key -pubout",
        ) from None
    try:
        return _admin_key(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    except WireError as error:
        raise TrustError("E-KEYTYPE", f"{where}: {error}") from None


def spki(certificate: x509.Certificate) -> bytes:
    """Return the public key of a certificate, as bundles name it."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: bytes) -> bytes:
    """Return the name of a public key in signatures: its SHA-256."""
    return hashlib.sha256(key).digest()


def sign(key: AdminKey, payload: bytes, context: bytes = BUNDLE_CONTEXT) -> bytes:
    """Sign as an administrator, in the one form that ``is_signed`` takes."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(context + payload)
    r, s = decode_dss_signature(key.sign(context + payload, _ECDSA))
    return encode_dss_signature(r, min(s, _P256_ORDER - s))


def _policy_map(policy: IssuerPolicy) -> dict[str, Any]:
    written: dict[str, Any] = {"dns_suffixes": list(policy.dns_suffixes), "max_days": policy.max_days}
    for name, value in (("groups", policy.groups), ("roles", policy.roles)):
        if value is not None:
            written[name] = list(value)
    return dict(sorted(written.items()))


def _read_policy(value: object) -> IssuerPolicy:
    table = packing.mapping(value, 4, "policy")
    # A bound that is not understood is not kept: an unknown key is refused, not passed over.
    if not {"dns_suffixes", "max_days"} <= set(table) <= {"dns_suffixes", "groups", "max_days", "roles"}:
        raise WireError("a policy that this version does not know")
    read = {
        name: packing.items(value, _name, _NAMES_MAX, name)
        for name, value in table.items()
        if name != "max_days"
    }
    return IssuerPolicy(
        read["dns_suffixes"],
        read.get("groups"),
        read.get("roles"),
        packing.number(table["max_days"], DAYS_MAX),
    )


def _name(value: object) -> str:
    if type(value) is not str or not 1 <= len(value) <= 253 or not value.isascii():
        raise WireError("a name was expected")
    return value


def _issuer(value: object) -> BundleIssuer:
    pair = packing.array(value, 2, "issuer")
    return BundleIssuer(_certificate(pair[0]), _read_policy(pair[1]))


def _certificate(value: object) -> x509.Certificate:
    return x509.load_der_x509_certificate(packing.blob(value, 1, TRUST_BODY_BYTES))


def _crl(value: object) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(packing.blob(value, 1, TRUST_BODY_BYTES))


def _admin_key(value: object) -> bytes:
    key = packing.blob(value, 1, _KEY_BYTES)
    public = load_der_public_key(key)
    is_p256 = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
    if not is_p256 and not isinstance(public, ed25519.Ed25519PublicKey):
        raise WireError("an administrator's key that is neither P-256 nor Ed25519")
    if public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != key:
        raise WireError("an administrator's key in an odd form")
    return key


def _signature(value: object) -> tuple[bytes, bytes]:
    pair = packing.array(value, 2, "signature")
    return packing.sha256(pair[0]), packing.blob(pair[1], 1, _SIGNATURE_BYTES)
