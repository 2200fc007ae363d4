"""
Revoking: which certificates of a node end, and the CRL that says so, in one step.

How a CRL is signed and numbered is publish.py's. Source: docs/trust.md, "When a key is stolen".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs
from cryptography import x509

from esgf_gossip.trust import issue, profile, publish, revocation
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.errors import TrustError, quoted
from esgf_gossip.trust.publish import PublishedCrl
from esgf_gossip.trust.revocation import milliseconds

# RFC 5280, 5.3.1, those that a federation can mean; certificateHold is not: nothing is ever taken back.
REASONS: Final[Mapping[str, x509.ReasonFlags]] = MappingProxyType(
    {
        flag.value: flag
        for flag in (
            x509.ReasonFlags.key_compromise,
            x509.ReasonFlags.superseded,
            x509.ReasonFlags.cessation_of_operation,
            x509.ReasonFlags.affiliation_changed,
            x509.ReasonFlags.privilege_withdrawn,
            x509.ReasonFlags.unspecified,
        )
    }
)

_SERIAL: Final = re.compile(r"(0x)?[0-9a-f]{1,40}")


@attrs.frozen
class Revocation:
    """What was revoked now, in which CRL; ``published`` is empty where all of it had been revoked before."""

    host: str
    serials: tuple[int, ...]
    number: int
    published: tuple[PublishedCrl, ...]


def find(authority: Authority, wanted: str, now_ms: int) -> list[x509.Certificate]:
    """
    Find what a serial number (hex) or the name of a node means: one certificate, or all of it that have not expired.

    Raises:
        TrustError: E-NOTFOUND.
    """
    issued = authority.issued()
    named = [one for one in issued if profile.leaf_names(one).host == wanted]
    living = [one for one in named if milliseconds(one.not_valid_after_utc) >= now_ms]
    if living or named:
        return living or named[-1:]
    text = wanted.lower().replace(":", "")
    if _SERIAL.fullmatch(text):
        found = [one for one in issued if one.serial_number == int(text, 16)]
        if found:
            return found
    raise TrustError(
        "E-NOTFOUND",
        f"no certificate of {quoted(wanted)} was issued here",
        remedy="see trust-admin cert list",
    )


def revoke(
    authority: Authority, wanted: str, reason: x509.ReasonFlags, now_ms: int, *, days: int = issue.CRL_DAYS
) -> Revocation:
    """
    Revoke a certificate, or all of a node: the audit log first, then the new CRL.

    Args:
        authority: the administration, unlocked.
        wanted: a serial number in hex, or the node's name.
        reason: why; it stands in the CRL.
        now_ms: now.
        days: from now to nextUpdate of the new CRL.

    Raises:
        TrustError: E-NOTFOUND; as ``publish.publish``: nothing was revoked.
    """
    found = find(authority, wanted, now_ms)
    host = profile.leaf_names(found[0]).host
    revoked = authority.revoked_serials()
    fresh = tuple(one.serial_number for one in found if one.serial_number not in revoked)
    if not fresh:
        held = revocation.CrlSet.choose(authority.crls()).of_issuer(found[0].issuer)
        serials = tuple(one.serial_number for one in found)
        return Revocation(host, serials, 0 if held is None else revocation.number(held), ())
    about = {"node": host, "serials": [f"{serial:x}" for serial in fresh], "reason": reason.value}
    revoking = dict.fromkeys(fresh, reason)
    published = publish.publish(authority, now_ms, days=days, revoking=revoking, about=about)
    # A node on its way from one issuing CA to the next has certificates of both.
    telling = tuple(one for one in published if not revocation.serials(one.crl).isdisjoint(fresh))
    return Revocation(host, fresh, revocation.number(telling[0].crl), telling)
