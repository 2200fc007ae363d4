"""
How a federation begins: its root, its issuing CA, a first CRL of each, policy, log.

Once in the life of a federation; everything later is authority.py's.
Source: docs/trust.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.files import create_file
from esgf_gossip.trust import bundle_files, issue, keys, names, pem, rotation
from esgf_gossip.trust.audit import FILE_NAME as LOG_FILE
from esgf_gossip.trust.audit import AuditLog
from esgf_gossip.trust.authority import ISSUING_NAME, ROOT_NAME, Authority
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import (
    DENIED_FOLDER,
    ISSUED_FOLDER,
    ISSUERS_FOLDER,
    PENDING_FOLDER,
    POLICY_FILE,
    locked,
    public_folder,
)
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.material import CRL_FOLDER, ROOTS_FOLDER
from esgf_gossip.trust.policy import FIRST_GROUPS, Policy, template

ROOT_DAYS: Final = 3650
ISSUER_DAYS: Final = 730

_IGNORE: Final = "/private/\n/secrets/\n*.key\n.lock\n"


def create_authority(
    directory: Path,
    private: Path,
    federation: str,
    now_ms: int,
    passphrase: bytes | None,
    *,
    root_days: int = ROOT_DAYS,
    issuer_days: int = ISSUER_DAYS,
    admin_keys: int = 1,
    threshold: int = 1,
    groups: Sequence[str] = FIRST_GROUPS,
    roles: Sequence[str] = (),
) -> Authority:
    """
    Found a federation: root, issuing CA, a first CRL of each, trust bundle 1, policy, log.

    Args:
        directory: the public folder; made if needed, may hold other files.
        private: the folder of the two keys (0700).
        federation: a DNS name.
        now_ms: now.
        passphrase: encrypts both keys; None: they are not encrypted.
        root_days: life of the root.
        issuer_days: life of the issuing CA.
        admin_keys: how many administrators' keys to make, in ``private`` too; 0: a federation without a trust bundle.
        threshold: how many of them must sign a change of roots.
        groups: what the first policy allows to certify; the first is for requests that name none.
        roles: what roles it allows.

    Raises:
        TrustError: E-NAME, E-EXISTS, E-GIT, E-FILE, E-PASSPHRASE. Nothing that exists is
            changed; after E-FILE some new files may be there.
    """
    names.check_dns(federation)
    for group in groups:
        names.check_name("group", group)
    for role in roles:
        names.check_name("role", role)
    if not 1 <= issuer_days <= root_days <= 36500:
        raise TrustError(
            "E-USAGE", "the root must live at least as long as the issuing CA, at most 100 years"
        )
    rotation.check_threshold(admin_keys, threshold)
    for path in (
        directory / POLICY_FILE,
        directory / LOG_FILE,
        directory / ROOTS_FOLDER,
        directory / ISSUERS_FOLDER,
        directory / bundle_files.BUNDLE_FOLDER,
    ):
        if os.path.lexists(path):
            raise TrustError(
                "E-EXISTS", f"{path} exists", remedy="name another folder; an administration is made once"
            )
    admins = [f"admin-{number}" for number in range(1, admin_keys + 1)]
    for name in (ROOT_NAME, ISSUING_NAME, *admins):
        keys.refuse_existing(private / f"{name}.key")
    root_key, issuing_key = keys.new_key(), keys.new_key()
    root = CertificateAuthority(issue.root(federation, root_key, now_ms, root_days), root_key)
    issuing_certificate = issue.issuing_ca(federation, issuing_key, root, now_ms, issuer_days)
    issuing = CertificateAuthority(issuing_certificate, issuing_key)
    try:
        public_folder(directory)
        # Before the keys: it is what makes git ignore a private/ in this folder.
        if not (directory / ".gitignore").exists():
            create_file(directory / ".gitignore", _IGNORE.encode(), 0o644)
        for name in (ROOT_NAME, ISSUING_NAME):
            keys.refuse_git(private / f"{name}.key")
        for folder in (
            ROOTS_FOLDER,
            ISSUERS_FOLDER,
            CRL_FOLDER,
            ISSUED_FOLDER,
            PENDING_FOLDER,
            DENIED_FOLDER,
        ):
            public_folder(directory / folder)
        # Keys first: a certificate without its key is of no use to anybody.
        keys.write_key(private / f"{ROOT_NAME}.key", root_key, passphrase)
        keys.write_key(private / f"{ISSUING_NAME}.key", issuing_key, passphrase)
        for name, content in {
            f"{ROOTS_FOLDER}/{ROOT_NAME}.pem": pem.certificate_pem(root.certificate),
            f"{ISSUERS_FOLDER}/{ISSUING_NAME}.pem": pem.certificate_pem(issuing_certificate),
            f"{CRL_FOLDER}/{ROOT_NAME}.crl.pem": pem.crl_pem(
                issue.crl(root, 1, {}, now_ms, issue.ROOT_CRL_DAYS)
            ),
            f"{CRL_FOLDER}/{ISSUING_NAME}.crl.pem": pem.crl_pem(
                issue.crl(issuing, 1, {}, now_ms, issue.CRL_DAYS)
            ),
        }.items():
            create_file(directory / name, content, 0o644)
        details = {"federation": federation, "root_sha256": pem.fingerprint(root.certificate)}
        made = attrs.evolve(
            Authority(directory, private, Policy(federation, groups=tuple(groups), roles=tuple(roles))),
            signing=issuing,
        )
        if admin_keys:
            first = rotation.found(made, root, admin_keys, threshold, passphrase, now_ms)
            details["bundle_sha256"] = first.bundle.fingerprint
        with locked(directory):
            AuditLog(directory / LOG_FILE).append(now_ms, "init", details)
        # Last: a folder with a policy is a complete administration.
        create_file(directory / POLICY_FILE, template(federation, groups, roles).encode(), 0o644)
    except OSError as error:
        raise TrustError(
            "E-FILE", f"{error.filename or directory} cannot be written: {error.strerror}"
        ) from None
    return made
