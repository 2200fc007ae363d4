"""
What a certificate or CRL says and what is wrong with it, in plain values.

For people: nothing here lets anybody in. The verdicts are those of chain,
profile and revocation, collected instead of raised one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from esgf_gossip.trust import names as naming
from esgf_gossip.trust import pem, profile, revocation
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.bundle_files import read_bundles
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.install import read_bundle
from esgf_gossip.trust.material import CRL_FOLDER, ROOTS_FOLDER, read_crls, read_roots
from esgf_gossip.trust.revocation import CrlSet


def describe(one: x509.Certificate) -> dict[str, Any]:
    """Return what a certificate says; times in Unix ms; ``profile`` is "CA", "node" or why it is neither."""
    described: dict[str, Any] = {
        "subject": one.subject.rfc4514_string(),
        "issuer": one.issuer.rfc4514_string(),
        "serial": f"{one.serial_number:x}",
        "not_before_ms": revocation.milliseconds(one.not_valid_before_utc),
        "not_after_ms": revocation.milliseconds(one.not_valid_after_utc),
        "fingerprint": pem.fingerprint(one),
    }
    try:
        profile.check_issuer(one)
        described["profile"] = "CA"
    except TrustError:
        try:
            names = profile.leaf_names(one)
            described["profile"] = "node"
            described["names"] = [*names.dns, *names.uris]
        except TrustError as error:
            described["profile"] = str(error)
    return described


def describe_crl(crl: x509.CertificateRevocationList) -> dict[str, Any]:
    """
    Return what a CRL says; times in Unix ms, ``next_update_ms`` None where it names none.

    Raises:
        TrustError: E-CRL-FORM: it has no number.
    """
    try:
        number = revocation.number(crl)
    except x509.ExtensionNotFound:
        raise TrustError("E-CRL-FORM", "the CRL has no number", revocation.issuer_name(crl)) from None
    due = crl.next_update_utc
    return {
        "issuer": revocation.issuer_name(crl),
        "number": number,
        "this_update_ms": revocation.milliseconds(crl.last_update_utc),
        "next_update_ms": None if due is None else revocation.milliseconds(due),
        "revoked": [f"{serial:x}" for serial in sorted(revocation.serials(crl))],
    }


def find_faults(
    content: bytes, where: str, folder: Path, *, federation: str, host: str | None, kind: str, now_ms: int
) -> list[str]:
    """
    Judge a chain as a peer would and return all that is wrong, one line each; empty where all is well.

    Args:
        content: PEM; a bundle too, where ``kind`` is not "issuer".
        where: its name in messages.
        folder: holds ``roots/`` and ``crl/``.
        federation: the federation a node's certificate must be of.
        host: the node it must be of, None for any.
        kind: "node", "signer" or "issuer".
        now_ms: the time to judge at.

    Raises:
        TrustError: nothing can be judged: no PEM, no roots, unreadable files.
    """
    chain = pem.certificates(content, where) if kind == "issuer" else list(read_bundle(content, where).chain)
    roots: Sequence[x509.Certificate] = read_roots(folder / ROOTS_FOLDER)
    bundles = read_bundles(folder)
    if bundles:
        roots = bundles[-1].roots
    faults: list[str] = []

    def passes(check: Callable[[], object]) -> bool:
        try:
            check()
        except TrustError as error:
            if str(error) not in faults:
                faults.append(str(error))
            return False
        return True

    known = [*roots, *chain]
    crls = [crl for crl in read_crls(folder / CRL_FOLDER) if _is_about(crl, known)]
    good = [crl for crl in crls if passes(_crl_check(crl, known, now_ms))]
    anchors = TrustAnchors(tuple(roots), CrlSet.choose(good))
    passes(lambda: anchors.judge(chain[0], chain[1:], now_ms))
    if kind == "issuer":
        passes(lambda: profile.check_issuer(chain[0]))
    elif passes(lambda: profile.leaf_names(chain[0], federation)):
        passes(lambda: check_issued(bundles[-1] if bundles else None, chain[0]))
        if host is not None:
            passes(lambda: _check_host(chain[0], host))
    return faults


def _is_about(crl: x509.CertificateRevocationList, known: Sequence[x509.Certificate]) -> bool:
    return any(issuer.subject == crl.issuer for issuer in known)


def _crl_check(
    crl: x509.CertificateRevocationList, known: Sequence[x509.Certificate], now_ms: int
) -> Callable[[], object]:
    return lambda: revocation.check_crl(crl, known, "crl", now_ms)


def _check_host(leaf: x509.Certificate, host: str) -> None:
    found = profile.leaf_names(leaf).host
    if found != naming.check_dns(host):
        raise TrustError("E-HOST", f"the certificate is of node '{found}', not '{host}'")
