"""Trust bundles for tests: a history with keys at hand, and the next version spoiled in any way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509

from esgf_gossip.trust import bundle, bundle_rules, issue, keys
from esgf_gossip.trust.bundle import AdminKey, Bundle, BundleIssuer, IssuerPolicy
from esgf_gossip.trust.issue import CertificateAuthority
from helpers.trust import TestFederation

FAR_MS = 4_000_000_000_000


@attrs.frozen
class Generation:
    """A root with its key, its issuing CA, and a CRL of each."""

    root: CertificateAuthority
    issuing: CertificateAuthority
    crls: tuple[x509.CertificateRevocationList, ...]


def a_generation(federation: TestFederation, number: int) -> Generation:
    """Make a root and an issuing CA of their own."""
    now_ms, name = federation.now_ms, federation.name
    root_key, issuing_key = keys.new_key(), keys.new_key()
    root = CertificateAuthority(issue.root(name, root_key, now_ms, 3650, number), root_key)
    certificate = issue.issuing_ca(name, issuing_key, root, now_ms, 730, number)
    issuing = CertificateAuthority(certificate, issuing_key)
    crls = tuple(issue.crl(one, 1, {}, now_ms, 14) for one in (root, issuing))
    return Generation(root, issuing, crls)


def admin_keys(federation: TestFederation) -> list[AdminKey]:
    """Read the administrators' keys of a federation."""
    return [keys.read_key(path) for path in sorted(federation.authority.private.glob("admin-*.key"))]


def next_bundle(held: Bundle, signers: Sequence[AdminKey] = (), **changes: Any) -> Bundle:
    """Make a bundle like the one held but for some fields, of the next version unless said otherwise, signed by these."""
    fields: dict[str, Any] = {
        name: getattr(held, name)
        for name in (
            "federation",
            "version",
            "roots",
            "issuers",
            "crls",
            "admin_keys",
            "threshold",
            "not_after_ms",
        )
    }
    made = bundle.make(**{**fields, "version": held.version + 1, **changes})
    for key in signers:
        made = made.with_signature(key)
    return made


def bounded(held: Bundle, policy: IssuerPolicy) -> tuple[BundleIssuer, ...]:
    """Return the issuing CAs of a bundle with other bounds."""
    return tuple(attrs.evolve(one, policy=policy) for one in held.issuers)


def put(federation: TestFederation, made: Bundle) -> None:
    """Put a bundle in force at the administration, unchecked."""
    folder = federation.authority.directory / "bundle"
    (folder / f"{made.version:06}.bundle").write_bytes(made.body)


def history(federation: TestFederation, length: int) -> tuple[Bundle, ...]:
    """Return that many good versions."""
    found = [*federation.authority.bundles()]
    signers = admin_keys(federation)
    while len(found) < length:
        made = next_bundle(found[-1], signers, not_after_ms=FAR_MS + len(found))
        found.append(bundle_rules.minimal(made, found[-1]))
    return tuple(found)


def write(directory: Path, *bundles: Bundle) -> None:
    """Put bundles into a trust directory by hand."""
    (directory / "bundle").mkdir(exist_ok=True)
    for one in bundles:
        (directory / "bundle" / f"{one.version:06}.bundle").write_bytes(one.body)
