"""
A task as a program writes it: one JSON object, read with a bound on everything.

Only reading and checking lives here; what an action does is ``actions``'.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

FILE_BYTES: Final = 64 * 1024
DEPTH_MOST: Final = 16
# Of an id and of a key.
WORD_CHARACTERS: Final = 128
_OWN_FIELDS: Final = ("id", "action", "key")


class TaskError(Exception):
    """Say in one line what is wrong in a task file and what to do: it can never be done as it is."""


@attrs.frozen
class Task:
    """
    One task.

    Args:
        id: done once, however often a file with it comes.
        action: one that is known.
        key: tasks with one key are done in their order; "": this one has none.
        arguments: what the action needs, checked.
    """

    id: str
    action: str
    key: str
    arguments: Any = attrs.field(repr=False)


def parse_task(content: bytes, name: str, arguments: Mapping[str, type]) -> Task:
    """
    Read a task file.

    Args:
        content: of the file.
        name: of the file, the id where it gives none.
        arguments: by action, the attrs class of what it takes.

    Raises:
        TaskError: naming the field.
    """
    fields = _object(content)
    action = fields.get("action")
    if not isinstance(action, str):
        raise TaskError(f"'action' is missing or no text; write one of: {', '.join(arguments)}")
    if action not in arguments:
        raise TaskError(f"{_shown(action)} is no action; the nearest known is {_nearest(action, arguments)}")
    kind = arguments[action]
    known = {field.name for field in attrs.fields(kind)}
    given = {field: value for field, value in fields.items() if field not in _OWN_FIELDS}
    for field in given:
        if field not in known:
            near = _nearest(field, [*_OWN_FIELDS, *known])
            raise TaskError(f"{_shown(field)} is not known to {action}; the nearest known is {near}")
    for field in attrs.fields(kind):
        if field.default is attrs.NOTHING and field.name not in given:
            raise TaskError(f"'{field.name}' is missing; {action} needs it")
    try:
        values = kind(**given)
    except (TypeError, ValueError) as error:
        raise TaskError(str(error)) from None
    return Task(_word("id", fields.get("id", name)), action, _word("key", fields.get("key", "")), values)


def text(most: int) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return the check of an argument that is a text of at most so many characters, none of them a control."""

    def check(_arguments: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"'{field.name}' is no text; write it in quotes")
        if not value or len(value) > most or not value.isprintable():
            raise ValueError(f"'{field.name}' is not 1 to {most} printable characters; shorten or correct it")

    return check


def _object(content: bytes) -> Mapping[str, Any]:
    if len(content) > FILE_BYTES:
        raise TaskError(f"the file is larger than {FILE_BYTES} bytes; a task is small")
    try:
        found = json.loads(
            content.decode(), object_pairs_hook=_without_twins, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        raise TaskError(f"byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise TaskError(
            f"no JSON ({error.msg}, line {error.lineno}, column {error.colno}); write one object, and rename "
            "the file into new/ when it is whole"
        ) from None
    except RecursionError:
        raise TaskError(f"nested deeper than {DEPTH_MOST} levels; make it flatter") from None
    except ValueError:
        raise TaskError("a number has too many digits; write it as a text") from None
    if not isinstance(found, dict):
        raise TaskError('no JSON object; write {"action": ...}')
    if _is_deep(found):
        raise TaskError(f"nested deeper than {DEPTH_MOST} levels; make it flatter")
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise TaskError("a field stands twice in one object; keep one of them")
    return found


def _refuse_constant(name: str) -> None:
    raise TaskError(f"{name} is no JSON; write a number or null")


def _is_deep(found: Any) -> bool:
    level = [found]
    for _ in range(DEPTH_MOST):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _word(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TaskError(f"'{field}' is no text; write it in quotes")
    is_left_out = field == "key" and not value
    if not is_left_out and not (0 < len(value) <= WORD_CHARACTERS and value.isprintable()):
        raise TaskError(f"'{field}' is not 1 to {WORD_CHARACTERS} printable characters; choose another")
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    return f"'{difflib.get_close_matches(word[:WORD_CHARACTERS], list(known), 1, cutoff=0.0)[0]}'"


def _shown(word: str) -> str:
    return repr(word[:64])
