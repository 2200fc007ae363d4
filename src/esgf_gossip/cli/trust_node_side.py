"""
The commands of a node's administrator: ask for a certificate, install it, take fresh CRLs.

They need no CA key and no administration. Each is a few lines around
esgf_gossip.trust.requests and esgf_gossip.trust.install.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from esgf_gossip.cli.trust_options import NodePlace, node_place, options, print_result, rfc3339, settings
from esgf_gossip.cli.trust_telling import no_reload, tell_daemon
from esgf_gossip.trust import issue, pem, revocation
from esgf_gossip.trust.bundle_files import read_bundles
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.install import ApprovedFile, import_crls, install, read_bundle, unknown_roots
from esgf_gossip.trust.material import read_crls, read_roots
from esgf_gossip.trust.requests import make_request


@click.command(
    epilog="Example: trust-admin cert request --config node.toml --group esgf-test; or, without a node.toml: "
    "trust-admin cert request --out trust --federation esgf.example.org --dns node.example.org"
)
@click.option(
    "--node", "host", metavar="ID", help="The node's one name. Default: node.host, else the first --dns."
)
@click.option("--federation", metavar="F", help="The federation to join. Default: node.federation.")
@click.option(
    "--dns", multiple=True, metavar="H", help="A DNS name of the node; repeatable. Default: the node's name."
)
@click.option("--group", "groups", multiple=True, metavar="G", help="A group to ask for; repeatable.")
@click.option("--role", "roles", multiple=True, metavar="R", help="A role to ask for; repeatable.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The trust directory, without --config."
)
@click.option("--same-key", is_flag=True, help="A new request for the key that is there.")
@options("config", "json")
def request(
    host: str | None,
    federation: str | None,
    dns: Sequence[str],
    groups: Sequence[str],
    roles: Sequence[str],
    out: Path | None,
    *,
    same_key: bool,
) -> None:
    """Make this node's key and the request for its certificate."""
    if host is None and dns and settings().config is None:
        host = dns[0]
    place = _place(out, host, federation)
    made = make_request(
        place.trust_directory, place.host, place.federation, dns, groups, roles, same_key=same_key
    )
    print_result(
        [
            f"request      {made.path}",
            f"fingerprint  {made.fingerprint}",
            f"as words     {made.words}",
            "next         send the request to the trust administrator, and tell the fingerprint by voice",
        ],
        {"request": str(made.path), "fingerprint": made.fingerprint, "words": made.words, "node": place.host},
    )


@click.command(
    "install",
    epilog="Example: trust-admin cert install node.example.org.bundle.pem --config node.toml --root-fingerprint 9c41...",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--roots", type=click.Path(path_type=Path), metavar="DIR", help="A folder of roots, beside those in FILE."
)
@click.option(
    "--crl", "crls", type=click.Path(path_type=Path), metavar="DIR", help="A folder of CRLs, likewise."
)
@click.option(
    "--root-fingerprint", "told", metavar="X", help="SHA-256 of the root to trust, as you were told it."
)
@click.option("--node", "host", metavar="ID", help="The node's one name, without --config.")
@click.option("--federation", metavar="F", help="The federation, without --config.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The trust directory, without --config."
)
@options("config", "json")
def install_(
    file: Path,
    roots: Path | None,
    crls: Path | None,
    told: str | None,
    host: str | None,
    federation: str | None,
    out: Path | None,
) -> None:
    """Check an approved certificate against this node's key and trust, then install it."""
    place = _place(out, host, federation)
    content = pem.read(file)
    bundle = read_bundle(content, str(file))
    offered = [*bundle.roots, *(read_roots(roots) if roots else [])]
    vouched = _vouched(place.trust_directory, offered, bundle, told)
    material = install(
        place.trust_directory,
        b"".join(map(pem.certificate_pem, bundle.chain)),
        vouched,
        [*bundle.crls, *(read_crls(crls) if crls else [])],
        host=place.host,
        federation=place.federation,
        now_ms=settings().now_ms,
        bundles=bundle.bundles,
    )
    until = rfc3339(datetime.fromtimestamp(material.not_after_ms / 1000, UTC))
    findings = [finding.text for finding in material.findings(settings().now_ms)]
    print_result(
        [
            f"installed  {place.trust_directory}",
            f"until      {until}",
            *(f"note       {text}" for text in findings),
        ],
        {
            "directory": str(place.trust_directory),
            "node": place.host,
            "not_after": until,
            "findings": findings,
        },
    )


@click.command("import", epilog="Example: trust-admin crl import issuing-g1.crl.pem --config node.toml")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The trust directory, without --config."
)
@no_reload
@options("config", "json")
def crl_import(files: Sequence[Path], out: Path | None, *, no_reload: bool) -> None:
    """Take newer CRLs, or those of a bundle, into this node's trust; all of them or none."""
    config = settings().config
    if (config is None) == (out is None):
        raise TrustError("E-USAGE", "which node?", remedy="give --config node.toml, or --out DIR")
    directory = out if config is None else node_place(config).trust_directory
    assert directory is not None
    offered = [crl for file in files for crl in pem.revocation_lists(pem.read(file), str(file))]
    done = import_crls(directory, offered, now_ms=settings().now_ms)
    data: list[dict[str, Any]] = [
        {
            "issuer": revocation.issuer_name(crl),
            "number": revocation.number(crl),
            "next_update": rfc3339(issue.moment(revocation.next_update_ms(crl))),
            "revoked": [f"{serial:x}" for serial in sorted(revocation.serials(crl))],
            "file": str(path),
        }
        for crl, path in done.taken
    ]
    notes = ["this node's own certificate is revoked"] if done.revokes_this_node else []
    word, told = "", ""
    if data and config is not None and not no_reload:
        word, told = tell_daemon(config)
    lines = [
        f"in force  CRL {one['number']} of {one['issuer']}, next due {one['next_update']}, "
        f"{len(one['revoked'])} revoked"
        for one in data
    ]
    lines.extend(f"note      {text}" for text in notes)
    if told:
        lines.append(f"daemon    {told}")
    else:
        reload = "esgf-gossip reload" + (f" --config {config}" if config is not None else "")
        lines.append(f"next      {reload}" if data else "nothing to do: held already")
    data_out = {"imported": data, "held": len(done.known), "notes": notes, "daemon": word or None}
    print_result(lines, data_out)


def _vouched(
    directory: Path, offered: Sequence[pem.Certificate], file: ApprovedFile, told: str | None
) -> Sequence[pem.Certificate]:
    """Return the roots to begin with: with trust bundles one that a person knows is enough, it vouches for the others."""
    unknown = unknown_roots(directory, offered)
    if read_bundles(directory):
        return []
    if file.bundles and unknown:
        wanted = "" if told is None else told.lower().replace(":", "").strip()
        chosen = next((root for root in unknown if pem.fingerprint(root) == wanted), unknown[0])
        if len(unknown) == len(offered) or told is not None:
            _confirm(chosen, told)
            return [chosen]
        return []
    for root in unknown:
        _confirm(root, told)
    return offered


def _confirm(root: pem.Certificate, told: str | None) -> None:
    digest = pem.fingerprint(root)
    name = root.subject.rfc4514_string()
    if told is not None:
        if told.lower().replace(":", "").strip() != digest:
            raise TrustError(
                "E-ROOT",
                f"you gave {told[:12]}.., the root {name} is {digest[:12]}..",
                remedy="do not install it, ask the trust administrator again",
            )
        return
    if not sys.stdin.isatty():
        raise TrustError(
            "E-ROOT",
            f"the root {name} is not trusted here yet",
            f"SHA-256 {digest}",
            "compare it with what the trust administrator tells you, then give --root-fingerprint",
        )
    click.echo(f"New root {name}\nSHA-256 {digest}", err=True)
    if not click.confirm("Is that what the trust administrator told you?", err=True):
        raise TrustError("E-ROOT", "the root is not trusted; nothing was installed")


def _place(out: Path | None, host: str | None, federation: str | None) -> NodePlace:
    config = settings().config
    if config is not None:
        place = node_place(config)
        for name, given, fixed in (
            ("--node", host, place.host),
            ("--federation", federation, place.federation),
        ):
            if given is not None and given != fixed:
                raise TrustError("E-USAGE", f"{name} {given!r} is not {fixed!r}", str(config))
        if out is not None:
            raise TrustError("E-USAGE", "--out and --config contradict each other")
        return place
    if out is None or host is None or federation is None:
        raise TrustError(
            "E-USAGE",
            "which node?",
            remedy="give --config node.toml, or --out, --federation and --node or --dns",
        )
    return NodePlace(out, host, federation)
