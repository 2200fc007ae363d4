"""Trust bundles as trust objects and in trust directories: judged, applied, walked through, never lowered."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.core.errors import ObjectRefused
from esgf_gossip.core.trust_lines import contradiction
from esgf_gossip.trust import bundle_files, bundle_object, bundle_rules, issue, pem
from esgf_gossip.trust.bundle import Bundle
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.install import import_bundles, import_crls, install
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.material import TrustMaterial, trust_files
from esgf_gossip.trust.objects import TrustObjects
from esgf_gossip.trust.requests import make_request, read_request
from helpers.bundles import FAR_MS, Generation, a_generation, admin_keys, history, next_bundle, write
from helpers.trust import DAY_MS, TestFederation, a_draft, a_federation

HOST = "node.example.org"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation of one node."""
    found = a_federation(tmp_path / "federation")
    found.node(HOST)
    return found


def rotated(federation: TestFederation) -> tuple[Generation, tuple[Bundle, ...]]:
    """Return a second generation and the history that brings it in (2) and ends the first (3)."""
    (first,) = federation.authority.bundles()
    fresh, signers = a_generation(federation, 2), admin_keys(federation)
    issuer = attrs.evolve(first.issuers[0], certificate=fresh.issuing.certificate)
    second = next_bundle(
        first,
        [*signers, fresh.root.key],
        roots=[*first.roots, fresh.root.certificate],
        issuers=[*first.issuers, issuer],
        crls=[*first.crls, *fresh.crls],
    )
    third = next_bundle(second, signers, roots=[fresh.root.certificate], issuers=[issuer], crls=fresh.crls)
    return fresh, (first, second, third)


def objects(federation: TestFederation, late: bool = False) -> TrustObjects:
    """Return the trust objects of the node as it is now."""
    return TrustObjects(federation.node(HOST), load(federation, late=late))


def load(federation: TestFederation, *, late: bool = False) -> TrustMaterial:
    """Load the trust of the node."""
    return TrustMaterial.load(
        federation.node(HOST),
        host=HOST,
        federation=federation.name,
        now_ms=federation.now_ms,
        may_be_late=late,
    )


def judge(federation: TestFederation, one: Bundle, held: Bundle | None = None, key: str = "") -> int:
    """Judge a bundle on the node, and return its number."""
    body = None if held is None else held.body
    found = objects(federation, late=True).judge_object(
        key or bundle_object.object_key(one.version), one.body, body, federation.now_ms
    )
    return found.number


def test_versions_are_walked_one_by_one(federation: TestFederation) -> None:
    """The third is not yet good before the second is in force, and good after; applied twice is applied once."""
    fresh, (first, second, third) = rotated(federation)
    assert judge(federation, first) == 1
    with pytest.raises(ObjectRefused, match="version 2 is needed first") as caught:
        judge(federation, third)
    assert not caught.value.lasting
    directory, material = federation.node(HOST), federation.material(HOST)
    for one, roots in ((second, 2), (third, 1)):
        key = bundle_object.object_key(one.version)
        assert judge(federation, one) == one.version
        assert bundle_object.apply(directory, key, one.body, material, federation.now_ms)
        assert not bundle_object.apply(directory, key, one.body, material, federation.now_ms)
        found = load(federation, late=True)
        assert found.bundle == one
        assert len(found.roots) == len(list((directory / "roots").glob("*.pem"))) == roots
    assert found.roots == (fresh.root.certificate,)
    assert [key for key, _ in bundle_object.offered(directory, found)] == [f"roots/{n:06}" for n in (1, 2, 3)]
    for one in (first, second, third):
        assert judge(federation, one) == one.version


def test_too_early_is_not_applied(federation: TestFederation) -> None:
    """An object of a database that is ahead of the files waits for those between."""
    _, (_, _, third) = rotated(federation)
    directory, material = federation.node(HOST), federation.material(HOST)
    assert not bundle_object.apply(directory, "roots/000003", third.body, material, federation.now_ms)
    assert len(bundle_files.read_bundles(directory)) == 1


def test_the_crls_of_a_new_ca_come_with_the_bundle_and_later_ones_after_it(
    federation: TestFederation,
) -> None:
    """A bundle brings a CRL of each CA; a newer one of a CA that signed nothing here is taken, of one that is over too."""
    fresh, (_, second, third) = rotated(federation)
    directory = federation.node(HOST)
    import_bundles(directory, [second], federation=federation.name)
    names = {crl.issuer for crl in federation.material(HOST).crls}
    assert {fresh.root.certificate.subject, fresh.issuing.certificate.subject} <= names
    newer = issue.crl(fresh.issuing, 2, {}, federation.now_ms, 14)
    (taken,) = import_crls(directory, [newer], now_ms=federation.now_ms).taken
    assert taken[0] == newer
    assert newer in federation.material(HOST).crls
    import_bundles(directory, [third], federation=federation.name)
    old = federation.crl(2)
    found = objects(federation, late=True)
    key = f"crl/{old.extensions[1].value.key_identifier.hex()}"
    body = old.public_bytes(Encoding.DER)
    assert found.judge_object(key, body, None, federation.now_ms).number == 2
    assert not [
        one for one in load(federation, late=True).findings(federation.now_ms) if "unused" in one.text
    ]


def test_the_list_a_bundle_brought_may_run_out(federation: TestFederation) -> None:
    """Of a CA that signed nothing here yet: the node goes on; what it brought for our own CA never lowers a newer one."""
    _, (_, second, _) = rotated(federation)
    import_bundles(federation.node(HOST), [second], federation=federation.name)
    later = federation.now_ms + 40 * DAY_MS
    federation.publish(federation.crl(4, at_ms=later), HOST)
    material = federation.material(HOST, later)
    numbers = material.crl_numbers()
    assert numbers[f"CN=Issuing G1,O={federation.name}"] == 4
    assert f"CN=Issuing G2,O={federation.name}" not in numbers


def test_a_twin_is_proof_of_a_contradiction(federation: TestFederation) -> None:
    """Two rightly signed bundles of one version: an alarm, and of the newest the smaller hash counts on every node."""
    versions = history(federation, 3)
    directory, signers = federation.node(HOST), admin_keys(federation)
    import_bundles(directory, versions[1:], federation=federation.name)
    twin = next_bundle(versions[1], signers, not_after_ms=FAR_MS + 99)
    assert judge(federation, twin, versions[2]) == 3
    proof = contradiction("roots/000003", 3, versions[2].body, twin.body)
    assert proof is not None
    assert objects(federation).judge_object(proof.key, proof.body, None, federation.now_ms).number == 0
    material = federation.material(HOST)
    assert bundle_object.apply(directory, "roots/000003", twin.body, material, federation.now_ms)
    assert federation.material(HOST).bundle == twin
    old = next_bundle(versions[0], signers, not_after_ms=FAR_MS + 98)
    with pytest.raises(ObjectRefused, match="E-BUNDLE-FORK") as caught:
        judge(federation, old, versions[1])
    assert caught.value.contradicts
    with pytest.raises(TrustError, match="E-BUNDLE-FORK"):
        bundle_object.apply(directory, "roots/000002", old.body, material, federation.now_ms)


def test_what_is_no_bundle_of_ours_is_refused_for_good(federation: TestFederation) -> None:
    """Of another federation, under another key, with other signatures, signed by nobody, garbage."""
    (first,) = federation.authority.bundles()
    signers = admin_keys(federation)
    bad = {
        "other key": (first, "roots/000002"),
        "other federation": (next_bundle(first, signers, federation="other.example.org"), ""),
        "unsigned": (next_bundle(first), ""),
        "bare": (attrs.evolve(first, signatures=first.signatures[:1]), ""),
    }
    for one, key in bad.values():
        with pytest.raises(ObjectRefused) as caught:
            judge(federation, one, key=key)
        assert caught.value.lasting
    with pytest.raises(ObjectRefused) as caught:
        objects(federation).judge_object("roots/000002", b"\xc0", None, federation.now_ms)
    assert caught.value.lasting
    with pytest.raises(TrustError, match="E-BUNDLE-FORM"):
        import_bundles(federation.node(HOST), [first], federation="other.example.org")


def test_a_node_without_a_bundle_begins_with_a_root_it_holds(federation: TestFederation) -> None:
    """A federation of before gets its first bundle by gossip; a bundle of unknown roots is none for it."""
    directory = federation.node(HOST)
    (directory / "bundle" / "000001.bundle").unlink()
    assert load(federation).bundle is None
    (first,) = federation.authority.bundles()
    stranger = a_federation(federation.directory / "stranger", now_ms=federation.now_ms).authority.bundles()[
        0
    ]
    with pytest.raises(ObjectRefused, match="E-BUNDLE-START"):
        judge(federation, stranger)
    elsewhere = next_bundle(
        first, [*admin_keys(federation), federation.root.key], version=1, federation="other.example.org"
    )
    with pytest.raises(ObjectRefused, match="it is of federation"):
        judge(federation, elsewhere)
    assert judge(federation, first) == 1
    assert bundle_object.apply(directory, "roots/000001", first.body, load(federation), federation.now_ms)
    assert load(federation).bundle == first


def test_a_new_node_begins_with_the_root_in_force(federation: TestFederation) -> None:
    """It was told the second root alone: it takes the versions from where that root came in, and judges the older later."""
    fresh, versions = rotated(federation)
    host, directory = "new.example.org", federation.directory / "new"
    request = make_request(directory, host, federation.name, [host], [], [])
    parsed = read_request(request.pem, "request")
    names = attrs.evolve(parsed.names, groups=("member",))
    leaf = issue.leaf(names, parsed.public_key, fresh.issuing, federation.now_ms, 30)
    chain = pem.certificate_pem(leaf) + pem.certificate_pem(fresh.issuing.certificate)
    arguments = {"host": host, "federation": federation.name, "now_ms": federation.now_ms}
    with pytest.raises(TrustError, match="E-BUNDLE-START"):
        install(
            directory,
            chain,
            [a_generation(federation, 5).root.certificate],
            [],
            bundles=versions,
            **arguments,
        )
    material = install(directory, chain, [fresh.root.certificate], [], bundles=versions, **arguments)
    assert [one.version for one in material.bundles] == [2, 3]
    assert material.roots == (fresh.root.certificate,)
    assert [one.version for one in bundle_rules.for_new_nodes(versions)] == [2, 3]
    import_bundles(directory, [versions[0]], federation=federation.name)
    assert [one.version for one in bundle_files.read_bundles(directory)] == [1, 2, 3]


def test_a_directory_with_a_hole_or_a_forged_bundle_does_not_load(federation: TestFederation) -> None:
    """What was put there by hand is judged like everything else."""
    versions = history(federation, 3)
    directory = federation.node(HOST)
    write(directory, versions[2])
    with pytest.raises(TrustError, match="E-BUNDLE: version 3 after 1"):
        load(federation)
    write(directory, versions[1])
    assert load(federation).bundle == versions[2]
    write(directory, next_bundle(versions[1]))
    with pytest.raises(TrustError, match="E-BUNDLE-SIG"):
        load(federation)
    assert directory / "bundle" / "000003.bundle" in trust_files(directory)


def test_the_bundle_counts_not_the_folder_of_roots(federation: TestFederation) -> None:
    """A root that somebody puts into roots/ is not trusted beside a bundle, and shown."""
    directory = federation.node(HOST)
    before = federation.material(HOST)
    extra = a_generation(federation, 8).root.certificate
    (directory / "roots" / "extra.pem").write_bytes(pem.certificate_pem(extra))
    material = federation.material(HOST)
    assert material.roots == before.roots
    assert any("the bundle counts" in one.text for one in material.findings(federation.now_ms))


def test_an_anchor_that_is_no_ca_is_refused(federation: TestFederation) -> None:
    """CA:FALSE among the roots, self-signed or not, would be trusted as itself: the directory does not load."""
    directory = federation.node(HOST)
    draft = a_draft(federation)
    first = draft.sign()
    draft.issuer = CertificateAuthority(first, draft.key)
    for leaf in (first, draft.sign()):
        path = directory / "roots" / "leaf.pem"
        path.write_bytes(pem.certificate_pem(leaf))
        with pytest.raises(TrustError) as caught:
            federation.material(HOST)
        assert (caught.value.code, "CA:FALSE" in caught.value.text) == ("E-PROFILE", True)
        path.unlink()


def test_the_end_of_a_bundle_is_told_and_stops_nothing(federation: TestFederation) -> None:
    """Thirty days ahead and after: a finding; the federation goes on."""
    directory, signers = federation.node(HOST), admin_keys(federation)
    (first,) = federation.authority.bundles()
    for days, level in ((20, "attention"), (3, "critical"), (-1, "critical")):
        made = next_bundle(first, signers, not_after_ms=federation.now_ms + days * DAY_MS)
        write(directory, made)
        (found,) = federation.material(HOST).findings(federation.now_ms)
        assert (found.level, "trust bundle 2" in found.text) == (level, True)
