"""
What happened, numbered: the events that pages, portals and the live table subscribe to.

Numbering, memory and distribution live here; how an event travels over HTTP is
``event_stream``'s, over the control socket ``control``'s work.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from twisted.logger import Logger

from esgf_gossip.views.node_json import json_bytes

KEPT_EVENTS: Final = 1000
# A JavaScript number holds no larger integer; half of it leaves room to count on.
FIRST_ID_MAX: Final = 2**52

_NAME: Final = re.compile(r"[a-z]+(-[a-z]+)*")


@attrs.frozen
class Event:
    """One thing that happened; ``line`` is its data as one line of JSON."""

    id: int
    name: str
    data: Mapping[str, Any]
    line: bytes = attrs.field(repr=False)

    def frame(self) -> bytes:
        """Return the event as one block of ``text/event-stream``."""
        return b"event: %s\ndata: %s\nid: %d\n\n" % (self.name.encode("ascii"), self.line, self.id)


class EventHub:
    """
    Numbers events, keeps the newest thousand, tells every subscriber.

    Ids go up by one from the microsecond at which this run began. So the ids of
    a former run are below the first of this one (unless a clock was set back),
    and a client that comes back with one is told so instead of missing events.

    Args:
        started_at_ms: Unix milliseconds at which the daemon started; 0 counts from 1.
        kept: how many events are remembered.
    """

    _log = Logger()

    def __init__(self, started_at_ms: int = 0, kept: int = KEPT_EVENTS) -> None:
        self._last_id = max(started_at_ms, 0) * 1000 % FIRST_ID_MAX
        self._kept: deque[Event] = deque(maxlen=kept)
        self._subscribers: dict[object, Callable[[Event], object]] = {}

    @property
    def last_id(self) -> int:
        """The id of the newest event, or the number before the first."""
        return self._last_id

    def publish(self, name: str, data: Mapping[str, Any]) -> int:
        """
        Number an event, tell all subscribers at once, return its id.

        Raises:
            ValueError, TypeError: the name or the data cannot be sent (our bug); nothing was numbered.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"event name {name!r} is not lower-case words joined by '-'")
        event = Event(self._last_id + 1, name, dict(data), json_bytes(data))
        self._last_id = event.id
        self._kept.append(event)
        for subscriber in tuple(self._subscribers.values()):
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001 - one subscriber must not silence the others
                self._log.failure("A subscriber failed on event {name}", name=name)
        return event.id

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call back at every event to come; return what ends that, harmless when called twice."""
        ticket = object()
        self._subscribers[ticket] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(ticket, None)

        return unsubscribe

    def since(self, event_id: int) -> list[Event]:
        """Return the remembered events after that id, oldest first."""
        return [event for event in self._kept if event.id > event_id]

    def can_resume_after(self, event_id: int) -> bool:
        """Tell whether ``since(event_id)`` lacks nothing: the id is of this run and not forgotten."""
        return self._last_id - len(self._kept) <= event_id <= self._last_id
