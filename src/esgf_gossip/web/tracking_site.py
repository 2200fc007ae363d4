"""
The port of the writers: what publishers and users send to the tracker; apart from the pages that only show.

Which paths there are is the daemon's affair; the bounds of connections and bodies live here. A path below which bodies
are taken says so: its resource has ``body_bytes``, and may have ``refuses(address) -> Problem | None``, asked before a
large body is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from esgf_gossip.trust.web_tls import HostCertificate
from esgf_gossip.web.connection import BODY_BYTES, IDLE_S, NodeChannel, NodeRequest
from esgf_gossip.web.host_names import HostNames
from esgf_gossip.web.problems import Problem
from esgf_gossip.web.resources import Page, ProblemPage

CONNECTIONS: Final = 256
# Bodies of all connections that are held at a time.
HELD_BYTES: Final = 256 * 1024 * 1024
# From the header of a request to the end of a large body.
BODY_S: Final = 300.0
RETRY_AFTER_S: Final = 30

MISSING: Final = ProblemPage(Problem(404, "nothing is served at this path of the tracking service"))
TOO_MUCH: Final = Problem(
    503, "too much is being sent to this node; try again later", {"Retry-After": str(RETRY_AFTER_S)}
)


class TrackingRequest(NodeRequest):
    """One request whose body is kept, within the bounds of its path and of all."""

    def gotLength(self, _length: int | None) -> None:
        """Keep the body in memory: it is bounded, and none of it belongs into a temporary file."""
        self.content = BytesIO()
        self.most_bytes = self.channel.site.body_bytes(self.channel.path)

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body."""
        if self.channel.is_refused:
            return
        if self._body_bytes + len(data) > self.most_bytes:
            self.channel.refuse(too_large(self.most_bytes))
        elif not self.channel.hold(len(data)):
            self.channel.refuse(TOO_MUCH)
        else:
            self._body_bytes += len(data)
            self.content.write(data)

    def finish(self) -> None:
        """Give back the room of the body."""
        self.channel.let_go()
        super().finish()


def too_large(most_bytes: int) -> Problem:
    """Say that a body is too large."""
    return Problem(413, f"the body of a request has at most {most_bytes} bytes here")


class TrackingChannel(NodeChannel):
    """One connection that may send bodies."""

    _held_bytes = 0

    @property
    def is_refused(self) -> bool:
        """Tell whether the connection is being closed with a problem."""
        return self._is_refused

    @property
    def path(self) -> bytes:
        """The target of the request whose header has come."""
        return bytes(self._path)

    def hold(self, count: int) -> bool:
        """Take room for so many bytes of a body; False: there is none."""
        if not self.factory.hold(count):
            return False
        self._held_bytes += count
        return True

    def let_go(self) -> None:
        """Give the room back."""
        self.factory.hold(-self._held_bytes)
        self._held_bytes = 0

    def allHeadersReceived(self) -> None:
        """Refuse who may not come, and what is too large, before the body is read."""
        most_bytes = self.factory.body_bytes(self._path)
        # A small body is read away and then refused by its page, so that its sender lives to read the answer.
        if self.length is None or self.length > BODY_BYTES:
            refuses = getattr(self.factory.page(self._path), "refuses", None)
            problem = None if refuses is None else refuses(str(getattr(self.getPeer(), "host", "")))
            if problem is None and self.length is not None and self.length > most_bytes:
                problem = too_large(most_bytes)
            if problem is not None:
                self.refuse(problem)
                return
            self.setTimeout(BODY_S)
        HTTPChannel.allHeadersReceived(self)

    def allContentReceived(self) -> None:
        """Go on with the usual deadline after a large body."""
        super().allContentReceived()
        if self._savedTimeOut:
            self._savedTimeOut = IDLE_S

    def connectionLost(self, reason: Failure) -> None:
        """Give back the room of a body that broke off."""
        self.let_go()
        super().connectionLost(reason)


class TrackingSite(Site):
    """
    A Site that knows its names, counts its connections and the bytes it holds, and writes no access log.

    ``refused``: connections that were closed at once, because there were as many as there may be.
    """

    protocol = TrackingChannel
    noisy = False

    def __init__(self, pages: Mapping[str, IResource], host_names: HostNames, clock: IReactorTime) -> None:
        super().__init__(
            _tree(pages), TrackingRequest, timeout=IDLE_S, reactor=clock, parsePOSTFormSubmission=False
        )
        self.host_names: Final = host_names
        self.refused = 0
        self._pages: Final = {b"/" + path.strip("/").encode("ascii"): page for path, page in pages.items()}
        self._open: Final[set[NodeChannel]] = set()
        self._held_bytes = 0

    def buildProtocol(self, addr: IAddress | None) -> NodeChannel | None:
        """Accept a connection, or None (it is closed) where there are as many as there may be."""
        if len(self._open) >= CONNECTIONS:
            self.refused += 1
            return None
        return super().buildProtocol(addr)

    def connected(self, channel: NodeChannel) -> None:
        """Count a connection."""
        self._open.add(channel)

    def disconnected(self, channel: NodeChannel) -> None:
        """Count a connection no more."""
        self._open.discard(channel)

    def hold(self, count: int) -> bool:
        """Take room for bytes of bodies, or give it back; False: there is none."""
        if count > 0 and self._held_bytes + count > HELD_BYTES:
            return False
        self._held_bytes += count
        return True

    def page(self, target: bytes) -> IResource | None:
        """Return the resource that a target leads to; None: there is none."""
        path = target.partition(b"?")[0]
        found = [one for one in self._pages if path == one or path.startswith(one + b"/")]
        return self._pages[max(found, key=len)] if found else None

    def body_bytes(self, target: bytes) -> int:
        """Return how large a body may be that goes to a target."""
        return int(getattr(self.page(target), "body_bytes", BODY_BYTES))

    def startFactory(self) -> None:
        """Open no access log."""

    def stopFactory(self) -> None:
        """Do nothing: there is no access log."""

    def log(self, request: Request) -> None:
        """Write no access log."""


def make_tracking_site(
    pages: Mapping[str, IResource], hosts: Collection[str], clock: IReactorTime
) -> TrackingSite:
    """
    Assemble the site of ``tracking.listen``.

    Args:
        pages: resource by path, such as ``esg-search`` or ``api/v1/events``; what is below is its own.
        hosts: accepted Host names and addresses, ports ignored.
        clock: for timeouts.

    Raises:
        ValueError: one of the hosts is no host name.
    """
    return TrackingSite(pages, HostNames(hosts), clock)


def with_certificate(site: TrackingSite, certificate: HostCertificate | None) -> Any:
    """Return the factory to listen with: HTTPS where there is a certificate, else HTTP."""
    return site if certificate is None else TLSMemoryBIOFactory(certificate, False, site)


class _Folder(Page):
    """A part of a path that is nothing itself."""

    def answer(self, request: Any) -> Any:
        return MISSING.render(request)

    def getChild(self, path: bytes, request: Any) -> IResource:  # noqa: ARG002 - Twisted's own signature
        return MISSING


def _tree(pages: Mapping[str, IResource]) -> Resource:
    root = _Folder()
    # Shorter paths first, so that a folder is never put over a page.
    for path, page in sorted(pages.items()):
        *folders, name = path.strip("/").encode("ascii").split(b"/")
        at: Resource = root
        for folder in folders:
            if folder not in at.children:
                at.putChild(folder, _Folder())
            at = at.children[folder]
        at.putChild(name, page)
    return root
