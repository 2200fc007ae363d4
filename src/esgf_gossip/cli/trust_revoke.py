"""The command of the trust administrator that ends a membership: cert revoke."""

from __future__ import annotations

import click

from esgf_gossip.cli.trust_options import options, print_result, settings, unlocked
from esgf_gossip.trust.revoke import REASONS, find, revoke
from esgf_gossip.trust.sealed_register import sealed_for


@click.command(
    "revoke",
    epilog="Example: trust-admin cert revoke node.example.org --reason keyCompromise --dir trust --private keys",
)
@click.argument("wanted", metavar="SERIAL|NODE")
@click.option(
    "--reason",
    required=True,
    type=click.Choice(list(REASONS), case_sensitive=False),
    help="Why; it stands in the CRL and in the audit log.",
)
@options("dir", "passphrase", "json")
def revoke_(wanted: str, reason: str) -> None:
    """End a certificate, or all that a node has, and sign the CRL that says so; never taken back."""
    given = settings()
    authority = given.authority()
    # The cheap refusal before the passphrase is asked for.
    find(authority, wanted, given.now_ms)
    done = revoke(unlocked(authority), wanted, REASONS[reason], given.now_ms)
    serials = [f"{serial:x}" for serial in done.serials]
    known = [{"name": one.name, "version": one.version} for one in sealed_for(authority.directory, done.host)]
    data = {"node": done.host, "serials": serials, "crl": done.number, "secrets": known}
    if not done.published:
        print_result([f"already revoked in CRL {done.number}"], {**data, "revoked": False, "file": None})
        return
    paths = [one.path for one in done.published]
    names = " ".join(path.name for path in paths)
    print_result(
        [
            f"revoked  {', '.join(serials)} of {done.host}, in CRL {done.number}",
            *(f"file     {path}" for path in paths),
            *(
                f"change   secret {one['name']}, of which the node could open version {one['version']}"
                for one in known
            ),
            f"next     bring it to any one node; there: trust-admin crl import {names} --config node.toml",
        ],
        {**data, "revoked": True, "file": str(paths[0]), "files": [str(path) for path in paths]},
    )
