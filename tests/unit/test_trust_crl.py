"""Fresh CRLs: published by the administration, taken in by nodes, and what is refused on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from esgf_gossip.trust import issue, keys, pem, revocation
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.founding import create_authority
from esgf_gossip.trust.issue import CertificateAuthority
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.publish import publish
from helpers.trust import DAY_MS, TestFederation, a_federation
from helpers.trust_admin import Ran, admin, run

HOST = "node.example.org"
PASSPHRASE = b"six random words of a list"
ISSUING_FILE = "crl/issuing-g1.crl.pem"
ROOT_FILE = "crl/root-g1.crl.pem"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation with one node."""
    made = a_federation(tmp_path / "federation")
    made.node(HOST)
    return made


def at(federation: TestFederation, days: float) -> tuple[str, str]:
    """Return the option that moves a command's clock."""
    moment = datetime.fromtimestamp(federation.now_ms / 1000 + days * 86400, UTC)
    return "--now", moment.strftime("%Y-%m-%dT%H:%M:%S+0000")


def published(federation: TestFederation, *options: object) -> dict[str, Any]:
    """Run crl publish and return the numbers it signed by file name, with its notes under "notes"."""
    ran = run("crl", "publish", "--json", *options, *admin(federation))
    assert (ran.code, ran.err) == (0, "")
    body = json.loads(ran.out)
    return {
        **{Path(one["file"]).name: one["number"] for one in body["published"]},
        "notes": len(body["notes"]),
    }


def taken(federation: TestFederation, crl: Any, *options: object) -> Ran:
    """Run crl import of a CRL, or of several, on the node."""
    path = federation.directory / "offered.crl.pem"
    path.write_bytes(b"".join(map(pem.crl_pem, crl if isinstance(crl, list) else [crl])))
    return run("crl", "import", path, "--out", federation.node(HOST), *options)


def held(federation: TestFederation) -> dict[str, bytes]:
    """Return the node's CRL files."""
    return {path.name: path.read_bytes() for path in (federation.node(HOST) / "crl").iterdir()}


def numbers(federation: TestFederation) -> list[int]:
    """Return the numbers of the CRLs the node holds: the issuing CA's, the root's."""
    shown = run("crl", "show", "--json", *(federation.node(HOST) / "crl").glob("cn-issuing*"))
    other = run("crl", "show", "--json", *(federation.node(HOST) / "crl").glob("cn-root*"))
    return [one["number"] for ran in (shown, other) for one in json.loads(ran.out)]


# --------------------------------------------------------------------- publish


def test_publish_signs_the_next_number_and_keeps_what_is_revoked(federation: TestFederation) -> None:
    """The new CRL has the next number, the same serial numbers with their dates, and a later nextUpdate."""
    federation.revoke([5, federation.serial(HOST)])
    before = federation.authority.crls()
    assert published(federation, *at(federation, 7)) == {"issuing-g1.crl.pem": 3, "notes": 0}
    old, new = (
        revocation.CrlSet.choose(crls).of_issuer(federation.authority.issuing_certificate.subject)
        for crls in (before, federation.authority.crls())
    )
    assert {(one.serial_number, one.revocation_date_utc) for one in new} == {
        (one.serial_number, one.revocation_date_utc) for one in old
    }
    due_ms = federation.now_ms + 21 * DAY_MS
    assert abs(revocation.next_update_ms(new) - due_ms) < 1000
    logged = federation.authority.log.records()[-1]
    assert (logged["action"], logged["crl"], logged["revoked"]) == ("crl", 3, 2)
    assert run("log", "verify", *admin(federation)[:2]).code == 0


@pytest.mark.parametrize(("days", "number"), [(89, None), (91, 2)])
def test_root_crl_follows_at_half_of_its_life(
    federation: TestFederation, days: int, number: int | None
) -> None:
    """The root's CRL is signed anew past half of its life, also when the issuing CA's is long stale."""
    assert published(federation, *at(federation, days)).get("root-g1.crl.pem") == number


def test_root_crl_is_signed_on_demand(federation: TestFederation) -> None:
    """--root signs the root's CRL at any time, with the days that are asked for."""
    assert published(federation, "--root", "--days", "3", "--root-days", "30")["root-g1.crl.pem"] == 2
    lives = {
        revocation.next_update_ms(crl) - revocation.milliseconds(crl.last_update_utc)
        for crl in federation.authority.crls()
    }
    five_minutes = 300_000
    assert lives == {3 * DAY_MS + five_minutes, 30 * DAY_MS + five_minutes}


def test_offline_root_does_not_stop_the_weekly_crl(federation: TestFederation) -> None:
    """Without the root's key the issuing CA's CRL is signed and the root's is asked for; --root then fails."""
    (federation.authority.private / "root-g1.key").unlink()
    assert published(federation, *at(federation, 100)) == {"issuing-g1.crl.pem": 2, "notes": 1}
    refused = run("crl", "publish", "--root", *admin(federation), *at(federation, 101))
    assert (refused.code, refused.error) == (5, "E-NOTFOUND")
    assert published(federation, *at(federation, 102))["issuing-g1.crl.pem"] == 3


def test_publish_needs_the_passphrase(tmp_path: Path) -> None:
    """One passphrase, from a file or a pipe, opens both keys; without it, or with a wrong one, exit 8."""
    authority = create_authority(tmp_path / "trust", tmp_path / "keys", "f.example.org", 0, PASSPHRASE)
    place = (
        "--dir",
        authority.directory,
        "--private",
        authority.private,
        "--now",
        "1970-01-08T00:00:00+0000",
    )
    before = (authority.directory / ISSUING_FILE).read_bytes()
    secret = tmp_path / "passphrase"
    secret.write_bytes(b"another passphrase")
    secret.chmod(0o600)
    for given in ((), ("--passphrase-file", secret)):
        refused = run("crl", "publish", "--root", *place, *given)
        assert (refused.code, refused.error) == (8, "E-PASSPHRASE")
    assert (authority.directory / ISSUING_FILE).read_bytes() == before
    secret.write_bytes(PASSPHRASE)
    with secret.open("rb") as pipe:
        ran = run("crl", "publish", "--root", *place, "--passphrase-fd", pipe.fileno(), "--json")
    assert [one["number"] for one in json.loads(ran.out)["published"]] == [2, 2]


def test_publish_signs_nothing_over_a_strange_crl(federation: TestFederation) -> None:
    """A forged, missing or later CRL in the administration is refused, and nothing is signed or logged."""
    path = federation.authority.directory / ISSUING_FILE
    stranger = attrs.evolve(federation.issuing, key=keys.new_key())
    forged = issue.crl(stranger, 7, {}, federation.now_ms, 14)
    late = federation.crl(7, at_ms=federation.now_ms + DAY_MS)
    found = []
    for content in (pem.crl_pem(forged), pem.crl_pem(late), b""):
        path.write_bytes(content)
        if not content:
            path.unlink()
        ran = run("crl", "publish", "--root", *admin(federation))
        found.append((ran.code, ran.error))
    assert found == [(3, "E-CRL-SIG"), (3, "E-CRL-FUTURE"), (3, "E-CRL-MISSING")]
    assert not path.exists()
    assert [one["action"] for one in federation.authority.log.records()] == ["init", "approve"]
    assert run("crl", "publish", "--days", "0", *admin(federation)).code == 2


def test_publish_refuses_a_clock_that_went_back(federation: TestFederation) -> None:
    """A CRL dated before the one it replaces is not signed: nodes would refuse it."""
    publish(federation.authority.unlocked(None), federation.now_ms)
    with pytest.raises(TrustError) as caught:
        publish(federation.authority.unlocked(None), federation.now_ms - 5000)
    assert caught.value.code == "E-CRL-ROLLBACK"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl program is not installed")
def test_openssl_verifies_what_is_published(federation: TestFederation) -> None:
    """The openssl program verifies both CRLs under their issuers and reads their numbers."""
    federation.revoke([1, 2, 3])
    published(federation, "--root")
    folder = federation.authority.directory
    for name, issuer, number in (
        (ISSUING_FILE, "issuers/issuing-g1.pem", "0x03"),
        (ROOT_FILE, "roots/root-g1.pem", "0x02"),
    ):
        command = ["openssl", "crl", "-in", folder / name, "-CAfile", folder / issuer, "-crlnumber", "-noout"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert (ran.returncode, "verify OK" in ran.stderr) == (0, True)
        assert ran.stdout.strip() == f"crlNumber={number}"


# --------------------------------------------------------------------- import


def test_import_replaces_the_crl(federation: TestFederation) -> None:
    """A newer CRL takes the place of the old one, is told with the next step, and twice is nothing to do."""
    published(federation, "--root")
    paths = [federation.authority.directory / name for name in (ISSUING_FILE, ROOT_FILE)]
    ran = run("crl", "import", *paths, "--out", federation.node(HOST))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].split(maxsplit=1) == ["next", "esgf-gossip reload"]
    assert sorted(held(federation).values()) == sorted(path.read_bytes() for path in paths)
    before = held(federation)
    again = run("crl", "import", *paths, "--out", federation.node(HOST))
    assert (again.code, again.out) == (0, "nothing to do: held already\n")
    assert held(federation) == before
    assert federation.material(HOST).crl_numbers() == dict.fromkeys(
        (revocation.issuer_name(crl) for crl in federation.authority.crls()), 2
    )


def test_import_goes_by_node_toml(federation: TestFederation, tmp_path: Path) -> None:
    """--config names the node; neither or both places are wrong usage."""
    config = federation.node(HOST).parent / "node.toml"
    config.write_text(f'[node]\nhost = "{HOST}"\nfederation = "{federation.name}"\n')
    path = tmp_path / "new.crl"
    path.write_bytes(pem.crl_pem(federation.crl(2)))
    assert run("crl", "import", path).code == 2
    assert run("crl", "import", path, "--config", config, "--out", tmp_path).code == 2
    ran = run("crl", "import", path, "--config", config)
    assert (ran.code, "no daemon runs here" in ran.out) == (0, True)


def test_import_takes_the_crls_of_a_bundle(federation: TestFederation) -> None:
    """A bundle of the administrator gives its CRLs, and nothing else of it is taken."""
    published(federation, "--root")
    federation.node("other.example.org")
    bundle = federation.authority.directory / "issued" / "other.example.org.bundle.pem"
    chain = (federation.node(HOST) / "chain.pem").read_bytes()
    assert run("crl", "import", bundle, "--out", federation.node(HOST)).code == 0
    assert numbers(federation) == [2, 2]
    assert (federation.node(HOST) / "chain.pem").read_bytes() == chain


def test_import_refuses_each_bad_crl(federation: TestFederation) -> None:
    """Each CRL that may not replace the one held is refused with its own code, and nothing changes."""
    taken(federation, federation.crl(5, [1, 2]))
    before = held(federation)
    now_ms = federation.now_ms
    stranger = CertificateAuthority(federation.issuing.certificate, keys.new_key())
    other = a_federation(federation.directory / "other", "other.example.org", now_ms)
    refused = {
        "lower number": (federation.crl(4, [1, 2]), 6, "E-CRL-ROLLBACK"),
        "lower date": (federation.crl(6, [1, 2], at_ms=now_ms - DAY_MS), 6, "E-CRL-ROLLBACK"),
        "equal number": (federation.crl(5, [1, 2, 3]), 6, "E-CRL-FORK"),
        "dropped serial": (federation.crl(6, [1]), 6, "E-CRL-SHRINK"),
        "stale": (federation.crl(6, [1, 2], at_ms=now_ms - 40 * DAY_MS), 3, "E-CRL-STALE"),
        "future": (federation.crl(6, [1, 2], at_ms=now_ms + DAY_MS), 3, "E-CRL-FUTURE"),
        "wrong key": (issue.crl(stranger, 6, {}, now_ms, 14), 3, "E-CRL-SIG"),
        "other federation": (other.crl(6), 3, "E-CRL-SIG"),
        # One of two is good: still all or none.
        "one of two": (
            [issue.crl(federation.root, 2, {}, now_ms, 180), federation.crl(4)],
            6,
            "E-CRL-ROLLBACK",
        ),
    }
    found = {}
    for kind, (crl, _, _) in refused.items():
        ran = taken(federation, crl)
        found[kind] = (ran.code, ran.error)
    assert found == {kind: (code, error) for kind, (_, code, error) in refused.items()}
    assert held(federation) == before


def test_import_refuses_what_is_no_crl(federation: TestFederation, tmp_path: Path) -> None:
    """A certificate, a private key, half a CRL and no file at all are named for what they are."""
    half = tmp_path / "half.pem"
    half.write_bytes(pem.crl_pem(federation.crl(2)) + pem.crl_pem(federation.crl(3))[:90])
    found = []
    for path in (
        federation.node(HOST) / "chain.pem",
        federation.node(HOST) / "node.key",
        half,
        tmp_path / "no",
    ):
        ran = run("crl", "import", path, "--out", federation.node(HOST))
        found.append((ran.code, ran.error))
    assert found == [(3, "E-TYPE"), (3, "E-TYPE"), (3, "E-PEM"), (5, "E-NOTFOUND")]
    assert numbers(federation) == [1, 1]


def test_import_takes_the_newest_of_several(federation: TestFederation) -> None:
    """Of several CRLs of one issuer the newest counts, in whatever order they come."""
    assert taken(federation, [federation.crl(3, [1]), federation.crl(2, [1])]).code == 0
    assert numbers(federation) == [3, 1]


def test_import_removes_the_file_it_supersedes(federation: TestFederation) -> None:
    """An old CRL under any name goes once a newer one of its issuer is in force; strangers' files stay."""
    folder = federation.node(HOST) / "crl"
    (old,) = folder.glob("cn-issuing*")
    old.rename(folder / "by-hand.crl")
    other = a_federation(federation.directory / "other", "other.example.org", federation.now_ms)
    (folder / "other.crl").write_bytes(pem.crl_pem(other.crl(9)))
    assert taken(federation, federation.crl(2)).code == 0
    assert sorted(held(federation)) == [
        old.name,
        "cn-root-g1-o-federation-example-org.crl.pem",
        "other.crl",
    ]


def test_import_mends_a_node_that_nobody_lets_in(federation: TestFederation) -> None:
    """Long after the end of grace, with an expired certificate, the newest CRL still comes in; one at a time too."""
    late_ms = federation.now_ms + 60 * DAY_MS
    for crl in (
        federation.crl(2, at_ms=late_ms),
        issue.crl(federation.root, 2, {}, late_ms, 180),
    ):
        with_clock = taken(federation, crl, *at(federation, 60))
        assert (with_clock.code, with_clock.err) == (0, "")
    assert federation.material(HOST, late_ms).findings(late_ms)[0].text.startswith("this node's certificate")
    expired_ms = federation.now_ms + 100 * DAY_MS
    assert taken(federation, federation.crl(3, at_ms=expired_ms), *at(federation, 100)).code == 0


def test_import_takes_what_revokes_the_node_itself(federation: TestFederation) -> None:
    """A CRL that revokes this node is taken like any other, and says so."""
    ran = taken(federation, federation.crl(2, [federation.serial(HOST)]), "--json")
    assert (ran.code, json.loads(ran.out)["notes"]) == (0, ["this node's own certificate is revoked"])
    with pytest.raises(TrustError) as caught:
        TrustMaterial.load(
            federation.node(HOST), host=HOST, federation=federation.name, now_ms=federation.now_ms
        )
    assert caught.value.code == "E-CHAIN-23"


def test_import_needs_an_installed_node(federation: TestFederation, tmp_path: Path) -> None:
    """Where no certificate is installed nothing can be judged, and nothing is made."""
    path = tmp_path / "new.crl"
    path.write_bytes(pem.crl_pem(federation.crl(2)))
    ran = run("crl", "import", path, "--out", tmp_path / "nowhere")
    assert (ran.code, ran.error) == (5, "E-NOTFOUND")
    assert not (tmp_path / "nowhere").exists()
