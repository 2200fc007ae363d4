"""
What an operator should know about trust before it fails: ends of certificates and bundles, ages of CRLs.

Words only; what is in force is material.py's. Source: docs/trust.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs
from cryptography import x509

from esgf_gossip.trust import revocation

_DAY_MS: Final = 24 * 3600 * 1000
_EXPIRY_ATTENTION_DAYS: Final = 30
_EXPIRY_SOON_DAYS: Final = 14
_EXPIRY_CRITICAL_DAYS: Final = 7

ATTENTION: Final = "attention"
CRITICAL: Final = "critical"


@attrs.frozen
class Finding:
    """Something an operator should know: ``level`` is "attention" or "critical"."""

    level: str
    text: str


def expiry(what: str, certificate: x509.Certificate, now_ms: int) -> list[Finding]:
    """Say when a certificate ends, 30, 14 and 7 days ahead and after."""
    return end_of(what, certificate.not_valid_after_utc, now_ms)


def end_of(what: str, moment: datetime, now_ms: int) -> list[Finding]:
    """Say when something ends, in the same way."""
    left_ms = revocation.milliseconds(moment) - now_ms
    when = f"{moment:%Y-%m-%d %H:%M} UTC"
    if left_ms < 0:
        return [Finding(CRITICAL, f"{what} expired on {when}")]
    days = left_ms // _DAY_MS
    if days < _EXPIRY_CRITICAL_DAYS:
        return [Finding(CRITICAL, f"{what} expires in {days} days, on {when}: renew it now")]
    if days < _EXPIRY_SOON_DAYS:
        return [Finding(ATTENTION, f"{what} expires in {days} days, on {when}: renew it this week")]
    if days < _EXPIRY_ATTENTION_DAYS:
        return [Finding(ATTENTION, f"{what} expires in {days} days, on {when}: time to renew it")]
    return []


def crl_age(crl: x509.CertificateRevocationList, now_ms: int) -> list[Finding]:
    """Say when a CRL is past the day its successor was due."""
    name = f"CRL {revocation.number(crl)} of {revocation.issuer_name(crl)}"
    due_ms = revocation.next_update_ms(crl)
    end_ms = due_ms + revocation.STALE_GRACE_MS
    if now_ms <= due_ms:
        return []
    end = f"{datetime.fromtimestamp(end_ms / 1000, UTC):%Y-%m-%d}"
    if now_ms > end_ms:
        return [Finding(CRITICAL, f"{name} is too old: nothing of this issuer has passed since {end}")]
    level = CRITICAL if end_ms - now_ms < _EXPIRY_CRITICAL_DAYS * _DAY_MS else ATTENTION
    return [
        Finding(
            level,
            f"{name} is past its nextUpdate; from {end} on nobody is let in: "
            "get the newest, then trust-admin crl import",
        )
    ]
