"""
The control socket's protocol: one JSON object a line, asked and answered in order.

Commands, their answers and the live watch live here; the socket file and its
mode are ``control``'s. Who can open the socket is the daemon's own user,
so answers name causes; still every size is bounded, for a wrong client is enough.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from esgf_gossip.views.federation import FederationView
from esgf_gossip.views.list_reasons import list_body, places
from esgf_gossip.views.lists_xml import LISTS
from esgf_gossip.views.node_json import (
    json_bytes,
    node_body,
    nodes_body,
    resources_body,
    services_body,
    status_body,
)
from esgf_gossip.web.archive import PastError
from esgf_gossip.web.events import Event
from esgf_gossip.web.outlet import Outlet
from esgf_gossip.web.past_pages import differences_body, history_body
from esgf_gossip.web.questions import (
    OF_ALL_HISTORY,
    OF_ALL_NODES,
    OF_ALL_SERVICES,
    QuestionError,
    history_wish,
    time_of,
    times_between,
    wanted,
)
from esgf_gossip.web.seen import Seen

LINE_BYTES: Final = 64 * 1024
WAITING_LINES: Final = 16
CLIENTS: Final = 64
# A view changes with every digest; a person and a table need no more than ten a second.
STATUS_EVERY_S: Final = 0.1
# The answer to stop goes out before the daemon does, unless the client does not take it.
STOP_AFTER_S: Final = 1.0
ERROR_CHARACTERS: Final = 1000

T = TypeVar("T")


class CommandError(Exception):
    """Refuse a command, in one line: what is wrong and what to do. Nothing was changed."""


class Commands(Seen, Protocol):
    """What the control socket asks of the daemon."""

    def reload(self) -> Deferred[dict[str, Any]]:
        """Read properties, trust and configuration again; fire with ``changed`` and ``findings``."""

    def stop(self) -> None:
        """Stop the daemon in order."""

    def leave(self) -> Deferred[None]:
        """Leave the federation; fire when the peers know."""

    def wake_tasks(self) -> None:
        """Look at the folder of tasks now."""

    def on_view_changed(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back whenever ``view()`` is another picture; return what ends that."""


@attrs.frozen
class _Request:
    command: str
    fields: Mapping[str, Any]


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


class ControlProtocol(LineOnlyReceiver):
    """One client: its lines are answered in order; ``watch`` turns the connection into a stream."""

    delimiter = b"\n"
    MAX_LENGTH = LINE_BYTES
    factory: ControlFactory

    _log = Logger()

    def __init__(self, commands: Commands, clock: IReactorTime) -> None:
        self._commands = commands
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._is_busy = False
        self._is_watching = False
        self._is_closed = False
        self._on_lost: list[Callable[[], None]] = []
        self._outlet: Outlet | None = None
        self._answers: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
            "status": lambda _fields: status_body(self._commands.view()),
            "nodes": self._nodes,
            "services": self._services,
            "resources": self._resources,
            "node": self._node,
            "explain": self._explained,
            "history": self._history,
            "differences": self._differences,
            "registration": self._registration,
            "list": self._list,
            "trust": lambda _fields: self._commands.trust_report(),
            "reload": lambda _fields: self._commands.reload(),
            "wake-tasks": lambda _fields: self._commands.wake_tasks(),
            "leave": self._leave,
            "stop": self._stop,
            "watch": self._watch,
        }

    def connectionMade(self) -> None:
        """Take a place, or say that there is none."""
        self._outlet = Outlet(self.transport.write, self.transport.abortConnection, self._next)
        self.transport.registerProducer(self._outlet, True)
        if not self.factory.admit(self):
            self._fail(f"{CLIENTS} programs are connected already; close one")
            self.close()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - Twisted's own signature
        """Undo what the connection had set up."""
        self._is_closed = True
        self._outlet.close()
        self.factory.dismiss(self)
        while self._on_lost:
            self._on_lost.pop()()

    def lineReceived(self, line: bytes) -> None:
        """Take a request; it waits while another is being answered."""
        if self._is_closed or not line.strip():
            return
        if self._is_watching:
            self.close()
        elif len(self._waiting) >= WAITING_LINES:
            self._fail(f"more than {WAITING_LINES} requests wait for an answer")
            self.close()
        else:
            self._waiting.append(line)
            self._next()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002 - Twisted's own signature
        """Refuse a line that is too long; where the next begins nobody knows."""
        self._fail(f"a request is one line of at most {LINE_BYTES} bytes")
        self.close()

    def _next(self) -> None:
        while self._waiting and not self._must_wait():
            self._is_busy = True
            outcome = maybeDeferred(self._answer, self._waiting.popleft())
            outcome.addCallbacks(self._succeed, self._explain)
            outcome.addCallback(lambda _none: self._release())
            # An answer of ours that cannot be sent is our bug; the client must not wait for it.
            outcome.addErrback(self._give_up)

    def _must_wait(self) -> bool:
        # A client that does not take its answers gets no further ones to pile up.
        return self._is_busy or self._is_watching or self._is_closed or self._outlet.is_congested

    def _release(self) -> None:
        self._is_busy = False
        self._next()

    def _answer(self, line: bytes) -> Any:
        request = _parsed(line)
        answer = self._answers.get(request.command)
        if answer is None:
            raise CommandError(
                f"unknown command {request.command[:64]!r}; there are: {', '.join(self._answers)}"
            )
        return answer(request.fields)

    def _succeed(self, data: Any) -> None:
        self._send({"ok": True, "data": {} if data is None else data})

    def _explain(self, failure: Failure) -> None:
        if failure.check(CommandError):
            self._fail(failure.getErrorMessage())
        else:
            self._log.failure("A command on the control socket failed", failure=failure)
            self._fail(f"internal error: {failure.type.__name__}: {failure.getErrorMessage()}")

    def _give_up(self, failure: Failure) -> None:
        self._log.failure("An answer on the control socket could not be sent", failure=failure)
        self._fail("internal error: the answer cannot be sent; the log says more")
        self._release()

    def _fail(self, error: str) -> None:
        self._send({"ok": False, "error": " ".join(error.split())[:ERROR_CHARACTERS]})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._outlet.send(json_bytes(message) + b"\n")

    def close(self) -> None:
        """Close once what was said is out; a client that does not read is cut off in a second."""
        if self._is_closed:
            return
        self._is_closed = True
        self._waiting.clear()
        deadline = self._clock.callLater(STOP_AFTER_S, self.transport.abortConnection)
        self._on_lost.append(lambda: _cancel(deadline))
        self.transport.unregisterProducer()
        self._outlet.resumeProducing()
        self._outlet.close()
        self.transport.loseConnection()

    def _now_or_then(self, fields: Mapping[str, Any], body_of: Callable[[FederationView], Any]) -> Any:
        """Return a body made of the view of now, or later one of the view of the time ``at``."""
        if not fields.get("at"):
            return body_of(self._commands.view())
        at_ms = _read(time_of, fields, self._commands.now_ms())
        return _of_the_past(self._commands.past.view(at_ms), body_of)

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
            return _found(host, None if node is None else node_body(node))

        return self._now_or_then(fields, body_of)

    def _history(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        wish = _read(history_wish, fields, OF_ALL_HISTORY, self._commands.now_ms())
        return _of_the_past(self._commands.past.changes(wish), history_body)

    def _differences(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        from_ms, to_ms = _read(times_between, fields, self._commands.now_ms())
        answer = self._commands.past.differences(from_ms, to_ms)
        return _of_the_past(answer, lambda nodes: differences_body(from_ms, to_ms, nodes))

    def _registration(self, fields: Mapping[str, Any]) -> Deferred[Any]:
        at_ms = _read(time_of, fields, self._commands.now_ms())
        return _of_the_past(self._commands.past.document(at_ms), lambda body: {"xml": body.decode()})

    def _explained(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        host = _host(fields)
        return _found(host, self._commands.explain(host))

    def _list(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        name, documents = str(fields.get("name", "")), self._commands.documents
        if name not in LISTS or not documents.is_known(name):
            raise CommandError(
                f"no list {name[:64]!r} here; there are: {', '.join(one for one in documents if one in LISTS)}"
            )
        found = places(name, self._commands.view().nodes, documents.body(name), self._commands.shard_form)
        return list_body(name, found)

    def _leave(self, _fields: Mapping[str, Any]) -> Deferred[None]:
        return self._commands.leave()

    def _stop(self, _fields: Mapping[str, Any]) -> None:
        """
        Stop the daemon once the answer is out.

        The connection is closed after the answer, and that it is closed means the
        answer reached the kernel; the reactor does not send it while it stops.
        """
        self._on_lost.append(self._commands.stop)
        self._clock.callLater(0, self.close)

    def _watch(self, _fields: Mapping[str, Any]) -> Any:
        self._is_watching = True
        self._waiting.clear()
        teller = _StatusTeller(self._tell_status, self._clock)
        self._on_lost += [
            teller.stop,
            self._commands.events.subscribe(self._tell_event),
            self._commands.on_view_changed(teller.change),
        ]
        view = self._commands.view()
        return {"status": status_body(view), "nodes": nodes_body(view)}

    def _tell_event(self, event: Event) -> None:
        self._send({"event": event.name, "id": event.id, "data": event.data})

    def _tell_status(self) -> None:
        self._send({"event": "status", "data": status_body(self._commands.view())})


class ControlFactory(ServerFactory):
    """Makes the protocols of the control socket and counts them."""

    noisy = False

    def __init__(self, commands: Commands, clock: IReactorTime) -> None:
        self._commands = commands
        self._clock = clock
        self._clients: set[ControlProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:  # noqa: ARG002 - Twisted's own signature
        """Make the protocol of one client."""
        client = ControlProtocol(self._commands, self._clock)
        client.factory = self
        return client

    def admit(self, client: ControlProtocol) -> bool:
        """Take a client in, unless there are as many as there may be."""
        if len(self._clients) >= CLIENTS:
            return False
        self._clients.add(client)
        return True

    def dismiss(self, client: ControlProtocol) -> None:
        """Forget a client."""
        self._clients.discard(client)

    def disconnect_all(self) -> None:
        """Close all clients in order: the daemon stops."""
        for client in tuple(self._clients):
            client.close()


class _StatusTeller:
    """Tells of changes at once, but never twice within ``STATUS_EVERY_S``; the last change is always told."""

    def __init__(self, tell: Callable[[], None], clock: IReactorTime) -> None:
        self._tell = tell
        self._clock = clock
        self._told_at_s = -STATUS_EVERY_S
        self._later: IDelayedCall | None = None

    def change(self) -> None:
        if self._later is None:
            wait_s = self._told_at_s + STATUS_EVERY_S - self._clock.seconds()
            if wait_s > 0:
                self._later = self._clock.callLater(wait_s, self._tell_now)
            else:
                self._tell_now()

    def stop(self) -> None:
        if self._later is not None:
            _cancel(self._later)
            self._later = None

    def _tell_now(self) -> None:
        self._later = None
        self._told_at_s = self._clock.seconds()
        self._tell()


def _cancel(call: IDelayedCall) -> None:
    if call.active():
        call.cancel()


def _host(fields: Mapping[str, Any]) -> str:
    host = fields.get("host")
    if not isinstance(host, str):
        raise CommandError("this command needs a host: a text")
    return host.lower()


def _found(host: str, body: dict[str, Any] | None) -> dict[str, Any]:
    if body is None:
        raise CommandError(f"no node {host[:253]!r} in this federation; the command nodes lists all")
    return body


def _parsed(line: bytes) -> _Request:
    """
    Read a request.

    Raises:
        CommandError: it is no JSON object with a command.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise CommandError('a request is one line of JSON, such as {"command": "status"}') from None
    if not isinstance(fields, dict) or not isinstance(fields.get("command"), str):
        raise CommandError("a request is a JSON object with a command: a text")
    return _Request(fields["command"], fields)
