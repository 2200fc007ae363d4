"""
Sealed secrets as trust objects: key ``secret/<host>/<name>``, ordered by version; opened on their node alone.

What an envelope is sealing.py's, where the plaintext lies secret_store.py's. Source: docs/trust.md, "Secrets".
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from esgf_gossip.core.limits import TRUST_BODY_BYTES
from esgf_gossip.files import read_file
from esgf_gossip.trust import sealing
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import SEALED_FOLDER, TrustMaterial
from esgf_gossip.trust.object_kind import ObjectKind, Stand
from esgf_gossip.trust.secret_store import SecretStore

PREFIX: Final = "secret/"
SEALED_SUFFIX: Final = ".sealed"

# What is dated ahead is offered too: when its time has come is for who judges it.
_FAR_MS: Final = 2**52


def judge(key: str, body: bytes, held: bytes | None, material: TrustMaterial, now_ms: int) -> Stand:
    """
    Judge an envelope: who signed it, that it may, for whom, and that its version rises.

    Raises:
        TrustError: as ``sealing.read``; E-SEAL-OLD.
    """
    federation = material.names.federation
    sealed = sealing.read(body, material, now_ms)
    if key != f"{PREFIX}{sealed.host}/{sealed.name}":
        raise TrustError("E-SEAL", f"a secret {sealed.name} of {sealed.host} is not for {key}")
    if held is not None:
        # Not judged again: its signer may have been revoked since, and must not stand in the way.
        before = sealing.parse(held, federation).version
        if sealed.version < before:
            raise TrustError("E-SEAL-OLD", f"version {sealed.version}, already at {before}")
    return Stand(sealed.version, sealed.sealed_at_s)


def apply(directory: Path, key: str, body: bytes, material: TrustMaterial, now_ms: int) -> bool:
    """
    Open a secret of this node and keep it; trust itself is never changed by it.

    Raises:
        TrustError: as ``sealing.read``, ``sealing.open_sealed``, ``SecretStore.keep``.
    """
    host = material.names.host
    sealed = sealing.read(body, material, now_ms)
    _drop_older(directory, sealed)
    if not key.startswith(f"{PREFIX}{host}/"):
        return False
    store = SecretStore(directory)
    if sealed.version > store.version(sealed.name):
        plaintext = sealing.open_sealed(sealed, directory, host, now_ms)
        store.keep(sealed.name, sealed.version, plaintext, sealed.key_id)
    return False


def handed_over(directory: Path, sealed: sealing.SealedSecret) -> Path:
    """Return where a node keeps an envelope that was handed to it; neither kind of name has an at sign."""
    return directory / SEALED_FOLDER / f"{sealed.name}@{sealed.host}{SEALED_SUFFIX}"


def _drop_older(directory: Path, sealed: sealing.SealedSecret) -> None:
    path = handed_over(directory, sealed)
    try:
        if sealing.parse(read_file(path, TRUST_BODY_BYTES), sealed.federation).version < sealed.version:
            path.unlink()
    except (OSError, TrustError):
        pass  # none was handed over here, or it is for an administrator to look at


def offered(directory: Path, material: TrustMaterial) -> list[tuple[str, bytes]]:
    """Return the envelopes that were handed to this node, whomever they are for; what is none is left out."""
    found = []
    for path in sorted((directory / SEALED_FOLDER).glob("*" + SEALED_SUFFIX)):
        try:
            body = read_file(path, TRUST_BODY_BYTES)
            sealed = sealing.read(body, material, _FAR_MS)
        except (TrustError, OSError, ValueError):
            continue  # import wrote none such
        found.append((f"{PREFIX}{sealed.host}/{sealed.name}", body))
    return found


KIND: Final = ObjectKind(PREFIX, judge, apply, offered)
