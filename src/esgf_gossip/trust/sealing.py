"""
Sealed secrets: encrypted to one node, signed by a secret-admin, bound to name, version and dates.

HPKE (RFC 9180) base mode keeps the sender anonymous, so the whole is signed too. Whatever does not fit (key,
receiver, name, version, a turned bit) opens nothing. Source: docs/trust.md, "Secrets".
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import x25519

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import CHAIN_BYTES, CHAIN_CERTIFICATES, CLOCK_AHEAD_MS, SIGNATURE_BYTES
from esgf_gossip.trust import names as naming
from esgf_gossip.trust import profile
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.bundle import is_signed, sign, spki
from esgf_gossip.trust.errors import TrustError, quoted
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.seal_key import SealKey, load_chain, private_keys

SECRET_ADMIN: Final = "secret-admin"  # noqa: S105 - the name of a role
SECRET_BYTES: Final = 32 * 1024

_CONTEXT: Final = b"esgf-gossip/secret/1\0"
_FORMAT: Final = 1
_SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
_OVERHEAD_BYTES: Final = 48


@attrs.frozen
class SealedSecret:
    """What an envelope says of itself; ``expires_at_s`` 0: never. Checked by ``read``, not opened."""

    federation: str
    host: str
    name: str
    version: int
    sealed_at_s: int
    expires_at_s: int
    key_id: bytes
    ciphertext: bytes = attrs.field(repr=False)

    @property
    def info(self) -> bytes:
        """What the encryption is bound to."""
        return packing.pack(
            {
                "context": _CONTEXT.rstrip(b"\0").decode(),
                "expires": self.expires_at_s,
                "federation": self.federation,
                "key": self.key_id,
                "name": self.name,
                "receiver": f"esgf://{self.federation}/node/{self.host}",
                "sealed": self.sealed_at_s,
                "version": self.version,
            }
        )


def seal(
    plaintext: bytes,
    to: SealKey,
    name: str,
    version: int,
    signer: TrustMaterial,
    *,
    now_ms: int,
    expires_at_s: int = 0,
) -> bytes:
    """
    Return the envelope of a secret.

    Args:
        plaintext: 1 to SECRET_BYTES bytes; it goes nowhere else.
        to: the receiver's seal key, checked.
        name: of the secret, ``[a-z0-9._-]``.
        version: above every earlier one of this name and receiver.
        signer: key and certificate of a secret-admin.
        now_ms: now.
        expires_at_s: Unix seconds after which it opens no more; 0: never.

    Raises:
        TrustError: E-NAME; E-SIZE; E-POLICY: the signer has not the role.
    """
    check_secret_name(name)
    if not 0 < len(plaintext) <= SECRET_BYTES:
        raise TrustError("E-SIZE", f"a secret has 1 to {SECRET_BYTES} bytes, this one {len(plaintext)}")
    _check_role(signer.names)
    federation = signer.names.federation
    sealed = SealedSecret(federation, to.host, name, version, now_ms // 1000, expires_at_s, to.key_id, b"")
    public = x25519.X25519PublicKey.from_public_bytes(to.public)
    ciphertext = _SUITE.encrypt(plaintext, public, info=sealed.info)
    payload = packing.pack(
        [
            _FORMAT,
            federation,
            to.host,
            name,
            version,
            sealed.sealed_at_s,
            expires_at_s,
            to.key_id,
            ciphertext,
            # Signed too: another member could dress the same secret differently, which would look like a contradiction.
            list(signer.signer.chain),
        ]
    )
    return packing.pack([payload, sign(signer.key, payload, _CONTEXT)])


def read(content: bytes, trust: TrustMaterial, now_ms: int) -> SealedSecret:
    """
    Check an envelope without opening it: form, who signed it, that it may. Its expiry does not count.

    Raises:
        TrustError: E-SEAL; E-SEAL-FUTURE: dated ahead of our clock; E-CHAIN-*, E-PROFILE, E-POLICY of the signer.
    """
    federation = trust.names.federation
    apart = _take_apart(content, federation)
    sealed = apart.sealed
    if sealed.sealed_at_s * 1000 > now_ms + CLOCK_AHEAD_MS:
        raise TrustError("E-SEAL-FUTURE", f"{sealed.name} is dated ahead of this host's clock")
    leaf, others = load_chain(apart.chain)
    signer = profile.leaf_names(leaf, federation)
    trust.anchors.check_not_revoked(trust.anchors.chain_to_root(leaf, others, sealed.sealed_at_s * 1000))
    _check_role(signer)
    check_issued(trust.bundle, leaf)
    if not is_signed(spki(leaf), apart.payload, apart.signature, _CONTEXT):
        raise TrustError("E-SEAL", f"not signed by {signer.host}: damaged or forged")
    return sealed


def parse(content: bytes, federation: str) -> SealedSecret:
    """
    Return what an envelope says of itself, proven by nothing: for one that was judged when it came.

    Raises:
        TrustError: E-SEAL.
    """
    return _take_apart(content, federation).sealed


@attrs.frozen
class _Apart:
    sealed: SealedSecret
    payload: bytes
    signature: bytes
    chain: tuple[bytes, ...]


def _take_apart(content: bytes, federation: str) -> _Apart:
    try:
        payload, signature = packing.array(packing.unpack(content), 2, "a sealed secret")[:2]
        payload = packing.blob(payload, 1, len(content))
        signature = packing.blob(signature, 1, SIGNATURE_BYTES)
        fields = packing.array(packing.unpack(payload), 10, "a sealed secret")
        if packing.pack([payload, signature]) != content or packing.pack(fields) != payload:
            raise WireError("not in canonical form")
        chain = packing.items(
            fields[9], lambda one: packing.blob(one, 1, CHAIN_BYTES), CHAIN_CERTIFICATES, "a chain"
        )
        sealed = SealedSecret(
            federation=packing.host(fields[1]),
            host=packing.host(fields[2]),
            name=packing.text(fields[3], naming.SECRET_NAME, "the name of a secret"),
            version=packing.number(fields[4]),
            sealed_at_s=packing.number(fields[5]),
            expires_at_s=packing.number(fields[6]),
            key_id=packing.sha256(fields[7]),
            ciphertext=packing.blob(fields[8], 1, SECRET_BYTES + _OVERHEAD_BYTES),
        )
    except WireError as error:
        raise TrustError("E-SEAL", f"no sealed secret: {error}") from None
    if fields[0] != _FORMAT or sealed.federation != federation:
        raise TrustError("E-SEAL", "the secret is of another format or federation")
    return _Apart(sealed, payload, signature, chain)


def open_sealed(sealed: SealedSecret, directory: Path, host: str, now_ms: int) -> bytes:
    """
    Return the plaintext, for its receiver only.

    Args:
        sealed: checked by ``read``.
        directory: the receiver's trust directory, which holds its seal keys.
        host: whose directory it is.
        now_ms: now.

    Raises:
        TrustError: E-SEAL: for another node; E-SEAL-EXPIRED; E-SEAL-OPEN: damaged, or the key is retired.
    """
    if sealed.host != host:
        raise TrustError("E-SEAL", f"sealed for node {quoted(sealed.host)}, this is {quoted(host)}")
    if sealed.expires_at_s and now_ms > sealed.expires_at_s * 1000:
        raise TrustError(
            "E-SEAL-EXPIRED", f"{sealed.name} {sealed.version} has expired", remedy="have it sealed again"
        )
    key = private_keys(directory).get(sealed.key_id)
    if key is None:
        raise TrustError(
            "E-SEAL-OPEN", "cannot open: damaged, or sealed to a retired key", remedy="have it sealed again"
        )
    try:
        return bytes(_SUITE.decrypt(sealed.ciphertext, key, info=sealed.info))
    except InvalidTag:
        raise TrustError("E-SEAL-OPEN", "cannot open: damaged, or sealed to a retired key") from None


def check_secret_name(name: str) -> str:
    """
    Return the name of a secret unchanged if it is strictly one.

    Raises:
        TrustError: E-NAME.
    """
    if naming.SECRET_NAME.fullmatch(name) is None:
        raise TrustError(
            "E-NAME",
            f"{quoted(name)} is no name of a secret",
            remedy="write at most 64 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit",
        )
    return name


def _check_role(names: naming.Names) -> None:
    if SECRET_ADMIN not in names.roles:
        raise TrustError(
            "E-POLICY",
            f"{names.host} has not the role {SECRET_ADMIN}: it may seal nothing",
            remedy=f"have a certificate approved with --role {SECRET_ADMIN}",
        )
