"""
``registration.xml``: from the nodes of a view to the bytes that every real reader takes.

Pure: no file, no clock. The twelve rules that the layout keeps, and what is
written instead of texts that break a reader, stand in docs/formats.md; judging
single texts is ``esgf.reader_rules``' work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from esgf_gossip.esgf import reader_rules
from esgf_gossip.esgf.metrics import Metrics
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.esgf.reader_rules import one_line, or_unknown, stored
from esgf_gossip.esgf.registration import CERTIFICATE_NOT_AVAILABLE, Registration
from esgf_gossip.esgf.services import Service
from esgf_gossip.views import markup
from esgf_gossip.views.federation import NodeView

# The Java node manager takes documents from this version on.
FORMAT_VERSION: Final = "v0.0.1"

_ROOT_TIMESTAMP: Final = re.compile(rb'(<Registration [^>]*?timeStamp=")([0-9]*)"')
# A document of ours and of Java begins with 60 bytes of declaration and the root's start tag.
_ROOT_WITHIN_BYTES: Final = 512
_CONTROL_IN_TEXT: Final = re.compile(
    "[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff\\ufffe\\uffff]"
)

_BEFORE_GRIDFTP: Final = ("NodeManager", "OpenIDProvider", "FrontEnd", "IndexService", "AttributeService")
_AFTER_METRICS: Final = ("LASService", "MyProxyService", "PublishingService", "RelyingPartyService")


# One node as the document shows it: what it says, its numbers, the time stamp in ms.
_Wanted = tuple[Registration, Metrics | None, int]


class ElementCache:
    """
    The elements of the last document, so that one changed node costs one element.

    It holds what the last document held and nothing else, so its size is bounded by that document.
    """

    def __init__(self) -> None:
        self._elements: dict[_Wanted, str] = {}

    def elements(self, wanted: Iterable[_Wanted]) -> list[str]:
        """Return one element for each (registration, metrics, time stamp in ms), rendering only those that are new."""
        old = self._elements
        self._elements = {key: old.get(key) or _node(*key) for key in wanted}
        return list(self._elements.values())


_SHARED_CACHE: Final = ElementCache()


def render(nodes: Iterable[NodeView], timestamp_ms: int, cache: ElementCache = _SHARED_CACHE) -> bytes:
    """
    Write the document.

    Nodes that are stale, left, or say nothing readable are left out; so is one
    whose name is no strict DNS name or not the one its registration states.
    Cost: one element per node that changed since the last call with this cache.

    Args:
        nodes: any order; the document is sorted by host.
        timestamp_ms: the root's timeStamp; readers skip a document that is not newer than the last they saw.
        cache: what to keep between calls; by default one for all callers.
    """
    wanted = [
        (node.registration, node.metrics, node.registration_issued_at_ms)
        for node in sorted(nodes, key=lambda node: node.host)
        if node.is_listed
        and node.registration is not None
        and node.registration.host == node.host
        and reader_rules.is_host_name(node.host)
    ]
    return "".join(
        [
            markup.DECLARATION,
            f'<Registration xmlns="{reader_rules.REGISTRY_NAMESPACE}" timeStamp="{timestamp_ms}" version="{FORMAT_VERSION}">\n',
            *cache.elements(wanted),
            "</Registration>\n",
        ]
    ).encode()


def content_key(document: bytes) -> bytes:
    """Return the document without the root's time stamp: equal for documents that say the same."""
    head = _ROOT_TIMESTAMP.sub(rb'\1"', document[:_ROOT_WITHIN_BYTES], count=1)
    return head + document[_ROOT_WITHIN_BYTES:]


def root_timestamp_ms(document: bytes) -> int:
    """Return the root's time stamp; 0 where the bytes are no such document, a file of others for one."""
    found = _ROOT_TIMESTAMP.search(document[:_ROOT_WITHIN_BYTES])
    digits = found[2][:19] if found else b""
    return int(digits or 0)


def _node(node: Registration, metrics: Metrics | None, timestamp_ms: int) -> str:
    attributes = {
        "organization": stored(node.organization),
        "namespace": one_line(node.namespace),
        "nodePeerGroup": or_unknown(reader_rules.stored_peer_groups(node.peer_group)),
        "supportEmail": stored(node.support_email) or None,
        "hostname": node.host,
        "ip": reader_rules.address(node.ip),
        "dn": one_line(node.dn),
        "shortName": one_line(node.short_name),
        "longName": one_line(node.long_name) or None,
        "timeStamp": str(timestamp_ms),
        "version": stored(node.version),
        "release": stored(node.release),
        "nodeType": str(node.node_type),
        "adminPeer": one_line(node.admin_peer),
        "defaultPeer": one_line(node.default_peer),
    }
    children = "".join(_children(node, metrics))
    return f"    <Node{markup.attributes(attributes)}>\n{children}    </Node>\n"


def _children(node: Registration, metrics: Metrics | None) -> Iterable[str]:
    services = {service.type: service for service in node.services}
    has_data = node.is_type(NodeType.DATA)
    yield _element(
        "CA",
        {
            "hash": one_line(node.text("security.ca.hash", "dunno")),
            "endpoint": node.host,
            "dn": one_line(node.text("security.ca.dn", "dunno")),
        },
    )
    yield _geo_location(node)
    for name in (
        *_BEFORE_GRIDFTP,
        "AuthorizationService",
        "RegistrationService",
        "ThreddsService",
        "GridFTPService",
    ):
        yield from _service(services.get(name), node)
    if has_data:
        yield from _metrics(metrics)
    yield from _feeds(node)
    for name in _AFTER_METRICS:
        yield from _service(services.get(name), node)
    if has_data:
        yield f"        <PEMCert>\n            <Cert>{_certificate(node.certificate)}</Cert>\n        </PEMCert>\n"


def _geo_location(node: Registration) -> str:
    # Always written: without it acme-web-fe shows a node with the next one's city. Empty numbers
    # make the dashboard look the address up, which "0" would not. The schema demands an endpoint.
    lat, lon = "", ""
    if node.has_coordinates:
        lat, lon = node.properties["node.geolocation.lat"], node.properties["node.geolocation.lon"]
    return _element(
        "GeoLocation", {"lat": lat, "lon": lon, "city": stored(node.location.city), "endpoint": ""}
    )


def _service(service: Service | None, node: Registration) -> Iterable[str]:
    if service is None or not (endpoint := reader_rules.endpoint(service.endpoint)):
        return
    more = {name: one_line(value) for name, value in service.attributes}
    # Attribute order of the real documents: a port before the endpoint, a dn behind it.
    before = {name: value for name, value in more.items() if name == "port"}
    behind = {name: value for name, value in more.items() if name != "port"}
    children = [
        _element("Configuration", {"serviceType": kind, "port": port}, depth=3)
        for kind, port in service.configurations
    ]
    if service.type == "AttributeService":
        children = [
            _element(
                "Group", {"name": one_line(group.name), "description": one_line(group.description)}, depth=3
            )
            for group in node.groups
        ]
    yield _element(service.type, {**before, "endpoint": endpoint, **behind}, children)


def _metrics(metrics: Metrics | None) -> Iterable[str]:
    # Readers take a Metrics without DownloadedData badly.
    if metrics is None or metrics.download_count is None:
        return
    downloaded = {
        "count": str(metrics.download_count),
        "size": str(metrics.download_bytes or 0),
        "users": str(metrics.download_users or 0),
    }
    children = [_element("DownloadedData", downloaded, depth=3)]
    if metrics.registered_users is not None:
        children.append(_element("RegisteredUsers", {"count": str(metrics.registered_users)}, depth=3))
    yield _element("Metrics", {}, children)


def _feeds(node: Registration) -> Iterable[str]:
    url = node.feed_url
    # The dashboard's column holds 255; a longer address would undo the import of all nodes.
    if node.feed_title and len(url) <= reader_rules.STORED_BYTES:
        feed = _element("RSSFeed", {"url": url, "title": stored(node.feed_title)}, depth=3)
        yield _element("RSSFeeds", {}, [feed])


def _certificate(text: str) -> str:
    text = _CONTROL_IN_TEXT.sub(" ", text.replace("\r\n", "\n"))
    return _no_node_line(markup.escaped(text)) if text.strip() else CERTIFICATE_NOT_AVAILABLE


def _element(name: str, attributes: dict[str, str], children: Iterable[str] = (), depth: int = 2) -> str:
    indent = "    " * depth
    start = f"{indent}<{name}{_no_node_line(markup.attributes(attributes))}"
    inner = "".join(children)
    return f"{start}>\n{inner}{indent}</{name}>\n" if inner else f"{start}/>\n"


def _no_node_line(escaped: str) -> str:
    # esgf-spotcheck counts the lines that hold this word as nodes; XML readers see the same letters.
    return escaped.replace("hostname", "&#104;ostname")
