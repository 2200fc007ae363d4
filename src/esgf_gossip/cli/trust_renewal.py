"""
The commands of renewal: reissue and collect on the administration's side, deliver and renew on a node's.

What they do is done by esgf_gossip.trust.authority and esgf_gossip.trust.renewal.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from esgf_gossip.cli.trust_options import (
    node_place,
    options,
    print_result,
    rfc3339,
    settings,
    table,
    unlocked,
)
from esgf_gossip.cli.trust_telling import no_reload, nodes_report, tell_daemon
from esgf_gossip.trust import pem, profile, rekey, renewal
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import EXIT_POLICY, TrustError
from esgf_gossip.trust.install import read_bundle
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.policy import DAYS_DEFAULT
from esgf_gossip.trust.revocation import CrlSet, milliseconds


def _date(moment_ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(moment_ms / 1000, UTC))


@click.command(epilog="Example: trust-admin cert reissue --all --if-needed --dir trust --private keys")
@click.argument("hosts", nargs=-1, metavar="[NODE...]")
@click.option(
    "--all",
    "everybody",
    is_flag=True,
    help="Every node with a certificate that is neither expired nor revoked.",
)
@click.option(
    "--if-needed", is_flag=True, help="Only those of whose certificate two thirds of the life are over."
)
@click.option("--days", default=DAYS_DEFAULT, show_default=True, help="Life of the new certificates.")
@options("dir", "passphrase", "json")
def reissue(hosts: Sequence[str], days: int, *, everybody: bool, if_needed: bool) -> None:
    """Sign new certificates for the same keys and names; the nodes take them by themselves once delivered."""
    given = settings()
    if bool(hosts) == everybody:
        raise TrustError("E-USAGE", "which nodes?", remedy="name them, or give --all")
    authority = given.authority()
    newest = _newest(authority, given.now_ms)
    chosen = sorted(newest) if everybody else list(dict.fromkeys(hosts))
    if if_needed:
        chosen = [host for host in chosen if host not in newest or renewal.is_due(newest[host], given.now_ms)]
    if not chosen:
        print_result(["nothing to do: no certificate is due"], {"reissued": []})
        return
    able = unlocked(authority)
    done = [able.reissue(host, now_ms=given.now_ms, days=days) for host in chosen]
    rows = [("NODE", "SERIAL", "UNTIL", "FILE")]
    rows.extend(
        (one.names.host, f"{one.serial:x}", _date(one.not_after_ms), str(one.bundle_path)) for one in done
    )
    data = [
        {
            "node": one.names.host,
            "serial": f"{one.serial:x}",
            "not_after": _date(one.not_after_ms),
            "bundle": str(one.bundle_path),
        }
        for one in done
    ]
    names = " ".join(one.bundle_path.name for one in done)
    print_result(
        [
            *table(rows),
            f"next  bring the files to any one node; there: trust-admin cert deliver {names} --config node.toml",
        ],
        {"reissued": data},
    )


def _newest(authority: Authority, now_ms: int) -> dict[str, pem.Certificate]:
    revoked = authority.revoked_serials()
    found = {}
    for one in authority.issued():
        host = profile.leaf_names(one).host
        if one.serial_number in revoked or milliseconds(one.not_valid_after_utc) < now_ms:
            found.pop(host, None)
        else:
            found[host] = one
    return found


@click.command(epilog="Example: trust-admin cert deliver node2.example.org.bundle.pem --config node.toml")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@no_reload
@options("config", "json")
def deliver(files: Sequence[Path], *, no_reload: bool) -> None:
    """Hand certificates of any nodes to this one: the federation carries each to the node it is for."""
    config = settings().config
    if config is None:
        raise TrustError("E-USAGE", "which node?", remedy="give --config node.toml")
    place = node_place(config)
    chains = [read_bundle(pem.read(file), str(file)).chain for file in files]
    hosts = [profile.leaf_names(chain[0], place.federation).host for chain in chains]
    for chain in chains:
        renewal.deliver(place.trust_directory, chain, place.federation)
    word, told = ("", "") if no_reload else tell_daemon(config)
    lines = [f"delivered  {host}" for host in hosts]
    lines.append(f"daemon     {told}" if told else f"next       esgf-gossip reload --config {config}")
    print_result(lines, {"delivered": hosts, "daemon": word or None})


@click.command(epilog="Example: trust-admin cert renew --if-needed --config node.toml")
@click.option(
    "--if-needed", is_flag=True, help="Do nothing before two thirds of the certificate's life are over."
)
@click.option(
    "--rekey", is_flag=True, help="For a new key; the old one stays in force until the certificate is here."
)
@options("config", "json")
def renew(*, if_needed: bool, rekey: bool) -> None:
    """Ask for this node's next certificate: the same names, the same key or a new one."""
    given = settings()
    if given.config is None:
        raise TrustError("E-USAGE", "which node?", remedy="give --config node.toml")
    place = node_place(given.config)
    material = TrustMaterial.load(
        place.trust_directory,
        host=place.host,
        federation=place.federation,
        now_ms=given.now_ms,
        may_be_late=True,
    )
    until = _date(material.not_after_ms)
    if if_needed and not renewal.is_due(material.leaf, given.now_ms):
        print_result(
            [f"nothing to do: the certificate is good until {until}"],
            {"needed": False, "not_after": until, "request": None},
        )
        return
    made = renewal.request_renewal(place.trust_directory, material, given.now_ms, rekey=rekey)
    print_result(
        [
            f"request      {made.path}",
            f"fingerprint  {made.fingerprint}",
            f"as words     {made.words}",
            "next         send the request to the trust administrator, and tell the fingerprint by voice",
        ],
        {
            "needed": True,
            "not_after": until,
            "request": str(made.path),
            "fingerprint": made.fingerprint,
            "words": made.words,
        },
    )


@click.command(epilog="Example: trust-admin cert collect --config node.toml --dir trust --private keys")
@click.option("--days", default=DAYS_DEFAULT, show_default=True, help="Life of the new certificates.")
@options("dir", "config", "passphrase", "json")
def collect(days: int) -> None:
    """Sign for the new keys that nodes ask for with their old ones: same names, so nothing to compare."""
    given = settings()
    authority = given.authority()
    anchors = TrustAnchors(tuple(authority.roots()), CrlSet.choose(authority.crls()))
    federation = authority.policy.federation
    asked = [base64.b64decode(one["request"]) for one in nodes_report() if one["request"] is not None]
    requests, refused = [], []
    for content in asked:
        try:
            request = rekey.check(content, anchors, federation, given.now_ms)
        except TrustError as error:
            refused.append(str(error))
        else:
            # One that was signed and not delivered yet is still asked for.
            requests.extend([] if authority.is_certified(request) else [request])
    done = []
    if requests:
        able = unlocked(authority)
        for request in requests:
            try:
                done.append(able.rekey(request, now_ms=given.now_ms, days=days))
            except TrustError as error:
                refused.append(str(error))
    lines = [
        f"{one.names.host}  {one.serial:x}  until {_date(one.not_after_ms)}  {one.bundle_path}"
        for one in done
    ] or ["nothing to do: no node asks for a new key"]
    lines.extend(f"refused  {text}" for text in refused)
    if done:
        names = " ".join(one.bundle_path.name for one in done)
        lines.append(
            f"next  bring the files to any one node; there: trust-admin cert deliver {names} --config node.toml"
        )
    data = [
        {"node": one.names.host, "serial": f"{one.serial:x}", "bundle": str(one.bundle_path)} for one in done
    ]
    print_result(lines, {"signed": data, "refused": refused})
    if refused:
        click.get_current_context().exit(EXIT_POLICY)
