"""The hook that replaces get_pub_config: a secret becomes pid_credentials in esg.ini, and nothing else of it changes."""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / "packaging" / "publisher-credentials"
INI = """\
[DEFAULT]
dburl = postgresql://dbsuper:x@localhost/esgcet

# PIDs
[config:cmip6]
pid_prefix = 21.14100
pid_credentials =
    old.example.org | 5671 | esgf-pid | publisher | old
    older.example.org | 5671 | esgf-pid | publisher | older
data_roots =
    /data | /esg/data

[config:cordex]
pid_credentials = kept.example.org | 5671 | v | u | kept
"""
# What awk, sed and the shell would each take for something else.
ODD = r"p&ss\1$(id)`id`%s'\"#;="
SECRET = (
    f"new.example.org | 5671 | esgf-pid | publisher | {ODD}\n\n  second.example.org | 5671 | v | u | p2\r\n"
)
WANTED = f"\nnew.example.org | 5671 | esgf-pid | publisher | {ODD}\nsecond.example.org | 5671 | v | u | p2"


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    """Write an esg.ini as it is in use."""
    path = tmp_path / "esg.ini"
    path.write_text(INI)
    path.chmod(0o640)
    return path


def told(ini: Path, secret: str = SECRET, name: str = "pid-credentials.cmip6") -> int:
    """Run the hook as the daemon does."""
    path = ini.parent / "secret"
    path.write_bytes(secret.encode())
    environment = {
        "PATH": os.defpath,
        "ESGF_GOSSIP_SECRET_NAME": name,
        "ESGF_GOSSIP_SECRET_VERSION": "1",
        "ESGF_GOSSIP_SECRET_PATH": str(path),
    }
    ran = subprocess.run([HOOK, ini], check=False, env=environment, capture_output=True)
    path.unlink()
    assert ODD.encode() not in ran.stdout + ran.stderr
    return ran.returncode


def read(ini: Path) -> configparser.RawConfigParser:
    """Read it as the publisher does: an option or section named twice is an error."""
    found = configparser.RawConfigParser()
    found.read_string(ini.read_text())
    return found


def test_the_credentials_are_replaced_and_nothing_else(ini: Path) -> None:
    """All lines of the secret, character for character; every other option as it was; mode kept; nothing left beside."""
    before, size = read(ini), len(INI.splitlines())
    assert told(ini) == 0
    after = read(ini)
    assert after["config:cmip6"]["pid_credentials"] == WANTED
    before["config:cmip6"]["pid_credentials"] = WANTED
    assert {name: dict(after[name]) for name in after} == {name: dict(before[name]) for name in before}
    assert "# PIDs\n" in ini.read_text()
    assert len(ini.read_text().splitlines()) == size
    assert ini.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in ini.parent.iterdir()] == ["esg.ini"]


def test_told_twice_it_is_the_same(ini: Path) -> None:
    """The daemon may tell a version again; the old client failed on its second run."""
    assert told(ini) == 0
    once = ini.read_bytes()
    assert told(ini) == 0
    assert ini.read_bytes() == once


def test_a_project_that_is_not_there_is_added(ini: Path) -> None:
    """Its section comes at the end."""
    assert told(ini, name="pid-credentials.input4mips") == 0
    assert read(ini)["config:input4mips"]["pid_credentials"] == WANTED
    assert ini.read_text().startswith(INI)


@pytest.mark.parametrize("name", ["esgcet", "pid-credentials", "other.pid-credentials.cmip6"])
def test_other_secrets_are_left_alone(ini: Path, name: str) -> None:
    """The hook is told of every secret of the node; that is no failure."""
    assert told(ini, name=name) == 0
    assert ini.read_text() == INI


def test_an_empty_secret_takes_nothing_away(ini: Path) -> None:
    """Whatever was sealed by mistake, the credentials in use stay; the node's status shows the failure."""
    assert told(ini, secret=" \n\n") != 0
    assert ini.read_text() == INI


def test_without_an_esg_ini_it_fails(tmp_path: Path) -> None:
    """So it is told again, until the publisher is installed; no file is made up."""
    assert told(tmp_path / "esg.ini") != 0
    assert list(tmp_path.iterdir()) == []
