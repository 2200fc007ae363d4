"""What all pages for people share: what they see of the daemon, how they are filled, refused, kept safe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.web.http import Request

from esgf_gossip.views.federation import DatasetCounts, FederationView
from esgf_gossip.web.archive import PastError
from esgf_gossip.web.dashboard.templates import Templates
from esgf_gossip.web.dashboard.trust import TrustRow, trust_rows
from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.log_tail import LogTail
from esgf_gossip.web.past_pages import answer_later, fields_of
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.resources import MISSING, Page, send_document
from esgf_gossip.web.seen import Seen

NOT_FOUND: Final = 404
HTML: Final = "text/html; charset=utf-8"
# Everything comes from this node; nothing inline, so that a text of a stranger can never become a script or a style.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_NOW_ONLY: Final = Problem(
    400,
    "This page shows what is now. The federation as it was is on the page Federation, what happened on Changes.",
)
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
        tracking = {} if own.tracking is None else own.tracking.faults
        told = {
            "The disk": own.storage_error,
            "The history": own.history_error,
            "Metadata": own.documents_error,
            "Datasets": own.datasets_error,
            "This node publishes no more": own.publishing_stopped,
            "Trust": own.trust_error,
            "Tasks": "" if own.tasks is None else own.tasks.error,
        }
        forked = [
            f"{node.host} signed what contradicts itself: revoke its certificate"
            for node in view.nodes
            if node.forked
        ]
        told_now = [
            *(f"{what}: {text}" for what, text in told.items() if text),
            *(f"Tracking, {part}: {text}" for part, text in tracking.items()),
            *(f"Trust: {text}" for text in own.trust_alarms),
            *own.list_alarms,
            *_stale(own.datasets),
            *_claimed(own.datasets),
            *(f"Tasks: {text}" for text in (() if own.tasks is None else own.tasks.alarms)),
            *forked,
        ]
        more = len(told_now) - ALARMS_SHOWN
        return [*told_now[:ALARMS_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def _stale(datasets: DatasetCounts) -> list[str]:
    """Say in one line which copies should go: an erratum may name thousands."""
    count = datasets.stale_replicas
    if not count:
        return []
    if count == 1:
        return [
            f"Datasets: the original of {datasets.stale_names[0]} is retracted, your copy is still served"
        ]
    return [f"Datasets: the originals of {count} versions are retracted, your copies are still served"]


def _claimed(datasets: DatasetCounts) -> list[str]:
    """Say in one line that others claim what this node serves."""
    if not datasets.foreign_claims:
        return []
    more = datasets.foreign_claims - 1
    others = f" (and {more} more)" if more else ""
    line = f"Datasets: {datasets.foreign_claim_names[0]}{others}, and this node serves that original"
    return [f"{line}; see esgf-gossip dataset quarantine and dataset accept"]


class HtmlPage(Page, ABC):
    """
    One page; what is refused is said on a page too, for a person reads it.

    ``tells_the_past``: whether it can be asked for an earlier time; another refuses, for today's data must not look as if.
    """

    tells_the_past = False
    # Where its form leads, and the fields of it that can be wrong, with their labels.
    # What its heading says where there is nothing; else what HTTP calls it.
    missing = ""
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

    @abstractmethod
    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:
        """Answer what was read of the request."""

    def refuse(self, request: Request, problem: Problem, fields: Mapping[str, str]) -> bytes:
        """Send a page that says why there is no other, with the form to ask again as it was filled."""
        request.setResponseCode(problem.status)
        request.setHeader("Content-Type", HTML)
        request.setHeader("Cache-Control", "no-store")
        action, asked = self.form
        # A person knows the field by its label.
        name, said, rest = problem.detail.partition(": ")
        label = dict(asked).get(name)
        if said and label is not None:
            problem = attrs.evolve(problem, detail=f"{label}: {rest}.")
        title = self.missing if problem.status == NOT_FOUND and self.missing else problem.title
        filled = [(name, label, fields.get(name, "")) for name, label in asked]
        return self._dashboard.render(
            "error", self._shown.view(), title=title, problem=problem, action=action, filled=filled
        ).body

    def later(self, request: Request, answer: Deferred[Any], make: Callable[[Any], KeptDocument]) -> Any:
        """Send a page made of what the archive tells; where it cannot, the page says why in its place."""
        return answer_later(
            request, answer.addErrback(_told_why), lambda found: send_document(request, make(found))
        )


class MissingPage(HtmlPage):
    """Whatever is not there, for a browser; programs get the problem as all other problems."""

    isLeaf = True

    def asked(self, request: Request, fields: Mapping[str, str]) -> Any:  # noqa: ARG002 - as all pages
        """Refuse."""
        raise Refused(MISSING.problem)


def _told_why(failure: Any) -> str:
    failure.trap(PastError)
    return str(failure.getErrorMessage())
