"""
The trust directory of a node, read and judged as a whole: key, chain, roots, CRLs.

``load`` reads the folder, ``assemble`` judges what was read; what comes out was
checked, so that a daemon starts with trust that works or says why not. No TLS
here (tls.py), nothing is written (install.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from esgf_gossip.core.limits import CHAIN_BYTES, CHAIN_CERTIFICATES
from esgf_gossip.trust import keys, pem, profile, revocation
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.bundle import Bundle
from esgf_gossip.trust.bundle_files import bundle_files, read_bundles, same_roots
from esgf_gossip.trust.chain import NO_CRL, TrustAnchors, chain_error, without_root
from esgf_gossip.trust.errors import TrustError, quoted
from esgf_gossip.trust.findings import ATTENTION, CRITICAL, Finding, crl_age, end_of, expiry
from esgf_gossip.trust.names import Names
from esgf_gossip.trust.revocation import CrlSet
from esgf_gossip.trust.signing import NodeSigner

KEY_FILE: Final = "node.key"
CHAIN_FILE: Final = "chain.pem"
ROOTS_FOLDER: Final = "roots"
CRL_FOLDER: Final = "crl"
RENEWALS_FOLDER: Final = "renewals"
SEALED_FOLDER: Final = "sealed"
AUDIT_FOLDER: Final = "audit"
SEAL_FOLDER: Final = "seal"

ROOT_SUFFIXES: Final = (".pem", ".crt")
CRL_SUFFIXES: Final = (".pem", ".crl")


@attrs.frozen
class TrustMaterial:
    """
    Everything a node needs to speak and to judge who speaks; checked.

    ``bundles`` are the versions of the trust bundle held, the last in force; none in a federation founded without.
    """

    names: Names
    leaf: x509.Certificate
    issuers: tuple[x509.Certificate, ...]
    anchors: TrustAnchors
    signer: NodeSigner
    key: ec.EllipticCurvePrivateKey = attrs.field(eq=False, repr=False)
    notes: tuple[Finding, ...] = ()
    bundles: tuple[Bundle, ...] = ()

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        host: str | None,
        federation: str,
        now_ms: int,
        floor: Sequence[x509.CertificateRevocationList] = (),
        may_be_late: bool = False,
    ) -> TrustMaterial:
        """
        Read the trust directory of a node and judge it.

        Args:
            directory: trust.directory of node.toml.
            host: the node's name; None for whoever the certificate is of.
            federation: the federation's name.
            now_ms: now.
            floor: CRLs known to be good: a file that takes back what one of these says is left out, with a note.
            may_be_late: as in ``assemble``.

        Raises:
            TrustError: one precise reason; nothing is changed.
        """
        try:
            key, chain, roots, crls = _read(directory)
            bundles = read_bundles(directory)
        except OSError as error:
            raise TrustError(
                "E-FILE", f"{error.filename or directory} cannot be read: {error.strerror}"
            ) from None
        crls, refused = revocation.not_below(crls, floor)
        notes = tuple(Finding(CRITICAL, f"a CRL in {directory / CRL_FOLDER}: {error}") for error in refused)
        try:
            material = cls.assemble(
                key,
                chain,
                roots,
                crls,
                host=host,
                federation=federation,
                now_ms=now_ms,
                may_be_late=may_be_late,
                bundles=bundles,
            )
            return attrs.evolve(material, notes=material.notes + notes)
        except TrustError as error:
            raise error.found_in(str(directory / CHAIN_FILE)) from None

    @classmethod
    def assemble(
        cls,
        key: ec.EllipticCurvePrivateKey,
        chain: Sequence[x509.Certificate],
        roots: Sequence[x509.Certificate],
        crls: Sequence[x509.CertificateRevocationList],
        *,
        host: str | None,
        federation: str,
        now_ms: int,
        may_be_late: bool = False,
        bundles: Sequence[Bundle] = (),
    ) -> TrustMaterial:
        """
        Judge key, chain (leaf first), roots, CRLs and a history of bundles (``bundle_rules.walk``) as one.

        The newest bundle says which roots and issuing CAs count; ``roots`` count where there is none.

        With ``may_be_late`` a certificate that has expired or that only an older bundle carries, and CRLs that have
        run out, are no reason to fail: no connection comes of them, but a daemon that runs finds newer ones by itself.
        ``findings`` says so.

        Raises:
            TrustError: one precise reason.
        """
        leaf, *others = chain
        _check_pair(key, leaf)
        names = profile.leaf_names(leaf, federation)
        if host is not None and names.host != host:
            raise TrustError(
                "E-HOST",
                f"the certificate is of node {quoted(names.host)}, this one is {quoted(host)}",
                remedy="host in node.toml and the certificate must name the same node",
            )
        for root in roots:
            profile.check_root(root)
        bundle = bundles[-1] if bundles else None
        notes = []
        if bundle is not None:
            notes.extend(_differences(bundle, roots, federation))
            roots = bundle.roots
        end_ms = revocation.milliseconds(leaf.not_valid_after_utc)
        verified, objection = _own_chain(
            leaf,
            others,
            roots,
            bundles,
            min(now_ms, end_ms) if may_be_late else now_ms,
            may_be_late=may_be_late,
        )
        checked = []
        known = (*roots, *(bundle.issuing_certificates if bundle else ()))
        known = known if objection else (*known, *verified[1:-1])
        for crl in (*crls, *_carried(bundle, crls, now_ms)):
            if any(issuer.subject == crl.issuer for issuer in known):
                check = revocation.check_signed if may_be_late else revocation.check_crl
                check(crl, known, "crl", now_ms)
                checked.append(crl)
            elif not any(issuer.subject == crl.issuer for issuer in named_by(bundles)):
                notes.append(
                    Finding(ATTENTION, f"the CRL of {revocation.issuer_name(crl)} has no issuer here: unused")
                )
        anchors = TrustAnchors(tuple(roots), CrlSet.choose(checked))
        if objection:
            notes.append(Finding(CRITICAL, f"this node's certificate no longer counts: {objection}"))
        else:
            anchors.check_not_revoked(verified)
        if not may_be_late:
            anchors.check_fresh(verified, now_ms)
        notes.extend(
            Finding(ATTENTION, f"root {root.subject.rfc4514_string()}: {chain_error(NO_CRL, root).text}")
            for root in roots
            if anchors.crls.of_issuer(root.subject) is None
        )
        sent = without_root(verified)
        if len(sent) > CHAIN_CERTIFICATES or sum(map(len, sent)) > CHAIN_BYTES:
            raise TrustError("E-CHAIN-22", "the certificate chain is too long for the protocol")
        signer = NodeSigner.make(key, leaf, names, sent)
        return cls(names, leaf, verified[1:-1], anchors, signer, key, tuple(notes), tuple(bundles))

    @property
    def bundle(self) -> Bundle | None:
        """The trust bundle in force."""
        return self.bundles[-1] if self.bundles else None

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """The roots in force."""
        return self.anchors.roots

    @property
    def known_issuers(self) -> tuple[x509.Certificate, ...]:
        """Every CA whose lists are kept: the roots, the issuing CAs of all bundles, and those of this node's chain."""
        return tuple(dict.fromkeys((*self.roots, *named_by(self.bundles), *self.issuers)))

    @property
    def crls(self) -> tuple[x509.CertificateRevocationList, ...]:
        """The CRLs in force, one per issuer."""
        return self.anchors.crls.crls

    @property
    def not_after_ms(self) -> int:
        """The end of this node's certificate."""
        return self.signer.not_after_ms

    @property
    def fingerprint(self) -> bytes:
        """One hash over everything in force: equal exactly when nothing changed."""
        parts = [*self.signer.chain]
        parts.extend(sorted(pem.certificate_der(root) for root in self.roots))
        parts.extend(sorted(crl.public_bytes(Encoding.DER) for crl in self.crls))
        parts.extend(bundle.body for bundle in self.bundles)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()

    def crl_age_s(self, now_ms: int) -> int:
        """Return the age of the oldest CRL in force."""
        dates = [revocation.milliseconds(crl.last_update_utc) for crl in self.crls]
        return max(0, now_ms - min(dates, default=now_ms)) // 1000

    def crl_numbers(self) -> dict[str, int]:
        """Return the number of the CRL in force of each issuer, by the issuer's name."""
        return {revocation.issuer_name(crl): revocation.number(crl) for crl in self.crls}

    def findings(self, now_ms: int) -> list[Finding]:
        """Say what will need attention: expiry at 30, 14 and 7 days, CRLs past their nextUpdate."""
        found = list(self.notes)
        found.extend(expiry("this node's certificate", self.leaf, now_ms))
        for issuer in self.issuers:
            found.extend(expiry(f"the issuing CA {issuer.subject.rfc4514_string()}", issuer, now_ms))
        for root in self.roots:
            found.extend(expiry(f"the root {root.subject.rfc4514_string()}", root, now_ms))
        if self.bundle is not None:
            end = datetime.fromtimestamp(self.bundle.not_after_ms / 1000, UTC)
            found.extend(end_of(f"trust bundle {self.bundle.version}", end, now_ms))
        for crl in self.crls:
            found.extend(crl_age(crl, now_ms))
        return found


def _read(
    directory: Path,
) -> tuple[
    ec.EllipticCurvePrivateKey,
    list[x509.Certificate],
    list[x509.Certificate],
    list[x509.CertificateRevocationList],
]:
    if not directory.is_dir():
        raise TrustError(
            "E-NOTFOUND", f"{directory} is not a folder", remedy="make it with trust-admin cert request"
        )
    key = keys.read_key(directory / KEY_FILE)
    chain = read_chain(directory / CHAIN_FILE)
    roots = read_roots(directory / ROOTS_FOLDER)
    crls = read_crls(directory / CRL_FOLDER)
    return key, chain, roots, crls


def read_chain(path: Path) -> list[x509.Certificate]:
    """
    Read the chain of a node, leaf first; it is not judged yet.

    Raises:
        TrustError: E-NOTFOUND, or as ``pem.certificates``.
    """
    if not path.exists():
        raise TrustError(
            "E-NOTFOUND", f"{path} does not exist", remedy="install the certificate: trust-admin cert install"
        )
    return pem.certificates(pem.read(path), str(path))


def read_roots(folder: Path) -> list[x509.Certificate]:
    """
    Read the roots of a folder; each must be a self-signed CA certificate.

    Raises:
        TrustError: E-NOTFOUND for a folder without roots, E-PROFILE for a file
            that holds anything else (an anchor that is not a CA would be trusted as itself).
    """
    roots = []
    for path in _files(folder, ROOT_SUFFIXES):
        for root in pem.certificates(pem.read(path), str(path)):
            try:
                profile.check_root(root)
            except TrustError as error:
                raise TrustError(error.code, error.text, str(path), "remove the file") from None
            roots.append(root)
    if not roots:
        raise TrustError(
            "E-NOTFOUND", f"{folder} holds no root certificate", remedy="install one: cert install --roots"
        )
    return roots


def read_crls(folder: Path) -> list[x509.CertificateRevocationList]:
    """
    Read the CRLs of a folder, PEM or DER; they are not checked yet.

    Raises:
        TrustError: E-CRL-MISSING for a folder without any, or as ``pem.revocation_lists``.
    """
    crls = [
        crl
        for path in _files(folder, CRL_SUFFIXES)
        for crl in pem.revocation_lists(pem.read(path), str(path))
    ]
    if not crls:
        raise TrustError(
            "E-CRL-MISSING",
            f"{folder} holds no CRL",
            remedy="without one nobody is let in: get it from the administrator",
        )
    return crls


def trust_files(directory: Path) -> list[Path]:
    """Return every file of a trust directory whose change is news for a daemon; none where it cannot be listed."""
    try:
        return [
            directory / KEY_FILE,
            directory / CHAIN_FILE,
            *_files(directory, (".rekey",)),
            *_files(directory / ROOTS_FOLDER, ROOT_SUFFIXES),
            *_files(directory / CRL_FOLDER, CRL_SUFFIXES),
            *_files(directory / RENEWALS_FOLDER, (".pem",)),
            *_files(directory / SEALED_FOLDER, (".sealed",)),
            *_files(directory / AUDIT_FOLDER, (".head",)),
            *_files(directory / SEAL_FOLDER, (".key",)),
            *bundle_files(directory),
        ]
    except OSError:
        return []


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix in suffixes and not path.name.startswith(".")
    )


def _check_pair(key: ec.EllipticCurvePrivateKey, leaf: x509.Certificate) -> None:
    ours = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        theirs = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:
        raise TrustError("E-KEYTYPE", f"the certificate's key cannot be read: {error}") from error
    if ours != theirs:
        shown = " / ".join(f"{hashlib.sha256(part).hexdigest()[:8]}.." for part in (ours, theirs))
        raise TrustError(
            "E-KEYPAIR",
            f"{KEY_FILE} does not belong to the certificate (SPKI {shown})",
            remedy="install the certificate that was approved for this key's request",
        )


def named_by(bundles: Sequence[Bundle]) -> tuple[x509.Certificate, ...]:
    """Return every CA that any version of the bundle names: of those that are over the lists are still passed on."""
    return tuple(
        dict.fromkeys(one for bundle in bundles for one in (*bundle.roots, *bundle.issuing_certificates))
    )


def _own_chain(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    bundles: Sequence[Bundle],
    now_ms: int,
    *,
    may_be_late: bool,
) -> tuple[tuple[x509.Certificate, ...], str]:
    try:
        chain = TrustAnchors(tuple(roots), CrlSet(())).chain_to_root(leaf, others, now_ms)
        check_issued(bundles[-1] if bundles else None, leaf)
    except TrustError as error:
        older = dict.fromkeys(root for one in bundles for root in one.roots)
        if not may_be_late or len(bundles) < 2:
            raise
        return TrustAnchors(tuple(older), CrlSet(())).chain_to_root(leaf, others, now_ms), error.text
    return chain, ""


def _differences(bundle: Bundle, roots: Sequence[x509.Certificate], federation: str) -> list[Finding]:
    if bundle.federation != federation:
        raise TrustError(
            "E-BUNDLE-FORM",
            f"the trust bundle is of federation {quoted(bundle.federation)}, not {quoted(federation)}",
        )
    if same_roots(bundle.roots, roots):
        return []
    return [
        Finding(
            ATTENTION, f"{ROOTS_FOLDER}/ is not what trust bundle {bundle.version} says: the bundle counts"
        )
    ]


def _carried(
    bundle: Bundle | None, held: Sequence[x509.CertificateRevocationList], now_ms: int
) -> list[x509.CertificateRevocationList]:
    """Return the CRLs a bundle brings that are better than nothing: of issuers of which none as new is held."""
    found = []
    for crl in bundle.crls if bundle else ():
        numbers = [revocation.number_or_zero(one) for one in held if one.issuer == crl.issuer]
        is_fresh = now_ms <= revocation.next_update_ms(crl) + revocation.STALE_GRACE_MS
        if is_fresh and revocation.number(crl) > max(numbers, default=0):
            found.append(crl)
    return found
