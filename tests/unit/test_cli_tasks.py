"""The commands of the task queue, on a real folder, with and without a daemon; cli tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from esgf_gossip.cli.failures import ExitCode
from esgf_gossip.cli.main import program
from esgf_gossip.config import load
from esgf_gossip.sources.spool import CUR, FAILED, NEW, Spool
from esgf_gossip.storage.task_journal import FILE_NAME, TaskJournal
from helpers.config import a_node_toml
from helpers.made_up_daemon import MadeUpDaemon, an_answer

NOTE = {"action": "note", "key": "k", "text": "hello"}


@pytest.fixture
def config(tmp_path) -> Path:
    """Give a node.toml whose folder of tasks is there."""
    path = a_node_toml(tmp_path)
    Spool(load(path).tasks.directory).make()
    return path


def run(config, *arguments, **options):
    """Run esgf-gossip task."""
    return CliRunner().invoke(program, ["task", *arguments, "--config", str(config)], **options)


def spool_of(config):
    """Give the folder of tasks."""
    return Spool(load(config).tasks.directory)


def put(config, folder, name, content, reason=""):
    """Leave a task somewhere, as the daemon would."""
    spool = spool_of(config)
    spool.submit(name, json.dumps(content).encode())
    if folder != NEW:
        spool.claim(name)
    if folder == FAILED:
        spool.put_aside(name, CUR, FAILED, reason)


def test_a_task_is_handed_in_and_the_daemon_told(config):
    """The id that submit makes stands in the file; the daemon looks at once."""
    with MadeUpDaemon(load(config).control_socket, [an_answer({})]) as daemon:
        result = run(config, "submit", "-", input=json.dumps(NOTE))
    assert (result.exit_code, result.stderr, daemon.asked) == (0, "", [{"command": "wake-tasks"}])
    spool = spool_of(config)
    (found,) = spool.look(NEW)
    content = json.loads(spool.read(NEW, found.name, 10_000))
    assert content == {**NOTE, "id": result.stdout.strip()}


def test_without_a_daemon_it_waits(config, tmp_path):
    """It is handed in all the same; an own id stays."""
    (tmp_path / "task.json").write_text(json.dumps({**NOTE, "id": "mine"}))
    result = run(config, "submit", str(tmp_path / "task.json"), "--json")
    assert result.exit_code == 0
    assert "no daemon answers" in result.stderr
    assert (json.loads(result.stdout)["id"], json.loads(result.stdout)["daemon"]) == ("mine", False)


@pytest.mark.parametrize(
    ("content", "what"),
    [("{", "no JSON"), ('{"action": "relaod"}', "nearest known is 'reload'"), ("x" * 70_000, "larger than")],
)
def test_what_is_no_task_is_not_handed_in(config, content, what):
    """One line, code 4, nothing in the folder."""
    result = run(config, "submit", "-", input=content)
    assert (result.exit_code, what in result.stderr) == (ExitCode.REFUSED, True)
    assert len(result.stderr.splitlines()) == 1
    assert list(spool_of(config).look(NEW)) == []


def test_list_shows_what_failed_runs_and_waits(config):
    """With the reasons; nothing of a file moves the cursor."""
    put(config, FAILED, "a", {**NOTE, "id": "bad"}, "no \x1b[2J good")
    put(config, CUR, "b", {**NOTE, "id": "runs"})
    put(config, NEW, "c", {**NOTE, "id": "waits"})
    put(config, NEW, "d", [])
    result = run(config, "list")
    assert result.stdout.splitlines()[0] == "1 failed, 1 running, 2 waiting, 0 done"
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["STATE", "failed", "running"] + [
        "waiting"
    ] * 2
    assert "\x1b" not in result.stdout
    found = json.loads(run(config, "list", "--state", "waiting", "--limit", "1", "--json").stdout)
    assert found["counts"] == {"failed": 1, "running": 1, "waiting": 2, "done": 0}
    assert [(one["name"], one["id"], one["action"], one["key"]) for one in found["tasks"]] == [
        ("c", "waits", "note", "k")
    ]


def test_notes_are_shown(config):
    """What tasks have noted, the oldest first; none before the first daemon."""
    assert json.loads(run(config, "list", "--notes", "--json").stdout) == []
    load(config).node.state.mkdir(exist_ok=True)
    journal = TaskJournal(load(config).node.state / FILE_NAME)
    journal.complete("i", b"", 0, lambda transaction: transaction.add_note("[bold]hello"))
    journal.close()
    assert "[bold]hello" in run(config, "list", "--notes").stdout
    assert run(config, "list", "--notes", "--state", "done").exit_code == ExitCode.USAGE


def test_retry_by_name_by_id_and_all(config):
    """Back into new, the reason gone."""
    for name in "abc":
        put(config, FAILED, name, {**NOTE, "id": f"id-{name}"}, "why")
    assert run(config, "retry", "a", "id-b").stdout.splitlines() == [
        "handed in again: a",
        "handed in again: b",
    ]
    assert json.loads(run(config, "retry", "--all", "--json").stdout) == ["c"]
    assert sorted(one.name for one in spool_of(config).look(NEW)) == ["a", "b", "c"]
    assert list(spool_of(config).look(FAILED)) == []
    assert run(config, "retry", "--all").stdout == "nothing failed\n"


def test_retry_of_what_is_not_there_changes_nothing(config):
    """A typing error in the second name leaves the first alone."""
    put(config, FAILED, "a", NOTE, "why")
    result = run(config, "retry", "a", "x/../../y")
    assert (result.exit_code, "there is no task" in result.stderr) == (ExitCode.NOT_FOUND, True)
    assert spool_of(config).holds(FAILED, "a")
    assert run(config, "retry").exit_code == ExitCode.USAGE
    assert run(config, "retry", "a", "--all").exit_code == ExitCode.USAGE
    put(config, NEW, "a", NOTE)
    assert run(config, "retry", "a").exit_code == ExitCode.EXISTS


def test_discard_spares_what_was_begun(config):
    """What failed or waits goes; what runs stays."""
    put(config, FAILED, "a", NOTE, "why")
    put(config, NEW, "b", {**NOTE, "id": "waits"})
    put(config, CUR, "c", NOTE)
    assert run(config, "discard", "a", "waits").exit_code == 0
    result = run(config, "discard", "c")
    assert (result.exit_code, "was begun" in result.stderr) == (ExitCode.REFUSED, True)
    assert [one.name for part in (NEW, CUR, FAILED) for one in spool_of(config).look(part)] == ["c"]
    (spool_of(config).path / FAILED / "tree" / "leaf").mkdir(parents=True)
    assert run(config, "discard", "tree").exit_code == ExitCode.REFUSED


def test_a_queue_that_is_not_there_is_told(tmp_path):
    """Switched off, or never begun."""
    path = a_node_toml(tmp_path)
    result = run(path, "list")
    assert (result.exit_code, "start the daemon once" in result.stderr) == (ExitCode.FILES, True)
    path = a_node_toml(tmp_path, tasks={"directory": ""})
    result = run(path, "submit", "-", input="{}")
    assert (result.exit_code, "is switched off" in result.stderr) == (ExitCode.REFUSED, True)


@pytest.mark.parametrize("command", ["submit", "list", "retry", "discard"])
def test_each_has_help_with_an_example(command):
    """As all commands."""
    result = CliRunner().invoke(program, ["task", command, "--help"])
    assert (result.exit_code, f"Example: esgf-gossip task {command}" in " ".join(result.stdout.split())) == (
        0,
        True,
    )
