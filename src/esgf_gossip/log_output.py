"""
The daemon's log as lines: text or JSON, levels by area, repeats counted instead of written.

An area is a room of this program (``net``, ``web``, ``sources``, ...), ``trust`` wherever trust is spoken of, or the
library that speaks. What is written was said with ``twisted.logger``; rotation is the journal's or the shell's work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import attrs
from twisted.logger import LogLevel, formatEvent

from esgf_gossip.config_values import LOG_FORMATS, LOG_LEVELS
from esgf_gossip.views.node_json import utc_text

PACKAGE: Final = "esgf_gossip"
# A library tells of its own parts what an administrator need not know.
_OF_LIBRARIES: Final = "warn"
# The same line more often than that within the time is counted, not written.
REPEATS_MOST: Final = 20
REPEATS_S: Final = 60.0
# Of kinds of lines that are counted at once; there are some hundred in the program.
KINDS_MOST: Final = 2000
LINE_CHARACTERS: Final = 8000
# sd-daemon(3): what the journal takes for the level of a line.
_PRIORITIES: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}


@attrs.frozen
class LogRule:
    """
    Which lines are written, and how.

    Args:
        form: one of ``LOG_FORMATS``.
        level: the least that is written.
        by_area: the same for areas that have one of their own.
    """

    form: str = LOG_FORMATS[0]
    level: str = "info"
    by_area: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def read(cls, form: str, levels: Iterable[str]) -> LogRule:
        """Make a rule of texts such as ``info`` and ``net=debug``; the last of an area counts."""
        level, by_area = "info", {}
        for text in levels:
            area, is_area, of = text.rpartition("=")
            if is_area:
                by_area[area] = of
            else:
                level = of
        return cls(form, level, by_area)

    def least(self, area: str, *, is_ours: bool) -> str:
        """Return the least level that is written of an area."""
        return self.by_area.get(
            area, self.level if is_ours else max(self.level, _OF_LIBRARIES, key=LOG_LEVELS.index)
        )


@attrs.define
class _Window:
    began_s: float
    count: int = 0


class LogOutput:
    """
    Writes events to a stream; an observer of ``twisted.logger``.

    Args:
        stream: where to, line by line.
        rule: which lines; ``use`` replaces it.
        has_priorities: whether the journal reads the stream.
    """

    def __init__(self, stream: TextIO, rule: LogRule, *, has_priorities: bool = False) -> None:
        self._stream = stream
        self._rule = rule
        self._has_priorities = has_priorities
        self._windows: dict[tuple[str, str], _Window] = {}

    def use(self, rule: LogRule) -> None:
        """Write by another rule from now on."""
        self._rule = rule

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write an event, unless its level or its number keeps it out; a stream that fails loses it."""
        namespace = str(event.get("log_namespace", ""))
        level = getattr(event.get("log_level"), "name", LogLevel.info.name)
        area = area_of(namespace)
        is_ours = namespace.startswith(PACKAGE)
        if LOG_LEVELS.index(level) < LOG_LEVELS.index(self._rule.least(area, is_ours=is_ours)):
            return
        now_s = float(event.get("log_time") or 0.0)
        self._tell_counted(now_s)
        if level != LogLevel.critical.name and self._is_repeat(namespace, event, now_s):
            return
        failure = event.get("log_failure")
        trace = "" if failure is None else failure.getTraceback()
        self._write(now_s, level, area, formatEvent(event) or ("failed" if trace else ""), trace)

    def close(self) -> None:
        """Tell what was counted and not told yet."""
        self._tell_counted(float("inf"))

    def _is_repeat(self, namespace: str, event: Mapping[str, Any], now_s: float) -> bool:
        key = (namespace, str(event.get("log_format", ""))[:LINE_CHARACTERS])
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= KINDS_MOST:
                return False
            window = self._windows[key] = _Window(now_s)
        window.count += 1
        return window.count > REPEATS_MOST

    def _tell_counted(self, now_s: float) -> None:
        # A clock that is set back begins all windows anew.
        over = [key for key, one in self._windows.items() if not 0 <= now_s - one.began_s < REPEATS_S]
        for key in over:
            window = self._windows.pop(key)
            more = window.count - REPEATS_MOST
            if more > 0:
                at_s = window.began_s + REPEATS_S
                self._write(
                    at_s, "warn", area_of(key[0]), f"{more} more lines within a minute such as: {key[1]}", ""
                )

    def _write(self, at_s: float, level: str, area: str, text: str, trace: str) -> None:
        text = _one_line(text)
        if self._rule.form == "json":
            fields = {
                "time": utc_text(int(at_s * 1000)),
                "level": level,
            }
            fields |= {"area": area, "message": text, **({"traceback": trace} if trace else {})}
            line = json.dumps(fields)
        else:
            stamp = datetime.fromtimestamp(at_s, UTC).astimezone().strftime("%Y-%m-%dT%H:%M:%S%z")
            line = f"{stamp} [{area}#{level}] {text}"
            line += "".join(f"\n\t{_one_line(part)}" for part in trace.splitlines())
        if self._has_priorities:
            mark = f"<{_PRIORITIES[level]}>"
            line = mark + line.replace("\n", f"\n{mark}")
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads it any more: a daemon does not end for that.
            return


def is_journal(stream: TextIO, named: str) -> bool:
    """
    Tell whether the journal reads a stream.

    Args:
        stream: what is written to.
        named: ``JOURNAL_STREAM``, device and inode; programs inherit it that write elsewhere.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def area_of(namespace: str) -> str:
    """Return the area of a logger's name."""
    parts = namespace.split(".")
    if parts[0] != PACKAGE:
        return parts[0] or "python"
    if any(part.startswith("trust") for part in parts[1:]):
        return "trust"
    return parts[1] if len(parts) > 1 else PACKAGE


def _one_line(text: str) -> str:
    """Make one line of a text in which others have a word: nothing in it begins a second, or moves a cursor."""
    shown = "".join(one if one.isprintable() else " " if one in "\n\t" else "?" for one in text)
    return shown if len(shown) <= LINE_CHARACTERS else f"{shown[:LINE_CHARACTERS]}..."
