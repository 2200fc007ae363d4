"""Secrets in bad hands and bad times: signers without standing, clocks set back, twins, leftovers; nothing is lost, nothing told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import packing
from esgf_gossip.core.errors import ObjectRefused
from esgf_gossip.trust import seal_key, sealed_register, sealing, secret_object
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import SEALED_FOLDER, TrustMaterial, trust_files
from esgf_gossip.trust.objects import TrustObjects
from esgf_gossip.trust.seal_key import SealKey
from esgf_gossip.trust.sealed_register import SealedEntry
from esgf_gossip.trust.secret_store import SecretStore
from helpers.trust import DAY_MS, TestFederation, a_federation
from helpers.trust_admin import admin, run

A, B = "a.example.org", "b.example.org"
FIRST, SECOND = "first.example.org", "second.example.org"
PLAIN = b"Correct-Horse-Battery-Staple-7f"
NAME = "esgcet"
KEY = f"secret/{A}/{NAME}"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _founded(directory: Path) -> TestFederation:
    found = a_federation(directory, roles=(sealing.SECRET_ADMIN,))
    for host in (A, B):
        found.node(host)
    for host in (FIRST, SECOND):
        found.node(host, roles=(sealing.SECRET_ADMIN,))
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found a federation of two nodes and two who may seal; for tests that change nothing of its trust."""
    return _founded(tmp_path_factory.mktemp("secrets") / "federation")


@pytest.fixture
def own(tmp_path: Path) -> TestFederation:
    """Found a federation for one test to change."""
    return _founded(tmp_path / "federation")


def certified(federation: TestFederation, host: str) -> bytes:
    """Return a node's seal key as it publishes it."""
    material = federation.material(host)
    private = seal_key.ensure_key(federation.node(host), federation.now_ms)
    return seal_key.with_chain(seal_key.certify(material, private), material.signer.chain)


def key_of(federation: TestFederation, host: str = A) -> SealKey:
    """Return a node's public seal key, unchecked."""
    private = seal_key.ensure_key(federation.node(host), federation.now_ms)
    return SealKey(host, private.public_key().public_bytes_raw())


def sealed(
    federation: TestFederation, version: int = 1, signer: str = FIRST, name: str = NAME, plain: bytes = PLAIN
) -> bytes:
    """Return an envelope for node A."""
    return sealing.seal(
        plain, key_of(federation), name, version, federation.material(signer), now_ms=federation.now_ms
    )


def code_of(call: Callable[[], object]) -> str:
    """Return the code of the refusal."""
    with pytest.raises(TrustError) as caught:
        call()
    return caught.value.code


def config_of(federation: TestFederation, host: str) -> Path:
    """Return a node.toml of a node."""
    path = federation.node(host).parent / "node.toml"
    path.write_text(f'[node]\nhost = "{host}"\nfederation = "{federation.name}"\n')
    return path


def seal_words(federation: TestFederation, tmp_path: Path, *, signer: str = FIRST) -> tuple[object, ...]:
    """Return the words of a good secret seal, to node A, without --out."""
    key = tmp_path / "a.sealkey"
    key.write_bytes(certified(federation, A))
    place = ("--seal-key", key, "--signer", federation.node(signer), *admin(federation))
    return ("secret", "seal", "--to", A, "--name", NAME, "--in", "-", *place)


# --------------------------------------------------------------------- who may seal


def test_after_a_signer_is_revoked_its_secrets_are_refused_and_anothers_taken(own: TestFederation) -> None:
    """Revocation ends what was sealed, and does not stand in the way of who seals next."""
    before = sealed(own, 1, FIRST)
    own.revoke([own.serial(FIRST)], B)
    objects = TrustObjects(own.node(B), own.material(B))
    with pytest.raises(ObjectRefused, match="E-CHAIN-23"):
        objects.judge_object(KEY, before, None, own.now_ms)
    after = sealed(own, 2, SECOND)
    assert objects.judge_object(KEY, after, before, own.now_ms).number == 2


def test_an_import_is_not_hindered_by_what_a_revoked_signer_left(own: TestFederation, tmp_path: Path) -> None:
    """A file of a signer that was revoked since is replaced like any other, and older versions stay refused."""
    files = []
    for version, signer in ((2, FIRST), (3, SECOND), (1, SECOND)):
        files.append(tmp_path / f"{version}.sealed")
        files[-1].write_bytes(sealed(own, version, signer))
    config = config_of(own, B)
    assert run("secret", "import", files[0], "--config", config).code == 0
    own.revoke([own.serial(FIRST)], B)
    assert run("secret", "import", files[2], "--config", config).error == "E-SEAL-OLD"
    ran = run("secret", "import", files[1], "--config", config)
    assert (ran.code, ran.err) == (0, "")


def test_a_revoked_signer_seals_nothing_though_its_own_folder_does_not_know(
    own: TestFederation, tmp_path: Path
) -> None:
    """The administration's newest list decides, before anything is made or noted."""
    own.revoke([own.serial(FIRST)])
    ran = run(*seal_words(own, tmp_path), "--out", tmp_path / "x", stdin=PLAIN.decode())
    assert (ran.code, ran.error) == (3, "E-CHAIN-23")
    assert not (tmp_path / "x").exists()
    assert sealed_register.sealed(own.authority.directory) == []


def test_a_signers_folder_needs_no_fresh_list(own: TestFederation, tmp_path: Path) -> None:
    """Nobody brings CRLs to an operator's folder: the administration's count, or sealing ends 28 days after."""
    later = own.now_ms + 40 * DAY_MS
    words = seal_words(own, tmp_path)
    own.publish(own.crl(9, at_ms=later - DAY_MS))
    now = datetime.fromtimestamp(later // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
    ran = run(*words, "--out", tmp_path / "x", "--now", now, stdin=PLAIN.decode())
    assert (ran.code, ran.err) == (0, "")


def test_nothing_is_sealed_to_a_revoked_node(own: TestFederation, tmp_path: Path) -> None:
    """A stolen node gets no new secret."""
    words = seal_words(own, tmp_path)
    own.revoke([own.serial(A)])
    ran = run(*words, "--out", tmp_path / "x", stdin=PLAIN.decode())
    assert (ran.code, ran.error) == (3, "E-CHAIN-23")


def test_a_role_beyond_the_bounds_of_its_issuing_ca_seals_nothing(shared: TestFederation) -> None:
    """An issuing CA that hands out the role against the bundle makes no secret-admin."""
    body = sealed(shared)
    tight = _bounded(shared, B, roles=())
    assert code_of(lambda: sealing.read(body, tight, shared.now_ms)) == "E-POLICY"
    assert sealing.read(body, shared.material(B), shared.now_ms).version == 1


def _bounded(federation: TestFederation, host: str, **bounds: tuple[str, ...]) -> TrustMaterial:
    material = federation.material(host)
    assert material.bundle is not None
    issuers = tuple(
        attrs.evolve(one, policy=attrs.evolve(one.policy, **bounds)) for one in material.bundle.issuers
    )
    return attrs.evolve(material, bundles=(attrs.evolve(material.bundle, issuers=issuers),))


def test_nothing_is_sealed_to_a_node_beyond_the_bounds_of_its_issuing_ca(shared: TestFederation) -> None:
    """A seal key counts no more than the certificate it hangs on."""
    material, tight = shared.material(A), _bounded(shared, B, groups=("elsewhere",)).bundle
    for bundle, code in ((material.bundle, ""), (tight, "E-POLICY")):
        read = lambda bundle=bundle: seal_key.read_certified(
            certified(shared, A), material.anchors, bundle, shared.name, shared.now_ms
        )
        assert (code_of(read) if code else read().host) == (code or A)


# --------------------------------------------------------------------- envelopes


def test_nobody_else_can_dress_a_secret_differently(shared: TestFederation) -> None:
    """The other form of the signature, and another chain, are refused: they would pass for a contradiction of the signer."""
    body, material = sealed(shared), shared.material(B)
    payload, signature = packing.array(packing.unpack(body), 2, "")
    r, s = decode_dss_signature(signature)
    twin = encode_dss_signature(r, P256_ORDER - s)
    key = shared.material(FIRST).leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(twin, b"esgf-gossip/secret/1\0" + payload, ec.ECDSA(hashes.SHA256()))
    fields = packing.array(packing.unpack(payload), 10, "")
    longer = packing.pack([*fields[:9], [*fields[9], material.signer.chain[0]]])
    for other in (packing.pack([payload, twin]), packing.pack([longer, signature])):
        assert code_of(lambda other=other: sealing.read(other, material, shared.now_ms)) == "E-SEAL"


def test_no_part_and_no_byte_of_it_can_differ(
    own: TestFederation, everything_said: Callable[[], str]
) -> None:
    """Cut anywhere, or any byte replaced, another node refuses to carry it, for good, and says nothing of the secret."""
    body = sealed(own)
    objects = TrustObjects(own.node(B), own.material(B))
    for place in range(len(body)):
        turned = body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]
        for other in (turned, body[:place]):
            with pytest.raises(ObjectRefused) as caught:
                objects.judge_object(KEY, other, None, own.now_ms)
            assert PLAIN.decode() not in str(caught.value)
    with pytest.raises(ObjectRefused):
        objects.judge_object(KEY, body + b"\0", None, own.now_ms)
    assert objects.judge_object(KEY, body, None, own.now_ms).number == 1
    assert PLAIN.decode() not in everything_said()


@given(
    st.binary(min_size=1, max_size=256),
    # 128 times 256 bytes is the bound.
    st.sampled_from([1, 2, sealing.SECRET_BYTES // 256]),
    st.integers(1, 2**62),
)
@settings(max_examples=30, deadline=None)
def test_whatever_is_sealed_is_opened_by_its_node_and_no_other(
    shared: TestFederation, part: bytes, times: int, version: int
) -> None:
    """Any bytes, up to the bound, come out as they went in, on A; B gets nothing."""
    plain = part * times
    body = sealed(shared, version, plain=plain)
    found = sealing.read(body, shared.material(A), shared.now_ms)
    assert sealing.open_sealed(found, shared.node(A), A, shared.now_ms) == plain
    assert found.version == version
    assert code_of(lambda: sealing.open_sealed(found, shared.node(B), B, shared.now_ms)) == "E-SEAL"


def test_a_refusal_tells_nothing_of_the_secret(
    own: TestFederation, tmp_path: Path, everything_said: Callable[[], str]
) -> None:
    """Row 15 of the bad inputs: wrong node, wrong name, replay, damage, retired key: code, exit, and not a word of it."""
    good = tmp_path / "good.sealed"
    good.write_bytes(sealed(own, 3))
    out = ("--out", tmp_path / "out")

    def refused(*words: object, host: str = A) -> tuple[int, str]:
        ran = run(*words, "--config", config_of(own, host))
        said.append(ran.out + ran.err)
        return ran.code, ran.error

    said: list[str] = []
    words = ("secret", "open", "--name", NAME, "--in", good, *out)
    assert refused(*words, host=B) == (3, "E-SEAL")
    assert refused("secret", "open", "--name", "other", "--in", good, *out) == (3, "E-SEAL")
    damaged = tmp_path / "damaged.sealed"
    damaged.write_bytes(good.read_bytes()[:-1])
    assert refused("secret", "open", "--name", NAME, "--in", damaged, *out) == (3, "E-SEAL")
    SecretStore(own.node(A)).keep(NAME, 4, PLAIN)
    assert refused(*words) == (6, "E-SEAL-OLD")
    newer = tmp_path / "newer.sealed"
    newer.write_bytes(sealed(own, 5))
    for path in (own.node(A) / "seal").iterdir():
        path.unlink()
    seal_key.ensure_key(own.node(A), own.now_ms)
    assert refused("secret", "open", "--name", NAME, "--in", newer, *out) == (3, "E-SEAL-OPEN")
    assert not (tmp_path / "out").exists()
    assert PLAIN.decode() not in "".join(said) + everything_said()


def test_what_went_into_force_is_never_logged(
    own: TestFederation, tmp_path: Path, everything_said: Callable[[], str]
) -> None:
    """Sealed, imported, applied and listed: neither log nor output has the secret."""
    envelope = tmp_path / "x"
    said = [run(*seal_words(own, tmp_path), "--out", envelope, stdin=PLAIN.decode())]
    body = envelope.read_bytes()
    said.append(run("secret", "import", envelope, "--config", config_of(own, B), "--json"))
    secret_object.apply(own.node(A), KEY, body, own.material(A), own.now_ms)
    said.append(run("secret", "list", "--config", config_of(own, A)))
    said.append(run("secret", "list", *admin(own)[:2], "--json"))
    assert [ran.code for ran in said] == [0] * 4
    assert SecretStore(own.node(A)).path(NAME).read_bytes() == PLAIN
    assert PLAIN.decode() not in "".join(ran.out + ran.err for ran in said) + everything_said()


# --------------------------------------------------------------------- seal keys


def test_a_clock_set_back_does_not_lose_the_new_seal_key(own: TestFederation) -> None:
    """The key made last is the one in use and stays on the disk, whatever the clock says."""
    directory = own.node(A)
    for back_ms in (0, DAY_MS, 2 * DAY_MS):
        made = seal_key.ensure_key(directory, own.now_ms - back_ms, rotate=True)
        in_use = seal_key.ensure_key(directory, own.now_ms)
        assert in_use.private_bytes_raw() == made.private_bytes_raw()


def test_a_seal_key_stays_while_a_secret_in_force_was_sealed_to_it(own: TestFederation) -> None:
    """However often the key is changed, the newest envelope of each name still opens; after the next version it may go."""
    directory = own.node(A)
    store = SecretStore(directory)
    first = sealed(own, 1)
    secret_object.apply(directory, KEY, first, own.material(A), own.now_ms)
    old = sealing.read(first, own.material(A), own.now_ms)
    for step in range(1, 5):
        seal_key.ensure_key(directory, own.now_ms + step, rotate=True, needed=store.key_ids())
    assert sealing.open_sealed(old, directory, A, own.now_ms) == PLAIN
    secret_object.apply(directory, KEY, sealed(own, 2), own.material(A), own.now_ms)
    for step in range(5, 8):
        seal_key.ensure_key(directory, own.now_ms + step, rotate=True, needed=store.key_ids())
    assert code_of(lambda: sealing.open_sealed(old, directory, A, own.now_ms)) == "E-SEAL-OPEN"


def test_a_new_seal_key_is_news_for_the_daemon(own: TestFederation) -> None:
    """It is published without anybody's reload, or others would seal to a key that goes."""
    directory = own.node(A)
    before = set(trust_files(directory))
    seal_key.ensure_key(directory, own.now_ms + 1, rotate=True)
    assert len(set(trust_files(directory)) - before) == 1


# --------------------------------------------------------------------- places


def test_two_envelopes_never_share_a_file(own: TestFederation, tmp_path: Path) -> None:
    """Host names and names of secrets both have dots: what is imported for one takes the place of no other."""
    own.node("a.example.org.b")
    one, other = tmp_path / "one.sealed", tmp_path / "other.sealed"
    one.write_bytes(sealed(own, 5, name="b.c"))
    to = key_of(own, "a.example.org.b")
    other.write_bytes(sealing.seal(PLAIN, to, "c", 1, own.material(FIRST), now_ms=own.now_ms))
    for file in (one, other):
        ran = run("secret", "import", file, "--config", config_of(own, B))
        assert (ran.code, ran.err) == (0, "")
    keys = [key for key, _ in secret_object.offered(own.node(B), own.material(B))]
    assert sorted(keys) == [f"secret/{A}.b/c", f"secret/{A}/b.c"]


def test_of_several_files_all_are_good_or_none_is_taken(own: TestFederation, tmp_path: Path) -> None:
    """One that is too old stops the rest."""
    files = []
    for version, name in ((2, NAME), (1, "another"), (1, NAME)):
        files.append(tmp_path / f"{name}.{version}")
        files[-1].write_bytes(sealed(own, version, name=name))
    config = config_of(own, B)
    assert run("secret", "import", files[0], "--config", config).code == 0
    assert run("secret", "import", files[1], files[2], "--config", config).error == "E-SEAL-OLD"
    assert [key for key, _ in secret_object.offered(own.node(B), own.material(B))] == [KEY]


def test_a_twin_of_a_version_is_not_imported_over_it(own: TestFederation, tmp_path: Path) -> None:
    """Same number, other content: an administration that runs twice is told so; the same file again is nothing to do."""
    one, twin = tmp_path / "one", tmp_path / "twin"
    one.write_bytes(sealed(own, 1, FIRST))
    twin.write_bytes(sealed(own, 1, SECOND))
    config = config_of(own, B)
    assert [run("secret", "import", one, "--config", config).code for _ in range(2)] == [0, 0]
    ran = run("secret", "import", twin, "--config", config)
    assert (ran.code, ran.error) == (6, "E-SEAL-OLD")


def test_what_was_handed_over_goes_when_a_newer_version_is_in_force(
    own: TestFederation, tmp_path: Path
) -> None:
    """A node that once was the door does not offer, and have refused, the old envelope at every start."""
    file = tmp_path / "one"
    file.write_bytes(sealed(own, 1))
    run("secret", "import", file, "--config", config_of(own, B))
    directory, material = own.node(B), own.material(B)
    secret_object.apply(directory, KEY, sealed(own, 1, SECOND), material, own.now_ms)
    assert len(list((directory / SEALED_FOLDER).iterdir())) == 1
    secret_object.apply(directory, KEY, sealed(own, 2), material, own.now_ms)
    assert list((directory / SEALED_FOLDER).iterdir()) == []


@pytest.mark.parametrize("state", ["[]", '{"esgcet": 3}', '{"esgcet": {"version": "x", "told": 0}}', "{"])
def test_a_damaged_state_is_one_line(shared: TestFederation, tmp_path: Path, state: str) -> None:
    """What a crash or an editor left is told with the name of the file, by every reader."""
    store = SecretStore(tmp_path)
    store.folder.mkdir()
    (store.folder / ".opened.json").write_text(state)
    for call in (store.receipts, store.untold, store.key_ids, lambda: store.version(NAME)):
        assert code_of(call) == "E-FILE"
    assert code_of(lambda: store.keep(NAME, 9, PLAIN)) == "E-FILE"
    assert not store.path(NAME).exists()


def test_the_folder_of_secrets_is_private_whoever_made_it(tmp_path: Path) -> None:
    """A folder that somebody made by hand, and what a crash left in it, do not stay readable or lie about."""
    store = SecretStore(tmp_path)
    store.folder.mkdir(mode=0o755)
    store.folder.chmod(0o755)
    (store.folder / ".esgcet.0123456789ab.tmp").write_bytes(PLAIN)
    assert store.keep(NAME, 1, PLAIN)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in store.folder.iterdir()) == [".opened.json", NAME]


def test_a_secret_is_not_opened_into_a_work_tree_of_git(own: TestFederation, tmp_path: Path) -> None:
    """What git would pick up is refused before it is written."""
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    SecretStore(own.node(A)).keep(NAME, 1, PLAIN)
    out = tmp_path / "repository" / "plain"
    ran = run("secret", "open", "--name", NAME, "--out", out, "--config", config_of(own, A))
    assert (ran.code, ran.error, out.exists()) == (4, "E-GIT", False)


# --------------------------------------------------------------------- the administration


def test_one_version_is_given_once(tmp_path: Path) -> None:
    """Two who seal at the same time do not both make version 1."""
    entry = SealedEntry(A, NAME, 1, 0)
    sealed_register.note(tmp_path, entry)
    assert code_of(lambda: sealed_register.note(tmp_path, entry)) == "E-SEAL-OLD"
    sealed_register.note(tmp_path, attrs.evolve(entry, version=2))
    assert [one.version for one in sealed_register.sealed_for(tmp_path, A)] == [2]


def test_a_secret_lives_to_the_end_of_its_last_day(own: TestFederation, tmp_path: Path) -> None:
    """--expires names the last day it opens, in UTC; a day that is over is refused before anything is made."""
    day = datetime.fromtimestamp(own.now_ms / 1000, UTC).date()
    words = seal_words(own, tmp_path)
    ran = run(*words, "--out", tmp_path / "x", "--expires", day.isoformat(), stdin=PLAIN.decode())
    assert (ran.code, ran.err) == (0, "")
    found = sealing.read((tmp_path / "x").read_bytes(), own.material(A), own.now_ms)
    end = datetime.fromtimestamp(found.expires_at_s, UTC)
    assert (end.date() - day).days == 1
    assert (end.hour, end.minute, end.second) == (0, 0, 0)
    ran = run(*words, "--out", tmp_path / "y", "--expires", "2001-01-01", stdin=PLAIN.decode())
    assert (ran.code, ran.error) == (2, "E-USAGE")
    listed = json.loads(run("secret", "list", *admin(own)[:2], "--json").out)
    assert [one["expires"] for one in listed] == [end.strftime("%Y-%m-%dT%H:%M:%SZ")]
