"""
How numbers, times and texts of strangers are written on a page.

Every text that a template shows passes ``shown``: what cannot be seen, or would turn the line around, is replaced.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from markupsafe import Markup, escape

TEXT_CHARACTERS: Final = 300
# Controls, lone surrogates, and what changes the direction of the text that follows.
_UNSEEN: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ud800-\\udfff\\ufffe\\uffff]"
)
_LAST_S: Final = 253_402_300_799
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
# Beyond that a date says more than a number of days.
_DAYS_TOLD: Final = 60
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def shown(value: Any) -> Any:
    """Return a value as a page may show it: a text without unseen characters and not too long, None as nothing."""
    if value is None:
        return ""
    if type(value) is not str:  # markup of our own is a subclass
        return value
    text = _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", value)
    return text if len(text) <= TEXT_CHARACTERS else f"{text[:TEXT_CHARACTERS]}\N{HORIZONTAL ELLIPSIS}"


def uncut(value: Any) -> Markup:
    """Return a text of our own, or a link, as ``shown`` does but whole: a link that is cut leads elsewhere."""
    return escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def rfc3339(unix_ms: int) -> str:
    """Write a time for ``<time datetime>``, to the second, UTC."""
    return _moment(unix_ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def humps(name: str) -> Markup:
    """Return a name such as OpenIDProvider that may go on another line where a word of it begins."""
    return Markup("<wbr>").join(re.findall(r"[A-Z]*[^A-Z]+|[A-Z]+", name))


def day(unix_ms: int) -> str:
    """Write the day of a time, UTC."""
    return _moment(unix_ms).strftime("%A, %Y-%m-%d")


def clock(unix_ms: int) -> str:
    """Write the time of day, UTC."""
    return _moment(unix_ms).strftime("%H:%M:%S")


def _moment(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(min(max(unix_ms // 1000, 0), _LAST_S), UTC)


def relative(unix_ms: int, now_ms: int) -> str:
    """Say how long ago a time was, or in how long it will be; far away, its date."""
    seconds = (now_ms - unix_ms) // 1000
    if abs(seconds) >= _DAYS_TOLD * _DAY_S:
        return _moment(unix_ms).strftime("%Y-%m-%d")
    if abs(seconds) < _MINUTE_S:
        return "just now" if seconds >= 0 else "in a moment"
    text = span(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def span(seconds: float) -> str:
    """Say a duration with its largest unit."""
    for unit_s, name in ((_DAY_S, "day"), (_HOUR_S, "hour"), (_MINUTE_S, "minute")):
        if seconds >= unit_s:
            count = int(seconds // unit_s)
            return f"{count} {name}{'s' if count != 1 else ''}"
    return f"{int(seconds)} s"


def size(size_bytes: Any) -> str:
    """Say a size with two digits or more."""
    if not isinstance(size_bytes, int | float):
        return ""
    value, unit = float(size_bytes), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if value < 10 and unit else f"{value:.0f} {_UNITS[unit]}"


def count(number: Any) -> str:
    """Write a number with thin spaces between thousands."""
    if not isinstance(number, int | float) or isinstance(number, bool):
        return ""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plural(number: int, one: str, many: str = "") -> str:
    """Say a number of things."""
    return f"{count(number)} {one if number == 1 else many or f'{one}s'}"


def link_target(text: Any) -> str:
    """Return an address to link to, or "": only the web, whatever a stranger writes."""
    return text if isinstance(text, str) and re.match(r"https?://[^\s\"'<>\\]+$", text) else ""
