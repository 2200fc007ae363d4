"""
What ``trust-admin check`` looks at: files and their modes, ends of certificates, CRLs, the log, the clock.

Reads only. One line per finding; whether the daemon agrees is asked elsewhere. Source: docs/trust.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from esgf_gossip.trust import bundle_files, generations, issue, pem, profile, revocation, rotation
from esgf_gossip.trust import findings as words
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.findings import ATTENTION, CRITICAL, Finding
from esgf_gossip.trust.material import KEY_FILE, SEAL_FOLDER, TrustMaterial
from esgf_gossip.trust.renewal import RENEWAL_KEY_FILE, RETIRED_FOLDER, is_due
from esgf_gossip.trust.secret_store import SECRETS_FOLDER

# Signing with a clock that is further behind than what was signed last would date new things before old ones.
CLOCK_BEHIND_MS: Final = 300 * 1000
_DAY_MS: Final = 24 * 3600 * 1000


def check_node(
    directory: Path, host: str, federation: str, now_ms: int, expires_in_days: int
) -> Iterator[Finding]:
    """Look at the trust directory of a node, as its daemon would, and at the rights of every private file."""
    yield from _private_files(
        [
            directory / KEY_FILE,
            directory / RENEWAL_KEY_FILE,
            *(
                path
                for folder in (SEAL_FOLDER, RETIRED_FOLDER, SECRETS_FOLDER)
                for path in _files(directory / folder)
            ),
        ]
    )
    try:
        material = TrustMaterial.load(directory, host=host, federation=federation, now_ms=now_ms)
    except TrustError as error:
        yield Finding(CRITICAL, str(error))
        return
    yield from material.findings(now_ms)
    yield from _ends_within("this node's certificate", material.leaf, now_ms, expires_in_days)


def check_administration(authority: Authority, now_ms: int, expires_in_days: int) -> Iterator[Finding]:
    """Look at an administration: keys, CRLs, what was issued and ends soon, the audit log, the clock."""
    yield from _private_files(_files(authority.private))
    behind_ms = clock_behind_ms(authority, now_ms)
    if behind_ms > CLOCK_BEHIND_MS:
        yield Finding(
            ATTENTION, f"this host's clock is {behind_ms // 1000} s behind the last line of the audit log"
        )
    try:
        authority.log.verify()
    except TrustError as error:
        yield Finding(CRITICAL, str(error))
    try:
        for root in authority.roots():
            yield from words.expiry(f"the root {root.subject.rfc4514_string()}", root, now_ms)
        for issuing in generations.issuers(authority.directory).values():
            yield from words.expiry(f"the issuing CA {issuing.subject.rfc4514_string()}", issuing, now_ms)
        yield from _bundles(authority, now_ms)
        for crl in revocation.CrlSet.choose(authority.crls()).crls:
            yield from words.crl_age(crl, now_ms)
        yield from _issued(authority, now_ms, expires_in_days)
        for path in sorted((authority.directory / "pending").glob("*.csr.pem")):
            yield Finding(ATTENTION, f"a request waits: {path.name}; see cert pending")
    except TrustError as error:
        yield Finding(CRITICAL, str(error))


def _bundles(authority: Authority, now_ms: int) -> Iterator[Finding]:
    bundles = authority.bundles()
    if not bundles:
        yield Finding(ATTENTION, "this federation has no trust bundle; make one: roots adopt")
        return
    newest = bundles[-1]
    yield from words.end_of(f"trust bundle {newest.version}", issue.moment(newest.not_after_ms), now_ms)
    draft = rotation.draft_of(authority)
    if draft is not None:
        yield Finding(ATTENTION, f"{draft.name} waits for signatures: roots sign, then roots import")
    named = set(newest.roots) | set(newest.issuing_certificates)
    held = {
        *generations.roots(authority.directory).values(),
        *generations.issuers(authority.directory).values(),
    }
    if named != held:
        path = authority.directory / bundle_files.BUNDLE_FOLDER / bundle_files.file_name(newest.version)
        yield Finding(
            CRITICAL,
            f"roots/ and issuers/ are not what trust bundle {newest.version} says; roots import {path}",
        )


def clock_behind_ms(authority: Authority, now_ms: int) -> int:
    """Return how far the clock is behind what the audit log says was done last; 0 where it is not."""
    try:
        records = authority.log.records()
    except TrustError:
        return 0  # log verify says what is wrong with it
    if not records:
        return 0
    try:
        last = datetime.fromisoformat(str(records[-1].get("at")))
    except ValueError:
        return 0
    return max(0, revocation.milliseconds(last) - now_ms)


def _issued(authority: Authority, now_ms: int, expires_in_days: int) -> Iterator[Finding]:
    revoked = authority.revoked_serials()
    newest: dict[str, pem.Certificate] = {}
    for one in authority.issued():
        host = profile.leaf_names(one).host
        if one.serial_number in revoked:
            newest.pop(host, None)
        else:
            newest[host] = one
    for host, one in sorted(newest.items()):
        end_ms = revocation.milliseconds(one.not_valid_after_utc)
        if end_ms < now_ms:
            yield Finding(ATTENTION, f"the certificate of {host} has expired: it must ask anew, or is gone")
        elif end_ms - now_ms < expires_in_days * _DAY_MS or is_due(one, now_ms):
            when = f"{one.not_valid_after_utc:%Y-%m-%d}"
            yield Finding(ATTENTION, f"the certificate of {host} ends on {when}: cert reissue {host}")


def _ends_within(what: str, certificate: pem.Certificate, now_ms: int, days: int) -> Iterator[Finding]:
    left_ms = revocation.milliseconds(certificate.not_valid_after_utc) - now_ms
    if 30 * _DAY_MS <= left_ms < days * _DAY_MS:
        yield Finding(ATTENTION, f"{what} ends on {certificate.not_valid_after_utc:%Y-%m-%d}")


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.is_dir()) if folder.is_dir() else []
    except OSError:
        return []


def _private_files(paths: list[Path]) -> Iterator[Finding]:
    folders = {}
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue  # missing is said by whoever needs it
        folders[path.parent] = path.parent.stat()
        if stat.S_ISLNK(status.st_mode):
            yield Finding(CRITICAL, f"{path} is a symbolic link; put the file itself there")
        elif stat.S_IMODE(status.st_mode) & 0o077:
            yield Finding(
                CRITICAL, f"{path} is {stat.S_IMODE(status.st_mode):04o}, must be 0600; chmod 600 {path}"
            )
        elif status.st_uid not in (0, os.geteuid()):
            yield Finding(CRITICAL, f"{path} belongs to user {status.st_uid}; chown it, or run as that user")
    for folder, status in folders.items():
        if stat.S_IMODE(status.st_mode) & 0o022:
            yield Finding(CRITICAL, f"{folder} can be written by others; chmod go-w {folder}")
