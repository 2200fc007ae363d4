"""
A node's next certificate: asked for, delivered, and put into force together with the key it is for.

A new key waits as ``renewal.key`` beside the old one until its certificate is here. Chain first, then the key: a
crash between the two is mended by the next look (``finish``). Source: docs/adr/0013-renewal-by-reissue.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from esgf_gossip.files import replace_file
from esgf_gossip.trust import issue, keys, pem, profile
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked, public_folder
from esgf_gossip.trust.material import CHAIN_FILE, KEY_FILE, RENEWALS_FOLDER, TrustMaterial, read_chain
from esgf_gossip.trust.rekey import REKEY_SUFFIX, vouch
from esgf_gossip.trust.requests import RequestFile, read_request
from esgf_gossip.trust.revocation import milliseconds

RENEWAL_KEY_FILE: Final = "renewal.key"
RETIRED_FOLDER: Final = "retired"
RENEWALS_SUFFIX: Final = ".chain.pem"


def is_due(leaf: x509.Certificate, now_ms: int) -> bool:
    """Tell whether two thirds of a certificate's life are over."""
    start_ms, end_ms = (milliseconds(one) for one in (leaf.not_valid_before_utc, leaf.not_valid_after_utc))
    return 3 * (now_ms - start_ms) >= 2 * (end_ms - start_ms)


def request_renewal(directory: Path, material: TrustMaterial, now_ms: int, *, rekey: bool) -> RequestFile:
    """
    Write the request for the next certificate, names and groups as they are.

    Args:
        directory: the node's trust directory; gets ``<host>.csr.pem``, and ``renewal.key`` with ``rekey``.
        material: the trust in force.
        now_ms: now.
        rekey: for a new key; one that waits already is used again.

    Raises:
        TrustError: E-POLICY: the certificate has expired, so nobody need believe that it is the same node;
            E-GIT, E-FILE, or as ``keys.read_key``.
    """
    if now_ms > material.not_after_ms:
        raise TrustError(
            "E-POLICY",
            f"the certificate of {material.names.host} has expired: this is no renewal any more",
            str(directory / CHAIN_FILE),
            "ask anew: trust-admin cert request --same-key, and tell the fingerprint by voice",
        )
    key = material.key
    if rekey:
        path = directory / RENEWAL_KEY_FILE
        if path.exists():
            key = keys.read_key(path)
        else:
            key = keys.new_key()
            keys.write_key(path, key, None)
    content = pem.request_pem(issue.request(material.names, key))
    path = directory / f"{material.names.host}.csr.pem"
    _replace(path, content)
    request = read_request(content, str(path))
    if rekey:
        _replace(directory / f"{material.names.host}{REKEY_SUFFIX}", vouch(material, request.csr))
    return RequestFile(path, content, request.fingerprint)


def deliver(directory: Path, chain: Sequence[x509.Certificate], federation: str) -> Path:
    """
    Put the chain of any node of the federation where the daemon of this one finds it.

    Raises:
        TrustError: E-PROFILE, E-URI, E-NAME of the leaf; E-FILE.
    """
    host = profile.leaf_names(chain[0], federation).host
    folder = directory / RENEWALS_FOLDER
    path = folder / f"{host}{RENEWALS_SUFFIX}"
    try:
        public_folder(folder)
    except OSError as error:
        raise TrustError("E-FILE", f"{folder} cannot be written: {error.strerror}") from None
    _replace(path, b"".join(map(pem.certificate_pem, chain)))
    return path


def take_certificate(
    directory: Path, chain: Sequence[x509.Certificate], material: TrustMaterial, now_ms: int
) -> bool:
    """
    Put a newer certificate of this node into force, for its key or for the one that waits; tell whether it was.

    Raises:
        TrustError: as ``TrustMaterial.assemble``; E-FILE: what was in force still is.
    """
    leaf = chain[0]
    if leaf.not_valid_before_utc <= material.leaf.not_valid_before_utc:
        return False
    waiting = directory / RENEWAL_KEY_FILE
    key = material.key
    if not _fits(leaf, key):
        if not waiting.exists() or not _fits(leaf, keys.read_key(waiting)):
            raise TrustError(
                "E-KEYPAIR",
                f"a certificate of {material.names.host} is for a key that is not here",
                remedy="somebody else asked for it in this node's name? ask the trust administrator at once",
            )
        key = keys.read_key(waiting)
    made = TrustMaterial.assemble(
        key,
        chain,
        material.roots,
        material.crls,
        host=material.names.host,
        federation=material.names.federation,
        now_ms=now_ms,
        may_be_late=True,
        bundles=material.bundles,
    )
    with locked(directory):
        _replace(directory / CHAIN_FILE, b"".join(map(pem.certificate_pem, (made.leaf, *made.issuers))))
        finish(directory, retired=material.leaf)
    return True


def finish(directory: Path, retired: x509.Certificate | None = None) -> bool:
    """
    Move the waiting key into its place where the chain is for it already; tell whether it was.

    The old one goes to ``retired/<serial>.key``, or ``retired/replaced.key`` where its serial is not known.

    Raises:
        TrustError: E-FILE; the waiting key is still there.
    """
    waiting, key_path = directory / RENEWAL_KEY_FILE, directory / KEY_FILE
    if not waiting.exists() or not (directory / CHAIN_FILE).exists():
        return False
    leaf = read_chain(directory / CHAIN_FILE)[0]
    if not _fits(leaf, keys.read_key(waiting)):
        return False
    folder = directory / RETIRED_FOLDER
    name = "replaced" if retired is None else f"{retired.serial_number:x}"
    try:
        keys.private_folder(folder)
        old = folder / f"{name}.key"
        if key_path.exists() and not old.exists():
            os.link(key_path, old)
        waiting.replace(key_path)
        for path in directory.glob("*" + REKEY_SUFFIX):
            path.unlink()
    except OSError as error:
        raise TrustError(
            "E-FILE", f"{error.filename or folder} cannot be written: {error.strerror}"
        ) from None
    return True


def _fits(leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    public = (
        one.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for one in (leaf.public_key(), key.public_key())
    )
    ours, theirs = public
    return ours == theirs


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be written: {error.strerror}") from None
