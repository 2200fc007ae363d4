"""
Asks an index by HTTP: for the proxy that hands on, and for looks of our own.

Connections are kept a few seconds, and each answer has a bound in size and time. The certificate is checked
(``trust.web_tls``); no redirect is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as TookTooLongError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    PotentialDataLoss,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IPolicyForHTTPS
from zope.interface import implementer

# Shorter than servers keep theirs (Apache: 5 s): a request on a connection that just ended would be lost.
KEPT_S: Final = 4.0
KEPT_CONNECTIONS: Final = 8
CONNECT_S: Final = 10.0

Named = Mapping[bytes, Sequence[bytes]]


class IndexUnreachable(Exception):  # noqa: N818 - an outcome, not a fault of ours
    """
    Report that an index gave no whole answer, in a few words.

    ``is_late``: because it took too long. It may have done what it was asked all the same.
    """

    def __init__(self, reason: str, *, is_late: bool = False) -> None:
        super().__init__(reason)
        self.is_late: Final = is_late


@attrs.frozen
class Answer:
    """What an index said: status, header fields, body as it came."""

    status: int
    fields: Headers
    body: bytes = attrs.field(repr=False)


@implementer(IAgentEndpointFactory)
class IndexClient:
    """
    One index.

    Args:
        reactor: clock and connections.
        base_url: ``https://host``, ``https://host:port`` or with a path before ``/esg-search``.
        policy: by which its certificate is checked; None: of a base that is plain HTTP.
        endpoint_to: makes what connects to a host and port; by default whatever it is.

    Raises:
        ValueError: HTTPS without a policy.
    """

    def __init__(
        self,
        reactor: Any,
        base_url: str,
        policy: IPolicyForHTTPS | None = None,
        endpoint_to: Callable[[str, int], Any] | None = None,
    ) -> None:
        if policy is None and not base_url.startswith("http://"):
            raise ValueError(f"{base_url} needs a policy of certificates")
        self.base_url: Final = base_url.rstrip("/")
        self._reactor: Final = reactor
        self._policy: Final = policy
        self._endpoint_to: Final = endpoint_to or (
            lambda host, port: HostnameEndpoint(reactor, host, port, timeout=CONNECT_S)
        )
        self._pool: Final = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = KEPT_CONNECTIONS
        self._pool.cachedConnectionTimeout = KEPT_S
        # It would repeat only what it takes for harmless; here everything is, and one place does it.
        self._pool.retryAutomatically = False
        self._kept: Final = Agent.usingEndpointFactory(reactor, self, self._pool)
        self._fresh: Final = Agent.usingEndpointFactory(
            reactor, self, HTTPConnectionPool(reactor, persistent=False)
        )

    def endpointForURI(self, uri: URI) -> Any:
        """Return what connects to the host of a URL; Twisted's Agent asks for it."""
        endpoint = self._endpoint_to(uri.host.decode("ascii").strip("[]"), uri.port)
        if uri.scheme == b"http":
            return endpoint
        if self._policy is None:  # pragma: no cover - the constructor has looked
            raise ValueError("no policy of certificates")
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)

    def ask(
        self,
        method: bytes,
        target: bytes,
        fields: Named,
        body: bytes,
        timeout_s: float,
        most_bytes: int,
    ) -> Deferred[Answer]:
        """
        Ask; fires with the whole answer, whatever its status.

        A connection that ends before the answer begins is taken for one that the index was about to close, and the
        request is sent once more: whatever an index is asked, to be asked twice is the same to it.

        Args:
            method: of HTTP.
            target: path and query, after the base.
            fields: of the header; Host and Content-Length come by themselves.
            body: may be empty; a POST says its length then too.
            timeout_s: for all of it.
            most_bytes: of the answer's body.

        Fails with ``IndexUnreachable``.
        """
        url = self.base_url.encode("ascii") + target

        def send(agent: Agent) -> Deferred[Any]:
            producer = _Body(body) if body or method == b"POST" else None
            return maybeDeferred(
                agent.request,
                method,
                url,
                Headers({name: list(many) for name, many in fields.items()}),
                producer,
            )

        def once_more(failure: Failure) -> Any:
            return (
                send(self._fresh)
                if failure.check(ResponseNeverReceived, RequestTransmissionFailed)
                else failure
            )

        asking = send(self._kept)
        asking.addErrback(once_more)
        asking.addCallback(_read, most_bytes)
        asking.addTimeout(timeout_s, self._reactor)
        return asking.addErrback(_explained)

    def close(self) -> Deferred[Any]:
        """End the connections that are kept."""
        return self._pool.closeCachedConnections()


@implementer(IBodyProducer)
class _Body:
    """A body that is there already."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is written."""

    def resumeProducing(self) -> None:
        """Do nothing."""

    def stopProducing(self) -> None:
        """Do nothing."""


class _Collector(Protocol):
    """Collects a body within its bound."""

    def __init__(self, most_bytes: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())  # type: ignore[union-attr]
        self._most_bytes = most_bytes
        self._parts: list[bytes] = []
        self._bytes = 0

    def dataReceived(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._most_bytes:
            self._parts.clear()
            if not self.done.called:
                self.done.errback(IndexUnreachable(f"its answer has more than {self._most_bytes} bytes"))
                self.transport.abortConnection()  # type: ignore[union-attr]
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(IndexUnreachable("its answer broke off"))


def _read(response: Any, most_bytes: int) -> Deferred[Answer]:
    collector = _Collector(most_bytes)
    response.deliverBody(collector)
    return collector.done.addCallback(lambda body: Answer(response.code, response.headers, body))


def _explained(failure: Failure) -> Any:
    error = failure.value
    if isinstance(error, IndexUnreachable | CancelledError):
        return failure
    if isinstance(error, TookTooLongError):
        raise IndexUnreachable("no whole answer in time", is_late=True) from None
    if isinstance(error, DNSLookupError):
        raise IndexUnreachable("its host is not known") from None
    reasons = getattr(error, "reasons", ())
    if isinstance(error, ResponseFailed | RequestTransmissionFailed):
        inner = [one.value for one in reasons if not one.check(ConnectionDone, ConnectionLost)]
        error = inner[0] if inner else error
        if not inner:
            raise IndexUnreachable("it hung up without an answer") from None
    if isinstance(error, ConnectError):
        raise IndexUnreachable(f"no connection: {_line(error)}") from None
    raise IndexUnreachable(_line(error)) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
