"""
A user's mail address from the user's identity provider: Yadis, then a SAML attribute query, over mutual TLS.

Only providers that the registry lists are asked, each at its own pace; an OpenID goes to nobody else, so no answer may
send us to another host. No message shows an OpenID or an address. Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,  # noqa: A004 - addTimeout's own
    inlineCallbacks,
)
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, PotentialDataLoss, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from esgf_gossip.core.quota import TokenBucket
from esgf_gossip.esgf.openids import canonical_openid, is_mail_address, openid_host
from esgf_gossip.esgf.saml import SamlAnswer, SamlError, attribute_query, read_response
from esgf_gossip.esgf.yadis import YadisError, attribute_services
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.refusal import refusal_reason

ANSWER_BYTES: Final = 64 * 1024
# For each of the two steps.
ANSWER_S: Final = 10.0
REDIRECTS: Final = 3
# Of one provider: questions a second, at once, and such as wait for their turn.
QUESTIONS_PER_S: Final = 2.0
QUESTIONS_AT_ONCE: Final = 5
QUESTIONS_WAITING: Final = 500
# Providers whose pace is remembered.
PROVIDERS_PACED: Final = 1024

_AGENT: Final = {"User-Agent": ["esgf-gossip"]}
_CANCELLED: Final = (TimeoutError, CancelledError, ConnectingCancelledError)
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})


class ProviderError(Exception):
    """Report why an identity provider gave no answer, in one line; it may be asked again."""


@implementer(IAgentEndpointFactory)
class IdentityProviders:
    """
    Asks identity providers.

    Args:
        reactor: clock and connections.
        policy: makes the TLS, ``trust.web_client.WebClientPolicy``.
        provider_of: the address of the attribute service that the registry gives for a host, empty where it lists
            the host without one; None: no identity provider.
        issuer: the distinguished name we ask by.
        now_ms: the wall clock.
        endpoint_to: makes what connects to a host and port; by default whatever it is.
    """

    def __init__(
        self,
        reactor: Any,
        policy: Any,
        provider_of: Callable[[str], str | None],
        issuer: str,
        now_ms: Callable[[], int],
        endpoint_to: Callable[[str, int], Any] | None = None,
    ) -> None:
        self._reactor: Final = reactor
        self._policy: Final = policy
        self._provider_of: Final = provider_of
        self._issuer: Final = issuer
        self._now_ms: Final = now_ms
        self._endpoint_to: Final = endpoint_to or (lambda host, port: HostnameEndpoint(reactor, host, port))
        self._agent: Final = Agent.usingEndpointFactory(reactor, self)
        self._paces: Final[OrderedDict[str, _Pace]] = OrderedDict()

    def endpointForURI(self, uri: URI) -> Any:
        """Return what connects to the host of an address, for Twisted's Agent; HTTPS alone."""
        if uri.scheme != b"https":
            raise ProviderError("an identity provider is asked by HTTPS alone")
        endpoint = self._endpoint_to(uri.host.decode("ascii"), uri.port)
        creator = self._policy.creatorForNetloc(uri.host, uri.port)
        return _Ending(wrapClientTLS(creator, endpoint), self._reactor)

    @inlineCallbacks
    def ask(self, openid: str) -> Iterator[Any]:
        """Fire with a SamlAnswer whose address is one or empty; fails with a ProviderError and nothing else."""
        name = canonical_openid(openid)
        host = openid_host(openid)
        listed = self._provider_of(host) if host else None
        if listed is None:
            raise ProviderError("the host of the OpenID is no identity provider of the registry")
        yield self._turn(host)
        service = yield self._service(name, host, listed)
        answer = yield self._answer(service, openid.strip())
        if answer.is_known and not is_mail_address(answer.address):
            raise ProviderError(f"{host}: the answer holds no mail address")
        return answer

    def _turn(self, host: str) -> Deferred[None]:
        pace = self._paces.setdefault(host, _Pace())
        self._paces.move_to_end(host)
        if len(self._paces) > PROVIDERS_PACED:
            self._paces.popitem(last=False)
        return pace.turn(self._reactor, host)

    @inlineCallbacks
    def _service(self, openid: str, host: str, listed: str) -> Iterator[Any]:
        """Fire with the address to ask: what the provider's Yadis says where that is listed too, else the registry's."""
        reason = "no attribute service is known"
        if openid.startswith("https://"):
            try:
                content = yield self._fetched(openid, host)
                for found in attribute_services(content):
                    where = (urlsplit(found).hostname or "").lower()
                    if where in (host, _host(listed)) or self._provider_of(where) is not None:
                        return found
            except (ProviderError, YadisError) as error:
                reason = str(error)
        if not listed:
            raise ProviderError(f"{host}: {reason}")
        return listed

    @inlineCallbacks
    def _fetched(self, openid: str, host: str) -> Iterator[Any]:
        address = openid
        for _ in range(REDIRECTS + 1):
            code, headers, content = yield self._exchange(b"GET", address, host)
            if code not in _REDIRECTED:
                if code != 200:
                    raise ProviderError(f"answers the OpenID with status {code}")
                return content
            target = _joined(address, (headers.getRawHeaders("Location") or [""])[0])
            if _origin(target) != _origin(address):
                raise ProviderError("sends the OpenID to another host")
            address = target
        raise ProviderError("sends the OpenID round in circles")

    @inlineCallbacks
    def _answer(self, service: str, openid: str) -> Iterator[Any]:
        query_id = f"q-{secrets.token_hex(16)}"
        query = attribute_query(query_id, openid, self._issuer, self._now_ms())
        host = _host(service)
        code, _, content = yield self._exchange(b"POST", service, host, query)
        if code != 200:
            raise ProviderError(f"{host}: answers with status {code}")
        try:
            answer: SamlAnswer = read_response(content, query_id, openid)
        except SamlError as error:
            raise ProviderError(f"{host}: {error}") from None
        return answer

    @inlineCallbacks
    def _exchange(self, method: bytes, address: str, host: str, body: bytes = b"") -> Iterator[Any]:
        headers = Headers(_AGENT)
        producer = None
        if body:
            headers.setRawHeaders("Content-Type", ["text/xml; charset=utf-8"])
            headers.setRawHeaders("SOAPAction", ['""'])
            producer = _Bytes(body)
        try:
            asked = self._agent.request(method, address.encode("ascii"), headers, producer)
            asked.addCallback(_whole)
            asked.addTimeout(ANSWER_S, self._reactor)
            code, said, content = yield asked
        except UnicodeEncodeError:
            raise ProviderError(f"{host}: the address is no plain text") from None
        except Exception as error:  # noqa: BLE001 - each becomes a ProviderError
            # Whatever a stranger and the libraries in between make of it, it is no answer.
            raise ProviderError(f"{host}: {_reason(error)}") from None
        return code, said, content


class _Pace:
    """When one provider may be asked again."""

    def __init__(self) -> None:
        self._bucket: Final = TokenBucket(QUESTIONS_PER_S, QUESTIONS_AT_ONCE)
        self._waiting = 0

    def turn(self, reactor: Any, host: str) -> Deferred[None]:
        """Return what fires when it is this question's turn."""
        turn: Deferred[None] = Deferred()
        now_s = reactor.seconds()
        wait_s = self._bucket.wait_s(now_s, 1.0)
        if wait_s > 0.0 and self._waiting >= QUESTIONS_WAITING:
            turn.errback(ProviderError(f"{host}: too many questions wait for it already"))
            return turn
        # Into debt: so the next one waits longer by one.
        self._bucket.take(1.0, now_s)
        if wait_s <= 0.0:
            turn.callback(None)
            return turn
        self._waiting += 1

        def begin() -> None:
            self._waiting -= 1
            turn.callback(None)

        reactor.callLater(wait_s, begin)
        return turn


@implementer(IStreamClientEndpoint)
class _Ending:
    """Connects, and ends the connection in time: its goodbye waits for the other's, who may hold it for ever."""

    def __init__(self, endpoint: Any, reactor: Any) -> None:
        self._endpoint: Final = endpoint
        self._reactor: Final = reactor

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect."""
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(self._bounded)

    def _bounded(self, protocol: Any) -> Any:
        # Does nothing where it is over by then.
        self._reactor.callLater(ANSWER_S + 1.0, protocol.transport.abortConnection)
        return protocol


class _Bytes:
    """The body of a request, for Twisted's Agent."""

    def __init__(self, content: bytes) -> None:
        self._content: Final = content
        self.length: Final = len(content)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Give all of it."""
        consumer.write(self._content)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Do nothing: it is short."""

    def resumeProducing(self) -> None:
        """Do nothing."""

    def stopProducing(self) -> None:
        """Do nothing."""


class _Body(Protocol):
    """Takes the body of an answer, not more than ``ANSWER_BYTES`` of it."""

    def __init__(self) -> None:
        self._content = bytearray()
        self.done: Final[Deferred[bytes]] = Deferred(lambda _: self._leave())

    def dataReceived(self, data: bytes) -> None:
        """Take some."""
        self._content += data
        if len(self._content) > ANSWER_BYTES:
            self._leave()
            self._fail(ProviderError(f"answers with more than {ANSWER_BYTES} bytes"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Give what came, where all of it came."""
        if self.done.called:
            return
        if reason is not None and reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._content))
        else:
            self._fail(ProviderError("hangs up in the middle of its answer"))

    def _fail(self, error: ProviderError) -> None:
        if not self.done.called:
            self.done.errback(error)

    def _leave(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


def _whole(response: Any) -> Deferred[Any]:
    body = _Body()
    response.deliverBody(body)
    return body.done.addCallback(lambda content: (response.code, response.headers, content))


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _origin(address: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(address)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or 443
    except ValueError:
        return "", "", None


def _joined(address: str, target: str) -> str:
    try:
        return urljoin(address, target)
    except ValueError:
        return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ProviderError):
        return str(error)
    reasons = [one.value for one in getattr(error, "reasons", ()) if isinstance(one, Failure)]
    if any(isinstance(one, _CANCELLED) for one in (error, *reasons)):
        return f"gives no answer within {ANSWER_S:g} s"
    if isinstance(error, DNSLookupError):
        return "the name is not known (DNS)"
    if isinstance(error, ConnectError):
        return str(error).rstrip(".") or type(error).__name__
    if isinstance(error, ResponseFailed):
        return refusal_reason(reasons[0]) if reasons else "the answer is broken"
    if isinstance(error, (ConnectionLost, ConnectionDone, TrustError)):
        return refusal_reason(error)
    # Its text may hold the address that was asked for, and so the OpenID.
    return type(error).__name__
