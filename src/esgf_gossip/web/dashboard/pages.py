"""
The pages for people: what each path answers, and the headers that keep them safe.

Made on the server, whole, of the newest view; a small script then fetches the same page again when something happens.
Without the script every page says the same and renews itself. What a page shows is its neighbours' work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from twisted.web.http import Request
from twisted.web.resource import IResource

from esgf_gossip.document_desk import DocumentError
from esgf_gossip.documents.names import DocumentNameError, parse_name
from esgf_gossip.esgf.health import Health
from esgf_gossip.storage.history_reader import Wish
from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.history_json import KINDS
from esgf_gossip.web.archive import PastError
from esgf_gossip.web.dashboard import contexts, federation, world_map
from esgf_gossip.web.dashboard.datasets import DatasetsPage
from esgf_gossip.web.dashboard.html_page import Dashboard, HtmlPage
from esgf_gossip.web.dashboard.static_files import StaticFolder
from esgf_gossip.web.host_names import host_of, is_loopback
from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.past_pages import answer_later, past_problem
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.questions import NODE_TYPES, OF_ALL_HISTORY, QuestionError, history_wish, time_of
from esgf_gossip.web.resources import Page, send_document

_OF_PROXIES: Final = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "Via",
)
# Of one node on its own page.
CHANGES_OF_A_NODE: Final = 30


def _untold(failure: Any) -> Problem:
    failure.trap(PastError)
    return past_problem(failure.value)


class FederationPage(HtmlPage):
    """``/``: the map, the counts, the table, the last events; with ``at=`` the federation as it was."""

    tells_the_past = True
    missing = "Nothing is known of that time"
    form = ("/", (("at", "As it was (UTC)"),))

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Send the federation."""
        query = federation.TableQuery.read(fields)
        if query.at:
            try:
                at_ms = time_of({"at": query.at}, self._shown.now_ms())
            except QuestionError as error:
                raise Refused(Problem(error.status, str(error))) from None
            answer = self._shown.past.view(at_ms)
            return answer_later(
                request, answer.addErrback(_untold), lambda found: self._then(request, found, query)
            )
        view = self._shown.view()
        return send_document(request, self._dashboard.kept(view, query, lambda: self._page(view, query)))

    def _then(self, request: Request, found: FederationView | Problem, query: federation.TableQuery) -> bytes:
        if isinstance(found, Problem):
            return self.refuse(request, found, {"at": query.at})
        return send_document(request, self._page(found, query, is_past=True))

    def _page(
        self, view: FederationView, query: federation.TableQuery, *, is_past: bool = False
    ) -> KeptDocument:
        trust = {} if is_past else self._dashboard.trust_of(view)
        rows = federation.rows(view, trust, query)
        peers = self._shown.gossip_report()["peers"]
        health = federation.service_health(view.nodes)
        marks = world_map.marks(view.nodes)
        return self._dashboard.render(
            "federation",
            view,
            query=query,
            rows=rows,
            counts=federation.counts(view),
            services_down=health[Health.DOWN],
            services_looked_at=health.total() - health[Health.UNKNOWN],
            marks=marks,
            has_numbers=any(len(mark.nodes) > 1 for mark in marks),
            map_height=world_map.HEIGHT,
            kinds=NODE_TYPES,
            linked=len({peer["host"] for peer in peers}),
            agreeing=len({peer["host"] for peer in peers if peer.get("same_root")}),
            next_to_end=federation.next_to_end(view, trust),
            recent=[] if is_past else list(self._shown.past.recent),
            is_past=is_past,
        )


class NodesFolder(HtmlPage):
    """``/nodes/<host>``."""

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:  # noqa: ARG002 - as all pages
        """Refuse: the list of nodes is the front page."""
        raise Refused(Problem(404, "the nodes are on the page Federation"))

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Find a host by its name, in any case."""
        return HostPage(self._dashboard, path.decode("ascii", "replace").lower()) if path else self


class HostPage(HtmlPage):
    """``/nodes/<host>``: all there is to know of one node."""

    def __init__(self, dashboard: Dashboard, host: str) -> None:
        super().__init__(dashboard)
        self._host = host

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:  # noqa: ARG002 - as all pages
        """Send the node with its past."""
        view = self._shown.view()
        node, explanation = view.node(self._host), self._shown.explain(self._host)
        if node is None or explanation is None:
            raise Refused(Problem(404, f"There is no node {self._host} in this federation."))
        values = contexts.node_context(node, explanation, self._shown.gossip_report())
        trust = self._dashboard.trust_of(view).get(node.host)

        def page(found: Any) -> KeptDocument:
            is_told = not isinstance(found, str)
            return self._dashboard.render(
                "node",
                view,
                **values,
                trust=trust,
                past_error="" if is_told else found,
                **contexts.changes_context(found if is_told else _NOTHING, {"host": node.host}),
            )

        wish = Wish(host=node.host, limit=CHANGES_OF_A_NODE)
        return self.later(request, self._shown.past.changes(wish), page)


class ServicesPage(HtmlPage):
    """``/services``: by type and health, and who is in each list."""

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Send the services."""
        view = self._shown.view()
        values = contexts.services_context(view, self._shown.documents, self._shown.shard_form, fields)
        return send_document(request, self._dashboard.render("services", view, **values))


class TrustPage(HtmlPage):
    """``/trust``: certificates by their end, lists, bundles, forks and alarms."""

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:  # noqa: ARG002 - as all pages
        """Send what the nodes say of their trust."""
        view = self._shown.view()
        values = contexts.trust_context(view, self._shown.trust_report())
        return send_document(request, self._dashboard.render("trust", view, **values))


class ChangesPage(HtmlPage):
    """``/changes``: what happened, of all nodes or one, in any time that is kept."""

    form = ("/changes", (("since", "From (UTC)"), ("until", "To (UTC)"), ("host", "Node")))

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Send what happened."""
        try:
            known = {name: text for name, text in fields.items() if name in OF_ALL_HISTORY and text}
            wish = history_wish(known, OF_ALL_HISTORY, self._shown.now_ms())
        except QuestionError as error:
            raise Refused(Problem(error.status, str(error))) from None
        view = self._shown.view()

        def page(found: Any) -> KeptDocument:
            is_told = not isinstance(found, str)
            return self._dashboard.render(
                "changes",
                view,
                kinds=KINDS,
                hosts=[node.host for node in view.members],
                past_error="" if is_told else found,
                is_backwards=None not in (wish.since_ms, wish.until_ms) and wish.since_ms > wish.until_ms,
                **contexts.changes_context(found if is_told else _NOTHING, known),
            )

        return self.later(request, self._shown.past.changes(wish), page)


class MetadataPage(HtmlPage):
    """``/metadata``: the documents that projects share, those in conflict first; below it one page per document."""

    form = ("/metadata", (("project", "Project"),))

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Send the documents."""
        values = contexts.metadata_context(self._shown.metadata.library, fields.get("project", ""))
        return send_document(request, self._dashboard.render("metadata", self._shown.view(), **values))

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Find a document by the three parts of its name."""
        if not path and not request.postpath:
            return self
        parts = [path, *request.postpath]
        request.prepath += request.postpath
        request.postpath = []
        return DocumentHtmlPage(self._dashboard, b"/".join(parts).decode("ascii", "replace"))


class DocumentHtmlPage(HtmlPage):
    """``/metadata/<project>/<application>/<name>``: what the document says, and its versions."""

    missing = "There is no such document"

    def __init__(self, dashboard: Dashboard, name: str) -> None:
        super().__init__(dashboard)
        self._name = name

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:  # noqa: ARG002 - as all pages
        """Send the document."""
        try:
            name = parse_name(self._name)
            values = contexts.document_context(self._shown.metadata, name)
        except DocumentNameError as error:
            raise Refused(Problem(404, str(error))) from None
        except DocumentError as error:
            raise Refused(Problem(error.status, str(error))) from None
        return send_document(request, self._dashboard.render("document", self._shown.view(), **values))


class OwnPage(HtmlPage):
    """``/this-node``: what this daemon does, its links, its configuration, the end of its log."""

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:  # noqa: ARG002 - as all pages
        """Send this node."""
        return send_document(
            request,
            self._dashboard.render(
                "this_node",
                self._shown.view(),
                gossip=self._shown.gossip_report(),
                is_private=self._shown.is_private() and _is_from_here(request),
                configuration=self._shown.configuration(),
                log=self._shown.log_tail.lines,
            ),
        )


def _is_from_here(request: Request) -> bool:
    """Tell whether a request names this host's own address, and no proxy says that it brought it from elsewhere."""
    return is_loopback(host_of(request.getHeader("Host") or "")) and not any(
        map(request.requestHeaders.hasHeader, _OF_PROXIES)
    )


_NOTHING: Final = {"changes": [], "begins_ms": 0, "next_before": None}


def pages(dashboard: Dashboard) -> dict[str, Page]:
    """Return the pages by their first segment; "" is the front page."""
    return {
        "": FederationPage(dashboard),
        "nodes": NodesFolder(dashboard),
        "services": ServicesPage(dashboard),
        "trust": TrustPage(dashboard),
        "changes": ChangesPage(dashboard),
        "metadata": MetadataPage(dashboard),
        "datasets": DatasetsPage(dashboard),
        "this-node": OwnPage(dashboard),
        "static": StaticFolder(),
    }
