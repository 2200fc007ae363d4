"""The command doc, against a real control socket with a made-up daemon behind it."""

import base64
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

NAME = "CMIP6/publisher/esg.ini"
VERSION = {
    "version": "5f" * 32,
    "author": "a\x1b.example.org",
    "at": "2026-01-01T00:00:00Z",
    "generation": 3,
    "parents": ["ab" * 32],
    "missing_parents": [],
    "deletion": False,
    "size_bytes": 3,
    "sha256": "00" * 32,
}
LISTED = {
    "document": NAME,
    "project": "CMIP6",
    "conflict": False,
    "deleted": False,
    "heads_total": 1,
    "heads": [VERSION],
}


@pytest.fixture
def config(tmp_path):
    """Give the path of a node.toml whose daemon may be made up."""
    return a_node_toml(tmp_path)


def test_put_sends_the_file_and_prints_the_version(config, tmp_path):
    """The content goes in base64, with the conditions as they were given."""
    file = tmp_path / "esg.ini"
    file.write_bytes(b"\0\xff")
    answer = an_answer({**VERSION, "changed": True, "conflict": False})
    result, asked = run_against(
        config, answer, "doc", "put", NAME, str(file), "--if-match", "none", "--merge"
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "5f" * 32 + "\n", "")
    encoded = base64.b64encode(b"\0\xff").decode()
    assert asked == [
        {"command": "document-put", "document": NAME, "base64": encoded, "if_match": "none", "merge": True}
    ]


def test_what_was_said_already_is_told(config, tmp_path):
    """A put of the same content is done, and says that nothing was written."""
    file = tmp_path / "esg.ini"
    file.write_bytes(b"same")
    result, _ = run_against(config, an_answer({**VERSION, "changed": False}), "doc", "put", NAME, str(file))
    assert result.exit_code == 0
    assert "says that already" in result.stderr


def test_get_prints_the_bytes_or_writes_a_file(config, tmp_path):
    """Content is printed byte for byte, written in one step with --out, in base64 with --json."""
    answer = an_answer({**VERSION, "base64": base64.b64encode(b"\xffx\n").decode()})
    result, asked = run_against(config, answer, "doc", "get", NAME, "5f5f5f5f")
    assert result.stdout_bytes == b"\xffx\n"
    assert asked == [{"command": "document-content", "document": NAME, "version": "5f5f5f5f"}]
    out = tmp_path / "out"
    result, _ = run_against(config_again(config), answer, "doc", "get", NAME, "--out", str(out))
    assert (result.stdout, out.read_bytes()) == ("", b"\xffx\n")
    result, _ = run_against(config_again(config), answer, "doc", "get", NAME, "--json")
    assert json.loads(result.stdout)["base64"] == "/3gK"


def test_lists_are_tables_in_which_nothing_is_obeyed(config):
    """Conflicts come first, each with its authors; texts of others cannot move the cursor."""
    conflict = {
        **LISTED,
        "document": "Z/a/b",
        "conflict": True,
        "heads_total": 2,
        "heads": [VERSION, VERSION],
    }
    result, _ = run_against(config, an_answer([LISTED, conflict]), "doc", "list")
    lines = result.stdout.splitlines()
    assert lines[1].startswith("Z/a/b")
    assert "conflict of 2  5f5f5f5f5f5f  a?.example.org, a?.example.org" in lines[1]
    result, _ = run_against(
        config_again(config), an_answer([LISTED, conflict]), "doc", "list", "CMIP6/publisher", "--json"
    )
    assert [one["document"] for one in json.loads(result.stdout)] == [NAME]
    refused = [{"author": "x", "leaf": 1, "document": NAME, "reason": "no role"}]
    result, asked = run_against(config_again(config), an_answer(refused), "doc", "list", "--refused")
    assert asked == [{"command": "documents-refused"}]
    assert f"x       {NAME}  no role" in result.stdout
    history = {"document": NAME, "versions_total": 4, "versions": [VERSION]}
    result, _ = run_against(config_again(config), an_answer(history), "doc", "history", NAME)
    assert result.stdout.splitlines()[1].startswith("5f5f5f5f5f5f  3           a?.example.org")
    assert "3 earlier ones are left out" in result.stderr


def test_what_is_missing_and_what_is_refused_differ_in_the_exit_code(config):
    """5 where there is no such document, 4 where the daemon says no, each with its own words."""
    for missing, code in (({"missing": True}, ExitCode.NOT_FOUND), ({}, ExitCode.REFUSED)):
        answer = json.dumps({"ok": False, "error": "so it is", **missing}).encode() + b"\n"
        result, _ = run_against(config, answer, "doc", "delete", NAME)
        config_again(config)
        assert (result.exit_code, result.stderr) == (code, "esgf-gossip: error: so it is\n")


def test_a_name_that_is_none_and_a_file_that_is_too_large_ask_nobody(config, tmp_path):
    """Both are told before a daemon is asked."""
    result = CliRunner().invoke(program, ["doc", "get", "only/two", "--config", str(config)])
    assert result.exit_code == ExitCode.USAGE
    assert "write PROJECT/APPLICATION/NAME" in result.stderr
    large = tmp_path / "large"
    large.write_bytes(b"x" * 65537)
    result = CliRunner().invoke(program, ["doc", "put", NAME, str(large), "--config", str(config)])
    assert result.exit_code == ExitCode.USAGE
    assert f"at most 65536 bytes; {large}" in result.stderr


def test_the_command_needs_no_twisted():
    """A command that asks and prints starts without what the daemon needs."""
    program = "import sys, esgf_gossip.cli.documents; print('twisted' in sys.modules, 'cryptography' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("command", ["put", "get", "list", "history", "delete"])
def test_every_command_below_has_help_with_an_example(command):
    """As all commands have."""
    result = CliRunner().invoke(program, ["doc", command, "--help"])
    assert f"Example: esgf-gossip doc {command}" in " ".join(result.stdout.split())
    assert "--version" in result.stdout


def test_watch_says_in_words_what_changed():
    """A change, a conflict, a deletion."""
    heads = [{"author": "a.org"}, {"author": "b.org"}]
    said = {"document": NAME, "conflict": False, "deleted": False, "heads": heads[:1]}
    assert words_of("document-changed", said) == f"document {NAME} changed by a.org"
    said = {**said, "conflict": True, "heads": heads}
    assert words_of("document-changed", said) == f"document {NAME} is in conflict by a.org and b.org"
    assert words_of("document-changed", {"document": NAME, "deleted": True}) == f"document {NAME} was deleted"
