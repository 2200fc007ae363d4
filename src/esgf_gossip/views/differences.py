"""
What differs between two digests of one node, or between two views: names, before, after.

Pure. Whatever is said is first made flat, a name with dots for each value; what is not on both sides alike differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import attrs

from esgf_gossip.core.errors import WireError
from esgf_gossip.core.model import Digest
from esgf_gossip.core.reachability import REACHABILITY, decode_reachability
from esgf_gossip.esgf.bodies import BodyError, unpacked
from esgf_gossip.esgf.registration import Registration, RegistrationError
from esgf_gossip.views.federation import FederationView, NodeView
from esgf_gossip.views.judgement import REGISTRATION
from esgf_gossip.views.node_json import node_body, utc_text

# A stranger may change 512 KiB at once; nobody reads more than the beginning.
DIFFERENCES_MOST: Final = 200
TEXT_CHARACTERS: Final = 500
DEPTH_MOST: Final = 6
# Of one entry: names, and the characters of one of them.
NAMES_MOST: Final = 500
NAME_CHARACTERS: Final = 200

Flat = Mapping[str, Any]
# Every digest has these anew, or the name of the change says it already.
_ALWAYS: Final = frozenset({"epoch", "sequence", "issued_at", "expires_at", "since"})


@attrs.frozen
class Difference:
    """One value that differs; ``before`` or ``after`` is None where there was none, or is none any more."""

    name: str
    before: Any
    after: Any

    def as_json(self) -> dict[str, Any]:
        """Return it as an object."""
        return {"name": self.name, "before": self.before, "after": self.after}


def differences(before: Flat, after: Flat) -> list[Difference]:
    """Return what differs, sorted by name, at most ``DIFFERENCES_MOST``."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [Difference(name, before.get(name), after.get(name)) for name in names[:DIFFERENCES_MOST]]


def flat_digest(digest: Digest, bodies: Mapping[bytes, bytes], only: frozenset[str]) -> Flat:
    """
    Return what a digest says, by name.

    Args:
        digest: of which each entry becomes the names that begin with its own.
        bodies: by SHA-256; an entry whose body is not there is told by its hash.
        only: the entries to read.
    """
    host, port = digest.contact
    found: dict[str, Any] = {
        "contact": f"{host}:{port}",
        "certificate": digest.certificate_sha256.hex(),
    }
    for name, ref in sorted(digest.entries.items()):
        if name not in only:
            continue
        body = bodies.get(ref.sha256)
        said = None if body is None else _READERS.get(name, _any_body)(body)
        found.update(islice(_flat(name, ref.sha256.hex() if said is None else said), NAMES_MOST))
    for name, log in sorted(digest.logs.items()):
        found[f"log.{name}"] = log.size
    return found


def view_differences(before: FederationView, after: FederationView) -> list[dict[str, Any]]:
    """Return one object for each node that is not the same in two views: what it was and is, and what differs."""
    old = {node.host: node for node in before.members}
    new = {node.host: node for node in after.members}
    rows = []
    for host in sorted(old.keys() | new.keys()):
        one, other = old.get(host), new.get(host)
        found = [] if one is None or other is None else differences(_flat_node(one), _flat_node(other))
        if one is None or other is None or found:
            rows.append(
                {
                    "host": host,
                    "before": None if one is None else one.status.value,
                    "after": None if other is None else other.status.value,
                    "changes": [difference.as_json() for difference in found if difference.name != "status"],
                }
            )
    return rows


def _flat_node(node: NodeView) -> Flat:
    body = {name: value for name, value in node_body(node).items() if name not in _ALWAYS}
    body["services"] = {
        service["type"]: {name: service[name] for name in ("endpoint", "health")}
        for service in body["services"]
    }
    properties = {} if node.registration is None else dict(node.registration.properties)
    return dict([*islice(_flat("", body), NAMES_MOST), *islice(_flat("property", properties), NAMES_MOST)])


def _flat(name: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """
    Make a value flat; what is deeper than ``DEPTH_MOST`` is told by its size alone.

    Lazy: whoever takes no more than ``NAMES_MOST`` is safe from what a stranger nests and repeats.
    """
    if isinstance(value, Mapping) and value and depth < DEPTH_MOST:
        for key, inner in value.items():
            longer = f"{name}.{_text(key)}".lstrip(".")
            yield from _flat(longer[:NAME_CHARACTERS], inner, depth + 1)
    elif isinstance(value, list | tuple) and all(isinstance(one, str | int | float) for one in value):
        yield name, _short(", ".join(str(one) for one in value[:TEXT_CHARACTERS]))
    else:
        yield name, _short(value)


def _short(value: Any) -> Any:
    """Return a value as JSON can say it, cut where it is long."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float():
            return value
        case _:
            text = _text(value)
            return text if len(text) <= TEXT_CHARACTERS else f"{text[:TEXT_CHARACTERS]}..."


def _text(value: Any) -> str:
    """Say a value in a text that is never much longer than ``TEXT_CHARACTERS``; a container is not looked into."""
    match value:
        case str():
            return value[: TEXT_CHARACTERS + 1]
        case bytes():
            return value[: TEXT_CHARACTERS // 2 + 1].hex()
        case Mapping():
            return f"map of {len(value)}"
        case list() | tuple():
            return f"list of {len(value)}"
        case _:
            return str(value)


def _registration(body: bytes) -> Any:
    try:
        said = Registration.from_body(body)
    except RegistrationError:
        return None
    return {
        **said.properties,
        "node_type": ", ".join(said.node_types) or "none",
        "groups": {group.name: group.description for group in said.groups},
        "host_certificate": bool(said.certificate),
        "withheld": sorted(said.withheld),
    }


def _reachability(body: bytes) -> Any:
    try:
        said = decode_reachability(body)
    except WireError:
        return None
    silent = {host: f"silent since {utc_text(report.since_ms)}" for host, report in said.reports.items()}
    return {**silent, **({"abstains": True} if said.abstains else {})}


def _any_body(body: bytes) -> Any:
    try:
        said = unpacked(body, "entry")
    except BodyError:
        return None
    # Of an entry of our own the outermost map has one key, the name of the entry.
    return next(iter(said.values())) if isinstance(said, dict) and len(said) == 1 else said


_READERS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    REGISTRATION: _registration,
    REACHABILITY: _reachability,
}
