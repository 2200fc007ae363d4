"""
Where an identity provider answers questions of attributes: the XRDS document behind an OpenID.

Providers write its elements in either of two namespaces; both are read. Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

import math
from typing import Final
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

ATTRIBUTE_SERVICE: Final = "urn:esg:security:attribute-service"
MEDIA_TYPE: Final = "application/xrds+xml"
SERVICES_READ: Final = 64

_NAMESPACES: Final = ("{xri://$xrds}", "{xri://$xrd*($v*2.0)}")


class YadisError(ValueError):
    """Report a document that is no XRDS, in one line without anything of its content."""


def attribute_services(content: bytes) -> tuple[str, ...]:
    """
    Return the HTTPS addresses of the attribute services, the lowest priority number first; one without comes last.

    Raises:
        YadisError: it is no XRDS document.
    """
    try:
        root = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        # LookupError: an encoding that nobody knows.
        raise YadisError("the answer to the OpenID is no well-formed XML") from None
    if not _is(root, "XRDS"):
        raise YadisError("the answer to the OpenID is no XRDS document")
    found: list[tuple[float, float, str]] = []
    # Of several descriptors the last one is that of the OpenID itself.
    for service in _children(next(reversed(_children(root, "XRD")), root), "Service")[:SERVICES_READ]:
        if any((one.text or "").strip() == ATTRIBUTE_SERVICE for one in _children(service, "Type")):
            found += [
                (_priority(service), _priority(one), (one.text or "").strip())
                for one in _children(service, "URI")[:SERVICES_READ]
            ]
    return tuple(address for _, _, address in sorted(found) if _is_https(address))


def _is(element: Element, name: str) -> bool:
    return any(element.tag == namespace + name for namespace in _NAMESPACES)


def _children(element: Element, name: str) -> list[Element]:
    return [child for child in element if _is(child, name)]


def _priority(element: Element) -> float:
    text = element.get("priority", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else math.inf


def _is_https(address: str) -> bool:
    try:
        return urlsplit(address).scheme == "https" and bool(urlsplit(address).hostname)
    except ValueError:
        return False
