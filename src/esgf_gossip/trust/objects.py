"""
All kinds of trust objects behind one door: judged for the core, applied to and offered from the trust directory.

What each kind is made of is its own module's; here they are told apart by key. Two objects that contradict
each other are a kind too, judged by the kind they are of. Source: docs/adr/0011-trust-objects.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from esgf_gossip.core import packing
from esgf_gossip.core.errors import ObjectRefused, WireError
from esgf_gossip.core.model import TrustObject
from esgf_gossip.core.trust_lines import CONFLICT
from esgf_gossip.trust import audit_object, bundle_object, certificate_object, crl_object, secret_object
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.object_kind import ObjectKind, Stand

KINDS: Final[tuple[ObjectKind, ...]] = (
    crl_object.KIND,
    bundle_object.KIND,
    certificate_object.KIND,
    secret_object.KIND,
    audit_object.KIND,
)

# The clock alone decides, or what has not come yet: the same object may be good in an hour.
_PASSING: Final = frozenset({"E-CRL-FUTURE", "E-CERT-FUTURE", "E-SEAL-FUTURE", "E-BUNDLE", "E-BUNDLE-START"})
# Rightly signed, and against what is held.
_CONTRADICTING: Final = frozenset({"E-CRL-FORK", "E-BUNDLE-FORK"})


class TrustObjects:
    """The trust objects of one node, by the trust in force; implements ``core.verification.TrustJudge``."""

    def __init__(self, directory: Path, material: TrustMaterial) -> None:
        self._directory = directory
        self._material = material

    def replace(self, material: TrustMaterial) -> None:
        """Judge by new trust from now on."""
        self._material = material

    def judge_object(self, key: str, body: bytes, held: bytes | None, now_ms: int) -> TrustObject:
        """
        Judge an object by its kind.

        Raises:
            ObjectRefused: with one line of reason; nothing is changed.
        """
        try:
            stand = self._judge(key, body, held, now_ms)
        except TrustError as error:
            raise ObjectRefused(
                str(error), lasting=error.code not in _PASSING, contradicts=error.code in _CONTRADICTING
            ) from None
        return TrustObject(key, stand.number, stand.stamp_s, body)

    def contradicts(self, key: str, one: bytes, other: bytes) -> bool:
        """Tell whether two good objects of one key and number say different things, whatever their signatures look like."""
        kind = _kind(key)
        return kind is not None and kind.statement(one) != kind.statement(other)

    def apply(self, held: TrustObject, now_ms: int) -> bool:
        """
        Write an object into the trust directory; tell whether trust must be loaded again for it.

        Raises:
            TrustError: the directory does not take it; it is as it was.
        """
        kind = _kind(held.key)
        return kind is not None and kind.apply(self._directory, held.key, held.body, self._material, now_ms)

    def offered(self) -> list[tuple[str, bytes]]:
        """Return (key, body) of all the trust directory holds that may go to others."""
        return [found for kind in KINDS for found in kind.offered(self._directory, self._material)]

    def _judge(self, key: str, body: bytes, held: bytes | None, now_ms: int) -> Stand:
        if key.startswith(CONFLICT):
            return self._judge_conflict(key, body, now_ms)
        kind = _kind(key)
        if kind is None:
            raise TrustError("E-OBJECT", f"a kind of trust object that this version does not know: {key}")
        try:
            return kind.judge(key, body, held, self._material, now_ms)
        except TrustError:
            raise
        except Exception as error:
            # Fail closed: a library may raise anything on bytes of a stranger.
            raise TrustError(
                "E-OBJECT", f"{key} cannot be judged: {type(error).__name__}: {error}"
            ) from error

    def _judge_conflict(self, key: str, body: bytes, now_ms: int) -> Stand:
        inner, _, number = key.removeprefix(CONFLICT).rpartition("/")
        try:
            pair = packing.items(
                packing.unpack(body), lambda one: packing.blob(one, 1, len(body)), 2, "two objects"
            )
        except WireError as error:
            raise TrustError("E-OBJECT", f"{key}: {error}") from None
        if len(pair) != 2 or pair[0] >= pair[1] or inner.startswith(CONFLICT):
            raise TrustError("E-OBJECT", f"{key} holds no two objects")
        for one in pair:
            if str(self._judge(inner, one, None, now_ms).number) != number:
                raise TrustError("E-OBJECT", f"{key} holds an object of another number")
        if not self.contradicts(inner, *pair):
            raise TrustError("E-OBJECT", f"{key} holds one statement in two forms")
        return Stand(0, 0)


def _kind(key: str) -> ObjectKind | None:
    return next((kind for kind in KINDS if key.startswith(kind.prefix)), None)
