"""trust-admin roots: what a rotation writes, what openssl says of it, and what mends after a crash."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from esgf_gossip.trust import bundle_files, generations, issue, pem
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.policy import template
from esgf_gossip.trust.requests import make_request
from helpers.bundles import history, next_bundle
from helpers.rotation import HOST, OTHER, done, report, roots, rotate
from helpers.trust import DAY_MS, FEDERATION, TestFederation, a_federation
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


@needs_openssl
def test_everything_written_passes_openssl(federation: TestFederation, tmp_path: Path) -> None:
    """In the middle of a rotation and after it, as server and as client, with all CRLs checked."""
    done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    assert _refused_by_openssl(federation.authority, tmp_path, 1) == []
    done(roots(federation, "activate", "issuing-g2", "--from", report(tmp_path, 2)))
    done(run("cert", "reissue", "--all", *admin(federation), "--json"))
    assert _refused_by_openssl(federation.authority, tmp_path, 2) == []
    done(roots(federation, "retire", "root-g1", "--from", report(tmp_path, 2, 2)))
    assert _refused_by_openssl(federation.authority, tmp_path, 2) == []


def _refused_by_openssl(authority: Authority, tmp_path: Path, generation: int) -> list[str]:
    """Have openssl verify each certificate for both purposes, and the last CRL; return what it says where it does not."""
    directory, refused = authority.directory, []
    for folder in ("roots", "crl", "issuers"):
        joined = b"".join(path.read_bytes() for path in sorted((directory / folder).glob("*.pem")))
        (tmp_path / f"{folder}.pem").write_bytes(joined)
    for host in (HOST, OTHER):
        bundle = directory / "issued" / f"{host}.bundle.pem"
        leaf = tmp_path / "leaf.pem"
        leaf.write_bytes(pem.certificate_pem(pem.certificates(bundle.read_bytes(), host)[0]))
        for purpose in ("sslserver", "sslclient"):
            command = ["openssl", "verify", "-x509_strict", "-crl_check_all", "-purpose", purpose]
            command += ["-verify_hostname", host, "-CAfile", tmp_path / "roots.pem"]
            command += ["-CRLfile", tmp_path / "crl.pem", "-untrusted", tmp_path / "issuers.pem", leaf]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if (ran.returncode, ran.stdout.strip()) != (0, f"{leaf}: OK"):
                refused.append(f"{host} as {purpose}: {ran.stdout}{ran.stderr}")
    issuer = directory / "issuers" / f"issuing-g{generation}.pem"
    command = [
        "openssl",
        "crl",
        "-noout",
        "-CAfile",
        issuer,
        "-in",
        directory / "crl" / f"issuing-g{generation}.crl.pem",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "verify OK" not in ran.stderr:
        refused.append(f"CRL of generation {generation}: {ran.stderr}")
    return refused


def test_a_node_joins_in_the_middle_of_a_rotation(federation: TestFederation, tmp_path: Path) -> None:
    """It is told one root's number, the old or the new, and gets the others by the bundles in its file."""
    done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    done(roots(federation, "activate", "issuing-g2", "--from", report(tmp_path, 2)))
    found = generations.roots(federation.authority.directory)
    for number, name in enumerate(found):
        host = f"new{number}.example.org"
        node = tmp_path / host
        names = ("--node", host, "--federation", FEDERATION, "--out", node)
        made = done(run("cert", "request", *names, "--dns", host, "--json"))
        run("cert", "import", made["request"], *admin(federation))
        ran = run("cert", "approve", host, "--fingerprint", made["fingerprint"], *admin(federation), "--json")
        bundle = done(ran)["bundle"]
        wrong = run("cert", "install", bundle, *names, "--root-fingerprint", "ab" * 32)
        assert (wrong.code, wrong.error) == (4, "E-ROOT")
        told = pem.fingerprint(found[name])
        installed = done(run("cert", "install", bundle, *names, "--root-fingerprint", told, "--json"))
        assert installed["findings"] == []
        assert bundle_files.read_bundles(node)[-1].version == 2
        assert len(list((node / "roots").glob("*.pem"))) == 2


def test_crls_of_all_issuing_cas_are_renewed(federation: TestFederation, tmp_path: Path) -> None:
    """While two are trusted both lists are signed anew; the old root's is not due."""
    done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    published = done(run("crl", "publish", *admin(federation), "--json"))["published"]
    assert sorted(Path(one["file"]).name for one in published) == ["issuing-g1.crl.pem", "issuing-g2.crl.pem"]
    assert {one["number"] for one in published} == {2}


def test_the_list_of_the_old_root_is_renewed_too(federation: TestFederation, tmp_path: Path) -> None:
    """In a long rotation each root's list is due by itself; a root whose key is not here is a note, not a stop."""
    done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    later = ("--now", issue.moment(federation.now_ms + 100 * DAY_MS).strftime("%Y-%m-%dT%H:%M:%S+0000"))
    told = done(run("crl", "publish", *admin(federation), *later, "--json"))
    names = sorted(Path(one["file"]).name for one in told["published"])
    assert names == [f"{kind}-g{number}.crl.pem" for kind in ("issuing", "root") for number in (1, 2)]
    (federation.authority.private / "root-g2.key").rename(tmp_path / "away.key")
    later = ("--now", issue.moment(federation.now_ms + 250 * DAY_MS).strftime("%Y-%m-%dT%H:%M:%S+0000"))
    told = done(run("crl", "publish", *admin(federation), *later, "--json"))
    assert "root-g2" in told["notes"][0]
    assert "root-g1.crl.pem" in {Path(one["file"]).name for one in told["published"]}


def test_a_crash_between_a_bundle_and_its_files_is_mended(federation: TestFederation, tmp_path: Path) -> None:
    """The bundle is written first; to import it again puts the rest in its place."""
    made = done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    directory = federation.authority.directory
    for name, folder in (("root-g2", "roots"), ("issuing-g2", "issuers")):
        (directory / folder / f"{name}.pem").rename(directory / "prepared" / f"{name}.pem")
        (directory / "crl" / f"{name}.crl.pem").rename(directory / "prepared" / f"{name}.crl.pem")
    assert list(generations.roots(directory)) == ["root-g1"]
    done(run("roots", "import", made["file"], "--dir", directory, "--json"))
    assert list(generations.roots(directory)) == ["root-g1", "root-g2"]
    assert (directory / "crl" / "root-g2.crl.pem").exists()


def test_verify_says_what_is_out_of_bounds(federation: TestFederation, tmp_path: Path) -> None:
    """Cert verify judges as a peer does: a certificate that the bundle does not carry is named with the reason."""
    bundle = tmp_path / "node.pem"
    request = make_request(tmp_path / "third", "x.example.org", FEDERATION, ["x.example.org"], ["member"], [])
    approved = federation.authority.approve(
        request.pem, fingerprint=request.fingerprint, now_ms=federation.now_ms
    )
    bundle.write_bytes(approved.bundle_pem)
    assert run("cert", "verify", bundle, *admin(federation)[:2]).out == "OK\n"
    policy = federation.authority.directory / "policy.toml"
    policy.write_text(template(FEDERATION).replace("suffixes = []", 'suffixes = [".site.org"]'))
    done(roots(federation, "renew", "--limit"))
    ran = run("cert", "verify", bundle, *admin(federation)[:2])
    assert ran.code == 3
    assert "'x.example.org' is outside issuer suffix .site.org" in ran.out + ran.err


def test_a_gap_and_too_few_signatures_by_command(federation: TestFederation, tmp_path: Path) -> None:
    """Bad input 14 at a node and at the administration: exits 6 and 3, and nothing is written."""
    versions = history(federation, 3)
    directory = federation.node(HOST)
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nhost = "{HOST}"\nfederation = "{FEDERATION}"\n[trust]\ndirectory = "{directory}"\n'
    )
    gap, bare = tmp_path / "gap", tmp_path / "bare"
    gap.write_bytes(versions[2].body)
    bare.write_bytes(next_bundle(versions[0]).body)
    node = ("--config", config, "--no-reload")
    found = [(ran.code, ran.error) for ran in (run("roots", "import", one, *node) for one in (gap, bare))]
    assert found == [(6, "E-BUNDLE"), (3, "E-BUNDLE-SIG")]
    ran = run("roots", "import", gap, "--dir", federation.authority.directory)
    assert (ran.code, ran.error) == (6, "E-BUNDLE")
    assert "version 3 after 1; version 2 is needed first" in ran.err
    assert len(bundle_files.read_bundles(directory)) == len(federation.authority.bundles()) == 1


def test_bundles_are_exported_for_a_node_that_reaches_nobody(
    federation: TestFederation, tmp_path: Path
) -> None:
    """One file holds all versions; a node that has the first takes the others in one go."""
    rotate(federation, tmp_path)
    out = tmp_path / "all.pem"
    assert done(roots(federation, "export", "--out", out))["versions"] == [1, 2, 3]
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\nhost = "{HOST}"\nfederation = "{FEDERATION}"\n[trust]\ndirectory = "{federation.node(HOST)}"\n'
    )
    ran = run("roots", "import", out, "--config", config, "--no-reload", "--json")
    assert [one["version"] for one in done(ran)["imported"]] == [2, 3]
    listed = done(run("roots", "list", "--config", config, "--json"))
    assert [one["version"] for one in listed] == [1, 2, 3]
    assert roots(federation, "export").error == "E-USAGE"


def test_a_damaged_word_on_who_issues_is_noticed(federation: TestFederation) -> None:
    """The file that names the issuing CA in use is checked."""
    (federation.authority.directory / "issuers" / "active").write_text("../root-g1\n")
    ran = run("crl", "publish", *admin(federation))
    assert (ran.code, ran.error) == (2, "E-CONFIG")


def test_a_bundle_is_dated(federation: TestFederation) -> None:
    """Two years, as every node shows."""
    (first,) = federation.authority.bundles()
    assert first.not_after_ms == federation.now_ms + 730 * DAY_MS


def test_check_says_what_a_rotation_leaves_open(federation: TestFederation, tmp_path: Path) -> None:
    """A draft that waits, files that are not what the bundle says, a bundle about to end, none at all."""

    def found() -> tuple[int, str]:
        ran = run("check", *admin(federation), *later)
        return ran.code, ran.out

    later: tuple[str, ...] = ()
    directory = federation.authority.directory
    assert found() == (0, "OK\n")
    (directory / "bundle" / "000002.draft").write_bytes(b"waits")
    assert (found()[0], "000002.draft waits for signatures" in found()[1]) == (10, True)
    (directory / "bundle" / "000002.draft").unlink()
    done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    assert found() == (0, "OK\n")
    (directory / "issuers" / "issuing-g2.pem").rename(tmp_path / "away.pem")
    assert (found()[0], "are not what trust bundle 2 says" in found()[1]) == (11, True)
    (tmp_path / "away.pem").rename(directory / "issuers" / "issuing-g2.pem")
    later = ("--now", issue.moment(federation.now_ms + 725 * DAY_MS).strftime("%Y-%m-%dT%H:%M:%S+0000"))
    assert (
        "trust bundle 2 expires in 4 days" in found()[1] or "trust bundle 2 expires in 5 days" in found()[1]
    )
    later = ()
    shutil.rmtree(directory / "bundle")
    assert (found()[0], "roots adopt" in found()[1]) == (10, True)
