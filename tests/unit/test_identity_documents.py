"""OpenIDs, XRDS documents, SAML questions and answers: what is read of them, and that nothing else gets through."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest.mock import patch

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.esgf import openids
from esgf_gossip.esgf.openids import canonical_openid, is_mail_address, openid_host
from esgf_gossip.esgf.saml import SamlAnswer, SamlError, attribute_query, read_response
from esgf_gossip.esgf.yadis import YadisError, attribute_services
from helpers.saml_stub import XRDS, response

OPENID = "https://idp.example.org/esgf-idp/openid/ann"
# A folder with documents that real identity providers wrote, where somebody has them.
REAL = Path(os.environ.get("ESGF_SAML_DOCUMENTS", "/nowhere"))


@pytest.mark.parametrize(
    ("written", "canonical", "host"),
    [
        (OPENID, OPENID, "idp.example.org"),
        ("HTTPS://IDP.Example.org:443/esgf-idp/openid/Ann/", "https://idp.example.org/esgf-idp/openid/Ann", "idp.example.org"),
        (" https://ceda.example.org/openid/First.Last#me ", "https://ceda.example.org/openid/First.Last", "ceda.example.org"),
        ("http://idp.example.org:8080/x", "http://idp.example.org:8080/x", "idp.example.org"),
        ("<no-id>", "", ""),
        ("", "", ""),
        ("ann", "", ""),
        ("ftp://idp.example.org/ann", "", ""),
        ("https://user@idp.example.org/ann", "", ""),
        ("https://idp.example.org:x/ann", "", ""),
        ("https://[::1/ann", "", ""),
        ("https://idp.example.org/a\nb", "", ""),
        ("https://idp.example.org/" + "a" * 500, "", ""),
    ],
)  # fmt: skip
def test_an_openid_has_one_spelling_and_a_host(written, canonical, host):
    """Hosts are compared without case, users with; what is no OpenID is nobody's."""
    assert (canonical_openid(written), openid_host(written)) == (canonical, host)
    assert canonical_openid(canonical) == canonical


@given(st.text() | st.from_regex(r"https?://[^/]*(/.*)?", fullmatch=True))
def test_any_text_is_an_openid_or_none(text):
    """Whatever a log holds: no error, and the canonical spelling is stable."""
    name = canonical_openid(text)
    assert canonical_openid(name) == name
    assert bool(openid_host(text)) == bool(name)


@given(st.from_regex(r"https?://[A-Za-z0-9.:@-]{1,20}(/[A-Za-z0-9._~%+?#;:/-]{0,12}){0,3}", fullmatch=True))
def test_the_short_way_reads_as_the_long_one(text):
    """A spelling that is recognised at once is the one that reading it by parts gives."""
    at_once = canonical_openid(text)
    with patch.object(openids, "_PLAIN", re.compile(r"(?!)")):
        assert canonical_openid(text) == at_once


def test_mail_addresses():
    """One plain address; nothing that a header or a mail server could take for more."""
    good = [
        "ann@example.org",
        "first.last+esgf@sub.site-a.org",
        "o'neil@example.org",
        "ann@xn--bcher-kva.example",
    ]
    bad = ["", "ann", "@example.org", "ann@", "ann@localhost", "a b@example.org", "ann@example.org\r\nBcc: x@y.org",
           "ann@example.org,bob@example.org", "<ann@example.org>", "ann@@example.org", "ann@example..org",
           "ann@1.2.3.4", "ann@-x.org", "a" * 65 + "@example.org", "ann@" + "a." * 130 + "org", "Test Email", "ann@b\u00fccher.example", "\u00e4nn@example.org"]  # fmt: skip
    assert [one for one in good if not is_mail_address(one)] == []
    assert [one for one in bad if is_mail_address(one)] == []


def test_the_lowest_priority_is_asked_first_in_both_namespaces():
    """Services without a priority come last; other services and other schemes never."""
    content = XRDS.format(far="https://far.example.org/", near="https://near.example.org/").encode()
    assert attribute_services(content) == ("https://near.example.org/", "https://far.example.org/")
    one_namespace = b"""<XRDS xmlns="xri://$xrds"><XRD>
      <Service><Type>urn:esg:security:attribute-service</Type><URI>https://last.example.org/</URI></Service>
      <Service priority="7"><Type>urn:esg:security:attribute-service</Type>
        <URI priority="2">https://second.example.org/</URI><URI priority="1">https://first.example.org/</URI>
        <URI>http://plain.example.org/</URI><URI>https://[x/</URI></Service></XRD></XRDS>"""
    assert attribute_services(one_namespace) == (
        "https://first.example.org/",
        "https://second.example.org/",
        "https://last.example.org/",
    )
    assert attribute_services(b'<XRDS xmlns="xri://$xrds"><XRD/></XRDS>') == ()


BOMB = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
NOT_XML = [
    b"",
    b"<html><br></html>",
    b"\xff\xfe",
    BOMB,
    b"<a>" * 20_000,
    b'<?xml version="1.0" encoding="x"?><a/>',
    b"<a/>",
]


@pytest.mark.parametrize("content", NOT_XML, ids=range(len(NOT_XML)))
def test_what_is_no_document_is_an_error_of_its_kind(content):
    """Pages of errors, entities, other encodings, depth: one line, nothing of the content in it."""
    with pytest.raises(YadisError):
        attribute_services(content)
    with pytest.raises(SamlError):
        read_response(content, "q-1", OPENID)


def test_a_question_asks_for_the_address_alone():
    """Every value is escaped; a provider reads back what was meant."""
    openid = "https://idp.example.org/openid/a&b<c>"
    root = fromstring(attribute_query("q-1", openid, 'CN=a "<&', 1248822420081))
    names = {"s": "urn:oasis:names:tc:SAML:2.0:assertion", "p": "urn:oasis:names:tc:SAML:2.0:protocol"}
    query = root.find("{http://schemas.xmlsoap.org/soap/envelope/}Body/p:AttributeQuery", names)
    assert dict(query.attrib) == {"ID": "q-1", "IssueInstant": "2009-07-28T23:07:00.081Z", "Version": "2.0"}
    assert query.find("s:Subject/s:NameID", names).text == openid
    assert query.find("s:Issuer", names).text == 'CN=a "<&'
    assert [one.get("Name") for one in query.findall("s:Attribute", names)] == ["urn:esg:email:address"]


def test_an_answer_is_read():
    """The address among other attributes; a user nobody knows; an account without an address."""
    assert read_response(response("q-1", OPENID, " ann@example.org ").encode(), "q-1", OPENID) == SamlAnswer(
        is_known=True, address="ann@example.org"
    )
    unknown = response("q-1", OPENID, status="UnknownPrincipal").encode()
    assert read_response(unknown, "q-1", OPENID) == SamlAnswer(is_known=False)
    other = response("q-1", OPENID, "x", attribute="urn:esg:last:name").encode()
    assert read_response(other, "q-1", OPENID) == SamlAnswer(is_known=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (response("q-2", OPENID, "ann@example.org"), "another question"),
        (response("q-2", OPENID, status="UnknownPrincipal"), "another question"),
        (response("q-1", OPENID + "e", "ann@example.org"), "another user"),
        (response("q-1", OPENID, status="Responder"), "status Responder"),
        (response("q-1", OPENID, status="&lt;b> \u2028"), "status unreadable"),
        (response("q-1", OPENID).replace("saml2p:Response", "saml2p:Answer"), "no SAML response"),
        (response("q-1", OPENID).replace("soap11:Body", "soap11:Head"), "no SOAP envelope"),
        ("<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body><e:Fault/></e:Body></e:Envelope>", "fault"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_none(content, says):
    """Whose question, whose user, which status: each must be right, and no address is in the message."""
    with pytest.raises(SamlError, match=says) as caught:
        read_response(content.encode(), "q-1", OPENID)
    assert "@" not in str(caught.value)
    assert "ann" not in str(caught.value)


@pytest.mark.skipif(
    not REAL.is_dir(), reason="ESGF_SAML_DOCUMENTS names no folder with documents of real providers"
)
def test_documents_of_real_programs_are_read():
    """What the programs in use write is understood byte for byte."""
    query_id = "9566201b-63ad-4f14-b6c0-6cf6b35a90e0"
    answer = read_response(
        (REAL / "SAMLattributeQueryResponseSOAP.xml").read_bytes(), query_id, "Test Openid"
    )
    assert answer == SamlAnswer(is_known=True, address="Test Email")
    assert attribute_services((REAL / "yadis.xml").read_bytes()) == (
        "https://attributeservice.somewhere.ac.uk/",
    )
    failure = (REAL / "SAMLattributeQueryResponseFailure.xml").read_bytes().partition(b"?>")[2]
    soap = b"<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>%b</e:Body></e:Envelope>"
    assert read_response(soap % failure, query_id, "Test Openid") == SamlAnswer(is_known=False)
