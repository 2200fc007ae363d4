"""The command history, and certificates among the nodes, against a real socket with a made-up daemon behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from esgf_gossip.cli.failures import ExitCode
from esgf_gossip.cli.main import program
from esgf_gossip.config import load
from helpers.config import a_node_toml
from helpers.made_up_daemon import MadeUpDaemon, an_answer, config_again, run_against


@pytest.fixture
def config(tmp_path) -> Path:
    """Give the path of a node.toml whose daemon may be made up."""
    return a_node_toml(tmp_path)


CHANGE = {
    "id": 7,
    "at": "2026-11-26T14:00:03.120Z",
    "host": "evil\x1b[2J.org",
    "kind": "digest",
    "summary": "registration: node.short.name",
    "changes": [{"name": "registration.node.short.name", "before": "A", "after": None}],
}


def test_history_prints_changes_oldest_first(config):
    """Times of the host's zone, what happened in a sentence, a word where there is more; nothing is obeyed."""
    older = {**CHANGE, "id": 6, "at": "2026-11-26T13:00:00.000Z", "summary": "is known from now on"}
    answer = {"begins_at": "2026-11-01T00:00:00.000Z", "changes": [CHANGE, older], "next_before": 6}
    arguments = ("history", "x.org", "--since", "2026-11-26T13:00:00Z", "--kind", "digest", "--limit", "2")
    result, asked = run_against(config, an_answer(answer), *arguments)
    assert asked == [
        {
            "command": "history",
            "host": "x.org",
            "since": "2026-11-26T13:00:00.000Z",
            "kind": "digest",
            "limit": "2",
        }
    ]
    lines = result.stdout.splitlines()
    assert [line.rpartition("  ")[2] for line in lines] == ["WHAT", older["summary"], CHANGE["summary"]]
    assert "\x1b" not in result.stdout
    assert "there is more" in result.stderr


def test_history_tells_what_differs_between_two_times(config):
    """A row for each value; a node that was not known, and one that is not any more."""
    nodes = [
        {"host": "a.org", "before": None, "after": "up", "changes": []},
        {"host": "b.org", "before": "up", "after": "up", "changes": CHANGE["changes"]},
    ]
    answer = an_answer({"from": "", "to": "", "nodes": nodes})
    result, asked = run_against(
        config, answer, "history", "--between", "2026-11-26T13:00:00Z", "2026-11-26T15:00:00Z"
    )
    assert asked[0]["from"] == "2026-11-26T13:00:00.000Z"
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["a.org", "status", "not", "known", "up"],
        ["b.org", "registration.node.short.name", "A", "-"],
    ]
    result, _ = run_against(
        config_again(config), an_answer({"nodes": []}), "history", "--between", "1h ago", "now"
    )
    assert result.stdout == "nothing differs\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--at", "now", "--since", "1h ago"), "exclude each other"),
        (("--at", "now", "--between", "1h ago", "now"), "exclude each other"),
        (("--xml",), "goes with --at"),
        (("x.org", "--at", "now", "--xml"), "goes with --at"),
        (("--since", "soon"), "yesterday 14:00"),
        (("--limit", "0"), "1<=x<=1000"),
    ],
)
def test_history_refuses_what_cannot_be_asked(config, arguments, said):
    """One line that says what would be right, before any daemon is asked."""
    result = CliRunner().invoke(program, ["history", *arguments, "--config", str(config)])
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr


def test_certificates_are_told_the_next_to_end_first(config):
    """Who says nothing of its trust stands last; who lags is marked."""
    rows = [
        {"host": host, "issuer": "CN=CA", "leaving": False, "bundle": bundle, "crls": crls, "not_after": end}
        for host, bundle, crls, end in (
            ("a.org", 2, {"ab": 4}, "2031-01-01T00:00:00.000Z"),
            ("b.org", 1, {"ab": 3}, "2030-01-01T00:00:00.000Z"),
            ("c.org", 0, {}, None),
        )
    ]
    result, asked = run_against(
        config, an_answer({"host": "a.org", "nodes": rows}), "nodes", "--certificates"
    )
    assert asked == [{"command": "trust"}]
    told = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [(one[0], one[-2:]) for one in told] == [
        ("b.org", ["(old)", "1"]),
        ("a.org", ["2", "-"]),
        ("c.org", ["-", "-"]),
    ]


def test_history_of_a_node_that_never_was_is_an_error(config):
    """An empty answer would look like a quiet node."""
    answers = [
        an_answer({"begins_at": None, "changes": [], "next_before": None}),
        b'{"ok": false, "error": "there is no node nope"}\n',
    ]
    with MadeUpDaemon(load(config).control_socket, answers) as daemon:
        result = CliRunner().invoke(program, ["history", "nope", "--config", str(config)])
    assert [one["command"] for one in daemon.asked] == ["history", "node"]
    assert result.exit_code == ExitCode.NOT_FOUND
    assert "there is no node nope" in result.stderr
