"""The last lines of this daemon's log, in memory, for its own page."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.logger import LogLevel, formatEvent, globalLogPublisher

PACKAGE: Final = "esgf_gossip"
LINES_MOST: Final = 200
LINE_CHARACTERS: Final = 500


def _is_of_a_library(event: dict[str, Any]) -> bool:
    """Tell whether it is about parts of Twisted, such as a factory that starts: nothing an administrator asks for."""
    return not str(event.get("log_namespace", "")).startswith(PACKAGE)


class LogTail:
    """Hears the log from ``start`` to ``stop``; ``lines`` are its newest, oldest first: time in ms, level, text."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, str, str]] = deque(maxlen=LINES_MOST)

    @property
    def lines(self) -> list[tuple[int, str, str]]:
        """Return what was heard last."""
        return list(self._events)

    def start(self) -> None:
        """Hear from now on."""
        globalLogPublisher.addObserver(self._hear)

    def stop(self) -> None:
        """Hear no more."""
        globalLogPublisher.removeObserver(self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        level = event.get("log_level", LogLevel.info)
        if level is LogLevel.debug or (level is LogLevel.info and _is_of_a_library(event)):
            return
        # An event without a format of its own is a failure of a library: its first line says which.
        text = formatEvent(event) or str(event.get("log_failure", ""))
        self._events.append(
            (int(event.get("log_time", 0.0) * 1000), level.name, " ".join(text.split())[:LINE_CHARACTERS])
        )
