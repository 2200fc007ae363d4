"""DKIM: the field that lets receivers see that a mail comes from the sender's domain, and its unsubscribe link too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from esgf_gossip.files import read_file
from esgf_gossip.tracking.mail_text import Signer

# RFC 8058 wants the last two signed; From twice keeps a second one from being added (RFC 6376, 8.15).
SIGNED: Final = (
    *("from", "from", "to", "subject", "date", "message-id", "mime-version", "content-type"),
    *("list-id", "auto-submitted", "list-unsubscribe", "list-unsubscribe-post"),
)
_KEY_BYTES: Final = 64 * 1024


class SigningError(Exception):
    """Report that mails cannot be signed: what, where, what to do, in one line."""


def make_signer(key: Path, selector: str, domain: str) -> Signer:
    """
    Return what signs mails.

    Args:
        key: PEM file of an RSA key.
        selector: under which the public key stands in DNS: ``SELECTOR._domainkey.DOMAIN``.
        domain: of the sender's address.

    Raises:
        SigningError: dkimpy is not installed, or the key is none.
    """
    try:
        import dkim  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise SigningError(
            "tracking.dkim_key: dkimpy is not installed; pip install 'esgf-gossip[dkim]', or name no key"
        ) from None
    try:
        content = read_file(key, _KEY_BYTES)
    except OSError as error:
        raise SigningError(f"{key}: {error.strerror}; it holds the RSA key of tracking.dkim_key") from None

    def sign(message: bytes) -> bytes:
        signed: bytes = dkim.sign(
            message,
            selector.encode("ascii"),
            domain.encode("ascii"),
            content,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=[name.encode() for name in SIGNED],
        )
        # dkimpy folds as it was given lines; a lone LF would be changed by the first server.
        return re.sub(rb"\r?\n", b"\r\n", signed)

    try:
        sign(b"From: a@example.org\r\nTo: b@example.org\r\n\r\nx\r\n")
    except Exception as error:  # noqa: BLE001 - dkimpy raises what its parsers raise
        kind: Any = type(error).__name__
        raise SigningError(f"{key}: no RSA key in PEM ({kind}); make one with: openssl genrsa 2048") from None
    return sign
