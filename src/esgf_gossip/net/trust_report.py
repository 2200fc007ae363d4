"""
What a daemon tells a command of trust-admin of the federation's trust: each node's statement, and its own troubles.

Numbers and public keys only; nothing of a secret. Source: docs/trust.md.
"""

from __future__ import annotations

import base64
from typing import Any

from esgf_gossip.core.errors import WireError
from esgf_gossip.core.registry import Registry
from esgf_gossip.trust import rekey
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.readiness import issuer_of
from esgf_gossip.trust.seal_key import with_chain
from esgf_gossip.trust.statement import ENTRY, read_statement
from esgf_gossip.views.node_json import utc_text


def nodes_report(registry: Registry) -> list[dict[str, Any]]:
    """Return what each node says of its trust, by host; one that says nothing readable has no ``not_after``."""
    found = []
    for origin in sorted(line.digest.origin for line in registry.table):
        line, body = registry.table.line(origin), registry.entry(origin, ENTRY)
        told: dict[str, Any] = {
            "host": origin,
            "issuer": "",
            "leaving": False,
            "bundle": 0,
            "crls": {},
            "not_after": None,
            "receipts": [],
            "seal": None,
            "request": None,
        }
        if line is not None:
            told["issuer"] = issuer_of(line.chain)
            told["leaving"] = line.digest.leaving
        try:
            if line is not None and body is not None:
                said = read_statement(body)
                told |= {
                    "bundle": said.bundle,
                    "crls": dict(said.crls),
                    "not_after": utc_text(said.not_after_ms),
                    "receipts": [{"name": name, "version": version} for name, version in said.receipts],
                }
                if said.seal:
                    told["seal"] = base64.b64encode(with_chain(said.seal, line.chain)).decode()
                if said.request:
                    told["request"] = base64.b64encode(rekey.with_chain(said.request, line.chain)).decode()
        except (WireError, TrustError):
            pass  # said by a newer version, or nonsense: shown as having said nothing
        found.append(told)
    return found
