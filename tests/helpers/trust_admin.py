"""The command trust-admin run inside the test's process, and what it left behind."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from click.testing import CliRunner

from esgf_gossip.cli.trust_admin import program
from helpers.trust import TestFederation


@attrs.frozen
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The code in the error line."""
        return self.err.partition("[")[2].partition("]")[0]


def run(*arguments: object, stdin: str | None = None) -> Ran:
    """Run trust-admin in this process."""
    result = CliRunner().invoke(program, [str(argument) for argument in arguments], input=stdin)
    return Ran(result.exit_code, result.stdout, result.stderr)


def admin(federation: TestFederation) -> Sequence[object]:
    """Return the options that name the administration."""
    return "--dir", federation.authority.directory, "--private", federation.authority.private
