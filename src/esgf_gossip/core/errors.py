"""
The errors of the core, sorted by whose fault they are.

Only exception classes live here. A peer's fault is a ``WireError``, an
origin's fault a ``DigestRefused``; anything else that escapes the core is ours.
"""

from __future__ import annotations

from typing import Final


class WireError(Exception):
    """
    Report bytes of a peer that are not our protocol.

    The receiver counts it and closes that link; no other state changes.
    """


class VersionMismatchError(WireError):
    """Report a peer that speaks no version of the protocol that we speak."""


class UnknownFormatError(WireError):
    """Report a digest of a later format: nobody's fault, so no reason to part from the peer that relays it."""


class DigestRefused(Exception):  # noqa: N818 - a verdict about an origin, not an error of the program
    """
    Refuse one digest, say why, and whether to remember the verdict.

    The table is unchanged. ``lasting`` is False where the verdict may change
    with the clock alone (a digest dated ahead of us), so it is not remembered.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        """Keep the reason, one line for the operator."""
        super().__init__(reason)
        self.reason: Final = reason
        self.lasting: Final = lasting


class ObjectRefused(Exception):  # noqa: N818 - a verdict about an issuer's word, not an error of the program
    """
    Refuse one trust object, say why, and whether to remember the verdict until trust changes.

    ``lasting`` is False where the clock alone may change the verdict. ``contradicts``: it is rightly signed,
    under the number of the one held, and says something else: both together are proof of that.
    """

    def __init__(self, reason: str, *, lasting: bool = True, contradicts: bool = False) -> None:
        """Keep the reason, one line for the operator."""
        super().__init__(reason)
        self.reason: Final = reason
        self.lasting: Final = lasting
        self.contradicts: Final = contradicts
