"""
The question for a user's mail address and its answer: a SAML 2.0 attribute query in a SOAP envelope.

Only the address is asked for: who names no attribute is given all of them. Answers are not signed; TLS says whose they
are, and ``InResponseTo`` which question they belong to. Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape, quoteattr

import attrs
from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

MAIL_ADDRESS: Final = "urn:esg:email:address"
OPENID_FORMAT: Final = "urn:esg:openid"
SUCCESS: Final = "urn:oasis:names:tc:SAML:2.0:status:Success"
UNKNOWN_PRINCIPAL: Final = "urn:oasis:names:tc:SAML:2.0:status:UnknownPrincipal"

_SOAP: Final = "http://schemas.xmlsoap.org/soap/envelope/"
_PROTOCOL: Final = "urn:oasis:names:tc:SAML:2.0:protocol"
_ASSERTION: Final = "urn:oasis:names:tc:SAML:2.0:assertion"
_QUERY: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<soap11:Envelope xmlns:soap11="{_SOAP}"><soap11:Body>'
    f'<samlp:AttributeQuery xmlns:samlp="{_PROTOCOL}" ID={{id}} IssueInstant={{instant}} Version="2.0">'
    f'<saml:Issuer xmlns:saml="{_ASSERTION}" Format="urn:oasis:names:tc:SAML:1.1:nameid-format:x509SubjectName">'
    "{issuer}</saml:Issuer>"
    f'<saml:Subject xmlns:saml="{_ASSERTION}"><saml:NameID Format="{OPENID_FORMAT}">{{openid}}</saml:NameID>'
    "</saml:Subject>"
    f'<saml:Attribute xmlns:saml="{_ASSERTION}" FriendlyName="EmailAddress" Name="{MAIL_ADDRESS}" '
    'NameFormat="http://www.w3.org/2001/XMLSchema#string"/>'
    "</samlp:AttributeQuery></soap11:Body></soap11:Envelope>"
)


class SamlError(ValueError):
    """Report an answer that cannot be taken, in one line that shows neither OpenID nor address."""


@attrs.frozen
class SamlAnswer:
    """
    What a provider says of a user.

    ``is_known`` False is final: it has no such user. ``address`` is as the provider spells it, unchecked; empty where
    it tells none.
    """

    is_known: bool
    address: str = attrs.field(default="", repr=False)


def attribute_query(query_id: str, openid: str, issuer: str, now_ms: int) -> bytes:
    """
    Write the question.

    Args:
        query_id: unique; letters, digits and hyphens, the first a letter.
        openid: of the user.
        issuer: the distinguished name of who asks.
        now_ms: Unix milliseconds.
    """
    instant = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return _QUERY.format(
        id=quoteattr(query_id),
        instant=quoteattr(instant.replace("+00:00", "Z")),
        issuer=escape(issuer),
        openid=escape(openid),
    ).encode("utf-8", "xmlcharrefreplace")


def read_response(content: bytes, query_id: str, openid: str) -> SamlAnswer:
    """
    Read the answer to a question.

    Raises:
        SamlError: it is none, answers another question, is of another user, or says that the provider failed.
    """
    try:
        root = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        raise SamlError("the answer is no well-formed XML") from None
    response = _response(root)
    if response.get("InResponseTo") != query_id:
        raise SamlError("the answer belongs to another question")
    code = response.find(f"{{{_PROTOCOL}}}Status/{{{_PROTOCOL}}}StatusCode")
    status = "" if code is None else code.get("Value", "")
    if status == UNKNOWN_PRINCIPAL:
        return SamlAnswer(is_known=False)
    if status != SUCCESS:
        raise SamlError(f"the answer has status {_shown(status)}")
    address = ""
    for assertion in response.findall(f"{{{_ASSERTION}}}Assertion"):
        subject = assertion.find(f"{{{_ASSERTION}}}Subject/{{{_ASSERTION}}}NameID")
        if subject is None or (subject.text or "").strip() != openid:
            raise SamlError("the answer is of another user")
        address = address or _address(assertion)
    return SamlAnswer(is_known=True, address=address)


def _response(root: Element) -> Element:
    body = root.find(f"{{{_SOAP}}}Body") if root.tag == f"{{{_SOAP}}}Envelope" else None
    if body is None:
        raise SamlError("the answer is no SOAP envelope")
    if body.find(f"{{{_SOAP}}}Fault") is not None:
        raise SamlError("the answer is a SOAP fault")
    found = body.findall(f"{{{_PROTOCOL}}}Response")
    if len(found) != 1:
        raise SamlError("the envelope holds no SAML response")
    return found[0]


def _address(assertion: Element) -> str:
    for attribute in assertion.iterfind(f"{{{_ASSERTION}}}AttributeStatement/{{{_ASSERTION}}}Attribute"):
        if attribute.get("Name") == MAIL_ADDRESS:
            for value in attribute.iterfind(f"{{{_ASSERTION}}}AttributeValue"):
                if text := (value.text or "").strip():
                    return text
    return ""


def _shown(status: str) -> str:
    # The word after the last colon, if it is a word: a provider may write anything here.
    word = status.rpartition(":")[2][:40]
    return word if word.isalnum() and word.isascii() else "unreadable"
