"""
Generations of roots and issuing CAs in an administration: their names, which one issues, what waits, what is over.

Files only: ``prepared/`` holds a generation until its bundle is signed, ``retired/`` what a bundle no longer names.
What a bundle says is bundle.py's, the steps of a rotation rotation.py's. Source: docs/trust.md, "Rotating a root".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509

from esgf_gossip.trust import bundle_files, keys, pem
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.bundle import AdminKey, Bundle, key_id, public_bytes
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import ISSUERS_FOLDER, public_folder, write_public
from esgf_gossip.trust.material import CRL_FOLDER, ROOTS_FOLDER

FIRST_ROOT: Final = "root-g1"
FIRST_ISSUING: Final = "issuing-g1"
PREPARED_FOLDER: Final = "prepared"
RETIRED_FOLDER: Final = "retired"
ACTIVE_FILE: Final = "active"

_GENERATION: Final = re.compile(r"(root|issuing)-g([0-9]{1,4})\.(pem|key)")
_NAME: Final = re.compile(r"issuing-g[0-9]{1,4}")


def active_issuing(directory: Path) -> str:
    """
    Name the issuing CA that signs node certificates now.

    Raises:
        TrustError: E-CONFIG: the file that says so was damaged; E-FILE.
    """
    path = directory / ISSUERS_FOLDER / ACTIVE_FILE
    if not path.exists():
        return FIRST_ISSUING
    name = pem.read(path).decode("ascii", "replace").strip()
    if not _NAME.fullmatch(name):
        raise TrustError("E-CONFIG", f"{path} names no issuing CA", remedy=f"write {FIRST_ISSUING} there")
    return name


def activate(directory: Path, name: str) -> None:
    """
    Let another issuing CA sign from now on.

    Raises:
        TrustError: E-NOTFOUND: it is not among those in force; E-FILE.
    """
    if name not in issuers(directory):
        raise TrustError(
            "E-NOTFOUND",
            f"no issuing CA {name} is in force",
            str(directory / ISSUERS_FOLDER),
            "see roots list",
        )
    write_public(directory / ISSUERS_FOLDER / ACTIVE_FILE, f"{name}\n".encode())


def issuers(directory: Path) -> dict[str, x509.Certificate]:
    """Return the issuing CAs of an administration by name, first generation first."""
    return _certificates(directory / ISSUERS_FOLDER)


def roots(directory: Path) -> dict[str, x509.Certificate]:
    """Return the roots of an administration by name, first generation first."""
    return _certificates(directory / ROOTS_FOLDER)


def root_of(directory: Path, issuing: str) -> str:
    """
    Name the root that signed an issuing CA.

    Raises:
        TrustError: E-NOTFOUND.
    """
    certificate = issuers(directory).get(issuing)
    for name, root in roots(directory).items():
        if certificate is not None and certificate.issuer == root.subject:
            return name
    raise TrustError("E-NOTFOUND", f"no root of issuing CA {issuing}", str(directory / ROOTS_FOLDER))


def next_number(directory: Path, private: Path, kind: str) -> int:
    """Return the first generation of ``root`` or ``issuing`` that has never been used."""
    used = [0]
    folders = (ROOTS_FOLDER, ISSUERS_FOLDER, PREPARED_FOLDER, RETIRED_FOLDER)
    for folder in (*(directory / name for name in folders), private):
        for path in folder.iterdir() if folder.is_dir() else ():
            match = _GENERATION.fullmatch(path.name)
            if match and match[1] == kind:
                used.append(int(match[2]))
    return max(used) + 1


def check_within(directory: Path, certificate: x509.Certificate) -> None:
    """
    Refuse a certificate that the newest bundle would not carry anywhere.

    Raises:
        TrustError: E-POLICY.
    """
    bundles = bundle_files.read_bundles(directory)
    check_issued(bundles[-1] if bundles else None, certificate)


def admin_keys(private: Path, passphrase: bytes | None) -> dict[bytes, AdminKey]:
    """
    Return the administrators' keys in a private folder, by the id bundles name them by.

    Raises:
        TrustError: as ``keys.read_key``.
    """
    found: dict[bytes, AdminKey] = {}
    for path in sorted(private.glob("admin-*.key")) if private.is_dir() else ():
        key = keys.read_key(path, passphrase)
        found[key_id(public_bytes(key))] = key
    return found


def settle(directory: Path, bundle: Bundle) -> None:
    """
    Move what a new bundle names out of ``prepared/``, and what it no longer names into ``retired/``.

    Raises:
        TrustError: E-FILE.
    """
    named = {pem.fingerprint(one) for one in (*bundle.roots, *bundle.issuing_certificates)}
    prepared = directory / PREPARED_FOLDER
    for name, certificate in _certificates(prepared).items():
        if pem.fingerprint(certificate) in named:
            folder = ROOTS_FOLDER if name.startswith("root") else ISSUERS_FOLDER
            # The CRL first: a CA without one lets nobody in.
            _move(prepared / f"{name}.crl.pem", directory / CRL_FOLDER)
            _move(prepared / f"{name}.pem", directory / folder)
    for folder in (ISSUERS_FOLDER, ROOTS_FOLDER):
        for name, certificate in _certificates(directory / folder).items():
            if pem.fingerprint(certificate) not in named:
                _move(directory / folder / f"{name}.pem", directory / RETIRED_FOLDER)
                _move(directory / CRL_FOLDER / f"{name}.crl.pem", directory / RETIRED_FOLDER)


def write_prepared(directory: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """
    Write certificates and CRLs of a generation that waits for its bundle.

    Raises:
        TrustError: E-FILE.
    """
    public_folder(directory / PREPARED_FOLDER)
    for name, content in files:
        write_public(directory / PREPARED_FOLDER / name, content)


def _certificates(folder: Path) -> dict[str, x509.Certificate]:
    paths = folder.glob("*-g*.pem") if folder.is_dir() else ()
    named = {path: _GENERATION.fullmatch(path.name) for path in paths}
    ordered = sorted((int(match[2]), path) for path, match in named.items() if match)
    return {path.stem: pem.certificate(pem.read(path), str(path)) for _, path in ordered}


def _move(path: Path, folder: Path) -> None:
    if path.exists():
        public_folder(folder)
        write_public(folder / path.name, pem.read(path))
        path.unlink()
