"""The Debian package, as far as it can be judged without building it: that is make deb-test."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEB = ROOT / "packaging" / "deb"
_spec = importlib.util.spec_from_file_location("deb_build", DEB / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)


@pytest.mark.parametrize(
    ("python", "debian"),
    [
        ("0.1.0", "0.1.0"),
        ("1.0rc1", "1.0~rc1"),
        ("1.0.dev3", "1.0~dev3"),
        ("2.0a1", "2.0~a1"),
        ("1.0+x", "1.0+x"),
    ],
)
def test_what_comes_before_a_release_sorts_before_it(python, debian):
    """Debian's tilde is what Python's suffixes mean."""
    assert build.debian_version(python) == debian


def test_the_version_is_that_of_the_code():
    """No second place to forget."""
    from esgf_gossip import __version__

    assert build.own_version() == __version__


def test_the_control_file_names_the_python_it_was_made_for():
    """The environment's folders carry its number, so another one would not find them."""
    text = build.control("1.0rc1", "arm64", (3, 11), 1234, "A <a@b.example>")
    fields = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(" "))
    assert fields["Package"] == "esgf-gossip"
    assert fields["Version"] == "1.0~rc1"
    assert fields["Architecture"] == "arm64"
    assert fields["Installed-Size"] == "1234"
    assert {"python3 (>= 3.11)", "python3 (<< 3.12)", "adduser"} <= set(fields["Depends"].split(", "))
    assert fields["Suggests"] == "openssl"
    assert "@" not in text.replace("a@b.example", "")


@pytest.mark.parametrize("name", [*build.SCRIPTS, "check"])
def test_the_scripts_are_shell(name):
    """The plain shell of Debian reads them."""
    assert subprocess.run(["sh", "-n", DEB / name], capture_output=True, check=False).stderr == b""
    assert (DEB / name).read_text().startswith("#!/bin/sh\n")


def test_the_maintainer_scripts_end_at_the_first_fault():
    """None goes on after a command that failed without a word."""
    for name in build.SCRIPTS:
        assert "\nset -e\n" in (DEB / name).read_text()


def test_units_and_scripts_name_one_place():
    """What the unit starts is what the package brings."""
    unit = (ROOT / "packaging" / "esgf-gossip.service").read_text()
    programs = set(re.findall(r"^Exec\w+=(\S+)", unit, re.MULTILINE))
    assert programs == {f"/{build.PLACE}/bin/esgf-gossip"}
    for name in ("postinst", "prerm"):
        assert f"/{build.PLACE}/bin/esgf-gossip" in (DEB / name).read_text()


@pytest.fixture
def environment(tmp_path):
    """An environment as pip leaves it, in a folder with a blank in its name, which makes scripts begin otherwise."""
    place = tmp_path / "a stage"
    (place / "bin").mkdir(parents=True)
    packages = place / "lib/python3.11/site-packages/esgf_gossip-1.dist-info"
    packages.mkdir(parents=True)
    (place / "bin/esgf-gossip").write_text(
        f"#!/bin/sh\n'''exec' \"{place}/bin/python\" \"$0\" \"$@\"\n' '''\nimport sys\n"
    )
    (place / "bin/twist").write_text(f"#!{place}/bin/python\nimport sys\n")
    (place / "bin/activate").write_text(f'VIRTUAL_ENV="{place}"\n')
    (place / "bin/pygmentize").write_text("#!/usr/bin/python3\n")
    (place / "bin/python").symlink_to("/usr/bin/python3")
    (place / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = /usr/bin/python3 -m venv {place}\n")
    (packages / "direct_url.json").write_text(f'{{"url": "file://{place}"}}')
    (packages / "RECORD").write_text(
        "esgf_gossip/__init__.py,sha256=abc,10\n../../../bin/esgf-gossip,sha256=def,20\n"
        "esgf_gossip-1.dist-info/direct_url.json,sha256=ghi,30\n"
    )
    return place


def test_an_environment_works_in_another_place(environment):
    """Every script starts the Python of that place, only our programs are there, nothing names the place of the build."""
    build.relocate(environment)
    assert sorted(path.name for path in (environment / "bin").iterdir()) == ["esgf-gossip", "python", "twist"]
    for script in ("esgf-gossip", "twist"):
        assert (environment / "bin" / script).read_text() == "#!/opt/esgf-gossip/bin/python\nimport sys\n"
    record = next(environment.rglob("RECORD")).read_text()
    assert record == "esgf_gossip/__init__.py,sha256=abc,10\n../../../bin/esgf-gossip,,\n"
    assert not list(environment.rglob("direct_url.json"))


def test_a_file_that_names_the_place_of_the_build_is_refused(environment):
    """It would work here and nowhere else."""
    (environment / "lib/odd.pth").write_text(f"{environment}/lib\n")
    with pytest.raises(build.BuildError, match=r"^lib/odd\.pth names the folder of the build"):
        build.relocate(environment)


def test_modes_and_times_are_those_of_a_package(environment):
    """Whatever the umask was; libraries are not programs."""
    (environment / "lib/x.cpython-311.so").touch(0o700)
    (environment / "bin/twist").chmod(0o700)
    build.set_modes_and_times(environment, 1_000_000_000)
    modes = {path.name: path.stat().st_mode & 0o777 for path in environment.rglob("*") if path.is_file()}
    assert (modes["twist"], modes["x.cpython-311.so"], modes["RECORD"]) == (0o755, 0o644, 0o644)
    assert {path.lstat().st_mtime for path in environment.rglob("*")} == {1_000_000_000}


def test_the_size_is_that_of_every_file_system(environment):
    """Folders and links count one, files what they hold, begun kibibytes whole: so two builds are equal to the byte."""
    for path in list(environment.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(b"x" * 1025)
    files = sum(path.is_file() and not path.is_symlink() for path in environment.rglob("*"))
    assert build.installed_kib(environment) == files + len(list(environment.rglob("*")))


@pytest.mark.parametrize("python", ["/nowhere/python", sys.executable])
def test_a_python_that_other_hosts_do_not_have_is_refused(python, tmp_path):
    """One line, and nothing is built."""
    done = subprocess.run(
        [sys.executable, DEB / "build.py", "--python", python, "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"deb: error: {python} is not ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_unit_lets_the_daemon_write_where_it_must():
    """State, trust and outputs; a CRL that comes by gossip is put into force under trust. All else is read-only."""
    unit = (ROOT / "packaging" / "esgf-gossip.service").read_text()
    assert re.findall(r"^ReadWritePaths=(.*)$", unit, re.MULTILINE) == [
        "-/etc/esgf-gossip/trust",
        "-/esg/config",
    ]
    assert "\nStateDirectory=esgf-gossip\n" in unit
    assert "\nProtectSystem=strict\n" in unit
