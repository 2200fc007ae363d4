"""
What happened as the JSON that pages and commands read: one object a change, with a sentence that says it.

Pure: who reads the file gives kind, detail and digests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from esgf_gossip.core.model import Digest
from esgf_gossip.core.reachability import REACHABILITY
from esgf_gossip.core.registry import changed_entries
from esgf_gossip.views.differences import DIFFERENCES_MOST, Difference, differences, flat_digest
from esgf_gossip.views.node_json import utc_text

# What a change can be: a digest that was accepted, a verdict, the health of a service, a line that ended, a proof.
DIGEST: Final = "digest"
STATUS: Final = "status"
HEALTH: Final = "health"
WITHDRAWN: Final = "withdrawn"
FORK: Final = "fork"
KINDS: Final = (DIGEST, STATUS, HEALTH, WITHDRAWN, FORK)

# What a node says all day long.
_ROUTINE: Final = {"metrics", "resources"}
_IS_BACK: Final = "is back"
_STARTED_ANEW: Final = "started anew"
_SIGNED_ANEW: Final = "signed anew, nothing else changed"
# The sentence names so many of the names that changed.
NAMED_MOST: Final = 3

Said = tuple[Digest, Mapping[bytes, bytes]]


def change_body(
    number: int,
    at_ms: int,
    host: str,
    kind: str,
    detail: Mapping[str, Any],
    after: Said | None = None,
    before: Said | None = None,
) -> dict[str, Any]:
    """
    Return one change.

    Args:
        number: its id; rising.
        at_ms: when this node took it in.
        host: whom it is about.
        kind: one of ``KINDS``.
        detail: what was kept of it.
        after: the digest that came, with the bodies of its entries.
        before: the one before it; None for the first.
    """
    body = {"id": number, "at": utc_text(at_ms), "host": host, "kind": kind}
    if after is None:
        return {**body, "summary": _summary(kind, detail), "changes": []}
    found = _digest_differences(before, after)
    return {
        **body,
        "epoch": after[0].epoch,
        "sequence": after[0].sequence,
        "issued_at": utc_text(after[0].issued_at_ms),
        "summary": _digest_summary(before, after, found),
        "changes": [one.as_json() for one in found],
    }


def is_routine(change: Mapping[str, Any]) -> bool:
    """Tell whether a change is one that comes and goes all day: figures, loads, reports, a later date."""
    if change["kind"] != DIGEST:
        return False
    entries = {one["name"].partition(".")[0] for one in change["changes"]}
    if not entries:
        return bool(change["summary"] == _SIGNED_ANEW)
    return entries <= _ROUTINE and not change["summary"].startswith((_STARTED_ANEW, _IS_BACK))


def _digest_differences(before: Said | None, after: Said) -> list[Difference]:
    if before is None:
        return []
    old, new = before[0].entries, after[0].entries
    entries = changed_entries(old, new)
    found = differences(flat_digest(*before, entries), flat_digest(*after, entries))
    # What is told of an entry is cut; where that part is the same, the hash says that the entry is not.
    told = {one.name.partition(".")[0] for one in found}
    hashes = [
        Difference(name, *(side[name].sha256.hex() if name in side else None for side in (old, new)))
        for name in sorted(entries - told)
    ]
    return [*found, *hashes[: DIFFERENCES_MOST - len(found)]]


def _digest_summary(before: Said | None, after: Said, found: Sequence[Difference]) -> str:
    if after[0].leaving:
        return "has left the federation"
    if before is None:
        return "is known from now on"
    words = []
    if before[0].leaving:
        words.append(_IS_BACK)
    elif before[0].epoch != after[0].epoch:
        words.append(_STARTED_ANEW)
    by_entry: dict[str, list[str]] = {}
    for one in found:
        entry, _, rest = one.name.partition(".")
        by_entry.setdefault(entry, []).append(rest)
    words += _report_words(found, by_entry.pop(REACHABILITY, []))
    for entry, names in by_entry.items():
        told = [name for name in names if name][:NAMED_MOST]
        more = len(names) - len(told) if told else 0
        text = ", ".join(told) + (f" and {more} more" if more else "")
        words.append(f"{entry}: {text}" if text else f"new {entry}")
    return "; ".join(words) or _SIGNED_ANEW


def _report_words(found: Sequence[Difference], names: Sequence[str]) -> list[str]:
    """Say which nodes it hears nothing of since this digest, and which it hears again."""
    said = {one.name.partition(".")[2]: one.after for one in found if one.name.startswith(REACHABILITY)}
    if not names or not all(name in said for name in names):
        return []
    hosts = [name for name in names if name and name != "abstains"]
    silent = [name for name in hosts if said[name] is not None]
    heard = [name for name in hosts if said[name] is None]
    words = [
        f"{verb} {', '.join(some[:NAMED_MOST])}"
        + (f" and {len(some) - NAMED_MOST} more" if len(some) > NAMED_MOST else "")
        for verb, some in (("hears nothing of", silent), ("does not report any more", heard))
        if some
    ]
    if "abstains" in names:
        words.append("can tell again who is up" if said["abstains"] is None else "cannot tell who is up")
    return words or ["says anew whom it hears"]


def _summary(kind: str, detail: Mapping[str, Any]) -> str:
    if kind == STATUS:
        return _became("", detail.get("status"), detail.get("before"))
    if kind == HEALTH:
        return _became(f"{detail.get('type')} ", detail.get("health"), detail.get("before"))
    if kind == WITHDRAWN:
        return f"is out: {detail.get('reason')}"
    return "signed what contradicts itself: a stolen key, or a lie"


def _became(subject: str, now: Any, before: Any) -> str:
    return f"{subject}is {now}" + (f", was {before}" if before else "")
