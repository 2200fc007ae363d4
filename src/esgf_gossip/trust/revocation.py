"""
CRLs: which may be used, which of two is newer, what they revoke.

Pure functions on parsed CRLs and the set of those in force; files are material.py's,
chains chain.py's. OpenSSL ignores the CRL number and picks by date, so exactly
one CRL per issuer ever enters a store: this file picks it. Source: docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.core.limits import CLOCK_AHEAD_MS
from esgf_gossip.trust.errors import TrustError

# crl-stale = warn: known revocations stay enforced that long after nextUpdate, then nothing passes.
STALE_GRACE_MS: Final = 14 * 24 * 3600 * 1000

STALE_REMEDY: Final = (
    "get the newest CRL from the trust administrator, then trust-admin crl import and esgf-gossip reload"
)

# What a CRL knows a certificate by: the issuer's name in DER, the serial number.
Issued = tuple[bytes, int]

_KNOWN: Final = (x509.CRLNumber, x509.AuthorityKeyIdentifier)


def milliseconds(moment: datetime) -> int:
    """Convert a date of a certificate or CRL to Unix milliseconds."""
    return int(moment.timestamp()) * 1000


def issuer_name(issued: x509.CertificateRevocationList | x509.Certificate) -> str:
    """Name the issuer for people."""
    return issued.issuer.rfc4514_string()


def number(crl: x509.CertificateRevocationList) -> int:
    """Return the CRL number of a checked CRL."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def number_or_zero(crl: x509.CertificateRevocationList) -> int:
    """Return the CRL number of a CRL that nobody has checked; 0 where it names none."""
    try:
        return number(crl)
    except Exception:  # noqa: BLE001 - it will be refused by who checks it
        return 0


def next_update_ms(crl: x509.CertificateRevocationList) -> int:
    """Return when the next CRL is due, of a checked CRL."""
    due = crl.next_update_utc
    return 0 if due is None else milliseconds(due)


def serials(crl: x509.CertificateRevocationList) -> frozenset[int]:
    """Return all revoked serial numbers."""
    return frozenset(revoked.serial_number for revoked in crl)


def reasons(crl: x509.CertificateRevocationList) -> dict[int, x509.ReasonFlags]:
    """Return why each serial number was revoked, where the CRL says so."""
    return {
        one.serial_number: extension.value.reason
        for one in crl
        for extension in one.extensions
        if isinstance(extension.value, x509.CRLReason)
    }


def find_issuer(
    crl: x509.CertificateRevocationList, issuers: Iterable[x509.Certificate]
) -> x509.Certificate | None:
    """Find the certificate that signed a CRL: by name, then by the signature itself."""
    for issuer in issuers:
        if issuer.subject == crl.issuer:
            try:
                if crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # any other type of key raises
                    return issuer
            except Exception:  # noqa: BLE001, S112 - an odd key or algorithm signed nothing
                continue
    return None


def check_crl(
    crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate], where: str, now_ms: int
) -> None:
    """
    Check one CRL before it comes near a store: one bad one there would refuse everybody.

    Raises:
        TrustError: as ``check_signed``; E-CRL-STALE.
    """
    check_signed(crl, issuers, where, now_ms)
    if now_ms > next_update_ms(crl) + STALE_GRACE_MS:
        raise TrustError(
            "E-CRL-STALE",
            f"{where}: CRL {number(crl)} of {issuer_name(crl)} was due for renewal on {crl.next_update_utc:%Y-%m-%d}",
            remedy=STALE_REMEDY,
        )


def check_signed(
    crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate], where: str, now_ms: int
) -> None:
    """
    Check signature and form of a CRL, however old it is: one that is replaced may be.

    Raises:
        TrustError: E-CRL-SIG, E-CRL-FORM, E-CRL-FUTURE.
    """
    name = issuer_name(crl)
    try:
        if not any(issuer.subject == crl.issuer for issuer in issuers):
            raise TrustError("E-CRL-SIG", f"{where}: the CRL's issuer {name} is not trusted here")
        if find_issuer(crl, issuers) is None:
            raise TrustError("E-CRL-SIG", f"{where}: the CRL is not signed by {name}: damaged or forged")
        for extension in crl.extensions:
            # Delta and partitioned CRLs say less than they seem to; they come with critical extensions.
            if isinstance(extension.value, (x509.DeltaCRLIndicator, x509.IssuingDistributionPoint)) or (
                extension.critical and not isinstance(extension.value, _KNOWN)
            ):
                raise TrustError(
                    "E-CRL-FORM", f"{where}: extension {extension.oid.dotted_string} is not supported"
                )
        number(crl)
        if crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier is None:
            raise TrustError("E-CRL-FORM", f"{where}: the CRL does not name its issuer's key")
        if next_update_ms(crl) <= milliseconds(crl.last_update_utc):
            raise TrustError("E-CRL-FORM", f"{where}: the CRL has no later nextUpdate")
        if milliseconds(crl.last_update_utc) > now_ms + CLOCK_AHEAD_MS:
            raise TrustError(
                "E-CRL-FUTURE",
                f"{where}: the CRL of {name} is dated {crl.last_update_utc:%Y-%m-%d %H:%M} UTC",
                remedy="see that this host's clock is right",
            )
    except TrustError:
        raise
    except Exception as error:
        raise TrustError(
            "E-CRL-FORM", f"{where}: the CRL cannot be read: {type(error).__name__}: {error}"
        ) from error


def newer(
    held: x509.CertificateRevocationList, offered: x509.CertificateRevocationList
) -> x509.CertificateRevocationList:
    """
    Return the offered CRL if it may replace the one held of the same issuer; the held one if they are the same.

    Raises:
        TrustError: E-CRL-ROLLBACK, E-CRL-FORK, E-CRL-SHRINK: the held one stays.
    """
    name = issuer_name(held)
    if number(offered) == number(held):
        if offered.public_bytes(Encoding.DER) == held.public_bytes(Encoding.DER):
            return held
        raise TrustError(
            "E-CRL-FORK",
            f"two different CRLs {number(held)} of issuer {name}",
            remedy="one of them is forged, or the administration runs twice: ask the trust administrator",
        )
    check_follows(held, offered)
    return offered


def check_follows(held: x509.CertificateRevocationList, offered: x509.CertificateRevocationList) -> None:
    """
    Check that a CRL may come after another of its issuer, or stand beside it under the same number.

    Raises:
        TrustError: E-CRL-ROLLBACK, E-CRL-SHRINK; E-CRL-FORK: of the same number, and something is no longer revoked.
    """
    name = issuer_name(held)
    is_fork = number(offered) == number(held)
    if number(offered) < number(held) or (not is_fork and offered.last_update_utc < held.last_update_utc):
        raise TrustError(
            "E-CRL-ROLLBACK", f"CRL {number(offered)} is older than {number(held)} held for issuer {name}"
        )
    # A CRL keeps a serial as long as its issuer lives; dropping one is un-revoking.
    lost = serials(held) - serials(offered)
    if lost:
        raise TrustError(
            "E-CRL-FORK" if is_fork else "E-CRL-SHRINK",
            f"CRL {number(offered)} of {name} no longer revokes {', '.join(f'{serial:x}' for serial in sorted(lost))}",
            remedy="ask the trust administrator; a revocation is never taken back",
        )


def not_below(
    crls: Sequence[x509.CertificateRevocationList], floor: Sequence[x509.CertificateRevocationList]
) -> tuple[list[x509.CertificateRevocationList], list[TrustError]]:
    """Return the CRLs that may follow those known already, together with these; and why the others may not."""
    kept, refused = list(floor), []
    for crl in crls:
        held = next((one for one in floor if one.issuer == crl.issuer), None)
        try:
            if held is not None:
                check_follows(held, crl)
        except TrustError as error:
            refused.append(error)
        else:
            kept.append(crl)
    return kept, refused


@attrs.frozen
class CrlSet:
    """The CRLs in force: checked, exactly one per issuer."""

    crls: tuple[x509.CertificateRevocationList, ...]
    _by_issuer: dict[bytes, x509.CertificateRevocationList] = attrs.field(
        init=False,
        eq=False,
        repr=False,
        default=attrs.Factory(
            lambda self: {crl.issuer.public_bytes(): crl for crl in reversed(self.crls)}, takes_self=True
        ),
    )

    @classmethod
    def choose(cls, crls: Iterable[x509.CertificateRevocationList]) -> CrlSet:
        """
        Take the newest of each issuer, of CRLs that passed ``check_crl``.

        Raises:
            TrustError: E-CRL-FORK: two of one number that differ.
        """
        chosen: dict[bytes, x509.CertificateRevocationList] = {}
        for crl in crls:
            key = crl.issuer.public_bytes()
            held = chosen.get(key)
            if held is None or number(crl) > number(held):
                chosen[key] = crl
            elif number(crl) == number(held):
                newer(held, crl)
        return cls(tuple(chosen.values()))

    def of_issuer(self, name: x509.Name) -> x509.CertificateRevocationList | None:
        """Return the CRL of one issuer."""
        return self._by_issuer.get(name.public_bytes())

    def revoked(self, certificate: x509.Certificate) -> bool:
        """Tell whether a certificate is on the CRL of its issuer."""
        crl = self.of_issuer(certificate.issuer)
        return (
            crl is not None
            and crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        )

    def passes(self, issued: Iterable[Issued]) -> bool:
        """Tell whether a CRL of each issuer is held, and none of these certificates is on it."""
        for issuer, serial in issued:
            crl = self._by_issuer.get(issuer)
            if crl is None or crl.get_revoked_certificate_by_serial_number(serial) is not None:
                return False
        return True

    def refuses_stale(self, name: x509.Name, now_ms: int) -> bool:
        """Tell whether the CRL of an issuer is missing or so old that nothing of that issuer may pass."""
        crl = self.of_issuer(name)
        return crl is None or now_ms > next_update_ms(crl) + STALE_GRACE_MS
