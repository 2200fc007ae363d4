"""
A federation of two versions: half on an older commit, half on this one, both ways round; then every old node upgraded.

Run: python benchmarks/mixed_versions.py --old COMMIT [--nodes 6]. The old version is installed from its commit into a
folder of its own, with the libraries of this environment. Ends with 1 and the reason where something does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from esgf_gossip.demo.processes import DemoFederation
from federations import ask, has_one_root, wait

ROOT = Path(__file__).resolve().parents[1]


def install(commit: str, folder: Path) -> Path:
    """Install a commit of this repository into a folder; return what PYTHONPATH needs."""
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, capture_output=True).stdout
    source, target = folder / "source", folder / "old"
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(source, filter="data")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    subprocess.run(command, check=True)
    return target


class Mixed:
    """A federation some of whose nodes run the old version."""

    def __init__(self, directory: Path, count: int, old: Path) -> None:
        self.federation = DemoFederation(directory, count)
        self._old = old

    def start(self, hosts: Iterable[str], *, is_old: bool) -> None:
        """Start nodes with one of the versions."""
        before = os.environ.get("PYTHONPATH")
        if is_old:
            os.environ["PYTHONPATH"] = str(self._old)
        try:
            for host in hosts:
                self.federation.start(host)
        finally:
            os.environ.pop("PYTHONPATH", None)
            if before is not None:
                os.environ["PYTHONPATH"] = before

    def long_names(self, subject: str) -> set[str]:
        """Return what each node says of one property of a node."""
        return {
            self.federation.control(host).ask("node", host=subject)["long_name"]
            for host in self.federation.hosts
        }

    def change(self, host: str, text: str) -> float:
        """Change a property of a node; return the seconds until all know."""
        path = self.federation.config_path(host).parent / "esgf.properties"
        lines = [line for line in path.read_text().splitlines() if not line.startswith("node.long.name=")]
        path.write_text("\n".join([*lines, f"node.long.name={text}", ""]))
        self.federation.control(host).ask("reload")
        return wait(f"all know what {host} says", lambda: self.long_names(host) == {text})


def run(old: Path, count: int, *, old_first: bool) -> dict[str, float]:
    """Run one federation; return the seconds each step took."""
    told: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="mixed-") as folder:
        mixed = Mixed(Path(folder), count, old)
        with mixed.federation as federation:
            federation.prepare()
            hosts = federation.hosts
            # The seed of the others is the first: of the old version in one round, of this one in the other.
            is_old = {host: (place % 2 == 0) is old_first for place, host in enumerate(hosts)}
            for host in hosts:
                mixed.start([host], is_old=is_old[host])
            told["converge_s"] = wait("one root over both versions", lambda: has_one_root(federation))
            olds, news = ([host for host in hosts if is_old[host] is which] for which in (True, False))
            told["old_to_new_s"] = mixed.change(olds[0], "said by the old")
            told["new_to_old_s"] = mixed.change(news[0], "said by the new")
            federation.kill(news[1])
            watcher = olds[1]
            told["death_s"] = wait(
                "the old see a new one die",
                lambda: federation.control(watcher).ask("node", host=news[1])["status"] == "unreachable",
            )
            mixed.start([news[1]], is_old=False)
            for host in olds:
                before = ask(federation, host, "status")
                federation.terminate(host)
                mixed.start([host], is_old=False)
                wait(
                    f"{host} is upgraded",
                    lambda host=host, before=before: (
                        (ask(federation, host, "status") or before)["epoch"] > before["epoch"]
                    ),
                )
            told["upgraded_s"] = wait("one root after the upgrade of all", lambda: has_one_root(federation))
            if mixed.long_names(olds[0]) != {"said by the old"}:
                raise SystemExit("the upgrade lost what was said before")
    return told


def main() -> None:
    """Run both rounds and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", required=True, help="commit of the older version")
    parser.add_argument("--nodes", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="old-version-") as folder:
        old = install(arguments.old, Path(folder))
        for old_first in (True, False):
            figures = run(old, arguments.nodes, old_first=old_first)
            print(json.dumps({"seed": "old" if old_first else "new", **figures}), flush=True)


if __name__ == "__main__":
    main()
