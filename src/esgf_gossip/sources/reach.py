"""
Whom a look at services of others may reach: their own host, at an address that is everybody's.

A registration is a text of a stranger: without this a member could have all others knock at any door inside a site.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from esgf_gossip.esgf.services import Service

# Of a host with many addresses so many are tried.
ADDRESSES_MOST: Final = 3

Network = IPv4Network | IPv6Network


class NotAllowed(Exception):  # noqa: N818 - an outcome, not a fault of ours
    """Report that a look may not go there."""


def host_of(service: Service) -> str:
    """Return the host of an endpoint in lower case; empty where it names none."""
    try:
        text = service.endpoint if "//" in service.endpoint else f"//{service.endpoint}"
        return (urlsplit(text).hostname or "").lower()
    except ValueError:
        return ""


def is_own(service: Service, member: str, allowed: Sequence[Network]) -> bool:
    """Tell whether a service is on the member's own host, whose name its certificate holds, or at an allowed address."""
    host = host_of(service)
    return host == member or _is_in(host, allowed)


def is_open(address: str, allowed: Sequence[Network]) -> bool:
    """Tell whether an address is everybody's: neither loopback nor private, link-local, multicast or reserved; or allowed."""
    if _is_in(address, allowed):
        return True
    try:
        found: IPv4Address | IPv6Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    # What the kernel would send to the address within.
    found = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None) or found
    return found.is_global and not found.is_multicast


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


@implementer(IStreamClientEndpoint)
class OpenEndpoint:
    """Connects to a host by addresses that were looked at: a second look-up could give others."""

    def __init__(self, reactor: Any, host: str, port: int, allowed: Sequence[Network]) -> None:
        self._reactor: Final = reactor
        self._host: Final = host
        self._port: Final = port
        self._allowed: Final = allowed

    @inlineCallbacks
    def connect(self, factory: Any) -> Iterator[Any]:
        """
        Connect; fires with the protocol.

        Raises:
            NotAllowed: the host has no open address.
            ConnectError, DNSLookupError: as ``HostnameEndpoint``.
        """
        addresses = yield self._addresses()
        if not addresses:
            raise NotAllowed(f"{self._host} has no address that may be looked at")
        for number, address in enumerate(addresses):
            try:
                protocol = yield HostnameEndpoint(self._reactor, address, self._port).connect(factory)
            except ConnectError:
                if number == len(addresses) - 1:
                    raise
            else:
                return protocol

    def _addresses(self) -> Deferred[list[str]]:
        def look_up() -> list[str]:
            try:
                rows = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise DNSLookupError(f"{self._host} is not known: {error}") from None
            found = dict.fromkeys(str(row[4][0]) for row in rows)
            return [address for address in found if is_open(address, self._allowed)][:ADDRESSES_MOST]

        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), look_up)
