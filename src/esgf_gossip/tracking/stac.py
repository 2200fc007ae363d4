"""
Messages of the STAC transaction API, as they stand in Kafka: what each says of a dataset, as sightings.

Pure: JSON values in, sightings out. Who asked for a change is never looked at, so no name and no address of a
publisher gets any further. Source: docs/tracking.md, "STAC messages".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import attrs

from esgf_gossip.core.limits import TIME_MS_MAX
from esgf_gossip.tracking.identity import DatasetId, IdentityError, parse_dataset, parse_record
from esgf_gossip.tracking.sightings import Operation, SeenFile, Sighting
from esgf_gossip.tracking.stac_items import ASSETS, Copies, StacError, kind, mapping, shown

# A replica of an item is one operation for each of its files.
OPERATIONS: Final = ASSETS
EVENT_ID_CHARACTERS: Final = 200
PATH_CHARACTERS: Final = 1000

_YES: Final = frozenset({"true", "yes", "1"})
_NO: Final = frozenset({"false", "no", "0", "", "none", "null"})
_WATCHED: Final = ("retracted", "latest")


@attrs.define
class _Said:
    """What a message says of an item: the last word on two of its properties, and its copies."""

    flags: dict[str, bool] = attrs.field(factory=dict)
    copies: Copies = attrs.field(factory=Copies)


def read_message(message: object, source: str, now_ms: int, fallback_id: str = "") -> tuple[Sighting, ...]:
    """
    Read one message; a change of what nobody is told of gives no sighting.

    Args:
        message: the JSON value.
        source: see ``DatasetEvent.source``.
        now_ms: Unix milliseconds; nothing happened later than that, nor at a time that cannot be read.
        fallback_id: names the message where it has no ``event_id``.

    Raises:
        StacError: it is none.
    """
    top = mapping(message, "the message")
    data = mapping(top.get("data"), "data")
    if data.get("type", "STAC") != "STAC":
        raise StacError("data.type is not STAC")
    payload = mapping(data.get("payload"), "data.payload")
    metadata = top.get("metadata")
    metadata = {} if metadata is None else mapping(metadata, "metadata")
    occurred_ms = _time_ms(metadata.get("time"), now_ms)
    event_id = _event_id(metadata.get("event_id")) or fallback_id
    method = payload.get("method")
    if method == "POST":
        found = _published(mapping(payload.get("item"), "data.payload.item"))
    elif method == "PATCH":
        found = _patched(payload)
    else:
        raise StacError("data.payload.method is neither POST nor PATCH")
    return tuple(
        attrs.evolve(
            one,
            source=source,
            occurred_ms=occurred_ms,
            # What is told apart by its id must have one of its own.
            event_id=f"{event_id}#{number}" if event_id and number else event_id,
        )
        for number, one in enumerate(found)
    )


def _published(item: Mapping[str, Any]) -> list[Sighting]:
    dataset, _ = _dataset(item.get("id"))
    said = _Said()
    _take_item(item, said)
    is_retracted = said.flags.get("retracted", False)
    found = _copies(dataset, said.copies)
    if not said.copies.originals and not is_retracted:
        raise StacError(f"{dataset}: no asset names the data node that serves it")
    if is_retracted:
        # The record comes before what was done to it.
        node = next((one.data_node for one in found if one.is_replica is False), "")
        found.append(_sighting(Operation.RETRACT, dataset, node, is_replica=False))
    return found


def _patched(payload: Mapping[str, Any]) -> list[Sighting]:
    dataset, node = _dataset(payload.get("item_id"))
    patch = payload.get("patch")
    said = _Said()
    if type(patch) is dict and "operations" in patch:
        patch = patch["operations"]
    if type(patch) is list:
        if len(patch) > OPERATIONS:
            raise StacError(f"{dataset}: the patch has more than {OPERATIONS} operations")
        for number, operation in enumerate(patch, 1):
            try:
                _take_operation(mapping(operation, "it"), said)
            except StacError as error:
                raise StacError(f"{dataset}: operation {number}: {error}") from None
    elif type(patch) is dict:
        _take_item(patch, said)
    else:
        raise StacError(f"{dataset}: data.payload.patch is {kind(patch)}, neither a list nor an object")
    found = _copies(dataset, said.copies, is_patch=True)
    # One item stands for all copies: what is said of it is said of the original, whose node no patch names.
    if said.flags.get("retracted"):
        found.append(_sighting(Operation.RETRACT, dataset, node, is_replica=False))
    elif "retracted" in said.flags:
        found.append(_sighting(Operation.PUBLISH, dataset, node, is_replica=False))
    elif said.flags.get("latest") is False:
        found.append(_sighting(Operation.SUPERSEDE, dataset, node, is_replica=False))
    return found


def _take_item(item: Mapping[str, Any], said: _Said) -> None:
    """Take an item, whole or in part."""
    properties = item.get("properties")
    if properties is not None:
        _take_properties(mapping(properties, "properties"), said)
    assets = item.get("assets")
    if assets is not None:
        said.copies.add_assets(mapping(assets, "assets"))


def _take_properties(properties: Mapping[str, Any], said: _Said) -> None:
    for name in _WATCHED:
        if name in properties:
            said.flags[name] = _flag(properties[name], name)


def _take_operation(operation: Mapping[str, Any], said: _Said) -> None:
    """Take one operation of RFC 6902; what it does elsewhere in the item is nobody's news."""
    verb, path = operation.get("op"), operation.get("path")
    if type(path) is not str or not path.startswith("/") or len(path) > PATH_CHARACTERS:
        raise StacError("path is no JSON pointer")
    if verb not in ("add", "replace", "remove", "test", "move", "copy"):
        raise StacError("op is none of RFC 6902")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    if verb == "test" or parts[0] not in ("properties", "assets"):
        return
    if verb in ("move", "copy"):
        if parts == ["assets"] or (parts[0] == "properties" and (len(parts) == 1 or parts[1] in _WATCHED)):
            raise StacError(f"{verb} to {shown(path)} is not understood")
        return
    value = operation.get("value")
    match parts:
        case ["properties"] if verb != "remove":
            _take_properties(mapping(value, "value"), said)
        case ["properties", ("retracted" | "latest") as name]:
            # A property that is removed is as one that is null.
            said.flags[name] = _flag(value if verb != "remove" else None, name)
        case ["assets"] if verb != "remove":
            said.copies.add_assets(mapping(value, "value"))
        case ["assets", name] if verb != "remove":
            said.copies.add_asset(name, value)
        case ["assets", name, "alternate"] if verb != "remove":
            said.copies.add_alternates(name, value, {})
        case ["assets", name, "alternate", node]:
            if verb == "remove":
                said.copies.remove_alternate(node)
            else:
                said.copies.add_alternate(name, node, value, {})
        case _:
            pass


def _copies(dataset: DatasetId, copies: Copies, *, is_patch: bool = False) -> list[Sighting]:
    originals = sorted(copies.originals.items(), key=lambda one: (-len(one[1]), one[0]))
    found = []
    for place, (node, files) in enumerate(originals):
        # Most files decide which is the original; a patch that adds some files publishes nothing.
        operation = Operation.ADD_FILES if is_patch else Operation.PUBLISH
        is_replica = None if place or is_patch else False
        found.append(_sighting(operation, dataset, node, is_replica=is_replica, files=files))
    for node, files in sorted(copies.replicas.items()):
        if node not in copies.originals:
            found.append(_sighting(Operation.PUBLISH, dataset, node, is_replica=True, files=files))
    found += [
        _sighting(Operation.DELETE, dataset, node, is_replica=True)
        for node in sorted(copies.removed - set(copies.originals))
    ]
    return found


def _sighting(
    operation: Operation,
    dataset: DatasetId,
    node: str,
    *,
    is_replica: bool | None,
    files: Mapping[str, SeenFile] | None = None,
) -> Sighting:
    return Sighting(operation, dataset, node, is_replica, 0, "", tuple((files or {}).values()))


def _dataset(value: Any) -> tuple[DatasetId, str]:
    """Return the version an item's id names, and the data node where it names one."""
    if type(value) is not str:
        raise StacError(f"the id of the item is {kind(value)}, not a text")
    try:
        return parse_record(value) if "|" in value else (parse_dataset(value), "")
    except IdentityError:
        raise StacError(f"the id of the item, {shown(value)}, names no version of a dataset") from None


def _flag(value: Any, name: str) -> bool:
    if type(value) is bool or value is None:
        return bool(value)
    word = value.strip().lower() if type(value) is str else ""
    if word in _YES:
        return True
    if type(value) is str and word in _NO:
        return False
    # Guessed wrong, it would tell thousands of a retraction that is none.
    raise StacError(f"{name} is neither true nor false")


def _event_id(value: Any) -> str:
    is_good = type(value) is str and len(value) <= EVENT_ID_CHARACTERS and value.isprintable()
    return value if is_good and "@" not in value else ""


def _time_ms(value: Any, now_ms: int) -> int:
    """Return when it happened: a time without a zone is its writer's own, which nobody tells; it is taken for UTC."""
    try:
        time = dt.datetime.fromisoformat(value)
        if time.tzinfo is None:
            time = time.replace(tzinfo=dt.UTC)
        time_ms = int(time.timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        return now_ms
    return time_ms if 0 <= time_ms <= min(now_ms, TIME_MS_MAX) else now_ms
