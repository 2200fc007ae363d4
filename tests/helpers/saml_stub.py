"""An identity provider of the tests: Yadis and SAML over real mutual TLS on loopback, as wrong as a test wants it."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers.trust import TestFederation

XRDS = """<?xml version="1.0" encoding="UTF-8"?>
<xrds:XRDS xmlns:xrds="xri://$xrds" xmlns="xri://$xrd*($v*2.0)">
  <XRD>
    <Service priority="1"><Type>urn:esg:security:myproxy-service</Type><URI>socket://proxy.example.org:7512</URI></Service>
    <Service priority="20"><Type>urn:esg:security:attribute-service</Type><URI>{far}</URI></Service>
    <Service priority="3"><Type>urn:esg:security:attribute-service</Type><URI>{near}</URI></Service>
    <Service priority="0"><Type>http://specs.openid.net/auth/2.0/signon</Type><URI>https://login.example.org/</URI></Service>
  </XRD>
</xrds:XRDS>"""

STATUS = "urn:oasis:names:tc:SAML:2.0:status:"


def response(
    query_id: str,
    openid: str,
    address: str = "",
    status: str = "Success",
    attribute: str = "urn:esg:email:address",
) -> str:
    """Write a response as the providers do: other prefixes than the question has, issuer format spelled otherwise."""
    assertion = f"""
     <saml2:Assertion xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion" Version="2.0">
      <saml2:Issuer Format="urn:oasis:names:tc:SAML:1.1:nameid-format:X509SubjectName">A stub</saml2:Issuer>
      <saml2:Subject><saml2:NameID Format="urn:esg:openid">{openid}</saml2:NameID></saml2:Subject>
      <saml2:AttributeStatement>
       <saml2:Attribute FriendlyName="FirstName" Name="urn:esg:first:name"><saml2:AttributeValue>Ann</saml2:AttributeValue></saml2:Attribute>
       <saml2:Attribute FriendlyName="EmailAddress" Name="{attribute}" NameFormat="http://www.w3.org/2001/XMLSchema#string">
        <saml2:AttributeValue xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xs="http://www.w3.org/2001/XMLSchema" xsi:type="xs:string">{address}</saml2:AttributeValue>
       </saml2:Attribute>
      </saml2:AttributeStatement>
     </saml2:Assertion>"""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <soap11:Envelope xmlns:soap11="http://schemas.xmlsoap.org/soap/envelope/"><soap11:Body>
     <saml2p:Response xmlns:saml2p="urn:oasis:names:tc:SAML:2.0:protocol" InResponseTo="{query_id}" Version="2.0">
      <saml2p:Status><saml2p:StatusCode Value="{STATUS}{status}"/></saml2p:Status>
      {assertion if status == "Success" else ""}
     </saml2p:Response></soap11:Body></soap11:Envelope>"""


class SamlStub:
    """
    The provider: ``yadis`` and ``saml`` make an answer (status, headers, body) of path and question; None: say nothing.

    ``seen`` are the questions, with the name in the certificate of who asked.
    """

    def __init__(self, federation: TestFederation, host: str) -> None:
        stub = self
        self.seen: list[tuple[str, str, str]] = []
        self.users: dict[str, str] = {}
        self.yadis: Callable[[str], tuple[int, dict[str, str], bytes] | None] = lambda _: (404, {}, b"")
        self.saml: Callable[[str, str], tuple[int, dict[str, str], bytes] | None] = self.honest
        self.closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._tell("GET", stub.yadis(self.path), "")

            def do_POST(self) -> None:
                question = self.rfile.read(int(self.headers["Content-Length"])).decode()
                query_id = re.search(r' ID="([^"]+)"', question)[1]
                openid = re.search(r"<saml:NameID[^>]*>([^<]+)<", question)[1]
                self._tell("POST", stub.saml(query_id, openid), question)

            def _tell(
                self, method: str, answer: tuple[int, dict[str, str], bytes] | None, question: str
            ) -> None:
                names = [
                    value for kind, value in self.connection.getpeercert()["subjectAltName"] if kind == "DNS"
                ]
                stub.seen.append((f"{method} {self.path}", names[0], question))
                if answer is None:
                    stub.closing.wait(60)
                    self.close_connection = True
                    return
                code, headers, body = answer
                self.send_response(code)
                for name, value in {
                    "Content-Length": str(len(body)),
                    "Connection": "close",
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Say nothing of clients that hang up."""

        directory = federation.node(host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "chain.pem", directory / "node.key")
        context.verify_mode = ssl.CERT_REQUIRED
        for root in Path(directory / "roots").iterdir():
            context.load_verify_locations(root)
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def honest(self, query_id: str, openid: str) -> tuple[int, dict[str, str], bytes]:
        """Answer as a provider that is right."""
        known = self.users.get(openid)
        body = response(query_id, openid, known or "", "Success" if known else "UnknownPrincipal")
        return 200, {"Content-Type": "text/xml"}, body.encode()

    def close(self) -> None:
        """Answer no more."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
