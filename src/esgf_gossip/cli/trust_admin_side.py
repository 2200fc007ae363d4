"""
The commands of the trust administrator: init, what becomes of requests, fresh CRLs.

Each is a few lines around esgf_gossip.trust.authority and esgf_gossip.trust.publish.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip.cli.trust_options import (
    ask_passphrase,
    options,
    print_result,
    rfc3339,
    settings,
    table,
    unlocked,
    unlocked_root,
)
from esgf_gossip.trust import issue, keys, pem, revocation
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.founding import ISSUER_DAYS, ROOT_DAYS, create_authority
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.policy import DAYS_DEFAULT, FIRST_GROUPS
from esgf_gossip.trust.publish import DAYS_MAX, publish, roots_due

_CRL_DAYS: Final = click.IntRange(1, DAYS_MAX)


@click.command(
    epilog="Example: trust-admin init --dir trust --private /media/stick/keys --federation esgf.example.org"
)
@click.option("--federation", required=True, metavar="F", help="The federation's name, a DNS name.")
@click.option("--root-days", default=ROOT_DAYS, show_default=True, help="Life of the root.")
@click.option("--issuer-days", default=ISSUER_DAYS, show_default=True, help="Life of the issuing CA.")
@click.option(
    "--admin-keys",
    default=1,
    show_default=True,
    metavar="N",
    help="Keys that sign changes of roots; 0: none.",
)
@click.option("--threshold", default=1, show_default=True, metavar="K", help="So many of them must sign.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    default=FIRST_GROUPS,
    show_default=True,
    metavar="G",
    help="What the policy lets certificates name; the first is for requests that name none.",
)
@click.option("--no-passphrase", is_flag=True, help="Do not encrypt the CA keys: for tests and demos.")
@options("dir", "passphrase", "json")
def init(
    federation: str,
    root_days: int,
    issuer_days: int,
    admin_keys: int,
    threshold: int,
    groups: tuple[str, ...],
    *,
    no_passphrase: bool,
) -> None:
    """Found a federation: root, issuing CA, a first CRL of each, administrators' keys, trust bundle 1, policy, audit log."""
    given = settings()
    passphrase = given.passphrase()
    if no_passphrase and passphrase is not None:
        raise TrustError("E-USAGE", "a passphrase and --no-passphrase contradict each other")
    if not no_passphrase:
        passphrase = keys.check_passphrase(passphrase or ask_passphrase("the CA keys", confirm=True))
    authority = create_authority(
        given.admin_directory,
        given.private_directory,
        federation,
        given.now_ms,
        passphrase,
        root_days=root_days,
        issuer_days=issuer_days,
        admin_keys=admin_keys,
        threshold=threshold,
        groups=groups,
    )
    root = authority.roots()[0]
    digest = pem.fingerprint(root)
    print_result(
        [
            f"administration  {authority.directory}",
            f"keys            {authority.private}",
            f"policy          {authority.directory / 'policy.toml'}",
            f"root SHA-256    {digest}",
            f"root until      {rfc3339(root.not_valid_after_utc)}",
            *(
                [f"changes         signed by {threshold} of {admin_keys} administrators' keys"]
                if admin_keys
                else []
            ),
        ],
        {
            "directory": str(authority.directory),
            "private": str(authority.private),
            "federation": federation,
            "root_sha256": digest,
            "root_not_after": rfc3339(root.not_valid_after_utc),
            "admin_keys": admin_keys,
            "threshold": threshold if admin_keys else 0,
        },
    )


@click.command("import", epilog="Example: trust-admin cert import node.example.org.csr.pem --dir trust")
@click.argument("file", type=click.Path(path_type=Path))
@options("dir", "json")
def import_(file: Path) -> None:
    """Put a request that was sent to you among the pending."""
    given = settings()
    request = given.authority().import_request(pem.read(file), str(file), given.now_ms)
    print_result(
        [request.request_id],
        {"id": request.request_id, "node": request.names.host, "fingerprint": request.fingerprint},
    )


@click.command(epilog="Example: trust-admin cert pending --dir trust")
@options("dir", "json")
def pending() -> None:
    """List the requests that wait for a decision."""
    waiting = settings().authority().pending()
    rows = [("ID", "DNS", "GROUPS", "ROLES")]
    rows.extend(
        (
            one.request_id,
            ",".join(one.names.dns),
            ",".join(one.names.groups) or "-",
            ",".join(one.names.roles) or "-",
        )
        for one in waiting
    )
    data = [
        {
            "id": one.request_id,
            "node": one.names.host,
            "fingerprint": one.fingerprint,
            "dns": list(one.names.dns),
            "groups": list(one.names.groups),
            "roles": list(one.names.roles),
        }
        for one in waiting
    ]
    print_result(table(rows) if waiting else ["no request is pending"], data)


@click.command(
    epilog="Example: trust-admin cert approve node.example.org --fingerprint 3f2a... --dir trust "
    "--passphrase-file /run/secrets/ca"
)
@click.argument("request_id", metavar="ID")
@click.option(
    "--fingerprint",
    "told",
    required=True,
    metavar="X",
    help="The request's SHA-256 as its node's administrator told you by voice, hex or words.",
)
@click.option("--days", default=DAYS_DEFAULT, show_default=True, help="Life of the certificate.")
@click.option(
    "--drop-name", "drop_names", multiple=True, metavar="N", help="Do not grant this name; repeatable."
)
@click.option(
    "--replace", is_flag=True, help="The node has a valid certificate for another key, and that is right."
)
@options("dir", "passphrase", "json")
def approve(request_id: str, told: str, days: int, drop_names: Sequence[str], *, replace: bool) -> None:
    """Sign the certificate of a pending request, and write the file its node installs."""
    given = settings()
    authority = given.authority()
    request = authority.pending_request(request_id)
    content = pem.request_pem(request.csr)
    # The cheap refusals before the passphrase is asked for.
    authority.check_request(content, fingerprint=told, days=days, drop_names=drop_names)
    approved = unlocked(authority).approve(
        content, fingerprint=told, now_ms=given.now_ms, days=days, drop_names=drop_names, replace=replace
    )
    root_sha256 = pem.fingerprint(authority.roots()[0])
    install = f"trust-admin cert install {approved.bundle_path.name} --config node.toml --root-fingerprint {root_sha256}"
    until = rfc3339(datetime.fromtimestamp(approved.not_after_ms / 1000, UTC))
    print_result(
        [
            f"node         {approved.names.host}",
            f"serial       {approved.serial:x}",
            f"until        {until}",
            f"certificate  {authority.directory / 'issued' / f'{approved.serial:x}.pem'}",
            f"bundle       {approved.bundle_path}",
            f"root SHA-256 {root_sha256}",
            f"next         send the bundle; on the node: {install}",
        ],
        {
            "node": approved.names.host,
            "serial": f"{approved.serial:x}",
            "not_after": until,
            "certificate": str(authority.directory / "issued" / f"{approved.serial:x}.pem"),
            "bundle": str(approved.bundle_path),
            "names": [*approved.names.dns, *approved.names.uris],
            "root_sha256": root_sha256,
        },
    )


@click.command(epilog='Example: trust-admin cert deny node.example.org --reason "unknown site" --dir trust')
@click.argument("request_id", metavar="ID")
@click.option("--reason", required=True, metavar="T", help="Why; it goes into the audit log.")
@options("dir", "json")
def deny(request_id: str, reason: str) -> None:
    """Move a pending request to the denied."""
    given = settings()
    request = given.authority().deny(request_id, reason, given.now_ms)
    print_result([request.request_id], {"id": request.request_id, "node": request.names.host})


@click.command("publish", epilog="Example: trust-admin crl publish --dir trust --private keys")
@click.option(
    "--days", default=issue.CRL_DAYS, type=_CRL_DAYS, show_default=True, help="When the next CRL is due."
)
@click.option(
    "--root-days",
    default=issue.ROOT_CRL_DAYS,
    type=_CRL_DAYS,
    show_default=True,
    help="The same, for the root's CRL.",
)
@click.option(
    "--root", "with_root", is_flag=True, help="Sign the root's CRL too, before half of its life is over."
)
@click.option(
    "--min-number",
    default=1,
    type=click.IntRange(1, 2**62),
    metavar="N",
    help="Least number of the new CRL: above what the nodes hold, after the administration was put back from a backup.",
)
@options("dir", "passphrase", "json")
def crl_publish(days: int, root_days: int, min_number: int, *, with_root: bool) -> None:
    """Sign the CRLs anew: the issuing CA's, and the root's past half of its life; every week at least."""
    given = settings()
    authority = given.authority()
    roots, notes = _roots_if_due(authority, forced=with_root)
    published = publish(
        unlocked(authority), given.now_ms, days=days, roots=roots, root_days=root_days, min_number=min_number
    )
    data: list[dict[str, Any]] = [
        {
            "issuer": revocation.issuer_name(one.crl),
            "number": revocation.number(one.crl),
            "next_update": rfc3339(issue.moment(revocation.next_update_ms(one.crl))),
            "revoked": len(revocation.serials(one.crl)),
            "file": str(one.path),
        }
        for one in published
    ]
    rows = [("ISSUER", "NUMBER", "NEXT", "REVOKED", "FILE")]
    rows.extend(
        (one["issuer"], str(one["number"]), one["next_update"], str(one["revoked"]), one["file"])
        for one in data
    )
    names = " ".join(one.path.name for one in published)
    print_result(
        [
            *table(rows),
            *(f"note  {text}" for text in notes),
            f"next  bring it to any one node; there: trust-admin crl import {names} --config node.toml",
        ],
        {"published": data, "notes": notes},
    )


def _roots_if_due(authority: Authority, *, forced: bool) -> tuple[list[CertificateAuthority], list[str]]:
    due = roots_due(authority, settings().now_ms)
    wanted = list(dict.fromkeys([authority.root_name, *due])) if forced else due
    found, notes = [], []
    for name in wanted:
        try:
            found.append(unlocked_root(authority, name))
        except TrustError as error:
            # The root's key is meant to be offline: the weekly CRL must not wait for it.
            if (forced and name == authority.root_name) or error.code != "E-NOTFOUND":
                raise
            notes.append(
                f"the CRL of {name} is past half of its life and its key is not here: bring it, then crl publish --root"
            )
    return found, notes
