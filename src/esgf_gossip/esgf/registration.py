"""
The Registration: what one node says of itself, as value and as bytes of the entry ``registration``.

How a site comes to it is ``site_data``'s work, how it looks as XML or JSON that
of ``views``. Readings of one registration (names, location, services) are
properties here, so that every view says the same. Source: docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import attrs
import msgpack

from esgf_gossip.core import limits
from esgf_gossip.esgf import reader_rules
from esgf_gossip.esgf.bodies import BodyError, is_number, unpacked
from esgf_gossip.esgf.node_type import NODE_TYPE_MAX, NodeType, node_type_names
from esgf_gossip.esgf.services import Service, services_of

UNKNOWN: Final = reader_rules.UNKNOWN
DEFAULT_PEER: Final = "pcmdi9.llnl.gov"
CERTIFICATE_NOT_AVAILABLE: Final = "NOT_AVAILABLE"

# Bounds of a body that came from outside; the whole is at most limits.ENTRY_BYTES.
# Section 3 of the format names 40 keys; the rest is room for [esgf] publish.
PROPERTIES: Final = 256
KEY_CHARACTERS: Final = 128
VALUE_CHARACTERS: Final = 4096
# The busiest index nodes have 40 groups; the database holds names of 100 characters.
GROUPS: Final = 1024
GROUP_NAME_CHARACTERS: Final = 256
GROUP_DESCRIPTION_CHARACTERS: Final = 4096
# openssl's text dump of a 4,096-bit certificate and its PEM are 6 KB.
CERTIFICATE_CHARACTERS: Final = 32 * 1024
WITHHELD: Final = 32


class RegistrationError(ValueError):
    """Report a body that is no registration, in one line. Nothing was changed."""


@attrs.frozen
class Group:
    """One access group of a node's attribute service."""

    name: str
    description: str


@attrs.frozen
class Location:
    """Where a node stands; ``lat`` and ``lon`` in degrees, both None unless both are numbers in range."""

    lat: float | None
    lon: float | None
    city: str


def _frozen(properties: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(properties))


def _as_pairs(properties: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(properties.items()))


@attrs.frozen(cache_hash=True)
class Registration:
    """
    What one node says of itself. Nothing here is believed to be harmless: the writers judge every text.

    Args:
        host: the node's one name, a strict DNS name.
        node_type: the number of ``config_type``; see ``node_type.NodeType``.
        properties: the properties the node publishes, character for character.
        groups: access groups, in the order of the site.
        certificate: text of the host certificate, or empty.
        withheld: services not advertised although their property is set (their program is not installed).
    """

    host: str
    node_type: int
    properties: Mapping[str, str] = attrs.field(default=MappingProxyType({}), converter=_frozen, eq=_as_pairs)
    groups: tuple[Group, ...] = ()
    certificate: str = attrs.field(default="", repr=False)
    withheld: frozenset[str] = frozenset()

    def text(self, key: str, default: str = UNKNOWN) -> str:
        """Return a property, or the default where nothing visible is set."""
        return reader_rules.or_unknown(self.properties.get(key, ""), default)

    def is_type(self, bit: NodeType) -> bool:
        """Tell whether a bit of the node type is set."""
        return bool(self.node_type & bit)

    @property
    def organization(self) -> str:
        """Name the organization: ``esg.root.id``."""
        return self.text("esg.root.id")

    @property
    def namespace(self) -> str:
        """Name the organization's name space, may be empty: ``node.namespace``."""
        return self.text("node.namespace", "")

    @property
    def peer_group(self) -> str:
        """Return the list of peer groups as the site wrote it: ``node.peer.group``."""
        return self.text("node.peer.group")

    @property
    def peer_groups(self) -> tuple[str, ...]:
        """Return the peer groups, split at commas, without blanks around."""
        return reader_rules.peer_groups(self.properties.get("node.peer.group", ""))

    @property
    def support_email(self) -> str:
        """Return the administrators' address, may be empty: ``mail.admin.address``."""
        return self.text("mail.admin.address", "")

    @property
    def ip(self) -> str:
        """Return the IP address as the site wrote it: ``esgf.host.ip``."""
        return self.text("esgf.host.ip")

    @property
    def dn(self) -> str:
        """Return the distinguished name of the host certificate, may be empty: ``node.dn``."""
        return self.text("node.dn", "")

    @property
    def short_name(self) -> str:
        """Return the short name, by default the host: ``node.short.name``."""
        return self.text("node.short.name", self.host)

    @property
    def long_name(self) -> str:
        """Return the long name, may be empty: ``node.long.name``."""
        return self.text("node.long.name", "")

    @property
    def version(self) -> str:
        """Return the version of the site's ESGF software."""
        return self.text("version")

    @property
    def release(self) -> str:
        """Return the name of that release."""
        return self.text("release")

    @property
    def admin_peer(self) -> str:
        """Return the host that issues credentials: ``myproxy.endpoint`` up to the first colon, else this host."""
        return reader_rules.or_unknown(
            self.properties.get("myproxy.endpoint", "").split(":", 1)[0], self.host
        )

    @property
    def default_peer(self) -> str:
        """Return the peer the site is installed to ask first: ``esgf.default.peer``."""
        return self.text("esgf.default.peer", DEFAULT_PEER)

    def within(self, groups: Collection[str]) -> tuple[Registration, tuple[str, ...]]:
        """
        Bound the peer groups by those a certificate grants.

        Returns:
            The registration with the granted ones among those it claims, itself where that is all; and the others.
        """
        refused = tuple(name for name in self.peer_groups if name not in groups)
        if not refused:
            return self, ()
        properties = dict(self.properties)
        properties["node.peer.group"] = ",".join(name for name in self.peer_groups if name in groups)
        return attrs.evolve(self, properties=properties), refused

    @property
    def node_types(self) -> tuple[str, ...]:
        """Name the bits of the node type: data, index, idp, compute."""
        return node_type_names(self.node_type)

    @property
    def location(self) -> Location:
        """Say where the node stands."""
        city = self.text("node.geolocation.city")
        if not self.has_coordinates:
            return Location(None, None, city)
        lat, lon = self.properties["node.geolocation.lat"], self.properties["node.geolocation.lon"]
        return Location(float(lat), float(lon), city)

    @property
    def has_coordinates(self) -> bool:
        """Tell whether latitude and longitude are both numbers in range."""
        return reader_rules.is_coordinate(
            self.properties.get("node.geolocation.lat", ""), 90
        ) and reader_rules.is_coordinate(self.properties.get("node.geolocation.lon", ""), 360)

    @cached_property
    def services(self) -> tuple[Service, ...]:
        """List the services in the order of the document: six files and the API ask for them at every change."""
        return services_of(self.node_type, self.properties, self.withheld)

    @property
    def feed_title(self) -> str:
        """Return the title of the node's RSS feed, empty where there is none."""
        return self.text("esgf.feed.datasets.title", "") if self.is_type(NodeType.INDEX) else ""

    @property
    def feed_url(self) -> str:
        """Return the address of the node's RSS feed."""
        return f"http://{self.host}/esg-search/feed/node.rss"

    def to_body(self) -> bytes:
        """
        Encode as the body of the entry ``registration``: equal registrations give equal bytes.

        The length is the caller's to check against ``limits.ENTRY_BYTES``.
        """
        body: dict[str, Any] = {
            "host": self.host,
            "type": self.node_type,
            "properties": dict(_as_pairs(self.properties)),
        }
        if self.groups:
            body["groups"] = [[group.name, group.description] for group in self.groups]
        if self.certificate:
            body["certificate"] = self.certificate
        if self.withheld:
            body["withheld"] = sorted(self.withheld)
        packed: bytes = msgpack.packb(body)
        return packed

    @staticmethod
    def from_body(body: bytes) -> Registration:
        """
        Decode a body that anyone may have made.

        Keys of the map that are not known are ignored, so that it can grow; a
        list may grow at its end.

        Raises:
            RegistrationError: the bytes are no registration, or beyond a bound.
        """
        fields = _mapping(_unpacked(body), "registration")
        host = _text(fields.get("host"), "host", limits.HOST_CHARACTERS)
        if not reader_rules.is_host_name(host):
            raise RegistrationError("registration: host is not a DNS name")
        properties = _mapping(fields.get("properties"), "properties")
        if len(properties) > PROPERTIES:
            raise RegistrationError(f"registration: more than {PROPERTIES} properties")
        return Registration(
            host=host,
            node_type=_count(fields.get("type"), "type", NODE_TYPE_MAX),
            properties={
                _text(key, "property name", KEY_CHARACTERS): _text(value, "property", VALUE_CHARACTERS)
                for key, value in properties.items()
            },
            groups=tuple(_group(row) for row in _rows(fields.get("groups", []), "groups", GROUPS)),
            certificate=_text(fields.get("certificate", ""), "certificate", CERTIFICATE_CHARACTERS),
            withheld=frozenset(
                _text(name, "withheld", limits.NAME_CHARACTERS)
                for name in _rows(fields.get("withheld", []), "withheld", WITHHELD)
            ),
        )


def _unpacked(body: bytes) -> object:
    try:
        return unpacked(body, "registration")
    except BodyError as error:
        raise RegistrationError(str(error)) from None


def _mapping(value: object, what: str) -> dict[object, object]:
    if not isinstance(value, dict):
        raise RegistrationError(f"registration: {what} is not a map")
    return value


def _text(value: object, what: str, characters: int) -> str:
    if not isinstance(value, str):
        raise RegistrationError(f"registration: {what} is not a text")
    if len(value) > characters:
        raise RegistrationError(
            f"registration: {what} of {len(value)} characters, at most {characters} are allowed"
        )
    return value


def _count(value: object, what: str, largest: int) -> int:
    if not is_number(value, largest):
        raise RegistrationError(f"registration: {what} is not a number from 0 to {largest}")
    return value


def _rows(value: object, what: str, rows: int) -> list[object]:
    if not isinstance(value, list) or len(value) > rows:
        raise RegistrationError(f"registration: {what} is not a list of at most {rows}")
    return value


def _group(row: object) -> Group:
    if not isinstance(row, list) or len(row) < 2:
        raise RegistrationError("registration: a group is not a pair of name and description")
    return Group(
        _text(row[0], "group name", GROUP_NAME_CHARACTERS),
        _text(row[1], "group description", GROUP_DESCRIPTION_CHARACTERS),
    )
