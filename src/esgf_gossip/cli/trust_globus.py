"""
The commands about hashed folders of CAs: roots import-globus, roots export --globus.

What they do is done by esgf_gossip.trust.globus.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from esgf_gossip.cli.trust_options import options, print_result, settings
from esgf_gossip.trust import bundle_files, globus, pem, revocation
from esgf_gossip.trust.bundle import IssuerPolicy
from esgf_gossip.trust.errors import EXIT_VERIFICATION, TrustError
from esgf_gossip.trust.folders import public_folder, write_public
from esgf_gossip.trust.material import CRL_FOLDER, ROOTS_FOLDER, read_crls, read_roots

IMPORTED_FOLDER: Final = "imported"


@click.command(
    "import-globus",
    epilog="Example: trust-admin roots import-globus /etc/grid-security/certificates --dir trust",
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@options("dir", "json")
def import_globus(folder: Path) -> None:
    """Read the roots of a hashed folder into imported/ of the administration; none of them is trusted by that."""
    authority = settings().authority()
    taken, skipped = globus.read(folder)
    target = authority.directory / IMPORTED_FOLDER
    data = []
    if taken:
        public_folder(target)
    for one in taken:
        digest = pem.fingerprint(one.certificate)
        stem = one.file.partition(".")[0] + "-" + digest[:8]
        about = {
            "file": one.file,
            "subject": globus.slashed(one.certificate.subject),
            "sha256": digest,
            "crl": None if one.crl is None else revocation.number(one.crl),
            "subjects": list(one.subjects),
        }
        write_public(target / f"{stem}.pem", pem.certificate_pem(one.certificate))
        if one.crl is not None:
            write_public(target / f"{stem}.crl.pem", pem.crl_pem(one.crl))
        write_public(target / f"{stem}.json", json.dumps(about, indent=2).encode() + b"\n")
        data.append(about)
    authority.log.append(
        settings().now_ms, "import-globus", {"folder": str(folder), "sha256": [one["sha256"] for one in data]}
    )
    print_result(
        [
            *(f"taken    {one['file']}  {one['subject']}  {one['sha256']}" for one in data),
            *(f"skipped  {name}: {reason}" for name, reason in skipped),
            f"next     none of them is trusted; they lie in {target}",
        ],
        {"taken": data, "skipped": [{"file": name, "reason": reason} for name, reason in skipped]},
    )
    if not taken:
        raise click.exceptions.Exit(EXIT_VERIFICATION)


def export_globus(directory: Path, folder: Path) -> None:
    """
    Write the CAs in force in an administration or a trust directory as a hashed folder, and print what was done.

    Raises:
        TrustError: E-NOTFOUND, E-FILE.
    """
    bundles = bundle_files.read_bundles(directory)
    crls = read_crls(directory / CRL_FOLDER)
    if bundles:
        newest = bundles[-1]
        cas: list[tuple[pem.Certificate, IssuerPolicy | None]] = [(root, None) for root in newest.roots]
        cas += [(one.certificate, one.policy) for one in newest.issuers]
        held = {(crl.issuer, revocation.number(crl)) for crl in crls}
        crls += [crl for crl in newest.crls if (crl.issuer, revocation.number(crl)) not in held]
    else:
        cas = [(root, None) for root in read_roots(directory / ROOTS_FOLDER)]
        issuers = directory / "issuers"
        for path in sorted(issuers.glob("*.pem")) if issuers.is_dir() else ():
            cas.append((pem.certificate(pem.read(path), str(path)), IssuerPolicy()))
    if folder.exists() and not folder.is_dir():
        raise TrustError("E-FILE", f"{folder} is not a folder")
    done = globus.export(folder, cas, crls)
    print_result(
        [
            *(f"written  {name}" for name in done.written),
            *(f"removed  {name}" for name in done.removed),
            f"use      openssl verify -CApath {folder} -crl_check_all CERTIFICATE",
        ],
        {"folder": str(folder), "written": list(done.written), "removed": list(done.removed)},
    )
