"""
The links of a mail, on tracking.listen: unsubscribe in one click, choose what to be told, the full list.

A link is all that is needed, no cookie and no login; so a link is never changed by looking at it: GET shows a page,
POST does. Pages have no script and load nothing; what is refused is a page too, where a browser asks. Source: RFC 8058; docs/tracking.md, "Unsubscribing".
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from esgf_gossip.tracking.preferences import ALL, KINDS, Preferences, ScopeError, dataset_scope, type_scope
from esgf_gossip.tracking.tokens import TokenError
from esgf_gossip.web.problems import Problem
from esgf_gossip.web.resources import send_problem

# A preference page names at most so many datasets to be told of again; each is some 300 bytes in a form.
FORM_BYTES: Final = 512 * 1024
FIELDS_MOST: Final = 2000
TOKEN_BYTES: Final = 600
PAGES_MOST: Final = 100_000
# As the dashboard's, without what it loads from this node.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SAFETY: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    # A link is a secret of its receiver: it is kept nowhere and told to nobody.
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Robots-Tag", "noindex"),
)
_MISSING: Final = Problem(404, "there is nothing at this address; take the link whole from the mail")
_FORGED: Final = Problem(403, "this link is not one of ours, or was cut; take it whole from the mail")
_KIND_WORDS: Final[Mapping[str, str]] = {
    "retracted": "a dataset was retracted",
    "new-version": "a dataset was replaced by a new version",
    "reinstated": "a retracted dataset is valid again",
    "erratum": "an erratum was published",
}

_log = Logger()


class Receivers(Protocol):
    """What the pages ask of mailing; see ``tracking.mail_desk``."""

    def unsubscribe(self, token: str) -> Deferred[str]:
        """Unsubscribe."""

    def scope(self, token: str) -> str:
        """Return what a link unsubscribes from."""

    def preferences(self, token: str) -> Deferred[Preferences]:
        """Fire with the preferences of who has the link."""

    def choose(
        self, token: str, kinds: frozenset[str], back: list[str], *, is_immediate: bool, nothing: bool
    ) -> Deferred[Preferences]:
        """Note what is wanted."""

    def full_list(self, token: str, page: int) -> Deferred[Any]:
        """Fire with rows and the number of pages."""


def mail_pages(receivers: Receivers) -> Mapping[str, Resource]:
    """Return the resources by the segment of the path they are put under: the same as ``tokens.Purpose``."""
    return {
        "unsubscribe": _Tokens(lambda token: UnsubscribePage(receivers, token)),
        "preferences": _Tokens(lambda token: PreferencePage(receivers, token)),
        "list": _Tokens(lambda token: ListPage(receivers, token)),
    }


class _Tokens(Resource):
    """The segment above the tokens."""

    def __init__(self, page_of: Callable[[str], Resource]) -> None:
        super().__init__()
        self._page_of = page_of

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Return the page of a token; whether it is one of ours is seen when it is asked."""
        if not path or len(path) > TOKEN_BYTES or not path.isascii():
            return _Missing()
        return self._page_of(path.decode("ascii"))

    def render(self, request: Request) -> bytes:
        """Answer that there is nothing without a token."""
        return _no(request, _MISSING)


class _Missing(Resource):
    """What is no page, whatever is below."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Answer that there is nothing, to every method."""
        return _no(request, _MISSING)


class TokenPage(Resource):
    """A page of one token: GET shows, POST does."""

    isLeaf = True
    allowed = "GET, HEAD, POST"

    def __init__(self, receivers: Receivers, token: str) -> None:
        super().__init__()
        self.receivers: Final = receivers
        self.token: Final = token

    def show(self, request: Request) -> Any:
        """Return the page, or what fires with it; change nothing."""
        raise NotImplementedError

    def act(self, request: Request) -> Any:
        """Do what is asked for; return the page that says so, or what fires with it."""
        raise NotImplementedError

    def render(self, request: Request) -> Any:
        """Answer; later, as everything is asked in another thread."""
        if request.postpath and any(request.postpath):
            return _no(request, _MISSING)
        work = {b"GET": self.show, b"HEAD": self.show, b"POST": self.act}.get(request.method)
        if work is None or (request.method == b"POST" and "POST" not in self.allowed):
            return _no(request, Problem(405, f"only {self.allowed} here", {"Allow": self.allowed}))
        gone: list[Any] = []
        request.notifyFinish().addErrback(gone.append)
        answer = maybeDeferred(work, request)
        answer.addCallbacks(lambda page: _page(request, page), lambda failure: _refused(request, failure))
        answer.addCallback(lambda body: None if gone else _send(request, body))
        return NOT_DONE_YET


class UnsubscribePage(TokenPage):
    """RFC 8058: a POST, of whatever body, unsubscribes; a GET shows a button that posts."""

    def show(self, request: Request) -> str:
        """Show what the button does."""
        del request
        return _render("unsubscribe.html.j2", what=_what(self.receivers.scope(self.token)), is_done=False)

    def act(self, request: Request) -> Any:
        """Unsubscribe."""
        del request
        return self.receivers.unsubscribe(self.token).addCallback(
            lambda scope: _render("unsubscribe.html.j2", what=_what(scope), is_done=True)
        )


class PreferencePage(TokenPage):
    """What a person is told, and when."""

    def show(self, request: Request) -> Any:
        """Show the form as it is."""
        del request
        return self.receivers.preferences(self.token).addCallback(_form, is_saved=False)

    def act(self, request: Request) -> Any:
        """Take the form."""
        fields = _fields(request)
        kinds = frozenset(fields.get("kind", ())) & frozenset(KINDS)
        chosen = self.receivers.choose(
            self.token,
            kinds,
            fields.get("back", []),
            is_immediate="immediate" in fields,
            nothing="nothing" in fields,
        )
        return chosen.addCallback(_form, is_saved=True)


class ListPage(TokenPage):
    """All datasets of one mail, page by page."""

    allowed = "GET, HEAD"

    def show(self, request: Request) -> Any:
        """Show one page."""
        asked = request.args.get(b"page", [b"1"])[0] if request.args else b"1"
        number = int(asked) if asked.isdigit() and len(asked) <= 6 else 1
        number = min(max(number, 1), PAGES_MOST)
        return self.receivers.full_list(self.token, number - 1).addCallback(
            lambda found: _render("list.html.j2", rows=found[0], pages=found[1], page=number)
        )


def _form(preferences: Preferences, *, is_saved: bool) -> str:
    prefix = dataset_scope("")
    return _render(
        "preferences.html.j2",
        kinds=[(kind, _KIND_WORDS[kind], type_scope(kind) not in preferences.unwanted) for kind in KINDS],
        datasets=sorted(
            (scope, scope.removeprefix(prefix)) for scope in preferences.unwanted if scope.startswith(prefix)
        )[:FIELDS_MOST],
        preferences=preferences,
        is_saved=is_saved,
    )


def _what(scope: str) -> str:
    kind, _, name = scope.partition(":")
    if scope == ALL:
        return "mails about datasets you fetched"
    if kind == "type":
        return f"mails that say: {_KIND_WORDS.get(name, name)}"
    return f"mails about the dataset {name}"


def _fields(request: Request) -> dict[str, list[str]]:
    request.content.seek(0)
    body = request.content.read(FORM_BYTES + 1)
    try:
        if len(body) > FORM_BYTES:
            raise ValueError
        return parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MOST + 10)
    except ValueError:
        raise _FormError from None


class _FormError(Exception):
    """Report a form that is none of ours."""


def _page(request: Request, page: str) -> bytes:
    for name, value in _SAFETY:
        request.setHeader(name, value)
    # The one style of these pages, by its hash: no other is taken, whatever stands in a page.
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    policy = f"{CONTENT_SECURITY_POLICY}; style-src 'sha256-{digest}'"
    request.setHeader("Content-Security-Policy", policy)
    return page.encode()


def _refused(request: Request, failure: Failure) -> bytes:
    if failure.check(TokenError, ScopeError):
        return _no(request, _FORGED)
    if failure.check(_FormError):
        return _no(request, Problem(400, "the form cannot be read; open the page again"))
    # The path is a secret of its receiver: it is not logged, nor what could quote it.
    _log.error("A link of a mail was not answered: {kind}", kind=failure.type.__name__)
    return _no(request, Problem(503, "this cannot be done just now; try again later", {"Retry-After": "60"}))


def _no(request: Request, problem: Problem) -> bytes:
    """Refuse: a person by a page, whatever else asks by the document."""
    document = send_problem(request, problem)
    if "text/html" not in (request.getHeader("Accept") or ""):
        return document
    return _page(request, _render("problem.html.j2", problem=problem))


def _send(request: Request, body: bytes) -> None:
    request.setHeader("Content-Length", str(len(body)))
    request.write(b"" if request.method == b"HEAD" else body)
    request.finish()


@functools.cache
def _style() -> str:
    return (files("esgf_gossip.web") / "mail_templates" / "pages.css").read_text("utf-8")


@functools.cache
def _environment() -> Any:
    # For those who follow a link; the daemon's start does not wait for it.
    import jinja2  # noqa: PLC0415

    return jinja2.Environment(
        loader=jinja2.PackageLoader("esgf_gossip.web", "mail_templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(name: str, **values: Any) -> str:
    text: str = _environment().get_template(name).render(style=_style(), **values)
    return text
