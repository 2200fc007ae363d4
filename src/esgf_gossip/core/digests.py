"""
Digests to bytes and back; heads from bytes.

The bytes of a digest are what was signed; only its origin ever encodes them. Any
bytes give a digest or a WireError. Source: docs/protocol.md, "The digest".
"""

from __future__ import annotations

from typing import Final

from esgf_gossip.core import limits, packing
from esgf_gossip.core.errors import UnknownFormatError, WireError
from esgf_gossip.core.model import SERIAL_BYTES, CertificateRank, Digest, EntryRef, Head, LogRef, Order

DIGEST_FORMAT: Final = 1


def read_head(value: object) -> Head:
    """Read a head as it stands in messages and under the root; raises WireError."""
    origin, not_before_s, serial, epoch, sequence, payload_sha256 = packing.array(value, 6, "head")[:6]
    rank = CertificateRank(packing.number(not_before_s), packing.blob(serial, SERIAL_BYTES, SERIAL_BYTES))
    return Head(
        packing.host(origin),
        Order(rank, packing.number(epoch), packing.number(sequence)),
        packing.sha256(payload_sha256),
    )


def read_head_or_none(value: object) -> Head | None:
    """Read a head, or nil for none."""
    return None if value is None else read_head(value)


def decode_digest(payload: bytes) -> Digest:
    """
    Read the bytes of a digest; they stay the truth, this is a reading of them.

    Raises:
        WireError: malformed or out of bounds.
    """
    if len(payload) > limits.DIGEST_BYTES:
        raise WireError(f"a digest of {len(payload)} bytes is above {limits.DIGEST_BYTES}")
    f = packing.array(packing.unpack(payload), 12, "digest")
    if packing.number(f[0], 255) != DIGEST_FORMAT:
        raise UnknownFormatError(f"digest format {f[0]} is not known here")
    contact = packing.array(f[8], 2, "contact")
    entries = {
        packing.text(name, packing.NAME, "an entry name"): _entry(ref)
        for name, ref in packing.mapping(f[9], limits.DIGEST_ENTRIES, "entries").items()
    }
    if sum(ref.size_bytes for ref in entries.values()) > limits.ENTRIES_TOTAL_BYTES:
        raise WireError(f"the entries together are above {limits.ENTRIES_TOTAL_BYTES} bytes")
    logs = {
        packing.text(name, packing.NAME, "a log name"): _log(ref)
        for name, ref in packing.mapping(f[10], limits.DIGEST_LOGS, "logs").items()
    }
    return Digest(
        federation=packing.host(f[1]),
        origin=packing.host(f[2]),
        certificate_sha256=packing.sha256(f[3]),
        epoch=packing.number(f[4]),
        sequence=packing.number(f[5]),
        issued_at_ms=packing.time_ms(f[6]),
        expires_at_ms=packing.time_ms(f[7]),
        contact=(
            packing.text(contact[0], packing.CONTACT, "a host name or IP address"),
            packing.number(contact[1], 65535),
        ),
        entries=entries,
        logs=logs,
        leaving=bool(packing.number(f[11]) & 1),
    )


def _entry(value: object) -> EntryRef:
    sha256, size_bytes, changed, changed_at_ms = packing.array(value, 4, "entry")[:4]
    epoch, sequence = packing.array(changed, 2, "changed at")[:2]
    return EntryRef(
        packing.sha256(sha256),
        packing.number(size_bytes, limits.ENTRY_BYTES),
        (packing.number(epoch), packing.number(sequence)),
        packing.time_ms(changed_at_ms),
    )


def _log(value: object) -> LogRef:
    born, size, root, first_retained = packing.array(value, 4, "log")[:4]
    return LogRef(
        packing.number(born), packing.number(size), packing.sha256(root), packing.number(first_retained)
    )


def encode_digest(digest: Digest) -> bytes:
    """Return the bytes to sign. Only an origin calls this, and only for itself."""
    return packing.pack(
        [
            DIGEST_FORMAT,
            digest.federation,
            digest.origin,
            digest.certificate_sha256,
            digest.epoch,
            digest.sequence,
            digest.issued_at_ms,
            digest.expires_at_ms,
            list(digest.contact),
            {
                name: [ref.sha256, ref.size_bytes, list(ref.changed_at), ref.changed_at_ms]
                for name, ref in sorted(digest.entries.items())
            },
            {
                name: [ref.born, ref.size, ref.root, ref.first_retained]
                for name, ref in sorted(digest.logs.items())
            },
            int(digest.leaving),
        ]
    )
