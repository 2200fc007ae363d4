"""
The pages for people: what each path answers, and the headers that keep them safe.

Made on the server, whole, of the newest view; a small script then fetches the same page again when something happens.
Without the script every page says the same and renews itself. What a page shows is its neighbours' work.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.resource import IResource

from esgf_gossip.esgf.health import Health
from esgf_gossip.storage.history_reader import Wish
from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.history_json import KINDS
from esgf_gossip.web.archive import PastError
from esgf_gossip.web.dashboard import contexts, federation, world_map
from esgf_gossip.web.dashboard.templates import Templates
from esgf_gossip.web.dashboard.trust import TrustRow, trust_rows
from esgf_gossip.web.host_names import host_of, is_loopback
from esgf_gossip.web.instants import InstantError, instant_ms
from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.log_tail import LogTail
from esgf_gossip.web.past_pages import answer_later, fields_of, past_problem
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.questions import NODE_TYPES, OF_ALL_HISTORY, QuestionError, history_wish
from esgf_gossip.web.resources import MISSING, Page, send_document
from esgf_gossip.web.seen import Seen

HTML: Final = "text/html; charset=utf-8"
# Everything comes from this node; nothing inline, so that a text of a stranger can never become a script or a style.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
STATIC: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "world.svg": "image/svg+xml",
    "world.LICENSE": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_NOW_ONLY: Final = Problem(
    400,
    "This page shows what is now. The federation as it was is on the page Federation, what happened on Changes.",
)
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
# Nobody reads more, and a page must not become a list of them.
ALARMS_SHOWN: Final = 20
# Renderings kept for the view of now: a wall screen and a few questions.
PAGES_KEPT: Final = 16


class Shown(Seen, Protocol):
    """What the pages show of the daemon."""

    log_tail: LogTail

    def gossip_report(self) -> dict[str, Any]:
        """Return the figures of this daemon and its links."""

    def configuration(self) -> str:
        """Return the configuration in force, passwords masked."""

    def is_private(self) -> bool:
        """Tell whether only this host can ask."""


class Dashboard:
    """The pages of one node, and what they share."""

    def __init__(self, shown: Shown) -> None:
        self.shown: Final = shown
        self._templates = Templates()
        self._made_of: FederationView | None = None
        self._kept: dict[object, KeptDocument] = {}
        self._trust: tuple[FederationView, dict[str, TrustRow]] | None = None

    def render(self, name: str, view: FederationView, **values: Any) -> KeptDocument:
        """Fill a template; every page knows the view, the alarms and when it was made."""
        body = self._templates.render(
            f"{name}.html", page=name, view=view, now_ms=view.at_ms, alarms=self._alarms(view), **values
        )
        return KeptDocument(body, HTML)

    def kept(self, view: FederationView, key: object, make: Callable[[], KeptDocument]) -> KeptDocument:
        """Return a page made once for a view."""
        if view is not self._made_of:
            self._made_of, self._kept = view, {}
        found = self._kept.get(key)
        if found is None:
            found = make()
            if len(self._kept) < PAGES_KEPT:
                self._kept[key] = found
        return found

    def trust_of(self, view: FederationView) -> dict[str, TrustRow]:
        """Return what each node says of its trust, read once for a view."""
        if self._trust is None or self._trust[0] is not view:
            self._trust = view, {row.host: row for row in trust_rows(self.shown.trust_report())}
        return self._trust[1]

    def _alarms(self, view: FederationView) -> list[str]:
        own = view.own
        told = {
            "The disk": own.storage_error,
            "The history": own.history_error,
            "This node publishes no more": own.publishing_stopped,
            "Trust": own.trust_error,
        }
        forked = [
            f"{node.host} signed what contradicts itself: revoke its certificate"
            for node in view.nodes
            if node.forked
        ]
        told_now = [
            *(f"{what}: {text}" for what, text in told.items() if text),
            *(f"Trust: {text}" for text in own.trust_alarms),
            *own.list_alarms,
            *forked,
        ]
        more = len(told_now) - ALARMS_SHOWN
        return [*told_now[:ALARMS_SHOWN], *([f"and {more} more"] if more > 0 else [])]


class HtmlPage(Page):
    """
    One page; what is refused is said on a page too, for a person reads it.

    ``tells_the_past``: whether it can be asked for an earlier time; another refuses, for today's data must not look as if.
    """

    tells_the_past = False
    # Where its form leads, and the fields of it that can be wrong, with their labels.
    form: tuple[str, tuple[tuple[str, str], ...]] = ("", ())

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__()
        self._dashboard = dashboard
        self._shown = dashboard.shown

    def answer(self, request: Request) -> Any:
        """Send the page."""
        request.setHeader("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        fields = fields_of(request)
        try:
            if fields.get("at") and not self.tells_the_past:
                raise Refused(_NOW_ONLY)
            return self.asked(request, fields)
        except Refused as refusal:
            return self.refuse(request, refusal.problem, fields)

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Answer what was read of the request."""
        raise NotImplementedError

    def refuse(self, request: Request, problem: Problem, fields: Mapping[str, str]) -> bytes:
        """Send a page that says why there is no other, with the form to ask again as it was filled."""
        request.setResponseCode(problem.status)
        request.setHeader("Content-Type", HTML)
        request.setHeader("Cache-Control", "no-store")
        action, asked = self.form
        filled = [(name, label, fields.get(name, "")) for name, label in asked]
        return self._dashboard.render(
            "error", self._shown.view(), problem=problem, action=action, filled=filled
        ).body

    def later(self, request: Request, answer: Deferred[Any], make: Callable[[Any], KeptDocument]) -> Any:
        """Send a page made of what the archive tells; where it cannot, the page says why in its place."""
        return answer_later(
            request, answer.addErrback(_told_why), lambda found: send_document(request, make(found))
        )


def _told_why(failure: Any) -> str:
    failure.trap(PastError)
    return str(failure.getErrorMessage())


def _untold(failure: Any) -> Problem:
    failure.trap(PastError)
    return past_problem(failure.value)


class FederationPage(HtmlPage):
    """``/``: the map, the counts, the table, the last events; with ``at=`` the federation as it was."""

    tells_the_past = True
    form = ("/", (("at", "As it was (UTC)"),))

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Send the federation."""
        query = federation.TableQuery.read(fields)
        if query.at:
            try:
                at_ms = instant_ms(query.at, self._shown.now_ms())
            except InstantError as error:
                raise Refused(Problem(400, f"As it was: {error}.")) from None
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
        return self._dashboard.render(
            "federation",
            view,
            query=query,
            rows=rows,
            counts=federation.counts(view),
            services_down=health[Health.DOWN],
            services_looked_at=health.total() - health[Health.UNKNOWN],
            marks=world_map.marks(view.nodes),
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
            raise Refused(Problem(400, str(error))) from None
        view = self._shown.view()

        def page(found: Any) -> KeptDocument:
            is_told = not isinstance(found, str)
            return self._dashboard.render(
                "changes",
                view,
                kinds=KINDS,
                hosts=[node.host for node in view.members],
                past_error="" if is_told else found,
                **contexts.changes_context(found if is_told else _NOTHING, known),
            )

        return self.later(request, self._shown.past.changes(wish), page)


class PlainPage(HtmlPage):
    """A page that shows the view alone."""

    def __init__(self, dashboard: Dashboard, name: str) -> None:
        super().__init__(dashboard)
        self._name = name

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:  # noqa: ARG002 - as all pages
        """Send the page."""
        return send_document(request, self._dashboard.render(self._name, self._shown.view()))


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


class StaticFolder(Page):
    """``/static/<name>``: style, script and map, as they were shipped."""

    def answer(self, request: Request) -> Any:  # noqa: ARG002 - Twisted's own signature
        """Refuse the folder itself."""
        raise Refused(MISSING.problem)

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Find a file that is shipped; no other name is looked for on the disk."""
        name = path.decode("ascii", "replace")
        if name not in STATIC:
            return MISSING
        content = importlib.resources.files(__package__).joinpath("static", name).read_bytes()
        return StaticPage(KeptDocument(content, STATIC[name]))


class StaticPage(Page):
    """One file that was shipped."""

    def __init__(self, document: KeptDocument) -> None:
        super().__init__()
        self._document = document

    def answer(self, request: Request) -> bytes:
        """Send the file."""
        return send_document(request, self._document)


_NOTHING: Final = {"changes": [], "begins_ms": 0, "next_before": None}


def pages(shown: Shown) -> dict[str, Page]:
    """Return the pages by their first segment; "" is the front page."""
    dashboard = Dashboard(shown)
    return {
        "": FederationPage(dashboard),
        "nodes": NodesFolder(dashboard),
        "services": ServicesPage(dashboard),
        "trust": TrustPage(dashboard),
        "changes": ChangesPage(dashboard),
        "metadata": PlainPage(dashboard, "metadata"),
        "datasets": PlainPage(dashboard, "datasets"),
        "this-node": OwnPage(dashboard),
        "static": StaticFolder(),
    }
