"""
Which real reader would break on a ``registration.xml``, anybody's, and where.

Pure: bytes in, findings out. The rules and the readers that were run to find them stand in docs/formats.md, section 9.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from xml.etree.ElementTree import Element, TreeBuilder

import attrs

from esgf_gossip.esgf import reader_rules

# As large as the largest of ours; a larger one is no document of a federation.
DOCUMENT_BYTES: Final = 64 * 1024 * 1024
FINDINGS_MOST: Final = 200

JAVA: Final = "Java node manager"
WEB_FE: Final = "web-fe"
DASHBOARD: Final = "dashboard"
ACME: Final = "acme-web-fe"
SPOTCHECK: Final = "esgf-spotcheck"
INSTALLER: Final = "installer"

_ORDER: Final = (
    "organization", "namespace", "nodePeerGroup", "supportEmail", "hostname", "ip", "dn", "shortName", "longName",
    "timeStamp", "version", "release", "nodeType", "adminPeer", "defaultPeer",
)  # fmt: skip
_NEEDED: Final = {
    "organization": DASHBOARD,
    "nodePeerGroup": DASHBOARD,
    "ip": DASHBOARD,
    "nodeType": DASHBOARD,
    "release": DASHBOARD,
    "version": f"{DASHBOARD}, {JAVA}",
    "shortName": ACME,
    "adminPeer": ACME,
}
# What the dashboard pastes into SQL, one transaction for all nodes.
_STORED: Final = ("organization", "nodePeerGroup", "hostname", "release", "version", "supportEmail")
_START_TAG: Final = re.compile(r'<Node((?:\s+[\w:.-]+="[^"<]*")*)\s*/?>')
_ATTRIBUTE_NAME: Final = re.compile(r'([\w:.-]+)="')
_LOCAL: Final = re.compile(r"\{.*\}")


@attrs.frozen
class Breakage:
    """One thing that breaks a reader: the rule's number, where it is, what is wrong, who breaks on it."""

    rule: int
    where: str
    text: str
    readers: str


def spotcheck(document: bytes) -> list[Breakage]:
    """Return what would break, in the order of the rules; empty: every known reader takes the document."""
    if not document.strip():
        return [Breakage(9, "document", "is empty", f"{DASHBOARD}, {ACME}, {JAVA}")]
    root, fault = _parsed(document)
    if root is None:
        return [Breakage(1, "document", fault, "every reader")]
    found = [
        *_of_root(root, document),
        *_of_lines(root, document.decode("utf-8", "replace")),
        *_of_children(root),
        *(one for node in _nodes(root) for one in _of_node(node)),
        *_of_names(root),
    ]
    return sorted(found, key=lambda one: one.rule)[:FINDINGS_MOST]


def _parsed(document: bytes) -> tuple[Element | None, str]:
    from defusedxml.ElementTree import XMLParser  # type: ignore[import-untyped] # noqa: PLC0415 - one command needs it

    parser = XMLParser(target=TreeBuilder(insert_comments=True, insert_pis=True), forbid_dtd=True)
    try:
        parser.feed(document)
        root: Element = parser.close()
    except Exception as error:  # noqa: BLE001 - bytes of a stranger: whatever the parser makes of them
        reason = "has a document type declaration" if isinstance(error, ValueError) else str(error)
        return None, f"is no well-formed XML: {reason}"
    return root, ""


def _of_root(root: Element, document: bytes) -> Iterator[Breakage]:
    if root.tag != f"{{{reader_rules.REGISTRY_NAMESPACE}}}Registration":
        local = _LOCAL.sub("", str(root.tag))
        wrong = (
            f"the root is {local}"
            if local != "Registration"
            else f"the root is not in namespace {reader_rules.REGISTRY_NAMESPACE}"
        )
        yield Breakage(1, "root", f"{wrong}: no node is seen", f"{JAVA}, {WEB_FE}")
    elif not re.search(rb"<Registration[\s>]", document):
        yield Breakage(1, "root", "the namespace has a prefix; write it as the default", "readers of text")
    if not root.get("timeStamp", "").isdecimal():
        yield Breakage(8, "root", "timeStamp is missing or no number: the document counts as old", DASHBOARD)


def _of_lines(root: Element, text: str) -> Iterator[Breakage]:
    starts = [_START_TAG.findall(line) for line in text.split("\n") if "<Node" in line]
    good = [line[0] for line in starts if len(line) == 1]
    count = sum(1 for _ in _nodes(root))
    if len(good) != count:
        yield Breakage(
            2,
            "document",
            f"{len(good)} of {count} nodes have a start tag that is alone on one line, attributes in double quotes",
            f"{SPOTCHECK}, {INSTALLER}",
        )
    for attributes in good:
        names = [name for name in _ATTRIBUTE_NAME.findall(attributes) if name in _ORDER]
        if names != sorted(names, key=_ORDER.index):
            yield Breakage(
                2, _host_in(attributes), "the attributes are in another order", f"{SPOTCHECK}, {INSTALLER}"
            )


def _host_in(attributes: str) -> str:
    found = re.search(r'hostname="([^"]*)"', attributes)
    return found[1] if found else "a node without hostname"


def _of_children(root: Element) -> Iterator[Breakage]:
    for child in root:
        if not isinstance(child.tag, str):
            yield Breakage(
                3, "root", "a comment or instruction stands beside the nodes", f"{DASHBOARD}, {ACME}"
            )
        elif _LOCAL.sub("", child.tag) != "Node":
            local = _LOCAL.sub("", child.tag)
            yield Breakage(3, "root", f"an element {local} stands beside the nodes", f"{DASHBOARD}, {ACME}")


def _of_node(node: Element) -> Iterator[Breakage]:
    host = node.get("hostname", "")
    where = host or "a node without hostname"
    if not host:
        yield Breakage(4, where, "no hostname: the whole document is refused", f"{JAVA}, {DASHBOARD}, {ACME}")
    elif not reader_rules.is_host_name(host):
        yield Breakage(6, where, "hostname is no strict DNS name; it is run by a shell", SPOTCHECK)
    for name, readers in _NEEDED.items():
        if not node.get(name, "").strip():
            yield Breakage(4, where, f"{name} is missing or empty", readers)
    for name in _STORED:
        if "'" in node.get(name, ""):
            yield Breakage(5, where, f"{name} has an apostrophe: no node at all is imported", DASHBOARD)
    if len(node.get("ip", "").encode()) > reader_rules.ADDRESS_CHARACTERS:
        yield Breakage(
            6, where, f"ip is longer than {reader_rules.ADDRESS_CHARACTERS} bytes: it crashes", DASHBOARD
        )
    groups = node.get("nodePeerGroup", "")
    if re.search(r",\s|\s,", groups):
        yield Breakage(6, where, "nodePeerGroup has a blank beside a comma: another group", DASHBOARD)
    if len(groups.encode()) > reader_rules.STORED_BYTES:
        yield Breakage(
            6, where, f"nodePeerGroup is longer than {reader_rules.STORED_BYTES} bytes: it crashes", DASHBOARD
        )
    yield from _of_place(node, where)


def _of_place(node: Element, where: str) -> Iterator[Breakage]:
    place = next((child for child in node if _is(child, "GeoLocation")), None)
    missing = [name for name in ("lat", "lon", "city") if place is None or name not in place.attrib]
    if place is None:
        yield Breakage(7, where, "no GeoLocation: it is shown with the next node's city", ACME)
    elif missing:
        yield Breakage(7, where, f"GeoLocation has no {', '.join(missing)}", f"{ACME}, {DASHBOARD}")
    elif "'" in place.get("city", ""):
        yield Breakage(5, where, "city has an apostrophe: no node at all is imported", DASHBOARD)


def _of_names(root: Element) -> Iterator[Breakage]:
    seen: set[str] = set()
    for node in _nodes(root):
        host = node.get("hostname", "")
        if host and host in seen:
            yield Breakage(4, host, "stands there twice: the first counts", f"{JAVA}, {DASHBOARD}")
        seen.add(host)


def _nodes(root: Element) -> Iterator[Element]:
    return (child for child in root if _is(child, "Node"))


def _is(element: Any, local: str) -> bool:
    return isinstance(element.tag, str) and _LOCAL.sub("", element.tag) == local
