"""What pages and commands can be asked for: from texts of a client to ``Wanted``, or one error that says how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from esgf_gossip.esgf.health import Health
from esgf_gossip.esgf.resources import CORES_MOST
from esgf_gossip.esgf.services import RULES
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.node_json import Wanted

HEALTH: Final = tuple(one.value for one in Health)
SERVICE_TYPES: Final = tuple(rule.type for rule in RULES)

STATUSES: Final = tuple(one.value for one in NodeStatus)
NODE_TYPES: Final = ("data", "index", "idp", "compute")
# Far above any federation; a page is cut from what is made anyway.
PLACES_MOST: Final = 1_000_000

OF_PAGES: Final = ("limit", "offset")
OF_SERVICES: Final = ("type", "health", "min_cores_free", "at", *OF_PAGES)
OF_NODES: Final = ("status", "node_type", "min_cores_free", "at", *OF_PAGES)
OF_NODE: Final = ("at",)


class QuestionError(ValueError):
    """Report a question that cannot be answered: what is wrong and what would be right, in one line."""


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
    cores = str(fields.get("min_cores_free", ""))
    if cores and not (cores.isascii() and cores.isdecimal() and int(cores[:8]) <= CORES_MOST):
        raise QuestionError(f"min_cores_free is a number from 0 to {CORES_MOST}")
    return Wanted(
        _one_of("type", fields, SERVICE_TYPES),
        _one_of("health", fields, HEALTH),
        int(cores) if cores else None,
        _one_of("status", fields, STATUSES),
        _one_of("node_type", fields, NODE_TYPES),
    )


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
