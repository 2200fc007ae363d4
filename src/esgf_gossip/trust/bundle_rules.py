"""
Which trust bundle is sound, which may follow which, and where a node may begin.

The rule of TUF: version N+1 only, signed by enough keys of N and enough of N+1; and one of ours: a root signs the
version that brings it in, so that who holds a root knows where to begin. Source: docs/adr/0012-trust-bundle.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import attrs
from cryptography import x509

from esgf_gossip.trust import profile, revocation
from esgf_gossip.trust.bundle import Bundle, spki
from esgf_gossip.trust.errors import TrustError


def check_sound(bundle: Bundle) -> None:
    """
    Check that the parts of a bundle fit together, whoever signed it.

    Every root signed itself, every issuing CA is signed by one of the roots, and each of them has exactly one CRL.

    Raises:
        TrustError: E-BUNDLE-FORM.
    """
    try:
        _check_parts(bundle)
    except TrustError as error:
        raise TrustError(
            "E-BUNDLE-FORM", f"version {bundle.version}: {error.text}", remedy="ask the trust administrator"
        ) from None
    except Exception as error:
        # Fail closed: certificates are read piece by piece, and each piece may raise something else.
        raise TrustError("E-BUNDLE-FORM", f"it cannot be judged: {type(error).__name__}") from error


def _check_parts(bundle: Bundle) -> None:
    for root in bundle.roots:
        profile.check_root(root)
    for issuer in bundle.issuing_certificates:
        profile.check_issuer(issuer)
        if not any(_is_issued_by(issuer, root) for root in bundle.roots):
            raise TrustError("E-PROFILE", f"{issuer.subject.rfc4514_string()} is signed by no root of it")
    known = (*bundle.roots, *bundle.issuing_certificates)
    if len({one.subject.public_bytes() for one in known}) != len(known):
        raise TrustError("E-PROFILE", "two CAs of one name")
    for crl in bundle.crls:
        # Its date cannot be judged here: all versions are walked through, however old, whatever the clock.
        revocation.check_signed(crl, known, "its CRL", revocation.milliseconds(crl.last_update_utc))
    listed = sorted(crl.issuer.public_bytes() for crl in bundle.crls)
    if listed != sorted(one.subject.public_bytes() for one in known):
        raise TrustError("E-CRL-MISSING", "not exactly one CRL of each root and issuing CA")


def check_start(bundle: Bundle, roots: Iterable[x509.Certificate]) -> None:
    """
    Check that a node that holds roots and no bundle may begin with this one, of whatever version.

    Some root of it that the node holds signed it, and enough of its own administrators' keys.

    Raises:
        TrustError: E-BUNDLE-FORM, E-BUNDLE-SIG; E-BUNDLE-START: of no root held here.
    """
    check_sound(bundle)
    held = [root for root in roots if root in bundle.roots]
    if not bundle.signed_by(map(spki, held)):
        raise TrustError(
            "E-BUNDLE-START",
            f"version {bundle.version} is not signed by a root that is trusted here",
            remedy="install the bundle file of cert approve, with the root's fingerprint as you were told it",
        )
    _check_enough(bundle, bundle)
    if bundle.version == 1:
        if len(bundle.signed_by(map(spki, bundle.roots))) < len(bundle.roots):
            raise TrustError("E-BUNDLE-SIG", "version 1: a root has not signed it")
        _check_minimal(bundle, None)


def check_next(held: Bundle, offered: Bundle) -> None:
    """
    Check that a bundle may follow the one held.

    Raises:
        TrustError: E-BUNDLE: not the next version; E-BUNDLE-SIG: too few signatures; E-BUNDLE-FORM.
    """
    if offered.federation != held.federation:
        raise TrustError(
            "E-BUNDLE-FORM", f"it is of federation '{offered.federation}', not '{held.federation}'"
        )
    if offered.version <= held.version:
        raise TrustError("E-BUNDLE", f"version {offered.version} is not after {held.version}")
    if offered.version != held.version + 1:
        raise TrustError(
            "E-BUNDLE",
            f"version {offered.version} after {held.version}; version {held.version + 1} is needed first",
            remedy="import the versions between; any node has them in its bundle/",
        )
    # Signatures of keys we know before anything is made of a stranger's certificates.
    _check_enough(offered, held)
    check_sound(offered)
    _check_enough(offered, offered)
    new = [root for root in offered.roots if root not in held.roots]
    if len(offered.signed_by(map(spki, new))) < len(new):
        raise TrustError("E-BUNDLE-SIG", f"version {offered.version}: a new root has not signed it")
    _check_minimal(offered, held)


def missing(offered: Bundle, held: Bundle | None) -> list[str]:
    """Say which signatures a bundle lacks before it may follow ``held``; empty: it is complete."""
    found = []
    for of, name in ((held, "the version before"), (offered, "this version")):
        if of is not None and len(offered.signed_by(of.admin_keys)) < of.threshold:
            found.append(
                f"{of.threshold} signatures of the keys of {name} needed, {len(offered.signed_by(of.admin_keys))} valid"
            )
    fresh = [root for root in offered.roots if held is None or root not in held.roots]
    found.extend(
        f"the signature of root {root.subject.rfc4514_string()}"
        for root in fresh
        if not offered.signed_by([spki(root)])
    )
    return found


def minimal(offered: Bundle, held: Bundle | None) -> Bundle:
    """Return a complete bundle without the signatures it does not need."""
    for one in offered.signatures:
        fewer = attrs.evolve(offered, signatures=tuple(kept for kept in offered.signatures if kept != one))
        if not missing(fewer, held):
            offered = fewer
    return offered


def walk(bundles: Sequence[Bundle]) -> tuple[Bundle, ...]:
    """
    Check that bundles are one unbroken history whose beginning was checked when it was taken; return it by version.

    Raises:
        TrustError: as ``check_next``; E-BUNDLE-SIG, E-BUNDLE-FORM of the first.
    """
    ordered = sorted(bundles, key=lambda one: one.version)
    if ordered:
        check_sound(ordered[0])
        _check_enough(ordered[0], ordered[0])
    for held, offered in itertools.pairwise(ordered):
        check_next(held, offered)
    return tuple(ordered)


def begin(bundles: Sequence[Bundle], roots: Sequence[x509.Certificate]) -> tuple[Bundle, ...]:
    """
    Return the part of a history that a node without a bundle takes, which holds these roots.

    Raises:
        TrustError: as ``check_start``, of the last; as ``check_next``.
    """
    ordered = sorted(bundles, key=lambda one: one.version)
    for place, first in enumerate(ordered):
        try:
            check_start(first, roots)
        except TrustError:
            if first is ordered[-1]:
                raise
        else:
            return walk(ordered[place:])
    return ()


def extend(
    held: Sequence[Bundle],
    offered: Iterable[Bundle],
    roots: Sequence[x509.Certificate],
    *,
    takes_forks: bool = False,
) -> tuple[Bundle, ...]:
    """
    Return a history with what else is offered of it, before or after; what is held already is nothing new.

    Args:
        held: the history held, or nothing.
        offered: of any order.
        roots: the roots trusted, where nothing is held.
        takes_forks: let a rightly signed twin of the newest replace it.

    Raises:
        TrustError: as ``begin``, ``check_next``; E-BUNDLE-FORK: two of one version.
    """
    offered = sorted(offered, key=lambda one: one.version)
    if not held:
        return begin(offered, roots)
    history = list(held)
    for one in reversed(offered):
        if one.version == history[0].version - 1:
            check_place(history, one)
            history.insert(0, one)
    for one in offered:
        twin = next((known for known in history if known.version == one.version), None)
        if twin is None and one.version > history[0].version:
            check_next(history[-1], one)
            history.append(one)
        elif twin is not None and twin.payload != one.payload:
            check_place(history, one)
            if not takes_forks or twin is not history[-1]:
                raise forked(one)
            history[-1] = one
    return tuple(history)


def check_place(history: Sequence[Bundle], offered: Bundle) -> None:
    """
    Check that a bundle is rightly signed for its place in a history, beside the one that may have it already.

    Raises:
        TrustError: as ``check_next``.
    """
    known = {one.version: one for one in history}
    first = history[0]
    if offered.version - 1 in known:
        check_next(known[offered.version - 1], offered)
    elif offered.version == first.version:
        check_start(offered, first.roots)
    elif offered.version == first.version - 1:
        # What came before proves itself by what follows it.
        check_next(offered, first)
        _check_enough(offered, offered)
    elif offered.version < first.version:
        raise TrustError(
            "E-BUNDLE", f"version {offered.version} before {first.version}; those between are needed first"
        )
    else:
        check_next(history[-1], offered)


def forked(bundle: Bundle) -> TrustError:
    """Make the error for two bundles of one version."""
    return TrustError(
        "E-BUNDLE-FORK",
        f"two different bundles of version {bundle.version} are signed",
        remedy="stolen administrators' keys, or two administrations: ask the trust administrators",
    )


def for_new_nodes(bundles: Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Return the end of a history from where who holds any one root in force may begin."""
    if not bundles:
        return ()
    starts = [
        min((one.version for one in bundles if one.signed_by([spki(root)])), default=bundles[0].version)
        for root in bundles[-1].roots
    ]
    return tuple(one for one in bundles if one.version >= min(starts))


def _check_enough(offered: Bundle, of: Bundle) -> None:
    valid = len(offered.signed_by(of.admin_keys))
    if valid < of.threshold:
        noun = "signature" if of.threshold == 1 else "signatures"
        raise TrustError(
            "E-BUNDLE-SIG",
            f"version {offered.version}: {of.threshold} {noun} of the keys of version {of.version} needed, {valid} valid",
            remedy="let more administrators sign it: trust-admin roots sign",
        )


def _check_minimal(offered: Bundle, held: Bundle | None) -> None:
    # Whoever passes one on could leave out a signature that is not needed: two forms of one bundle.
    if minimal(offered, held) != offered:
        raise TrustError("E-BUNDLE-FORM", f"version {offered.version} carries signatures that are not needed")


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - whatever a library raises: it is not
        return False
    return True
