"""Sites, registrations and documents as the tests of esgf, sources and views need them; no test lives here."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from lxml import etree

from esgf_gossip.demo.site_data import write_site
from esgf_gossip.esgf.properties import Properties
from esgf_gossip.esgf.registration import Registration
from esgf_gossip.esgf.site_data import SiteData
from esgf_gossip.sources.site import Site, read_site
from esgf_gossip.views import lists_xml
from esgf_gossip.views.federation import NodeStatus, NodeView
from esgf_gossip.views.registration_xml import ElementCache, render

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NAMESPACE = "{http://www.esgf.org/registry}"
FULL_HOST = "pcmdi9.llnl.gov"


@cache
def demo_site(host: str) -> Site:
    """Return one of the real sites, read from its files."""
    with tempfile.TemporaryDirectory() as folder:
        return read_site(write_site(host, Path(folder)), host)


def a_site(properties: dict[str, str] | None = None, **changes) -> SiteData:
    """Return the data of a full node whose every service is set, with other properties or fields."""
    given = {**FULL_PROPERTIES, **(properties or {})}
    fields = {
        "host": FULL_HOST,
        "properties": Properties(
            "esgf.properties", {key: value for key, value in given.items() if value is not None}
        ),
        "node_type": 60,
        "groups": demo_site(FULL_HOST).data.groups,
        **changes,
    }
    return SiteData(**fields)


FULL_PROPERTIES = {
    **demo_site(FULL_HOST).properties,
    "web.fe.service.endpoint": "http://pcmdi9.llnl.gov/esgf-web-fe/",
    "security.ca.hash": "1a2b3c4d",
    "security.ca.dn": "/O=ESGF/CN=CA",
    "mproxy.dn": "/O=ESGF/CN=myproxy",
}


def a_view(registration: Registration | None, **changes) -> NodeView:
    """Return a node that is up."""
    fields = {
        "host": registration.host if registration else FULL_HOST,
        "status": NodeStatus.UP,
        "since_ms": 0,
        "epoch": 1,
        "sequence": 1,
        "issued_at_ms": 1_425_134_743_242,
        "expires_at_ms": 1_425_734_743_242,
        "contact": ("", 0),
        "registration": registration,
        "registration_issued_at_ms": 1_425_134_743_242,
        **changes,
    }
    return NodeView(**fields)


def document(*registrations: Registration, timestamp_ms: int = 1_425_400_078_007) -> bytes:
    """Render nodes that are up, without anything kept from other tests."""
    return render([a_view(registration) for registration in registrations], timestamp_ms, ElementCache())


def render_list(name: str, nodes, shard_form: str = lists_xml.SHARD_FORMS[0]) -> bytes:
    """Render a list with all who may be in it, whatever their health."""
    return lists_xml.document(name, lists_xml.entries(name, nodes, shard_form))


def tree(element: etree._Element) -> list:
    """Return an element as nested lists: local name, attributes, children; text where it has no child."""
    return [etree.QName(element).localname, dict(element.attrib), [tree(child) for child in element]]


def nodes_of(content: bytes) -> list[list]:
    """Return the Node elements of a document as nested lists."""
    return [tree(node) for node in etree.fromstring(content)]


def facts(registration: Registration) -> dict[str, str]:
    """Return every attribute of a rendered node, keyed by its path, so that a change can be seen alone."""
    found: dict[str, str] = {}
    (node,) = etree.fromstring(document(registration))
    for element in node.iter():
        names = [etree.QName(e).localname for e in (*reversed(list(element.iterancestors())), element)][1:]
        path = "/".join(names)
        number = sum(key.startswith(f"{path}#") and key.endswith("@") for key in found)
        found[f"{path}#{number}@"] = (element.text or "").strip()
        found.update({f"{path}#{number}@{name}": value for name, value in element.attrib.items()})
    return found


@cache
def schema() -> etree.XMLSchema:
    """Return the repaired schema of the format."""
    return etree.XMLSchema(etree.parse(str(GOLDEN / "registration-repaired.xsd")))


@cache
def real_nodes() -> list[dict]:
    """Return the 13 nodes of the real document of 2015-03, without timeStamp, supportEmail, Metrics, PEMCert."""
    return json.loads((GOLDEN / "registration-2015.json").read_text())
