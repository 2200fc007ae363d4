"""Hashed folders of CAs: what we write openssl reads, what others wrote we read with doubt."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreFlags

from esgf_gossip.trust import globus, issue, keys, pem
from esgf_gossip.trust.bundle import IssuerPolicy
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.issue import CertificateAuthority
from helpers.trust import TestFederation, a_draft, a_federation, foreign_issuer
from helpers.trust_admin import admin, run

HOST = "node.example.org"

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program is not installed"
)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> TestFederation:
    """Found one federation for tests that change nothing of it but its log."""
    found = a_federation(tmp_path_factory.mktemp("globus"))
    found.node(HOST)
    return found


def exported(federation: TestFederation, folder: Path) -> Path:
    """Export the federation's CAs."""
    ran = run("roots", "export", "--globus", folder, *admin(federation)[:2])
    assert ran.code == 0, ran.err
    return folder


def openssl(*words: object) -> str:
    """Run openssl and return what it printed."""
    return subprocess.run(
        ["openssl", *map(str, words)], check=False, capture_output=True, text=True
    ).stdout.strip()


@needs_openssl
def test_names_are_those_openssl_looks_for(federation: TestFederation, tmp_path: Path) -> None:
    """Both forms of the hash, of certificates and CRLs, agree with the openssl program."""
    folder = exported(federation, tmp_path / "ca")
    for path in (
        *federation.authority.directory.glob("roots/*.pem"),
        *federation.authority.directory.glob("issuers/*.pem"),
    ):
        for form in ("-subject_hash", "-subject_hash_old"):
            hashed = openssl("x509", "-noout", form, "-in", path)
            assert (folder / f"{hashed}.0").read_bytes() == path.read_bytes()
            crl = folder / f"{hashed}.r0"
            assert (
                openssl("crl", "-noout", "-hash" if form == "-subject_hash" else "-hash_old", "-in", crl)
                == hashed
            )
            assert (folder / f"{hashed}.signing_policy").exists()
    assert len(list(folder.glob("*.[r0-9]*"))) == 8


@needs_openssl
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_the_folder_alone_verifies_a_node(federation: TestFederation, tmp_path: Path, purpose: str) -> None:
    """Openssl verify -CApath, strict and with all CRLs, takes a member and refuses a revoked one with error 23."""
    own = a_federation(tmp_path / "own")
    own.node(HOST)
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(pem.certificate_pem(own.material(HOST).leaf))
    folder = exported(own, tmp_path / "ca")
    command = ["verify", "-x509_strict", "-crl_check_all", "-CApath", folder, "-purpose", purpose]
    assert openssl(*command, leaf) == f"{leaf}: OK"
    assert run("cert", "revoke", HOST, "--reason", "superseded", *admin(own)).code == 0
    exported(own, folder)
    ran = subprocess.run(
        ["openssl", *map(str, command), str(leaf)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "error 23 at 0 depth lookup: certificate revoked" in ran.stderr


def test_the_library_reads_the_folder_too(federation: TestFederation, tmp_path: Path) -> None:
    """The OpenSSL of the daemon verifies by the same folder."""
    store = X509Store()
    store.load_locations(None, str(exported(federation, tmp_path / "ca")))
    store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)
    leaf = X509.from_cryptography(federation.material(HOST).leaf)
    assert len(X509StoreContext(store, leaf).get_verified_chain()) == 3


def test_others_files_stay_and_ours_go(federation: TestFederation, tmp_path: Path) -> None:
    """A CA of the same hash keeps its number, ours takes the next; what is over is removed, of ours alone."""
    root = federation.root.certificate
    hashed = globus.hashes_of(root)[0]
    folder = tmp_path / "ca"
    folder.mkdir()
    others = {
        f"{hashed}.0": b"of somebody",
        f"{hashed}.signing_policy": b"theirs",
        "deadbeef.0": b"x",
        "deadbeef.r0": b"y",
    }
    for name, content in others.items():
        (folder / name).write_bytes(content)
    crls = federation.authority.crls()
    both = [
        (root, None),
        (federation.issuing.certificate, IssuerPolicy((".site-a.example.org", "one.example.org"))),
    ]
    first = globus.export(folder, both, crls)
    assert f"{hashed}.1" in first.written
    assert first.removed == ()
    assert globus.export(folder, both, crls) == first
    second = globus.export(folder, both[:1], crls)
    assert set(second.removed) == {name for name in first.written if name not in second.written} != set()
    assert {name: (folder / name).read_bytes() for name in others} == others
    assert {path.stat().st_mode & 0o777 for path in folder.glob(f"{hashed}.1")} == {0o644}


def test_the_signing_policy_says_the_bounds(federation: TestFederation, tmp_path: Path) -> None:
    """An issuing CA may sign names within its suffixes, a root its organization's CAs; both are read back."""
    issuing = federation.issuing.certificate
    policy = IssuerPolicy((".site-a.example.org", "one.example.org"))
    folder = tmp_path / "ca"
    globus.export(
        folder, [(federation.root.certificate, None), (issuing, policy)], federation.authority.crls()
    )
    text = (folder / f"{globus.hashes_of(issuing)[1]}.signing_policy").read_text()
    assert "access_id_CA   X509    '/O=federation.example.org/CN=Issuing G1'" in text
    assert '\'"/CN=*.site-a.example.org" "/CN=one.example.org"\'' in text
    taken, skipped = globus.read(folder)
    assert [one.subjects for one in taken] == [("/O=federation.example.org/CN=*",)]
    assert taken[0].crl is not None
    # The issuing CA is no root: in both forms of its name.
    assert [reason for _, reason in skipped] == ["not signed by itself: an issuing CA is not a root"] * 2


def test_two_of_one_name_get_two_numbers(tmp_path: Path, federation: TestFederation) -> None:
    """Two generations under one name: .0 and .1, with one signing policy for both."""
    twin_key = keys.new_key()
    twin = issue.root(federation.name, twin_key, federation.now_ms, 30)
    folder = tmp_path / "ca"
    globus.export(folder, [(federation.root.certificate, None), (twin, None)], federation.authority.crls())
    hashed = globus.hashes_of(twin)[0]
    assert (folder / f"{hashed}.1").read_bytes() == pem.certificate_pem(twin)
    taken, _ = globus.read(folder)
    assert {one.certificate for one in taken} == {federation.root.certificate, twin}


def _good(federation: TestFederation, folder: Path) -> str:
    root = federation.root.certificate
    hashed = globus.hashes_of(root)[0]
    (folder / f"{hashed}.0").write_bytes(pem.certificate_pem(root))
    return hashed


def _out_of_folder(federation: TestFederation, folder: Path) -> str:
    hashed = _good(federation, folder)
    (folder / f"{hashed}.0").rename(folder.parent / "elsewhere.pem")
    (folder / f"{hashed}.0").symlink_to(folder.parent / "elsewhere.pem")
    return f"{hashed}.0"


def _wrong_name(federation: TestFederation, folder: Path) -> str:
    hashed = _good(federation, folder)
    (folder / f"{hashed}.0").rename(folder / "00000000.0")
    return "00000000.0"


def _leaf(federation: TestFederation, folder: Path) -> str:
    (folder / "11111111.0").write_bytes(pem.certificate_pem(a_draft(federation).sign()))
    return "11111111.0"


def _forged_root(federation: TestFederation, folder: Path) -> str:
    real = foreign_issuer(federation.name, federation.now_ms)
    impostor = CertificateAuthority(federation.root.certificate, real.key)
    made = issue.issuing_ca(federation.name, keys.new_key(), impostor, federation.now_ms, 9)
    (folder / "22222222.0").write_bytes(pem.certificate_pem(made))
    return "22222222.0"


def _file(name: str, content: bytes) -> Callable[[TestFederation, Path], str]:
    def write(_: TestFederation, folder: Path) -> str:
        (folder / name).write_bytes(content)
        return name

    return write


def _directory(_: TestFederation, folder: Path) -> str:
    (folder / "33333333.0").mkdir()
    return "33333333.0"


def _two(federation: TestFederation, folder: Path) -> str:
    hashed = _good(federation, folder)
    path = folder / f"{hashed}.0"
    path.write_bytes(path.read_bytes() * 2)
    return path.name


def _foreign_crl(federation: TestFederation, folder: Path) -> str:
    hashed = _good(federation, folder)
    forged = CertificateAuthority(federation.root.certificate, keys.new_key())
    crl = issue.crl(forged, 9, {}, federation.now_ms, 14)
    (folder / f"{hashed}.r0").write_bytes(pem.crl_pem(crl))
    return f"{hashed}.r0"


def _foreign_policy(federation: TestFederation, folder: Path) -> str:
    hashed = _good(federation, folder)
    text = "access_id_CA X509 '/CN=Another'\npos_rights globus CA:sign\ncond_subjects globus '\"/*\"'\n"
    (folder / f"{hashed}.signing_policy").write_text(text)
    return f"{hashed}.signing_policy"


SKIPPED = {
    "a link out of the folder": (_out_of_folder, "out of the folder"),
    "another name than its hash": (_wrong_name, "its name hashes to"),
    "a node's certificate": (_leaf, "CA:FALSE"),
    "an issuing CA": (_forged_root, "not signed by itself"),
    "no certificate": (_file("44444444.0", b"hello"), "no complete CERTIFICATE"),
    "a private key": (_file("55555555.0", b"-----BEGIN PRIVATE KEY-----\n"), "PRIVATE KEY"),
    "a folder": (_directory, "cannot be read"),
    "two certificates": (_two, "holds 2 certificates"),
    "a forged CRL": (_foreign_crl, "not signed by"),
    "a policy of another CA": (_foreign_policy, "it is not about /O="),
    "another file": (_file("ca-bundle.crt", b""), "not a file of a hashed folder"),
}


@pytest.mark.parametrize("kind", SKIPPED)
def test_what_is_unfit_is_skipped_with_its_reason(
    federation: TestFederation, tmp_path: Path, kind: str
) -> None:
    """Each fault is named with its file, and the rest is read."""
    folder = tmp_path / "ca"
    folder.mkdir()
    make, reason = SKIPPED[kind]
    name = make(federation, folder)
    taken, skipped = globus.read(folder)
    assert [file for file, _ in skipped] == [name]
    assert reason in skipped[0][1]
    expected = 1 if kind in ("a forged CRL", "a policy of another CA") else 0
    assert len(taken) == expected
    assert all(one.crl is None and one.subjects == () for one in taken)


def test_a_link_within_the_folder_is_followed_and_one_ca_is_taken_once(
    federation: TestFederation, tmp_path: Path
) -> None:
    """Distributions link the hashes to a named file: one CA, with the subjects of both kinds of policy."""
    folder = tmp_path / "ca"
    folder.mkdir()
    root = federation.root.certificate
    (folder / "Federation.pem").write_bytes(pem.certificate_pem(root))
    for hashed in globus.hashes_of(root):
        (folder / f"{hashed}.0").symlink_to("Federation.pem")
        (folder / f"{hashed}.namespaces").write_text(
            f'# of the federation\nTO Issuer "{globus.slashed(root.subject)}" \\\n  PERMIT Subject "/O=x/.*"\n'.replace(
                "\\\n", "\n"
            )
        )
    taken, skipped = globus.read(folder)
    assert [one.certificate for one in taken] == [root]
    assert taken[0].subjects == ("/O=x/.*",)
    assert [name for name, _ in skipped] == ["Federation.pem"]


def test_a_partitioned_list_is_explained(federation: TestFederation, tmp_path: Path) -> None:
    """A CRL with a critical distribution point is skipped, and openssl's error 44 is named."""
    folder = tmp_path / "ca"
    folder.mkdir()
    hashed = _good(federation, folder)
    ca = federation.root
    point = x509.IssuingDistributionPoint(
        [x509.UniformResourceIdentifier("http://ca.example.org/crl")], None, False, False, None, False, False
    )
    moment = issue.moment(federation.now_ms)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(moment)
        .next_update(moment.replace(year=moment.year + 1))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(issue.authority_key(ca.certificate), critical=False)
        .add_extension(point, critical=True)
        .sign(ca.key, hashes.SHA256())
    )
    (folder / f"{hashed}.r0").write_bytes(pem.crl_pem(crl))
    taken, skipped = globus.read(folder)
    assert taken[0].crl is None
    assert "error 44" in skipped[0][1]


def test_import_trusts_nothing(federation: TestFederation, tmp_path: Path) -> None:
    """The command lists what was taken and skipped, keeps it apart, and changes no bundle; nothing taken is exit 3."""
    other = a_federation(tmp_path / "other", "other.example.org")
    folder = exported(other, tmp_path / "ca")
    before = [path.name for path in (federation.authority.directory / "roots").iterdir()]
    ran = run("roots", "import-globus", folder, *admin(federation)[:2], "--json")
    told = json.loads(ran.out)
    assert (ran.code, len(told["taken"]), len(told["skipped"])) == (0, 1, 2)
    digest = pem.fingerprint(other.root.certificate)
    assert told["taken"][0]["sha256"] == digest
    kept = list((federation.authority.directory / "imported").glob(f"*{digest[:8]}*"))
    assert len(kept) == 3
    assert [path.name for path in (federation.authority.directory / "roots").iterdir()] == before
    assert len(federation.authority.bundles()) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("roots", "import-globus", empty, *admin(federation)[:2]).code == 3
    assert run("roots", "import-globus", tmp_path / "none", *admin(federation)[:2]).error == "E-NOTFOUND"


def test_a_folder_that_cannot_be_written_says_so(federation: TestFederation, tmp_path: Path) -> None:
    """E-FILE with exit 7, for a file in its place too."""
    (tmp_path / "file").write_text("")
    ran = run("roots", "export", "--globus", tmp_path / "file", *admin(federation)[:2])
    assert (ran.code, ran.error) == (7, "E-FILE")
    with pytest.raises(TrustError, match="E-NOTFOUND"):
        globus.read(tmp_path / "file")


def test_a_node_exports_what_it_trusts(federation: TestFederation, tmp_path: Path) -> None:
    """From a trust directory, by node.toml, the folder is the same."""
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nhost = "{HOST}"\nfederation = "{federation.name}"\n[trust]\ndirectory = "{federation.node(HOST)}"\n'
    )
    assert run("roots", "export", "--globus", tmp_path / "node", "--config", config).code == 0
    exported(federation, tmp_path / "admin")
    names = [sorted(path.name for path in (tmp_path / one).iterdir()) for one in ("node", "admin")]
    assert names[0] == names[1]
