"""The command trust-admin: a federation by hand, and what it refuses to do."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from esgf_gossip.trust import audit, requests
from esgf_gossip.trust.authority import Authority
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.founding import create_authority
from esgf_gossip.trust.material import TrustMaterial
from helpers.trust import TestFederation, a_federation
from helpers.trust_admin import admin, run

HOST = "node.example.org"
NAME = "federation.example.org"
PASSPHRASE = b"six random words of a list"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation."""
    return a_federation(tmp_path / "federation")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the node.toml of HOST."""
    path = tmp_path / "node" / "node.toml"
    path.parent.mkdir()
    path.write_text(f'[node]\nhost = "{HOST}"\nfederation = "{NAME}"\n[trust]\ndirectory = "trust"\n')
    return path


def test_a_federation_by_hand(tmp_path: Path, config: Path) -> None:
    """Every step from init to a node that loads its trust works as the manual says."""
    secret = tmp_path / "passphrase"
    secret.write_bytes(PASSPHRASE + b"\n")
    secret.chmod(0o600)
    place = ("--dir", tmp_path / "trust", "--private", tmp_path / "keys", "--passphrase-file", secret)
    made = json.loads(run("init", "--federation", NAME, *place, "--json").out)
    requested = json.loads(run("cert", "request", "--config", config, "--group", "member", "--json").out)
    imported = run("cert", "import", requested["request"], "--dir", tmp_path / "trust")
    waiting = json.loads(run("cert", "pending", "--dir", tmp_path / "trust", "--json").out)
    assert [one["id"] for one in waiting] == [imported.out.strip()]
    shown = json.loads(run("cert", "show", HOST, "--dir", tmp_path / "trust", "--json").out)
    assert (shown["policy"], shown["requested"]) == ("allowed", shown["granted"])
    approved = run("cert", "approve", HOST, "--fingerprint", requested["words"], *place, "--json")
    bundle = json.loads(approved.out)["bundle"]
    installed = run("cert", "install", bundle, "--config", config, "--root-fingerprint", made["root_sha256"])
    assert (installed.code, installed.err) == (0, "")
    verified = run("cert", "verify", "--config", config, "--host", HOST)
    assert (verified.code, verified.out) == (0, "OK\n")
    listed = json.loads(run("cert", "list", "--dir", tmp_path / "trust", "--json").out)
    assert [(one["node"], one["state"]) for one in listed] == [(HOST, "valid")]
    numbers = json.loads(run("crl", "show", "--config", config, "--json").out)
    assert [one["number"] for one in numbers] == [1, 1]
    logged = json.loads(run("log", "show", "--dir", tmp_path / "trust", "--json").out)
    assert [one["action"] for one in logged] == ["init", "import", "approve"]
    assert run("log", "verify", "--dir", tmp_path / "trust").out.startswith("OK: 3 lines")
    now_ms = int(config.stat().st_mtime * 1000) + 60_000
    material = TrustMaterial.load(config.parent / "trust", host=HOST, federation=NAME, now_ms=now_ms)
    assert material.names.groups == ("member",)


def test_modes_hold_whatever_the_umask(tmp_path: Path) -> None:
    """Keys are 0600 in 0700, everything else 0644 in 0755."""
    before = os.umask(0o077)
    try:
        create_authority(tmp_path / "trust", tmp_path / "keys", NAME, 0, None)
    finally:
        os.umask(before)
    found = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
        if path.name != ".lock"
    }
    private = {name: mode for name, mode in found.items() if name.startswith("keys")}
    public = {name: mode for name, mode in found.items() if not name.startswith("keys")}
    names = ("admin-1", "issuing-g1", "root-g1")
    assert private == {"keys": 0o700, **{f"keys/{name}.key": 0o600 for name in names}}
    assert set(public.values()) == {0o755, 0o644}


def test_init_needs_a_passphrase_or_the_word_that_there_is_none(tmp_path: Path) -> None:
    """Unencrypted CA keys come only with --no-passphrase; the passphrase encrypts both."""
    place = ("--dir", tmp_path / "trust")
    refused = run("init", "--federation", NAME, *place)
    assert (refused.code, refused.error) == (8, "E-PASSPHRASE")
    assert not (tmp_path / "trust").exists()
    secret = tmp_path / "passphrase"
    secret.write_bytes(b"short")
    secret.chmod(0o600)
    assert run("init", "--federation", NAME, *place, "--passphrase-file", secret).code == 8
    secret.write_bytes(PASSPHRASE)
    assert run("init", "--federation", NAME, *place, "--passphrase-file", secret).code == 0
    assert all(b"ENCRYPTED" in path.read_bytes() for path in (tmp_path / "trust" / "private").iterdir())
    authority = Authority.open(tmp_path / "trust", tmp_path / "trust" / "private")
    for wrong in (None, b"another passphrase"):
        with pytest.raises(TrustError) as caught:
            authority.unlocked(wrong)
        assert caught.value.exit_code == 8
    again = run("init", "--federation", NAME, *place, "--passphrase-file", secret)
    assert (again.code, again.error) == (6, "E-EXISTS")
    secret.chmod(0o644)
    assert (
        run("init", "--federation", NAME, "--dir", tmp_path / "b", "--passphrase-file", secret).error
        == "E-MODE"
    )


def test_key_is_never_overwritten(config: Path) -> None:
    """A second request is refused and leaves the key; --same-key asks again for the same one."""
    first = json.loads(run("cert", "request", "--config", config, "--json").out)
    key = (config.parent / "trust" / "node.key").read_bytes()
    second = run("cert", "request", "--config", config)
    assert (second.code, second.error) == (6, "E-EXISTS")
    third = run("cert", "request", "--config", config, "--same-key", "--json")
    assert third.code == 0
    assert (config.parent / "trust" / "node.key").read_bytes() == key
    assert json.loads(third.out)["fingerprint"] != first["fingerprint"]


def request_of(
    federation: TestFederation, tmp_path: Path, host: str = HOST, **more: Sequence[str]
) -> requests.RequestFile:
    """Make a request of a new node."""
    number = len(list(tmp_path.iterdir()))
    return requests.make_request(
        tmp_path / f"r{number}",
        host,
        federation.name,
        more.get("dns", [host]),
        more.get("groups", []),
        more.get("roles", []),
    )


def test_wrong_fingerprint_is_refused(federation: TestFederation, tmp_path: Path) -> None:
    """A fingerprint that is not the request's, or only its beginning, signs nothing."""
    made = request_of(federation, tmp_path)
    run("cert", "import", made.path, *admin(federation)[:2])
    for told in ("3f2a" * 16, made.fingerprint[:32], ""):
        refused = run("cert", "approve", HOST, "--fingerprint", told, *admin(federation))
        assert (refused.code, refused.error) == (4, "E-FPR")
    assert (
        run("cert", "approve", HOST, "--fingerprint", made.fingerprint.upper(), *admin(federation)).code == 0
    )


def test_new_root_must_be_named(federation: TestFederation, config: Path) -> None:
    """A root that is not trusted yet is installed only with its fingerprint, --yes or not."""
    made = json.loads(run("cert", "request", "--config", config, "--json").out)
    run("cert", "import", made["request"], *admin(federation)[:2])
    approved = run(
        "cert", "approve", HOST, "--fingerprint", made["fingerprint"], *admin(federation), "--json"
    )
    bundle = json.loads(approved.out)["bundle"]
    for told in ((), ("--root-fingerprint", "ab" * 32)):
        refused = run("cert", "install", bundle, "--config", config, *told)
        assert (refused.code, refused.error) == (4, "E-ROOT")
        assert not (config.parent / "trust" / "chain.pem").exists()


def test_policy_limits_what_is_granted(federation: TestFederation, tmp_path: Path) -> None:
    """Names outside of the policy are refused with each objection; dropped names are not granted."""
    path = federation.authority.directory / "policy.toml"
    path.write_text(
        f'federation = "{NAME}"\ndns_suffixes = [".example.org"]\ngroups = ["member"]\nroles = ["index"]\n'
    )
    made = request_of(
        federation,
        tmp_path,
        dns=[HOST, "index.site-b.net"],
        groups=["member"],
        roles=["secret-admin", "index"],
    )
    run("cert", "import", made.path, *admin(federation)[:2])
    told = ("--fingerprint", made.fingerprint)
    refused = run("cert", "approve", HOST, *told, *admin(federation))
    assert (refused.code, refused.error) == (4, "E-POLICY")
    assert "'index.site-b.net' is outside issuer suffix .example.org" in refused.err
    assert "role 'secret-admin' not allowed for this issuer" in refused.err
    drop = ("--drop-name", "index.site-b.net", "--drop-name", "secret-admin")
    assert run("cert", "approve", HOST, *told, *drop, "--days", "91", *admin(federation)).error == "E-POLICY"
    granted = run("cert", "approve", HOST, *told, *drop, *admin(federation), "--json")
    assert json.loads(granted.out)["names"] == [
        HOST,
        f"esgf://{NAME}/node/{HOST}",
        f"esgf://{NAME}/group/member",
        f"esgf://{NAME}/role/index",
    ]


def test_second_key_of_a_node_needs_a_word(federation: TestFederation, tmp_path: Path) -> None:
    """A node that has a valid certificate gets one for another key only with --replace."""
    approve = federation.authority.approve
    first, second = request_of(federation, tmp_path), request_of(federation, tmp_path)
    how = {"now_ms": federation.now_ms}
    approve(first.pem, fingerprint=first.fingerprint, **how)
    assert approve(first.pem, fingerprint=first.fingerprint, **how).names.host == HOST
    with pytest.raises(TrustError) as caught:
        approve(second.pem, fingerprint=second.fingerprint, **how)
    assert (caught.value.code, caught.value.exit_code) == ("E-DUPLICATE", 6)
    assert approve(second.pem, fingerprint=second.fingerprint, replace=True, **how).names.host == HOST


def test_revoked_key_is_never_certified_again(federation: TestFederation, tmp_path: Path) -> None:
    """A request for the key of a revoked certificate is refused, also with --replace."""
    made = request_of(federation, tmp_path)
    approve = federation.authority.approve
    issued = approve(made.pem, fingerprint=made.fingerprint, now_ms=federation.now_ms)
    federation.revoke([issued.serial])
    with pytest.raises(TrustError) as caught:
        approve(made.pem, fingerprint=made.fingerprint, now_ms=federation.now_ms, replace=True)
    assert caught.value.code == "E-POLICY"
    listed = json.loads(run("cert", "list", "--revoked", "--json", *admin(federation)[:2]).out)
    assert [one["serial"] for one in listed] == [f"{issued.serial:x}"]


def test_denied_request_is_out_of_the_way(federation: TestFederation, tmp_path: Path) -> None:
    """A denied request is pending no longer, kept with its reason in the log."""
    made = request_of(federation, tmp_path)
    request_id = run("cert", "import", made.path, *admin(federation)[:2]).out.strip()
    denied = run("cert", "deny", request_id, "--reason", "unknown site", *admin(federation)[:2])
    assert (denied.code, denied.out.strip()) == (0, request_id)
    assert json.loads(run("cert", "pending", "--json", *admin(federation)[:2]).out) == []
    assert federation.authority.log.records()[-1]["reason"] == "unknown site"
    assert run("cert", "deny", request_id, "--reason", "again", *admin(federation)[:2]).code == 5


def test_changed_log_is_noticed(federation: TestFederation, tmp_path: Path) -> None:
    """A changed, removed or cut line of the audit log is found."""
    made = request_of(federation, tmp_path)
    federation.authority.import_request(made.pem, "request", federation.now_ms)
    path = federation.authority.directory / audit.FILE_NAME
    good = path.read_bytes()
    first, second = good.splitlines(keepends=True)
    for bad in (good.replace(b"init", b"INIT"), second, good[:-5], second + first, b"[]\n"):
        path.write_bytes(bad)
        refused = run("log", "verify", *admin(federation)[:2])
        assert (refused.code, refused.error) == (3, "E-LOG")
    path.write_bytes(good)
    expected = f"OK: 2 lines, head {hashlib.sha256(second.rstrip()).hexdigest()}\n"
    assert run("log", "verify", *admin(federation)[:2]).out == expected


def test_git_guard(tmp_path: Path) -> None:
    """No private key is written inside a git work tree that does not ignore it."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    with pytest.raises(TrustError) as caught:
        requests.make_request(tmp_path / "node", HOST, NAME, [HOST], [], [])
    assert (caught.value.code, caught.value.exit_code) == ("E-GIT", 4)
    assert not list(tmp_path.rglob("*.key"))
    (tmp_path / ".gitignore").write_text("*.key\n")
    assert requests.make_request(tmp_path / "node", HOST, NAME, [HOST], [], []).path.exists()
    # The folder of an administration carries its own .gitignore.
    (tmp_path / ".gitignore").unlink()
    made = create_authority(tmp_path / "trust", tmp_path / "trust" / "private", NAME, 0, None)
    assert (made.private / "root-g1.key").exists()


def test_verify_says_every_reason(federation: TestFederation, tmp_path: Path) -> None:
    """Verify prints one line per reason and exits with 3."""
    chain = federation.node(HOST) / "chain.pem"
    place = admin(federation)[:2]
    assert run("cert", "verify", chain, *place).out == "OK\n"
    assert run("cert", "verify", chain, "--host", "other.example.org", *place).code == 3
    federation.revoke([federation.serial(HOST)])
    refused = run("cert", "verify", chain, *place)
    assert (refused.code, refused.out.split(":")[0]) == (3, "E-CHAIN-23")
    late = run("cert", "verify", chain, "--at", "2099-01-01", *place)
    assert [line.split(":")[0] for line in late.out.splitlines()] == [
        "E-CRL-STALE",
        "E-CRL-STALE",
        "E-CHAIN-10",
    ]
    issuer = federation.authority.directory / "issuers" / "issuing-g1.pem"
    assert run("cert", "verify", issuer, "--as", "issuer", *place).out == "OK\n"
    assert run("cert", "verify", issuer, *place).code == 3


COMMANDS = [
    ("init",),
    *(
        ("cert", name)
        for name in ("request", "import", "pending", "list", "show", "approve", "deny", "install", "verify")
    ),
    *(("crl", name) for name in ("publish", "import", "show")),
    ("log", "show"),
    ("log", "verify"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: Sequence[str]) -> None:
    """Every command has help with an example, and a version."""
    shown = run(*command, "--help")
    assert (shown.code, "Example: trust-admin" in " ".join(shown.out.split())) == (0, True)
    assert run(*command, "--version").out.startswith("trust-admin ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("cert", "bogus"),
        ("cert", "approve", "x"),
        ("cert", "request"),
        ("cert", "list", "--expires-in", "soon"),
        (),
    ],
)
def test_wrong_usage_exits_with_2(arguments: Sequence[str], federation: TestFederation) -> None:
    """Wrong usage ends with 2 and one line, never a traceback."""
    place = admin(federation)[:2] if arguments and arguments[1] == "list" else ()
    federation.node(HOST)
    ran = run(*arguments, *place)
    assert (ran.code, "Traceback" in ran.err) == (2, False)


def test_wrong_node_toml_is_named(tmp_path: Path) -> None:
    """A node.toml without a host, or that is no TOML, is named with the key."""
    path = tmp_path / "node.toml"
    for content, says in (
        ("[node]\n", "host is missing"),
        ("node = 1\n", "[node] must be a table"),
        ("x", "is not TOML"),
    ):
        path.write_text(content)
        ran = run("cert", "request", "--config", path)
        assert (ran.code, says in ran.err) == (2, True)


def test_certificates_that_end_soon_are_listed(federation: TestFederation) -> None:
    """--expires-in lists those that end within the time, and no others."""
    federation.node(HOST)
    place = (*admin(federation)[:2], "--json")
    assert json.loads(run("cert", "list", "--expires-in", "30d", *place).out) == []
    assert len(json.loads(run("cert", "list", "--expires-in", "91d", *place).out)) == 1
