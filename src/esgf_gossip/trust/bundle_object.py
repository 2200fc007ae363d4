"""
Trust bundles as trust objects: key ``roots/<version>``, body the bundle with its signatures, ordered by version.

All versions are kept and told on, so that a node that was away walks forward through them. What may follow what is
bundle_rules.py's, how one gets into a trust directory install.py's. Source: docs/adr/0012-trust-bundle.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from esgf_gossip.core.model import TrustObject
from esgf_gossip.trust import bundle_files, bundle_rules
from esgf_gossip.trust.bundle import Bundle, parse
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.install import import_bundles
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.object_kind import ObjectKind, Stand

PREFIX: Final = "roots/"


def object_key(version: int) -> str:
    """Name the object of a version."""
    return f"{PREFIX}{version:06}"


def judge(key: str, body: bytes, held: bytes | None, material: TrustMaterial, now_ms: int) -> Stand:
    """
    Judge a bundle by the history in force: rightly signed for its place, and no twin of one that others built on.

    Raises:
        TrustError: E-BUNDLE: a version before it is not here yet; E-BUNDLE-FORM, E-BUNDLE-SIG, E-BUNDLE-START, E-BUNDLE-FORK.
    """
    del now_ms  # a bundle past its end is walked through like any other; the newest is a finding
    bundle = parse(body, "the bundle")
    if key != object_key(bundle.version):
        raise TrustError("E-BUNDLE-FORM", f"version {bundle.version} is not for {key}")
    if bundle.federation != material.names.federation:
        raise TrustError("E-BUNDLE-FORM", f"it is of federation '{bundle.federation}'")
    if not material.bundles:
        bundle_rules.check_start(bundle, material.roots)
    elif all(one.payload != bundle.payload for one in material.bundles):
        bundle_rules.check_place(material.bundles, bundle)
    elif bundle not in material.bundles:
        raise TrustError("E-BUNDLE-FORM", f"version {bundle.version} is held with other signatures")
    if held is not None and _payload(held) != bundle.payload:
        newest = material.bundle
        if newest is not None and bundle.version < newest.version:
            raise bundle_rules.forked(bundle)
    return Stand(bundle.version, 0)


def apply(directory: Path, key: str, body: bytes, material: TrustMaterial, now_ms: int) -> bool:
    """Put a bundle into the trust directory; False where it held it, or where versions before it are not there yet."""
    del key, now_ms
    try:
        taken = import_bundles(
            directory, [parse(body, "the bundle")], federation=material.names.federation, takes_forks=True
        )
    except TrustError as error:
        if error.code in ("E-BUNDLE", "E-BUNDLE-START"):
            return False  # those before it come first, or it is of the time before this node began
        raise
    return bool(taken)


def offered(directory: Path, material: TrustMaterial) -> list[tuple[str, bytes]]:
    """Return all versions held."""
    del directory
    return [(object_key(one.version), one.body) for one in material.bundles]


def among(objects: Iterable[TrustObject]) -> list[Bundle]:
    """Return the bundles among trust objects that were judged."""
    return [parse(one.body, one.key) for one in objects if one.key.startswith(PREFIX)]


def on_disk(directory: Path) -> list[tuple[str, bytes]]:
    """
    Return (key, body) of the bundles a trust directory holds, in force or not.

    Raises:
        TrustError: as ``bundle_files.read_bundles``.
    """
    return [(object_key(one.version), one.body) for one in bundle_files.read_bundles(directory)]


def _payload(body: bytes) -> bytes:
    found: Bundle = parse(body, "the bundle held")
    return found.payload


KIND: Final = ObjectKind(PREFIX, judge, apply, offered, _payload)
