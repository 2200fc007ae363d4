"""
The names that certificates carry: DNS names and ``esgf://<federation>/<kind>/<name>``, exact bytes.

Parsing and building of names only; certificates are profile.py's. No name is
ever folded, decoded or normalised: what is not exactly in form is refused.
Source: docs/trust.md; RFC 9525 (no common names, no guessing).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from esgf_gossip.trust.errors import TrustError, quoted

SCHEME: Final = "esgf://"
NODE: Final = "node"
GROUP: Final = "group"
ROLE: Final = "role"
# All subject alternative names of one certificate: enough for aliases and groups, little enough to read.
NAMES_MAX: Final = 16
# What a request that names no group is granted: a certificate carries at least one.
DEFAULT_GROUP: Final = "member"

_DNS_CHARACTERS: Final = re.compile(r"[a-z0-9.-]*")
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SECRET_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")


@attrs.frozen
class Names:
    """The names of one certificate or request; tuples keep the order they were written in."""

    federation: str
    host: str
    dns: tuple[str, ...]
    groups: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def uris(self) -> tuple[str, ...]:
        """All names as URIs: the node first."""
        kinds = ((NODE, (self.host,)), (GROUP, self.groups), (ROLE, self.roles))
        return tuple(uri(self.federation, kind, name) for kind, names in kinds for name in names)


def uri(federation: str, kind: str, name: str) -> str:
    """Write one name as a URI."""
    return f"{SCHEME}{federation}/{kind}/{name}"


def check_dns(text: str) -> str:
    """
    Return a DNS name unchanged if it is strictly one.

    Lower case, A-labels, no wildcard, no address, no dot at its end.

    Raises:
        TrustError: E-NAME, with the position of the first forbidden character.
    """
    good = _DNS_CHARACTERS.match(text)
    position = good.end() if good else 0
    if position < len(text):
        raise TrustError(
            "E-NAME",
            f"DNS name {quoted(text)} has a forbidden character at position {position}",
            remedy="write a-z, 0-9, '-' and '.' only; names in other scripts in their xn-- form",
        )
    labels = text.split(".")
    if len(text) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in labels):
        raise TrustError(
            "E-NAME", f"{quoted(text)} is not a DNS name", remedy="write a name such as node.example.org"
        )
    if labels[-1].isdigit():
        raise TrustError(
            "E-NAME", f"{quoted(text)} is an address, not a DNS name", remedy="write the name of the host"
        )
    return text


def check_name(kind: str, text: str) -> str:
    """
    Return the name of a group or role unchanged if it is strictly one.

    Raises:
        TrustError: E-NAME.
    """
    if not can_certify(text):
        raise TrustError(
            "E-NAME",
            f"{kind} {quoted(text)} is not a name",
            remedy="write a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit",
        )
    return text


def can_certify(name: str) -> bool:
    """Tell whether a text is the name of a group or role that a certificate can carry."""
    return _NAME.fullmatch(name) is not None


def parse_uri(text: str) -> tuple[str, str, str]:
    """
    Split a URI into federation, kind and name.

    Raises:
        TrustError: E-URI, with what is wrong with it.
    """
    shown = quoted(text)
    if not text.startswith(SCHEME):
        raise TrustError("E-URI", f"{shown} is not of the form esgf://<federation>/<kind>/<name>")
    authority, *path = text.removeprefix(SCHEME).split("/")
    if ":" in authority:
        raise TrustError("E-URI", f"{shown}: a port is not allowed in a node URI")
    if "@" in authority:
        raise TrustError("E-URI", f"{shown}: a user is not allowed in a node URI")
    if len(path) != 2:
        raise TrustError("E-URI", f"{shown} is not of the form esgf://<federation>/<kind>/<name>")
    kind, name = path
    if kind not in (NODE, GROUP, ROLE):
        raise TrustError("E-URI", f"{shown}: the kind must be node, group or role")
    try:
        check_dns(authority)
        if kind == NODE:
            check_dns(name)
        else:
            check_name(kind, name)
    except TrustError as error:
        raise TrustError("E-URI", f"{shown}: {error.text}") from None
    return authority, kind, name


def collect(dns: Sequence[str], uris: Iterable[str]) -> Names:
    """
    Put the names of one certificate together.

    Groups may be missing (a request); the profile of a certificate wants one.

    Raises:
        TrustError: E-NAME or E-URI: a name out of form, twice, too many, of two
            federations; not exactly one node; the node not among the DNS names.
    """
    parsed = [parse_uri(text) for text in uris]
    for name in dns:
        check_dns(name)
    if len(parsed) + len(dns) > NAMES_MAX:
        raise TrustError("E-NAME", f"{len(parsed) + len(dns)} names, at most {NAMES_MAX} are allowed")
    if len(set(parsed)) < len(parsed) or len(set(dns)) < len(dns):
        raise TrustError("E-NAME", "a name is given twice")
    nodes = [name for _, kind, name in parsed if kind == NODE]
    if len(nodes) != 1:
        found = ", ".join(quoted(node) for node in nodes) or "none"
        raise TrustError("E-URI", f"exactly one node URI is needed, found {found}")
    federations = {federation for federation, _, _ in parsed}
    if len(federations) != 1:
        raise TrustError("E-URI", "the URIs name several federations: " + ", ".join(sorted(federations)))
    if not dns:
        raise TrustError("E-NAME", "no DNS name")
    if nodes[0] not in dns:
        raise TrustError(
            "E-NAME", f"the node {quoted(nodes[0])} is not among the DNS names: {', '.join(dns)}"
        )
    return Names(
        federation=federations.pop(),
        host=nodes[0],
        dns=tuple(dns),
        groups=tuple(name for _, kind, name in parsed if kind == GROUP),
        roles=tuple(name for _, kind, name in parsed if kind == ROLE),
    )
