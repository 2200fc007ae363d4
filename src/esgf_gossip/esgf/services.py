"""
From the properties of a node to the services it advertises.

A table and the function that reads it; nothing else. The order is that of the
elements in ``registration.xml``. Source: docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.esgf.reader_rules import is_port, one_line

INDEX_PORT: Final = "8983"
REPLICATION_PORT: Final = "2812"
DOWNLOAD_PORT: Final = "2811"


@attrs.frozen
class Rule:
    """When a service is advertised: its element, the bit of the node type (0: any), its two properties."""

    type: str
    bit: int
    endpoint_key: str
    home_key: str


RULES: Final = (
    Rule("NodeManager", 0, "node.manager.service.endpoint", "node.manager.service.app.home"),
    Rule("OpenIDProvider", NodeType.IDP, "idp.service.endpoint", "idp.service.app.home"),
    Rule("FrontEnd", NodeType.INDEX, "web.fe.service.endpoint", "web.fe.service.app.home"),
    Rule("IndexService", NodeType.INDEX, "index.service.endpoint", "index.service.app.home"),
    Rule(
        "AttributeService",
        NodeType.IDP,
        "idp.security.attribute.service.endpoint",
        "idp.security.attribute.service.app.home",
    ),
    Rule(
        "AuthorizationService",
        NodeType.DATA,
        "orp.security.authorization.service.endpoint",
        "orp.security.authorization.service.app.home",
    ),
    Rule(
        "RegistrationService",
        NodeType.IDP,
        "idp.security.registration.service.endpoint",
        "idp.security.registration.service.app.home",
    ),
    Rule("ThreddsService", NodeType.DATA, "thredds.service.endpoint", "thredds.service.app.home"),
    Rule("GridFTPService", NodeType.DATA, "gridftp.endpoint", "gridftp.app.home"),
    Rule("LASService", NodeType.COMPUTE, "las.service.endpoint", "las.service.app.home"),
    Rule("MyProxyService", NodeType.IDP, "myproxy.endpoint", "myproxy.app.home"),
    Rule("PublishingService", NodeType.INDEX, "publishing.service.endpoint", "publishing.service.app.home"),
    Rule("RelyingPartyService", NodeType.DATA, "orp.service.endpoint", "orp.service.app.home"),
)


@attrs.frozen
class Service:
    """
    One advertised service: element name, endpoint, further attributes as pairs.

    ``configurations`` are the (serviceType, port) pairs of a GridFTPService.
    """

    type: str
    endpoint: str
    attributes: tuple[tuple[str, str], ...] = ()
    configurations: tuple[tuple[str, str], ...] = ()


def services_of(
    node_type: int, properties: Mapping[str, str], withheld: frozenset[str] = frozenset()
) -> tuple[Service, ...]:
    """
    Derive the services, in the order of the document.

    An endpoint that is not set, or blank once it is mended for readers, means no service.

    Args:
        node_type: the number of ``config_type``.
        properties: those the node publishes.
        withheld: service types not to advertise although their property is set.
    """
    return tuple(
        _service(rule.type, properties[rule.endpoint_key], properties)
        for rule in RULES
        if (not rule.bit or node_type & rule.bit)
        and one_line(properties.get(rule.endpoint_key, "")).strip()
        and rule.type not in withheld
    )


def gridftp_configurations(properties: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """
    Read the words of ``gridftp.config``: bdm is Replication, end-user is Download.

    Other words are left out: Java wrote an empty ``<Configuration/>``, which no schema allows.
    """
    known = {
        "bdm": ("Replication", port_of(properties, "gridftp.bdm.server.port", REPLICATION_PORT)),
        "end-user": ("Download", port_of(properties, "gridftp.server.port", DOWNLOAD_PORT)),
    }
    return tuple(known[word] for word in properties.get("gridftp.config", "").split() if word in known)


def port_of(properties: Mapping[str, str], key: str, default: str) -> str:
    """Return the port of a key; the default where it is not set or no port number."""
    value = properties.get(key, "").strip()
    return value if is_port(value) else default


def _service(service_type: str, endpoint: str, properties: Mapping[str, str]) -> Service:
    if service_type == "IndexService":
        return Service(
            service_type, endpoint, (("port", port_of(properties, "index.slave.port", INDEX_PORT)),)
        )
    if service_type == "GridFTPService":
        return Service(service_type, endpoint, configurations=gridftp_configurations(properties))
    if service_type == "MyProxyService" and properties.get("mproxy.dn"):
        return Service(service_type, endpoint, (("dn", properties["mproxy.dn"]),))
    return Service(service_type, endpoint)
