"""
The commands about secrets: seal and list on the administration's side, import, open and key on a node's.

Plaintext comes from a file or a pipe and goes to a 0600 file or a pipe; never to a command line or a log.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from esgf_gossip.cli.trust_options import (
    NodePlace,
    node_place,
    options,
    print_result,
    rfc3339,
    settings,
    table,
)
from esgf_gossip.cli.trust_telling import no_reload, nodes_report, tell_daemon
from esgf_gossip.core.limits import TRUST_BODY_BYTES
from esgf_gossip.files import create_file, read_file, replace_file
from esgf_gossip.trust import issue, keys, sealed_register, sealing
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.bounds import check_issued
from esgf_gossip.trust.bundle import Bundle
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.errors import TrustError, quoted
from esgf_gossip.trust.folders import locked, public_folder
from esgf_gossip.trust.material import SEALED_FOLDER, TrustMaterial
from esgf_gossip.trust.revocation import CrlSet
from esgf_gossip.trust.seal_key import SealKey, certify, ensure_key, read_certified, with_chain
from esgf_gossip.trust.sealed_register import SealedEntry
from esgf_gossip.trust.sealing import SealedSecret
from esgf_gossip.trust.secret_object import SEALED_SUFFIX, handed_over
from esgf_gossip.trust.secret_store import SecretStore

_PATH: Final = click.Path(path_type=Path)
_NAME: Final = click.option("--name", required=True, metavar="N", help="The secret's name.")


@click.group(epilog="Example: trust-admin secret list --dir trust")
@options("dir", "config", "json", "passphrase")
def secret() -> None:
    """Seal secrets to nodes, hand them over, open them."""


def _place() -> NodePlace:
    config = settings().config
    if config is None:
        raise TrustError("E-USAGE", "which node?", remedy="give --config node.toml")
    return node_place(config)


def _material(place: NodePlace, now_ms: int) -> TrustMaterial:
    return TrustMaterial.load(
        place.trust_directory, host=place.host, federation=place.federation, now_ms=now_ms, may_be_late=True
    )


def _said_of(host: str) -> dict[str, Any]:
    found = next((one for one in nodes_report() if one["host"] == host), None)
    if found is None:
        raise TrustError(
            "E-NOTFOUND", f"{quoted(host)} is not in the federation", remedy="see esgf-gossip nodes"
        )
    return dict(found)


@secret.command(
    epilog="Example: trust-admin secret seal --to node.example.org --name esgcet --in esgcet.pass "
    "--seal-key node.example.org.sealkey --dir trust"
)
@click.option("--to", "host", required=True, metavar="NODE", help="The one node that can open it.")
@_NAME
@click.option(
    "--in", "source", required=True, metavar="F|-", help="The secret: a file, or - for standard input."
)
@click.option("--out", type=_PATH, metavar="F", help="The envelope. Default: NODE.NAME.VERSION.sealed.")
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DAY",
    help="The last day on which it opens, in UTC.",
)
@click.option(
    "--seal-key",
    "key_file",
    type=_PATH,
    metavar="F",
    help="The node's certified seal key (secret key). Default: asked of the daemon of --config.",
)
@click.option(
    "--signer",
    type=_PATH,
    metavar="DIR",
    help="Key and chain of a secret-admin. Default: PRIVATE/secret-admin.",
)
@options("dir", "config", "json")
def seal(
    host: str,
    name: str,
    source: str,
    out: Path | None,
    expires: datetime | None,
    key_file: Path | None,
    signer: Path | None,
) -> None:
    """Encrypt a secret to one node, and sign it; what was sealed is not kept."""
    given = settings()
    authority = given.authority()
    sealing.check_secret_name(name)
    expires_at_s = 0 if expires is None else _end_of_day_s(expires)
    if expires is not None and expires_at_s * 1000 <= given.now_ms:
        raise TrustError("E-USAGE", f"{expires:%Y-%m-%d} is over", remedy="give a later day with --expires")
    signing = _signer(authority, signer or given.private_directory / "secret-admin", given.now_ms)
    key = _seal_key(host, key_file, authority, given.now_ms)
    if key.host != host:
        raise TrustError("E-SEAL", f"the seal key is of {quoted(key.host)}, not of {quoted(host)}")
    version = sealed_register.next_version(authority.directory, host, name)
    envelope = sealing.seal(
        _plaintext(source), key, name, version, signing, now_ms=given.now_ms, expires_at_s=expires_at_s
    )
    path = out or Path(f"{host}.{name}.{version}{SEALED_SUFFIX}")
    sealed_register.note(
        authority.directory, SealedEntry(host, name, version, given.now_ms // 1000, expires_at_s)
    )
    authority.log.append(given.now_ms, "seal", {"node": host, "secret": name, "version": version})
    _write(path, envelope)
    print_result(
        [
            f"sealed   {name}, version {version}, to {host}",
            f"file     {path}",
            f"next     bring it to any one node; there: trust-admin secret import {path.name} --config node.toml",
        ],
        {"node": host, "name": name, "version": version, "file": str(path)},
    )


def _end_of_day_s(day: datetime) -> int:
    return int((day.replace(tzinfo=UTC) + timedelta(days=1)).timestamp())


def _trust(authority: Authority) -> tuple[TrustAnchors, Bundle | None]:
    bundles = authority.bundles()
    anchors = TrustAnchors(tuple(authority.roots()), CrlSet.choose(authority.crls()))
    return anchors, bundles[-1] if bundles else None


def _signer(authority: Authority, directory: Path, now_ms: int) -> TrustMaterial:
    """Load a secret-admin, judged by the administration: nobody brings new lists to an operator's folder."""
    signing = TrustMaterial.load(
        directory, host=None, federation=authority.policy.federation, now_ms=now_ms, may_be_late=True
    )
    anchors, bundle = _trust(authority)
    anchors.judge(signing.leaf, signing.issuers, now_ms)
    check_issued(bundle, signing.leaf)
    return signing


def _seal_key(host: str, key_file: Path | None, authority: Authority, now_ms: int) -> SealKey:
    if key_file is not None:
        content = _read(key_file, TRUST_BODY_BYTES)
    else:
        said = _said_of(host)["seal"]
        if said is None:
            raise TrustError(
                "E-NOTFOUND", f"{quoted(host)} publishes no seal key", remedy="is it a newer daemon, and up?"
            )
        content = base64.b64decode(said)
    return read_certified(content, *_trust(authority), authority.policy.federation, now_ms)


def _plaintext(source: str) -> bytes:
    most = sealing.SECRET_BYTES + 1
    if source == "-":
        return sys.stdin.buffer.read(most)
    return _read(Path(source), most)


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        return read_file(path, most_bytes)
    except FileNotFoundError:
        raise TrustError("E-NOTFOUND", f"{path} does not exist") from None
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be read: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be written: {error.strerror}") from None


@secret.command(
    "import", epilog="Example: trust-admin secret import node2.example.org.esgcet.1.sealed --config node.toml"
)
@click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE...")
@no_reload
@options("config", "json")
def import_(files: tuple[Path, ...], *, no_reload: bool) -> None:
    """Hand sealed secrets for any nodes to this one: the federation carries each to the node it is for."""
    place, now_ms = _place(), settings().now_ms
    material = _material(place, now_ms)
    bodies = [_read(file, TRUST_BODY_BYTES + 1) for file in files]
    checked = [sealing.read(body, material, now_ms) for body in bodies]
    _hand_over(place, list(zip(checked, bodies, strict=True)))
    config = settings().config
    word, told = ("", "") if no_reload or config is None else tell_daemon(config)
    lines = [f"imported  {one.name}, version {one.version}, for {one.host}" for one in checked]
    lines.append(f"daemon    {told}" if told else f"next      esgf-gossip reload --config {config}")
    data = [{"node": one.host, "name": one.name, "version": one.version} for one in checked]
    print_result(lines, {"imported": data, "daemon": word or None})


def _hand_over(place: NodePlace, envelopes: Sequence[tuple[SealedSecret, bytes]]) -> None:
    folder = place.trust_directory / SEALED_FOLDER
    try:
        public_folder(folder)
    except OSError as error:
        raise TrustError("E-FILE", f"{folder} cannot be written: {error.strerror}") from None
    with locked(place.trust_directory):
        for one, body in envelopes:
            _check_above(handed_over(place.trust_directory, one), one, body)
        for one, body in envelopes:
            _write(handed_over(place.trust_directory, one), body)


def _check_above(path: Path, offered: SealedSecret, body: bytes) -> None:
    if not path.exists():
        return
    content = _read(path, TRUST_BODY_BYTES)
    # Only its version counts: its signer may have been revoked since.
    held = sealing.parse(content, offered.federation).version
    if held > offered.version:
        raise TrustError("E-SEAL-OLD", f"version {offered.version}, already at {held}", str(path))
    if held == offered.version and content != body:
        raise TrustError(
            "E-SEAL-OLD",
            f"another envelope of version {held} is here",
            str(path),
            "only one administration may seal: have it sealed again there",
        )


@secret.command(
    "open", epilog="Example: trust-admin secret open --name esgcet --out esgcet.pass --config node.toml"
)
@_NAME
@click.option("--in", "source", type=_PATH, metavar="F", help="An envelope. Default: what has arrived here.")
@click.option(
    "--out", required=True, metavar="F|-", help="Where to: a new file (0600), or - for standard output."
)
@options("config", "json")
def open_(name: str, source: Path | None, out: str) -> None:
    """Open a secret that was sealed to this node."""
    place, now_ms = _place(), settings().now_ms
    sealing.check_secret_name(name)
    if source is None:
        store = SecretStore(place.trust_directory)
        version = store.version(name)
        if not version:
            raise TrustError(
                "E-NOTFOUND", f"no secret {quoted(name)} has arrived here", remedy="see secret list --config"
            )
        plaintext = _read(store.path(name), sealing.SECRET_BYTES)
    else:
        material = _material(place, now_ms)
        sealed = sealing.read(_read(source, TRUST_BODY_BYTES + 1), material, now_ms)
        if sealed.name != name:
            raise TrustError("E-SEAL", f"the envelope holds {quoted(sealed.name)}, not {quoted(name)}")
        held = SecretStore(place.trust_directory).version(name)
        if sealed.version < held:
            raise TrustError("E-SEAL-OLD", f"version {sealed.version}, already at {held}")
        plaintext = sealing.open_sealed(sealed, place.trust_directory, place.host, now_ms)
        version = sealed.version
    if out == "-":
        sys.stdout.buffer.write(plaintext)
        sys.stdout.buffer.flush()
        return
    keys.refuse_git(Path(out))
    try:
        create_file(Path(out), plaintext)
    except FileExistsError:
        raise TrustError("E-EXISTS", f"{out} exists", remedy="name another file") from None
    except OSError as error:
        raise TrustError("E-FILE", f"{out} cannot be written: {error.strerror}") from None
    print_result(
        [f"opened  {name}, version {version}, to {out}"], {"name": name, "version": version, "file": out}
    )


@secret.command("list", epilog="Example: trust-admin secret list --node node.example.org --dir trust")
@click.option("--node", "host", metavar="NODE", help="Only those sealed to this node.")
@options("dir", "config", "json")
def list_(host: str | None) -> None:
    """List what was sealed (--dir), or what was opened on a node (--config): names and versions, never more."""
    given = settings()
    if given.config is not None:
        opened = SecretStore(_place().trust_directory).receipts()
        rows = [("NAME", "VERSION"), *((name, str(version)) for name, version in opened)]
        print_result(
            table(rows) if opened else ["no secret has arrived"],
            [{"name": name, "version": version} for name, version in opened],
        )
        return
    found = [one for one in sealed_register.sealed(given.authority().directory) if host in (None, one.node)]
    rows = [("NODE", "NAME", "VERSION", "SEALED")]
    rows.extend(
        (one.node, one.name, str(one.version), rfc3339(issue.moment(one.sealed_at_s * 1000))) for one in found
    )
    data = [
        {
            "node": one.node,
            "name": one.name,
            "version": one.version,
            "sealed": rfc3339(issue.moment(one.sealed_at_s * 1000)),
            "expires": rfc3339(issue.moment(one.expires_at_s * 1000)) if one.expires_at_s else None,
        }
        for one in found
    ]
    print_result(table([tuple(row) for row in rows]) if found else ["nothing was sealed"], data)


@secret.command(epilog="Example: trust-admin secret status esgcet --dir trust --config node.toml")
@click.argument("name", metavar="N")
@options("dir", "config", "json")
def status(name: str) -> None:
    """Say which nodes have opened the newest version of a secret, by their signed receipts."""
    given = settings()
    newest = {
        one.node: one for one in sealed_register.sealed(given.authority().directory) if one.name == name
    }
    if not newest:
        raise TrustError("E-NOTFOUND", f"no secret {quoted(name)} was sealed here", remedy="see secret list")
    opened = {
        node["host"]: next((one["version"] for one in node["receipts"] if one["name"] == name), 0)
        for node in nodes_report()
    }
    data = [
        {
            "node": host,
            "sealed": one.version,
            "opened": opened.get(host, 0),
            "done": opened.get(host, 0) >= one.version,
        }
        for host, one in sorted(newest.items())
    ]
    rows = [("NODE", "SEALED", "OPENED")]
    rows.extend((str(one["node"]), str(one["sealed"]), str(one["opened"] or "-")) for one in data)
    print_result(table(rows), data)


@secret.command(
    "key", epilog="Example: trust-admin secret key --config node.toml --out node.example.org.sealkey"
)
@click.option("--out", type=_PATH, metavar="F", help="Where to. Default: NODE.sealkey.")
@click.option("--rotate", is_flag=True, help="Make a new key; what was sealed to the last one still opens.")
@options("config", "json")
def key(out: Path | None, *, rotate: bool) -> None:
    """Write this node's public seal key, certified by the node; the running daemon publishes it anyway."""
    place, now_ms = _place(), settings().now_ms
    material = _material(place, now_ms)
    needed = SecretStore(place.trust_directory).key_ids()
    held = ensure_key(place.trust_directory, now_ms, rotate=rotate, needed=needed)
    path = out or Path(f"{place.host}.sealkey")
    _write(path, with_chain(certify(material, held), material.signer.chain))
    print_result([f"seal key  {path}"], {"node": place.host, "file": str(path), "rotated": rotate})
