"""
What a certificate may claim, by the bounds that the trust bundle sets its issuing CA: one function for every door.

TLS, digests, live links and installation ask here. The CA that breaks its bounds may be honest or stolen: what it
signs beyond them counts nowhere. Source: docs/adr/0012-trust-bundle.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from cryptography import x509

from esgf_gossip.trust import profile
from esgf_gossip.trust.bundle import Bundle
from esgf_gossip.trust.errors import TrustError

# Certificates are dated back by minutes; that must not make a life of the allowed days too long.
_SLACK: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


def check_issued(bundle: Bundle | None, leaf: x509.Certificate) -> None:
    """
    Check that a node's certificate is within what the bundle lets its issuer certify; without a bundle all is.

    Raises:
        TrustError: E-POLICY: of a CA that the bundle does not hold, or out of its bounds; as ``profile.leaf_names``.
    """
    if bundle is None:
        return
    names = profile.leaf_names(leaf)
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    days = max(1, -((life - _SLACK) // -_DAY))
    for issuer in bundle.issuers:
        if not _is_issued_by(leaf, issuer.certificate):
            continue
        objections = issuer.policy.objections(names, days)
        if objections:
            raise TrustError(
                "E-POLICY",
                f"trust bundle {bundle.version}: {'; '.join(objections)}",
                remedy="no honest issuer signs that: tell the trust administrator",
            )
        return
    raise TrustError(
        "E-POLICY",
        f"trust bundle {bundle.version} holds no issuing CA '{leaf.issuer.rfc4514_string()}'",
        remedy="the node must renew its certificate, or take the newest bundle",
    )


def _is_issued_by(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    if leaf.issuer != issuer.subject:
        return False
    try:
        leaf.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - whatever a library raises: it is not
        return False
    return True
