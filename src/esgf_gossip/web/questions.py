"""What pages and commands can be asked for: from texts of a client to ``Wanted``, or one error that says how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from esgf_gossip.esgf.health import Health
from esgf_gossip.esgf.node_type import ALL, node_type_names
from esgf_gossip.esgf.resources import CORES_MOST
from esgf_gossip.esgf.services import RULES
from esgf_gossip.storage.history_reader import Wish
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.history_json import KINDS
from esgf_gossip.views.node_json import Wanted, plain_utc
from esgf_gossip.web.instants import InstantError, instant_ms

HEALTH: Final = tuple(one.value for one in Health)
SERVICE_TYPES: Final = tuple(rule.type for rule in RULES)

STATUSES: Final = tuple(one.value for one in NodeStatus)
NODE_TYPES: Final = node_type_names(ALL)
# Far above any federation; a page is cut from what is made anyway.
PLACES_MOST: Final = 1_000_000

OF_PAGES: Final = ("limit", "offset")
# What commands ask too: a command always gets the whole list.
OF_ALL_SERVICES: Final = ("type", "health", "min_cores_free", "at")
OF_ALL_NODES: Final = ("status", "node_type", "min_cores_free", "at")
OF_SERVICES: Final = (*OF_ALL_SERVICES, *OF_PAGES)
OF_NODES: Final = (*OF_ALL_NODES, *OF_PAGES)
OF_NODE: Final = ("at",)
CHANGES_USUAL: Final = 100
CHANGES_MOST: Final = 1000
VERSIONS_USUAL: Final = 100
VERSIONS_MOST: Final = 1000
ID_MAX: Final = 2**53
# Clocks of a client and of this host differ by a little.
AHEAD_MS: Final = 60_000

OF_HISTORY: Final = ("since", "until", "kind", "before", "limit")
OF_ALL_HISTORY: Final = ("host", *OF_HISTORY)
OF_DIFFERENCES: Final = ("from", "to")


class QuestionError(ValueError):
    """
    Report a question that cannot be answered: what is wrong and what would be right, in one line.

    ``status``: what HTTP says of it.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status: Final = status


def wanted(fields: Mapping[str, Any], known: tuple[str, ...]) -> Wanted:
    """
    Read a question.

    Args:
        fields: name to text; an empty text asks for all.
        known: the names that this page has.

    Raises:
        QuestionError: a name or a value is not known.
    """
    refuse_unknown(fields, known)
    return Wanted(
        _one_of("type", fields, SERVICE_TYPES),
        _one_of("health", fields, HEALTH),
        number(fields, "min_cores_free", 0, CORES_MOST),
        _one_of("status", fields, STATUSES),
        _one_of("node_type", fields, NODE_TYPES),
    )


def history_wish(fields: Mapping[str, Any], known: tuple[str, ...], now_ms: int, host: str = "") -> Wish:
    """
    Read which changes are asked for.

    Raises:
        QuestionError: a name or a value is not known.
    """
    refuse_unknown(fields, known)
    kind = str(fields.get("kind", ""))
    if kind and kind not in KINDS:
        raise QuestionError(f"kind is one of {', '.join(KINDS)}")
    name = host or str(fields.get("host", "")).lower()
    if any("\ud800" <= one <= "\udfff" for one in name):
        raise QuestionError("host is no text: half a character in it")
    before = number(fields, "before", 0, ID_MAX)
    return Wish(
        host=name,
        kinds=(kind,) if kind else KINDS,
        since_ms=_time(fields, "since", now_ms),
        until_ms=_time(fields, "until", now_ms),
        before_id=before,
        limit=number(fields, "limit", 1, CHANGES_MOST) or CHANGES_USUAL,
    )


def times_between(fields: Mapping[str, Any], now_ms: int) -> tuple[int, int]:
    """
    Read two times; the second is now where it is not given.

    Raises:
        QuestionError: a name is not known, a text is no time or has not come yet, the first is missing.
    """
    refuse_unknown(fields, OF_DIFFERENCES)
    from_ms = _past_time(fields, "from", now_ms)
    if from_ms is None:
        raise QuestionError("differences need a time to begin with: from=2026-11-26T14:00:00Z")
    to_ms = _past_time(fields, "to", now_ms)
    return from_ms, now_ms if to_ms is None else to_ms


def time_of(fields: Mapping[str, Any], now_ms: int) -> int:
    """
    Read the time ``at``.

    Raises:
        QuestionError: it is no time, or has not come yet.
    """
    found = _past_time(fields, "at", now_ms)
    return now_ms if found is None else found


def _past_time(fields: Mapping[str, Any], name: str, now_ms: int) -> int | None:
    """Read a time whose state is asked for: the future has none yet."""
    found = _time(fields, name, now_ms)
    if found is not None and found > now_ms + AHEAD_MS:
        # As well formed as a time before the history begins, and as little is there.
        raise QuestionError(f"{name}: {plain_utc(found)} has not come yet", 404)
    return None if found is None else min(found, now_ms)


def _time(fields: Mapping[str, Any], name: str, now_ms: int) -> int | None:
    text = str(fields.get(name, "") or "")
    if not text:
        return None
    try:
        return instant_ms(text, now_ms)
    except InstantError as error:
        raise QuestionError(f"{name}: {error}") from None


@attrs.frozen
class Part:
    """Which part of a list is asked for: at most ``limit`` items (None: all) from the ``offset``-th on."""

    offset: int = 0
    limit: int | None = None

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Part:
        """
        Read which part is asked for.

        Raises:
            QuestionError: a value is no number in its bounds.
        """
        offset, limit = (
            number(fields, name, least, PLACES_MOST) for name, least in (("offset", 0), ("limit", 1))
        )
        return cls(offset or 0, limit)

    def of(self, items: list[Any]) -> list[Any]:
        """Return the part of a list."""
        return items[self.offset :] if self.limit is None else items[self.offset : self.offset + self.limit]

    def next_offset(self, items: list[Any]) -> int | None:
        """Return where the next part begins; None where there is none."""
        end = self.offset + (self.limit or 0)
        return end if self.limit is not None and end < len(items) else None


def number(fields: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """
    Read a number, None where none is given.

    Raises:
        QuestionError: it is none, or not in its bounds.
    """
    text = str(fields.get(name, ""))
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16 and least <= int(text) <= most):
        raise QuestionError(f"{name} is a number from {least} to {most}")
    return int(text)


def refuse_unknown(fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """
    Refuse a question with a name that is not known.

    Raises:
        QuestionError: naming it and those that are.
    """
    for name in fields:
        if name not in known:
            raise QuestionError(f"there is no parameter {name[:40]!r}; known: {', '.join(known)}")


def refuse_blank(fields: Mapping[str, str]) -> None:
    """
    Refuse a question in which a parameter says nothing: a program that fills one from nothing is wrong.

    Raises:
        QuestionError: naming it.
    """
    for name, text in fields.items():
        if not text:
            raise QuestionError(f"{name[:40]} is empty; leave it out to ask for all")


def _one_of(name: str, fields: Mapping[str, Any], values: tuple[str, ...]) -> str:
    text = str(fields.get(name, "")).lower()
    if text and text not in {value.lower() for value in values}:
        raise QuestionError(f"{name} is one of {', '.join(values)}")
    return text
