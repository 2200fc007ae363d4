"""
What a node says of its own trust, in its entry ``trust``: bundle, lists, end of its certificate, seal key, receipts.

Signed with everything else it says, so nobody can say it for the node. Written and read here; what follows from it
is the view's. Source: docs/trust.md, docs/protocol.md.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.trust.rekey import REKEY_BYTES

ENTRY: Final = "trust"
LISTS_MOST: Final = 64
RECEIPTS_MOST: Final = 512
SEAL_BYTES: Final = 1024

_KEY_ID: Final = re.compile(r"([0-9a-f]{2}){1,32}")
_NAME: Final = re.compile(r"[a-z0-9._-]{1,64}")


@attrs.frozen
class TrustStatement:
    """
    One node's word on its trust.

    ``crls`` gives the CRL number by key id of the issuer (hex); ``bundle`` is 0 without one; ``seal`` the certified
    seal key without its chain (``seal_key``), unchecked, empty for none; ``receipts`` name and version of secrets opened; ``request`` one for a new
    key without its chain (``rekey``), unchecked, empty for none.
    """

    bundle: int = 0
    crls: tuple[tuple[str, int], ...] = ()
    not_after_ms: int = 0
    seal: bytes = attrs.field(default=b"", repr=False)
    receipts: tuple[tuple[str, int], ...] = ()
    request: bytes = attrs.field(default=b"", repr=False)

    def to_body(self) -> bytes:
        """Return the body of the entry: a map, so that later versions may say more."""
        said = {
            "bundle": self.bundle,
            "crls": dict(self.crls),
            "not_after_ms": self.not_after_ms,
            "receipts": [list(one) for one in self.receipts],
            "seal": self.seal,
        }
        if self.request:
            said["request"] = self.request
        return packing.pack(said)


def read_statement(body: bytes) -> TrustStatement:
    """
    Read the body of an entry; keys of later versions are left out.

    Raises:
        WireError: it is none.
    """
    fields = packing.mapping(packing.unpack(body), 64, "a statement of trust")
    crls = packing.mapping(fields.get("crls", {}), LISTS_MOST, "CRL numbers")
    return TrustStatement(
        bundle=packing.number(fields.get("bundle", 0)),
        crls=tuple(
            sorted(
                (packing.text(key, _KEY_ID, "a key id"), packing.number(number))
                for key, number in crls.items()
            )
        ),
        not_after_ms=packing.number(fields.get("not_after_ms", 0)),
        seal=packing.blob(fields.get("seal", b""), 0, SEAL_BYTES),
        request=packing.blob(fields.get("request", b""), 0, REKEY_BYTES),
        receipts=packing.items(fields.get("receipts", []), _receipt, RECEIPTS_MOST, "receipts"),
    )


def _receipt(value: object) -> tuple[str, int]:
    name, version = packing.array(value, 2, "a receipt")[:2]
    return packing.text(name, _NAME, "the name of a secret"), packing.number(version)


__all__ = ["ENTRY", "TrustStatement", "WireError", "read_statement"]
