"""
The command trust-admin: its groups, and the one place where failures become a line and a code.

Commands live in trust_admin_side.py, trust_revoke.py, trust_renewal.py, trust_node_side.py and trust_inspect.py;
what they do is done by esgf_gossip.trust. Source: docs/trust.md.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click

from esgf_gossip.cli import (
    trust_admin_side,
    trust_check,
    trust_inspect,
    trust_log,
    trust_node_side,
    trust_renewal,
    trust_revoke,
    trust_roots,
    trust_secret,
)
from esgf_gossip.cli.trust_options import PROGRAM, options, printable
from esgf_gossip.trust.errors import EXIT_FILES, EXIT_INTERNAL, EXIT_USAGE, TrustError

_EXITS: Final = (
    "Exit codes: 0 done or nothing to do; 1 internal error; 2 usage; 3 verification failed; 4 refused by policy; "
    "5 not found; 6 conflict; 7 files or permissions; 8 passphrase; check: 10 attention, 11 critical."
)
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141
_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Program(click.Group):
    """The group of all commands: ends every failure in one line."""

    def main(  # type: ignore[override]  # click declares overloads for a mode this program does not have
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run a command and exit the process with its code."""
        args = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        try:
            code = super().main(args, prog_name or PROGRAM, standalone_mode=False, **extra)
        except Exception as error:  # noqa: BLE001 - the last door: whatever comes here becomes one line
            code = _report(error, debug="--debug" in args)
        sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception, *, debug: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return EXIT_USAGE
    if isinstance(error, BrokenPipeError):
        # The reader of our output has gone: nothing to say, and nobody to say it to.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    if debug:
        traceback.print_exception(error)
    code, text, exit_code = _verdict(error)
    click.echo(printable(f"{PROGRAM}: error [{code}]: {' '.join(text.split())}"), err=True)
    return exit_code


def _verdict(error: Exception) -> tuple[str, str, int]:
    match error:
        case TrustError():
            return error.code, error.text, error.exit_code
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else PROGRAM
            return "E-USAGE", f"{error.format_message().rstrip('.')}; {path}; see {path} --help", EXIT_USAGE
        case click.Abort():
            return "E-INTERRUPTED", "interrupted; nothing more was done", _INTERRUPTED
        case click.ClickException():
            return "E-USAGE", error.format_message(), error.exit_code
        case OSError():
            where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
            what = error.strerror or type(error).__name__
            return "E-FILE", f"{what}; {where}; see that this user may read and write there", EXIT_FILES
        case _:
            what = f"{type(error).__name__}: {error}"
            return (
                "E-INTERNAL",
                f"{what}; a fault of this program; run again with --debug and report it",
                EXIT_INTERNAL,
            )


@click.group(
    cls=Program,
    context_settings=_CONTEXT,
    epilog=f"{_EXITS} Example: trust-admin init --dir trust --federation federation.example.org",
)
@options("dir", "config", "json", "yes", "passphrase")
def program() -> None:
    """Found and run the trust of a federation: who is a member, and who is no longer."""


@program.group(epilog="Example: trust-admin cert pending --dir trust")
@options("dir", "config", "json", "yes", "passphrase")
def cert() -> None:
    """Request, approve, install and inspect certificates."""


@program.group(epilog="Example: trust-admin crl show --dir trust")
@options("dir", "config", "json", "yes", "passphrase")
def crl() -> None:
    """Publish, import and inspect certificate revocation lists."""


@program.group(epilog="Example: trust-admin log verify --dir trust")
@options("dir", "config", "json", "yes", "passphrase")
def log() -> None:
    """Read and check the audit log, and show its head to the federation."""


program.add_command(trust_admin_side.init)
program.add_command(trust_secret.secret)
program.add_command(trust_check.check)
program.add_command(trust_roots.roots)
for command in (
    trust_node_side.request,
    trust_admin_side.import_,
    trust_admin_side.pending,
    trust_inspect.list_,
    trust_inspect.show,
    trust_admin_side.approve,
    trust_admin_side.deny,
    trust_revoke.revoke_,
    trust_renewal.reissue,
    trust_renewal.deliver,
    trust_renewal.renew,
    trust_renewal.collect,
    trust_node_side.install_,
    trust_inspect.verify,
):
    cert.add_command(command)
crl.add_command(trust_admin_side.crl_publish)
crl.add_command(trust_node_side.crl_import)
crl.add_command(trust_inspect.crl_show)
log.add_command(trust_inspect.log_show)
log.add_command(trust_inspect.log_verify)
log.add_command(trust_log.log_publish)
log.add_command(trust_log.log_import)


def main() -> None:
    """Run trust-admin; never returns."""
    program.main()


if __name__ == "__main__":
    main()
