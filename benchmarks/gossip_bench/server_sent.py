"""Server-sent events from bytes: the head of the HTTP answer, then blocks of fields. Pure; no sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


class StreamRefusedError(Exception):
    """Report that the answer to a request for events is no stream of events."""


class EventParser:
    """
    Cuts what one HTTP/1.0 request for ``text/event-stream`` gets back into events.

    HTTP/1.0, so that nothing is chunked. ``is_open`` once the first comment or
    event has come: from then on no event is missed.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._unread = b""
        self._head_is_read = False

    def feed(self, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """
        Take bytes, yield (name, data) of each event that is now complete.

        Raises:
            StreamRefusedError: the status is not 200.
            ValueError: the data of an event are no JSON object.
        """
        self._unread += data
        if not self._head_is_read:
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            if not end:
                return
            status_line = head.partition(b"\r\n")[0].decode("latin-1")
            if status_line.split()[1:2] != ["200"]:
                raise StreamRefusedError(status_line)
            self._head_is_read, self._unread = True, rest
        *blocks, self._unread = self._unread.split(b"\n\n")
        for block in blocks:
            self.is_open = True
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
            if "event" in fields:
                happening = json.loads(fields.get("data", "{}"))
                if not isinstance(happening, dict):
                    raise ValueError(f"the data of an event are no object: {fields['data'][:80]}")
                yield fields["event"], happening
