"""Secrets: sealed to one node and opened by that alone; whatever else is tried opens nothing and tells nothing."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.core import packing
from esgf_gossip.core.errors import ObjectRefused
from esgf_gossip.trust import seal_key, sealing, secret_object
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.objects import TrustObjects
from esgf_gossip.trust.seal_key import SealKey
from esgf_gossip.trust.secret_store import SecretStore
from esgf_gossip.trust.statement import TrustStatement, WireError, read_statement
from helpers.trust import DAY_MS, TestFederation, a_federation
from helpers.trust_admin import admin, run

A, B, OPERATOR = "a.example.org", "b.example.org", "operator.example.org"
PLAIN = b"Correct-Horse-Battery-Staple-7f"
NAME = "esgcet"
KEY = f"secret/{A}/{NAME}"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found a federation of two nodes and an operator who may seal."""
    found = a_federation(tmp_path_factory.mktemp("secrets") / "federation", roles=(sealing.SECRET_ADMIN,))
    found.node(A)
    found.node(B)
    found.node(OPERATOR, roles=(sealing.SECRET_ADMIN,))
    return found


def key_of(federation: TestFederation, host: str) -> SealKey:
    """Return a node's certified seal key, checked."""
    material = federation.material(host)
    private = seal_key.ensure_key(federation.node(host), federation.now_ms)
    content = seal_key.with_chain(seal_key.certify(material, private), material.signer.chain)
    return seal_key.read_certified(
        content, material.anchors, material.bundle, federation.name, federation.now_ms
    )


def sealed(federation: TestFederation, host: str = A, version: int = 1, **changes: object) -> bytes:
    """Return an envelope for a node."""
    fields: dict[str, object] = {"now_ms": federation.now_ms, **changes}
    signer = fields.pop("signer", None) or federation.material(OPERATOR)
    assert isinstance(signer, TrustMaterial)
    return sealing.seal(PLAIN, key_of(federation, host), NAME, version, signer, **fields)  # type: ignore[arg-type]


def opened(federation: TestFederation, body: bytes, host: str = A, now_ms: int | None = None) -> bytes:
    """Open an envelope as a node would."""
    now_ms = federation.now_ms if now_ms is None else now_ms
    material = federation.material(host)
    found = sealing.read(body, material, now_ms)
    return sealing.open_sealed(found, federation.node(host), host, now_ms)


def code_of(call: Callable[[], object]) -> str:
    """Return the code of the refusal."""
    with pytest.raises(TrustError) as caught:
        call()
    assert PLAIN.decode() not in str(caught.value)
    return caught.value.code


def test_a_opens_what_is_sealed_to_a(federation: TestFederation) -> None:
    """The receiver gets exactly what was sealed; the envelope does not show it."""
    body = sealed(federation)
    assert opened(federation, body) == PLAIN
    assert PLAIN not in body


def test_b_opens_nothing_of_it(federation: TestFederation) -> None:
    """Another member has the envelope and not the secret, even if it claims to be the receiver."""
    body = sealed(federation)
    assert code_of(lambda: opened(federation, body, B)) == "E-SEAL"
    material = federation.material(B)
    found = attrs.evolve(sealing.read(body, material, federation.now_ms), host=B)
    seal_key.ensure_key(federation.node(B), federation.now_ms)
    assert (
        code_of(lambda: sealing.open_sealed(found, federation.node(B), B, federation.now_ms)) == "E-SEAL-OPEN"
    )


def test_every_byte_counts(federation: TestFederation) -> None:
    """Whichever byte of an envelope is turned, it is refused, and nothing of the secret is told."""
    body = sealed(federation)
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    logging.getLogger().addHandler(handler)
    try:
        for place in range(len(body)):
            turned = body[:place] + bytes([body[place] ^ 0x01]) + body[place + 1 :]
            with pytest.raises(TrustError):
                opened(federation, turned)
    finally:
        logging.getLogger().removeHandler(handler)
    assert PLAIN.decode() not in logged.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"version": 2},
        {"expires_at_s": 1 << 40},
        {"sealed_at_s": 5},
        {"federation": "x.example.org"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_encryption_is_bound_to_what_the_envelope_says(
    federation: TestFederation, change: dict[str, object]
) -> None:
    """A signer that moves a ciphertext to another name, version or date opens nothing by it."""
    material = federation.material(A)
    found = sealing.read(sealed(federation), material, federation.now_ms)
    moved = attrs.evolve(found, **change)
    assert (
        code_of(lambda: sealing.open_sealed(moved, federation.node(A), A, federation.now_ms)) == "E-SEAL-OPEN"
    )


def test_only_a_secret_admin_seals(federation: TestFederation) -> None:
    """Without the role nothing is sealed, and what is sealed all the same is refused by every node."""
    assert code_of(lambda: sealed(federation, signer=federation.material(B))) == "E-POLICY"
    posing = federation.material(B)
    posing = attrs.evolve(posing, names=attrs.evolve(posing.names, roles=(sealing.SECRET_ADMIN,)))
    body = sealed(federation, signer=posing)
    assert code_of(lambda: opened(federation, body)) == "E-POLICY"


def test_what_has_expired_opens_no_more(federation: TestFederation) -> None:
    """Until its day it opens, after it it does not."""
    end_s = federation.now_ms // 1000 + 3600
    body = sealed(federation, expires_at_s=end_s)
    assert opened(federation, body, now_ms=(end_s - 1) * 1000) == PLAIN
    assert code_of(lambda: opened(federation, body, now_ms=(end_s + 1) * 1000)) == "E-SEAL-EXPIRED"


@pytest.mark.parametrize("size", [0, sealing.SECRET_BYTES + 1])
def test_a_secret_has_a_size(federation: TestFederation, size: int) -> None:
    """Nothing, and more than the bound, is refused before anything is made."""
    key, signer = key_of(federation, A), federation.material(OPERATOR)
    call = lambda: sealing.seal(b"x" * size, key, NAME, 1, signer, now_ms=federation.now_ms)
    assert code_of(call) == "E-SIZE"


@pytest.mark.parametrize("name", ["", "../node.key", ".opened.json", "A", "a" * 65, "a/b", "a\n"])
def test_names_cannot_leave_the_folder(federation: TestFederation, name: str) -> None:
    """What is no plain name is refused wherever it comes in."""
    key, signer = key_of(federation, A), federation.material(OPERATOR)
    assert code_of(lambda: sealing.seal(PLAIN, key, name, 1, signer, now_ms=federation.now_ms)) == "E-NAME"
    assert code_of(lambda: SecretStore(federation.node(A)).keep(name, 1, PLAIN)) == "E-NAME"


def judge(federation: TestFederation, body: bytes, held: bytes | None = None, key: str = KEY) -> int:
    """Judge an envelope on the other node; return its number."""
    objects = TrustObjects(federation.node(B), federation.material(B))
    return objects.judge_object(key, body, held, federation.now_ms).number


def test_versions_only_rise(federation: TestFederation) -> None:
    """A replay of an earlier version is refused with both numbers."""
    one, two = sealed(federation, version=1), sealed(federation, version=2)
    assert judge(federation, two, one) == 2
    with pytest.raises(ObjectRefused, match="E-SEAL-OLD: version 1, already at 2"):
        judge(federation, one, two)


def test_the_key_of_the_object_names_receiver_and_secret(federation: TestFederation) -> None:
    """An envelope under another node's or name's key is refused."""
    for key in (f"secret/{B}/{NAME}", f"secret/{A}/other"):
        with pytest.raises(ObjectRefused, match="is not for"):
            judge(federation, sealed(federation), key=key)


def test_dated_ahead_is_refused_for_now_only(federation: TestFederation) -> None:
    """The clock alone is no lasting verdict."""
    with pytest.raises(ObjectRefused) as caught:
        judge(federation, sealed(federation, now_ms=federation.now_ms + DAY_MS))
    assert not caught.value.lasting


def test_it_is_kept_once_private_and_never_falls(federation: TestFederation) -> None:
    """On its node it is a file of mode 0600 in 0700; a later application of an earlier version changes nothing."""
    directory, material = federation.node(A), federation.material(A)
    for version in (4, 3, 4):
        body = sealed(federation, version=version)
        assert not secret_object.apply(directory, KEY, body, material, federation.now_ms)
    store = SecretStore(directory)
    path = store.path(NAME)
    assert (path.read_bytes(), path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (
        PLAIN,
        0o600,
        0o700,
    )
    assert store.receipts() == [(NAME, 4)]
    assert store.untold() == [(NAME, 4)]
    store.note_told(NAME, 4)
    assert store.untold() == []
    elsewhere = SecretStore(federation.node(B))
    secret_object.apply(
        federation.node(B), KEY, sealed(federation, version=9), federation.material(B), federation.now_ms
    )
    assert elsewhere.receipts() == []


def test_a_new_seal_key_and_the_last_one_open_older_ones_do_not(
    federation: TestFederation, tmp_path: Path
) -> None:
    """What was sealed just before a rotation still opens; two rotations later it is retired."""
    own = a_federation(tmp_path / "own", roles=(sealing.SECRET_ADMIN,))
    own.node(A)
    own.node(OPERATOR, roles=(sealing.SECRET_ADMIN,))
    body = sealed(own)
    seal_key.ensure_key(own.node(A), own.now_ms + 1, rotate=True)
    assert opened(own, body) == PLAIN
    seal_key.ensure_key(own.node(A), own.now_ms + 2, rotate=True)
    assert code_of(lambda: opened(own, body)) == "E-SEAL-OPEN"
    assert {path.stat().st_mode & 0o777 for path in (own.node(A) / "seal").iterdir()} == {0o600}


def test_a_seal_key_of_somebody_else_is_refused(federation: TestFederation) -> None:
    """A member cannot certify a key in another's name, nor change a byte of a certified one."""
    material, private = federation.material(A), seal_key.ensure_key(federation.node(A), federation.now_ms)
    good = seal_key.with_chain(seal_key.certify(material, private), material.signer.chain)
    posing = attrs.evolve(federation.material(B), names=material.names)
    forged = seal_key.with_chain(seal_key.certify(posing, private), posing.signer.chain)
    for content in (forged, b"", b"x", good[:-1], packing.pack([1, 2, 3])):
        read = lambda content=content: seal_key.read_certified(
            content, material.anchors, material.bundle, federation.name, federation.now_ms
        )
        assert code_of(read) == "E-SEAL"


def _config(federation: TestFederation, host: str) -> Path:
    config = federation.node(host).parent / "node.toml"
    config.write_text(f'[node]\nhost = "{host}"\nfederation = "{federation.name}"\n')
    return config


def test_the_commands_from_key_to_receipt(federation: TestFederation, tmp_path: Path) -> None:
    """Seal key out, secret sealed from a pipe, imported on another node, opened on its own: nothing of it on any output."""
    key, envelope, out = tmp_path / "a.sealkey", tmp_path / "one.sealed", tmp_path / "plain"
    assert run("secret", "key", "--config", _config(federation, A), "--out", key).code == 0
    sealing_words = (
        "--to",
        A,
        "--name",
        "db",
        "--in",
        "-",
        "--seal-key",
        key,
        "--signer",
        federation.node(OPERATOR),
    )
    ran = run("secret", "seal", *sealing_words, "--out", envelope, *admin(federation), stdin=PLAIN.decode())
    assert (ran.code, ran.err) == (0, "")
    assert PLAIN.decode() not in ran.out + envelope.read_bytes().decode("latin-1")
    assert run("secret", "import", envelope, "--config", _config(federation, B)).code == 0
    offered = secret_object.offered(federation.node(B), federation.material(B))
    assert [name for name, _ in offered] == [f"secret/{A}/db"]
    words = ("secret", "open", "--name", "db", "--in", envelope)
    assert run(*words, "--out", out, "--config", _config(federation, A)).code == 0
    assert (out.read_bytes(), out.stat().st_mode & 0o777) == (PLAIN, 0o600)
    again = run(*words, "--out", out, "--config", _config(federation, A))
    assert (again.code, again.error) == (6, "E-EXISTS")
    wrong = run(*words, "--out", tmp_path / "other", "--config", _config(federation, B))
    assert (wrong.code, wrong.error) == (3, "E-SEAL")
    assert wrong.err.startswith(f"trust-admin: error [E-SEAL]: sealed for node '{A}', this is '{B}'")
    listed = json.loads(
        run("secret", "list", "--node", A, "--dir", federation.authority.directory, "--json").out
    )
    assert [(one["name"], one["version"]) for one in listed] == [("db", 1)]
    assert run("log", "verify", "--dir", federation.authority.directory).code == 0
    assert PLAIN.decode() not in (federation.authority.directory / "log.jsonl").read_text()


def test_the_next_envelope_has_the_next_version(federation: TestFederation, tmp_path: Path) -> None:
    """The administration remembers names and versions; an older envelope is refused where a newer lies."""
    key, source = tmp_path / "b.sealkey", tmp_path / "plain"
    source.write_bytes(PLAIN)
    run("secret", "key", "--config", _config(federation, B), "--out", key)
    files = []
    for number in (1, 2):
        files.append(tmp_path / f"{number}.sealed")
        words = (
            "--to",
            B,
            "--name",
            "tok",
            "--in",
            source,
            "--seal-key",
            key,
            "--signer",
            federation.node(OPERATOR),
        )
        ran = run("secret", "seal", *words, "--out", files[-1], *admin(federation), "--json")
        assert json.loads(ran.out)["version"] == number
    assert run("secret", "import", files[1], "--config", _config(federation, A)).code == 0
    ran = run("secret", "import", files[0], "--config", _config(federation, A))
    assert (ran.code, ran.error) == (6, "E-SEAL-OLD")


def test_bad_uses_are_one_line(federation: TestFederation, tmp_path: Path) -> None:
    """No node, no file, no key, no secret: each says what is missing."""
    assert run("secret", "import", tmp_path / "none", "--config", _config(federation, A)).code == 5
    assert (
        run("secret", "open", "--name", "never", "--out", "-", "--config", _config(federation, A)).code == 5
    )
    assert run("secret", "key").code == 2
    assert run("secret", "status", "never", *admin(federation)).code == 5
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk")
    assert run("secret", "import", junk, "--config", _config(federation, A)).code == 3


def test_revoking_a_node_names_what_it_could_open(tmp_path: Path) -> None:
    """Whoever revokes is told which secrets have to be changed."""
    own = a_federation(tmp_path / "own", roles=(sealing.SECRET_ADMIN,))
    own.node(A)
    own.node(OPERATOR, roles=(sealing.SECRET_ADMIN,))
    key, source = tmp_path / "a.sealkey", tmp_path / "plain"
    source.write_bytes(PLAIN)
    run("secret", "key", "--config", _config(own, A), "--out", key)
    words = ("--to", A, "--name", NAME, "--in", source, "--seal-key", key, "--signer", own.node(OPERATOR))
    assert run("secret", "seal", *words, "--out", tmp_path / "x", *admin(own)).code == 0
    ran = run("cert", "revoke", A, "--reason", "keyCompromise", *admin(own), "--json")
    assert json.loads(ran.out)["secrets"] == [{"name": NAME, "version": 1}]


@given(
    st.integers(0, 2**40),
    st.dictionaries(st.sampled_from(["00ff", "ab12"]), st.integers(0, 2**40), max_size=2),
    st.binary(max_size=100),
    st.lists(st.tuples(st.sampled_from(["db", "x.y"]), st.integers(0, 9)), max_size=3),
)
def test_a_statement_reads_as_it_was_written(
    bundle: int, crls: dict[str, int], seal: bytes, receipts: list[tuple[str, int]]
) -> None:
    """What a node says of its trust comes out as it went in; what a later version adds is left out."""
    said = TrustStatement(bundle, tuple(sorted(crls.items())), 7, seal, tuple(receipts))
    assert read_statement(said.to_body()) == said
    later = {**packing.mapping(packing.unpack(said.to_body()), 64, ""), "later": [1]}
    assert read_statement(packing.pack(later)) == said


@given(st.binary(max_size=200))
def test_any_bytes_are_a_statement_or_an_error(body: bytes) -> None:
    """Nothing a node says raises anything but the error for that."""
    try:
        read_statement(body)
    except WireError:
        return
    assert isinstance(packing.unpack(body), dict)
