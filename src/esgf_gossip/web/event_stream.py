"""
``/api/v1/events``: the event hub as server-sent events (WHATWG HTML, section 9.2).

Framing, resuming, heartbeats and the bounds of live clients live here; what an
event is stays in ``events``. One write per event, so that a client that reads
chunks sees whole events.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET

from esgf_gossip.views.node_json import json_bytes
from esgf_gossip.web.events import Event, EventHub
from esgf_gossip.web.outlet import Outlet
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.resources import Page

CLIENTS: Final = 256
# For each of them: together no more than the control socket's clients may hold.
UNSENT_BYTES: Final = 256 * 1024
# Below the minute after which common proxies drop a silent connection.
HEARTBEAT_S: Final = 15.0
HEARTBEAT: Final = b": heartbeat\n\n"
OPENING: Final = b": esgf-gossip events\n\n"


@attrs.frozen(eq=False)
class _Client:
    request: Request
    outlet: Outlet


class EventStreamPage(Page):
    """
    Sends events to every client until it leaves.

    Args:
        hub: where the events come from.
        clock: for the heartbeat; one timer serves all clients and rests without any.
    """

    def __init__(self, hub: EventHub, clock: IReactorTime) -> None:
        super().__init__()
        self._hub = hub
        self._clock = clock
        self._clients: set[_Client] = set()
        self._heartbeat: IDelayedCall | None = None
        self._unsubscribe = lambda: None

    def answer(self, request: Request) -> Any:
        """
        Open the stream, first with what the client missed.

        Raises:
            Refused: 503, there are as many clients as there may be.
        """
        if len(self._clients) >= CLIENTS:
            raise Refused(
                Problem(
                    503, f"{CLIENTS} clients listen already; try again in a minute", {"Retry-After": "60"}
                )
            )
        request.setHeader("Content-Type", "text/event-stream; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        # nginx in front would hold events back until its buffer is full.
        request.setHeader("X-Accel-Buffering", "no")
        if request.method == b"HEAD":
            # Finished here: a stream has no length, so none may be said.
            request.finish()
        else:
            self._admit(request)
        return NOT_DONE_YET

    def close(self) -> None:
        """End all streams in order: the daemon stops."""
        for client in tuple(self._clients):
            client.outlet.close()
            transport = client.request.transport
            client.request.unregisterProducer()
            client.request.finish()
            transport.loseConnection()

    def _admit(self, request: Request) -> None:
        client = _Client(request, Outlet(request.write, lambda: _abort(request), most_bytes=UNSENT_BYTES))
        finished: Deferred[None] = request.notifyFinish()
        finished.addBoth(lambda _outcome: self._dismiss(client))
        request.registerProducer(client.outlet, streaming=True)
        if not self._clients:
            self._unsubscribe = self._hub.subscribe(self._tell_all)
            self._heartbeat = self._clock.callLater(HEARTBEAT_S, self._beat)
        self._clients.add(client)
        client.outlet.send(OPENING)
        for frame in self._missed(request.getHeader("Last-Event-ID")):
            client.outlet.send(frame)

    def _missed(self, last_seen: str | None) -> list[bytes]:
        """
        Return what a client that comes back must be told first.

        An id that is no number, forgotten, or of another run, is answered with a
        reset: read the state anew; its own id resumes from here.
        """
        if not last_seen:
            return []
        if last_seen.isascii() and last_seen.isdigit() and len(last_seen) <= 16:
            last_id = int(last_seen)
            if self._hub.can_resume_after(last_id):
                missed = [event.frame() for event in self._hub.since(last_id)]
                # More at once would look like a client that does not read: cut off, it would come back for the same.
                if sum(map(len, missed)) <= UNSENT_BYTES // 2:
                    return missed
        reason = {
            "reason": "not all that was missed since Last-Event-ID can be told; read /api/v1/nodes anew"
        }
        return [Event(self._hub.last_id, "reset", reason, json_bytes(reason)).frame()]

    def _tell_all(self, event: Event) -> None:
        frame = event.frame()
        for client in tuple(self._clients):
            client.outlet.send(frame)

    def _beat(self) -> None:
        self._heartbeat = self._clock.callLater(HEARTBEAT_S, self._beat)
        for client in tuple(self._clients):
            # Who does not read needs no sign of life, and would pile them up.
            if not client.outlet.is_congested:
                client.outlet.send(HEARTBEAT)

    def _dismiss(self, client: _Client) -> None:
        client.outlet.close()
        self._clients.discard(client)
        if not self._clients:
            self._unsubscribe()
            if self._heartbeat is not None:
                self._heartbeat.cancel()
                self._heartbeat = None


def _abort(request: Request) -> None:
    # Not loseConnection: that waits until a client that does not read has read.
    request.transport.abortConnection()
