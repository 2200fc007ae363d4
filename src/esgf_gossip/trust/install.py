"""
Installing a certificate or newer CRLs on a node: judged as a whole first, then written.

The only module that changes roots/, crl/ and chain.pem of a trust directory.
A root that is not trusted yet is never taken from a file alone: somebody must
name its fingerprint. Source: docs/trust.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509

from esgf_gossip.files import replace_file
from esgf_gossip.trust import bundle_files, bundle_rules, keys, pem, profile, revocation
from esgf_gossip.trust.bundle import Bundle
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked, public_folder
from esgf_gossip.trust.material import (
    CHAIN_FILE,
    CRL_FOLDER,
    CRL_SUFFIXES,
    KEY_FILE,
    ROOT_SUFFIXES,
    ROOTS_FOLDER,
    TrustMaterial,
    named_by,
    read_chain,
    read_crls,
    read_roots,
)
from esgf_gossip.trust.revocation import CrlSet

_SLUG: Final = re.compile(r"[^a-z0-9]+")


@attrs.frozen
class ApprovedFile:
    """What one file from the administrator holds: a chain; roots, CRLs and trust bundles may be missing."""

    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    bundles: tuple[Bundle, ...] = ()


def read_bundle(content: bytes, where: str) -> ApprovedFile:
    """
    Sort what an approved file holds; nothing of it is trusted yet.

    Raises:
        TrustError: as ``pem.certificates`` and ``pem.revocation_lists``; E-PEM if there is no leaf.
    """
    found = pem.certificates(content, where)
    roots = tuple(one for one in found if profile.is_self_issued(one))
    chain = tuple(one for one in found if not profile.is_self_issued(one))
    if not chain:
        raise TrustError(
            "E-PEM", f"{where} holds no certificate of a node", remedy="give the file cert approve wrote"
        )
    crls = revocation_blocks(content, where)
    return ApprovedFile(chain, roots, tuple(crls), tuple(bundle_files.read_blocks(content, where)))


def revocation_blocks(content: bytes, where: str) -> list[x509.CertificateRevocationList]:
    """Return the CRLs among other PEM blocks, if any."""
    part = pem.blocks(content, pem.CRL)
    return pem.revocation_lists(part, where) if part else []


def unknown_roots(trust_directory: Path, roots: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return those roots that the trust directory does not hold yet."""
    held = {pem.fingerprint(root) for root in held_roots(trust_directory)}
    return [root for root in roots if pem.fingerprint(root) not in held]


def held_roots(trust_directory: Path) -> list[x509.Certificate]:
    """Return the roots of a trust directory, none for a new one."""
    folder = trust_directory / ROOTS_FOLDER
    has_any = folder.is_dir() and any(path.suffix in ROOT_SUFFIXES for path in folder.iterdir())
    return read_roots(folder) if has_any else []


def install(
    trust_directory: Path,
    chain_pem: bytes,
    roots: Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList],
    *,
    host: str,
    federation: str,
    now_ms: int,
    bundles: Sequence[Bundle] = (),
) -> TrustMaterial:
    """
    Install a certificate, with roots and CRLs that the caller vouches for.

    Everything is judged together with what is there already, as the daemon
    will judge it, before the first byte is written; CRLs first, chain last.

    Args:
        trust_directory: the node's; holds its key.
        chain_pem: leaf first, issuing CA; a root in it is left out.
        roots: roots to trust from now on, beside those held.
        crls: the CRLs to hold; of one issuer the newer wins.
        host: the node's name.
        federation: the federation's name.
        now_ms: now.
        bundles: trust bundles that prove themselves: by those held, or by one of the roots. With them, or where some
            are held, the newest says which roots count, and others are left out.

    Raises:
        TrustError: as ``TrustMaterial.assemble``, ``bundle_rules.extend``; E-CRL-FORK, E-CRL-SHRINK; E-FILE.
            Nothing is written unless all is good.
    """
    key = keys.read_key(trust_directory / KEY_FILE)
    chain = read_bundle(chain_pem, "chain").chain
    with locked(trust_directory):
        all_roots: Sequence[x509.Certificate]
        all_roots = [*held_roots(trust_directory), *unknown_roots(trust_directory, roots)]
        history = bundle_rules.extend(bundle_files.read_bundles(trust_directory), bundles, all_roots)
        if history:
            all_roots = history[-1].roots
        all_crls = _merge(_held_crls(trust_directory), crls)
        material = TrustMaterial.assemble(
            key, chain, all_roots, all_crls, host=host, federation=federation, now_ms=now_ms, bundles=history
        )
        try:
            _write_all(trust_directory, material)
        except OSError as error:
            raise TrustError(
                "E-FILE", f"{error.filename or trust_directory} cannot be written: {error.strerror}"
            ) from None
    return material


@attrs.frozen
class ImportedCrls:
    """What an import of CRLs did: those new in force, with their files, and those held before."""

    taken: tuple[tuple[x509.CertificateRevocationList, Path], ...]
    known: tuple[x509.CertificateRevocationList, ...]
    revokes_this_node: bool


def import_crls(
    trust_directory: Path,
    offered: Sequence[x509.CertificateRevocationList],
    *,
    now_ms: int,
    judged: bool = False,
) -> ImportedCrls:
    """
    Put newer CRLs in force on a node; of one issuer the newest of those offered.

    Neither the node's own certificate nor the CRLs of other issuers need be in
    order: what revokes this node, and what mends only half, must come in too.

    Args:
        trust_directory: the node's, with a certificate installed.
        offered: CRLs that nobody has checked.
        now_ms: now.
        judged: they were judged as trust objects: however old, and one may replace another of its number.

    Raises:
        TrustError: E-CRL-SIG, E-CRL-FORM, E-CRL-FUTURE, E-CRL-STALE, E-CRL-ROLLBACK, E-CRL-FORK,
            E-CRL-SHRINK of what is offered; whatever is wrong with what is held; E-FILE.
            Nothing is written unless all offered are good.
    """
    folder = trust_directory / CRL_FOLDER
    leaf, issuers = _held_issuers(trust_directory, now_ms)
    check = revocation.check_signed if judged else revocation.check_crl
    for crl in offered:
        check(crl, issuers, "the offered CRL", now_ms)
    with locked(trust_directory):
        held = CrlSet.choose(_signed_by(issuers, _held_crls(trust_directory), str(folder), now_ms))
        chosen = list(held.crls)
        for crl in sorted(offered, key=revocation.number):
            known = next((one for one in chosen if one.issuer == crl.issuer), None)
            if known is None:
                chosen.append(crl)
            elif judged:
                revocation.check_follows(known, crl)
                chosen[chosen.index(known)] = crl
            else:
                chosen[chosen.index(known)] = revocation.newer(known, crl)
        taken = [crl for crl in chosen if crl not in held.crls]
        try:
            if taken:
                public_folder(folder)
                _write_crls(folder, CrlSet(tuple(chosen)))
        except OSError as error:
            raise TrustError(
                "E-FILE", f"{error.filename or folder} cannot be written: {error.strerror}"
            ) from None
    return ImportedCrls(
        tuple((crl, folder / _crl_file_name(crl)) for crl in taken),
        tuple(crl for crl in held.crls if crl in offered),
        CrlSet(tuple(chosen)).revoked(leaf),
    )


def import_bundles(
    trust_directory: Path, offered: Sequence[Bundle], *, federation: str, takes_forks: bool = False
) -> tuple[Bundle, ...]:
    """
    Put the next trust bundles in force on a node, and the roots that the newest of them names.

    Args:
        trust_directory: the node's.
        offered: bundles that nobody has checked, of any order.
        federation: the node's.
        takes_forks: let a rightly signed twin of the newest replace it.

    Returns:
        Those that were not held.

    Raises:
        TrustError: as ``bundle_rules.extend``; E-BUNDLE-FORM of another federation; E-FILE.
    """
    for one in offered:
        if one.federation != federation:
            raise TrustError("E-BUNDLE-FORM", f"it is of federation '{one.federation}', not '{federation}'")
    with locked(trust_directory):
        held = bundle_files.read_bundles(trust_directory)
        roots = held_roots(trust_directory)
        history = bundle_rules.extend(held, offered, roots, takes_forks=takes_forks)
        try:
            bundle_files.write_bundles(trust_directory, history)
            if history and not bundle_files.same_roots(roots, history[-1].roots):
                public_folder(trust_directory / ROOTS_FOLDER)
                _write_roots(trust_directory / ROOTS_FOLDER, history[-1].roots, only=True)
        except OSError as error:
            raise TrustError(
                "E-FILE", f"{error.filename or trust_directory} cannot be written: {error.strerror}"
            ) from None
    return tuple(one for one in history if one not in held)


def _held_issuers(trust_directory: Path, now_ms: int) -> tuple[x509.Certificate, list[x509.Certificate]]:
    leaf, *others = read_chain(trust_directory / CHAIN_FILE)
    history = bundle_files.read_bundles(trust_directory)
    if history:
        return leaf, list(named_by(history))
    roots = read_roots(trust_directory / ROOTS_FOLDER)
    bare = TrustAnchors(tuple(roots), CrlSet(()))
    for issuer in others:
        profile.check_issuer(issuer)
        bare.chain_to_root(issuer, others, now_ms)
    return leaf, [*roots, *others]


def _signed_by(
    issuers: Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList],
    where: str,
    now_ms: int,
) -> list[x509.CertificateRevocationList]:
    # Those of other issuers are not in force here, and not ours to judge.
    found = [crl for crl in crls if any(issuer.subject == crl.issuer for issuer in issuers)]
    for crl in found:
        revocation.check_signed(crl, issuers, where, now_ms)
    return found


def _merge(
    held: Sequence[x509.CertificateRevocationList], offered: Sequence[x509.CertificateRevocationList]
) -> list[x509.CertificateRevocationList]:
    chosen = list(CrlSet.choose(held).crls)
    for crl in offered:
        known = next((one for one in chosen if one.issuer == crl.issuer), None)
        if known is None:
            chosen.append(crl)
        elif revocation.number(crl) >= revocation.number(known):
            chosen[chosen.index(known)] = revocation.newer(known, crl)
        # An older one came along with a bundle that was made earlier: what is held stays.
    return chosen


def _held_crls(trust_directory: Path) -> list[x509.CertificateRevocationList]:
    folder = trust_directory / CRL_FOLDER
    has_any = folder.is_dir() and any(path.suffix in CRL_SUFFIXES for path in folder.iterdir())
    return read_crls(folder) if has_any else []


def _write_all(trust_directory: Path, material: TrustMaterial) -> None:
    for name in (ROOTS_FOLDER, CRL_FOLDER):
        public_folder(trust_directory / name)
    # Bundles first: what is in the folder of roots follows them.
    if material.bundles:
        bundle_files.write_bundles(trust_directory, material.bundles)
    _write_crls(trust_directory / CRL_FOLDER, material.anchors.crls)
    _write_roots(trust_directory / ROOTS_FOLDER, material.roots, only=bool(material.bundles))
    chain = b"".join(map(pem.certificate_pem, (material.leaf, *material.issuers)))
    replace_file(trust_directory / CHAIN_FILE, chain)


def _write_roots(folder: Path, roots: Sequence[x509.Certificate], *, only: bool) -> None:
    files = {
        _file_name(root.subject, pem.fingerprint(root), ".pem"): pem.certificate_pem(root) for root in roots
    }
    _write_folder(folder, files)
    if only:
        for path in folder.iterdir():
            if path.suffix in ROOT_SUFFIXES and path.name not in files and not path.name.startswith("."):
                path.unlink()


def _write_crls(folder: Path, crls: CrlSet) -> None:
    files = {_crl_file_name(crl): pem.crl_pem(crl) for crl in crls.crls}
    _write_folder(folder, files)
    _remove_superseded(folder, crls, set(files))


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            replace_file(path, content)


def _remove_superseded(folder: Path, crls: CrlSet, written: set[str]) -> None:
    # Older CRLs of issuers whose newest was just written; those of other issuers are not ours to judge.
    for path in folder.iterdir():
        if path.suffix in CRL_SUFFIXES and path.name not in written and not path.name.startswith("."):
            found = pem.revocation_lists(pem.read(path), str(path))
            if all(crls.of_issuer(crl.issuer) is not None for crl in found):
                path.unlink()


def _crl_file_name(crl: x509.CertificateRevocationList) -> str:
    return _file_name(crl.issuer, "", ".crl.pem")


def _file_name(name: x509.Name, unique: str, suffix: str) -> str:
    slug = _SLUG.sub("-", name.rfc4514_string().lower()).strip("-")[:80]
    return "-".join(part for part in (slug, unique[:8]) if part) + suffix
