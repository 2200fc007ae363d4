"""
Publishing CRLs: the administration signs them anew before the old ones are due.

Each has the next number and revokes whatever the one before revoked. How a CRL
looks is issue.py's, which of two is newer revocation.py's, how it comes to a
node install.py's. Source: docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509

from esgf_gossip.trust import generations, issue, pem, revocation
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked, write_public
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.material import CRL_FOLDER

# Longer, and a node that is cut off would believe an old one for too long.
DAYS_MAX: Final = 366


@attrs.frozen
class PublishedCrl:
    """A CRL that was just signed, and where it is."""

    crl: x509.CertificateRevocationList
    path: Path


def roots_due(authority: Authority, now_ms: int) -> list[str]:
    """
    Name the roots, that of the issuing CA in use first, whose CRLs are past half of their lives.

    Raises:
        TrustError: E-CRL-MISSING.
    """
    found = []
    named = generations.roots(authority.directory)
    for name in sorted(named, key=lambda name: name != authority.root_name):
        held = _held(authority, named[name])
        start_ms = revocation.milliseconds(held.last_update_utc)
        if now_ms >= (start_ms + revocation.next_update_ms(held)) // 2:
            found.append(name)
    return found


def publish(
    authority: Authority,
    now_ms: int,
    *,
    days: int = issue.CRL_DAYS,
    roots: Sequence[CertificateAuthority] = (),
    root_days: int = issue.ROOT_CRL_DAYS,
    min_number: int = 1,
    revoking: Mapping[int, x509.ReasonFlags] = {},
    about: Mapping[str, object] | None = None,
) -> list[PublishedCrl]:
    """
    Sign the CRLs of the issuing CAs anew, that of the one in use first, and those of the roots whose keys are given.

    When something is revoked, the CRLs that say so come first.

    Args:
        authority: the administration, unlocked.
        now_ms: now.
        days: from now to nextUpdate of the issuing CA's CRL, up to DAYS_MAX.
        roots: roots with their keys; the CRLs of others stay as they are.
        root_days: from now to nextUpdate of the roots' CRLs.
        min_number: the least number of the issuing CA's CRL: above what the nodes hold, on a restored administration.
        revoking: serial numbers to revoke from now on, and why.
        about: what the audit log is to say of these, before anything is written.

    Raises:
        TrustError: E-PASSPHRASE; E-CRL-* where the one held is missing, not ours, or from a later
            time: nothing was written; E-LOG, E-FILE.
    """
    folder = authority.directory / CRL_FOLDER
    with locked(authority.directory):
        names = {pem.fingerprint(one): name for name, one in _named(authority)}
        signed = []
        for ca, mine in _shares(authority, revoking):
            made = _next(authority, ca, now_ms, days, min_number, mine)
            signed.append(PublishedCrl(made, folder / f"{names[pem.fingerprint(ca.certificate)]}.crl.pem"))
        for root in roots:
            made = _next(authority, root, now_ms, root_days)
            signed.append(PublishedCrl(made, folder / f"{names[pem.fingerprint(root.certificate)]}.crl.pem"))
        if about is not None:
            authority.log.append(now_ms, "revoke", dict(about))
        for one in signed:
            authority.log.append(now_ms, "crl", _about(one.crl))
        for one in signed:
            write_public(one.path, pem.crl_pem(one.crl))
    return signed


def _named(authority: Authority) -> list[tuple[str, x509.Certificate]]:
    directory = authority.directory
    return [*generations.issuers(directory).items(), *generations.roots(directory).items()]


def _shares(
    authority: Authority, revoking: Mapping[int, x509.ReasonFlags]
) -> list[tuple[CertificateAuthority, dict[int, x509.ReasonFlags]]]:
    """Return each issuing CA with what it is to revoke of its own: the one in use first, then those that revoke."""
    issuers = {one.serial_number: one.issuer for one in authority.issued()} if revoking else {}
    default = authority.issuing.certificate.subject
    left = dict(revoking)
    shares = []
    for ca in authority.signers:
        mine = [serial for serial in left if issuers.get(serial, default) == ca.certificate.subject]
        shares.append((ca, {serial: left.pop(serial) for serial in mine}))
    if left:
        raise TrustError(
            "E-NOTFOUND",
            f"the key of the issuing CA of certificate {min(left):x} is not in {authority.private}",
            remedy="bring it back: only the CA that signed a certificate can revoke it",
        )
    return sorted(shares, key=lambda share: bool(revoking) and not share[1])


def _next(
    authority: Authority,
    ca: CertificateAuthority,
    now_ms: int,
    days: int,
    min_number: int = 1,
    revoking: Mapping[int, x509.ReasonFlags] = {},
) -> x509.CertificateRevocationList:
    held = _held(authority, ca.certificate)
    # Its serial numbers are about to be signed: they must be ours. Stale it may be, that is why we are here.
    revocation.check_signed(held, [ca.certificate], str(authority.directory / CRL_FOLDER), now_ms)
    revoked = {serial: issue.moment(now_ms) for serial in revoking}
    revoked.update({one.serial_number: one.revocation_date_utc for one in held})
    reasons = {**revoking, **revocation.reasons(held)}
    made = issue.crl(ca, max(revocation.number(held) + 1, min_number), revoked, now_ms, days, reasons)
    # What we sign must pass the check of every node; a clock that went back is found here.
    revocation.check_crl(made, [ca.certificate], "the new CRL", now_ms)
    return revocation.newer(held, made)


def _held(authority: Authority, issuer: x509.Certificate) -> x509.CertificateRevocationList:
    held = revocation.CrlSet.choose(authority.crls()).of_issuer(issuer.subject)
    if held is None:
        # Starting at number 1 again would take every revocation back, and no node would follow.
        raise TrustError(
            "E-CRL-MISSING",
            f"{authority.directory / CRL_FOLDER} holds no CRL of {issuer.subject.rfc4514_string()}",
            remedy="take the newest from a backup or from any node's crl/",
        )
    return held


def _about(crl: x509.CertificateRevocationList) -> dict[str, object]:
    return {
        "issuer": revocation.issuer_name(crl),
        "crl": revocation.number(crl),
        "next_update": issue.moment(revocation.next_update_ms(crl)).isoformat(timespec="seconds"),
        "revoked": len(revocation.serials(crl)),
    }
