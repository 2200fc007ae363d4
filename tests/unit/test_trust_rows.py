"""
Every bad input of the trust specification as the command meets it: wanted code, wording, exit, and nothing changed.

Rows 1 to 15 and the further ones; the same faults below the command line have tests of their own.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from esgf_gossip.trust import issue, keys, pem
from esgf_gossip.trust.issue import CertificateAuthority
from helpers.trust import DAY_MS, TestFederation, a_federation, bad_leaf, foreign_issuer
from helpers.trust_admin import Ran, admin, run

HOST, OTHER = "node.example.org", "other.example.org"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation with one node, and its node.toml."""
    found = a_federation(tmp_path / "federation")
    found.node(HOST)
    config(found).write_text(f'[node]\nhost = "{HOST}"\nfederation = "{found.name}"\n')
    return found


def config(federation: TestFederation) -> Path:
    """Return the node.toml of the node."""
    return federation.node(HOST).parent / "node.toml"


def chain(federation: TestFederation) -> Path:
    """Return the chain of the node."""
    return federation.node(HOST) / "chain.pem"


def written(path: Path, content: bytes) -> Path:
    """Write a file, and return where."""
    path.write_bytes(content)
    return path


def verified(federation: TestFederation, path: Path, *words: object) -> Ran:
    """Let the command judge a file."""
    return run("cert", "verify", path, "--dir", federation.authority.directory, *words)


def requested(federation: TestFederation, *words: object) -> Ran:
    """Ask for a certificate in a new folder."""
    return run(
        "cert", "request", "--out", federation.directory / "new", "--federation", federation.name, *words
    )


def imported(federation: TestFederation, crl: object) -> Ran:
    """Let the node take a CRL."""
    path = federation.directory / "offered.crl.pem"
    path.write_bytes(pem.crl_pem(crl))  # type: ignore[arg-type]  # any CRL will do
    return run("crl", "import", path, "--config", config(federation))


def row_1(federation: TestFederation) -> Ran:
    """A private key given as certificate."""
    return verified(federation, federation.node(HOST) / "node.key")


def row_2_truncated(federation: TestFederation) -> Ran:
    """A file cut in the middle."""
    return verified(
        federation, written(federation.directory / "node.pem", chain(federation).read_bytes()[:212])
    )


def row_2_der(federation: TestFederation) -> Ran:
    """Damaged DER; whole DER is read as what it is."""
    leaf = pem.certificates(pem.read(chain(federation)), "chain")[0]
    return verified(
        federation, written(federation.directory / "node.pem", leaf.public_bytes(Encoding.DER)[:-9])
    )


def row_3(federation: TestFederation) -> Ran:
    """Two requests where one is expected."""
    csr = (federation.node(HOST) / f"{HOST}.csr.pem").read_bytes()
    return run("cert", "import", written(federation.directory / "two.pem", csr * 2), *admin(federation))


def row_4(federation: TestFederation) -> Ran:
    """A certificate for another key."""
    keys.write_key(federation.directory / "new.key", keys.new_key(), None)
    (federation.directory / "new.key").replace(federation.node(HOST) / "node.key")
    return run("cert", "install", chain(federation), "--config", config(federation))


def row_5(federation: TestFederation) -> Ran:
    """A key that its group can read."""
    (federation.node(HOST) / "node.key").chmod(0o640)
    return run("cert", "install", chain(federation), "--config", config(federation))


def row_6(federation: TestFederation) -> Ran:
    """A key where there is one."""
    return run("cert", "request", "--config", config(federation))


def row_7(federation: TestFederation) -> Ran:
    """A request that its key has not signed."""
    csr = (federation.node(HOST) / f"{HOST}.csr.pem").read_bytes()
    der = pem.request(csr, "csr").public_bytes(Encoding.DER)
    body = base64.encodebytes(der[:-4] + bytes(one ^ 1 for one in der[-4:]))
    block = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    return run("cert", "import", written(federation.directory / "bad.csr.pem", block), *admin(federation))


def _approve(federation: TestFederation, *words: object, told: str | None = None) -> Ran:
    ran = requested(federation, *words)
    assert ran.code == 0, ran.err
    host = next((federation.directory / "new").glob("*.csr.pem"))
    assert run("cert", "import", host, *admin(federation)).code == 0
    request = next(one for one in federation.authority.pending())
    return run(
        "cert",
        "approve",
        request.request_id,
        "--fingerprint",
        told or request.fingerprint,
        *admin(federation),
    )


def row_8(federation: TestFederation) -> Ran:
    """Another site's DNS name, and a role that this issuer does not give."""
    policy = federation.authority.directory / "policy.toml"
    policy.write_text(policy.read_text().replace("dns_suffixes = []", 'dns_suffixes = ["site-a.org"]'))
    return _approve(federation, "--dns", "index.site-b.org", "--role", "secret-admin")


def row_9(federation: TestFederation) -> Ran:
    """A DNS name that is none."""
    return requested(federation, "--dns", "*.example.org")


def row_10(federation: TestFederation) -> Ran:
    """A federation with a port: the URI would carry it."""
    return run(
        "cert", "verify", bad_leaf(federation, "port URI").write(federation.directory)[1], *admin(federation)
    )


def row_11(federation: TestFederation) -> Ran:
    """Another fingerprint than the request's."""
    return _approve(federation, "--dns", OTHER, told="3f2a" * 16)


def row_12_signature(federation: TestFederation) -> Ran:
    """A CRL that its issuer has not signed."""
    foreign = foreign_issuer(federation.name, federation.now_ms)
    forged = CertificateAuthority(federation.issuing.certificate, foreign.key)
    return imported(federation, issue.crl(forged, 9, {}, federation.now_ms, 14))


def row_12_lower(federation: TestFederation) -> Ran:
    """A lower number than the one held."""
    federation.publish(federation.crl(43), HOST)
    return imported(federation, federation.crl(41))


def row_12_fork(federation: TestFederation) -> Ran:
    """The same number with other bytes."""
    federation.publish(federation.crl(43, [5]), HOST)
    return imported(federation, federation.crl(43, [6]))


def row_12_shrink(federation: TestFederation) -> Ran:
    """A revocation taken back."""
    federation.publish(federation.crl(43, [5]), HOST)
    return imported(federation, federation.crl(44))


def row_12_stale(federation: TestFederation) -> Ran:
    """A CRL past its grace."""
    return imported(federation, federation.crl(44, at_ms=federation.now_ms - 40 * DAY_MS))


def row_13_root(federation: TestFederation) -> Ran:
    """A chain to a root that nobody here knows."""
    return verified(federation, bad_leaf(federation, "foreign root").write(federation.directory)[1])


def row_13_issuer(federation: TestFederation) -> Ran:
    """The leaf alone."""
    leaf = pem.certificates(pem.read(chain(federation)), "chain")[0]
    return verified(federation, written(federation.directory / "leaf.pem", pem.certificate_pem(leaf)))


def row_13_expired(federation: TestFederation) -> Ran:
    """A certificate past its end."""
    return verified(federation, bad_leaf(federation, "expired").write(federation.directory)[1])


def row_13_early(federation: TestFederation) -> Ran:
    """A certificate before its day."""
    return verified(federation, bad_leaf(federation, "not yet valid").write(federation.directory)[1])


def row_13_revoked(federation: TestFederation) -> Ran:
    """A certificate on the list."""
    federation.revoke([federation.serial(HOST)])
    return verified(federation, chain(federation))


def further_passphrase_missing(federation: TestFederation) -> Ran:
    """An encrypted key and no passphrase."""
    return _locked(federation)


def further_passphrase_wrong(federation: TestFederation) -> Ran:
    """An encrypted key and another passphrase."""
    path = written(federation.directory / "pass", b"twelve other characters\n")
    path.chmod(0o600)
    return _locked(federation, "--passphrase-file", path)


def _locked(federation: TestFederation, *words: object) -> Ran:
    folder = federation.directory / "locked"
    first = written(federation.directory / "first", b"a passphrase of some length\n")
    first.chmod(0o600)
    places = ("--dir", folder, "--private", folder / "private")
    assert run("init", "--federation", "locked.example.org", *places, "--passphrase-file", first).code == 0
    return run("crl", "publish", *places, *words)


def further_duplicate(federation: TestFederation) -> Ran:
    """A second key for a node that has a valid certificate."""
    return _approve(federation, "--dns", HOST)


def further_twice(federation: TestFederation) -> Ran:
    """A revocation of what is revoked."""
    assert run("cert", "revoke", HOST, "--reason", "superseded", *admin(federation)).code == 0
    return run("cert", "revoke", HOST, "--reason", "superseded", *admin(federation))


def further_revoked_key(federation: TestFederation) -> Ran:
    """A new request for a revoked key."""
    csr = federation.node(HOST) / f"{HOST}.csr.pem"
    assert run("cert", "revoke", HOST, "--reason", "keyCompromise", *admin(federation)).code == 0
    assert run("cert", "import", csr, *admin(federation)).code == 0
    request = federation.authority.pending()[0]
    return run(
        "cert", "approve", request.request_id, "--fingerprint", request.fingerprint, *admin(federation)
    )


def further_git(federation: TestFederation) -> Ran:
    """Keys in a work tree that git does not ignore."""
    tree = federation.directory / "tree"
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    places = ("--dir", tree / "certs", "--private", tree / "keys")
    return run("init", "--federation", "git.example.org", "--no-passphrase", *places)


def further_clock(federation: TestFederation) -> Ran:
    """A clock that was set back."""
    return run("crl", "publish", *admin(federation), "--now", "2020-01-01T00:00:00Z")


ROWS: dict[str, tuple[Callable[[TestFederation], Ran], int, str]] = {
    "1": (
        row_1,
        3,
        "[E-TYPE]: {dir}/nodes/node.example.org/trust/node.key holds a PRIVATE KEY, a CERTIFICATE was expected; nothing was read from the key",
    ),
    "2 truncated": (row_2_truncated, 3, "no complete CERTIFICATE block (file has 212 bytes)"),
    "2 DER": (row_2_der, 3, "DER? use openssl x509 -inform der"),
    "3": (row_3, 3, "[E-MANY]: {dir}/two.pem holds 2 "),
    "4": (row_4, 3, "[E-KEYPAIR]: node.key does not belong to the certificate (SPKI "),
    "5": (row_5, 7, "node.key is 0640, must be 0600; chmod 600 {dir}"),
    "6": (row_6, 6, "node.key exists, created 20"),
    "7": (row_7, 3, "[E-CSR-SIG]: "),
    "8": (
        row_8,
        4,
        "'index.site-b.org' is outside issuer suffix site-a.org; role 'secret-admin' not allowed for this issuer",
    ),
    "9": (row_9, 2, "DNS name '*.example.org' has a forbidden character at position 0"),
    "10": (row_10, 3, "a port is not allowed in a node URI"),
    "11": (row_11, 4, "[E-FPR]: you gave 3f2a3f2a3f2a.., the request is "),
    "12 signature": (row_12_signature, 3, "[E-CRL-SIG]"),
    "12 lower": (row_12_lower, 6, "[E-CRL-ROLLBACK]: CRL 41 is older than 43 held for issuer "),
    "12 same number": (row_12_fork, 6, "[E-CRL-FORK]"),
    "12 dropped serial": (row_12_shrink, 6, "[E-CRL-SHRINK]"),
    "12 stale": (row_12_stale, 3, "[E-CRL-STALE]"),
    "13 unknown root": (row_13_root, 3, "issuer 'CN=Root G1,O=federation.example.org' not found"),
    "13 missing intermediate": (row_13_issuer, 3, "not found; send the chain file, not only the leaf"),
    "13 expired": (row_13_expired, 3, "certificate expired on"),
    "13 not yet valid": (row_13_early, 3, "certificate not yet valid"),
    "13 revoked": (row_13_revoked, 3, "certificate revoked (serial "),
    "passphrase missing": (further_passphrase_missing, 8, "[E-PASSPHRASE]"),
    "passphrase wrong": (further_passphrase_wrong, 8, "[E-PASSPHRASE]: wrong passphrase for"),
    "duplicate node": (
        further_duplicate,
        6,
        "[E-DUPLICATE]: node.example.org has a certificate for another key",
    ),
    "revoked twice": (further_twice, 0, "already revoked in CRL 2"),
    "revoked key": (further_revoked_key, 4, "[E-POLICY]: this key was revoked"),
    "git": (further_git, 4, "[E-GIT]"),
    "clock": (further_clock, 4, "[E-CLOCK]"),
}


def picture(federation: TestFederation) -> dict[str, bytes]:
    """Return the public files of the administration and the trust of the node, but for what a row itself puts there."""
    folders = (
        federation.authority.directory / "crl",
        federation.authority.directory / "issued",
        federation.node(HOST) / "crl",
    )
    return {str(path): path.read_bytes() for folder in folders for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_input_is_one_line_with_its_exit(federation: TestFederation, row: str) -> None:
    """Code, wording and exit are those wanted: one line on stderr, nothing on stdout, no traceback."""
    make, code, says = ROWS[row]
    ran = make(federation)
    says = says.replace("{dir}", str(federation.directory))
    assert (ran.code, says in ran.out + ran.err) == (code, True), ran.out + ran.err
    if code and not row.startswith(("10", "13", "1", "2")):
        assert (ran.out, ran.err.count("\n"), ran.err.startswith("trust-admin: error [E-")) == ("", 1, True)
    assert "Traceback" not in ran.err


def test_a_disk_that_fills_up_leaves_the_old_file(
    federation: TestFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a write the disk says no: exit 7, one line, and every file is as it was."""
    before = picture(federation)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "fsync", full)
    ran = run("crl", "publish", *admin(federation))
    monkeypatch.undo()
    assert (ran.code, "No space left on device" in ran.err) == (7, True)
    assert picture(federation) == before
    assert run("crl", "publish", *admin(federation)).code == 0


def test_files_have_their_modes_whatever_the_umask(tmp_path: Path) -> None:
    """Keys 0600 in 0700, all else 0644 in 0755, with a umask of 0 and of 0777's opposite."""
    for mask in (0o000, 0o077):
        folder = tmp_path / f"{mask:o}"
        before = os.umask(mask)
        try:
            places = ("--dir", folder / "trust", "--private", folder / "keys")
            assert run("init", "--federation", "fed.example.org", "--no-passphrase", *places).code == 0
            words = ("--out", folder / "node", "--federation", "fed.example.org", "--dns", HOST)
            assert run("cert", "request", *words).code == 0
        finally:
            os.umask(before)
        keys_ = [*(folder / "keys").iterdir(), folder / "node" / "node.key"]
        assert {path.stat().st_mode & 0o777 for path in keys_} == {0o600}
        assert (folder / "keys").stat().st_mode & 0o777 == 0o700
        public = [path for path in (folder / "trust").rglob("*") if not path.name.startswith(".")]
        assert {path.stat().st_mode & 0o777 for path in public if path.is_file()} == {0o644}
        assert {path.stat().st_mode & 0o777 for path in public if path.is_dir()} == {0o755}
        shutil.rmtree(folder)
