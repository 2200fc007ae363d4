"""
Host names and addresses as people write them in node.toml and on command lines, and back.

Words only: nothing is resolved, nothing is dialled. Source: docs/operations.md.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

EVERY_ADDRESS: Final = frozenset({"::", "0.0.0.0"})  # noqa: S104 - to refuse it
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_host(text: str) -> str:
    """
    Return a DNS name unchanged if it is strictly one: lower-case, no dot at its end, not an address.

    Raises:
        ValueError: with the reason; the name is quoted in it.
    """
    quoted = shown(text)
    if text != text.lower() and text.isascii():
        raise ValueError(f"{quoted} has capital letters: write {shown(text.lower())}")
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{quoted} is not a DNS name: write a-z, 0-9, '-' and '.' only, as node.example.org")
    if labels[-1].isdigit():
        raise ValueError(f"{quoted} is an address, not a DNS name: write a name, as node.example.org")
    return text


def parse_address(text: str, port_min: int = 1) -> tuple[str, int]:
    """
    Split ``host:port``, ``192.0.2.1:port`` or ``[2001:db8::1]:port``.

    Raises:
        ValueError: with the reason and the form expected.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{shown(text)} is not an address: write host:port, as node.example.org:8951")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and port_min <= int(port) <= 65535):
        raise ValueError(f"{shown(text)} has no good port: write {port_min} to 65535 after the last ':'")
    if host.startswith("[") and host.endswith("]"):
        return _ip_text(host[1:-1], 6, text), int(port)
    if ":" in host:
        raise ValueError(f"{shown(text)} holds an IPv6 address without brackets: write [2001:db8::1]:8951")
    if host.rpartition(".")[2].isdigit():
        return _ip_text(host, 4, text), int(port)
    return check_host(host.lower()), int(port)


def format_address(address: tuple[str, int]) -> str:
    """Print an address as ``host:port``, an IPv6 address in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ip_text(text: str, version: int, whole: str) -> str:
    try:
        # A zone ("%eth0") means something on one host only.
        address = None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version:
        example = "[2001:db8::1]:8951" if version == 6 else "192.0.2.1:8951"
        raise ValueError(f"{shown(whole)} holds no IPv{version} address: write it as {example}")
    return str(address)


def parse_listen(text: str) -> tuple[str, int]:
    """
    Split an address to listen on: an IP address, or localhost.

    Raises:
        ValueError: with the reason and the form expected.
    """
    host, port = parse_address(text)
    if host == "localhost":
        return "127.0.0.1", port
    if ":" not in host and not host.rpartition(".")[2].isdigit():
        raise ValueError(f"{shown(text)} has no IP address: write [::] for all, 127.0.0.1 for local only")
    return host, port


def parse_dial(text: str, port_min: int) -> tuple[str, int]:
    """
    Split an address that others connect to.

    Raises:
        ValueError: with the reason and the form expected.
    """
    host, port = parse_address(text, port_min)
    if host in EVERY_ADDRESS:
        raise ValueError(f"{shown(text)} cannot be dialled: write the name or address that others reach")
    return host, port


def parse_accepted(text: str) -> str:
    """
    Return an IP address or a DNS name, in the form that is compared.

    Raises:
        ValueError: with the reason.
    """
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return check_host(text.lower())


def shown(text: str) -> str:
    """Quote a text for one line of an error, cut where it is long."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
