"""
Points in time as people and programs write them: from a text to Unix milliseconds.

Programs write RFC 3339; people also ``yesterday 14:00``, ``2026-11-26``, ``14:00`` or ``3h ago``. Whatever a page or a
command of ours shows as a time can be given back.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo
from time import tzname
from typing import Final

_AGO: Final = re.compile(
    r"(?:-\s*)?([0-9]{1,6})\s*(s|sec|second|min|minute|m|h|hour|d|day|w|week)s?(?:\s+ago)?"
)
_CLOCK: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_DAY: Final = re.compile(r"(today|yesterday)(?:[ t]+(?:at +)?([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_TEXT_CHARACTERS: Final = 64

EXAMPLES: Final = "2026-11-26T14:00:00Z, 2026-11-26 14:00, yesterday 14:00, 14:00 or 3h ago"


class InstantError(ValueError):
    """Report a text that is no point in time, in one line with examples."""


def instant_ms(text: str, now_ms: int, zone: tzinfo | None = UTC) -> int:
    """
    Read a point in time.

    Args:
        text: of a person or a program.
        now_ms: from which ``ago``, ``today`` and ``yesterday`` count.
        zone: of texts that name none; None is the host's own.

    Raises:
        InstantError: it is none, or beyond the calendar.
    """
    said = " ".join(text.lower().split())
    try:
        found = _read(said, now_ms, zone)
    except (ValueError, OverflowError, OSError):
        found = None
    if found is None or len(text) > _TEXT_CHARACTERS:
        raise InstantError(f"{text[:_TEXT_CHARACTERS]!r} is no time; write such as {EXAMPLES}")
    return found


def _read(said: str, now_ms: int, zone: tzinfo | None) -> int | None:
    if said in ("now", "just now"):
        return now_ms
    ago = _AGO.fullmatch(said)
    if ago is not None:
        return max(0, now_ms - int(ago[1]) * _UNITS_S[ago[2][0]] * 1000)
    said, zone = _named_zone(said, zone)
    now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone)
    clock_alone = _CLOCK.fullmatch(said)
    day = _DAY.fullmatch(said)
    if day is not None:
        clock = time(*(int(part or 0) for part in day.groups()[1:]))
        moment = datetime.combine(now.date() - timedelta(days=day[1] == "yesterday"), clock)
    elif clock_alone is not None:
        moment = datetime.combine(now.date(), time(*(int(part or 0) for part in clock_alone.groups())))
        # A time of day alone is the last one that has been.
        if _in(moment, zone).timestamp() * 1000 > now_ms:
            moment -= timedelta(days=1)
    elif re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([t ].*)?", said):
        moment = datetime.fromisoformat(said.replace(" ", "t", 1).upper())
    else:
        return None
    # Before 1970 there was no federation: the past ends there.
    return max(0, round(_in(moment, zone).timestamp() * 1000))


def _in(moment: datetime, zone: tzinfo | None) -> datetime:
    if moment.tzinfo is not None:
        return moment
    # astimezone reads a moment without a zone as the host's own time.
    return moment.astimezone() if zone is None else moment.replace(tzinfo=zone)


def _named_zone(said: str, zone: tzinfo | None) -> tuple[str, tzinfo | None]:
    """Take the name of a zone off: UTC, or of the host's own the one in force, as commands write it."""
    rest, _, name = said.rpartition(" ")
    if name == "utc" and rest:
        return rest, UTC
    if zone is None and rest and name in {one.lower() for one in tzname}:
        return rest, None
    return said, zone
