"""trust-admin roots: the phases of a rotation, who must sign and who must not lag."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from esgf_gossip.trust import bundle_files, generations, keys, pem, revocation
from esgf_gossip.trust.founding import create_authority
from esgf_gossip.trust.policy import FIRST_GROUPS, template
from helpers.rotation import HOST, OTHER, PASSPHRASE, done, report, roots
from helpers.trust import FEDERATION, TestFederation, a_federation, real_now_ms
from helpers.trust_admin import admin, run

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program is not installed"
)


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation of two nodes."""
    found = a_federation(tmp_path / "federation")
    found.node(HOST)
    found.node(OTHER)
    return found


def test_a_rotation_goes_through_its_phases(federation: TestFederation, tmp_path: Path) -> None:
    """Prepared: trusted and not used; activated: issues; retired: gone. Each with its files, names and log lines."""
    directory = federation.authority.directory
    made = done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    assert (made["version"], made["complete"], made["missing"]) == (2, True, [])
    assert [one["subject"] for one in made["roots"]] != []
    assert sorted(generations.roots(directory)) == ["root-g1", "root-g2"]
    assert generations.active_issuing(directory) == "issuing-g1"
    assert federation.authority.issuing_certificate.subject.rfc4514_string().startswith("CN=Issuing G1")
    done(roots(federation, "activate", "issuing-g2", "--from", report(tmp_path, 2)))
    reissued = done(run("cert", "reissue", HOST, *admin(federation), "--json"))["reissued"]
    leaf = pem.certificates(Path(reissued[0]["bundle"]).read_bytes(), "bundle")[0]
    assert leaf.issuer.rfc4514_string() == f"CN=Issuing G2,O={FEDERATION}"
    done(roots(federation, "retire", "root-g1", "--from", report(tmp_path, 2, 2)))
    assert (list(generations.roots(directory)), list(generations.issuers(directory))) == (
        ["root-g2"],
        ["issuing-g2"],
    )
    assert sorted(path.name for path in (directory / "retired").iterdir()) == [
        "issuing-g1.crl.pem",
        "issuing-g1.pem",
        "root-g1.crl.pem",
        "root-g1.pem",
    ]
    listed = done(run("roots", "list", "--dir", directory, "--json"))
    assert [one["version"] for one in listed] == [1, 2, 3]
    assert [len(one["roots"]) for one in listed] == [1, 2, 1]
    actions = [one["action"] for one in federation.authority.log.records()]
    assert [one for one in actions if one in ("bundle", "activate")] == ["bundle", "activate", "bundle"]
    assert run("log", "verify", "--dir", directory).code == 0
    # The next one is the third, though the first is gone.
    done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 3, 2)))
    assert sorted(generations.roots(directory)) == ["root-g2", "root-g3"]


def test_no_step_is_taken_while_one_lags(federation: TestFederation, tmp_path: Path) -> None:
    """Below 100 % each step is refused with the names and reasons (exit 4), unless each is accepted by name."""
    late = report(tmp_path, 1, 1, away_example_org=(0, 1))
    refused = roots(federation, "prepare", "--no-passphrase", "--from", late)
    assert (refused.code, refused.error) == (4, "E-LAG")
    assert "1 of 3 nodes are not ready: away.example.org (bundle unknown, not 1)" in refused.err
    assert not list(federation.authority.private.glob("root-g2*"))
    wrong = roots(federation, "prepare", "--no-passphrase", "--from", late, "--accept-lag", "x.example.org")
    assert (wrong.code, wrong.error) == (5, "E-NOTFOUND")
    lag = ("--accept-lag", "away.example.org")
    told = done(roots(federation, "prepare", "--no-passphrase", "--from", late, *lag))
    assert told["accepted_lag"] == {"away.example.org": "bundle unknown, not 1"}
    assert roots(federation, "activate", "issuing-g2", "--from", late, *lag).error == "E-LAG"
    ready = report(tmp_path, 2)
    done(roots(federation, "activate", "issuing-g2", "--from", ready))
    refused = roots(federation, "retire", "root-g1", "--from", ready)
    assert (refused.code, refused.error) == (4, "E-LAG")
    assert f"{HOST} (certificate of CN=Issuing G1" in refused.err
    for bad in ("{}", "[]", '{"nodes": []}', '{"nodes": [{"host": 1}]}', "no JSON"):
        (tmp_path / "bad.json").write_text(bad)
        assert roots(federation, "retire", "root-g1", "--from", tmp_path / "bad.json").error == "E-TYPE"
    assert roots(federation, "retire", "root-g1").error == "E-USAGE"


def test_what_is_in_use_is_not_retired(federation: TestFederation, tmp_path: Path) -> None:
    """The root in use cannot go, what does not exist neither, and what waits is not activated."""
    ready = report(tmp_path, 1, 9)
    for name, code, error in (("root-g1", 4, "E-POLICY"), ("root-g7", 5, "E-NOTFOUND")):
        ran = roots(federation, "retire", name, "--from", ready)
        assert (ran.code, ran.error) == (code, error)
    ran = roots(federation, "activate", "issuing-g2", "--from", ready)
    assert (ran.code, ran.error) == (5, "E-NOTFOUND")


def test_several_administrators_sign_one_file(tmp_path: Path) -> None:
    """Two of three sign, each on a machine of their own: until then nothing is in force; then it is on every side."""
    now_ms = real_now_ms()
    authority = create_authority(
        tmp_path / "trust", tmp_path / "private", FEDERATION, now_ms, None, admin_keys=3, threshold=2
    )
    federation = TestFederation(tmp_path, FEDERATION, authority, now_ms)
    second = tmp_path / "second"
    keys.private_folder(second)
    for name in ("admin-2.key", "admin-3.key"):
        (authority.private / name).rename(second / name)
    made = done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    assert (made["complete"], len(made["missing"])) == (False, 2)
    assert list(generations.roots(authority.directory)) == ["root-g1"]
    again = roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1))
    assert (again.code, again.error) == (6, "E-EXISTS")
    directory = federation.node(HOST)
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nhost = "{HOST}"\nfederation = "{FEDERATION}"\n[trust]\ndirectory = "{directory}"\n'
    )
    early = run("roots", "import", made["file"], "--config", config, "--no-reload")
    assert (early.code, early.error) == (3, "E-BUNDLE-SIG")
    copy = tmp_path / "copy"
    shutil.copytree(authority.directory, copy)
    draft = copy / "bundle" / "000002.draft"
    nobody = run("roots", "sign", draft, "--dir", copy, "--private", tmp_path / "none")
    assert (nobody.code, nobody.error) == (5, "E-NOTFOUND")
    signed = done(run("roots", "sign", draft, "--dir", copy, "--private", second, "--json"))
    assert (signed["complete"], signed["sha256"]) == (True, made["sha256"])
    taken = done(run("roots", "import", draft, "--dir", authority.directory, "--json"))
    assert taken["complete"]
    assert sorted(generations.roots(authority.directory)) == ["root-g1", "root-g2"]
    assert not list((authority.directory / "bundle").glob("*.draft"))
    known = done(run("roots", "import", draft, "--dir", authority.directory, "--json"))
    assert known["version"] == 2
    ran = run("roots", "import", taken["file"], "--config", config, "--no-reload", "--json")
    assert [one["version"] for one in done(ran)["imported"]] == [2]
    assert bundle_files.read_bundles(directory)[-1].version == 2
    again = run("roots", "import", taken["file"], "--config", config, "--no-reload")
    assert (again.code, again.out) == (0, "nothing to do: held already\n")


@needs_openssl
def test_other_administrators_and_bounds_come_with_a_renewed_bundle(
    federation: TestFederation, tmp_path: Path
) -> None:
    """The next bundle may name other keys, a new number of them, and bound the issuing CAs by policy.toml."""
    private = federation.authority.private
    files = []
    for number in (2, 3):
        key = private / f"admin-{number}.key"
        keys.write_key(key, keys.new_key(), None)
        public = tmp_path / f"admin-{number}.pub"
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
        files += ["--admin-key", public]
    policy = federation.authority.directory / "policy.toml"
    policy.write_text(template(FEDERATION).replace("roles = []", 'roles = ["secret-admin"]'))
    made = done(roots(federation, "renew", "--limit", *files, "--threshold", "2"))
    assert (made["complete"], made["admin_keys"], made["threshold"]) == (True, 2, 2)
    (issuer,) = made["issuers"]
    assert (issuer["groups"], issuer["roles"], issuer["max_days"]) == (
        list(FIRST_GROUPS),
        ["secret-admin"],
        90,
    )
    (admins,) = {tuple(made["admin_key_sha256"])}
    told = run("roots", "sign", made["file"], *admin(federation))
    assert (
        "DNS any; groups member, esgf-prod, esgf-test, esgf-dev; roles secret-admin; 90 days" in told.out
    ), told.err
    assert all(f"key      {one}" in told.out for one in admins)
    wrong = roots(federation, "renew", "--admin-key", private / "admin-2.key")
    assert (wrong.code, wrong.error) == (3, "E-TYPE")
    many = roots(federation, "renew", "--threshold", "3")
    assert (many.code, many.error) == (2, "E-USAGE")


def test_a_second_issuing_ca_under_the_same_root(federation: TestFederation, tmp_path: Path) -> None:
    """Its name is of its own, certificates of both are revoked by the CA that signed them, and the first can go."""
    before = federation.serial(HOST)
    made = done(
        roots(federation, "prepare", "--issuer-only", "--no-passphrase", "--from", report(tmp_path, 1))
    )
    assert (len(made["roots"]), len(made["issuers"])) == (1, 2)
    done(roots(federation, "activate", "issuing-g2", "--from", report(tmp_path, 2)))
    done(run("cert", "reissue", HOST, *admin(federation), "--json"))
    ran = done(run("cert", "revoke", HOST, "--reason", "superseded", *admin(federation), "--json"))
    assert [Path(path).name for path in ran["files"]] == ["issuing-g2.crl.pem", "issuing-g1.crl.pem"]
    first = pem.revocation_lists(Path(ran["files"][1]).read_bytes(), "crl")[0]
    assert before in revocation.serials(first)
    assert len(federation.authority.revoked_serials()) == 2
    (federation.authority.private / "issuing-g1.key").rename(tmp_path / "away.key")
    gone = run("cert", "revoke", OTHER, "--reason", "superseded", *admin(federation))
    assert (gone.code, gone.error) == (5, "E-NOTFOUND"), "only the CA that signed it can revoke it"
    assert len(federation.authority.revoked_serials()) == 2
    done(roots(federation, "retire", "issuing-g1", "--from", report(tmp_path, 2, 2)))
    assert list(generations.issuers(federation.authority.directory)) == ["issuing-g2"]


def test_a_federation_of_before_adopts_a_bundle(tmp_path: Path) -> None:
    """Without one it works, and says what is missing; with the root's key at hand it gets its first."""
    now_ms = real_now_ms()
    authority = create_authority(
        tmp_path / "trust", tmp_path / "private", FEDERATION, now_ms, None, admin_keys=0
    )
    federation = TestFederation(tmp_path, FEDERATION, authority, now_ms)
    assert federation.material(HOST).bundle is None
    ran = roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1))
    assert (ran.code, ran.error) == (5, "E-NOTFOUND")
    assert "roots adopt" in ran.err
    made = done(roots(federation, "adopt", "--admin-keys", "3", "--threshold", "2", "--no-passphrase"))
    assert (made["version"], made["admin_keys"], made["complete"]) == (1, 3, True)
    assert (roots(federation, "adopt", "--no-passphrase")).code == 6
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nhost = "{HOST}"\nfederation = "{FEDERATION}"\n[trust]\ndirectory = "{federation.node(HOST)}"\n'
    )
    done(run("roots", "import", made["file"], "--config", config, "--no-reload", "--json"))
    bundle = federation.material(HOST).bundle
    assert bundle is not None
    assert bundle.version == 1


def test_new_keys_are_encrypted_unless_that_is_spelled_out(tmp_path: Path) -> None:
    """With encrypted keys a step without, or with a wrong passphrase makes nothing; with it all new keys are encrypted."""
    (tmp_path / "right").write_text(PASSPHRASE)
    (tmp_path / "wrong").write_text("quite another passphrase")
    for name in ("right", "wrong"):
        (tmp_path / name).chmod(0o600)
    now_ms = real_now_ms()
    authority = create_authority(
        tmp_path / "trust", tmp_path / "private", FEDERATION, now_ms, PASSPHRASE.encode()
    )
    federation = TestFederation(tmp_path, FEDERATION, authority, now_ms)
    ready = report(tmp_path, 1)
    for options in ((), ("--no-passphrase",), ("--passphrase-file", tmp_path / "wrong")):
        ran = roots(federation, "prepare", "--from", ready, *options)
        assert (ran.code, ran.error) == (8, "E-PASSPHRASE"), options
        assert not list(authority.private.glob("*-g2.key"))
    done(roots(federation, "prepare", "--from", ready, "--passphrase-file", tmp_path / "right"))
    for name in ("root-g1", "issuing-g1", "admin-1", "root-g2", "issuing-g2"):
        path = authority.private / f"{name}.key"
        assert b"ENCRYPTED" in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
