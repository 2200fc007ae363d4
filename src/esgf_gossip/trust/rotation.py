"""
The steps of a rotation at the administration: the next trust bundle made, signed by those whose keys are at hand.

``prepare`` brings in a generation that nobody uses, ``activate`` issues from it, ``retire`` ends the one before;
``renew`` changes bounds, keys or term. Whether the nodes are ready for a step is readiness.py's.
Source: docs/trust.md, "Rotating a root".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509

from esgf_gossip.trust import bundle, bundle_files, bundle_rules, generations, issue, keys, pem, revocation
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.bundle import ADMIN_KEYS_MAX, Bundle, BundleIssuer, IssuerPolicy
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked, public_folder, write_public
from esgf_gossip.trust.issue import CertificateAuthority

# The end of a bundle is a finding, not a stop: two years, and a warning of a month.
BUNDLE_DAYS: Final = 730
DRAFT_SUFFIX: Final = ".draft"

_DAY_MS: Final = 24 * 3600 * 1000


@attrs.frozen
class Step:
    """
    What a step made.

    ``missing`` are the signatures that are still needed; while there are any, ``path`` is a draft and nothing is in force.
    """

    bundle: Bundle
    path: Path
    missing: tuple[str, ...]


def check_threshold(count: int, threshold: int) -> None:
    """
    Check a number of administrators' keys and how many of them must sign.

    Raises:
        TrustError: E-USAGE.
    """
    if not 0 <= count <= ADMIN_KEYS_MAX or (count and not 1 <= threshold <= count):
        raise TrustError(
            "E-USAGE",
            f"{threshold} of {count} administrators' keys",
            remedy=f"--threshold from 1 to --admin-keys, at most {ADMIN_KEYS_MAX}",
        )


def found(
    authority: Authority,
    root: CertificateAuthority,
    count: int,
    threshold: int,
    passphrase: bytes | None,
    now_ms: int,
) -> Step:
    """
    Make the administrators' keys and trust bundle 1, signed by enough of them and by the root; the caller logs it.

    Raises:
        TrustError: E-EXISTS: there is a bundle already, or such keys; E-USAGE, E-FILE.
    """
    check_threshold(count, threshold)
    if authority.bundles():
        raise TrustError("E-EXISTS", "this federation has a trust bundle already", remedy="see roots list")
    paths = [authority.private / f"admin-{number}.key" for number in range(1, count + 1)]
    for path in paths:
        keys.refuse_existing(path)
    made = [keys.new_key() for _ in paths]
    for path, key in zip(paths, made, strict=True):
        keys.write_key(path, key, passphrase)
    roots, issuers = authority.roots(), list(generations.issuers(authority.directory).values())
    first = bundle.make(
        authority.policy.federation,
        1,
        roots,
        [BundleIssuer(one, IssuerPolicy()) for one in issuers],
        _crls(authority, [*roots, *issuers]),
        map(bundle.public_bytes, made),
        threshold,
        now_ms + BUNDLE_DAYS * _DAY_MS,
    )
    for key in (root.key, *made[:threshold]):
        first = first.with_signature(key)
    with locked(authority.directory):
        return _keep(authority, first, None, now_ms)


def adopt(authority: Authority, count: int, threshold: int, passphrase: bytes | None, now_ms: int) -> Step:
    """
    Give a federation that was founded without a trust bundle its first.

    Raises:
        TrustError: as ``found`` and ``Authority.root``.
    """
    if not count:
        raise TrustError(
            "E-USAGE", "a trust bundle needs an administrator's key", remedy="--admin-keys 1 or more"
        )
    step = found(authority, authority.root(passphrase), count, threshold, passphrase, now_ms)
    with locked(authority.directory):
        authority.log.append(now_ms, "bundle", about(step.bundle))
    return step


def prepare(
    authority: Authority,
    passphrase: bytes | None,
    now_ms: int,
    *,
    root_days: int,
    issuer_days: int,
    issuer_only: bool = False,
) -> Step:
    """
    Make the next generation and a bundle that trusts it beside those in use: a root with its issuing CA, or the latter alone.

    Raises:
        TrustError: as ``_held`` and ``keys.write_key``; E-EXISTS: another step is waiting for signatures.
    """
    held = _held(authority)
    _refuse_draft(authority)
    directory, private = authority.directory, authority.private
    federation = authority.policy.federation
    # The cheap refusal before anything is made: a passphrase that does not fit.
    generations.admin_keys(private, passphrase)
    roots = list(held.roots)
    files: list[tuple[str, bytes]] = []
    with locked(directory):
        if issuer_only:
            parent = authority.root(passphrase)
        else:
            number = generations.next_number(directory, private, "root")
            key = keys.new_key()
            parent = CertificateAuthority(issue.root(federation, key, now_ms, root_days, number), key)
            keys.write_key(private / f"root-g{number}.key", key, passphrase)
            roots.append(parent.certificate)
            files += _files(f"root-g{number}", parent, now_ms, issue.ROOT_CRL_DAYS)
        number = generations.next_number(directory, private, "issuing")
        key = keys.new_key()
        issuing = CertificateAuthority(
            issue.issuing_ca(federation, key, parent, now_ms, issuer_days, number), key
        )
        keys.write_key(private / f"issuing-g{number}.key", key, passphrase)
        files += _files(f"issuing-g{number}", issuing, now_ms, issue.CRL_DAYS)
        generations.write_prepared(directory, files)
        bounds = held.policy_of(authority.issuing_certificate) or IssuerPolicy()
        fresh = [
            crl for name, content in files if ".crl." in name for crl in pem.revocation_lists(content, name)
        ]
        offered = _make(
            authority,
            held,
            now_ms,
            roots=roots,
            issuers=[*held.issuers, BundleIssuer(issuing.certificate, bounds)],
            fresh=fresh,
        )
        if not issuer_only:
            offered = offered.with_signature(parent.key)
        return _keep(authority, _signed(authority, offered, held, passphrase), held, now_ms)


def activate(authority: Authority, name: str, now_ms: int) -> None:
    """
    Issue from another issuing CA from now on.

    Raises:
        TrustError: E-NOTFOUND; E-BUNDLE-FORM: the bundle in force does not hold it.
    """
    with locked(authority.directory):
        certificate = generations.issuers(authority.directory).get(name)
        if certificate is not None and _held(authority).policy_of(certificate) is None:
            raise TrustError("E-BUNDLE-FORM", f"the trust bundle does not hold {name}")
        generations.activate(authority.directory, name)
        authority.log.append(now_ms, "activate", {"issuer": name})


def retire(authority: Authority, name: str, passphrase: bytes | None, now_ms: int) -> Step:
    """
    Make a bundle without a root and all it signed, or without one issuing CA.

    Raises:
        TrustError: E-NOTFOUND; E-POLICY: it is in use; E-EXISTS: another step is waiting for signatures.
    """
    held = _held(authority)
    _refuse_draft(authority)
    with locked(authority.directory):
        known = {**generations.roots(authority.directory), **generations.issuers(authority.directory)}
        ended = known.get(name)
        if ended is None:
            raise TrustError(
                "E-NOTFOUND", f"no root or issuing CA {name} is in force", remedy="see roots list"
            )
        if name in (authority.issuing_name, authority.root_name):
            raise TrustError("E-POLICY", f"{name} is in use", remedy="roots activate another one first")
        offered = _make(
            authority,
            held,
            now_ms,
            roots=[root for root in held.roots if root != ended],
            issuers=[
                one
                for one in held.issuers
                if ended.subject not in (one.certificate.subject, one.certificate.issuer)
            ],
        )
        return _keep(authority, _signed(authority, offered, held, passphrase), held, now_ms)


def renew(
    authority: Authority,
    passphrase: bytes | None,
    now_ms: int,
    *,
    limit: bool = False,
    admin_keys: Sequence[bytes] = (),
    threshold: int | None = None,
) -> Step:
    """
    Make a bundle of the same roots and issuing CAs, with the newest CRLs and a new term.

    Args:
        authority: the administration.
        passphrase: of the administrators' keys.
        now_ms: now.
        limit: let policy.toml bound every issuing CA from now on, on every node.
        admin_keys: the administrators' keys (SPKI) from now on; none: as they are.
        threshold: how many of them must sign; None: as it is.

    Raises:
        TrustError: E-USAGE; E-EXISTS: another step is waiting for signatures.
    """
    held = _held(authority)
    _refuse_draft(authority)
    named = tuple(admin_keys) or held.admin_keys
    wanted = held.threshold if threshold is None else threshold
    check_threshold(len(named), wanted)
    policy = authority.policy
    bounds = IssuerPolicy(policy.dns_suffixes, policy.groups, policy.roles, policy.max_days)
    with locked(authority.directory):
        offered = _make(
            authority,
            held,
            now_ms,
            roots=held.roots,
            issuers=[attrs.evolve(one, policy=bounds) if limit else one for one in held.issuers],
            admin_keys=named,
            threshold=wanted,
        )
        return _keep(authority, _signed(authority, offered, held, passphrase), held, now_ms)


def take(authority: Authority, offered: Bundle, now_ms: int) -> Step:
    """
    Take a bundle that other administrators have signed; it is in force here once it is complete.

    Raises:
        TrustError: as ``bundle_rules.check_next``; E-BUNDLE-FORK.
    """
    with locked(authority.directory):
        history = authority.bundles()
        twin = next((one for one in history if one.version == offered.version), None)
        if twin is not None:
            if twin.payload != offered.payload:
                raise bundle_rules.forked(offered)
            if twin is history[-1]:
                # A crash may have come between the bundle and its files.
                generations.settle(authority.directory, twin)
            return Step(twin, _path(authority, twin, bundle_files.SUFFIX), ())
        held = _held(authority)
        if offered.version != held.version + 1:
            bundle_rules.check_next(held, offered)
        return _keep(authority, offered, held, now_ms)


def sign(offered: Bundle, held: Bundle, signers: Sequence[bundle.AdminKey]) -> Bundle:
    """
    Sign a draft with those keys that either version names, until it is complete.

    Raises:
        TrustError: E-NOTFOUND: none of the keys is one of them.
    """
    named = {*held.admin_keys, *offered.admin_keys}
    ours = [key for key in signers if bundle.public_bytes(key) in named]
    if not ours:
        raise TrustError(
            "E-NOTFOUND",
            "no administrator's key of this federation is at hand",
            remedy="name the folder of admin-*.key with --private",
        )
    for key in ours:
        if bundle_rules.missing(offered, held):
            offered = offered.with_signature(key)
    return offered if bundle_rules.missing(offered, held) else bundle_rules.minimal(offered, held)


def draft_of(authority: Authority) -> Path | None:
    """Return the draft that waits for signatures, if any."""
    folder = authority.directory / bundle_files.BUNDLE_FOLDER
    return next(iter(sorted(folder.glob(f"*{DRAFT_SUFFIX}"))), None) if folder.is_dir() else None


def _signed(authority: Authority, offered: Bundle, held: Bundle, passphrase: bytes | None) -> Bundle:
    at_hand = generations.admin_keys(authority.private, passphrase)
    named = {bundle.key_id(key) for key in (*held.admin_keys, *offered.admin_keys)}
    ours = [key for signer, key in at_hand.items() if signer in named]
    return sign(offered, held, ours) if ours else offered


def _keep(authority: Authority, offered: Bundle, held: Bundle | None, now_ms: int) -> Step:
    missing = tuple(bundle_rules.missing(offered, held))
    folder = authority.directory / bundle_files.BUNDLE_FOLDER
    if missing:
        path = _path(authority, offered, DRAFT_SUFFIX)
        public_folder(folder)
        write_public(path, offered.body)
        return Step(offered, path, missing)
    offered = bundle_rules.minimal(offered, held)
    # What we hand out must pass the check of every node.
    if held is None:
        bundle_rules.check_start(offered, offered.roots)
    else:
        bundle_rules.check_next(held, offered)
    if held is not None:
        authority.log.append(now_ms, "bundle", about(offered))
    bundle_files.write_bundles(authority.directory, [offered])
    generations.settle(authority.directory, offered)
    for draft in folder.glob(f"*{DRAFT_SUFFIX}"):
        draft.unlink()
    return Step(offered, _path(authority, offered, bundle_files.SUFFIX), ())


def _held(authority: Authority) -> Bundle:
    held = authority.bundles()
    if not held:
        raise TrustError(
            "E-NOTFOUND",
            "this federation has no trust bundle",
            str(authority.directory),
            "make one, with the root's key: trust-admin roots adopt",
        )
    return held[-1]


def _refuse_draft(authority: Authority) -> None:
    draft = draft_of(authority)
    if draft is not None:
        raise TrustError(
            "E-EXISTS", f"{draft} waits for signatures", remedy="roots sign and roots import it, or remove it"
        )


def _path(authority: Authority, one: Bundle, suffix: str) -> Path:
    name = bundle_files.file_name(one.version).removesuffix(bundle_files.SUFFIX) + suffix
    return authority.directory / bundle_files.BUNDLE_FOLDER / name


def _files(name: str, ca: CertificateAuthority, now_ms: int, days: int) -> list[tuple[str, bytes]]:
    return [
        (f"{name}.crl.pem", pem.crl_pem(issue.crl(ca, 1, {}, now_ms, days))),
        (f"{name}.pem", pem.certificate_pem(ca.certificate)),
    ]


def _make(
    authority: Authority,
    held: Bundle,
    now_ms: int,
    *,
    roots: Sequence[x509.Certificate],
    issuers: Sequence[BundleIssuer],
    fresh: Sequence[x509.CertificateRevocationList] = (),
    admin_keys: Sequence[bytes] = (),
    threshold: int = 0,
) -> Bundle:
    return bundle.make(
        held.federation,
        held.version + 1,
        roots,
        issuers,
        _crls(authority, [*roots, *(one.certificate for one in issuers)], fresh),
        admin_keys or held.admin_keys,
        threshold or held.threshold,
        now_ms + BUNDLE_DAYS * _DAY_MS,
    )


def _crls(
    authority: Authority,
    cas: Sequence[x509.Certificate],
    fresh: Sequence[x509.CertificateRevocationList] = (),
) -> list[x509.CertificateRevocationList]:
    names = {one.subject for one in cas}
    return [crl for crl in revocation.CrlSet.choose([*authority.crls(), *fresh]).crls if crl.issuer in names]


def about(one: Bundle) -> dict[str, object]:
    """Return what the audit log says of a bundle."""
    return {
        "version": one.version,
        "sha256": one.fingerprint,
        "roots": [root.subject.rfc4514_string() for root in one.roots],
        "issuers": [issuer.subject.rfc4514_string() for issuer in one.issuing_certificates],
        "admin_keys": len(one.admin_keys),
        "threshold": one.threshold,
    }
