"""
What the page Trust shows: each node's certificate, CRLs and bundle beside the newest in the federation.

Pure: from the report on trust that commands read too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from esgf_gossip.views.node_json import stamp_ms, utc_text

DAY_MS: Final = 24 * 60 * 60 * 1000
SOON_DAYS: Final = 30


@attrs.frozen
class TrustRow:
    """
    One node's word on its trust; ``not_after_ms`` is None where it says nothing readable.

    ``is_behind_bundle`` and ``crls_behind``: how it stands to the newest that any node names.
    """

    host: str
    issuer: str
    not_after_ms: int | None
    bundle: int
    is_behind_bundle: bool
    crls: tuple[int, ...]
    crls_behind: int

    def days_left(self, now_ms: int) -> int | None:
        """Return whole days until the certificate ends, negative after."""
        return None if self.not_after_ms is None else (self.not_after_ms - now_ms) // DAY_MS

    def is_soon(self, now_ms: int) -> bool:
        """Tell whether the certificate ends within a month, or has."""
        days = self.days_left(now_ms)
        return days is not None and days < SOON_DAYS


def trust_rows(report: Mapping[str, Any]) -> list[TrustRow]:
    """
    Return one row a node that has not left, the first certificate to end first; who says nothing comes last.

    The newest is what this node holds, or what two others name: the word of one makes nobody else late.
    """
    said = [one for one in report["nodes"] if not one.get("leaving")]
    own = next((one for one in said if one["host"] == report.get("host")), {"bundle": 0, "crls": {}})
    newest_bundle = _newest(own["bundle"], (one["bundle"] for one in said))
    issuers = {issuer for one in said for issuer in one["crls"]}
    newest = {
        issuer: _newest(own["crls"].get(issuer, 0), (one["crls"].get(issuer, 0) for one in said))
        for issuer in issuers
    }
    found = [
        TrustRow(
            host=one["host"],
            issuer=one["issuer"],
            not_after_ms=None if one["not_after"] is None else stamp_ms(one["not_after"]),
            bundle=one["bundle"],
            is_behind_bundle=one["not_after"] is not None and one["bundle"] < newest_bundle,
            crls=tuple(number for _, number in sorted(one["crls"].items())),
            crls_behind=0
            if one["not_after"] is None
            else sum(one["crls"].get(issuer, 0) < number for issuer, number in newest.items()),
        )
        for one in said
    ]
    return sorted(found, key=lambda row: (row.not_after_ms is None, row.not_after_ms or 0, row.host))


def _newest(own: int, named: Iterable[int]) -> int:
    return max(own, *sorted((0, 0, *named))[-2:-1])


def certificate_body(row: TrustRow) -> dict[str, Any]:
    """Return one row as JSON."""
    return {
        "host": row.host,
        "not_after": None if row.not_after_ms is None else utc_text(row.not_after_ms),
        "issuer": row.issuer,
        "bundle": row.bundle,
        "is_behind_bundle": row.is_behind_bundle,
        "crls_behind": row.crls_behind,
    }
