"""trust-admin check: quiet when all is well, one line and the right exit for each thing that is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helpers.trust import TestFederation, a_federation
from helpers.trust_admin import Ran, admin, run

HOST = "node.example.org"


@pytest.fixture
def federation(tmp_path: Path) -> TestFederation:
    """Found a federation with one node."""
    found = a_federation(tmp_path / "federation")
    config = found.node(HOST).parent / "node.toml"
    config.write_text(f'[node]\nhost = "{HOST}"\nfederation = "{found.name}"\n')
    return found


def _node(federation: TestFederation, *words: object) -> Ran:
    return run("check", "--config", federation.node(HOST).parent / "node.toml", *words)


def test_all_is_well(federation: TestFederation) -> None:
    """A fresh node and a fresh administration have nothing to say."""
    assert (_node(federation).code, _node(federation).out) == (0, "OK\n")
    ran = run("check", *admin(federation))
    assert (ran.code, ran.out) == (0, "OK\n")


@pytest.mark.parametrize(
    ("when", "code", "says"),
    [
        (70, 10, "time to renew it"),
        (80, 10, "this week"),
        (85, 11, "renew it now"),
        (95, 11, "certificate expired on"),
        (17, 10, "past its nextUpdate"),
        (29, 11, "was due for renewal on"),
    ],
)
def test_a_node_is_told_what_ends(
    federation: TestFederation, when: int, code: int, says: str, tmp_path: Path
) -> None:
    """Certificates at 20, 14 and 7 days and after; lists past their day and past their grace."""
    if when > 29:
        federation.publish(federation.crl(2, days=200), HOST)
    ran = _node(federation, "--now", _day(federation, when))
    assert (ran.code, says in ran.out) == (code, True), ran.out


def _day(federation: TestFederation, days: int) -> str:
    return (
        f"{datetime.fromtimestamp(federation.now_ms / 1000, UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    )


def test_a_wider_look_ahead_finds_more(federation: TestFederation) -> None:
    """--expires-in takes days, with or without a d; what is no number is wrong usage."""
    assert _node(federation, "--expires-in", "95d").code == 10
    assert _node(federation, "--expires-in", "40").code == 0
    for wrong in ("0", "x", "-1", "9999d", "1.5"):
        assert _node(federation, "--expires-in", wrong).code == 2


def test_rights_of_private_files(federation: TestFederation) -> None:
    """A key others can read, a link in place of a key, a folder others can write into: each is critical."""
    directory = federation.node(HOST)
    key = directory / "node.key"
    key.chmod(0o640)
    ran = _node(federation)
    assert (ran.code, f"{key} is 0640, must be 0600; chmod 600 {key}" in ran.out) == (11, True)
    key.chmod(0o600)
    key.rename(directory / "real.key")
    key.symlink_to(directory / "real.key")
    ran = _node(federation)
    assert (ran.code, "symbolic link" in ran.out) == (11, True)
    key.unlink()
    (directory / "real.key").rename(key)
    directory.chmod(0o777)
    ran = _node(federation)
    assert (ran.code, "can be written by others" in ran.out) == (11, True)


def test_an_administration_is_told_what_waits_and_what_ends(federation: TestFederation) -> None:
    """Requests that wait, certificates past two thirds of their life, an open key file, a changed log."""
    ran = run("check", *admin(federation), "--now", _day(federation, 65), "--json")
    texts = [one["text"] for one in json.loads(ran.out)]
    assert any(f"cert reissue {HOST}" in text for text in texts)
    log = federation.authority.directory / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"init", b"inix", 1))
    ran = run("check", *admin(federation))
    assert (ran.code, "does not follow" in ran.out) == (11, True)
    (federation.authority.private / "issuing-g1.key").chmod(0o644)
    assert "must be 0600" in run("check", *admin(federation)).out


def test_nothing_is_signed_with_a_clock_that_went_back(federation: TestFederation) -> None:
    """Five minutes behind the last line of the log nothing is signed; check says why, and reading goes on."""
    earlier = ("--now", _day(federation, -1))
    ran = run("crl", "publish", *admin(federation), *earlier)
    assert (ran.code, ran.error) == (4, "E-CLOCK")
    ran = run("check", *admin(federation), *earlier)
    assert (ran.code, "clock is" in ran.out) == (10, True)
    assert run("cert", "list", "--dir", federation.authority.directory, *earlier).code == 0
