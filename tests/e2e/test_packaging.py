"""The Twisted plugin and the commands, from a wheel and from an editable install."""

import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from helpers.daemons import eventually

ROOT = Path(__file__).resolve().parents[2]
RUNNERS = ("twist", "twistd")


def _run(*command, cwd):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of what git knows, so that no stray file of ours gets in."""
    source = tmp_path_factory.mktemp("a source") / "with space"
    source.mkdir()
    files = _run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    # What must never be shipped, put where it would be found.
    (source / "twisted/plugins/dropin.cache").write_bytes(b"cache")
    (source / "src/esgf_gossip/left.key").write_text("PRIVATE")
    built = _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "out", cwd=source)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (source / "out").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel_bin(wheel, tmp_path_factory):
    """The bin folder of a fresh environment with the wheel in it and our dependencies beside it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    installed = _run(
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        str(wheel),
        cwd=folder,
    )
    assert installed.returncode == 0, installed.stderr
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for runner in RUNNERS:
        script = folder / "bin" / runner
        module = f"twisted.application.{'twist' if runner == 'twist' else 'app'}"
        source = (
            "from twisted.application.twist._twist import Twist; Twist.main()"
            if runner == "twist"
            else "from twisted.scripts.twistd import run; run()"
        )
        script.write_text(f"#!{folder / 'bin/python'}\n# {module}\n{source}\n")
        script.chmod(0o755)
    return folder / "bin"


def test_the_wheel_holds_plugin_and_site_data_and_nothing_private(wheel):
    """The plugin, the demo's data and the licence are in; caches, keys and tests are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "twisted/plugins/esgf_gossip_plugin.py" in names
    dashboard = ROOT / "src/esgf_gossip/web/dashboard"
    shipped = [path for folder in ("static", "templates") for path in (dashboard / folder).iterdir()]
    assert len(shipped) > 12
    assert {str(path.relative_to(ROOT / "src")) for path in shipped} <= set(names)
    assert "twisted/__init__.py" not in names
    assert "twisted/plugins/__init__.py" not in names
    assert sum(name.endswith("/esgf.properties") for name in names) == 13
    assert [
        name for name in names if name.endswith((".key", "dropin.cache")) or name.startswith("tests")
    ] == []


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_wheel_lists_the_command(wheel_bin, runner, tmp_path):
    """``twist --help`` and ``twistd --help`` name esgf-gossip."""
    assert "esgf-gossip" in _run(wheel_bin / runner, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_editable_install_lists_the_command(runner, tmp_path):
    """The same in a development environment, from another working directory."""
    assert "esgf-gossip" in _run(Path(sys.executable).parent / runner, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("where", ["wheel", "editable"])
@pytest.mark.parametrize("runner", [("twist",), ("twistd", "-n", "--pidfile=")], ids=["twist", "twistd"])
def test_the_service_runs_under_twisted(where, runner, tmp_path, request, a_node_folder):
    """``twist esgf-gossip --config FILE`` is the daemon; SIGTERM ends it in good order."""
    folder = request.getfixturevalue("wheel_bin") if where == "wheel" else Path(sys.executable).parent
    config, client = a_node_folder
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [folder / runner[0], *runner[1:], "esgf-gossip", "--config", str(config)],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: client.is_answering() or process.poll() is not None, "the control socket answers")
        assert process.poll() is None, log.read_text()
        assert client.ask("status")["nodes"]["total"] == 1
    finally:
        process.terminate()
        # After an orderly stop Twisted's runners end by the signal they were sent.
        assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
    assert "Server Shut Down" in log.read_text() or "Main loop terminated" in log.read_text()


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_wrong_configuration_is_a_usage_error(runner, tmp_path):
    """A mistake in node.toml is told in words, without a traceback."""
    wrong = tmp_path / "node.toml"
    wrong.write_text("[node]\nhots = 'x'\n")
    arguments = [] if runner == "twist" else ["-n"]
    result = _run(
        Path(sys.executable).parent / runner, *arguments, "esgf-gossip", "--config", str(wrong), cwd=tmp_path
    )
    assert result.returncode != 0
    assert "'hots' is not known" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_the_version_is_ours(tmp_path):
    """``--version`` of every entry names esgf-gossip's version, not Twisted's."""
    folder = Path(sys.executable).parent
    from esgf_gossip import __version__

    for command in ([folder / "esgf-gossip"], [folder / "trust-admin"], [folder / "twist", "esgf-gossip"]):
        assert __version__ in _run(*command, "--version", cwd=tmp_path).stdout


@pytest.fixture
def a_node_folder(tmp_path):
    """A node that is set up and not started: its node.toml and a client of its control socket."""
    from esgf_gossip.demo.processes import DemoFederation

    with DemoFederation(tmp_path / "federation", 1) as federation:
        federation.prepare()
        yield federation.config_path(federation.hosts[0]), federation.control(federation.hosts[0])


def test_a_twistd_in_the_background_tells_that_it_cannot_run(a_node_folder, tmp_path):
    """Its parent ends with a failure and the reason stands in the log; it does not wait for ever."""
    config, _ = a_node_folder
    (config.parent / "trust" / "node.key").chmod(0o644)
    result = _run(
        Path(sys.executable).parent / "twistd",
        f"--pidfile={tmp_path / 'pid'}",
        f"--logfile={tmp_path / 'log'}",
        "esgf-gossip",
        "--config",
        str(config),
        cwd=tmp_path,
    )
    assert result.returncode != 0
    assert "E-MODE" in result.stdout + result.stderr
