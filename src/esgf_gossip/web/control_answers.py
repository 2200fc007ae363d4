"""What the control socket is asked and only reads: the same questions as over HTTP, the same bodies."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from esgf_gossip.esgf.maintenance import Maintenance, MaintenanceError
from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.list_reasons import list_body, places
from esgf_gossip.views.lists_xml import LISTS
from esgf_gossip.views.node_json import (
    node_body,
    nodes_body,
    resources_body,
    services_body,
    status_body,
)
from esgf_gossip.web.archive import PastError
from esgf_gossip.web.instants import InstantError, instant_ms
from esgf_gossip.web.past_pages import differences_body, history_body
from esgf_gossip.web.questions import (
    OF_ALL_HISTORY,
    OF_ALL_NODES,
    OF_ALL_SERVICES,
    SERVICE_TYPES,
    QuestionError,
    history_wish,
    time_of,
    times_between,
    wanted,
)
from esgf_gossip.web.seen import Seen

Answer = Callable[[Mapping[str, Any]], Any]
T = TypeVar("T")


class CommandError(Exception):
    """
    Refuse a command, in one line: what is wrong and what to do. Nothing was changed.

    ``is_missing``: because there is no such thing as was named.
    """

    def __init__(self, text: str, *, is_missing: bool = False) -> None:
        super().__init__(text)
        self.is_missing: Final = is_missing


def _read(read: Callable[..., T], fields: Mapping[str, Any], *arguments: Any) -> T:
    """
    Read a question, as the pages of HTTP do.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        return read({name: value for name, value in fields.items() if name != "command"}, *arguments)
    except QuestionError as error:
        raise CommandError(str(error)) from None


def _of_the_past(answer: Deferred[Any], body_of: Callable[[Any], Any]) -> Deferred[Any]:
    """Return the body made of an answer of the archive; what it cannot tell becomes a CommandError."""

    def explain(failure: Failure) -> None:
        failure.trap(PastError)
        raise CommandError(failure.getErrorMessage())

    return answer.addErrback(explain).addCallback(body_of)


class Answers:
    """Answers questions about one daemon; ``by_command`` maps each command to what answers it."""

    def __init__(self, seen: Seen) -> None:
        self._seen: Final = seen
        self.by_command: Final[Mapping[str, Answer]] = {
            "status": lambda _fields: status_body(seen.view()),
            "nodes": self._nodes,
            "services": self._services,
            "resources": self._resources,
            "node": self._node,
            "explain": self._explained,
            "history": self._history,
            "differences": self._differences,
            "registration": self._registration,
            "list": self._list,
            "trust": lambda _fields: seen.trust_report(),
        }

    def _now_or_then(self, fields: Mapping[str, Any], body_of: Callable[[FederationView], Any]) -> Any:
        """Return a body made of the view of now, or later one of the view of the time ``at``."""
        if not fields.get("at"):
            return body_of(self._seen.view())
        at_ms = _read(time_of, fields, self._seen.now_ms())
        return _of_the_past(self._seen.past.view(at_ms), body_of)

    def _nodes(self, fields: Mapping[str, Any]) -> Any:
        question = _read(wanted, fields, OF_ALL_NODES)
        return self._now_or_then(fields, lambda view: nodes_body(view, question))

    def _services(self, fields: Mapping[str, Any]) -> Any:
        question = _read(wanted, fields, OF_ALL_SERVICES)
        return self._now_or_then(fields, lambda view: services_body(view, question))

    def _resources(self, fields: Mapping[str, Any]) -> Any:
        question = _read(wanted, fields, OF_ALL_SERVICES)
        return self._now_or_then(fields, lambda view: resources_body(view, question))

    def _node(self, fields: Mapping[str, Any]) -> Any:
        host = _host(fields)

        def body_of(view: FederationView) -> dict[str, Any]:
            node = view.node(host)
            return _found(host, None if node is None else node_body(node), view)

        return self._now_or_then(fields, body_of)

    def _history(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        wish = _read(history_wish, fields, OF_ALL_HISTORY, self._seen.now_ms())
        return _of_the_past(self._seen.past.changes(wish), history_body)

    def _differences(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        from_ms, to_ms = _read(times_between, fields, self._seen.now_ms())
        answer = self._seen.past.differences(from_ms, to_ms)
        return _of_the_past(answer, lambda nodes: differences_body(from_ms, to_ms, nodes))

    def _registration(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        at_ms = _read(time_of, fields, self._seen.now_ms())
        return _of_the_past(self._seen.past.document(at_ms), lambda body: {"xml": body.decode()})

    def _explained(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        host = _host(fields)
        return _found(host, self._seen.explain(host), self._seen.view())

    def _list(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        name, documents = str(fields.get("name", "")), self._seen.documents
        if name not in LISTS or not documents.is_known(name):
            raise CommandError(
                f"no list {name[:64]!r} here; there are: {', '.join(one for one in documents if one in LISTS)}"
            )
        found = places(name, self._seen.view().nodes, documents.body(name), self._seen.shard_form)
        return list_body(name, found)


def read_window(fields: Mapping[str, Any], now_ms: int) -> Maintenance:
    """
    Read a window of planned downtime: ``ends_at``, and if given ``begins_at``, ``reason``, ``types``.

    Raises:
        CommandError: it is none, or over already.
    """
    types = fields.get("types") or []
    if not isinstance(types, list) or not all(one in SERVICE_TYPES for one in types):
        raise CommandError(f"types is a list of types of services, such as {SERVICE_TYPES[0]}")
    try:
        begins_ms, ends_ms = (
            instant_ms(str(fields.get(name) or "now"), now_ms) for name in ("begins_at", "ends_at")
        )
        window = Maintenance(begins_ms, ends_ms, str(fields.get("reason") or ""), tuple(types))
    except (InstantError, MaintenanceError) as error:
        raise CommandError(str(error)) from None
    if window.ends_ms <= now_ms:
        raise CommandError("the window is over already; give a later end")
    return window


def _host(fields: Mapping[str, Any]) -> str:
    host = fields.get("host")
    if not isinstance(host, str):
        raise CommandError("this command needs a host: a text")
    return host.lower()


def _found(host: str, body: dict[str, Any] | None, view: FederationView) -> dict[str, Any]:
    if body is None:
        names = [node.host for node in view.members]
        meant = [name for name in names if host and name.startswith(host)] or difflib.get_close_matches(
            host[:253], names, 1
        )
        remedy = f"did you mean {meant[0]}?" if meant else "the command nodes lists all"
        raise CommandError(f"no node {host[:253]!r} in this federation; {remedy}")
    return body
