"""
What a mail carries to be known again: links that only its receiver has, and its return path.

A token is a keyed hash over whom and what it is for, with these two: nobody makes one without this node's key, one
for another purpose or person opens nothing. Source: RFC 8058, section 3; docs/tracking.md, "Unsubscribing".
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from enum import StrEnum
from typing import Final

from esgf_gossip.tracking.persons import PERSON_BYTES
from esgf_gossip.trust.sealed_values import SealedValues

_MAC_BYTES: Final = 16
_TOKEN_CHARACTERS: Final = 600
# Base32, for the local part of an address may change its case on the way.
_ENVELOPE_MAC_BYTES: Final = 10
_ENVELOPE: Final = re.compile(r".+\+b([0-9]{1,18})-([a-z2-7]{16})@.+")


class TokenError(ValueError):
    """Report a token that is none of ours."""


class Purpose(StrEnum):
    """What a token opens; also the first segment of its path."""

    UNSUBSCRIBE = "unsubscribe"
    PREFERENCES = "preferences"
    LIST = "list"


def make_token(values: SealedValues, purpose: Purpose, person: bytes, what: str = "") -> str:
    """Return the token of a person for a purpose; ``what``: a scope, the number of a mail."""
    payload = person + what.encode()
    return _spelled(_mac(values, purpose, payload) + payload)


def read_token(values: SealedValues, purpose: Purpose, token: str) -> tuple[bytes, str]:
    """
    Return person and ``what`` of a token.

    Raises:
        TokenError: it is forged, damaged, of another node or for another purpose.
    """
    try:
        if len(token) > _TOKEN_CHARACTERS:
            raise TokenError("no token is that long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        # One spelling for each: base64 knows several for some.
        if (
            _spelled(raw) != token
            or len(payload) < PERSON_BYTES
            or not hmac.compare_digest(mac, _mac(values, purpose, payload))
        ):
            raise TokenError("the token does not belong to this node")
        return payload[:PERSON_BYTES], payload[PERSON_BYTES:].decode()
    except (binascii.Error, ValueError):
        raise TokenError("the token does not belong to this node") from None


def envelope_address(values: SealedValues, sender: str, mail: int) -> str:
    """Return the address to which failures of one mail come back (VERP): ``sender+bNUMBER-MAC@domain``."""
    local, _, domain = sender.rpartition("@")
    return f"{local}+b{mail}-{_envelope_mac(values, mail)}@{domain}"


def read_envelope(values: SealedValues, address: str) -> int | None:
    """Return the number of the mail whose return path this is; None where it is none of ours."""
    found = _ENVELOPE.fullmatch(address.strip().lower()[:320])
    if found is None:
        return None
    number = int(found[1])
    return number if hmac.compare_digest(found[2], _envelope_mac(values, number)) else None


def _spelled(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _mac(values: SealedValues, purpose: str, payload: bytes) -> bytes:
    return values.keyed_hash(f"token/{purpose}", payload.hex())[:_MAC_BYTES]


def _envelope_mac(values: SealedValues, mail: int) -> str:
    mac = values.keyed_hash("token/envelope", str(mail))[:_ENVELOPE_MAC_BYTES]
    return base64.b32encode(mac).decode().lower()
