"""
The commands of a rotation of roots: list, status, prepare, activate, retire, renew, adopt, sign, import, export.

What they do is done by esgf_gossip.trust.rotation, readiness and install; Globus folders are trust_globus.py's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.cli.failures import CommandError
from esgf_gossip.cli.trust_globus import export_globus, import_globus
from esgf_gossip.cli.trust_options import (
    ask_passphrase,
    node_place,
    options,
    print_result,
    rfc3339,
    settings,
    table,
)
from esgf_gossip.cli.trust_telling import no_reload, tell_daemon
from esgf_gossip.config import ConfigError, load
from esgf_gossip.trust import bundle_files, bundle_rules, generations, issue, keys, pem, readiness, rotation
from esgf_gossip.trust.bundle import Bundle, BundleIssuer, key_id, public_key_spki
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import write_public
from esgf_gossip.trust.founding import ISSUER_DAYS, ROOT_DAYS
from esgf_gossip.trust.install import import_bundles
from esgf_gossip.trust.readiness import NodeTrust
from esgf_gossip.trust.rotation import Step

_PATH: Final = click.Path(path_type=Path)
_from = click.option(
    "--from",
    "report",
    type=_PATH,
    metavar="FILE",
    help="What roots status --json printed on a node, instead of asking the daemon of --config.",
)
_no_passphrase = click.option(
    "--no-passphrase", is_flag=True, help="Do not encrypt the new keys: for tests and demos."
)
_accept_lag = click.option(
    "--accept-lag", "accepted", multiple=True, metavar="NODE", help="Go on without this node; repeatable."
)


@click.group(epilog="Example: trust-admin roots list --dir trust")
@options("dir", "config", "json", "passphrase")
def roots() -> None:
    """Change the roots and issuing CAs of a federation without stopping it."""


@roots.command("list", epilog="Example: trust-admin roots list --dir trust")
@options("dir", "config", "json")
def list_() -> None:
    """List every version of the trust bundle: roots, issuing CAs, whose signatures a change needs."""
    bundles = bundle_files.read_bundles(_directory())
    rows = [("VERSION", "ROOTS", "ISSUING CAS", "SIGNATURES", "UNTIL")]
    rows.extend(
        (
            str(one.version),
            ", ".join(root.subject.rfc4514_string() for root in one.roots),
            ", ".join(issuer.subject.rfc4514_string() for issuer in one.issuing_certificates),
            f"{one.threshold} of {len(one.admin_keys)}",
            rfc3339(issue.moment(one.not_after_ms)),
        )
        for one in bundles
    )
    print_result(table(rows) if bundles else ["no trust bundle"], [_described(one) for one in bundles])


@roots.command(epilog="Example: trust-admin roots status --config node.toml")
@_from
@options("dir", "config", "json")
def status(report: Path | None) -> None:
    """Say which bundle each node has in force, and who signed its certificate."""
    nodes = _nodes(report)
    newest = max((node.bundle for node in nodes), default=0)
    late = readiness.lagging(nodes, newest)
    rows = [("NODE", "BUNDLE", "CERTIFICATE OF", "LAGS")]
    rows.extend(
        (node.host, str(node.bundle or "-"), node.issuer, "yes" if node.host in late else "no")
        for node in nodes
    )
    data = {
        "newest": newest,
        "nodes": [
            {"host": node.host, "bundle": node.bundle, "issuer": node.issuer, "lags": node.host in late}
            for node in nodes
        ],
    }
    print_result([*table(rows), f"{len(nodes) - len(late)} of {len(nodes)} have bundle {newest}"], data)


@roots.command(epilog="Example: trust-admin roots prepare --dir trust --private keys --config node.toml")
@click.option("--root-days", default=ROOT_DAYS, show_default=True, help="Life of the new root.")
@click.option("--issuer-days", default=ISSUER_DAYS, show_default=True, help="Life of the new issuing CA.")
@click.option(
    "--issuer-only", is_flag=True, help="A new issuing CA under the root in use; wants the root's key."
)
@_no_passphrase
@_from
@_accept_lag
@options("dir", "config", "passphrase", "json")
def prepare(
    root_days: int,
    issuer_days: int,
    report: Path | None,
    accepted: Sequence[str],
    *,
    issuer_only: bool,
    no_passphrase: bool,
) -> None:
    """Make the next root and its issuing CA: trusted from the next bundle on, not used yet."""
    given = settings()
    authority = given.authority()
    if not 1 <= issuer_days <= root_days <= 36500:
        raise TrustError(
            "E-USAGE", "the root must live at least as long as the issuing CA, at most 100 years"
        )
    late = _ready(report, accepted, _version(authority.bundles()))
    step = rotation.prepare(
        authority,
        _new_passphrase(no_passphrase=no_passphrase),
        given.now_ms,
        root_days=root_days,
        issuer_days=issuer_days,
        issuer_only=issuer_only,
    )
    _print_step(step, late)


@roots.command(epilog="Example: trust-admin roots activate issuing-g2 --dir trust --config node.toml")
@click.argument("name", metavar="ISSUING-CA")
@_from
@_accept_lag
@options("dir", "config", "json")
def activate(name: str, report: Path | None, accepted: Sequence[str]) -> None:
    """Sign node certificates by another issuing CA from now on; every node must have the bundle that names it."""
    given = settings()
    authority = given.authority()
    late = _ready(report, accepted, _version(authority.bundles()))
    rotation.activate(authority, name, given.now_ms)
    print_result(
        [
            f"issues   {name}",
            *_lag_lines(late),
            "next     trust-admin cert reissue --all, bring the files to any one node: cert deliver; then roots retire",
        ],
        {"issuing": name, "accepted_lag": late},
    )


@roots.command(
    epilog="Example: trust-admin roots retire root-g1 --dir trust --private keys --config node.toml"
)
@click.argument("name", metavar="ROOT|ISSUING-CA")
@_from
@_accept_lag
@options("dir", "config", "passphrase", "json")
def retire(name: str, report: Path | None, accepted: Sequence[str]) -> None:
    """End a root with all it signed, or one issuing CA; no node may use a certificate of it any more."""
    given = settings()
    authority = given.authority()
    over = _ended_by(authority.directory, name)
    late = _ready(report, accepted, _version(authority.bundles()), over)
    _print_step(rotation.retire(authority, name, _passphrase(), given.now_ms), late)


@roots.command(epilog="Example: trust-admin roots renew --limit --dir trust --private keys")
@click.option("--limit", is_flag=True, help="Bound all issuing CAs by policy.toml, on every node.")
@click.option(
    "--admin-key",
    "key_files",
    multiple=True,
    type=_PATH,
    metavar="F",
    help="Public key (PEM) of an administrator from now on, in place of all before; repeatable.",
)
@click.option("--threshold", type=int, metavar="K", help="So many of them must sign from now on.")
@options("dir", "passphrase", "json")
def renew(key_files: Sequence[Path], threshold: int | None, *, limit: bool) -> None:
    """Make a bundle of the same roots: with newer CRLs and a new term, other bounds, or other administrators' keys."""
    given = settings()
    step = rotation.renew(
        given.authority(),
        _passphrase(),
        given.now_ms,
        limit=limit,
        admin_keys=[public_key_spki(pem.read(path), str(path)) for path in key_files],
        threshold=threshold,
    )
    _print_step(step, {})


@roots.command(
    epilog="Example: trust-admin roots adopt --admin-keys 3 --threshold 2 --dir trust --private keys"
)
@click.option(
    "--admin-keys", default=1, show_default=True, metavar="N", help="Keys that sign changes of roots."
)
@click.option("--threshold", default=1, show_default=True, metavar="K", help="So many of them must sign.")
@_no_passphrase
@options("dir", "passphrase", "json")
def adopt(admin_keys: int, threshold: int, *, no_passphrase: bool) -> None:
    """Give a federation that was founded without a trust bundle its first; wants the root's key."""
    given = settings()
    step = rotation.adopt(
        given.authority(), admin_keys, threshold, _new_passphrase(no_passphrase=no_passphrase), given.now_ms
    )
    _print_step(step, {})


@roots.command(epilog="Example: trust-admin roots sign 000002.draft --dir trust --private /media/stick/keys")
@click.argument("file", type=_PATH)
@options("dir", "passphrase", "json")
def sign(file: Path) -> None:
    """Sign a draft with the administrators' keys of --private; DIR is any copy of the administration."""
    given = settings()
    (offered,) = bundle_files.read_file(file)
    bundles = bundle_files.read_bundles(given.admin_directory)
    held = next((one for one in bundles if one.version == offered.version - 1), None)
    if held is None:
        raise TrustError(
            "E-BUNDLE",
            f"version {offered.version}: version {offered.version - 1} is not in {given.admin_directory}",
            remedy="import it first",
        )
    signers = list(generations.admin_keys(given.private_directory, _passphrase()).values())
    signed = rotation.sign(offered, held, signers)
    write_public(file, signed.body)
    _print_step(Step(signed, file, tuple(bundle_rules.missing(signed, held))), {}, held)


@roots.command(
    "import",
    epilog="Example: trust-admin roots import 000002.bundle --config node.toml; at the administration: --dir trust",
)
@click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE...")
@no_reload
@options("dir", "config", "json")
def import_(files: Sequence[Path], *, no_reload: bool) -> None:
    """Take signed bundles into this node, which tells all others; or into the administration."""
    given = settings()
    offered = [one for file in files for one in bundle_files.read_file(file)]
    if given.config is None:
        authority = given.authority()
        steps = [
            rotation.take(authority, one, given.now_ms)
            for one in sorted(offered, key=lambda one: one.version)
        ]
        _print_step(steps[-1], {})
        return
    place = node_place(given.config)
    taken = import_bundles(place.trust_directory, offered, federation=place.federation)
    word, told = ("", "") if no_reload or not taken else tell_daemon(given.config)
    lines = [f"in force  bundle {one.version}" for one in taken] or ["nothing to do: held already"]
    if taken:
        lines.append(f"daemon    {told}" if told else f"next      esgf-gossip reload --config {given.config}")
    print_result(lines, {"imported": [_described(one) for one in taken], "daemon": word or None})


@roots.command(
    epilog="Example: trust-admin roots export --globus /etc/grid-security/certificates --dir trust"
)
@click.option("--globus", type=_PATH, metavar="DIR", help="A hashed folder for Globus and openssl -CApath.")
@click.option("--out", type=_PATH, metavar="FILE", help="All bundles in one file, for roots import.")
@options("dir", "config", "json")
def export(globus: Path | None, out: Path | None) -> None:
    """Write what is trusted for other programs, or all bundles for a node that cannot reach any other."""
    if (globus is None) == (out is None):
        raise TrustError("E-USAGE", "export what?", remedy="give --globus DIR or --out FILE")
    if globus is not None:
        export_globus(_directory(), globus)
        return
    assert out is not None
    bundles = bundle_files.read_bundles(_directory())
    if not bundles:
        raise TrustError("E-NOTFOUND", "no trust bundle", str(_directory()))
    write_public(out, bundle_files.blocks(bundles))
    print_result(
        [f"exported  {out}, bundles {bundles[0].version} to {bundles[-1].version}"],
        {"file": str(out), "versions": [one.version for one in bundles]},
    )


roots.add_command(import_globus)


def _directory() -> Path:
    given = settings()
    return given.admin_directory if given.config is None else node_place(given.config).trust_directory


def _version(bundles: Sequence[Bundle]) -> int:
    if not bundles:
        raise TrustError(
            "E-NOTFOUND", "this federation has no trust bundle", remedy="trust-admin roots adopt"
        )
    return bundles[-1].version


def _ended_by(directory: Path, name: str) -> set[str]:
    issuers, all_roots = generations.issuers(directory), generations.roots(directory)
    ended = {**issuers, **all_roots}.get(name)
    if ended is None:
        raise TrustError("E-NOTFOUND", f"no root or issuing CA {name} is in force", remedy="see roots list")
    return {
        one.subject.rfc4514_string() for one in issuers.values() if ended.subject in (one.subject, one.issuer)
    }


def _passphrase() -> bytes | None:
    """Return the passphrase of the administrators' keys: as given, or asked for where they need one."""
    given = settings()
    found = given.passphrase()
    if found is None and sys.stdin.isatty():
        try:
            generations.admin_keys(given.private_directory, None)
        except TrustError as error:
            if error.code != "E-PASSPHRASE":
                raise
            return ask_passphrase("the administrators' keys", confirm=False)
    return found


def _new_passphrase(*, no_passphrase: bool) -> bytes | None:
    found = settings().passphrase()
    if no_passphrase:
        if found is not None:
            raise TrustError("E-USAGE", "a passphrase and --no-passphrase contradict each other")
        return None
    return keys.check_passphrase(found or ask_passphrase("the keys, old and new", confirm=True))


def _nodes(report: Path | None) -> list[NodeTrust]:
    if report is not None:
        try:
            return readiness.read_report(json.loads(pem.read(report)))
        except ValueError:
            raise TrustError(
                "E-TYPE", f"{report} is no JSON", remedy="give what roots status --json printed"
            ) from None
    config = settings().config
    if config is None:
        raise TrustError(
            "E-USAGE",
            "what do the nodes say?",
            remedy="give --config node.toml of a node that runs here, or --from FILE: roots status --json of any node",
        )
    try:
        return readiness.read_report(ControlClient(load(config).control_socket).ask("trust"))
    except (CommandError, ConfigError) as error:
        raise TrustError("E-NOTFOUND", f"the daemon cannot be asked: {error}") from None


def _ready(
    report: Path | None, accepted: Sequence[str], version: int, over: Sequence[str] | set[str] = ()
) -> dict[str, str]:
    return readiness.check_ready(_nodes(report), version, accepted, over)


def _lag_lines(late: dict[str, str]) -> list[str]:
    return [f"lags     {host}: {reason}" for host, reason in sorted(late.items())]


def _print_step(step: Step, late: dict[str, str], held: Bundle | None = None) -> None:
    one = step.bundle
    lines = [
        f"bundle   {one.version}",
        f"SHA-256  {one.fingerprint}",
        *(f"root     {root.subject.rfc4514_string()}, {pem.fingerprint(root)}" for root in one.roots),
        *(
            f"issuer   {issuer.certificate.subject.rfc4514_string()}, {_bounds(issuer)}"
            for issuer in one.issuers
        ),
        f"changes  signed by {one.threshold} of {len(one.admin_keys)} administrators' keys",
        *(f"key      {key_id(key).hex()}" for key in one.admin_keys),
        f"file     {step.path}",
        *(f"missing  {text}" for text in step.missing),
        *_lag_lines(late),
    ]
    if step.missing:
        lines.append(
            f"next     another administrator: trust-admin roots sign {step.path.name} --private KEYS --dir DIR"
        )
    elif held is not None:
        lines.append(f"next     at the administration: trust-admin roots import {step.path.name} --dir DIR")
    else:
        lines.append(
            f"next     bring it to any one node; there: trust-admin roots import {step.path.name} --config node.toml"
        )
    data = {
        **_described(one),
        "file": str(step.path),
        "missing": list(step.missing),
        "complete": not step.missing,
        "accepted_lag": late,
    }
    print_result(lines, data)


def _bounds(issuer: BundleIssuer) -> str:
    policy = issuer.policy
    parts = [
        f"{name} {'any' if values is None else ', '.join(values) or 'none'}"
        for name, values in (("groups", policy.groups), ("roles", policy.roles))
    ]
    return f"DNS {', '.join(policy.dns_suffixes) or 'any'}; {'; '.join(parts)}; {policy.max_days} days"


def _described(one: Bundle) -> dict[str, Any]:
    return {
        "version": one.version,
        "sha256": one.fingerprint,
        "roots": [
            {"subject": root.subject.rfc4514_string(), "sha256": pem.fingerprint(root)} for root in one.roots
        ],
        "issuers": [
            {
                "subject": issuer.certificate.subject.rfc4514_string(),
                "dns_suffixes": list(issuer.policy.dns_suffixes),
                "groups": None if issuer.policy.groups is None else list(issuer.policy.groups),
                "roles": None if issuer.policy.roles is None else list(issuer.policy.roles),
                "max_days": issuer.policy.max_days,
            }
            for issuer in one.issuers
        ],
        "admin_keys": len(one.admin_keys),
        "admin_key_sha256": [key_id(key).hex() for key in one.admin_keys],
        "threshold": one.threshold,
        "not_after": rfc3339(issue.moment(one.not_after_ms)),
    }
