"""
Values sealed at rest by a key of this node alone: what a copied database must not tell.

One file of 32 random bytes, made at the first use; a key to encrypt and a key to hash are derived from it. Whoever
holds the database without the file reads nothing, and cannot find out by guessing. Source: docs/tracking.md,
"Addresses".
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from esgf_gossip.files import create_file
from esgf_gossip.trust import keys
from esgf_gossip.trust.errors import TrustError

KEY_BYTES: Final = 32
# What sealing adds to a value: the nonce and the tag.
OVERHEAD_BYTES: Final = 12 + 16
HASH_BYTES: Final = 32

_NONCE_BYTES: Final = 12
_FOR_SEALING: Final = b"esgf-gossip/sealed-value/1"
_FOR_HASHING: Final = b"esgf-gossip/keyed-hash/1"


class SealedValues:
    """
    Seals, opens and hashes values by the key in a file; safe to use from any thread.

    Args:
        path: of the key file; made with mode 0600 where there is none.

    Raises:
        TrustError: as ``keys.read_private``; E-KEY of a file of another size; E-GIT, E-FILE where it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        secret = _secret(path)
        self._sealing: Final = AESGCM(_derived(secret, _FOR_SEALING))
        self._hashing: Final = _derived(secret, _FOR_HASHING)

    def seal(self, value: bytes, context: str) -> bytes:
        """
        Return the value encrypted (AES-256-GCM); twice the same value gives two different texts.

        ``context`` says what it is and whose; it is not in the result, and only the same opens it.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._sealing.encrypt(nonce, value, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """
        Return the value again.

        Raises:
            TrustError: E-SEAL-OPEN: of another key or context, or damaged. Nothing of the value is in its text.
        """
        try:
            if len(sealed) < OVERHEAD_BYTES:
                raise InvalidTag
            return self._sealing.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except InvalidTag:
            raise TrustError(
                "E-SEAL-OPEN", "a sealed value does not open: damaged, or sealed by another key"
            ) from None

    def keyed_hash(self, context: str, text: str) -> bytes:
        """Return 32 bytes (HMAC-SHA-256) that are equal for equal texts of one context, and tell nothing without the key."""
        head = context.encode()
        return hmac.digest(
            self._hashing,
            len(head).to_bytes(4, "big") + head + text.encode("utf-8", "surrogatepass"),
            "sha256",
        )


def _secret(path: Path) -> bytes:
    if not os.path.lexists(path):
        keys.refuse_git(path)
        try:
            keys.private_folder(path.parent)
            create_file(path, os.urandom(KEY_BYTES), keys.KEY_MODE)
        except FileExistsError:
            pass  # another process was first
        except OSError as error:
            raise TrustError("E-FILE", f"{path} cannot be written: {error.strerror}") from None
    secret = keys.read_private(path)
    if len(secret) != KEY_BYTES:
        raise TrustError(
            "E-KEY",
            f"{path} has {len(secret)} bytes, {KEY_BYTES} are needed",
            remedy="restore it from a backup, or remove it: what was sealed by it is asked for anew then",
        )
    return secret


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(secret)
