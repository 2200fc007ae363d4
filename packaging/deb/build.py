"""
Build the Debian package with dpkg-deb: an environment of its own under /opt/esgf-gossip, links, units, scripts.

    make deb                                  build/esgf-gossip_VERSION_ARCHITECTURE.deb
    python packaging/deb/build.py --help

Run it with a Python that has pip, build and hatchling (the extra ``test``). The libraries
come from where pip takes them: PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX and PIP_CONSTRAINT count.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
PLACE: Final = "opt/esgf-gossip"
SCRIPTS: Final = ("preinst", "postinst", "prerm", "postrm")
COMMANDS: Final = ("esgf-gossip", "trust-admin")
# Of what the libraries bring along these alone are ours to offer.
PROGRAMS: Final = (*COMMANDS, "twist", "twistd", "python", "python3")
UNITS: Final = ("esgf-gossip.service", "esgf-gossip.socket")
MAINTAINER: Final = "The esgf-gossip developers <esgf-gossip@esgf.invalid>"
# 3.11 is what the code needs.
OLDEST_PYTHON: Final = (3, 11)
# A script whose interpreter has a long name, or one with a blank, begins with these lines.
_LONG_SHEBANG: Final = re.compile(rb"\A#!/bin/sh\n'''exec' .*\n' '''\n")
_SHEBANG: Final = re.compile(rb"\A#!.*\n")


class BuildError(Exception):
    """Say in one line why there is no package, and what to do."""


def debian_version(version: str) -> str:
    """Return a version of Python's form in Debian's: what comes before a release sorts before it there too."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)", r"~\1\2", version)


def own_version() -> str:
    """Read the version of the checkout."""
    text = (ROOT / "src/esgf_gossip/__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise BuildError("src/esgf_gossip/__init__.py has no __version__; run this in a checkout")
    return found[1]


def control(version: str, architecture: str, python: tuple[int, int], size_kib: int, maintainer: str) -> str:
    """Return the control file."""
    fields = {
        "VERSION": debian_version(version),
        "ARCHITECTURE": architecture,
        "MAINTAINER": maintainer,
        "SIZE_KIB": str(size_kib),
        "PYTHON": f"{python[0]}.{python[1]}",
        "NEXT_PYTHON": f"{python[0]}.{python[1] + 1}",
    }
    return re.sub("@([A-Z_]+)@", lambda found: fields[found[1]], (HERE / "control.in").read_text())


def relocate(environment: Path, place: str = f"/{PLACE}") -> None:
    """
    Make an environment work in another place, and forget where it was made.

    Raises:
        BuildError: a file still names the old place.
    """
    old = os.fsencode(environment)
    for script in (environment / "bin").iterdir():
        if script.name not in PROGRAMS and not script.is_symlink():
            script.unlink()
        if not script.is_file() or script.is_symlink():
            continue
        content = script.read_bytes()
        shebang = _LONG_SHEBANG.match(content) or _SHEBANG.match(content)
        if shebang and old in shebang[0]:
            script.write_bytes(f"#!{place}/bin/python\n".encode() + content[shebang.end() :])
    settings = environment / "pyvenv.cfg"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("command")]
    settings.write_text("\n".join(lines) + "\n")
    for record in environment.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        (record.parent / "direct_url.json").unlink(missing_ok=True)
        record.write_text("".join(_recorded(line) for line in record.read_text().splitlines(keepends=True)))
    files = (path for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    left = [path for path in files if old in path.read_bytes()]
    if left:
        raise BuildError(f"{left[0].relative_to(environment)} names the folder of the build; mend relocate()")


def _recorded(line: str) -> str:
    """Return a line of RECORD as it is true now: other scripts have been written, and one file is gone."""
    name = line.split(",", 1)[0]
    if name.endswith("/direct_url.json"):
        return ""
    return f"{name},,\n" if name.startswith("../../../bin/") else line


def run(*command: str | Path, **environment: str) -> str:
    """
    Run a tool and return what it prints.

    Raises:
        BuildError: it is missing or fails.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}
        )
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not there; install it, or name another") from None
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no word of why"]
        raise BuildError(f"{' '.join(str(word) for word in command[:4])} failed: {words[-1]}")
    return done.stdout


def python_version(python: str) -> tuple[int, int]:
    """
    Return the version of the Python that the package will use.

    Raises:
        BuildError: it is none, too old, or an environment, whose paths no other host has.
    """
    told = run(
        python, "-c", "import sys; print(*sys.version_info[:2], sys.prefix == sys.base_prefix, sys.prefix)"
    )
    # The prefix may have blanks in it.
    major, minor, is_system, prefix = told.strip().split(maxsplit=3)
    if is_system != "True" or prefix != "/usr":
        raise BuildError(f"{python} is not the Python of the system; give it with --python /usr/bin/python3")
    if (int(major), int(minor)) < OLDEST_PYTHON:
        raise BuildError(f"{python} is Python {major}.{minor}; 3.11 or newer is needed")
    return int(major), int(minor)


def make_environment(folder: Path, python: str, epoch_s: int) -> None:
    """Make the environment with everything in it, compiled, as it will lie under /opt."""
    run(python, "-m", "venv", "--without-pip", "--symlinks", folder)
    with tempfile.TemporaryDirectory(dir=folder.parent) as wheels:
        run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", wheels)
        (wheel,) = Path(wheels).glob("*.whl")
        pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet")
        run(
            *pip,
            "--no-compile",
            "--only-binary",
            ":all:",
            f"{wheel}[postgres]",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
        )
    for stray in folder.rglob(".gitignore"):
        stray.unlink()
    # Twisted's list of plugins, which the daemon's user could not write.
    run(folder / "bin/python", "-B", "-m", "twisted", "--help")
    next(folder.rglob("dropin.cache")).chmod(0o644)
    relocate(folder)
    set_modes_and_times(folder, epoch_s)
    library = next(folder.glob("lib/python*"))
    # By time, and all times are set: what is compiled counts on every host.
    compiling = ("-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "timestamp")
    run(folder / "bin/python", *compiling, "-s", folder, "-p", f"/{PLACE}", library)


def set_modes_and_times(folder: Path, epoch_s: int) -> None:
    """Give all files the modes and times of a package, whatever the umask and the clock are."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            is_program = path.stat().st_mode & 0o100 and ".so" not in path.suffixes
            path.chmod(0o755 if path.is_dir() or is_program else 0o644)
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


def lay_out(stage: Path, version: str, maintainer: str, epoch_s: int) -> None:
    """Put everything but the environment into its place."""
    for folder in ("usr/bin", "usr/lib/systemd/system", "usr/share/lintian/overrides"):
        (stage / folder).mkdir(parents=True)
    for command in COMMANDS:
        (stage / "usr/bin" / command).symlink_to(f"/{PLACE}/bin/{command}")
    for unit in UNITS:
        shutil.copyfile(ROOT / "packaging" / unit, stage / "usr/lib/systemd/system" / unit)
    shutil.copyfile(HERE / "lintian-overrides", stage / "usr/share/lintian/overrides/esgf-gossip")
    write_man_pages(stage / "usr/share/man/man1", epoch_s)
    share = stage / "usr/share/esgf-gossip"
    share.mkdir()
    shutil.copy(ROOT / "packaging/publisher-credentials", share)
    documents = stage / "usr/share/doc/esgf-gossip"
    documents.mkdir(parents=True)
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.*"))):
        shutil.copyfile(path, documents / path.name)
    for name in ("nginx", "apache", "ansible", "container"):
        shutil.copytree(ROOT / "packaging" / name, documents / "examples" / name)
    licence = (ROOT / "LICENSE").read_text().split("\n\n", 2)[2].rstrip()
    indented = "\n".join(f" {line}".rstrip() if line else " ." for line in licence.splitlines())
    (documents / "copyright").write_text((HERE / "copyright.in").read_text() + indented + "\n")
    date = run("date", "--utc", "-R", f"--date=@{epoch_s}").strip()
    changes = f"esgf-gossip ({debian_version(version)}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
    changes += f" -- {maintainer}  {date}\n"
    (documents / "changelog.gz").write_bytes(gzip.compress(changes.encode(), mtime=0))


def write_man_pages(folder: Path, epoch_s: int) -> None:
    """Write the man pages of all commands, compressed as Debian has them."""
    folder.mkdir(parents=True)
    date = run("date", "--utc", "+%Y-%m-%d", f"--date=@{epoch_s}").strip()
    run(sys.executable, ROOT / "packaging/man_pages.py", folder, date)
    for page in sorted(folder.iterdir()):
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()


def checksums(stage: Path) -> str:
    """Return the MD5 sums that dpkg --verify compares."""
    lines = []
    for path in sorted(stage.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            lines.append(f"{digest}  {path.relative_to(stage)}\n")
    return "".join(lines)


def installed_kib(stage: Path) -> int:
    """Return the size in Debian's sense: of a folder or a link it is one, whatever this file system takes."""
    return sum(
        -(-path.stat().st_size // 1024) if path.is_file() and not path.is_symlink() else 1
        for path in stage.rglob("*")
    )


def build(output: Path, python: str, maintainer: str) -> Path:
    """
    Build the package and return its path; a package of that name is replaced when the new one is whole.

    Raises:
        BuildError: a tool is missing or failed.
    """
    version, python_is = own_version(), python_version(python)
    architecture = run("dpkg", "--print-architecture").strip()
    epoch_s = int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct").strip())
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"esgf-gossip_{debian_version(version)}_{architecture}.deb"
    with tempfile.TemporaryDirectory(dir=output) as folder:
        stage = Path(folder) / "package"
        (stage / PLACE).parent.mkdir(parents=True)
        make_environment(stage / PLACE, python, epoch_s)
        lay_out(stage, version, maintainer, epoch_s)
        sums = checksums(stage)
        size_kib = installed_kib(stage)
        (stage / "DEBIAN").mkdir()
        (stage / "DEBIAN/md5sums").write_text(sums)
        (stage / "DEBIAN/control").write_text(control(version, architecture, python_is, size_kib, maintainer))
        for script in SCRIPTS:
            shutil.copyfile(HERE / script, stage / "DEBIAN" / script)
            (stage / "DEBIAN" / script).chmod(0o755)
        set_modes_and_times(stage, epoch_s)
        whole = Path(folder) / package.name
        run("dpkg-deb", "--root-owner-group", "--build", stage, whole, SOURCE_DATE_EPOCH=str(epoch_s))
        whole.replace(package)
    return package


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the package; 1 where there is none, with the reason on stderr."""
    parser = argparse.ArgumentParser(
        description="Build the Debian package of esgf-gossip.", epilog="Example: make deb"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build", help="folder of the package (%(default)s)"
    )
    parser.add_argument("--python", default="/usr/bin/python3", help="the Python it will use (%(default)s)")
    parser.add_argument("--maintainer", default=MAINTAINER, help="name <address> for the control file")
    options = parser.parse_args(arguments)
    try:
        print(build(options.output.absolute(), options.python, options.maintainer))
    except BuildError as error:
        sys.stderr.write(f"deb: error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
