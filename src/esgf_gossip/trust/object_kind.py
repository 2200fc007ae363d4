"""
What every kind of trust object can do: be judged, be put into force, be found in a trust directory.

Trust objects (CRLs, bundles, re-issued certificates, sealed secrets, heads of the audit log) are lines
of the replicated table that prove themselves by their issuer's signature, whoever brings them.
One module per kind makes one ``ObjectKind``; ``objects`` knows them all. Source: docs/adr/0011-trust-objects.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from esgf_gossip.trust.material import TrustMaterial

Judge = Callable[[str, bytes, bytes | None, TrustMaterial, int], "Stand"]
Apply = Callable[[Path, str, bytes, TrustMaterial, int], bool]
Offered = Callable[[Path, TrustMaterial], list[tuple[str, bytes]]]
Statement = Callable[[bytes], bytes]


@attrs.frozen(order=True)
class Stand:
    """
    The place of a trust object among those of its key: the issuer's rising number, then a date in Unix seconds.

    Of two objects with one stand the smaller SHA-256 counts, and both are proof of a conflict.
    """

    number: int
    stamp_s: int


@attrs.frozen
class ObjectKind:
    """
    One kind of trust object.

    ``prefix`` begins its keys and ends in a slash.
    ``judge(key, body, held, material, now_ms)`` returns the stand of an object or raises TrustError; ``held`` is
    the body in force under the same key, if any; nothing is changed.
    ``apply(directory, key, body, material, now_ms)`` writes a judged object into the trust directory, in one step, and
    tells whether trust must be loaded again; to apply twice is to apply once.
    ``offered(directory, material)`` returns (key, body) of what the directory holds: how a file an administrator
    put there gets into the federation; what is unfit to be offered is left out.
    ``statement(body)`` is what a judged object says without how it is signed: an ECDSA signature has two forms, which
    anybody can make of each other. The body itself where only its signer can make it.
    """

    prefix: str
    judge: Judge
    apply: Apply
    offered: Offered
    statement: Statement = bytes
