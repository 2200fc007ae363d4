"""
From a leaf to a trusted root: signatures, dates, path length, revocation.

The verdict on chains outside TLS (digests, files, live connections judged
again), and the one text per X.509 error that TLS uses too. What a leaf must
look like is profile.py's. Source: docs/trust.md, RFC 5280 section 6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs
from cryptography import x509
from OpenSSL.crypto import (
    FILETYPE_ASN1,
    X509,
    Error,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
    load_certificate,
)

from esgf_gossip.trust import profile
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.pem import certificate_der
from esgf_gossip.trust.revocation import (
    STALE_REMEDY,
    CrlSet,
    issuer_name,
    milliseconds,
    next_update_ms,
    number,
)

NO_CRL: Final = 3
NOT_YET_VALID: Final = 9
EXPIRED: Final = 10
STALE_CRL: Final = 12
NO_ISSUER: Final = 20
REVOKED: Final = 23

# X509_V_ERR_* of OpenSSL: (what, what to do); {issuer}, {subject}, {after}, {before} are of the certificate at fault.
_TEXTS: Final[Mapping[int, tuple[str, str]]] = {
    2: ("issuer '{issuer}' not found", "send the chain file, not only the leaf; is its root trusted here?"),
    NO_CRL: ("no CRL of issuer '{issuer}' is held", "get it from the trust administrator"),
    7: ("the certificate's signature is not its issuer's: damaged or forged", ""),
    8: ("the CRL of issuer '{issuer}' is not signed by it: damaged or forged", ""),
    NOT_YET_VALID: ("certificate not yet valid, only from {before}", "see that both hosts' clocks are right"),
    EXPIRED: ("certificate expired on {after}", "renew it"),
    11: ("the CRL of issuer '{issuer}' is dated in the future", "see that this host's clock is right"),
    STALE_CRL: ("the CRL of issuer '{issuer}' is too old", STALE_REMEDY),
    18: (
        "self-signed certificate '{subject}' is not trusted",
        "a member's certificate comes from the federation",
    ),
    19: ("root '{subject}' is not trusted here", "is it the same federation?"),
    NO_ISSUER: (
        "issuer '{issuer}' not found",
        "send the chain file, not only the leaf; is its root trusted here?",
    ),
    21: ("issuer '{issuer}' not found", "send the chain file, not only the leaf"),
    22: ("the certificate chain is too long", ""),
    REVOKED: ("certificate revoked (serial {serial})", "ask the trust administrator"),
    24: ("issuer '{issuer}' is not a CA", ""),
    25: ("a CA of the chain may not issue further CAs", ""),
    26: ("the extended key usage does not allow this use: serverAuth and clientAuth are needed", ""),
    32: ("issuer '{issuer}' may not sign certificates", ""),
    34: ("the certificate has an unknown critical extension", ""),
    36: ("a CRL of the chain has an unknown critical extension", ""),
    44: ("the CRL of issuer '{issuer}' is for certificates with another distribution point", ""),
    47: ("a name is outside of what the issuer '{issuer}' may certify", ""),
    53: ("a name cannot be checked against the limits of issuer '{issuer}'", ""),
    66: ("the key is too short", "make a P-256 key"),
    68: ("signed with a hash that is no longer safe", ""),
    79: ("issuer '{issuer}' is not a CA", ""),
}


def chain_error(error: int, certificate: x509.Certificate | None, detail: str = "") -> TrustError:
    """Make the error for one X.509 verdict of OpenSSL, of the certificate at fault."""
    what, remedy = _TEXTS.get(error, (detail or "the certificate chain is refused", ""))
    values = {"issuer": "?", "subject": "?", "after": "?", "before": "?", "serial": "?"}
    if certificate is not None:
        try:
            values = {
                "issuer": certificate.issuer.rfc4514_string(),
                "subject": certificate.subject.rfc4514_string(),
                "after": f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                "before": f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
                "serial": f"{certificate.serial_number:x}",
            }
        except Exception:  # noqa: BLE001 - an odd certificate is refused all the same, without details
            what = what.split("{", maxsplit=1)[0].strip(" '")
    return TrustError(f"E-CHAIN-{error}", what.format(**values), remedy=remedy)


@attrs.frozen
class TrustAnchors:
    """The roots and CRLs in force, and the verdicts that follow from them."""

    roots: tuple[x509.Certificate, ...]
    crls: CrlSet

    def chain_to_root(
        self, leaf: x509.Certificate, others: Sequence[x509.Certificate], at_ms: int
    ) -> tuple[x509.Certificate, ...]:
        """
        Find the chain from a leaf to a trusted root, valid at one time; revocation is not looked at.

        Args:
            leaf: the certificate to judge.
            others: what may stand between, any order; nothing in it is trusted.
            at_ms: the time at which all certificates must be valid.

        Returns:
            Leaf first, root last.

        Raises:
            TrustError: E-CHAIN-<X.509 error>, or E-PROFILE of a CA in the chain.
        """
        # A store of its own: OpenSSL keeps the first time set on a store and ignores all later ones.
        store = X509Store()
        for root in self.roots:
            store.add_cert(X509.from_cryptography(root))
        store.set_time(datetime.fromtimestamp(at_ms / 1000, UTC))
        try:
            untrusted = [X509.from_cryptography(other) for other in others]
            context = X509StoreContext(store, X509.from_cryptography(leaf), untrusted)
            found = [certificate.to_cryptography() for certificate in context.get_verified_chain()]
        except X509StoreContextError as error:
            _clear_errors()
            raise chain_error(error.errors[0], _readable(error.certificate), error.errors[2]) from None
        except Exception as error:
            # Bytes that one library parses and the other does not: fail closed.
            _clear_errors()
            raise TrustError("E-PROFILE", f"the chain cannot be read: {type(error).__name__}") from error
        for issuer in found[1:]:
            profile.check_issuer(issuer)
        return tuple(found)

    def check_not_revoked(self, chain: Sequence[x509.Certificate]) -> None:
        """
        Refuse a chain of which any certificate is revoked, or of which that cannot be known.

        Whatever the time: a revocation counts for all that was ever signed.

        Raises:
            TrustError: E-CHAIN-23, E-CHAIN-3.
        """
        for certificate in chain:
            if self.crls.of_issuer(certificate.issuer) is None:
                raise chain_error(NO_CRL, certificate)
            if self.crls.revoked(certificate):
                raise chain_error(REVOKED, certificate)

    def check_fresh(self, chain: Sequence[x509.Certificate], now_ms: int) -> None:
        """
        Refuse a chain whose CRLs are older than the policy allows.

        Raises:
            TrustError: E-CRL-STALE.
        """
        for certificate in chain:
            crl = self.crls.of_issuer(certificate.issuer)
            if crl is not None and self.crls.refuses_stale(certificate.issuer, now_ms):
                due = datetime.fromtimestamp(next_update_ms(crl) / 1000, UTC)
                raise TrustError(
                    "E-CRL-STALE",
                    f"CRL {number(crl)} of {issuer_name(crl)} was due for renewal on {due:%Y-%m-%d}",
                    remedy=STALE_REMEDY,
                )

    def judge(
        self, leaf: x509.Certificate, others: Sequence[x509.Certificate], now_ms: int
    ) -> tuple[x509.Certificate, ...]:
        """
        Judge a chain as of now: dates, signatures, revocation, freshness of the CRLs.

        Raises:
            TrustError: the first reason found.
        """
        chain = self.chain_to_root(leaf, others, now_ms)
        self.check_not_revoked(chain)
        self.check_fresh(chain, now_ms)
        return chain


def check_dates(certificate: x509.Certificate, now_ms: int) -> None:
    """
    Check that a certificate is valid now, by our clock.

    Raises:
        TrustError: E-CHAIN-9, E-CHAIN-10.
    """
    if now_ms < milliseconds(certificate.not_valid_before_utc):
        raise chain_error(NOT_YET_VALID, certificate)
    if now_ms > milliseconds(certificate.not_valid_after_utc):
        raise chain_error(EXPIRED, certificate)


def without_root(chain: Sequence[x509.Certificate]) -> tuple[bytes, ...]:
    """Return a verified chain as it is sent: DER, leaf first, without its root."""
    return tuple(certificate_der(certificate) for certificate in chain[:-1])


def _clear_errors() -> None:
    # OpenSSL leaves its reasons in a queue of the thread, where up to 3.x the next read of any live
    # connection takes them for its own (SSL_get_error): a stranger's bad chain would end good links.
    # pyOpenSSL empties the queue when it raises, and has no other door to it.
    with contextlib.suppress(Error):
        load_certificate(FILETYPE_ASN1, b"")


def _readable(certificate: X509) -> x509.Certificate | None:
    try:
        return certificate.to_cryptography()
    except Exception:  # noqa: BLE001 - a certificate one library parses and the other does not is refused anyway
        return None
