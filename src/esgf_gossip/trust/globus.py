"""
Hashed folders of CAs, as Globus, grid tools and ``openssl -CApath`` read them: written whole, read with doubt.

``<hash>.0`` is a certificate, ``<hash>.r0`` its CRL, ``<hash>.signing_policy`` what it may sign; the hash comes in a new
form and in that of OpenSSL 0.9. Nothing read here is trusted by that. Source: docs/trust.md, "Globus folders".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from OpenSSL.crypto import X509

from esgf_gossip.trust import pem, profile, revocation
from esgf_gossip.trust.bundle import IssuerPolicy
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked, public_folder, write_public

# Which files of the folder are ours: those of other CAs beside them are never touched.
MANIFEST: Final = ".esgf-gossip-exported"

_OURS: Final = re.compile(r"[0-9a-f]{8}\.(r?[0-9]{1,3}|signing_policy)")
_CERTIFICATE: Final = re.compile(r"([0-9a-f]{8})\.[0-9]")
_QUOTED: Final = re.compile(r'"([^"]*)"')
_SUBJECTS_MOST: Final = 256


@attrs.frozen
class ForeignCa:
    """A CA that a hashed folder holds: ``subjects`` are the patterns it may sign by its policy file, none without one."""

    file: str
    certificate: x509.Certificate
    crl: x509.CertificateRevocationList | None
    subjects: tuple[str, ...]


@attrs.frozen
class Exported:
    """What an export wrote, and which files of an earlier one it removed."""

    written: tuple[str, ...]
    removed: tuple[str, ...]


def hashes_of(certificate: x509.Certificate) -> tuple[str, str]:
    """Return the hash of a CA's name in its new form and in its old one."""
    new = X509.from_cryptography(certificate).subject_name_hash()
    old = int.from_bytes(
        hashlib.md5(certificate.subject.public_bytes(), usedforsecurity=False).digest()[:4], "little"
    )
    return f"{new:08x}", f"{old:08x}"


def export(
    folder: Path,
    cas: Sequence[tuple[x509.Certificate, IssuerPolicy | None]],
    crls: Iterable[x509.CertificateRevocationList],
) -> Exported:
    """
    Write a hashed folder: certificate, CRL and signing policy of each CA, in both forms of the hash.

    Args:
        folder: made if needed; files of other CAs in it stay, those of an earlier export that are over go.
        cas: roots (None) and issuing CAs with their bounds.
        crls: theirs.

    Raises:
        TrustError: E-FILE; what was written before is listed, the next export cleans it up.
    """
    held = revocation.CrlSet.choose(crls)
    try:
        public_folder(folder)
        with locked(folder):
            ours = _listed(folder)
            files = _plan(folder, ours, cas, held)
            _write_manifest(folder, ours | set(files))
            for name, content in files.items():
                write_public(folder / name, content)
            over = sorted(ours - set(files))
            for name in over:
                (folder / name).unlink(missing_ok=True)
            _write_manifest(folder, set(files))
    except OSError as error:
        raise TrustError(
            "E-FILE", f"{error.filename or folder} cannot be written: {error.strerror}"
        ) from None
    return Exported(tuple(sorted(files)), tuple(over))


def read(folder: Path) -> tuple[list[ForeignCa], list[tuple[str, str]]]:
    """
    Read a hashed folder: the roots in it that are sound, and each file that is not, with the reason.

    Raises:
        TrustError: E-NOTFOUND: it is no folder.
    """
    if not folder.is_dir():
        raise TrustError("E-NOTFOUND", f"{folder} is not a folder")
    taken: dict[str, ForeignCa] = {}
    skipped: list[tuple[str, str]] = []
    for path in sorted(folder.iterdir()):
        match = _CERTIFICATE.fullmatch(path.name)
        if match is None:
            if not re.fullmatch(r"[0-9a-f]{8}\.(r[0-9]|signing_policy|namespaces)|\..*", path.name):
                skipped.append((path.name, "not a file of a hashed folder"))
            continue
        try:
            certificate = _root(folder, path, match[1])
        except TrustError as error:
            skipped.append((path.name, error.text))
            continue
        known = taken.get(pem.fingerprint(certificate))
        if known is not None:
            continue
        crl = _crl(folder, match[1], certificate, skipped)
        taken[pem.fingerprint(certificate)] = ForeignCa(
            path.name, certificate, crl, _subjects(folder, match[1], certificate, skipped)
        )
    return list(taken.values()), skipped


def slashed(name: x509.Name) -> str:
    """Write a name as grid tools do: /O=a/CN=b."""
    return "".join(f"/{one.rfc4514_attribute_name}={_text(one.value)}" for one in name)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _plan(
    folder: Path,
    ours: set[str],
    cas: Sequence[tuple[x509.Certificate, IssuerPolicy | None]],
    held: revocation.CrlSet,
) -> dict[str, bytes]:
    foreign = {path.name for path in folder.iterdir() if _OURS.fullmatch(path.name)} - ours
    files: dict[str, bytes] = {}
    for certificate, policy in cas:
        crl = held.of_issuer(certificate.subject)
        for hashed in dict.fromkeys(hashes_of(certificate)):
            _add(files, foreign, hashed + ".", pem.certificate_pem(certificate))
            if crl is not None:
                _add(files, foreign, hashed + ".r", pem.crl_pem(crl))
            name = f"{hashed}.signing_policy"
            if name not in foreign:
                files[name] = files.get(name, b"") + _signing_policy(certificate, policy)
    return files


def _add(files: dict[str, bytes], foreign: set[str], stem: str, content: bytes) -> None:
    number = 0
    while f"{stem}{number}" in foreign or f"{stem}{number}" in files:
        number += 1
    files[f"{stem}{number}"] = content


def _signing_policy(certificate: x509.Certificate, policy: IssuerPolicy | None) -> bytes:
    if policy is None:
        # A root signs the issuing CAs of its organization, nothing else.
        organization = [
            one.value for one in certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        ]
        subjects = [f"/O={_text(one)}/CN=*" for one in organization] or [slashed(certificate.subject)]
    else:
        subjects = [f"/CN={'*' if one.startswith('.') else ''}{one}" for one in policy.dns_suffixes] or [
            "/CN=*"
        ]
    listed = " ".join(f'"{one}"' for one in subjects)
    return (
        f"access_id_CA   X509    '{slashed(certificate.subject)}'\n"
        f"pos_rights     globus  CA:sign\n"
        f"cond_subjects  globus  '{listed}'\n\n"
    ).encode()


def _listed(folder: Path) -> set[str]:
    path = folder / MANIFEST
    if not path.exists():
        return set()
    return {name for name in pem.read(path).decode("ascii", "replace").split() if _OURS.fullmatch(name)}


def _write_manifest(folder: Path, names: set[str]) -> None:
    write_public(folder / MANIFEST, "".join(f"{name}\n" for name in sorted(names)).encode())


def _root(folder: Path, path: Path, hashed: str) -> x509.Certificate:
    certificate = pem.certificate(_inside(folder, path), path.name)
    profile.check_root(certificate)
    if hashed not in hashes_of(certificate):
        raise TrustError("E-PROFILE", f"its name hashes to {' or '.join(hashes_of(certificate))}")
    return certificate


def _inside(folder: Path, path: Path) -> bytes:
    """Read a file of the folder; a link may lead to another file of it, nowhere else."""
    try:
        real = path.resolve(strict=True)
    except OSError:
        raise TrustError("E-LINK", "a link that leads nowhere") from None
    if real.parent != folder.resolve():
        raise TrustError("E-LINK", "a link that leads out of the folder")
    return pem.read(real)


def _crl(
    folder: Path, hashed: str, issuer: x509.Certificate, skipped: list[tuple[str, str]]
) -> x509.CertificateRevocationList | None:
    found = []
    for path in sorted(folder.glob(f"{hashed}.r[0-9]")):
        try:
            for crl in pem.revocation_lists(_inside(folder, path), path.name):
                # Its age is for who uses it: a CRL of yesterday is better known than not.
                revocation.check_signed(
                    crl, [issuer], path.name, revocation.milliseconds(crl.last_update_utc)
                )
                found.append(crl)
        except TrustError as error:
            reason = error.text
            if any(
                isinstance(one.value, x509.IssuingDistributionPoint) for one in crl_extensions(folder, path)
            ):
                reason += "; with openssl it fails with error 44 unless certificates name the same distribution point"
            skipped.append((path.name, reason))
    return max(found, key=revocation.number, default=None)


def crl_extensions(folder: Path, path: Path) -> list[x509.Extension[x509.ExtensionType]]:
    """Return the extensions of the first CRL of a file, none where it cannot be read."""
    try:
        return list(pem.revocation_lists(_inside(folder, path), path.name)[0].extensions)
    except Exception:  # noqa: BLE001 - it was refused already, this only explains
        return []


def _subjects(
    folder: Path, hashed: str, issuer: x509.Certificate, skipped: list[tuple[str, str]]
) -> tuple[str, ...]:
    found: list[str] = []
    for suffix, read_policy in (("signing_policy", _from_policy), ("namespaces", _from_namespaces)):
        path = folder / f"{hashed}.{suffix}"
        if not path.exists() and not path.is_symlink():
            continue
        try:
            found += read_policy(_inside(folder, path).decode("utf-8", "replace"), slashed(issuer.subject))
        except TrustError as error:
            skipped.append((path.name, error.text))
    return tuple(dict.fromkeys(found))[:_SUBJECTS_MOST]


def _from_policy(text: str, issuer: str) -> list[str]:
    subjects: list[str] = []
    named = current = False
    for line in text.splitlines():
        words = line.split("#", maxsplit=1)[0].split(maxsplit=2)
        if len(words) < 3:
            continue
        if words[0] == "access_id_CA":
            current = words[2].strip().strip("'\"") == issuer
            named = named or current
        elif words[0] == "cond_subjects" and current:
            value = words[2].strip().strip("'")
            subjects += _QUOTED.findall(value) or [value.strip('"')]
    if not named:
        raise TrustError("E-POLICY", f"it is not about {issuer}")
    return subjects


def _from_namespaces(text: str, issuer: str) -> list[str]:
    flat = " ".join(line.split("#", maxsplit=1)[0] for line in text.splitlines())
    found = re.findall(r'TO\s+Issuer\s+"([^"]*)"\s+PERMIT\s+Subject\s+"([^"]*)"', flat)
    if not any(name == issuer for name, _ in found):
        raise TrustError("E-POLICY", f"it is not about {issuer}")
    return [subject for name, subject in found if name == issuer]
