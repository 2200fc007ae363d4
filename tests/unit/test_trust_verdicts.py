"""Verdicts on chains when trust is replaced: what newer lists alone leave as it is, and what begins anew."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from esgf_gossip.core.errors import DigestRefused
from esgf_gossip.core.model import Digest, SignedDigest
from esgf_gossip.trust.chain import TrustAnchors
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.revocation import CrlSet
from esgf_gossip.trust.signing import NodeSigner
from esgf_gossip.trust.verifier import DigestVerifier
from helpers.trust import DAY_MS, TestFederation, a_federation

HOST, JUDGE = "node.example.org", "judge.example.org"


@attrs.define
class Counted:
    """A verifier, one good digest, and how many chains were checked for it."""

    federation: TestFederation
    verifier: DigestVerifier
    signer: NodeSigner
    checked: list[object]

    def verify(self) -> int:
        """Verify the digest, and return how many chains were checked for it."""
        before = len(self.checked)
        signer = self.signer
        digest = Digest(
            federation=self.federation.name,
            origin=HOST,
            certificate_sha256=signer.certificate_sha256,
            epoch=1,
            sequence=1,
            issued_at_ms=self.federation.now_ms,
            expires_at_ms=self.federation.now_ms + DAY_MS,
            contact=(HOST, 1),
        )
        signed = SignedDigest(b"payload", signer.sign(b"payload"))
        self.verifier.verify(signed, digest, signer.chain, self.federation.now_ms)
        return len(self.checked) - before


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation of two nodes."""
    found = a_federation(tmp_path / "federation")
    found.node(HOST)
    found.node(JUDGE)
    return found


@pytest.fixture
def counted(federation: TestFederation, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Return a verifier whose checks of chains are counted."""
    found = Counted(
        federation, DigestVerifier(federation.material(JUDGE)), federation.material(HOST).signer, []
    )
    whole = TrustAnchors.chain_to_root
    monkeypatch.setattr(
        TrustAnchors, "chain_to_root", lambda *given: found.checked.append(given) or whole(*given)
    )
    return found


def with_crls(federation: TestFederation, *serials: int) -> TrustMaterial:
    """Return the judge's trust with a newer list that revokes these."""
    federation.publish(federation.crl(2 + len(serials), serials), JUDGE)
    return federation.material(JUDGE)


def test_a_list_that_says_nothing_of_it_leaves_a_verdict(
    federation: TestFederation, counted: Counted
) -> None:
    """A federation's revocations must not make every node check every chain again."""
    assert counted.verify() == 1
    counted.verifier.replace(with_crls(federation, 12345))
    assert counted.verify() == 0


def test_a_list_that_revokes_it_ends_a_verdict(federation: TestFederation, counted: Counted) -> None:
    """Whoever is revoked is refused at once, however often it was good before."""
    counted.verify()
    counted.verifier.replace(with_crls(federation, 12345, federation.serial(HOST)))
    with pytest.raises(DigestRefused, match="certificate revoked"):
        counted.verify()


def test_without_a_list_nobody_passes(federation: TestFederation, counted: Counted) -> None:
    """A list that is missing is no list that lets pass."""
    counted.verify()
    bare = federation.material(JUDGE)
    counted.verifier.replace(attrs.evolve(bare, anchors=attrs.evolve(bare.anchors, crls=CrlSet(()))))
    with pytest.raises(DigestRefused, match="no CRL"):
        counted.verify()


def test_other_roots_or_bounds_begin_anew(federation: TestFederation, counted: Counted) -> None:
    """Only lists are looked up again; whatever else is new asks for the whole check."""
    counted.verify()
    material = federation.material(JUDGE)
    counted.verifier.replace(attrs.evolve(material, bundles=()))
    assert counted.verify() == 1
