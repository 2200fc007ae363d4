"""The command line: help, versions, failures as one line with the right code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from esgf_gossip import __version__
from esgf_gossip.cli import main as main_module
from esgf_gossip.cli import run as run_module
from esgf_gossip.cli.failures import CommandError, ExitCode, error_line
from esgf_gossip.cli.main import program
from helpers.config import a_node_toml

COMMANDS = [
    *("demo", "init", "check", "run", "start", "status", "nodes", "services", "show", "explain", "history"),
    *(
        "doc",
        "dataset",
        "watch",
        "reload",
        "maintenance",
        "backup",
        "restore",
        "spotcheck",
        "task",
        "notify",
        "stop",
        "restart",
        "leave",
    ),
]


def invoke(*arguments: str, **options):
    """Run esgf-gossip in this process."""
    return CliRunner().invoke(program, list(arguments), **options)


def test_version_is_told():
    """The program tells its name and version."""
    result = invoke("--version")
    assert (0, f"esgf-gossip {__version__}\n") == (result.exit_code, result.stdout)


def test_help_lists_exactly_what_there_is():
    """The list of commands names every command of this version, and they all exist."""
    result = invoke("--help")
    assert result.exit_code == 0
    context = click.Context(program)
    assert program.list_commands(context) == COMMANDS
    for name in COMMANDS:
        assert f"  {name} " in result.stdout
        assert program.get_command(context, name) is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    """Each command explains itself with an example, and tells the version."""
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Example: esgf-gossip {command}" in " ".join(result.stdout.split())
    assert "--debug" in result.stdout
    assert invoke(command, "--version").stdout == f"esgf-gossip {__version__}\n"


def test_without_a_command_help_is_shown():
    """No command at all is wrong usage, answered by the help."""
    result = invoke()
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["status", "--frobnicate"], "No such option"),
        (["show"], "Missing argument 'HOST'"),
        (["demo", "--nodes", "many"], "Invalid value for '--nodes'"),
        (["demo", "--nodes", "0"], "Invalid value for '--nodes'"),
        (["init", "x", "--host", "UPPER.org", "--federation", "f"], "has capital letters"),
    ],
)
def test_wrong_usage_is_one_line(arguments, what):
    """Wrong usage exits 2 with one line: what, where, and where help is."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert result.stderr.startswith("esgf-gossip: error: ")
    assert what in result.stderr
    assert "--help" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_fault_in_node_toml_is_one_line(tmp_path):
    """A fault in the configuration exits 2 with file and key."""
    path = a_node_toml(tmp_path, gossip={"lisen": "x"})
    result = invoke("status", "--config", str(path))
    assert result.exit_code == ExitCode.USAGE
    assert (
        f"esgf-gossip: error: 'lisen' is not known; {path} [gossip]; the nearest known key is 'listen'\n"
        == result.stderr
    )


def test_the_environment_names_the_configuration(tmp_path):
    """Without --config the variable decides."""
    result = invoke("status", env={"ESGF_GOSSIP_CONFIG": str(tmp_path / "no.toml")})
    assert str(tmp_path / "no.toml") in result.stderr


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (CommandError("a", "b", "c", ExitCode.REFUSED), "esgf-gossip: error: a; b; c\n", 4),
        (click.Abort(), "esgf-gossip: error: interrupted\n", 130),
        (PermissionError(13, "Permission denied", "/x"), "esgf-gossip: error: Permission denied; /x; ", 7),
        (OSError(28, "No space left on device"), "esgf-gossip: error: OSError: [Errno 28] No space", 1),
        (ValueError("odd\nthing"), "esgf-gossip: error: ValueError: odd thing; a fault of this program; ", 1),
        (BrokenPipeError(), "", 141),
    ],
)
def test_every_failure_has_its_line_and_code(monkeypatch, error, line, code):
    """Whatever a command raises ends in one line without a traceback; with --debug that is shown."""

    @click.command()
    @click.option("--debug", is_flag=True)
    def failing(*, debug):
        raise error

    monkeypatch.setattr(main_module.Program, "get_command", lambda *_: failing)
    result = invoke("x")
    assert code == result.exit_code
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == (1 if line else 0)
    if line:
        debugged = invoke("x", "--debug").stderr
        assert "Traceback (most recent call last)" in debugged
        assert debugged.endswith(result.stderr)


def test_an_error_line_cannot_move_the_cursor():
    """Control characters in an error are shown as question marks."""
    assert error_line("p", "a\x1b[2J\r\nb\x9bc") == "p: error: a?[2J b?c"


def test_status_does_not_import_twisted():
    """Asking a daemon starts quickly: none of what the daemon is made of is imported."""
    code = (
        "import sys, esgf_gossip.cli.main, esgf_gossip.cli.node_commands;"
        "print(sorted({'twisted', 'cryptography', 'OpenSSL', 'rich', 'klein'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class ReplacedError(Exception):
    """Stands for the process having become another."""


@pytest.fixture
def replaced(monkeypatch):
    """Keep the commands this process would have become."""
    commands = []

    def replace(command):
        commands.append(command)
        raise ReplacedError

    monkeypatch.setattr(run_module, "replace_process", replace)
    return commands


def test_run_names_its_configuration_absolutely(tmp_path, monkeypatch, replaced):
    """A relative path makes the process start itself again with the absolute one."""
    a_node_toml(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["esgf-gossip", "run", "--config", "node.toml"])
    invoke("run", "--config", "node.toml")
    expected = [
        sys.executable,
        "-P",
        "-m",
        "esgf_gossip.cli.main",
        "run",
        "--config",
        str(tmp_path / "node.toml"),
    ]
    assert [expected] == replaced


def test_run_names_the_configuration_of_the_environment(tmp_path, monkeypatch, replaced):
    """A path from the environment stands in no command line, so the process starts itself again too."""
    path = a_node_toml(tmp_path)
    monkeypatch.setattr(sys, "argv", ["esgf-gossip", "run"])
    invoke("run", env={"ESGF_GOSSIP_CONFIG": str(path)})
    assert str(path) == replaced[0][-1]


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]])
def test_run_with_an_absolute_path_goes_on(tmp_path, monkeypatch, replaced, form):
    """With the absolute path in the command line the daemon starts in this process."""
    path = a_node_toml(tmp_path)
    started = []
    fake = type(sys)("esgf_gossip.foreground")
    fake.run_in_foreground = lambda config, config_path: started.append((config.node.state, config_path)) or 9
    monkeypatch.setitem(sys.modules, "esgf_gossip.foreground", fake)
    arguments = [part.format(path) for part in form]
    monkeypatch.setattr(sys, "argv", ["esgf-gossip", "run", *arguments])
    result = invoke("run", *arguments)
    assert (9, [(tmp_path / "state", path)], []) == (result.exit_code, started, replaced)


def test_an_interpreter_that_cannot_run_is_one_line(tmp_path, monkeypatch):
    """An environment in a folder this user may not enter is told as such, not as a fault of the program."""
    path = a_node_toml(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "node.toml"))
    monkeypatch.setattr(sys, "argv", ["esgf-gossip", "run"])
    result = invoke("run", "--config", str(path))
    assert result.exit_code == ExitCode.FILES
    assert f"cannot run Python (Permission denied); {path}; see that" in result.stderr


def test_run_tells_a_fault_before_it_replaces_itself(tmp_path, monkeypatch, replaced):
    """A node.toml that is wrong is told at once."""
    monkeypatch.setattr(sys, "argv", ["esgf-gossip", "run"])
    result = invoke("run", "--config", str(Path("no.toml")))
    assert (result.exit_code, replaced) == (ExitCode.USAGE, [])
