"""Check: what it finds in configuration, folders, addresses, site data and ports, and how it ends."""

from __future__ import annotations

import json
import os
import re
import socket
import tomllib
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from esgf_gossip.cli import findings as findings_module
from esgf_gossip.cli.findings import Finding, Level, bind_error
from esgf_gossip.cli.main import program
from esgf_gossip.config import Config, from_document, load
from esgf_gossip.demo.site_data import site_hosts, write_site
from helpers.config import a_node_toml
from helpers.made_up_daemon import MadeUpDaemon, an_answer
from helpers.trust import a_federation

SITE = site_hosts(1)[0]


@pytest.fixture
def good(tmp_path, monkeypatch) -> dict:
    """Make the folder of a node in good order; trust has tests of its own. Gives its tables."""
    monkeypatch.setattr(findings_module, "_trust", lambda _config: iter(()))
    write_site(1, tmp_path)
    address = f"127.0.0.1:{a_free_port()}"
    return {
        "node": {"host": SITE},
        "gossip": {"listen": address, "advertise": address, "seeds": ["x.org:1"]},
        "http": {"listen": ""},
    }


def a_free_port() -> int:
    """Give a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def check(folder: Path, tables: dict, *options: str, **changes):
    """Run check on a node; ``changes`` are laid over its tables."""
    merged = {name: {**tables.get(name, {}), **changes.get(name, {})} for name in {**tables, **changes}}
    path = a_node_toml(folder, **merged)
    return CliRunner().invoke(program, ["check", "--config", str(path), *options])


def without_site_findings(result) -> list[str]:
    """Give the lines of a result but for those on the real site data, which is as it was in 2015."""
    return [line for line in result.stdout.splitlines() if not line.startswith("attention: site:")]


def test_a_node_in_good_order_has_no_finding(tmp_path, good, monkeypatch):
    """Without a finding check says so and exits 0."""
    monkeypatch.setattr(findings_module, "_site", lambda _config: iter(()))
    result = check(tmp_path, good)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "good\n", "")


def test_site_data_is_read(tmp_path, good):
    """What is odd in the site's files is attention, each with file and line."""
    result = check(tmp_path, good)
    assert [line for line in without_site_findings(result) if line != "good"] == []
    (tmp_path / "config_type").unlink()
    result = check(tmp_path, good)
    assert result.exit_code == 11
    assert f"critical: site: {tmp_path / 'config_type'}: No such file" in result.stdout


def test_peer_groups_beyond_the_certificate_are_told(tmp_path, good):
    """Each peer group that the certificate lacks is attention, with what to do; those it has are not."""
    federation = a_federation(tmp_path / "federation")
    trust = federation.node(SITE, ("esgf-prod", "member"))
    tables = {
        **good,
        "node": {"host": SITE, "federation": federation.name},
        "trust": {"directory": str(trust)},
    }
    told = [line for line in check(tmp_path, tables).stdout.splitlines() if "does not grant" in line]
    assert [line.split("'")[1] for line in told] == ["esgf-test", "cssef"]
    assert all(line.startswith("attention: site: node.peer.group") for line in told)


def test_another_host_name_is_critical(tmp_path, good):
    """A node.host that is not esgf.host cannot run."""
    result = check(tmp_path, good, node={"host": "other.example.org"})
    assert result.exit_code == 11
    assert "critical: site: " in result.stdout
    assert "other.example.org" in result.stdout


def test_a_fault_in_node_toml_is_critical(tmp_path, good):
    """What load refuses is one critical finding."""
    result = check(tmp_path, good, gossip={"lisen": "x"})
    assert result.exit_code == 11
    assert result.stdout.startswith("critical: configuration: 'lisen' is not known; ")
    assert result.stdout.count("\n") == 1


def test_a_port_in_use_is_critical(tmp_path, good):
    """A port that another program listens on is named."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        result = check(tmp_path, good, http={"listen": listen})
    assert result.exit_code == 11
    assert f"critical: http: listen {listen}: the port is in use; " in result.stdout


def test_ports_are_told_apart():
    """A free port binds, an address of another machine does not."""
    assert bind_error(("127.0.0.1", a_free_port())) == ""
    assert bind_error(("192.0.2.1", a_free_port())) == "Cannot assign requested address"


def test_the_ports_of_a_running_daemon_are_its_own(tmp_path, good, monkeypatch):
    """While the daemon runs its ports are no finding, and that it runs is told."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as control:
        (tmp_path / "state").mkdir()
        control.bind(str(tmp_path / "state" / "control.sock"))
        control.listen()
        monkeypatch.setattr(findings_module, "ANSWER_S", 0.1)
        result = check(tmp_path, good, http={"listen": f"127.0.0.1:{server.getsockname()[1]}"})
    assert result.exit_code == 10
    assert f"good: daemon: runs; it answers on {tmp_path / 'state' / 'control.sock'}" in result.stdout
    assert "attention: daemon: does not say how it is: " in result.stdout


def test_what_the_daemon_finds_wrong_is_told(tmp_path, good):
    """A database that refuses shows only when it is asked, which the daemon does."""
    refused = '[tracking] database: password authentication failed for user "esgf_reader"; see [tracking] password_file'
    said = {"tracking": {"faults": {"downloads": refused}, "mail": {"sent": 3}}, "datasets_error": "no room"}
    with MadeUpDaemon(tmp_path / "state" / "control.sock", [b"", an_answer(said)]) as daemon:
        result = check(tmp_path, good)
    assert [one["command"] for one in daemon.asked] == ["status"]
    assert result.exit_code == 10
    assert f"attention: tracking: downloads: {refused}\n" in result.stdout
    assert "attention: datasets: no room\n" in result.stdout


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gossip": {"listen": "[::]:0"}}, "critical: configuration: 'listen': '[::]:0' has no good port"),
        (
            {"gossip": {"listen": "0.0.0.0:FREE"}},
            "attention: gossip: advertise is 127.0.0.1:FREE, which others dial on",
        ),
        (
            {"gossip": {"advertise": "x.org:1"}},
            "attention: gossip: listen is 127.0.0.1:FREE, where only this machine",
        ),
        (
            {"gossip": {"advertise": "x.org:0"}},
            "good: gossip: advertise has port 0: this node only dials out",
        ),
        (
            {"gossip": {"listen": "0.0.0.0:FREE", "advertise": "x.org:1"}},
            "good: gossip: others dial port 1, this node listens on FREE: see that something forwards",
        ),
        ({"gossip": {"seeds": []}}, "attention: gossip: seeds is empty"),
        (
            {"http": {"listen": "0.0.0.0:1"}},
            "attention: http: listen is 0.0.0.0:1: anybody who reaches it",
        ),
        ({"node": {"state": "config_type"}}, "critical: state: DIR/config_type is not a folder"),
        ({"tasks": {"directory": "open"}}, "attention: tasks: DIR/open is writable for everybody"),
        ({"tasks": {"users": ["nobody-here"]}}, "attention: tasks: users: this host has no user nobody-here"),
        ({"outputs": {"directory": "open"}}, "attention: outputs: DIR/open is writable for everybody"),
    ],
)
def test_addresses_and_folders_are_looked_at(tmp_path, good, changes, expected):
    """What is legal but hardly meant is attention, what cannot work is critical."""
    free = good["gossip"]["listen"].rpartition(":")[2]
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    filled = {
        table: {
            key: value.replace("FREE", free) if isinstance(value, str) else value
            for key, value in keys.items()
        }
        for table, keys in changes.items()
    }
    result = check(tmp_path, good, **filled)
    assert expected.replace("FREE", free).replace("DIR", str(tmp_path)) in result.stdout


def test_a_folder_that_is_not_writable_is_critical(tmp_path, good, monkeypatch):
    """A state folder this user may not write to cannot run; asked of the system, for root may everything."""
    monkeypatch.setattr(findings_module.os, "access", lambda _path, wanted: not wanted & os.W_OK)
    result = check(tmp_path, good)
    assert result.exit_code == 11
    assert f"critical: state: {tmp_path} is not writable for this user; " in result.stdout


def test_findings_come_as_json(tmp_path, good, monkeypatch):
    """With --json there is one document: verdict and findings."""
    found = [Finding(Level.GOOD, "a", "b"), Finding(Level.ATTENTION, "c", "d")]
    monkeypatch.setattr("esgf_gossip.cli.check.all_findings", lambda _config: iter(found))
    result = check(tmp_path, good, "--json")
    assert result.exit_code == 10
    expected = [{"level": "good", "part": "a", "text": "b"}, {"level": "attention", "part": "c", "text": "d"}]
    assert {"verdict": "attention", "findings": expected} == json.loads(result.stdout)


def test_show_prints_the_effective_configuration(tmp_path, good, monkeypatch):
    """Check --show prints TOML that reads back to the configuration in force."""
    monkeypatch.setattr("esgf_gossip.cli.check.all_findings", lambda _config: iter(()))
    result = check(tmp_path, good, "--show")
    shown = result.stdout.removesuffix("good\n")
    assert load(tmp_path / "node.toml") == from_document(tomllib.loads(shown), Path("/x"))


def test_nothing_is_written(tmp_path, good):
    """Check leaves the folder as it was."""
    check(tmp_path, good)
    before = sorted(tmp_path.rglob("*"))
    check(tmp_path, good)
    assert before == sorted(tmp_path.rglob("*"))
    assert not (tmp_path / "state").exists()


def test_the_database_of_tracking_is_tried_while_no_daemon_runs(tmp_path, good):
    """A port where nobody answers is told before the daemon is started."""
    (tmp_path / "password").write_text("x\n")
    (tmp_path / "password").chmod(0o600)
    tracking = {
        "database": f"host=127.0.0.1 port={a_free_port()} dbname=esgcet user=esgf_reader",
        "password_file": "password",
    }
    result = check(tmp_path, good, tracking=tracking)
    assert result.exit_code == 10
    assert (
        len(re.findall(r"attention: tracking: \[tracking\] database: connection .*refused", result.stdout))
        == 1
    )


def test_every_setting_is_explained():
    """docs/operations.md has a row for each key of node.toml, and for no other."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
    settings = text.partition("## Settings")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)\.([a-z_]+)` \|", settings, re.MULTILINE)
    tables = {field.name: field.type for field in attrs.fields(Config)}
    assert rows == [(name, key.name) for name, kind in tables.items() for key in attrs.fields(kind)]


def test_what_the_sources_of_a_site_lack_is_found(tmp_path, good):
    """A password that others can read, a data folder that is gone, numbers that are none."""
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(0o644)
    (tmp_path / "own").write_text("x y")
    metrics = {"files": ["own"], "password_file": "password"}
    services = {"data_roots": [str(tmp_path / "gone")]}
    lines = check(tmp_path, good, metrics=metrics, services=services).stdout
    assert "can be read by others; chmod 600" in lines
    assert f"{tmp_path}/gone: No such file or directory" in lines
    assert "own:1: 'x y' is not a name and a number; see [metrics] in node.toml" in lines
    assert "data_roots are looked at only with probe = true" in lines


def test_files_and_hook_of_documents_are_looked_at(tmp_path, good):
    """A folder that is missing, a project that is left out, a hook that is no program, or that nobody calls."""
    export = {"CMIP6/a/b": str(tmp_path / "nowhere" / "b"), "CORDEX/a/b": str(tmp_path / "b")}
    documents = {"projects": ["CMIP6"], "export": export, "hook": [str(tmp_path / "hook")]}
    told = [
        line for line in check(tmp_path, good, documents=documents).stdout.splitlines() if "documents" in line
    ]
    assert [line.partition("attention: documents: ")[2].split(",")[0] for line in told] == [
        str(tmp_path / "nowhere" / "b"),
        "CORDEX/a/b is to be written into a file",
        f"hook: {tmp_path / 'hook'} is no program that this user may run",
    ]
    result = check(tmp_path, good, documents={"hook": ["/bin/true"]})
    assert "export names none" in result.stdout
