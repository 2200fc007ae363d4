"""
One HTTP connection and one request on it: bounds, Host, and headers of every answer.

What is true of all paths lives here, nothing about a single one. Twisted's own
error pages (HTML, or a bare status line) are replaced by problem documents.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString, unquote
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from esgf_gossip.web.dataset_questions import CHECK_BYTES
from esgf_gossip.web.problems import CONTENT_TYPE, Problem, Refused
from esgf_gossip.web.resources import send_problem

# The longest of our paths is a host name of 253 characters; browsers send 1 to 2 KiB of fields.
LINE_BYTES: Final = 8 * 1024
HEAD_BYTES: Final = 16 * 1024
FIELDS: Final = 64
# No other body is used. A small one is read away, so that its sender lives to read the answer: closing a
# connection with bytes unread resets it, and the answer is lost.
BODY_BYTES: Final = 64 * 1024
# What is asked in a body, and how large that may be.
BODIES: Final = {b"/api/v1/datasets/check": CHECK_BYTES}
NO_BODIES: Final = Problem(413, "requests have no body here: nothing changes state")
# From the first byte of a connection, or the end of an answer, to the end of the next request.
IDLE_S: Final = 60.0

CLOSE: Final = {"Connection": "close"}
SAFETY: Final = (
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)


def _too_large(most_bytes: int) -> Problem:
    if not most_bytes:
        return NO_BODIES
    return Problem(413, f"the body of this request has at most {most_bytes} bytes; ask in several")


class NodeRequest(Request):
    """One request: is it for this node and well-formed, then the page's word."""

    # A page that says no type says nothing; Twisted would say HTML.
    defaultContentType = None
    _body_bytes = 0

    def gotLength(self, _length: int | None) -> None:
        """Keep a body in memory; Twisted would put it into a temporary file."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body: kept where it is used, else counted and forgotten."""
        self._body_bytes += len(data)
        most_bytes = self.channel.body_bytes
        if self._body_bytes > (most_bytes or BODY_BYTES):
            self.channel.refuse(_too_large(most_bytes))
        elif most_bytes:
            self.content.write(data)

    def process(self) -> None:
        """Judge target and Host, find the page, send its answer."""
        self.site = self.channel.site
        self.setHeader(b"Server", b"esgf-gossip")
        self.setHeader(b"Date", datetimeToString())
        for name, value in SAFETY:
            self.setHeader(name, value)
        try:
            self._judge()
            self.prepath = []
            self.postpath = [unquote(segment) for segment in self.path[1:].split(b"/")]
            self.render(self.site.getResourceFor(self))
        except Refused as refusal:
            self.send(send_problem(self, refusal.problem))
        except Exception:  # noqa: BLE001 - Twisted would send its own HTML; this logs and answers
            self.processingFailed(Failure())

    def render(self, page: IResource) -> None:
        """Send what the page answers, with its length; HEAD sends the length alone."""
        body = page.render(self)
        if body is not NOT_DONE_YET:
            self.send(body)

    def processingFailed(self, reason: Failure) -> None:
        """Log a failure of our own; the client learns that it is ours, not what it is."""
        self._log.failure("Request failed: {path}", failure=reason, path=self.path)
        if not self.startedWriting:
            self.send(send_problem(self, Problem(500, "internal error; the daemon's log says more")))
        else:
            self.transport.abortConnection()

    def send(self, body: bytes) -> None:
        """Send a whole answer."""
        if self.code != 304:
            self.setHeader(b"Content-Length", b"%d" % len(body))
        if self.responseHeaders.getRawHeaders(b"Connection") == [b"close"]:
            self.channel.persistent = False
        self.write(b"" if self.method == b"HEAD" else body)
        self.finish()

    def _judge(self) -> None:
        authorities = self.requestHeaders.getRawHeaders(b"Host") or []
        if len(authorities) > 1 or (not authorities and self.clientproto == b"HTTP/1.1"):
            raise Refused(Problem(400, "exactly one Host header is needed", CLOSE))
        if not self.path.startswith(b"/"):
            authorities = [self._take_absolute_form()]
        for authority in authorities:
            try:
                is_ours = self.site.host_names.accepts(authority.decode("latin-1"))
            except ValueError as error:
                raise Refused(Problem(400, f"Host: {error}", CLOSE)) from None
            if not is_ours:
                raise Refused(
                    Problem(421, "this node is not asked by that Host name; see http.hosts in node.toml")
                )

        # Where a body is used with another method, that is the method to be told of.
        if self._body_bytes and self.method in (b"GET", b"HEAD") and self.path not in BODIES:
            raise Refused(NO_BODIES)

    def _take_absolute_form(self) -> bytes:
        """Cut ``http://host`` off the target and return the host, which then counts (RFC 9112, 3.2.2)."""
        scheme, separator, rest = self.path.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise Refused(Problem(400, "the request target is neither a path nor an http URL", CLOSE))
        authority, _, path = rest.partition(b"/")
        self.path = b"/" + path
        return authority


class NodeChannel(HTTPChannel):
    """
    One connection, bounded in size and time.

    The deadline is not moved by bytes that arrive (a client that drips one a
    minute would hold its place for ever), only by answers sent.
    """

    MAX_LENGTH = LINE_BYTES
    totalHeadersSize = HEAD_BYTES
    maxHeaders = FIELDS

    # Of the request that is being read, where its body is used; else 0.
    body_bytes = 0
    _is_refused = False

    def connectionMade(self) -> None:
        """Take a place among the connections."""
        self.factory.connected(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:
        """Give the place back."""
        self.factory.disconnected(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes without moving the deadline; none after a refusal."""
        if not self._is_refused:
            LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        """Drop the lines that came along with a refused one."""
        if not self._is_refused:
            super().lineReceived(line)

    def lineLengthExceeded(self, _line: bytes) -> None:
        """Refuse a request line or field that is too long."""
        self.refuse(Problem(431, f"a line of the request is longer than {LINE_BYTES} bytes"))

    def allHeadersReceived(self) -> None:
        """Refuse a large body before it is read."""
        self.body_bytes = BODIES.get(self._path.partition(b"?")[0], 0) if self._command == b"POST" else 0
        if self.length is not None and self.length > (self.body_bytes or BODY_BYTES):
            self.refuse(_too_large(self.body_bytes))
            return
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """Drop the body that came along with a refused request."""
        if not self._is_refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """Ask no page about a request that was refused while its body came."""
        if not self._is_refused:
            super().allContentReceived()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Say what Twisted's parser refused; its own answer is a bare status line."""
        if self._receivedHeaderSize > HEAD_BYTES or self._receivedHeaderCount > FIELDS:
            self.refuse(Problem(431, f"more than {HEAD_BYTES} bytes or {FIELDS} fields before the body"))
        else:
            self.refuse(Problem(400, "not a well-formed request"))

    def refuse(self, problem: Problem) -> None:
        """Answer without a request, then close: what follows cannot be told apart."""
        if self._is_refused:
            return
        self._is_refused = True
        body = problem.body()
        fields: list[tuple[bytes, Any]] = [
            *SAFETY,
            (b"Content-Type", CONTENT_TYPE.encode("ascii")),
            (b"Content-Length", len(body)),
            (b"Cache-Control", b"no-store"),
            (b"Connection", b"close"),
        ]
        head = [f"HTTP/1.1 {problem.status} {problem.title}\r\n".encode("ascii")]
        head += [
            b"%s: %s\r\n" % (name, value if isinstance(value, bytes) else b"%d" % value)
            for name, value in fields
        ]
        self.transport.writeSequence([*head, b"\r\n", body])
        self.loseConnection()
