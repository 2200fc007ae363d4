"""
The administration of a federation's trust: folders, index, and what is signed.

One folder of public files (safe to publish, to keep in git) and one of private
keys. Writers hold a lock; index and log are on disk before a certificate is
handed out. The form of certificates is issue.py's, the commands are cli's.
Source: docs/trust.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from esgf_gossip.trust import bundle_files, bundle_rules, generations, issue, keys, pem, profile, revocation
from esgf_gossip.trust.audit import FILE_NAME as LOG_FILE
from esgf_gossip.trust.audit import AuditLog
from esgf_gossip.trust.bundle import Bundle
from esgf_gossip.trust.errors import TrustError, quoted
from esgf_gossip.trust.folders import (
    DENIED_FOLDER,
    ISSUED_FOLDER,
    ISSUERS_FOLDER,
    PENDING_FOLDER,
    POLICY_FILE,
    locked,
    write_public,
)
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.material import CRL_FOLDER, ROOTS_FOLDER, read_crls, read_roots
from esgf_gossip.trust.names import Names
from esgf_gossip.trust.policy import DAYS_DEFAULT, Policy
from esgf_gossip.trust.policy import load as load_policy
from esgf_gossip.trust.requests import Request, read_request, same_fingerprint

ROOT_NAME: Final = generations.FIRST_ROOT
ISSUING_NAME: Final = generations.FIRST_ISSUING

# More requests than that are not waiting for a person: somebody fills the folder.
PENDING_MAX: Final = 100


@attrs.frozen
class ApprovedCertificate:
    """A certificate that was just signed, and what goes back to the node."""

    names: Names
    serial: int
    chain_pem: bytes
    bundle_pem: bytes
    bundle_path: Path
    not_after_ms: int


@attrs.frozen
class Authority:
    """The administration in one pair of folders."""

    directory: Path
    private: Path
    policy: Policy
    _signing: CertificateAuthority | None = attrs.field(default=None, eq=False, repr=False)
    _others: tuple[CertificateAuthority, ...] = attrs.field(default=(), eq=False, repr=False)

    @classmethod
    def open(cls, directory: Path, private: Path) -> Authority:
        """
        Open an administration without its keys.

        Raises:
            TrustError: E-NOTFOUND, E-CONFIG.
        """
        if not (directory / POLICY_FILE).exists():
            raise TrustError(
                "E-NOTFOUND", f"{directory} is no trust administration", remedy="trust-admin init makes one"
            )
        return cls(directory, private, load_policy(directory / POLICY_FILE))

    def unlocked(self, passphrase: bytes | None) -> Authority:
        """
        Return the same administration with the key of its issuing CA, and of those before it that are still trusted.

        Raises:
            TrustError: E-PASSPHRASE, or as ``keys.read_key``; E-KEYPAIR.
        """
        active = generations.active_issuing(self.directory)
        others = tuple(
            self._read_ca(ISSUERS_FOLDER, name, passphrase)
            for name in generations.issuers(self.directory)
            if name != active and (self.private / f"{name}.key").exists()
        )
        signing = self._read_ca(ISSUERS_FOLDER, active, passphrase)
        return attrs.evolve(self, signing=signing, others=others)

    @property
    def issuing(self) -> CertificateAuthority:
        """
        The issuing CA with its key, once unlocked.

        Raises:
            TrustError: E-PASSPHRASE.
        """
        if self._signing is None:
            raise TrustError("E-PASSPHRASE", "the key of the issuing CA is locked")
        return self._signing

    @property
    def signers(self) -> tuple[CertificateAuthority, ...]:
        """
        The issuing CAs with their keys, the one in use first, once unlocked.

        Raises:
            TrustError: E-PASSPHRASE.
        """
        return (self.issuing, *self._others)

    def root(self, passphrase: bytes | None, name: str = "") -> CertificateAuthority:
        """
        Return a root with its key; without a name that of the issuing CA in use.

        Raises:
            TrustError: as ``unlocked``; E-NOTFOUND where its key is kept offline.
        """
        return self._read_ca(ROOTS_FOLDER, name or self.root_name, passphrase)

    @property
    def issuing_name(self) -> str:
        """The name of the issuing CA in use, as its files have it."""
        return generations.active_issuing(self.directory)

    @property
    def root_name(self) -> str:
        """The name of its root."""
        return generations.root_of(self.directory, self.issuing_name)

    @property
    def issuing_certificate(self) -> x509.Certificate:
        """The certificate of the issuing CA in use."""
        path = self.directory / ISSUERS_FOLDER / f"{self.issuing_name}.pem"
        return pem.certificate(pem.read(path), str(path))

    @property
    def log(self) -> AuditLog:
        """The audit log."""
        return AuditLog(self.directory / LOG_FILE)

    def roots(self) -> list[x509.Certificate]:
        """Return the roots, that of the issuing CA in use first."""
        issuer = self.issuing_certificate.issuer
        return sorted(read_roots(self.directory / ROOTS_FOLDER), key=lambda root: root.subject != issuer)

    def bundles(self) -> tuple[Bundle, ...]:
        """
        Return all versions of the trust bundle, the newest last; none in a federation founded without.

        Raises:
            TrustError: as ``bundle_files.read_bundles``.
        """
        return bundle_files.read_bundles(self.directory)

    def crls(self) -> list[x509.CertificateRevocationList]:
        """Return the CRLs."""
        return read_crls(self.directory / CRL_FOLDER)

    # ----------------------------------------------------------------- requests

    def import_request(self, content: bytes, where: str, now_ms: int) -> Request:
        """
        Put a request among the pending; one that is there already stays as it is.

        Raises:
            TrustError: as ``read_request``; E-POLICY for another federation; E-DUPLICATE when full.
        """
        request = read_request(content, where)
        if request.names.federation != self.policy.federation:
            raise TrustError("E-POLICY", self.policy.objections(request.names, 1)[0], where)
        with self._locked():
            path = self._pending_path(request.request_id)
            if not path.exists():
                if len(list(path.parent.glob("*.csr.pem"))) >= PENDING_MAX:
                    raise TrustError(
                        "E-DUPLICATE", f"{PENDING_MAX} requests are pending", remedy="approve or deny some"
                    )
                write_public(path, pem.request_pem(request.csr))
                self.log.append(now_ms, "import", _about(request))
        return request

    def pending(self) -> list[Request]:
        """Return the pending requests, by node."""
        folder = self.directory / PENDING_FOLDER
        return [read_request(pem.read(path), str(path)) for path in sorted(folder.glob("*.csr.pem"))]

    def pending_request(self, request_id: str) -> Request:
        """
        Find a pending request by its id, its node's name or a beginning of its fingerprint.

        Raises:
            TrustError: E-NOTFOUND for none or several.
        """
        found = [
            request
            for request in self.pending()
            if request_id in (request.request_id, request.names.host)
            or (len(request_id) >= 8 and request.fingerprint.startswith(request_id.lower()))
        ]
        if len(found) != 1:
            raise TrustError(
                "E-NOTFOUND",
                f"{len(found)} pending requests are called {request_id!r}",
                str(self.directory / PENDING_FOLDER),
                "see trust-admin cert pending",
            )
        return found[0]

    def deny(self, request_id: str, reason: str, now_ms: int) -> Request:
        """
        Move a request to the denied.

        Raises:
            TrustError: E-NOTFOUND.
        """
        with self._locked():
            request = self.pending_request(request_id)
            self.log.append(now_ms, "deny", {**_about(request), "reason": reason})
            target = self.directory / DENIED_FOLDER / f"{request.request_id}.csr.pem"
            write_public(target, pem.request_pem(request.csr))
            self._pending_path(request.request_id).unlink(missing_ok=True)
        return request

    # ----------------------------------------------------------------- certificates

    def check_request(
        self, csr_pem: bytes, *, fingerprint: str, days: int = DAYS_DEFAULT, drop_names: Collection[str] = ()
    ) -> tuple[Request, Names]:
        """
        Judge a request without signing anything, and return it with the names to grant.

        Raises:
            TrustError: E-FPR, E-POLICY, or as ``read_request``.
        """
        request = read_request(csr_pem, "request")
        if not same_fingerprint(fingerprint, request.fingerprint):
            raise TrustError(
                "E-FPR",
                f"you gave {fingerprint[:12]}.., the request is {request.fingerprint[:12]}..",
                remedy="do not approve, ask the node's admin again",
            )
        return request, self.policy.grant(request.names, days, drop_names)

    def approve(
        self,
        csr_pem: bytes,
        *,
        fingerprint: str,
        now_ms: int,
        days: int = DAYS_DEFAULT,
        drop_names: Collection[str] = (),
        replace: bool = False,
    ) -> ApprovedCertificate:
        """
        Sign the certificate of a node.

        Args:
            csr_pem: the request.
            fingerprint: what the node's administrator told by another way, hex or words.
            now_ms: now.
            days: life of the certificate, within the policy.
            drop_names: requested names not to grant.
            replace: allow another key for a node that has a valid certificate.

        Raises:
            TrustError: E-FPR, E-POLICY, E-DUPLICATE, or as ``read_request``; nothing was signed.
        """
        request, granted = self.check_request(
            csr_pem, fingerprint=fingerprint, days=days, drop_names=drop_names
        )
        with self._locked():
            self._refuse_key(request, granted, now_ms, replace=replace)
            approved = self._sign(granted, request.public_key, now_ms, days, "approve", _about(request))
            self._pending_path(request.request_id).unlink(missing_ok=True)
        return approved

    def reissue(self, host: str, *, now_ms: int, days: int = DAYS_DEFAULT) -> ApprovedCertificate:
        """
        Sign a new certificate for the key and the names that a node is certified for; nobody need ask for it.

        Raises:
            TrustError: E-NOTFOUND: it has none; E-POLICY: revoked or expired (that is no renewal any more), or
                its names are not granted any longer; nothing was signed.
        """
        with self._locked():
            found = [one for one in self.issued() if profile.leaf_names(one).host == host]
            if not found:
                raise TrustError(
                    "E-NOTFOUND", f"no certificate of {quoted(host)} was issued here", remedy="see cert list"
                )
            newest = found[-1]
            if newest.serial_number in self.revoked_serials():
                raise TrustError("E-POLICY", f"the certificate of {host} is revoked: it must ask anew")
            if revocation.milliseconds(newest.not_valid_after_utc) < now_ms:
                raise TrustError("E-POLICY", f"the certificate of {host} has expired: it must ask anew")
            granted = self.policy.grant(profile.leaf_names(newest), days)
            key = newest.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)  # the profile allows no other
            return self._sign(granted, key, now_ms, days, "reissue", {"node": host})

    def rekey(self, request: Request, *, now_ms: int, days: int = DAYS_DEFAULT) -> ApprovedCertificate:
        """
        Sign the certificate for a node's new key, of a request that passed ``rekey.check``.

        Raises:
            TrustError: E-POLICY: the key was revoked, or the names are not granted any longer; E-DUPLICATE: the
                key is another node's; nothing was signed.
        """
        with self._locked():
            granted = self.policy.grant(request.names, days)
            self._refuse_key(request, granted, now_ms, replace=True)
            return self._sign(granted, request.public_key, now_ms, days, "rekey", _about(request))

    def is_certified(self, request: Request) -> bool:
        """Tell whether a certificate for the key of a request was issued."""
        ours = _spki(request.public_key)
        return any(_spki(one.public_key()) == ours for one in self.issued())

    def _sign(
        self,
        granted: Names,
        key: ec.EllipticCurvePublicKey,
        now_ms: int,
        days: int,
        event: str,
        about: dict[str, object],
    ) -> ApprovedCertificate:
        ca = self.issuing
        starts = [
            one.not_valid_before_utc for one in self.issued() if profile.leaf_names(one).host == granted.host
        ]
        certificate = issue.leaf(granted, key, ca, now_ms, days, after=max(starts, default=None))
        # What we sign must pass our own check; a fault here must not leave this host.
        profile.leaf_names(certificate, self.policy.federation)
        generations.check_within(self.directory, certificate)
        chain_pem = pem.certificate_pem(certificate) + pem.certificate_pem(ca.certificate)
        bundle_pem = b"".join(
            [
                chain_pem,
                *map(pem.certificate_pem, self.roots()),
                *map(pem.crl_pem, self.crls()),
                bundle_files.blocks(bundle_rules.for_new_nodes(self.bundles())),
            ]
        )
        serial = certificate.serial_number
        names = [*granted.dns, *granted.uris]
        folder = self.directory / ISSUED_FOLDER
        self.log.append(now_ms, event, {**about, "serial": f"{serial:x}", "names": names, "days": days})
        write_public(folder / f"{serial:x}.pem", pem.certificate_pem(certificate))
        bundle_path = folder / f"{granted.host}.bundle.pem"
        write_public(bundle_path, bundle_pem)
        return ApprovedCertificate(
            granted,
            serial,
            chain_pem,
            bundle_pem,
            bundle_path,
            revocation.milliseconds(certificate.not_valid_after_utc),
        )

    def issued(self) -> list[x509.Certificate]:
        """Return all certificates that were issued, oldest first."""
        folder = self.directory / ISSUED_FOLDER
        found = [
            pem.certificate(pem.read(path), str(path))
            for path in folder.glob("*.pem")
            if not path.name.endswith(".bundle.pem")
        ]
        return sorted(found, key=lambda one: (one.not_valid_before_utc, one.serial_number))

    def revoked_serials(self) -> frozenset[int]:
        """Return the serial numbers on all CRLs: they are random, no two CAs use one."""
        return frozenset().union(*map(revocation.serials, revocation.CrlSet.choose(self.crls()).crls))

    def _refuse_key(self, request: Request, granted: Names, now_ms: int, *, replace: bool) -> None:
        revoked = self.revoked_serials()
        ours = _spki(request.public_key)
        for certificate in self.issued():
            same_key = _spki(certificate.public_key()) == ours
            if certificate.serial_number in revoked:
                if same_key:
                    raise TrustError(
                        "E-POLICY",
                        f"this key was revoked with certificate {certificate.serial_number:x}",
                        remedy="the node must make a new key",
                    )
                continue
            if revocation.milliseconds(certificate.not_valid_after_utc) < now_ms:
                continue
            host = profile.leaf_names(certificate).host
            if same_key and host != granted.host:
                raise TrustError(
                    "E-DUPLICATE",
                    f"this key is certified for {host}",
                    remedy="each node has a key of its own",
                )
            if host == granted.host and not same_key and not replace:
                raise TrustError(
                    "E-DUPLICATE",
                    f"{host} has a certificate for another key until {certificate.not_valid_after_utc:%Y-%m-%d}",
                    f"serial {certificate.serial_number:x}",
                    "is it really the same node with a new key? then approve with --replace",
                )

    def _read_ca(self, folder: str, name: str, passphrase: bytes | None) -> CertificateAuthority:
        path = self.directory / folder / f"{name}.pem"
        certificate = pem.certificate(pem.read(path), str(path))
        key = keys.read_ca_key(self.private / f"{name}.key", certificate, passphrase)
        return CertificateAuthority(certificate, key)

    def _pending_path(self, request_id: str) -> Path:
        return self.directory / PENDING_FOLDER / f"{request_id}.csr.pem"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(self.directory):
            yield


def _about(request: Request) -> dict[str, object]:
    return {"id": request.request_id, "node": request.names.host, "fingerprint": request.fingerprint}


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
