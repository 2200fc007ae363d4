"""
Which ``Host`` a request may name: the guard against DNS rebinding.

Only the judgement lives here. A page of a stranger can make a browser on this
machine talk to us under the stranger's name, and read the answers; a name that
is not ours gets none. Source: contract.md (421), RFC 9110, 7.2 and 15.5.20.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final

# Any port makes another field.
ACCEPTED_KEPT: Final = 64

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+)(?::([0-9]{0,5}))?")


_LOOPBACK: Final = re.compile(r"127(\.[0-9]{1,3}){3}|::1|localhost")


def is_loopback(name: str) -> bool:
    """Tell whether a name or an address, without port and brackets, means this host alone."""
    return _LOOPBACK.fullmatch(name.lower()) is not None


class HostNames:
    """
    The names this node is asked by, compared without case and without port.

    The port says nothing about who made the page, and differs behind a tunnel
    (``ssh -L``), so it is read and ignored.
    """

    def __init__(self, names: Collection[str]) -> None:
        """
        Take names and IP addresses, each with or without port, IPv6 with or without brackets.

        Raises:
            ValueError: one of them is no host name.
        """
        self._names = frozenset(_configured(name) for name in names)
        # The fields as clients write them: a handful, so that each is read once and not at every request.
        self._accepted: set[str] = set()

    def accepts(self, authority: str) -> bool:
        """
        Tell whether a ``Host`` field names this node.

        Raises:
            ValueError: the field is no host with an optional port.
        """
        if authority in self._accepted:
            return True
        is_ours = host_of(authority) in self._names
        if is_ours and len(self._accepted) < ACCEPTED_KEPT:
            self._accepted.add(authority)
        return is_ours


def _configured(name: str) -> str:
    try:
        return _canonical(str(ipaddress.ip_address(name)))
    except ValueError:
        return host_of(name)


def host_of(authority: str) -> str:
    """
    Return the host of a ``Host`` field, without port and brackets, written one way.

    Raises:
        ValueError: the field is no host with an optional port.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise ValueError("not a host name with an optional port")
    return _canonical(match[1].strip("[]"))


def _canonical(host: str) -> str:
    """Write one host one way: lower case, no final dot, shortest IPv6."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")
