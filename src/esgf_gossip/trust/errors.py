"""
How trust says no: one exception, its codes, and the exit code each stands for.

Only words of failure live here; who fails, and why, is the other modules' affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# The exit codes of trust-admin; they are public (docs/trust.md).
EXIT_INTERNAL: Final = 1
EXIT_USAGE: Final = 2
EXIT_VERIFICATION: Final = 3
EXIT_POLICY: Final = 4
EXIT_NOT_FOUND: Final = 5
EXIT_CONFLICT: Final = 6
EXIT_FILES: Final = 7
EXIT_PASSPHRASE: Final = 8

# A code that is not named here is a failed verification.
_EXITS: Final[Mapping[str, int]] = {
    "E-NAME": EXIT_USAGE,
    "E-URI": EXIT_USAGE,
    "E-USAGE": EXIT_USAGE,
    "E-CONFIG": EXIT_USAGE,
    "E-POLICY": EXIT_POLICY,
    "E-FPR": EXIT_POLICY,
    "E-CLOCK": EXIT_POLICY,
    "E-ROOT": EXIT_POLICY,
    "E-GIT": EXIT_POLICY,
    "E-NOTFOUND": EXIT_NOT_FOUND,
    "E-EXISTS": EXIT_CONFLICT,
    "E-DUPLICATE": EXIT_CONFLICT,
    "E-CRL-ROLLBACK": EXIT_CONFLICT,
    "E-CRL-FORK": EXIT_CONFLICT,
    "E-CRL-SHRINK": EXIT_CONFLICT,
    "E-SEAL-OLD": EXIT_CONFLICT,
    "E-AUDIT-SHRINK": EXIT_CONFLICT,
    "E-SIZE": EXIT_USAGE,
    "E-BUNDLE": EXIT_CONFLICT,
    "E-BUNDLE-FORK": EXIT_CONFLICT,
    "E-BUNDLE-START": EXIT_POLICY,
    "E-LAG": EXIT_POLICY,
    "E-MODE": EXIT_FILES,
    "E-OWNER": EXIT_FILES,
    "E-LINK": EXIT_FILES,
    "E-FILE": EXIT_FILES,
    "E-PASSPHRASE": EXIT_PASSPHRASE,
}


class TrustError(Exception):
    """
    Report that something is not trusted, or not as it must be: what, where, what to do.

    Nothing is changed when it is raised, unless the raiser says so.
    """

    def __init__(self, code: str, what: str, where: str = "", remedy: str = "") -> None:
        self.code: Final = code
        self._parts: Final = (what, where, remedy)
        self.text: Final = "; ".join(_one_line(part) for part in (what, where, remedy) if part)
        super().__init__(f"{code}: {self.text}")

    def found_in(self, where: str) -> TrustError:
        """Return the same error with the place where it was found, if it names none yet."""
        what, named, remedy = self._parts
        return self if named or "/" in what else TrustError(self.code, what, where, remedy)

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this error."""
        return _EXITS.get(self.code, EXIT_VERIFICATION)


def quoted(text: str) -> str:
    """Return a text from outside in quotes, with every character that is not printable ASCII escaped."""
    return "'" + text.encode("ascii", "backslashreplace").decode("ascii").translate(_ESCAPES) + "'"


_ESCAPES: Final = {number: f"\\x{number:02x}" for number in (*range(32), 127)}


def _one_line(text: str) -> str:
    # Names of strangers' certificates end up here, and then in logs and on terminals.
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
