"""What pages and commands can be asked for: from texts of a client to ``Wanted``, or one error that says how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from esgf_gossip.esgf.health import Health
from esgf_gossip.esgf.resources import CORES_MOST
from esgf_gossip.esgf.services import RULES
from esgf_gossip.views.node_json import Wanted

HEALTH: Final = tuple(one.value for one in Health)
SERVICE_TYPES: Final = tuple(rule.type for rule in RULES)

OF_SERVICES: Final = ("type", "health", "min_cores_free", "at")
OF_NODES: Final = ("min_cores_free", "at")
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
    )


def refuse_unknown(fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """
    Refuse a question with a name that is not known.

    Raises:
        QuestionError: naming it and those that are.
    """
    for name in fields:
        if name not in known:
            raise QuestionError(f"there is no parameter {name[:40]!r}; known: {', '.join(known)}")


def _one_of(name: str, fields: Mapping[str, Any], values: tuple[str, ...]) -> str:
    text = str(fields.get(name, "")).lower()
    if text and text not in {value.lower() for value in values}:
        raise QuestionError(f"{name} is one of {', '.join(values)}")
    return text
