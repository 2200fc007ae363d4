"""
Why a node has its status: who watches it, what each says, and the signed words themselves.

From view, registry and verdicts to one JSON object; whoever doubts it checks the
digests with the certificates they name. Source: docs/protocol.md, "Watching".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.core.reachability import REACHABILITY
from esgf_gossip.core.registry import Registry
from esgf_gossip.core.standing import Standing
from esgf_gossip.core.verdicts import Tally, Vote
from esgf_gossip.views.federation import NodeStatus, NodeView
from esgf_gossip.views.node_json import utc_text
from esgf_gossip.views.planned import window_words

_WORDS = {
    NodeStatus.LEFT: "it has said itself that it leaves the federation",
    NodeStatus.STALE: "its digest has expired and no newer one has come",
    NodeStatus.STATIC: "it is no member: it stands in registration_static.xml of this node",
}


def explain(node: NodeView, registry: Registry, standing: Standing) -> dict[str, Any]:
    """Return the body of ``/api/v1/nodes/<host>/explain``."""
    tally = standing.tally(node.host)
    line = registry.table.line(node.host)
    return {
        "host": node.host,
        "status": node.status.value,
        "since": utc_text(node.since_ms),
        "reason": _reason(node, tally),
        "count": {"reports": len(tally.reports), "against": tally.against, "seats": tally.seats},
        "observers": [
            _observer(seat, name, _stands_in_for(seat, name, tally), vote, tally, registry)
            for seat, name, vote in tally.votes
        ],
        "digest": None if line is None else _digest(line),
    }


def _reason(node: NodeView, tally: Tally) -> str:
    if node.status is NodeStatus.MAINTENANCE and node.maintenance is not None:
        return f"it has announced maintenance {window_words(node.maintenance)}"
    if node.status in _WORDS:
        return _WORDS[node.status]
    reports, against = len(tally.reports), tally.against
    if node.status is NodeStatus.UP:
        if reports:
            return "it is heard again"
        if not tally.votes:
            return "nobody else is there to watch it"
        return "none of its observers reports it"
    all_told = reports + against
    count = f"{reports} of {all_told} observers hear{'s' if reports == 1 else ''} nothing of it"
    if all_told == 1:
        count = "its only observer hears nothing of it"
    if node.status is NodeStatus.SUSPECT:
        rule = "one alone is not enough" if reports > against else "more than half make a node unreachable"
        return f"{count}; {rule}"
    if not reports:
        return "it was unreachable several times of late, so its way back is delayed"
    return count


def _stands_in_for(seat: int, name: str, tally: Tally) -> str | None:
    """Return whose seat it is, None where that is the observer's own."""
    first = next(holder for number, holder, _ in tally.votes if number == seat)
    return None if first == name else first


def _observer(
    seat: int, name: str, stands_in_for: str | None, vote: Vote, tally: Tally, registry: Registry
) -> dict[str, Any]:
    report = tally.reports.get(name)
    line = registry.table.line(name)
    return {
        "seat": seat,
        "host": name,
        "stands_in_for": stands_in_for,
        "vote": vote.value,
        "report": None
        if report is None
        else {
            "epoch": report.epoch,
            "sequence": report.sequence,
            "since": utc_text(report.since_ms),
        },
        "evidence": None
        if line is None
        else {**_digest(line), "entry": _text(registry.entry(name, REACHABILITY))},
    }


def by_observer(observers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one object an observer, however many seats it holds: as each row, ``stands_in_for`` all for whom it does."""
    found: dict[str, dict[str, Any]] = {}
    for one in observers:
        row = found.setdefault(str(one.get("host")), {**one, "stands_in_for": []})
        if one.get("stands_in_for"):
            row["stands_in_for"].append(one["stands_in_for"])
    return list(found.values())


def _digest(line: VerifiedDigest) -> dict[str, Any]:
    """Return the signed bytes of a digest, so that they can be checked without us."""
    return {
        "epoch": line.digest.epoch,
        "sequence": line.digest.sequence,
        "issued_at": utc_text(line.digest.issued_at_ms),
        "certificate_sha256": line.digest.certificate_sha256.hex(),
        "payload": _text(line.signed.payload),
        "signature": _text(line.signed.signature),
    }


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")
