"""The commands that show the audit log's head to the federation: log publish, log import."""

from __future__ import annotations

from pathlib import Path

import click

from esgf_gossip.cli.trust_options import ask_passphrase, node_place, options, print_result, settings
from esgf_gossip.cli.trust_telling import no_reload, tell_daemon
from esgf_gossip.core.limits import TRUST_BODY_BYTES
from esgf_gossip.files import read_file
from esgf_gossip.trust import generations
from esgf_gossip.trust.audit_object import HEAD_SUFFIX, make_head, read_head
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import public_folder, write_public
from esgf_gossip.trust.material import AUDIT_FOLDER


@click.command("publish", epilog="Example: trust-admin log publish --dir trust --private keys")
@options("dir", "passphrase", "json")
def log_publish() -> None:
    """Sign the head of the audit log: nodes alarm if it ever shrinks or splits."""
    given = settings()
    authority = given.authority()
    count, last = authority.log.verify()
    try:
        keys = generations.admin_keys(authority.private, given.passphrase())
    except TrustError as error:
        if error.code != "E-PASSPHRASE" or given.passphrase() is not None:
            raise
        keys = generations.admin_keys(
            authority.private, ask_passphrase("the administrator's key", confirm=False)
        )
    if not keys:
        raise TrustError("E-NOTFOUND", f"{authority.private} holds no administrator's key (admin-*.key)")
    federation = authority.policy.federation
    path = authority.directory / f"{federation}{HEAD_SUFFIX}"
    # Always the same key of several: two signatures over one head would be two objects.
    write_public(path, make_head(federation, count, bytes.fromhex(last), keys[min(keys)]))
    print_result(
        [
            f"head  {count} lines, {last}",
            f"file  {path}",
            f"next  bring it to any one node; there: trust-admin log import {path.name} --config node.toml",
        ],
        {"lines": count, "head": last, "file": str(path)},
    )


@click.command("import", epilog="Example: trust-admin log import esgf.example.org.head --config node.toml")
@click.argument("file", type=click.Path(path_type=Path))
@no_reload
@options("config", "json")
def log_import(file: Path, *, no_reload: bool) -> None:
    """Hand the head of the audit log to this node: the federation compares it with what it knows."""
    config = settings().config
    if config is None:
        raise TrustError("E-USAGE", "which node?", remedy="give --config node.toml")
    place = node_place(config)
    try:
        body = read_file(file, TRUST_BODY_BYTES + 1)
    except OSError as error:
        raise TrustError("E-NOTFOUND", f"{file} cannot be read: {error.strerror}") from None
    head = read_head(body)
    if head.federation != place.federation:
        raise TrustError(
            "E-AUDIT", f"the audit log of {head.federation} is not that of {place.federation}", str(file)
        )
    folder = place.trust_directory / AUDIT_FOLDER
    try:
        public_folder(folder)
    except OSError as error:
        raise TrustError("E-FILE", f"{folder} cannot be written: {error.strerror}") from None
    write_public(folder / f"{head.federation}{HEAD_SUFFIX}", body)
    word, told = ("", "") if no_reload else tell_daemon(config)
    print_result(
        [
            f"head    {head.count} lines",
            f"daemon  {told}" if told else f"next    esgf-gossip reload --config {config}",
        ],
        {"lines": head.count, "head": head.last.hex(), "daemon": word or None},
    )
