"""Trust bundles: their one form, who must sign which, what may follow what, where a node may begin."""

from __future__ import annotations

import contextlib
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.core import packing
from esgf_gossip.trust import bundle, bundle_files, bundle_rules, keys
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.bundle import Bundle
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.founding import create_authority
from helpers.bundles import FAR_MS, a_generation, admin_keys, history, next_bundle
from helpers.trust import FEDERATION, TestFederation, a_federation, real_now_ms

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found a federation in which two of three administrators must sign."""
    directory = tmp_path_factory.mktemp("bundle")
    now_ms = real_now_ms()
    authority = create_authority(
        directory / "trust", directory / "private", FEDERATION, now_ms, None, admin_keys=3, threshold=2
    )
    return TestFederation(directory, FEDERATION, authority, now_ms)


def refusal(held: Bundle, offered: Bundle) -> TrustError:
    """Return the error with which a bundle is refused after another."""
    with pytest.raises(TrustError) as caught:
        bundle_rules.check_next(held, offered)
    return caught.value


def test_the_first_bundle_is_signed_by_enough_keys_and_by_the_root(federation: TestFederation) -> None:
    """Version 1: two administrators of three and the root, no signature more; read back it is the same bytes."""
    (first,) = federation.authority.bundles()
    assert (first.version, first.threshold, len(first.admin_keys), len(first.signatures)) == (1, 2, 3, 3)
    assert bundle.parse(first.body, "test") == first
    bundle_rules.check_start(first, federation.authority.roots())
    assert [one.certificate for one in first.issuers] == [federation.authority.issuing_certificate]


def test_the_next_version_needs_enough_keys_of_both(federation: TestFederation) -> None:
    """Two of the old keys and two of the new: neither alone is enough."""
    (first,) = federation.authority.bundles()
    old, new = admin_keys(federation), [keys.new_key() for _ in range(2)]
    offered = next_bundle(first, admin_keys=[bundle.public_bytes(one) for one in new])
    for signers in ([], old[:1], old[:2], new, [old[0], *new], [*old[:2], new[0]]):
        signed = offered
        for key in signers:
            signed = signed.with_signature(key)
        assert refusal(first, signed).code == "E-BUNDLE-SIG"
    for key in (*old[1:], *new):
        offered = offered.with_signature(key)
    bundle_rules.check_next(first, offered)


def test_bad_input_14(federation: TestFederation) -> None:
    """Bundle N+2 (exit 6), and one signed by too few (exit 3), say what is needed."""
    versions = history(federation, 7)
    signers = admin_keys(federation)
    gap = next_bundle(versions[-1], signers[:2], version=9)
    error = refusal(versions[-1], gap)
    assert (error.code, error.exit_code) == ("E-BUNDLE", 6)
    assert "version 9 after 7; version 8 is needed first" in error.text
    few = refusal(versions[-1], next_bundle(versions[-1], signers[:1]))
    assert (few.code, few.exit_code) == ("E-BUNDLE-SIG", 3)
    assert "2 signatures of the keys of version 7 needed, 1 valid" in few.text


def test_a_stolen_root_changes_nothing_alone(federation: TestFederation) -> None:
    """The threat 'compromised root key': its signature, with that of one administrator too, brings in no bundle."""
    (first,) = federation.authority.bundles()
    evil = a_generation(federation, 66)
    offered = next_bundle(
        first,
        [federation.root.key, evil.root.key],
        roots=[*first.roots, evil.root.certificate],
        crls=[*first.crls, evil.crls[0]],
    )
    assert refusal(first, offered).code == "E-BUNDLE-SIG"
    assert refusal(first, offered.with_signature(admin_keys(federation)[0])).code == "E-BUNDLE-SIG"


def test_a_new_root_signs_the_version_that_brings_it_in(federation: TestFederation) -> None:
    """Without its signature the version is refused; with it, who holds that root alone can begin there."""
    (first,) = federation.authority.bundles()
    fresh = a_generation(federation, 2)
    offered = next_bundle(
        first,
        admin_keys(federation)[:2],
        roots=[*first.roots, fresh.root.certificate],
        crls=[*first.crls, fresh.crls[0]],
    )
    assert refusal(first, offered).code == "E-BUNDLE-SIG"
    offered = offered.with_signature(fresh.root.key)
    bundle_rules.check_next(first, offered)
    bundle_rules.check_start(offered, [fresh.root.certificate])
    assert [one.version for one in bundle_rules.begin([offered, first], [fresh.root.certificate])] == [2]
    assert [one.version for one in bundle_rules.begin([offered, first], first.roots)] == [1, 2]
    with pytest.raises(TrustError, match="E-BUNDLE-START"):
        bundle_rules.begin([first, offered], [a_generation(federation, 3).root.certificate])


def test_no_bundle_has_a_twin_that_others_can_make(federation: TestFederation) -> None:
    """The second form of an ECDSA signature, one signature more, and one less are refused, or not one at all."""
    (first,) = federation.authority.bundles()
    good = next_bundle(first, admin_keys(federation)[:2])
    bundle_rules.check_next(first, good)
    (signer, signature), *others = good.signatures
    r, s = decode_dss_signature(signature)
    twin = encode_dss_signature(r, P256_ORDER - s)
    assert refusal(first, attrs.evolve(good, signatures=((signer, twin), *others))).code == "E-BUNDLE-SIG"
    more = good.with_signature(admin_keys(federation)[2])
    assert refusal(first, more).code == "E-BUNDLE-FORM"
    assert refusal(first, attrs.evolve(good, signatures=tuple(others))).code == "E-BUNDLE-SIG"
    assert bundle_rules.minimal(more, first).signatures in [
        tuple(sorted(pair))
        for pair in ((one, two) for one in more.signatures for two in more.signatures if one < two)
    ]


def test_ed25519_keys_sign_too(federation: TestFederation) -> None:
    """An administrator's key may be Ed25519."""
    (first,) = federation.authority.bundles()
    key = ed25519.Ed25519PrivateKey.generate()
    named = [bundle.public_bytes(key), *first.admin_keys[1:]]
    old = [one for one in admin_keys(federation) if bundle.public_bytes(one) in first.admin_keys[1:]]
    offered = next_bundle(first, [*old[:2], key], admin_keys=named)
    bundle_rules.check_next(first, bundle_rules.minimal(offered, first))
    both = next_bundle(offered, [key, old[0]])
    bundle_rules.check_next(offered, both)


@pytest.mark.parametrize(
    "kind",
    ["issuing CA as root", "no CRL", "two CRLs", "foreign CRL", "strange issuer", "leaf as root", "no root"],
)
def test_parts_that_do_not_fit_are_refused(federation: TestFederation, kind: str) -> None:
    """Well signed, and still no bundle: each part must be what it says, and each CA has one CRL."""
    (first,) = federation.authority.bundles()
    stranger = a_generation(federation, 9)
    changes = {
        "issuing CA as root": {
            "roots": [*first.roots, federation.issuing.certificate],
            "issuers": [],
        },
        "no CRL": {"crls": first.crls[:1]},
        "two CRLs": {"crls": [*first.crls, federation.crl(2)]},
        "foreign CRL": {"crls": [*first.crls, stranger.crls[0]]},
        "strange issuer": {
            "issuers": [
                *first.issuers,
                bundle.BundleIssuer(stranger.issuing.certificate, bundle.IssuerPolicy()),
            ],
            "crls": [*first.crls, stranger.crls[1]],
        },
        "leaf as root": {"roots": [*first.roots, federation.material("node.example.org").leaf]},
        "no root": {"roots": []},
    }[kind]
    with pytest.raises(TrustError) as caught:
        bundle_rules.check_next(
            first, next_bundle(first, [*admin_keys(federation)[:2], federation.issuing.key], **changes)
        )
    assert caught.value.code == "E-BUNDLE-FORM"


def test_other_forms_of_the_same_bundle_are_refused(federation: TestFederation) -> None:
    """Parts out of order, a longer encoding, a later format, a key more: one value has one form."""
    (first,) = federation.authority.bundles()
    fields = packing.unpack(first.payload)
    assert isinstance(fields, list)
    signatures = [list(one) for one in first.signatures]
    swapped = [*fields[:6], list(reversed(fields[6])), *fields[7:]]
    policy = [[fields[4][0][0], {**fields[4][0][1], "zeal": 1}]]
    for payload in (
        packing.pack(swapped),
        packing.pack([2, *fields[1:]]),
        packing.pack([*fields, 1]),
        packing.pack([*fields[:4], policy, *fields[5:]]),
        first.payload + b"\xc0",
    ):
        with pytest.raises(TrustError) as caught:
            bundle.parse(packing.pack([payload, signatures]), "test")
        assert caught.value.code == "E-BUNDLE-FORM"
    with pytest.raises(TrustError):
        bundle.parse(packing.pack([first.payload, list(reversed(signatures))]), "test")
    assert first.body[:1] == b"\x92"
    longer = first.payload.replace(
        packing.pack(first.federation) + b"\x01", packing.pack(first.federation) + b"\xcc\x01"
    )
    assert len(longer) == len(first.payload) + 1
    for body in (b"\xdc\x00\x02" + first.body[1:], packing.pack([longer, signatures])):
        with pytest.raises(TrustError, match="shortest form"):
            bundle.parse(body, "test")


def test_every_root_signs_the_first_version(federation: TestFederation) -> None:
    """One root alone brings in no other with version 1."""
    (first,) = federation.authority.bundles()
    more = a_generation(federation, 4)
    offered = next_bundle(
        first,
        [*admin_keys(federation)[:2], federation.root.key],
        version=1,
        roots=[*first.roots, more.root.certificate],
        crls=[*first.crls, more.crls[0]],
    )
    with pytest.raises(TrustError, match="E-BUNDLE-SIG: version 1: a root has not signed it"):
        bundle_rules.check_start(offered, first.roots)
    bundle_rules.check_start(offered.with_signature(more.root.key), first.roots)


_SAMPLE: list[tuple[Bundle, Bundle]] = []


@given(st.data())
def test_a_changed_byte_is_never_taken(federation: TestFederation, data: st.DataObject) -> None:
    """Whatever byte of a good bundle is changed, it is refused with a code and no other error."""
    if not _SAMPLE:
        (first,) = federation.authority.bundles()
        _SAMPLE.append((first, next_bundle(first, admin_keys(federation)[:2])))
    first, good = _SAMPLE[0]
    body = bytearray(good.body)
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TrustError) as caught:
        bundle_rules.check_next(first, bundle.parse(bytes(body), "test"))
    assert caught.value.code.startswith("E-BUNDLE")


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_one_way(content: bytes) -> None:
    """No bytes raise anything but E-BUNDLE-FORM."""
    with pytest.raises(TrustError) as caught:
        bundle.parse(content, "test")
    assert caught.value.code == "E-BUNDLE-FORM"


def test_a_history_grows_at_both_ends_and_has_no_twins(federation: TestFederation) -> None:
    """What is missing before and after is taken in any order; a hole is refused; of two signed twins none replaces an old one."""
    versions = history(federation, 5)
    assert (
        bundle_rules.extend(versions[2:3], [versions[4], versions[3], versions[1], versions[0]], ())
        == versions
    )
    assert bundle_rules.extend(versions, versions, ()) == versions
    with pytest.raises(TrustError, match="E-BUNDLE: version 5 after 3; version 4 is needed first"):
        bundle_rules.extend(versions[:3], [versions[4]], ())
    with pytest.raises(TrustError, match="E-BUNDLE"):
        bundle_rules.walk([versions[0], versions[2]])
    signers = admin_keys(federation)[:2]
    old_twin = next_bundle(versions[1], signers, not_after_ms=FAR_MS + 77)
    for takes_forks in (False, True):
        with pytest.raises(TrustError) as caught:
            bundle_rules.extend(versions, [old_twin], (), takes_forks=takes_forks)
        assert (caught.value.code, caught.value.exit_code) == ("E-BUNDLE-FORK", 6)
    twin = next_bundle(versions[3], signers, not_after_ms=FAR_MS + 77)
    with pytest.raises(TrustError, match="E-BUNDLE-FORK"):
        bundle_rules.extend(versions, [twin], ())
    assert bundle_rules.extend(versions, [twin], (), takes_forks=True)[-1] == twin
    forged = next_bundle(versions[3], signers[:1], not_after_ms=FAR_MS + 78)
    with pytest.raises(TrustError, match="E-BUNDLE-SIG"):
        bundle_rules.extend(versions, [forged], (), takes_forks=True)


_HISTORY: list[tuple[Bundle, ...]] = []


@given(st.integers(0, 5), st.lists(st.integers(0, 5), max_size=40))
def test_in_any_order_a_history_only_grows_and_ends_whole(
    federation: TestFederation, start: int, order: list[int]
) -> None:
    """Versions that come one at a time, in any order, however often: never fewer, never a hole, and all in the end."""
    if not _HISTORY:
        _HISTORY.append(history(federation, 6))
    versions = _HISTORY[0]
    held: tuple[Bundle, ...] = versions[start : start + 1]
    # Whoever refuses what comes too early is offered it again: as many rounds as there are versions are enough.
    for place in [*order, *list(range(6)) * 6]:
        before = held
        with contextlib.suppress(TrustError):
            held = bundle_rules.extend(held, [versions[place]], ())
        assert all(one in held for one in before)
        numbers = [one.version for one in held]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert held == versions


def test_bundles_travel_as_blocks_beside_other_things(federation: TestFederation, tmp_path: Path) -> None:
    """PEM blocks and files give back the same bundles; a damaged block is refused."""
    versions = history(federation, 2)
    content = b"-----BEGIN X-----\nAA==\n-----END X-----\n" + bundle_files.blocks(versions)
    assert bundle_files.read_blocks(content, "test") == list(versions)
    (tmp_path / "one").write_bytes(versions[1].body)
    (tmp_path / "all").write_bytes(content)
    assert bundle_files.read_file(tmp_path / "one") == [versions[1]]
    assert bundle_files.read_file(tmp_path / "all") == list(versions)
    with pytest.raises(TrustError, match="E-BUNDLE-FORM"):
        bundle_files.read_blocks(content.replace(b"k", b"!"), "test")


def test_a_federation_may_be_founded_without(tmp_path: Path) -> None:
    """No administrators' keys, no bundle, nothing else missing; a threshold out of reach is refused."""
    authority = create_authority(tmp_path / "trust", tmp_path / "private", FEDERATION, 0, None, admin_keys=0)
    assert authority.bundles() == ()
    assert Authority.open(tmp_path / "trust", tmp_path / "private").bundles() == ()
    with pytest.raises(TrustError, match="E-USAGE"):
        create_authority(tmp_path / "two", tmp_path / "keys", FEDERATION, 0, None, admin_keys=2, threshold=3)
    assert not (tmp_path / "two").exists()
    assert a_federation(tmp_path / "three").authority.bundles()[0].threshold == 1


def test_the_bytes_of_a_bundle_stay_what_they_are() -> None:
    """Two bundles written once are read, judged and written again to the byte: the form is a promise to other programs."""
    folder = Path(__file__).parents[1] / "golden" / "bundles"
    bodies = [bytes.fromhex(path.read_text().replace("\n", "")) for path in sorted(folder.glob("*.hex"))]
    first, second = (bundle.parse(body, "golden") for body in bodies)
    assert [first.body, second.body] == bodies
    bundle_rules.check_start(first, first.roots)
    bundle_rules.check_next(first, second)
    made = next_bundle(first, issuers=second.issuers, not_after_ms=second.not_after_ms)
    assert made.payload == second.payload
    assert second.issuers[0].policy == bundle.IssuerPolicy((".example.org",), ("member",), (), 90)
    assert first.issuers[0].policy == bundle.IssuerPolicy()
