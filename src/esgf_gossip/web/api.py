"""
The pages of the HTTP service and where each one hangs.

What a page answers lives here; how answers go out is ``resources``' work, how
nodes look as JSON ``views.node_json``'s. Plain twisted.web resources instead of
klein: the tree is small, and klein turns 404 and 405 into 500 where errors are
caught, sends no Content-Length, and runs at two thirds of the speed (measured).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import Request
from twisted.web.resource import IResource

from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.node_json import Wanted, json_bytes, node_body, nodes_body, services_body, status_body
from esgf_gossip.web.dashboard.html_page import Dashboard, MissingPage, Shown
from esgf_gossip.web.dashboard.pages import pages
from esgf_gossip.web.dataset_pages import DatasetsFolder
from esgf_gossip.web.event_stream import EventStreamPage
from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.legacy import JavaPage, NodeManagerPage
from esgf_gossip.web.metadata_pages import DocumentsPage
from esgf_gossip.web.openapi import openapi_body
from esgf_gossip.web.past_pages import (
    JSON,
    REGISTRATION_XML,
    DifferencesPage,
    HistoryPage,
    PastDocumentPage,
    fields_of,
    json_document,
    send_past,
)
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.questions import (
    OF_NODE,
    OF_NODES,
    OF_SERVICES,
    Part,
    QuestionError,
    refuse_blank,
    time_of,
    wanted,
)
from esgf_gossip.web.resources import MISSING, RETRY_AFTER_S, KeptPage, Page, ProblemPage, send_document

PROMETHEUS: Final = "text/plain; version=1.0.0; charset=utf-8"


class Facade(Shown, Protocol):
    """What the service shows of the daemon."""

    def is_ready(self) -> bool:
        """Tell whether the picture can be relied on: compared with two peers, or alone for 30 s."""


def send_view(
    facade: Facade, request: Request, known: tuple[str, ...], body_of: Callable[[FederationView, Wanted], Any]
) -> Any:
    """
    Send a body made of the newest view, or of that of the time ``at`` of the request; of a list the part asked for.

    Args:
        facade: the daemon.
        request: of whose parameters that stand twice the last counts.
        known: the parameters that this page has.
        body_of: makes the body of a view, and of what is asked for.

    Raises:
        Refused: 400, a parameter or a value is not known; and whatever ``body_of`` refuses.
    """
    fields = fields_of(request)
    try:
        refuse_blank(fields)
        question, part = wanted(fields, known), Part.read(fields)
        at_ms = time_of(fields, facade.now_ms()) if "at" in fields else None
    except QuestionError as error:
        raise Refused(Problem(error.status, str(error))) from None

    def parted(view: FederationView) -> Any:
        body = body_of(view, question)
        if not isinstance(body, list):
            return body
        offset = part.next_offset(body)
        if offset is not None:
            query = urlencode({**fields, "offset": str(offset)})
            request.setHeader("Link", f'<{request.path.decode("ascii", "replace")}?{query}>; rel="next"')
        return part.of(body)

    if at_ms is None:
        return send_document(request, json_document(parted(facade.view())))
    return send_past(request, facade.past, at_ms, parted)


class ViewPage(Page):
    """Serves what is made of the view, JSON by default; made anew only when the view is another object."""

    def __init__(
        self,
        facade: Facade,
        body_of: Callable[[FederationView], Any],
        bytes_of: Callable[[Any], bytes] = json_bytes,
        content_type: str = JSON,
    ) -> None:
        super().__init__()
        self._facade = facade
        self._body_of = body_of
        self._bytes_of = bytes_of
        self._content_type = content_type
        self._made_of: FederationView | None = None
        self._document: KeptDocument | None = None

    def answer(self, request: Request) -> bytes:
        """Send what is made of the newest view."""
        view = self._facade.view()
        if self._document is None or view is not self._made_of:
            self._document = KeptDocument(self._bytes_of(self._body_of(view)), self._content_type)
            self._made_of = view
        return send_document(request, self._document)


class NodesPage(ViewPage):
    """``/api/v1/nodes``, all or those asked for, and below it one page per host."""

    def __init__(self, facade: Facade) -> None:
        super().__init__(facade, nodes_body)

    def answer(self, request: Request) -> Any:
        """
        Send all nodes, or those that have room, of now or of an earlier time.

        Raises:
            Refused: 400, a parameter or a value is not known.
        """
        if not request.args:
            return super().answer(request)
        return send_view(self._facade, request, OF_NODES, nodes_body)

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Find a host by its name, in any case."""
        return NodePage(self._facade, path.decode("ascii", "replace").lower()) if path else MISSING


class NodePage(Page):
    """``/api/v1/nodes/<host>?at=``, and below it why the node has its status and what happened to it."""

    def __init__(self, facade: Facade, host: str) -> None:
        super().__init__()
        self.putChild(b"explain", ExplainPage(facade, host))
        self.putChild(b"history", HistoryPage(facade.past, facade.now_ms, host))
        self._facade = facade
        self._host = host

    def answer(self, request: Request) -> Any:
        """
        Send one node.

        Raises:
            Refused: 404, no node has, or had, that name; 400, a parameter or a value is not known.
        """
        return send_view(self._facade, request, OF_NODE, self._body)

    def _body(self, view: FederationView, _question: Wanted) -> dict[str, Any]:
        node = view.node(self._host)
        if node is None:
            raise Refused(Problem(404, "no node of that name; /api/v1/nodes lists all"))
        return node_body(node)


class ExplainPage(Page):
    """``/api/v1/nodes/<host>/explain``."""

    def __init__(self, facade: Facade, host: str) -> None:
        super().__init__()
        self._facade = facade
        self._host = host

    def answer(self, request: Request) -> bytes:
        """
        Send why a node has its status.

        Raises:
            Refused: 404, no node has that name.
        """
        body = self._facade.explain(self._host)
        if body is None:
            raise Refused(Problem(404, "no node of that name; /api/v1/nodes lists all"))
        return send_document(request, json_document(body))


class ServicesPage(Page):
    """``/api/v1/services``, all or those asked for."""

    def __init__(self, facade: Facade) -> None:
        super().__init__()
        self._facade = facade

    def answer(self, request: Request) -> Any:
        """
        Send the services asked for, as a flat list.

        Raises:
            Refused: 400, a parameter or a value is not known.
        """
        return send_view(self._facade, request, OF_SERVICES, services_body)


class TextPage(Page):
    """Serves one word about the process, never from a cache."""

    def __init__(self, word: str, is_so: Callable[[], bool]) -> None:
        super().__init__()
        self._word = word
        self._is_so = is_so

    def answer(self, request: Request) -> bytes:
        """
        Send the word.

        Raises:
            Refused: 503, it is not so yet.
        """
        if not self._is_so():
            raise Refused(Problem(503, f"not {self._word} yet", {"Retry-After": str(RETRY_AFTER_S)}))
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        return self._word.encode("ascii")


class OpenApiPage(Page):
    """``/openapi.json``: describes the documents served at this moment."""

    def __init__(self, facade: Facade) -> None:
        super().__init__()
        self._facade = facade

    def answer(self, request: Request) -> bytes:
        """Send the description."""
        body = openapi_body(tuple(self._facade.documents), self._facade.view().own.version)
        return send_document(request, json_document(body))


class RootPage(Page):
    """The root of the tree: fixed paths, then the kept documents by name."""

    def __init__(self, facade: Facade, clock: IReactorTime) -> None:
        super().__init__()
        self._facade = facade
        self._documents = facade.documents
        self.events = EventStreamPage(facade.events, clock)
        v1 = Folder()
        v1.putChild(b"status", ViewPage(facade, status_body))
        v1.putChild(b"nodes", NodesPage(facade))
        v1.putChild(b"services", ServicesPage(facade))
        v1.putChild(b"documents", DocumentsPage(facade.metadata))
        v1.putChild(b"datasets", DatasetsFolder(facade.datasets, facade.now_ms))
        v1.putChild(b"events", self.events)
        v1.putChild(b"history", HistoryPage(facade.past, facade.now_ms))
        v1.putChild(b"differences", DifferencesPage(facade.past, facade.now_ms))
        api = Folder()
        api.putChild(b"v1", v1)
        dashboard = Dashboard(facade)
        self._missing = MissingPage(dashboard)
        for name, page in pages(dashboard).items():
            self.putChild(name.encode("ascii"), page)
        self.putChild(b"api", api)
        self.putChild(b"esgf-nm", NodeManagerPage(facade.documents, facade.view))
        self.putChild(b"esgf-node-manager", JavaPage(facade.documents))
        self.putChild(b"healthz", TextPage("ok", lambda: True))
        self.putChild(b"readyz", TextPage("ready", facade.is_ready))
        self.putChild(b"openapi.json", OpenApiPage(facade))
        self.putChild(b"metrics", ViewPage(facade, _prometheus_page, bytes, PROMETHEUS))

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Find a kept document; of registration.xml also that of an earlier time."""
        name = path.decode("ascii", "replace")
        if not self._documents.is_known(name):
            return self._missing if "text/html" in (request.getHeader("Accept") or "") else MISSING
        if name == REGISTRATION_XML and b"at" in request.args:
            return PastDocumentPage(self._facade.past, self._facade.now_ms)
        return KeptPage(self._documents, name)


def _prometheus_page(view: FederationView) -> bytes:
    # Brings an HTTP server of its own with it, 70 ms at the start of each daemon: for those who ask.
    from esgf_gossip.views.prometheus import prometheus_page  # noqa: PLC0415

    return prometheus_page(view)


class Folder(ProblemPage):
    """A folder of pages that is no page itself."""

    isLeaf = False

    def __init__(self) -> None:
        super().__init__(MISSING.problem)
