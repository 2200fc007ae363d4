"""
The commands that only look: lists, show, verify, CRLs, the audit log.

Nothing here changes a file. Each works on the administrator's side (--dir) and,
where it makes sense, on a node's (--config).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from esgf_gossip.cli.trust_options import (
    duration,
    node_place,
    options,
    print_result,
    rfc3339,
    settings,
    table,
)
from esgf_gossip.trust import pem, profile, revocation
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.errors import EXIT_VERIFICATION, TrustError
from esgf_gossip.trust.inspection import describe, describe_crl, find_faults
from esgf_gossip.trust.material import CHAIN_FILE, CRL_FOLDER, read_crls
from esgf_gossip.trust.policy import DAYS_DEFAULT
from esgf_gossip.trust.requests import Request, read_request


@click.command("list", epilog="Example: trust-admin cert list --expires-in 30d --dir trust")
@click.option("--expires-in", metavar="T", help="Only those that end within T, as 30d.")
@click.option("--revoked", is_flag=True, help="Only those that are revoked.")
@options("dir", "json")
def list_(expires_in: str | None, *, revoked: bool) -> None:
    """List the certificates that were issued."""
    given = settings()
    authority = given.authority()
    dead = authority.revoked_serials()
    rows = []
    for one in authority.issued():
        left_ms = revocation.milliseconds(one.not_valid_after_utc) - given.now_ms
        if expires_in is not None and not 0 <= left_ms <= duration(expires_in).total_seconds() * 1000:
            continue
        if revoked and one.serial_number not in dead:
            continue
        state = "revoked" if one.serial_number in dead else "expired" if left_ms < 0 else "valid"
        host = profile.leaf_names(one).host
        rows.append((host, state, rfc3339(one.not_valid_after_utc), f"{one.serial_number:x}"))
    data = [dict(zip(("node", "state", "not_after", "serial"), row, strict=True)) for row in rows]
    print_result(table([("NODE", "STATE", "UNTIL", "SERIAL"), *rows]) if rows else ["no certificate"], data)


@click.command(
    epilog="Example: trust-admin cert show node.example.org --dir trust; or a file: cert show chain.pem"
)
@click.argument("what", metavar="ID|FILE")
@options("dir", "config", "json")
def show(what: str) -> None:
    """Show a pending request beside what would be granted, or what a certificate or request file holds."""
    if Path(what).is_file():
        content = pem.read(Path(what))
        if any("CERTIFICATE REQUEST" in label for label in pem.labels(content)):
            _show_request(read_request(content, what), _authority_or_none())
        else:
            _show_certificates([describe(one) for one in pem.certificates(content, what)])
        return
    authority = settings().authority()
    found = [
        one
        for one in authority.issued()
        if what.lower() == f"{one.serial_number:x}" or what == profile.leaf_names(one).host
    ]
    try:
        _show_request(authority.pending_request(what), authority)
    except TrustError as error:
        if error.code != "E-NOTFOUND" or not found:
            raise
        _show_certificates([describe(one) for one in found])


def _authority_or_none() -> Authority | None:
    try:
        return settings().authority()
    except TrustError:
        return None


def _show_request(request: Request, authority: Authority | None) -> None:
    wanted = request.names
    verdict = "not judged: no administration here"
    granted: list[str] = []
    if authority is not None:
        try:
            names = authority.policy.grant(wanted, min(DAYS_DEFAULT, authority.policy.max_days))
            granted, verdict = [*names.dns, *names.uris], "allowed"
        except TrustError as error:
            verdict = str(error)
    requested = [*wanted.dns, *wanted.uris]
    rows = [("REQUESTED", "GRANTED")]
    rows.extend((name, name if name in granted else "-") for name in requested)
    rows.extend(("-", name) for name in granted if name not in requested)
    print_result(
        [
            f"request      {request.request_id}",
            f"node         {wanted.host}",
            "key          P-256",
            f"fingerprint  {request.fingerprint}",
            f"policy       {verdict}",
            *table(rows),
        ],
        {
            "id": request.request_id,
            "node": wanted.host,
            "key": "P-256",
            "fingerprint": request.fingerprint,
            "requested": requested,
            "granted": granted,
            "policy": verdict,
        },
    )


def _show_certificates(described: Sequence[Mapping[str, Any]]) -> None:
    data = [_dated(one) for one in described]
    lines = [
        f"{key:12} {', '.join(value) if isinstance(value, list) else value}"
        for one in data
        for key, value in one.items()
    ]
    print_result(lines, data)


def _dated(described: Mapping[str, Any]) -> dict[str, Any]:
    """Write the times of what trust describes as people read them."""
    return {
        key.removesuffix("_ms"): _when(value) if key.endswith("_ms") else value
        for key, value in described.items()
    }


def _when(time_ms: int | None) -> str | None:
    return None if time_ms is None else rfc3339(datetime.fromtimestamp(time_ms / 1000, UTC))


@click.command(
    epilog="Example: trust-admin cert verify node.example.org.bundle.pem --host node.example.org --dir trust"
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--host", metavar="H", help="The node it must be of.")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["node", "signer", "issuer"]),
    default="node",
    show_default=True,
    help="What it must be good for; a signer of digests is a node.",
)
@click.option(
    "--at", metavar="T", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), help="At this time, UTC."
)
@options("dir", "config", "json")
def verify(file: Path | None, host: str | None, kind: str, at: datetime | None) -> None:
    """Check a chain as a peer would: signatures, dates, revocation, profile. Default: the node's own."""
    given = settings()
    if given.config is not None:
        place = node_place(given.config)
        folder, federation = place.trust_directory, place.federation
        file = file or folder / CHAIN_FILE
    else:
        folder, federation = given.admin_directory, given.authority().policy.federation
    if file is None:
        raise TrustError("E-USAGE", "which file?", remedy="name one, or give --config")
    now_ms = given.now_ms if at is None else revocation.milliseconds(at.replace(tzinfo=UTC))
    problems = find_faults(
        pem.read(file), str(file), folder, federation=federation, host=host, kind=kind, now_ms=now_ms
    )
    print_result(problems or ["OK"], {"ok": not problems, "reasons": problems})
    if problems:
        click.get_current_context().exit(EXIT_VERIFICATION)


@click.command(
    "show", epilog="Example: trust-admin crl show --dir trust; or a file: crl show issuing-g1.crl.pem"
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@options("dir", "config", "json")
def crl_show(file: Path | None) -> None:
    """Show the number, age and revoked serial numbers of CRLs."""
    given = settings()
    if file is not None:
        crls = pem.revocation_lists(pem.read(file), str(file))
    elif given.config is not None:
        crls = read_crls(node_place(given.config).trust_directory / CRL_FOLDER)
    else:
        crls = given.authority().crls()
    data: list[dict[str, Any]] = []
    for crl in crls:
        one = describe_crl(crl)
        data.append({**_dated(one), "age_s": max(0, given.now_ms - one["this_update_ms"]) // 1000})
    rows = [("ISSUER", "NUMBER", "FROM", "NEXT", "REVOKED")]
    rows.extend(
        (
            one["issuer"],
            str(one["number"]),
            one["this_update"],
            str(one["next_update"]),
            str(len(one["revoked"])),
        )
        for one in data
    )
    lines = table(rows)
    lines.extend(f"revoked by {one['issuer']}: {serial}" for one in data for serial in one["revoked"])
    print_result(lines, data)


@click.command("show", epilog="Example: trust-admin log show --dir trust")
@options("dir", "json")
def log_show() -> None:
    """Show the audit log: who did what, when."""
    records = settings().authority().log.records()
    about = (
        *("node", "serial", "serials", "secret", "version", "fingerprint", "reason", "root_sha256"),
        *("issuer", "crl", "next_update"),
    )
    lines = [
        " ".join(
            [
                str(one.get("at")),
                str(one.get("who")),
                str(one.get("action")),
                *(f"{key}={one[key]}" for key in about if key in one),
            ]
        )
        for one in records
    ]
    print_result(lines, records)


@click.command("verify", epilog="Example: trust-admin log verify --dir trust")
@options("dir", "json")
def log_verify() -> None:
    """Check that no line of the audit log was changed, removed or put in between."""
    count, head = settings().authority().log.verify()
    print_result([f"OK: {count} lines, head {head}"], {"ok": True, "lines": count, "head": head})
