"""The trust directory of a node: what is accepted, and the one reason for what is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.trust import install, issue, keys, pem, profile, revocation
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.material import TrustMaterial
from helpers.trust import BAD_LEAVES, DAY_MS, TestFederation, a_draft, a_federation, bad_leaf, signed_draft

HOST = "node.example.org"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for all tests that change nothing of it."""
    return a_federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def directory(federation: TestFederation, tmp_path: Path) -> Path:
    """Return a copy of a good trust directory, to be spoiled."""
    copy = tmp_path / "trust"
    shutil.copytree(federation.node(HOST), copy)
    return copy


def load(
    federation: TestFederation, directory: Path, host: str = HOST, name: str = "", after_ms: int = 0
) -> TrustMaterial:
    """Load a trust directory as the daemon does."""
    return TrustMaterial.load(
        directory, host=host, federation=name or federation.name, now_ms=federation.now_ms + after_ms
    )


def code_of(call: Callable[[], object]) -> str:
    """Return the code a call is refused with, "" if it is not."""
    try:
        call()
    except TrustError as error:
        return error.code
    return ""


def test_good_directory_loads(federation: TestFederation, directory: Path) -> None:
    """A good directory gives signer, roots and CRLs, and nothing to report."""
    material = load(federation, directory)
    assert (material.signer.origin, material.signer.federation) == (HOST, federation.name)
    assert list(material.crl_numbers().values()) == [1, 1]
    assert material.findings(federation.now_ms) == []
    assert material.crl_age_s(federation.now_ms + 60_000) == 360
    assert material.fingerprint == load(federation, directory).fingerprint
    assert material.not_after_ms == revocation.milliseconds(material.leaf.not_valid_after_utc)


def spoil_mode(directory: Path) -> None:
    """Let the group read the key."""
    (directory / "node.key").chmod(0o640)


def spoil_link(directory: Path) -> None:
    """Put the key elsewhere."""
    (directory / "node.key").rename(directory / "elsewhere.key")
    (directory / "node.key").symlink_to("elsewhere.key")


def spoil_key(directory: Path) -> None:
    """Put another key there."""
    (directory / "node.key").unlink()
    keys.write_key(directory / "node.key", keys.new_key(), None)


def spoil_encrypted(directory: Path) -> None:
    """Encrypt the key: a daemon has no passphrase."""
    (directory / "node.key").unlink()
    keys.write_key(directory / "node.key", keys.new_key(), b"a passphrase of some length")


def spoil_truncated_key(directory: Path) -> None:
    """Cut the key off."""
    content = (directory / "node.key").read_bytes()
    (directory / "node.key").write_bytes(content[:100])


def spoil_chain(directory: Path) -> None:
    """Leave the issuing CA out."""
    content = (directory / "chain.pem").read_bytes()
    (directory / "chain.pem").write_bytes(pem.certificate_pem(pem.certificates(content, "chain")[0]))


def spoil_chain_with_key(directory: Path) -> None:
    """Put a private key where certificates belong."""
    (directory / "chain.pem").write_bytes((directory / "node.key").read_bytes())


def spoil_root(directory: Path) -> None:
    """Put a node's certificate among the roots."""
    (directory / "roots" / "extra.pem").write_bytes((directory / "chain.pem").read_bytes())


def spoil_crl(directory: Path) -> None:
    """Take the issuing CA's CRL away, and the trust bundle that brings it."""
    shutil.rmtree(directory / "bundle")
    next((directory / "crl").glob("*issuing*")).unlink()


SPOILED = {
    "no directory": (shutil.rmtree, "E-NOTFOUND"),
    "no key": (lambda path: (path / "node.key").unlink(), "E-NOTFOUND"),
    "no chain": (lambda path: (path / "chain.pem").unlink(), "E-NOTFOUND"),
    "no roots": (lambda path: shutil.rmtree(path / "roots"), "E-NOTFOUND"),
    "no CRLs": (lambda path: shutil.rmtree(path / "crl"), "E-CRL-MISSING"),
    "key readable by group": (spoil_mode, "E-MODE"),
    "key is a link": (spoil_link, "E-LINK"),
    "key is a folder": (lambda path: ((path / "node.key").unlink(), (path / "node.key").mkdir()), "E-FILE"),
    "other key": (spoil_key, "E-KEYPAIR"),
    "encrypted key": (spoil_encrypted, "E-PASSPHRASE"),
    "truncated key": (spoil_truncated_key, "E-KEY"),
    "no issuing CA": (spoil_chain, "E-CHAIN-20"),
    "key as chain": (spoil_chain_with_key, "E-TYPE"),
    "empty chain": (lambda path: (path / "chain.pem").write_bytes(b""), "E-PEM"),
    "leaf among roots": (spoil_root, "E-PROFILE"),
    "issuer's CRL missing": (spoil_crl, "E-CHAIN-3"),
    "damaged CRL": (
        lambda path: (path / "crl" / "x.crl").write_bytes(b"-----BEGIN X509 CRL-----\n"),
        "E-PEM",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_spoiled_directory_is_refused(federation: TestFederation, directory: Path, kind: str) -> None:
    """Each fault of a trust directory is refused with its own code."""
    spoil, code = SPOILED[kind]
    spoil(directory)
    assert code_of(lambda: load(federation, directory)) == code


def test_wrong_names_and_times_are_refused(federation: TestFederation, directory: Path) -> None:
    """The wrong host, the wrong federation, expired, and CRLs past the grace are refused."""
    assert code_of(lambda: load(federation, directory, host="other.example.org")) == "E-HOST"
    assert code_of(lambda: load(federation, directory, name="other.example.org")) == "E-URI"
    assert code_of(lambda: load(federation, directory, after_ms=91 * DAY_MS)) == "E-CHAIN-10"
    assert code_of(lambda: load(federation, directory, after_ms=-DAY_MS)) == "E-CHAIN-9"
    assert code_of(lambda: load(federation, directory, after_ms=28 * DAY_MS - 1000)) == ""
    assert code_of(lambda: load(federation, directory, after_ms=29 * DAY_MS)) == "E-CRL-STALE"


def test_foreign_root_is_refused(federation: TestFederation, directory: Path, tmp_path: Path) -> None:
    """A chain that leads to a root not held here is refused."""
    other = a_federation(tmp_path / "other", now_ms=federation.now_ms)
    shutil.rmtree(directory / "bundle")
    shutil.rmtree(directory / "roots")
    shutil.copytree(other.authority.directory / "roots", directory / "roots")
    assert code_of(lambda: load(federation, directory)) == "E-CHAIN-20"


def test_own_revocation_is_noticed(federation: TestFederation, directory: Path) -> None:
    """A node whose own certificate is revoked does not start."""
    crl = federation.crl(2, [federation.serial(HOST)])
    (directory / "crl" / "new.crl").write_bytes(crl.public_bytes(Encoding.DER))
    assert code_of(lambda: load(federation, directory)) == "E-CHAIN-23"


def test_highest_crl_number_is_in_force(federation: TestFederation, directory: Path) -> None:
    """Of several CRLs of an issuer the highest number counts, whatever its date: OpenSSL would go by date."""
    newest = federation.crl(3, [17], at_ms=federation.now_ms - 3600_000)
    (directory / "crl" / "a.pem").write_bytes(pem.crl_pem(newest))
    (directory / "crl" / "b.pem").write_bytes(pem.crl_pem(federation.crl(2)))
    assert 3 in load(federation, directory).crl_numbers().values()
    assert len(load(federation, directory).crls) == 2


def test_two_crls_of_one_number_are_refused(federation: TestFederation, directory: Path) -> None:
    """Two different CRLs of one number are a forgery or a second administration."""
    (directory / "crl" / "twin.pem").write_bytes(pem.crl_pem(federation.crl(1, [5])))
    assert code_of(lambda: load(federation, directory)) == "E-CRL-FORK"


def test_forged_crl_never_reaches_the_store(federation: TestFederation, directory: Path) -> None:
    """A CRL in the issuer's name that another key signed is refused before it can refuse everybody."""
    forged = issue.crl(
        issue.CertificateAuthority(federation.issuing.certificate, keys.new_key()),
        9,
        {},
        federation.now_ms,
        14,
    )
    (directory / "crl" / "forged.pem").write_bytes(pem.crl_pem(forged))
    assert code_of(lambda: load(federation, directory)) == "E-CRL-SIG"


def test_crl_of_a_stranger_is_left_aside(federation: TestFederation, directory: Path, tmp_path: Path) -> None:
    """A CRL whose issuer is unknown here is not used, and the operator is told."""
    other = a_federation(tmp_path / "other", "other.example.org", federation.now_ms)
    (directory / "crl" / "other.pem").write_bytes(pem.crl_pem(other.crl(4)))
    found = load(federation, directory).findings(federation.now_ms)
    assert [finding.level for finding in found] == ["attention"]


@pytest.mark.parametrize(
    ("days", "levels"),
    [
        (59, []),
        (61, ["attention"]),
        (77, ["attention"]),
        (84, ["critical"]),
        (91, ["critical"]),
    ],
)
def test_expiry_is_announced(federation: TestFederation, days: int, levels: list[str]) -> None:
    """A certificate's end is announced at 30 and 14 days, and is critical at 7."""
    now_ms = federation.now_ms + days * DAY_MS
    found = [one for one in federation.material(HOST).findings(now_ms) if "this node's" in one.text]
    assert [finding.level for finding in found] == levels


@pytest.mark.parametrize(
    ("days", "levels"), [(13, []), (15, ["attention"]), (22, ["critical"]), (29, ["critical"])]
)
def test_stale_crl_is_announced(federation: TestFederation, days: int, levels: list[str]) -> None:
    """A CRL past its nextUpdate is announced, and is critical in the last week of its grace."""
    now_ms = federation.now_ms + days * DAY_MS
    found = [
        one
        for one in federation.material(HOST).findings(now_ms)
        if one.text.startswith("CRL 1 of CN=Issuing")
    ]
    assert [finding.level for finding in found] == levels


@pytest.mark.parametrize("kind", [*BAD_LEAVES, "serverAuth only", "version 1"])
def test_profile_refuses_each_bad_leaf(federation: TestFederation, kind: str) -> None:
    """Each leaf that is wrong in one way is refused by the profile alone, with its reason."""
    says = BAD_LEAVES[kind][1] if kind in BAD_LEAVES else ""
    with pytest.raises(TrustError) as caught:
        profile.leaf_names(bad_leaf(federation, kind).leaf, federation.name)
    assert says in str(caught.value)


def test_profile_accepts_the_draft_that_is_spoiled(federation: TestFederation) -> None:
    """The draft the bad leaves come from is good."""
    names = profile.leaf_names(signed_draft(a_draft(federation)).leaf, federation.name)
    assert names.dns == ("bad.example.org",)


def test_crl_rules(federation: TestFederation) -> None:
    """A CRL may not go back, fork, forget a serial, come from the future or be past its grace."""
    held = federation.crl(43, [7])
    issuers = [federation.issuing.certificate]
    now_ms = federation.now_ms
    cases = {
        "lower number": (lambda: revocation.newer(held, federation.crl(41, [7])), "E-CRL-ROLLBACK"),
        "older date": (
            lambda: revocation.newer(held, federation.crl(44, [7], at_ms=now_ms - DAY_MS)),
            "E-CRL-ROLLBACK",
        ),
        "same number": (lambda: revocation.newer(held, federation.crl(43, [7, 8])), "E-CRL-FORK"),
        "lost serial": (lambda: revocation.newer(held, federation.crl(44, [8])), "E-CRL-SHRINK"),
        "good": (lambda: revocation.newer(held, federation.crl(44, [7, 8])), ""),
        "same": (lambda: revocation.newer(held, held), ""),
        "future": (
            lambda: revocation.check_crl(federation.crl(2, at_ms=now_ms + DAY_MS), issuers, "x", now_ms),
            "E-CRL-FUTURE",
        ),
        "stale": (
            lambda: revocation.check_crl(federation.crl(2), issuers, "x", now_ms + 29 * DAY_MS),
            "E-CRL-STALE",
        ),
        "stranger": (lambda: revocation.check_crl(federation.crl(2), [], "x", now_ms), "E-CRL-SIG"),
    }
    assert {kind: code_of(call) for kind, (call, _) in cases.items()} == {
        kind: code for kind, (_, code) in cases.items()
    }


def test_install_keeps_the_newer_crl(federation: TestFederation, directory: Path) -> None:
    """A bundle made before the newest CRL arrived does not put the old one back."""
    newer = federation.crl(5, [99])
    for path in (directory / "crl").glob("*issuing*"):
        path.write_bytes(pem.crl_pem(newer))
    chain = (directory / "chain.pem").read_bytes()
    install.install(
        directory,
        chain,
        [],
        federation.authority.crls(),
        host=HOST,
        federation=federation.name,
        now_ms=federation.now_ms,
    )
    assert sorted(load(federation, directory).crl_numbers().values()) == [1, 5]


def test_install_replaces_superseded_crls(federation: TestFederation, directory: Path) -> None:
    """After an install there is one file per issuer, under one name."""
    (directory / "crl" / "old-name.crl").write_bytes(federation.crl(1).public_bytes(Encoding.DER))
    for path in (directory / "crl").glob("*issuing*.crl.pem"):
        path.unlink()
    install.install(
        directory,
        (directory / "chain.pem").read_bytes(),
        [],
        [federation.crl(2, [3])],
        host=HOST,
        federation=federation.name,
        now_ms=federation.now_ms,
    )
    assert len(list((directory / "crl").iterdir())) == 2


def test_failed_install_changes_nothing(federation: TestFederation, directory: Path) -> None:
    """A chain for another key is refused, and every file stays as it was."""
    before = {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}
    other = (federation.node("other.example.org") / "chain.pem").read_bytes()
    code = code_of(
        lambda: install.install(
            directory, other, [], [], host=HOST, federation=federation.name, now_ms=federation.now_ms
        )
    )
    after = {
        path: path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
    assert (code, after) == (
        "E-KEYPAIR",
        {path: content for path, content in before.items() if path.name != ".lock"},
    )


def test_unreadable_directory_is_named(
    federation: TestFederation, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder this user may not enter is an error of files, not a crash."""

    def denied(_: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr(Path, "is_dir", denied)
    assert code_of(lambda: load(federation, directory)) == "E-FILE"


def test_errors_cannot_move_the_cursor() -> None:
    """Whatever a stranger's certificate is called, an error is one line of printable characters."""
    assert str(TrustError("E-X", "a\x1b[2J\nb", "", "c")) == "E-X: a?[2J b; c"
