"""The command dataset, against a real control socket with a made-up daemon behind it."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from esgf_gossip.cli.failures import ExitCode
from esgf_gossip.cli.live import words_of
from esgf_gossip.cli.main import program
from helpers.config import a_node_toml
from helpers.made_up_daemon import an_answer, config_again, run_against

NAME = "CMIP6.a.b.v1"
STATUS = {
    "dataset": NAME,
    "status": "retracted",
    "since": "2026-01-01T00:00:00Z",
    "successor": "CMIP6.a.b.v2",
    "reason": "wrong\x1b units",
    "original": {"data_node": "a.org", "node": "n.org"},
    "replicas": [{"data_node": "b.org", "node": "b.org"}],
}
EVENT = {
    "number": 7,
    "type": "retracted",
    "dataset": NAME,
    "data_node": "a.org",
    "origin": "n.org",
    "leaf": 3,
    "at": "2026-01-01T00:00:00Z",
    "change_key": "5f" * 32,
    "counts": False,
    "quarantine": "contested",
}


@pytest.fixture
def config(tmp_path):
    """Give the path of a node.toml whose daemon may be made up."""
    return a_node_toml(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["publish", NAME], {"type": "published"}),
        (["publish", f"{NAME}|DATA.org"], {"type": "published", "data_node": "data.org"}),
        (["unpublish", "CMIP6.a.b#1"], {"type": "unpublished"}),
        (["replicated", NAME, "--data-node", "C.org"], {"type": "replicated", "data_node": "c.org"}),
        (["replica-removed", NAME], {"type": "replica-removed"}),
        (["retract", NAME, "--reason", "why"], {"type": "retracted", "reason": "why"}),
        (["reinstate", NAME], {"type": "reinstated", "reason": ""}),
        (["new-version", NAME, "--supersedes", "0"], {"type": "new-version", "supersedes": ["0"]}),
    ],
)
def test_what_is_said_goes_to_the_daemon(config, arguments, said):
    """The version in its one spelling, the data node where one is named, and the words of each command."""
    result, asked = run_against(config, an_answer({**STATUS, "written": ["x"]}), "dataset", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{NAME}: retracted\n", "")
    assert asked == [{"command": "dataset-say", "dataset": NAME, "data_node": "", **said}]


def test_what_is_said_already_is_told(config):
    """Nothing was written: exit 0, and a line that says so."""
    result, _ = run_against(config, an_answer({**STATUS, "written": []}), "dataset", "retract", NAME)
    assert (result.exit_code, "said already" in result.stderr) == (0, True)


def test_lists_and_one_version_are_shown(config):
    """Events, quarantine with keys and reasons, a version with its evidence; controls of strangers never pass."""
    found = {"events": [EVENT], "next_since": 7}
    result, asked = run_against(
        config, an_answer(found), "dataset", "list", "--project", "CMIP6", "--since", "2026-01-01T00:00:00Z"
    )
    assert asked == [
        {
            "command": "dataset-events",
            "project": "CMIP6",
            "since": "2026-01-01T00:00:00.000Z",
            "limit": "100",
        }
    ]
    assert NAME in result.stdout
    for arguments in (["list", "--quarantined"], ["quarantine"]):
        result, asked = run_against(config_again(config), an_answer([EVENT]), "dataset", *arguments)
        assert asked == [{"command": "dataset-quarantine"}]
        assert ("5f5f5f5f5f5f" in result.stdout, "contested" in result.stdout) == (True, True)
    answer = an_answer({**STATUS, "history": [EVENT]})
    result, asked = run_against(config_again(config), answer, "dataset", "show", f"{NAME}|a.org")
    assert asked == [{"command": "dataset", "dataset": NAME}]
    for words in ("wrong? units", "CMIP6.a.b.v2", "a.org, says n.org", "n.org leaf 3", "contested"):
        assert words in result.stdout
    result, _ = run_against(config_again(config), answer, "dataset", "show", NAME, "--json")
    assert json.loads(result.stdout)["status"] == "retracted"
    result, asked = run_against(
        config_again(config), an_answer([{**EVENT, "counts": True}]), "dataset", "accept", "5f5f5f5f"
    )
    assert (asked, result.stdout) == (
        [{"command": "dataset-accept", "key": "5f5f5f5f"}],
        f"{NAME} retracted said by n.org: counts\n",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["publish", "no-version"], "names no version"),
        (["publish", f"{NAME}|a b"], "names no copy"),
        (["publish", NAME, "--data-node", "a b"], "no name of a host"),
        (["list", "--since", "soon"], "is no time"),
        (["list", "--type", "renovated"], "Invalid value"),
    ],
)
def test_what_is_wrong_asks_nobody(config, arguments, words):
    """A name, a host or a time that is none is told before a daemon is asked."""
    result = CliRunner().invoke(program, ["dataset", *arguments, "--config", str(config)])
    assert (result.exit_code, words in result.stderr) == (ExitCode.USAGE, True)


def test_the_command_needs_no_twisted():
    """A command that asks and prints starts without what the daemon needs."""
    program = (
        "import sys, esgf_gossip.cli.datasets; print('twisted' in sys.modules, 'cryptography' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False False\n"


@pytest.mark.parametrize(
    "command",
    [
        *("publish", "new-version", "retract", "reinstate", "unpublish", "replicated", "replica-removed"),
        *("list", "quarantine", "show", "accept"),
    ],
)
def test_every_command_below_has_help_with_an_example(command):
    """As all commands have."""
    result = CliRunner().invoke(program, ["dataset", command, "--help"])
    assert f"Example: esgf-gossip dataset {command}" in " ".join(result.stdout.split())
    assert "--version" in result.stdout


def test_watch_says_an_event_in_words():
    """Which dataset, what, where."""
    assert (
        words_of("dataset-event", {**EVENT, "type": "new-version"}) == f"dataset {NAME}: new version on a.org"
    )
