"""
The control socket's protocol: one JSON object a line, asked and answered in order.

Commands, their answers and the live watch live here; the socket file and its
mode are ``control``'s. Who may ask is the daemon's own user, and root,
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

from esgf_gossip.esgf.maintenance import Maintenance
from esgf_gossip.views.node_json import (
    json_bytes,
    nodes_body,
    status_body,
    window_body,
)
from esgf_gossip.web.control_answers import Answers, CommandError, read_window
from esgf_gossip.web.dataset_answers import DatasetAnswers
from esgf_gossip.web.events import Event
from esgf_gossip.web.metadata_answers import MetadataAnswers
from esgf_gossip.web.notify_answers import NotifyAnswers
from esgf_gossip.web.outlet import Outlet
from esgf_gossip.web.seen import Seen

# A document of 64 KiB, in base64.
LINE_BYTES: Final = 128 * 1024
WAITING_LINES: Final = 16
CLIENTS: Final = 64
# A view changes with every digest; a person and a table need no more than ten a second.
STATUS_EVERY_S: Final = 0.1
# The answer to stop goes out before the daemon does, unless the client does not take it.
STOP_AFTER_S: Final = 1.0
ERROR_CHARACTERS: Final = 1000

T = TypeVar("T")


class Commands(Seen, Protocol):
    """What the control socket asks of the daemon."""

    def reload(self) -> Deferred[dict[str, Any]]:
        """Read properties, trust and configuration again; fire with ``changed`` and ``findings``."""

    def stop(self) -> None:
        """Stop the daemon in order."""

    @property
    def maintenance(self) -> Maintenance | None:
        """The window of planned downtime that this node announces."""

    def announce(self, window: Maintenance | None) -> None:
        """Announce a window in place of the one before, or none."""

    def backup(self) -> Deferred[dict[str, Any]]:
        """Copy the databases; fire with ``directory`` and ``files``."""

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
            **Answers(commands).by_command,
            **MetadataAnswers(commands.metadata).by_command,
            **NotifyAnswers(lambda: getattr(commands, "notifications", None)).by_command,
            **DatasetAnswers(commands.datasets, commands.now_ms).by_command,
            "reload": lambda _fields: self._commands.reload(),
            "maintenance": self._maintain,
            "backup": lambda _fields: self._commands.backup(),
            "wake-tasks": lambda _fields: self._commands.wake_tasks(),
            "leave": self._leave,
            "stop": self._stop,
            "watch": self._watch,
        }

    def connectionMade(self) -> None:
        """Take a place, or say that there is none."""
        self._outlet = Outlet(self.transport.write, self.transport.abortConnection, self._next)
        self.transport.registerProducer(self._outlet, True)
        if not self.factory.may_ask(self.transport):
            self._fail("only the user of the daemon and root may ask it")
            self.close()
        elif not self.factory.admit(self):
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
            self._fail(failure.getErrorMessage(), is_missing=failure.value.is_missing)
        else:
            self._log.failure("A command on the control socket failed", failure=failure)
            self._fail(f"internal error: {failure.type.__name__}: {failure.getErrorMessage()}")

    def _give_up(self, failure: Failure) -> None:
        self._log.failure("An answer on the control socket could not be sent", failure=failure)
        self._fail("internal error: the answer cannot be sent; the log says more")
        self._release()

    def _fail(self, error: str, *, is_missing: bool = False) -> None:
        said = {"ok": False, "error": " ".join(error.split())[:ERROR_CHARACTERS]}
        self._send({**said, "missing": True} if is_missing else said)

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

    def _maintain(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Announce what is asked for: a window, its end, or nothing new; answer what is announced."""
        if "ends_at" in fields:
            self._commands.announce(read_window(fields, self._commands.now_ms()))
        elif fields.get("end"):
            self._commands.announce(None)
        return {"maintenance": window_body(self._commands.maintenance)}

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

    def __init__(
        self,
        commands: Commands,
        clock: IReactorTime,
        may_ask: Callable[[Any], bool] = lambda _transport: True,
    ) -> None:
        self._commands = commands
        self._clock = clock
        self.may_ask: Final = may_ask
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
