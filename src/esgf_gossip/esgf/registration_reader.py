"""
From a ``registration.xml`` to registrations: the nodes of a document that an administrator keeps by hand.

The inverse of ``views.registration_xml``, for documents of ours and of the Java node manager. Source: docs/formats.md, section 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element

import attrs

from esgf_gossip.esgf import reader_rules
from esgf_gossip.esgf.metrics import COUNT_MAX, Metrics
from esgf_gossip.esgf.node_type import NODE_TYPE_MAX, NodeType
from esgf_gossip.esgf.registration import CERTIFICATE_NOT_AVAILABLE, UNKNOWN, Group, Registration
from esgf_gossip.esgf.services import RULES

DOCUMENT_BYTES: Final = 16 * 1024 * 1024
NODES_MOST: Final = 10_000

_ATTRIBUTES: Final = {
    "organization": "esg.root.id",
    "namespace": "node.namespace",
    "nodePeerGroup": "node.peer.group",
    "supportEmail": "mail.admin.address",
    "ip": "esgf.host.ip",
    "dn": "node.dn",
    "shortName": "node.short.name",
    "longName": "node.long.name",
    "version": "version",
    "release": "release",
    "defaultPeer": "esgf.default.peer",
}
# Of children: what their attributes say.
_CHILDREN: Final = {
    ("CA", "hash"): "security.ca.hash",
    ("CA", "dn"): "security.ca.dn",
    ("GeoLocation", "lat"): "node.geolocation.lat",
    ("GeoLocation", "lon"): "node.geolocation.lon",
    ("GeoLocation", "city"): "node.geolocation.city",
    ("IndexService", "port"): "index.slave.port",
    ("MyProxyService", "dn"): "mproxy.dn",
    **{(rule.type, "endpoint"): rule.endpoint_key for rule in RULES},
}
# serviceType of a GridFTP configuration: its word, the property of its port.
_GRIDFTP: Final = {
    "Replication": ("bdm", "gridftp.bdm.server.port"),
    "Download": ("end-user", "gridftp.server.port"),
}


class DocumentError(ValueError):
    """Report a document that cannot be taken, in one line."""


@attrs.frozen
class StaticNode:
    """One node of a document: what it says of itself, its numbers, its time stamp in ms."""

    registration: Registration
    metrics: Metrics | None
    timestamp_ms: int


def read_document(document: bytes, name: str) -> tuple[tuple[StaticNode, ...], tuple[str, ...]]:
    """
    Read the nodes of a document.

    Args:
        document: its bytes.
        name: how messages call it.

    Returns:
        The nodes, sorted by host, and one line for each that was passed over.

    Raises:
        DocumentError: it is no well-formed XML, no Registration, or too large.
    """
    if len(document) > DOCUMENT_BYTES:
        raise DocumentError(f"{name}: more than {DOCUMENT_BYTES} bytes")
    root = _parsed(document, name)
    if _local(root) != "Registration":
        raise DocumentError(f"{name}: the root is {_local(root)[:80]!r}, not Registration")
    nodes: dict[str, StaticNode] = {}
    passed_over = []
    for element in root:
        if _local(element) != "Node":
            continue
        host = element.get("hostname", "")
        if not reader_rules.is_host_name(host):
            passed_over.append(f"{name}: {host[:80]!r} is not a host name; the node is passed over")
        elif host in nodes:
            passed_over.append(f"{name}: {host} stands there twice; the first counts")
        else:
            nodes[host] = _node(element, host)
    if len(nodes) > NODES_MOST:
        raise DocumentError(f"{name}: more than {NODES_MOST} nodes")
    return tuple(nodes[host] for host in sorted(nodes)), tuple(passed_over)


def _parsed(document: bytes, name: str) -> Element:
    from defusedxml.ElementTree import (  # type: ignore[import-untyped] # noqa: PLC0415 - for those who keep such a file
        fromstring,
    )

    try:
        root: Element = fromstring(document, forbid_dtd=True)
    except Exception as error:  # noqa: BLE001 - whatever the parser makes of the bytes
        reason = "it has a document type declaration" if isinstance(error, ValueError) else str(error)
        raise DocumentError(f"{name}: is no well-formed XML: {reason}") from None
    return root


def _node(element: Element, host: str) -> StaticNode:
    properties = dict(_properties(element))
    properties["esgf.host"] = host
    withheld = set()
    if "myproxy.endpoint" not in properties:
        # Only through this property a node names its admin peer; without the service it is no service.
        properties["myproxy.endpoint"] = element.get("adminPeer", host)
        withheld.add("MyProxyService")
    return StaticNode(
        Registration(
            host=host,
            node_type=_node_type(element),
            properties={
                key: value
                for key, value in properties.items()
                if value.strip() and value != UNKNOWN and not reader_rules.has_credentials(value)
            },
            groups=tuple(_groups(element)),
            certificate=_certificate(element),
            withheld=frozenset(withheld),
        ),
        _metrics(element),
        _number(element.get("timeStamp", ""), COUNT_MAX),
    )


def _properties(node: Element) -> Iterator[tuple[str, str]]:
    for attribute, key in _ATTRIBUTES.items():
        yield key, node.get(attribute, "")
    for child in node:
        kind = _local(child)
        for attribute, value in child.attrib.items():
            if (kind, attribute) in _CHILDREN:
                yield _CHILDREN[kind, attribute], value
        if kind == "GridFTPService":
            found = [
                _GRIDFTP[one.get("serviceType", "")] + (one.get("port", ""),)
                for one in child
                if one.get("serviceType") in _GRIDFTP
            ]
            yield "gridftp.config", " ".join(word for word, _, _ in found)
            yield from ((key, port) for _, key, port in found)
        if kind == "RSSFeeds":
            yield from (("esgf.feed.datasets.title", feed.get("title", "")) for feed in list(child)[:1])


def _groups(node: Element) -> Iterator[Group]:
    for child in node:
        if _local(child) == "AttributeService":
            for group in child:
                if group.get("name"):
                    yield Group(group.get("name", ""), group.get("description", ""))


def _metrics(node: Element) -> Metrics | None:
    found = {_local(one): one for child in node if _local(child) == "Metrics" for one in child}
    data, users = found.get("DownloadedData"), found.get("RegisteredUsers")
    if data is None or not _node_type(node) & NodeType.DATA:
        return None
    return Metrics(
        _number(data.get("count", ""), COUNT_MAX),
        _number(data.get("size", ""), COUNT_MAX),
        _number(data.get("users", ""), COUNT_MAX),
        None if users is None else _number(users.get("count", ""), COUNT_MAX),
    )


def _node_type(node: Element) -> int:
    return _number(node.get("nodeType", ""), NODE_TYPE_MAX)


def _certificate(node: Element) -> str:
    for child in node:
        if _local(child) == "PEMCert":
            text = "".join(one.text or "" for one in child if _local(one) == "Cert")
            return "" if text.strip() == CERTIFICATE_NOT_AVAILABLE else text
    return ""


def _number(text: str, largest: int) -> int:
    text = text.strip()
    return min(int(text[:20]), largest) if text.isascii() and text.isdecimal() else 0


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
