"""
The head of the administration's audit log as a trust object: how many lines, and the hash of the last.

Signed by an administrator of the bundle in force. A log that gets shorter, or has two last lines of one number, is
an alarm on every node: somebody signs in secret, or twice. Source: docs/trust.md, "The audit log".
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import TRUST_BODY_BYTES
from esgf_gossip.files import read_file
from esgf_gossip.trust.bundle import AdminKey, is_signed, key_id, public_bytes, sign
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import AUDIT_FOLDER, TrustMaterial
from esgf_gossip.trust.object_kind import ObjectKind, Stand

PREFIX: Final = "audit/"
HEAD_SUFFIX: Final = ".head"
AUDIT_CONTEXT: Final = b"esgf-gossip/audit/1\0"

_FORMAT: Final = 1
_SIGNATURE_BYTES: Final = 128


@attrs.frozen
class AuditHead:
    """What a head says: ``last`` is the SHA-256 of the last line, ``signer`` the id of the administrator's key."""

    federation: str
    count: int
    last: bytes
    signer: bytes
    signature: bytes = attrs.field(repr=False)
    payload: bytes = attrs.field(repr=False)


def make_head(federation: str, count: int, last: bytes, key: AdminKey) -> bytes:
    """Return the signed head of a log; the same log and key give the same bytes."""
    payload = packing.pack([_FORMAT, federation, count, last])
    return packing.pack([payload, key_id(public_bytes(key)), sign(key, payload, AUDIT_CONTEXT)])


def read_head(body: bytes) -> AuditHead:
    """
    Read a head; nothing of it is trusted yet.

    Raises:
        TrustError: E-AUDIT.
    """
    try:
        parts = packing.array(packing.unpack(body), 3, "the head of an audit log")
        payload, signer = packing.blob(parts[0], 1, 1024), packing.sha256(parts[1])
        signature = packing.blob(parts[2], 1, _SIGNATURE_BYTES)
        fields = packing.array(packing.unpack(payload), 4, "the head of an audit log")
        if (
            fields[0] != _FORMAT
            or packing.pack([payload, signer, signature]) != body
            or packing.pack(fields) != payload
        ):
            raise WireError("another format, or not in its shortest form")
        return AuditHead(
            packing.host(fields[1]),
            packing.number(fields[2]),
            packing.sha256(fields[3]),
            signer,
            signature,
            payload,
        )
    except WireError as error:
        raise TrustError("E-AUDIT", f"no head of an audit log: {error}") from None


def judge(key: str, body: bytes, held: bytes | None, material: TrustMaterial, now_ms: int) -> Stand:
    """
    Judge a head: an administrator's signature, and a log that only grows.

    Raises:
        TrustError: E-AUDIT; E-AUDIT-SHRINK: it says less than the one held.
    """
    del now_ms
    head = read_head(body)
    if head.federation != material.names.federation or key != PREFIX + head.federation:
        raise TrustError("E-AUDIT", f"the audit log of {head.federation} is not for {key}")
    admins = () if material.bundle is None else material.bundle.admin_keys
    signer = next((one for one in admins if key_id(one) == head.signer), None)
    if signer is None or not is_signed(signer, head.payload, head.signature, AUDIT_CONTEXT):
        raise TrustError(
            "E-AUDIT", "the head of the audit log is not signed by an administrator of the bundle in force"
        )
    if held is not None:
        before = read_head(held)
        if head.count < before.count:
            raise TrustError(
                "E-AUDIT-SHRINK",
                f"the audit log has {head.count} lines, it had {before.count}",
                remedy="a backup of the administration is in use, or somebody signs beside it: ask its administrators",
            )
    return Stand(head.count, 0)


def apply(directory: Path, key: str, body: bytes, material: TrustMaterial, now_ms: int) -> bool:
    """Change nothing: a head is only compared."""
    del directory, key, body, material, now_ms
    return False


def offered(directory: Path, material: TrustMaterial) -> list[tuple[str, bytes]]:
    """Return the heads that were handed to this node; what is none is left out."""
    del material
    found = []
    for path in sorted((directory / AUDIT_FOLDER).glob("*" + HEAD_SUFFIX)):
        try:
            body = read_file(path, TRUST_BODY_BYTES)
            found.append((PREFIX + read_head(body).federation, body))
        except (TrustError, OSError):
            continue  # import wrote none such
    return found


def _statement(body: bytes) -> bytes:
    return read_head(body).payload


KIND: Final = ObjectKind(PREFIX, judge, apply, offered, _statement)
