"""
The keys secrets are sealed to: X25519, made on the node, certified by the node's own key.

CA -> node certificate -> seal key: a leaked TLS key alone opens nothing, and the seal key changes without the CA.
Source: docs/trust.md, "Secrets"; RFC 9180.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import CHAIN_BYTES, CHAIN_CERTIFICATES, SIGNATURE_BYTES
from esgf_gossip.files import create_file
from esgf_gossip.trust import keys, profile
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.bundle import Bundle, is_signed, sign, spki
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked
from esgf_gossip.trust.material import SEAL_FOLDER, TrustMaterial

KEY_BYTES: Final = 32
SEAL_SUFFIX: Final = ".key"
# The key in use and the one before: what was sealed in between still opens.
KEYS_KEPT: Final = 2

_CONTEXT: Final = b"esgf-gossip/seal-key/1\0"
_FORMAT: Final = 1


@attrs.frozen
class SealKey:
    """The public half, as its node certified it: ``key_id`` is the SHA-256 of the 32 bytes."""

    host: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The name of the key."""
        return hashlib.sha256(self.public).digest()


def private_keys(directory: Path) -> dict[bytes, x25519.X25519PrivateKey]:
    """
    Read the seal keys of a node, by their id, the newest last.

    Raises:
        TrustError: as ``keys.read_private``; E-KEY of what is none.
    """
    return {_key_id(key): key for _, key in _held(directory)}


def _held(directory: Path) -> list[tuple[Path, x25519.X25519PrivateKey]]:
    found = []
    for path in sorted((directory / SEAL_FOLDER).glob("*" + SEAL_SUFFIX)):
        try:
            key = serialization.load_pem_private_key(keys.read_private(path), None)
        except (ValueError, TypeError):
            raise TrustError("E-KEY", f"{path} holds no complete private key") from None
        if not isinstance(key, x25519.X25519PrivateKey):
            raise TrustError("E-KEYTYPE", f"{path} is not an X25519 key")
        found.append((path, key))
    return found


def ensure_key(
    directory: Path, now_ms: int, *, rotate: bool = False, needed: Collection[bytes] = ()
) -> x25519.X25519PrivateKey:
    """
    Return the seal key in use; make the first, or with ``rotate`` the next one.

    Args:
        directory: the trust directory of the node.
        now_ms: now.
        rotate: make a new key even where there is one; of the old ones KEYS_KEPT stay, and
        needed: those with these ids.

    Raises:
        TrustError: as ``private_keys``; E-GIT, E-FILE.
    """
    held = _held(directory)
    if held and not rotate:
        return held[-1][1]
    with locked(directory):
        held = _held(directory)
        # The daemon and a command may both have found none.
        return held[-1][1] if held and not rotate else _next_key(directory, held, now_ms, needed)


def _next_key(
    directory: Path,
    held: Sequence[tuple[Path, x25519.X25519PrivateKey]],
    now_ms: int,
    needed: Collection[bytes],
) -> x25519.X25519PrivateKey:
    key = x25519.X25519PrivateKey.generate()
    folder = directory / SEAL_FOLDER
    # Sorted by name is sorted by age, of which a clock that was set back knows nothing.
    stamps = [path.name.partition("-")[0] for path, _ in held]
    stamp = max([now_ms, *(int(one) + 1 for one in stamps if one.isdecimal())])
    path = folder / f"{stamp:015}-{_key_id(key).hex()[:8]}{SEAL_SUFFIX}"
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    keys.refuse_git(path)
    try:
        keys.private_folder(folder)
        create_file(path, content)
        for old, retired in held[: 1 - KEYS_KEPT]:
            if _key_id(retired) not in needed:
                old.unlink()
    except OSError as error:
        raise TrustError("E-FILE", f"{error.filename or path} cannot be written: {error.strerror}") from None
    return key


def certify(material: TrustMaterial, key: x25519.X25519PrivateKey) -> bytes:
    """Return the public half with the node's signature, always the same; ``with_chain`` makes it what others seal to."""
    public = key.public_key().public_bytes_raw()
    payload = packing.pack([_FORMAT, material.names.federation, material.names.host, public])
    return packing.pack([payload, sign(material.key, payload, _CONTEXT)])


def with_chain(certified: bytes, chain: Sequence[bytes]) -> bytes:
    """
    Return a certified seal key together with the chain of its node, so that it can be judged by itself.

    Raises:
        TrustError: E-SEAL.
    """
    try:
        return packing.pack([*packing.array(packing.unpack(certified), 2, "a seal key")[:2], list(chain)])
    except WireError as error:
        raise TrustError("E-SEAL", f"no seal key: {error}") from None


def read_certified(
    content: bytes, anchors: TrustAnchors, bundle: Bundle | None, federation: str, now_ms: int
) -> SealKey:
    """
    Check a certified seal key against the trust of today.

    Raises:
        TrustError: E-SEAL for what is none or not signed by its node; as ``TrustAnchors.judge``, ``check_issued``.
    """
    try:
        payload, signature, parts = packing.array(packing.unpack(content), 3, "a seal key")[:3]
        payload = packing.blob(payload, 1, 1024)
        signature = packing.blob(signature, 1, SIGNATURE_BYTES)
        chain = packing.items(
            parts, lambda one: packing.blob(one, 1, CHAIN_BYTES), CHAIN_CERTIFICATES, "a chain"
        )
        fields = packing.array(packing.unpack(payload), 4, "a seal key")
        host, public = packing.host(fields[2]), packing.blob(fields[3], KEY_BYTES, KEY_BYTES)
    except WireError as error:
        raise TrustError("E-SEAL", f"no seal key: {error}") from None
    if fields[:2] != [_FORMAT, federation]:
        raise TrustError("E-SEAL", "the seal key is of another format or federation")
    leaf, others = load_chain(chain)
    names = profile.leaf_names(leaf, federation)
    anchors.judge(leaf, others, now_ms)
    check_issued(bundle, leaf)
    if names.host != host:
        raise TrustError("E-SEAL", f"the seal key of {host} is signed by {names.host}")
    if not is_signed(spki(leaf), payload, signature, _CONTEXT):
        raise TrustError("E-SEAL", f"the seal key is not signed by {host}: damaged or forged")
    return SealKey(host, public)


def load_chain(parts: Sequence[bytes]) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """
    Read a chain of DER certificates, leaf first; nothing of it is trusted yet.

    Raises:
        TrustError: E-SEAL.
    """
    try:
        leaf, *others = (x509.load_der_x509_certificate(part) for part in parts)
    except Exception as error:
        # Bytes of a stranger: whatever the library makes of them, they are no certificates.
        raise TrustError("E-SEAL", f"no chain of certificates: {type(error).__name__}") from error
    return leaf, others


def _key_id(key: x25519.X25519PrivateKey) -> bytes:
    return hashlib.sha256(key.public_key().public_bytes_raw()).digest()
