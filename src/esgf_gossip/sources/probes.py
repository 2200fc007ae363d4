"""
One look at one service: does it answer?

HTTP and HTTPS services by GET, GridFTP and MyProxy by a TCP connection, an index by the ping of its Solr. No
redirect is followed, no body is read, nothing secret is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks  # noqa: A004 - addTimeout's own
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.protocol import Protocol
from twisted.web.client import URI, Agent, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from esgf_gossip.esgf.services import Service
from esgf_gossip.sources.reach import NotAllowed
from esgf_gossip.trust.unverified import UnverifiedPolicy

TCP_PORTS: Final = {"GridFTPService": 2811, "MyProxyService": 7512}
SOLR_PING: Final = "/solr/datasets/admin/ping?wt=json"
_HEADERS: Final = {"User-Agent": ["esgf-gossip"], "Accept": ["*/*"]}
# 404: the program was taken out of the web server that still answers.
_ABSENT: Final = 404
_NOBODY_SPEAKS: Final = (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
    ResponseNeverReceived,
    TimeoutError,
)


class ProbeFailed(Exception):  # noqa: N818 - an outcome, not a fault of ours
    """Report what one look at a service saw, in a few words."""


@implementer(IAgentEndpointFactory)
class Prober:
    """
    Looks at services from this host.

    Args:
        reactor: clock and connections.
        endpoint_to: makes what connects to a host and port; by default whatever it is.
    """

    def __init__(self, reactor: Any, endpoint_to: Callable[[str, int], Any] | None = None) -> None:
        self._reactor: Final = reactor
        self._endpoint_to: Final = endpoint_to or (lambda host, port: HostnameEndpoint(reactor, host, port))
        self._agent: Final = Agent.usingEndpointFactory(reactor, self)

    def endpointForURI(self, uri: URI) -> Any:
        """Return what connects to the host of a URL, for Twisted's Agent; over TLS any certificate will do."""
        endpoint = self._endpoint_to(uri.host.decode("ascii"), uri.port)
        if uri.scheme == b"http":
            return endpoint
        return wrapClientTLS(UnverifiedPolicy().creatorForNetloc(uri.host, uri.port), endpoint)

    def look(self, service: Service, timeout_s: float) -> Deferred[str | None]:
        """
        Fire with an empty text where the service answers, else with what was seen; None: nobody may look. Never fails.

        ``timeout_s`` bounds the look, all its steps together.
        """
        looking = self._looked(service, timeout_s)
        looking.addTimeout(timeout_s, self._reactor)
        looking.addCallbacks(lambda _answer: "", _reason)
        return looking

    @inlineCallbacks
    def _looked(self, service: Service, timeout_s: float) -> Iterator[Any]:
        if service.type in TCP_PORTS:
            yield self._connect(service)
            return
        if service.type == "IndexService":
            try:
                yield self._get(_solr_ping(service), ping=True).addTimeout(timeout_s / 2, self._reactor)
            except _NOBODY_SPEAKS:
                # The port of Solr is closed or filtered on many hosts, and search goes through the web server.
                pass
            else:
                return
        yield self._get(service.endpoint)

    @inlineCallbacks
    def _get(self, url: str, *, ping: bool = False) -> Iterator[Any]:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ProbeFailed("the endpoint is no http or https address")
        response = yield self._agent.request(b"GET", url.encode("ascii"), Headers(_HEADERS))
        response.deliverBody(_NoBody())
        code = response.code
        if code >= 500 or code == _ABSENT or (ping and code != 200):
            raise ProbeFailed(f"answers with status {code}")

    @inlineCallbacks
    def _connect(self, service: Service) -> Iterator[Any]:
        address = urlsplit(service.endpoint if "//" in service.endpoint else f"//{service.endpoint}")
        if not address.hostname:
            raise ProbeFailed("the endpoint names no host")
        port = address.port or TCP_PORTS[service.type]
        protocol = yield self._endpoint_to(address.hostname, port).connect(_Caller())
        protocol.transport.loseConnection()


class _Caller:
    """A factory of connections that say nothing."""

    noisy = False

    def doStart(self) -> None:
        """Do nothing."""

    def doStop(self) -> None:
        """Do nothing."""

    def buildProtocol(self, addr: Any) -> Protocol:  # noqa: ARG002 - Twisted's own signature
        """Make a silent protocol."""
        return Protocol()


class _NoBody(Protocol):
    """Ends the connection as soon as the body would begin."""

    def connectionMade(self) -> None:
        """Hang up."""
        self.transport.loseConnection()


def _solr_ping(service: Service) -> str:
    host = urlsplit(service.endpoint).hostname or ""
    return f"http://{host}:{dict(service.attributes)['port']}{SOLR_PING}"


def _reason(failure: Any) -> str | None:
    error = failure.value
    if isinstance(error, NotAllowed):
        return None
    if isinstance(error, ProbeFailed):
        return str(error)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:200]
