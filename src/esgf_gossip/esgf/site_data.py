"""
From what a site's files say to the Registration that leaves the host.

What may leave and what the administrator should hear about it is decided here;
reading files is ``sources.site``'s work. Source: docs/formats.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import attrs

from esgf_gossip.core import limits
from esgf_gossip.esgf import reader_rules, registration
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.esgf.properties import Properties
from esgf_gossip.esgf.registration import Group, Registration
from esgf_gossip.esgf.services import RULES, services_of

# The keys that formats.md names: what the Java node manager told the federation, and no other.
_NODE_KEYS: Final = (
    "esg.root.id",
    "esgf.default.peer",
    "esgf.feed.datasets.title",
    "esgf.host",
    "esgf.host.ip",
    "gridftp.bdm.server.port",
    "gridftp.config",
    "gridftp.server.port",
    "index.slave.port",
    "mail.admin.address",
    "mproxy.dn",
    "node.dn",
    "node.geolocation.city",
    "node.geolocation.lat",
    "node.geolocation.lon",
    "node.long.name",
    "node.namespace",
    "node.peer.group",
    "node.short.name",
    "release",
    "security.ca.dn",
    "security.ca.hash",
    "version",
)
PUBLISHED_KEYS: Final = frozenset(_NODE_KEYS) | {rule.endpoint_key for rule in RULES}

_PORTS: Final = ("index.slave.port", "gridftp.bdm.server.port", "gridftp.server.port")
# What stands for a missing property in the document; formats.md explains each.
_EXPECTED: Final = {
    "esg.root.id": "unknown",
    "node.peer.group": "unknown",
    "esgf.host.ip": "unknown",
    "version": "unknown",
    "release": "unknown",
    "node.short.name": "the host name",
    "myproxy.endpoint": "the host name",
    "node.geolocation.lat": "no coordinates",
    "node.geolocation.lon": "no coordinates",
    "node.geolocation.city": "unknown",
}
_STORED: Final = (
    "esg.root.id",
    "node.peer.group",
    "esgf.host.ip",
    "mail.admin.address",
    "version",
    "release",
    "node.geolocation.city",
    "esgf.feed.datasets.title",
)
_PRIVATE_KEY: Final = re.compile("-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


class SiteError(ValueError):
    """Report site data that cannot be published: where, what, what to do, in one line."""


@attrs.frozen
class Finding:
    """Something the administrator should know; the node publishes nevertheless. ``place`` is file, line, key."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@attrs.frozen
class SiteData:
    """
    What the files of a site say, as they say it.

    Args:
        host: the node's one name (``node.host``).
        properties: all of ``esgf.properties``; most of it never leaves the host.
        node_type: the number of ``config_type``.
        groups: all groups of the site.
        certificate: text of the host certificate, or empty.
        publish: further keys that may leave the host (``[esgf] publish``).
        absent_homes: the ``*.app.home`` keys whose path does not exist; empty where the site does not ask.
        groups_name: how messages call the file of the groups.
        certificate_name: how messages call the file of the certificate.
    """

    host: str
    properties: Properties
    node_type: int
    groups: tuple[Group, ...] = ()
    certificate: str = attrs.field(default="", repr=False)
    publish: tuple[str, ...] = ()
    absent_homes: frozenset[str] = frozenset()
    groups_name: str = "groups"
    certificate_name: str = "host certificate"


def build_registration(site: SiteData) -> Registration:
    """
    Make the Registration of a site: the keys that may leave, the groups that Java would have shown.

    Raises:
        SiteError: the host name is missing, not strict or another; a text or the whole is too long; a private key.
    """
    _check_host(site)
    if _PRIVATE_KEY.search(site.certificate):
        raise SiteError(
            "host certificate: the file holds a PRIVATE KEY; name the file of the certificate alone"
        )
    built = Registration(
        host=site.host,
        node_type=site.node_type,
        properties=dict(_published(site)),
        groups=tuple(group for group in site.groups if not _group_stays_home(group)),
        certificate=site.certificate,
        withheld=_withheld(site),
    )
    _check_size(site, built)
    return built


def find_problems(site: SiteData) -> tuple[Finding, ...]:
    """List what the administrator should know, in the order of the file; nothing here stops the node."""
    return (*_property_findings(site), *_missing(site), *_group_findings(site), *_no_groups(site))


def _withheld(site: SiteData) -> frozenset[str]:
    return frozenset(rule.type for rule in RULES if rule.home_key in site.absent_homes)


def _no_groups(site: SiteData) -> Iterator[Finding]:
    services = services_of(site.node_type, site.properties, _withheld(site))
    if not site.groups and any(service.type == "AttributeService" for service in services):
        yield Finding(
            site.groups_name, "an AttributeService without groups is of no use; name them, see [esgf] groups"
        )


def _published(site: SiteData) -> Iterator[tuple[str, str]]:
    allowed = PUBLISHED_KEYS.union(site.publish)
    for key, value in site.properties.items():
        if key in allowed and not reader_rules.has_credentials(value):
            yield key, value


def _group_stays_home(group: Group) -> bool:
    return reader_rules.is_hidden_group(group.name) or reader_rules.has_credentials(
        group.name + group.description
    )


def _check_host(site: SiteData) -> None:
    place = site.properties.place("esgf.host")
    stated = site.properties.get("esgf.host")
    if stated is None:
        raise SiteError(f"{place}: is missing; write esgf.host={site.host}")
    if not reader_rules.is_host_name(stated):
        raise SiteError(
            f"{place}: {stated[:80]!r} is not a host name; write it in lower case, without blanks"
        )
    if stated != site.host:
        raise SiteError(f"{place}: {stated} is not this node's host {site.host}; make both equal")


def _check_size(site: SiteData, built: Registration) -> None:
    for key, value in built.properties.items():
        if len(key) > registration.KEY_CHARACTERS or len(value) > registration.VALUE_CHARACTERS:
            raise SiteError(
                f"{site.properties.place(key)}: {len(value)} characters, at most "
                f"{registration.VALUE_CHARACTERS} can be published; shorten it"
            )
    if len(built.properties) > registration.PROPERTIES:
        raise SiteError(f"{site.properties.name}: more than {registration.PROPERTIES} properties to publish")
    if len(built.groups) > registration.GROUPS:
        raise SiteError(f"{site.groups_name}: more than {registration.GROUPS} groups; publish fewer")
    for group in built.groups:
        if (
            len(group.name) > registration.GROUP_NAME_CHARACTERS
            or len(group.description) > registration.GROUP_DESCRIPTION_CHARACTERS
        ):
            raise SiteError(
                f"{site.groups_name}: {group.name[:80]!r}: name or description too long; shorten it"
            )
    if len(built.certificate) > registration.CERTIFICATE_CHARACTERS:
        raise SiteError(
            f"{site.certificate_name}: {len(built.certificate)} characters, at most {registration.CERTIFICATE_CHARACTERS}"
        )
    size = len(built.to_body())
    if size > limits.ENTRY_BYTES:
        raise SiteError(
            f"{site.properties.name}: the registration takes {size} bytes, at most {limits.ENTRY_BYTES} are allowed; "
            "shorten the descriptions of the groups or publish fewer properties"
        )


def _property_findings(site: SiteData) -> Iterator[Finding]:
    properties = site.properties
    allowed = PUBLISHED_KEYS.union(site.publish)
    for key, value in properties.items():
        if key not in allowed:
            continue
        place = properties.place(key)
        if reader_rules.has_credentials(value):
            yield Finding(place, "holds a user name and password; it does not leave this host")
            continue
        for text in _value_findings(key, value):
            yield Finding(place, text)
    for key in sorted(set(site.publish) - set(properties)):
        yield Finding(properties.place(key), "is listed in [esgf] publish and not set")


def _value_findings(key: str, value: str) -> Iterator[str]:
    if reader_rules.one_line(value) != value:
        yield "has control characters; readers see blanks in their place"
    if key in _STORED and reader_rules.quotable(value) != reader_rules.one_line(value):
        yield "has an apostrophe or backslash, which breaks the dashboard; it is written as \u2019 or /"
    if key in _STORED and len(value.encode()) > reader_rules.STORED_BYTES:
        yield f"is longer than {reader_rules.STORED_BYTES} bytes; the rest is not written"
    if key.endswith("endpoint") and value != value.strip():
        yield "begins or ends with a blank, which stays part of the address"
    if key == "node.peer.group" and ",".join(reader_rules.peer_groups(value)) != value:
        yield "has blanks around commas or empty names, which readers take for other groups; they are not written"
    if key == "node.peer.group" and any(" " in name for name in reader_rules.peer_groups(value)):
        yield "has a blank inside a name; write the names separated by commas alone"
    if key == "esgf.host.ip" and value.strip() and reader_rules.address(value) == reader_rules.UNKNOWN:
        yield "is too long for an address; readers see unknown"
    if key.startswith("node.geolocation.l") and value.strip():
        largest = 90 if key.endswith("lat") else 360
        if not reader_rules.is_coordinate(value, largest):
            yield f"{value[:40]!r} is not a number of degrees; readers see no coordinates"
    if key in _PORTS and not reader_rules.is_port(value.strip()):
        yield f"{value[:40]!r} is not a port; readers see the default"
    if key == "gridftp.config" and set(value.split()) - {"bdm", "end-user"}:
        yield "knows the words bdm and end-user; the others are left out"


def _missing(site: SiteData) -> Iterator[Finding]:
    for key, instead in _EXPECTED.items():
        if not reader_rules.or_unknown(site.properties.get(key, ""), ""):
            yield Finding(site.properties.place(key), f"is missing or empty; readers see {instead}")


def _group_findings(site: SiteData) -> Iterator[Finding]:
    shows_groups = bool(site.node_type & NodeType.IDP)
    for group in site.groups:
        place = f"{site.groups_name}: {group.name[:80]!r}"
        if reader_rules.has_credentials(group.name + group.description):
            yield Finding(
                f"{site.groups_name}: a group", "holds a user name and password; it does not leave this host"
            )
        elif shows_groups and reader_rules.is_hidden_group(group.name):
            yield Finding(
                place, "holds user, guest, nobody or root; such groups are not published, as before"
            )
