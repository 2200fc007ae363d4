"""Init: the folder of a new node, complete or untouched."""

from __future__ import annotations

import json
import stat

import pytest
from click.testing import CliRunner

from esgf_gossip.cli import init as init_module
from esgf_gossip.cli.init import node_toml
from esgf_gossip.cli.main import program
from esgf_gossip.config import from_document, load
from esgf_gossip.demo.site_data import site_hosts, write_site
from esgf_gossip.trust import requests
from esgf_gossip.trust.errors import TrustError
from helpers.config import FEDERATION, HOST, a_document

SITE = site_hosts(1)[0]


def init(folder, *options, **extra):
    """Run init for a folder."""
    return CliRunner().invoke(program, ["init", str(folder), *options], **extra)


NAMES = ("--federation", FEDERATION, "--host", HOST)


def test_init_makes_a_complete_folder(tmp_path):
    """Two names are enough for node.toml, state, trust, key and request, and for the next steps."""
    folder = tmp_path / "a node"
    result = init(folder, *NAMES)
    assert (result.exit_code, result.stderr) == (0, "")
    config = load(folder / "node.toml")
    assert from_document(a_document(), folder / "node.toml") == config
    modes = {
        name: stat.S_IMODE((folder / name).stat().st_mode)
        for name in ("node.toml", "trust", "trust/node.key")
    }
    assert modes == {"node.toml": 0o644, "trust": 0o700, "trust/node.key": 0o600}
    assert config.node.state.is_dir()
    for step in (
        "trust-admin cert import",
        "trust-admin cert install",
        f"esgf-gossip check --config '{folder}/node.toml'",
    ):
        assert step in result.stdout


def test_init_tells_the_request_as_json(tmp_path):
    """With --json there is one document with configuration, request and fingerprint."""
    result = init(tmp_path / "x", *NAMES, "--json")
    body = json.loads(result.stdout)
    assert str(tmp_path / "x" / "node.toml") == body["config"]
    assert body["fingerprint"]
    assert "CERTIFICATE REQUEST" in (tmp_path / "x").joinpath(body["request"]).read_text()


def test_options_come_into_the_file(tmp_path):
    """Seeds and the advertised address stand in node.toml."""
    init(tmp_path, *NAMES, "--seed", "a.org:1", "--seed", "[2001:db8::1]:2", "--advertise", "nat.org:0")
    gossip = load(tmp_path / "node.toml").gossip
    assert (gossip.seeds, gossip.advertise) == ((("a.org", 1), ("2001:db8::1", 2)), ("nat.org", 0))


def test_the_state_can_lie_elsewhere(tmp_path):
    """Under systemd /etc is read-only for the daemon; the folder is made if it may be, and named absolutely."""
    result = init(tmp_path / "x", *NAMES, "--state", str(tmp_path / "state of it"))
    assert (result.exit_code, result.stderr) == (0, "")
    assert load(tmp_path / "x/node.toml").node.state == tmp_path / "state of it"
    assert (tmp_path / "state of it").is_dir()
    assert not (tmp_path / "x/state").exists()


def test_site_data_is_taken_over(tmp_path):
    """With --from-esgf properties and type are copied byte for byte, for the daemon's eyes only."""
    write_site(1, tmp_path / "esg")
    folder = tmp_path / "node"
    result = init(folder, "--federation", FEDERATION, "--host", SITE, "--from-esgf", str(tmp_path / "esg"))
    assert result.exit_code == 0, result.stderr
    for name in ("esgf.properties", "config_type"):
        assert (tmp_path / "esg" / name).read_bytes() == (folder / name).read_bytes()
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    path = folder / "trust" / f"{SITE}.csr.pem"
    request = requests.read_request(path.read_bytes(), str(path))
    assert request.names.groups == ("esgf-prod", "esgf-test", "cssef")


def test_another_host_in_the_site_data_is_refused(tmp_path):
    """The name given and esgf.host are one, or nothing is written."""
    write_site(1, tmp_path / "esg")
    result = init(tmp_path / "node", *NAMES, "--from-esgf", str(tmp_path / "esg"))
    assert result.exit_code == 2
    assert f"--host is {HOST}, but esgf.host is {SITE}" in result.stderr
    assert not (tmp_path / "node").exists()


def test_missing_site_data_is_told(tmp_path):
    """A folder without the site's files is named; nothing is written."""
    result = init(tmp_path / "node", *NAMES, "--from-esgf", str(tmp_path))
    assert result.exit_code == 7
    assert str(tmp_path / "esgf.properties") in result.stderr
    assert "give --from-esgf the folder that holds esgf.properties and config_type" in result.stderr
    assert not (tmp_path / "node").exists()


def test_a_refused_key_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    """Where trust makes no key, the copied site data goes again: the same command works once the cause is gone."""

    def refuse(*_):
        raise TrustError("E-GIT", "inside a git work tree")

    write_site(1, tmp_path / "esg")
    folder = tmp_path / "node"
    options = ("--federation", FEDERATION, "--host", SITE, "--from-esgf", str(tmp_path / "esg"))
    with monkeypatch.context() as patched:
        patched.setattr(requests, "make_request", refuse)
        assert init(folder, *options).exit_code == 4
    result = init(folder, *options)
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["node.toml", "trust/node.key", "esgf.properties", "config_type"])
def test_nothing_is_overwritten(tmp_path, name):
    """A file that exists, even as a dangling link, ends init before it writes anything."""
    write_site(1, tmp_path / "esg")
    folder = tmp_path / "node"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(tmp_path / "nowhere")
    before = sorted(folder.rglob("*"))
    result = init(folder, "--federation", FEDERATION, "--host", SITE, "--from-esgf", str(tmp_path / "esg"))
    assert result.exit_code == 6
    assert f"exists already and is never overwritten; {folder / name}; give another DIR" in result.stderr
    assert before == sorted(folder.rglob("*"))


@pytest.mark.parametrize(
    ("options", "missing"), [((), "--federation"), (("--federation", "f.org"), "--host")]
)
def test_without_a_terminal_a_missing_name_is_wrong_usage(tmp_path, options, missing):
    """Where nobody can be asked, what is missing is told."""
    result = init(tmp_path / "x", *options, input="y\n")
    assert result.exit_code == 2
    assert f"{missing} is missing" in result.stderr
    assert not (tmp_path / "x").exists()


def test_on_a_terminal_a_missing_name_is_asked_for(tmp_path, monkeypatch):
    """At a terminal init asks, again where the answer is no DNS name, on stderr."""
    monkeypatch.setattr(init_module, "_is_terminal", lambda: True)
    result = init(tmp_path, "--federation", FEDERATION, input=f"Not A Name\n{HOST}\n\n")
    assert result.exit_code == 0, result.stderr
    assert load(tmp_path / "node.toml").node.host == HOST
    assert "Name of this node" in result.stderr
    assert "has capital letters" in result.stderr


def test_on_a_terminal_all_of_a_site_is_taken_over_and_each_answer_is_checked(tmp_path, monkeypatch):
    """What lies in /esg/config is offered, its host is the usual answer, seeds are asked for until there are no more."""
    site = tmp_path / "esg config"
    site.mkdir()
    (site / "esgf.properties").write_text(f"esgf.host={HOST}\n")
    (site / "config_type").write_text("4\n")
    monkeypatch.setattr(init_module, "_is_terminal", lambda: True)
    monkeypatch.setattr(init_module, "ESGF_CONFIG", site)
    answers = ["y", "bad name", FEDERATION, "", "seed", "seed.example.org:8951", "two.example.org:1", ""]
    result = init(tmp_path / "node", input="\n".join([*answers, ""]))
    assert result.exit_code == 0, result.stderr
    config = load(tmp_path / "node" / "node.toml")
    assert (config.node.host, config.node.federation) == (HOST, FEDERATION)
    assert config.gossip.seeds == (("seed.example.org", 8951), ("two.example.org", 1))
    assert (tmp_path / "node" / "config_type").read_text() == "4\n"
    for words in ("Take over the site's files from", f"[{HOST}]", "is not a DNS name", "this is the first"):
        assert words in result.stderr


def test_without_a_terminal_the_host_is_that_of_the_site(tmp_path):
    """A script need not say twice what esgf.properties says."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "esgf.properties").write_text(f"esgf.host={HOST}\n")
    (site / "config_type").write_text("4\n")
    result = init(tmp_path / "node", "--federation", FEDERATION, "--from-esgf", str(site))
    assert result.exit_code == 0, result.stderr
    assert load(tmp_path / "node" / "node.toml").node.host == HOST


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", "a.org"),
        ("--seed", "a.org:0"),
        ("--advertise", "a.org:99999"),
        ("--host", "a b"),
        ("--federation", "F"),
    ],
)
def test_bad_values_are_wrong_usage(tmp_path, option, value):
    """A value that node.toml would refuse is refused on the command line, with the reason."""
    result = init(tmp_path / "x", *NAMES, option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
    assert not (tmp_path / "x").exists()


def test_an_address_that_cannot_be_dialled_is_told(tmp_path):
    """What only the whole configuration can refuse is refused before anything is written."""
    result = init(tmp_path / "x", *NAMES, "--advertise", "0.0.0.0:1")
    assert result.exit_code == 2
    assert "cannot be dialled" in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_listen_address_can_be_written():
    """Other programs may write a node.toml for people, with an address to listen on."""
    assert '\nlisten = "127.0.0.1:1"\n' in node_toml(HOST, FEDERATION, [], listen=("127.0.0.1", 1))
