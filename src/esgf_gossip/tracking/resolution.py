"""What came of asking for the address of a user."""

from __future__ import annotations

from enum import StrEnum

import attrs


class Finding(StrEnum):
    """What was found."""

    FOUND = "found"
    # Final: the identity provider does not know the user, or the account is not valid.
    UNKNOWN = "unknown"
    # Nobody answered, or not as it should: to be asked again.
    UNANSWERED = "unanswered"


@attrs.frozen
class Resolution:
    """
    The address of a user, or why there is none.

    ``address``: as its source spells it; empty unless ``FOUND``. ``is_opt_in``: the source says that the user wants
    mail (``notification_code`` 1); False says nothing. ``source``: ``database``, ``cog``, ``saml``, ``cache``.
    ``reason``: for the operator, one line, without OpenID and address.
    """

    finding: Finding
    address: str = attrs.field(default="", repr=False)
    is_opt_in: bool = False
    source: str = ""
    reason: str = ""
