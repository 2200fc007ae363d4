"""
Whether the nodes of a federation are ready for the next step of a rotation, by what each says of its own trust.

The word of a node on itself is all there is, and enough: a node that lies about its bundle shuts out itself alone.
Source: docs/trust.md, "Rotating a root".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
from cryptography import x509

from esgf_gossip.trust.errors import TrustError


@attrs.frozen
class NodeTrust:
    """
    What one node says of its trust.

    ``bundle`` is 0 for none, or for a node that says nothing; ``issuer`` the name of the CA of its certificate.
    """

    host: str
    bundle: int
    issuer: str


def issuer_of(chain: Sequence[bytes]) -> str:
    """Name the CA that signed the leaf of a chain (DER, leaf first), as ``roots list`` does."""
    try:
        return x509.load_der_x509_certificate(chain[0]).issuer.rfc4514_string()
    except (ValueError, IndexError):
        return ""


def read_report(report: object) -> list[NodeTrust]:
    """
    Read what a daemon reports of all nodes; those that have left are not waited for.

    Raises:
        TrustError: E-TYPE: it is no such report.
    """
    nodes = report.get("nodes") if isinstance(report, Mapping) else None
    if not isinstance(nodes, list) or not nodes or not all(_is_node(one) for one in nodes):
        raise TrustError(
            "E-TYPE", "no report of nodes", remedy="give what roots status --json printed on a node"
        )
    return [NodeTrust(one["host"], one["bundle"], one["issuer"]) for one in nodes if not one.get("leaving")]


def lagging(nodes: Sequence[NodeTrust], version: int, over: Collection[str] = ()) -> dict[str, str]:
    """
    Return why each node that is not ready is not.

    Args:
        nodes: what the nodes say.
        version: the bundle that must be in force.
        over: names of CAs whose certificates must be in use no more.
    """
    found = {}
    for node in nodes:
        reasons = []
        if node.bundle < version:
            reasons.append(f"bundle {node.bundle or 'unknown'}, not {version}")
        if node.issuer in over:
            reasons.append(f"certificate of {node.issuer}")
        if reasons:
            found[node.host] = "; ".join(reasons)
    return found


def check_ready(
    nodes: Sequence[NodeTrust], version: int, accepted: Collection[str], over: Collection[str] = ()
) -> dict[str, str]:
    """
    Refuse a step while any node lags that nobody accepts; return those that were accepted.

    Raises:
        TrustError: E-LAG with every node and reason; E-NOTFOUND: an accepted node does not lag, or is none.
    """
    found = lagging(nodes, version, over)
    unknown = set(accepted) - {node.host for node in nodes}
    if unknown:
        raise TrustError("E-NOTFOUND", f"{min(unknown)} is not in the federation", remedy="see roots status")
    left = {host: reason for host, reason in found.items() if host not in accepted}
    if left:
        told = "; ".join(f"{host} ({reason})" for host, reason in sorted(left.items()))
        raise TrustError(
            "E-LAG",
            f"{len(left)} of {len(nodes)} nodes are not ready: {told}",
            remedy="wait, or go on without them: --accept-lag NODE",
        )
    return found


def _is_node(one: object) -> bool:
    wanted: dict[str, Any] = {"host": str, "bundle": int, "issuer": str}
    return isinstance(one, dict) and all(type(one.get(key)) is kind for key, kind in wanted.items())
